//! Durable state, in SQLite or in Redis.
//!
//! It holds the owners of records, the received callbacks and their deliveries, the callback URLs that teams set, and
//! the pauses of these URLs. It also holds the idempotency keys with their answers, the API keys and suspensions made
//! by orders, the sessions of people, the audit log, and the receipts of erasures.
//!
//! Invariants of every engine:
//! - An acknowledged change survives any crash (in Redis, as far as Redis itself is durable).
//! - Iluma's ids, references, bodies and URLs are stored encrypted. The stored names of records, callbacks and persons
//!   are keyed hashes.
//! - A callback is fanned out whole or not at all. It makes exactly one delivery for each waiting reference, whether
//!   the callback or the owner comes first.
//! - A delivery has at most one holder at a time: it is not handed out again until the holder's lease ends.
//!
//! A *record* is one of Iluma's ids at one account. [`own`](State::own) adds an owner; [`receive`](State::receive)
//! stores a callback; [`waiting`](State::waiting) hands the callback out with its owners, and [`settle`](State::settle)
//! turns it into deliveries; [`claim`](State::claim) hands the deliveries out, and [`conclude`](State::conclude) stores
//! their outcome.

mod attempts;
mod audit;
mod engine;
mod envelopes;
mod erasures;
mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod idempotency;
mod leases;
mod membership;
mod model;
mod pauses;
mod redis;
mod registry;
mod sentinels;
mod sessions;
mod shared_log;
mod sqlite;
mod times;

pub use self::redis::Redis;
pub use attempts::{AttemptError, AttemptRecord, AttemptResult, MOST_KEPT};
pub use audit::{AUDIT_MIGRATIONS, AuditLog, BEGUN, Entry, Ordered, audit_beside};
pub use engine::State;
pub use envelopes::{CallbackName, DeliveryId, NotADeliveryId};
pub use erasures::{
    ERASURES_MIGRATIONS, ErasedCounts, ErasureReceipt, Erasures, NodeOutcome, NodeState, StoredReceipt, keep_receipts,
    persons_of, stored_receipts,
};
pub use error::StateError;
pub use idempotency::{ClaimEnd, ClaimId, ClaimToken, Claimed, Claiming, Holder, KEPT};
pub use membership::{IDENTITY_LEASE, IdentityClaim, IdentityTaken, Membership, ReportedNode};
pub use model::{
    Awaiting, Callback, Conclusion, Copy, Cursor, Deleted, Delivery, DeliveryOutcome, DeliveryStatus, EARLY, Erased,
    FanOutDecision, Found, LATE, Listed, MOST_LISTED, Made, Outbox, Owner, Owning, Page, Queues, ReceiveOutcome,
    Replay, Waiting,
};
pub use pauses::{Endpoint, FAILING, PROBE_INTERVAL, Pause, PauseReason, Resume};
pub use registry::{
    ActiveKey, Announce, KeyInfo, KeyOrderError, KeyTable, NewKey, REGISTRY_MIGRATIONS, Registry, Source, Taken, grace,
};
pub use sentinels::{KeyError, Sentinels, WrongKey, verify_database, verify_file};
pub use sessions::{MOST_SESSIONS, SessionKind, StoredSession};
pub use shared_log::{LogEntries, LogPage};
pub use sqlite::{MIGRATIONS, Sqlite};
