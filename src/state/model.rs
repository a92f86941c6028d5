//! The types of durable state, as callers store and read them.
//!
//! Invariant: no type depends on the engine that stores it.

use super::attempts::AttemptRecord;
use super::envelopes::{CallbackName, DeliveryId};
use super::times::millis;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// The time for which a callback without an owner waits for an owner. The callback may arrive before the answer to the
/// request that caused it; that answer gives the record its owner. The time is twice the default deadline of an answer.
pub const EARLY: Duration = Duration::from_secs(60);

/// The time for which a callback is kept after its fan-out, for teams that become owners later. Other requests can
/// share a pending request for the same time.
pub const LATE: Duration = Duration::from_secs(600);

/// The largest number of entries on a page of a list.
pub const MOST_LISTED: usize = 1000;

/// The pause before an entry that could not be decrypted is tried again. It is long, because a missing key returns only
/// with an operator's reload.
pub(super) const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

/// The largest number of references of one team that wait for the callbacks of one record. Each identical request adds
/// at most one reference while the record is pending.
pub(super) const MOST_AWAITING: usize = 1000;

/// A new owner of a record.
#[derive(Debug, Clone)]
pub struct Owning {
    /// The account of the record.
    pub account: AccountName,
    /// Iluma's id of the record.
    pub id: String,
    /// The team that becomes an owner.
    pub tenant: TenantName,
    /// The team's own reference as JSON text with its quotes; `None` if the request had none.
    pub reference: Option<Bytes>,
    /// The type of Iluma's callbacks about the record, if the route determines it.
    pub kind: Option<CallbackType>,
    /// True if Iluma's callback is to be delivered with this reference: the team's request reached Iluma, was collapsed
    /// with such a request, or shares a pending request. False if the team was answered from the cache.
    pub awaits: bool,
    /// The tags of the persons that the record names.
    pub tags: Vec<Tag>,
    /// The time of the request. The reference is not stored if one of the persons was erased after this time.
    pub asked: SystemTime,
}

/// An owner of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The team.
    pub tenant: TenantName,
    /// The team's newest reference as JSON text; `None` if the team gave none, or if the reference was erased.
    pub reference: Option<Bytes>,
    /// The time at which the team was last stored as an owner. Each later request of the team about the record renews
    /// this time.
    pub since: SystemTime,
}

/// A callback that arrived with a valid token.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The account of the callback.
    pub account: AccountName,
    /// The callback's type, if the path names it.
    pub kind: Option<CallbackType>,
    /// Iluma's id of the record.
    pub id: String,
    /// The body.
    pub body: Bytes,
    /// The tags of the persons that the body names.
    pub tags: Vec<Tag>,
}

/// The result of storing a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveOutcome {
    /// The callback is stored.
    New,
    /// A callback with the same record and the same body is stored already, so nothing changed.
    Repeat,
}

/// A callback that is handed out for its fan-out.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The callback's name in state, by which its fan-out decision is stored.
    pub name: CallbackName,
    /// The account of the callback.
    pub account: AccountName,
    /// The callback's type, from the path or else from an owner; `None` if neither names a type.
    pub kind: Option<CallbackType>,
    /// Iluma's id of the record.
    pub id: String,
    /// The body.
    pub body: Bytes,
    /// The time at which the callback was received.
    pub received: SystemTime,
    /// The teams and references that wait for the callback.
    pub awaiting: Vec<Awaiting>,
    /// The fencing token under which the callback was handed out. The engine compares it to see if the callback has
    /// changed since then.
    pub(super) fencing_token: i64,
    /// The fencing token of the lease in memory; 0 if the leases are in Redis.
    pub(super) lease: i64,
}

/// A team that expects a record's callbacks, with the reference of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaiting {
    /// The team.
    pub tenant: TenantName,
    /// The team's reference as JSON text; `None` if the team gave none, or if the reference was erased.
    pub reference: Option<Bytes>,
    /// True if the record's person was erased. Then the references were erased too.
    pub erased: bool,
}

/// The decision about a callback.
#[derive(Debug, Clone)]
pub enum FanOutDecision {
    /// One delivery of this type is made for each of these copies; the list may be empty.
    Deliver(CallbackType, Vec<Copy>),
    /// No owner is known yet: the callback is examined again at this time, or when an owner is added.
    Wait(SystemTime),
    /// The callback has no owner: it is set aside for operators.
    Unowned,
}

