//! The types of durable state: what callers store, and what they get back.
//!
//! Invariant: nothing here says how an engine stores it.

use super::envelopes::{CallbackName, DeliveryId};
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// How long a callback that nobody owns yet waits for its POST to be answered: twice what an answer may take by default.
pub const EARLY: Duration = Duration::from_secs(60);

/// How long a callback that was fanned out is kept for owners who come late: as long as a pending request is shared.
pub const LATE: Duration = Duration::from_secs(600);

/// Entries of a page at most.
pub const MOST_LISTED: usize = 1000;

/// Time after which an entry is tried again that could not be opened: keys come back by a reload of hands, not sooner.
pub(super) const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

/// References of one team that may wait for one id: as many questions as were asked alike while it was pending.
pub(super) const MOST_AWAITING: usize = 1000;

/// A team comes to own a record.
#[derive(Debug, Clone)]
pub struct Owning {
    /// Where the record is.
    pub account: AccountName,
    /// Iluma's id.
    pub id: String,
    /// Whose it is from now on, too.
    pub tenant: TenantName,
    /// The team's own reference as JSON text with its quotes.
    pub reference: Option<Bytes>,
    /// What Iluma's callbacks about it are, where the route says so.
    pub kind: Option<CallbackType>,
    /// Whether Iluma's callback is for this reference too: true for who asked Iluma, alone or with others, or shares what
    /// is pending; false for who was answered from the cache.
    pub awaits: bool,
    /// The persons it is about.
    pub tags: Vec<Tag>,
    /// When it was asked: what was erased since is not stored again.
    pub asked: SystemTime,
}

/// Whose a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The team.
    pub tenant: TenantName,
    /// Its newest reference as JSON text; none if it gave none, or that was erased.
    pub reference: Option<Bytes>,
    /// When that was.
    pub since: SystemTime,
}

/// A callback that came with the right token.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The account that it came for.
    pub account: AccountName,
    /// Its type, where the path names it.
    pub kind: Option<CallbackType>,
    /// Iluma's id.
    pub id: String,
    /// What it says.
    pub body: Bytes,
    /// The persons it is about, as far as it tells.
    pub tags: Vec<Tag>,
}

/// Whether a callback came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is stored.
    New,
    /// The same bytes for the same id are known: nothing changed.
    Repeat,
}

/// A callback that is to be fanned out.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// By which it is settled.
    pub name: CallbackName,
    /// The account that it came for.
    pub account: AccountName,
    /// Its type: by the path, else by an owner.
    pub kind: Option<CallbackType>,
    /// Iluma's id.
    pub id: String,
    /// What it says.
    pub body: Bytes,
    /// When it came.
    pub received: SystemTime,
    /// Which references wait for it.
    pub awaiting: Vec<Awaiting>,
    /// What had happened when this was handed out: as engines count it.
    pub(super) fencing_token: i64,
}

/// A reference that waits for a record's callbacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaiting {
    /// The team.
    pub tenant: TenantName,
    /// Its reference as JSON text; none if it gave none, or that was erased.
    pub reference: Option<Bytes>,
    /// Whether the record's person was erased, and its references with it.
    pub erased: bool,
}

/// What a callback comes to.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// These deliveries, which may be none.
    Deliver(CallbackType, Vec<Copy>),
    /// Nobody is known to own it yet: to be looked at again at this time, or when an owner comes.
    Wait(SystemTime),
    /// Nobody owns it: kept apart.
    Unowned,
}

/// A callback for one reference of a team.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The team.
    pub tenant: TenantName,
    /// Its reference as JSON text.
    pub reference: Option<Bytes>,
    /// What it gets.
    pub body: Bytes,
}

/// A callback of the gateway's own: of an answer that came from the cache.
#[derive(Debug, Clone)]
pub struct Made {
    /// The record's account.
    pub account: AccountName,
    /// Iluma's id.
    pub id: String,
    /// Its type.
    pub kind: CallbackType,
    /// The team and what it gets.
    pub copy: Copy,
    /// The persons it is about.
    pub tags: Vec<Tag>,
}

/// A delivery in the hands of a claimant.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The same at every attempt.
    pub id: DeliveryId,
    /// To whom.
    pub tenant: TenantName,
    /// The record's account.
    pub account: AccountName,
    /// Which of the team's URLs it goes to.
    pub kind: CallbackType,
    /// What is sent.
    pub body: Bytes,
    /// Attempts that failed.
    pub attempts: u32,
    /// When its callback came.
    pub received: SystemTime,
    /// By which an engine knows whose hands it is in.
    pub(super) fencing_token: i64,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The team has it.
    Delivered,
    /// It failed; again at this time.
    Retry(SystemTime),
    /// It failed for the last time: a dead letter.
    Dead,
    /// It was not tried: claimed by mistake, or at the end of a process.
    Untried,
}

/// A list for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// Deliveries that are still to be made.
    Queued,
    /// Dead letters.
    Dead,
    /// Deliveries that were made.
    Delivered,
    /// Callbacks that nobody owns.
    Unowned,
}

/// A part of a list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Of this team alone.
    pub tenant: Option<TenantName>,
    /// What follows this.
    pub after: Option<Cursor>,
    /// At most so many entries; no more than [`MOST_LISTED`].
    pub most: usize,
}

/// Where an entry stands in its list: by time, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Milliseconds since 1970.
    pub at: i64,
    /// The entry.
    pub id: DeliveryId,
}

/// An entry of a list: nothing of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// By which it is replayed; its time is when it is due, was concluded, or (unowned) will be removed.
    pub cursor: Cursor,
    /// To whom; none if nobody owns it.
    pub tenant: Option<TenantName>,
    /// The record's account.
    pub account: AccountName,
    /// Its type, if known.
    pub kind: Option<CallbackType>,
    /// Iluma's id; none if what was stored can't be decrypted any more.
    pub upstream_id: Option<String>,
    /// Attempts that failed.
    pub attempts: u32,
    /// When its callback came.
    pub received: SystemTime,
}

/// What is to be sent once more, from the first attempt on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// This delivery, whatever its state; or this unowned callback, if it has an owner by now.
    One(DeliveryId),
    /// What this team was sent, or could not be sent, since then.
    Since(TenantName, SystemTime),
    /// All dead letters.
    AllDead,
}

/// Size of a team's outbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outbox {
    /// The team.
    pub tenant: TenantName,
    /// Deliveries that are queued.
    pub queued: u64,
    /// Their bytes, as they are stored.
    pub queued_bytes: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Sizes of all queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// The outbox of each team that has queued deliveries or dead letters.
    pub tenants: Vec<Outbox>,
    /// Callbacks to be fanned out.
    pub waiting: u64,
    /// Callbacks that nobody owns.
    pub unowned: u64,
    /// When the oldest delivery that is still to be made came in.
    pub oldest: Option<SystemTime>,
}

/// What an erasure removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// References of owners; the teams stay owners.
    pub owners: u64,
    /// Callbacks that waited, or that nobody owned.
    pub callbacks: u64,
    /// Deliveries: queued, dead and made.
    pub deliveries: u64,
}

impl Waiting {
    /// One that came now, for tests of what is made of it.
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
