//! The types of durable state, as callers store and read them.
//!
//! Invariant: no type says how an engine stores it.

use super::attempts::AttemptRecord;
use super::envelopes::{CallbackName, DeliveryId};
use super::times::millis;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// The time for which a callback without an owner waits, because the answer to its POST may still bring the owner:
/// twice the default deadline of an answer.
pub const EARLY: Duration = Duration::from_secs(60);

/// The time for which a callback is kept for late owners after its fan-out: as long as a pending request is shared.
pub const LATE: Duration = Duration::from_secs(600);

/// The largest number of entries of a page.
pub const MOST_LISTED: usize = 1000;

/// The pause before an entry that could not be decrypted is tried again: a missing key returns only with an operator's
/// reload.
pub(super) const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

/// The largest number of a team's references that wait for one id: one for each identical request during its PENDING
/// time.
pub(super) const MOST_AWAITING: usize = 1000;

/// A new owner of a record.
#[derive(Debug, Clone)]
pub struct Owning {
    /// The account of the record.
    pub account: AccountName,
    /// Iluma's id.
    pub id: String,
    /// The team that becomes an owner.
    pub tenant: TenantName,
    /// The team's own reference as JSON text with its quotes.
    pub reference: Option<Bytes>,
    /// The type of Iluma's callbacks about the record, if the route determines it.
    pub kind: Option<CallbackType>,
    /// True if Iluma's callback is for this reference too: for a team whose request reached Iluma, alone or collapsed,
    /// or that shares a pending request. False for a team that was answered from the cache.
    pub awaits: bool,
    /// The persons that the record names.
    pub tags: Vec<Tag>,
    /// The time of the request: the reference is not stored if one of the persons was erased later.
    pub asked: SystemTime,
}

/// An owner of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The team.
    pub tenant: TenantName,
    /// The team's newest reference as JSON text; `None` if the team gave none, or if the reference was erased.
    pub reference: Option<Bytes>,
    /// The time at which the team became an owner or gave this reference.
    pub since: SystemTime,
}

/// A callback that arrived with a valid token.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The account of the callback.
    pub account: AccountName,
    /// The callback's type, if the path names it.
    pub kind: Option<CallbackType>,
    /// Iluma's id.
    pub id: String,
    /// The body.
    pub body: Bytes,
    /// The persons that the body names.
    pub tags: Vec<Tag>,
}

/// The result of storing a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveOutcome {
    /// The callback is stored.
    New,
    /// The same bytes for the same id are stored already: nothing changed.
    Repeat,
}

/// A callback that is handed out for its fan-out.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The name by which the callback is settled.
    pub name: CallbackName,
    /// The account of the callback.
    pub account: AccountName,
    /// The callback's type: from the path, else from an owner.
    pub kind: Option<CallbackType>,
    /// Iluma's id.
    pub id: String,
    /// The body.
    pub body: Bytes,
    /// The time of receipt.
    pub received: SystemTime,
    /// The references that wait for the callback.
    pub awaiting: Vec<Awaiting>,
    /// The fencing token of the hand-out: it shows if the callback has changed since.
    pub(super) fencing_token: i64,
}

/// A team that expects a record's callbacks, with the reference of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaiting {
    /// The team.
    pub tenant: TenantName,
    /// The team's reference as JSON text; `None` if the team gave none, or if the reference was erased.
    pub reference: Option<Bytes>,
    /// True if the record's person was erased, and the references with it.
    pub erased: bool,
}

/// The decision about a callback.
#[derive(Debug, Clone)]
pub enum FanOutDecision {
    /// These deliveries are made; there may be none.
    Deliver(CallbackType, Vec<Copy>),
    /// No owner is known yet: the callback is examined again at this time, or when an owner is added.
    Wait(SystemTime),
    /// The callback has no owner: it is set aside for operators.
    Unowned,
}

/// A callback for one reference of a team.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The team.
    pub tenant: TenantName,
    /// The team's reference as JSON text.
    pub reference: Option<Bytes>,
    /// The body for the team.
    pub body: Bytes,
}

/// A callback that the gateway made, for an answer from the cache.
#[derive(Debug, Clone)]
pub struct Made {
    /// The record's account.
    pub account: AccountName,
    /// Iluma's id.
    pub id: String,
    /// The callback's type.
    pub kind: CallbackType,
    /// The team, its reference and its body.
    pub copy: Copy,
    /// The persons that the body names.
    pub tags: Vec<Tag>,
}

