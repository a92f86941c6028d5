//! State in a Redis that several gateways share.
//!
//! Each method is a script, which Redis runs as one step; where one would touch more than it may at once, it goes on in
//! further steps, each of which leaves what is there whole: a callback counts as fanned out with the last of its deliveries,
//! and a step that was done already is not done twice. `src/redis/scripts/state/prelude.lua` names the keys and the moves. What nobody
//! answered for (`Unavailable`) may have been done all the same; every method but [`enqueue`](super::State::enqueue) may
//! be repeated.
//!
//! A team's queue is a sorted set by the time at which deliveries are due. A stream with a consumer group would hand them
//! out in the order in which they came, to whoever asks; retries in hours, a share for each team, replays and erasures
//! would all need a second structure beside it. The inbox is a sorted set for the same reason: early callbacks wait.
//!
//! Times: leases, due times and retention are all by Redis' own clock. What callers say by theirs is translated by what the
//! last answers told of the difference ([`Skew`]), so a node whose clock is wrong gets nothing early and holds nothing
//! longer. After a failover the clock is another machine's: a lease is longer or shorter by how these two differ. Times in
//! lists are Redis'.
//!
//! Nodes: a hand-out has a fencing token, and the holder of an older token changes nothing any more but "the team has it". Waiters are
//! woken by what happens at their own node; what happens at others they find at their next look.
//!
//! Durability is what the Redis is configured to: [`concerns`](super::State::concerns) says what is amiss. Replicas get
//! what was acknowledged a moment later: a failover in that moment loses it. The file of appended commands holds what was
//! erased, encrypted, until Redis rewrites it. It is one Redis and its replicas, no
//! cluster: a script touches keys that it finds by others.

mod engine;
mod fields;
mod hand_out;
mod inbox;
mod lists;
mod outbox;
mod owners;
mod retention;
mod skew;

pub use engine::Redis;