/// A team's copy of a callback, for one of the team's references.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The team.
    pub tenant: TenantName,
    /// The team's reference as JSON text; `None` if the team gave none.
    pub reference: Option<Bytes>,
    /// The body that is sent to the team.
    pub body: Bytes,
}

/// A callback that the gateway made itself, because the team's request was answered from the cache.
#[derive(Debug, Clone)]
pub struct Made {
    /// The account of the record.
    pub account: AccountName,
    /// Iluma's id of the record.
    pub id: String,
    /// The callback's type.
    pub kind: CallbackType,
    /// The team, the team's reference, and the body that is sent to the team.
    pub copy: Copy,
    /// The tags of the persons that the body names.
    pub tags: Vec<Tag>,
}

/// A delivery that was handed out to be sent, under a lease.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The delivery's id, the same at every attempt.
    pub id: DeliveryId,
    /// The team that gets the delivery.
    pub tenant: TenantName,
    /// The account of the record.
    pub account: AccountName,
    /// The type of the callback, which selects one of the team's URLs.
    pub kind: CallbackType,
    /// The body that is sent.
    pub body: Bytes,
    /// The number of failed attempts.
    pub attempts: u32,
    /// The number of failed attempts that were probes of a paused endpoint. The retry schedule does not count these
    /// attempts.
    pub probes: u32,
    /// True if the delivery is a probe of a paused endpoint.
    pub is_probe: bool,
    /// The time at which the delivery's callback was received, or made by the gateway.
    pub received: SystemTime,
    /// The history of attempts in its stored form, which [`parsed`](super::attempts::parsed) reads.
    pub(super) history: String,
    /// The fencing token of the hand-out.
    pub(super) fencing_token: i64,
}

/// The end of a hand-out: the outcome of the delivery, and the attempt, if one was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conclusion {
    /// The outcome of the delivery.
    pub outcome: DeliveryOutcome,
    /// The attempt; `None` if none was made.
    pub attempt: Option<AttemptRecord>,
}

impl From<DeliveryOutcome> for Conclusion {
    fn from(outcome: DeliveryOutcome) -> Self {
        Self { outcome, attempt: None }
    }
}

/// The outcome of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The team has received the delivery.
    Delivered,
    /// The attempt failed; the next attempt follows at this time.
    Retry(SystemTime),
    /// The last attempt failed: the delivery is a dead letter.
    Dead,
    /// A probe of a paused endpoint failed. The failure does not change the time of the delivery's next attempt.
    Probed,
    /// No attempt was made: the callback URL could not be read, or the task that took the delivery was cancelled.
    Untried,
}

impl DeliveryOutcome {
    /// Returns the number of failed attempts after this outcome, and the number of probes among them.
    pub(super) const fn counts(self, delivery: &Delivery) -> (u32, u32) {
        let (attempts, probes) = (delivery.attempts, delivery.probes);
        match self {
            Self::Delivered | Self::Untried => (attempts, probes),
            Self::Dead | Self::Retry(_) => (attempts.saturating_add(1), probes),
            Self::Probed => (attempts.saturating_add(1), probes.saturating_add(1)),
        }
    }
}

/// The status by which operators list entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// Deliveries that are still to be sent.
    Queued,
    /// Dead letters.
    Dead,
    /// Deliveries that the team has received.
    Delivered,
    /// Callbacks without an owner.
    Unowned,
}

/// The part of a list that a caller asks for: its filters, its beginning and its length.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only entries of this team; `None` for all teams.
    pub tenant: Option<TenantName>,
    /// Only entries of this type; `None` for all types.
    pub kind: Option<CallbackType>,
    /// Only entries from this time on; `None` for no lower bound. The time of a dead or delivered entry is its end; the
    /// time of a queued or unowned entry is its receipt.
    pub since: Option<SystemTime>,
    /// Only entries until this time, inclusive; `None` for no upper bound. Entries have the same times as for `since`.
    pub until: Option<SystemTime>,
    /// The last entry of the previous page; `None` for the first page.
    pub after: Option<Cursor>,
    /// The largest number of entries; at most [`MOST_LISTED`].
    pub most: usize,
}

/// The position of an entry in its list. Lists are sorted by time, and then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The time by which the list is sorted, in milliseconds since 1970.
    pub at: i64,
    /// The entry's id.
    pub id: DeliveryId,
}