/// A claimed delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The delivery's id, the same at every attempt.
    pub id: DeliveryId,
    /// The team that gets the delivery.
    pub tenant: TenantName,
    /// The record's account.
    pub account: AccountName,
    /// The type, which selects one of the team's URLs.
    pub kind: CallbackType,
    /// The body that is sent.
    pub body: Bytes,
    /// The number of failed attempts.
    pub attempts: u32,
    /// The number of failed attempts that were probes of a paused endpoint. The retry schedule does not count these.
    pub probes: u32,
    /// True if the delivery is a probe of a paused endpoint.
    pub is_probe: bool,
    /// The time of receipt of its callback.
    pub received: SystemTime,
    /// The history of attempts, as it is stored.
    pub(super) history: String,
    /// The fencing token of the current claim.
    pub(super) fencing_token: i64,
}

/// The end of a claim: the outcome of the delivery, and the attempt that was made, if one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conclusion {
    /// The outcome of the delivery.
    pub outcome: DeliveryOutcome,
    /// The attempt.
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
    /// The attempt failed; the next one follows at this time.
    Retry(SystemTime),
    /// The last attempt failed: the delivery is a dead letter.
    Dead,
    /// A probe of a paused endpoint failed: the schedule of the delivery stays as it is.
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
    /// Deliveries that were sent.
    Delivered,
    /// Callbacks without an owner.
    Unowned,
}

/// A page of a list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only entries of this team.
    pub tenant: Option<TenantName>,
    /// Only entries of this type.
    pub kind: Option<CallbackType>,
    /// Only entries from this time on. The time of a dead or delivered entry is that of its end; the time of a queued
    /// or unowned entry is that of its receipt.
    pub since: Option<SystemTime>,
    /// Only entries until this time, inclusive.
    pub until: Option<SystemTime>,
    /// The last entry of the page before.
    pub after: Option<Cursor>,
    /// The largest number of entries; at most [`MOST_LISTED`].
    pub most: usize,
}

/// The position of an entry in its list: by time, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The time that orders the list, in milliseconds since 1970.
    pub at: i64,
    /// The entry's id.
    pub id: DeliveryId,
}

/// An entry of a list, without data of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The position in the list. Its id is the one that a replay takes. Its time is the due time of a queued entry, the
    /// end of a dead or delivered one, or the removal of an unowned one.
    pub cursor: Cursor,
    /// The team; `None` if the entry has no owner.
    pub tenant: Option<TenantName>,
    /// The record's account.
    pub account: AccountName,
    /// The callback's type, if known.
    pub kind: Option<CallbackType>,
    /// Iluma's id; `None` if it can't be decrypted.
    pub upstream_id: Option<String>,
    /// The number of failed attempts.
    pub attempts: u32,
    /// The newest attempt.
    pub last: Option<AttemptRecord>,
    /// The time of receipt of its callback.
    pub received: SystemTime,
}

impl Page {
    /// Returns true if the page filters its list by type or by time.
    pub(super) const fn is_filtered(&self) -> bool {
        self.kind.is_some() || self.since.is_some() || self.until.is_some()
    }

    /// Returns true if the entry has the page's type, and its time is within the page's times. `at` is the time that
    /// orders the list.
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
    /// The list that has the entry.
    pub status: DeliveryStatus,
    /// The entry as its list shows it.
    pub entry: Listed,
    /// The newest attempts, oldest first.
    pub history: Vec<AttemptRecord>,
}

/// The outcome of the deletion of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The dead letter is deleted.
    Done,
    /// The entry is no dead letter.
    NotDead,
    /// No entry has this id.
    Unknown,
}

/// The deliveries to send again. Their retry schedule starts again from the first attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// This delivery, in any status; or this unowned callback, if it has an owner now.
    One(DeliveryId),
    /// This delivery, if it belongs to this team.
    Own(TenantName, DeliveryId),
    /// All deliveries to this team that were delivered or became dead letters since the first time, and until the
    /// second time if there is one.
    Since(TenantName, SystemTime, Option<SystemTime>),
    /// All dead letters, or those of this team.
    AllDead(Option<TenantName>),
}

/// The size of a team's outbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outbox {
    /// The team.
    pub tenant: TenantName,
    /// Deliveries that are queued.
    pub queued: u64,
    /// The bytes of the queued deliveries, as stored.
    pub queued_bytes: u64,
    /// Dead letters.
    pub dead: u64,
}

/// The sizes of all queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// The outbox of each team that has queued deliveries or dead letters.
    pub tenants: Vec<Outbox>,
    /// Callbacks that wait for their fan-out.
    pub waiting: u64,
    /// Callbacks without an owner.
    pub unowned: u64,
    /// The time of receipt of the oldest queued delivery.
    pub oldest: Option<SystemTime>,
}

/// The numbers of entries that an erasure removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// References of owners; the teams stay owners.
    pub owners: u64,
    /// Callbacks that waited, or had no owner.
    pub callbacks: u64,
    /// Deliveries: queued, dead and delivered.
    pub deliveries: u64,
    /// Answers that were kept for requests with an idempotency key.
    pub answers: u64,
}

impl Waiting {
    /// Makes a callback that arrives now, for tests of its body.
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
        }
    }
}
