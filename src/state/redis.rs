//! State in a Redis that several gateways share.
//!
//! Each method runs scripts, which Redis executes atomically. If a script would touch too many entries, the method runs
//! it in several steps. Each step leaves the data consistent: a callback counts as fanned out only with the last of its
//! deliveries, and a repeated step does nothing. `src/redis/scripts/state/prelude.lua` names the keys and the moves. A
//! method that returned `Unavailable` may still have been executed; every method except
//! [`enqueue`](super::State::enqueue) may be repeated.
//!
//! A team's queue is a sorted set by due time. A stream with a consumer group would hand deliveries out in their order
//! of arrival to any consumer; retries after hours, a share for each team, replays and erasures would all need a second
//! structure beside it. The inbox is a sorted set for the same reason: early callbacks wait.
//!
//! Times: leases, due times and retention follow Redis' own clock. The caller's times are translated by the difference
//! that the last answers showed (`Skew`), so a node with a wrong clock gets nothing early and holds nothing longer.
//! After a failover the clock is another machine's: a lease is longer or shorter by the difference of the two clocks.
//! Times in lists are those of Redis' clock.
//!
//! Nodes: a hand-out has a fencing token, and the holder of an older token can store only "the team has received it". A
//! change by a node wakes the node's own waiting tasks; other nodes find the new work at their next poll.
//!
//! Durability is that of Redis: [`durability_warnings`](super::State::durability_warnings) reports its weaknesses.
//! Replicas get an acknowledged change a moment later: a failover in that moment loses it. Callbacks and claims of
//! idempotency keys are safe from this, if `state.redis.replicas` makes them wait for replicas. The append-only file
//! contains erased data, encrypted, until Redis rewrites it.

mod endpoints;
mod engine;
mod fields;
mod hand_out;
mod idempotency;
mod inbox;
mod lists;
mod outbox;
mod owners;
mod retention;
mod sessions;
mod skew;

pub use engine::Redis;