/// An entry of a list, without personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The position in the list. A replay takes the cursor's id. The cursor's time is the due time of a queued entry,
    /// the end of a dead or delivered entry, or the time at which an unowned entry will be removed.
    pub cursor: Cursor,
    /// The team; `None` if the entry has no owner.
    pub tenant: Option<TenantName>,
    /// The record's account.
    pub account: AccountName,
    /// The callback's type; `None` if it is not known.
    pub kind: Option<CallbackType>,
    /// Iluma's id; `None` if it can't be decrypted.
    pub upstream_id: Option<String>,
    /// The number of failed attempts.
    pub attempts: u32,
    /// The newest attempt; `None` if there was none.
    pub last: Option<AttemptRecord>,
    /// The time at which the callback was received.
    pub received: SystemTime,
}

impl Page {
    /// Returns true if the page filters its list by type or by time.
    pub(super) const fn is_filtered(&self) -> bool {
        self.kind.is_some() || self.since.is_some() || self.until.is_some()
    }

    /// Returns true if the entry has the page's type, and its time is within the page's times. For dead and delivered
    /// entries this time is `at`, by which the list is sorted; for the others it is `received`. Both are in
    /// milliseconds since 1970.
    pub(super) fn takes(&self, status: DeliveryStatus, kind: Option<CallbackType>, at: i64, received: i64) -> bool {
        let time = match status {
            DeliveryStatus::Dead | DeliveryStatus::Delivered => at,
            DeliveryStatus::Queued | DeliveryStatus::Unowned => received,
        };
        (self.kind.is_none() || self.kind == kind)
            && self.since.is_none_or(|since| time >= millis(since))
            && self.until.is_none_or(|until| time <= millis(until))
    }
}

/// An entry with its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The status of the entry.
    pub status: DeliveryStatus,
    /// The entry as its list shows it.
    pub entry: Listed,
    /// The kept attempts, oldest first.
    pub history: Vec<AttemptRecord>,
}

/// The outcome of the deletion of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The dead letter is deleted.
    Done,
    /// The entry is not a dead letter, so nothing was deleted.
    NotDead,
    /// No entry has this id, or the content of the entry is not kept.
    Unknown,
}

/// The deliveries to send again. Their retry schedule starts again from the first attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The delivery with this id, in any status, if its content is kept; or the unowned callback with this id, which
    /// waits for an owner again like a new callback.
    One(DeliveryId),
    /// The delivery with this id, if it belongs to this team.
    Own(TenantName, DeliveryId),
    /// All deliveries to this team that were delivered or became dead letters between these two times, inclusive. With
    /// `None` as the end, the period ends now.
    Since(TenantName, SystemTime, Option<SystemTime>),
    /// All dead letters of this team; of all teams for `None`.
    AllDead(Option<TenantName>),
}

/// The size of a team's outbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outbox {
    /// The team.
    pub tenant: TenantName,
    /// The number of queued deliveries.
    pub queued: u64,
    /// The bytes of the queued deliveries, as stored.
    pub queued_bytes: u64,
    /// The number of dead letters.
    pub dead: u64,
}

/// The sizes of all queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// The outbox of each team that has queued deliveries or dead letters.
    pub tenants: Vec<Outbox>,
    /// The number of callbacks that wait for their fan-out.
    pub waiting: u64,
    /// The number of callbacks without an owner.
    pub unowned: u64,
    /// The time at which the oldest queued delivery's callback was received; `None` if no delivery is queued.
    pub oldest: Option<SystemTime>,
}

/// The numbers of entries that an erasure removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Owners of the erased records. Only their references were removed: the teams stay owners.
    pub owners: u64,
    /// Callbacks that waited for their fan-out, or had no owner.
    pub callbacks: u64,
    /// Deliveries: queued, dead and delivered.
    pub deliveries: u64,
    /// Answers that were kept for requests with an idempotency key.
    pub answers: u64,
}

impl Waiting {
    /// Makes a callback that is received now, for unit tests.
    #[cfg(test)]
    #[must_use]
    pub fn example(account: &str, kind: Option<CallbackType>, id: &str, body: Bytes, awaiting: Vec<Awaiting>) -> Self {
        Self {
            name: CallbackName([0; 32]),
            account: account.parse().expect("a name"),
            kind,
            id: id.into(),
            body,
            received: crate::base::clock::Clock::system().wall(),
            awaiting,
            fencing_token: 0,
            lease: 0,
        }
    }
}
