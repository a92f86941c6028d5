//! Durable state: who owns an id, the callbacks that came for it, their way to the teams, and the URLs that teams set.
//!
//! Invariants, of every engine: what a method acknowledged is there after any crash; ids, references, bodies and URLs are
//! stored encrypted, under names that are HMACs; a callback is fanned out whole or not at all, and gives each reference
//! that waits for it exactly one delivery, whatever the order in which callbacks and owners come; a delivery is in the
//! hands of one claimant at a time until its lease ends.
//!
//! A *record* is an id at an account. Its way: [`own`](State::own) says whose it is; [`receive`](State::receive) stores
//! what came; [`waiting`](State::waiting) hands that out with the owners, and [`settle`](State::settle) turns it into
//! deliveries; [`claim`](State::claim) hands those out, and [`conclude`](State::conclude) notes what became of them.

mod engine;
mod envelopes;
mod error;
mod leases;
mod membership;
mod model;
mod redis;
mod sentinels;
mod sqlite;
mod times;

pub use self::redis::Redis;
pub use engine::State;
pub use envelopes::{CallbackName, DeliveryId, NotADeliveryId};
pub use error::StateError;
pub use membership::{IDENTITY_LEASE, IdentityTaken, Membership, Standing};
pub use model::{
    Awaiting, Callback, Copy, Cursor, Delivery, DeliveryOutcome, DeliveryStatus, EARLY, Erased, LATE, Listed,
    MOST_LISTED, Made, Outbox, Owner, Owning, Page, Queues, Receipt, Replay, Verdict, Waiting,
};
pub use sentinels::{KeyError, Sentinels, WrongKey, verify_database, verify_file};
pub use sqlite::{MIGRATIONS, Sqlite};
