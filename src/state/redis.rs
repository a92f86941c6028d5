//! State in a Redis that several gateways share.
//!
//! Each method runs scripts, which Redis executes atomically. If one run would change too many entries, the method runs
//! the script several times. Each run leaves the data consistent: a callback counts as fanned out only with the last of
//! its deliveries, and a repeated run does no harm. `src/redis/scripts/state/prelude.lua` describes the keys and the
//! changes of status. A method that returned `Unavailable` may still have been executed; every method except
//! [`enqueue`](super::State::enqueue) may be repeated.
//!
//! A team's queue is a sorted set by due time. A stream with a consumer group would hand deliveries out in their order
//! of arrival to any consumer. Retries after hours, a share for each team, replays and erasures would all need a second
//! structure beside the stream. The inbox is a sorted set too, because a callback that arrives before its owner has to
//! wait.
//!
//! Times: leases, due times and retention follow Redis' own clock. Times from callers are converted by the difference
//! of the two clocks, which each answer measures (`Skew`). So a node with a wrong clock gets no entry early, and holds
//! no lease longer. After a failover the clock is another machine's: a lease is longer or shorter by the difference of
//! the two machines' clocks. Times in lists are those of Redis' clock.
//!
//! Nodes: a hand-out of deliveries or callbacks has a fencing token. The holder of an older token can store only one
//! outcome: that the team has received the delivery. A change by a node wakes the node's own waiting tasks; other nodes
//! find the new work at their next poll.
//!
//! Durability is that of Redis: [`durability_warnings`](super::State::durability_warnings) reports its weaknesses.
//! Replicas get an acknowledged change a moment later, and a failover in that moment loses the change. Received
//! callbacks and claims of idempotency keys are not lost in this way if `state.redis.replicas` is set: they are
//! acknowledged only when replicas have them. The append-only file contains erased data, encrypted, until Redis
//! rewrites it.

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
