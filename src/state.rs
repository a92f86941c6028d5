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

mod envelopes;
mod leases;
mod redis;
mod sqlite;

pub use self::redis::Redis;
pub use envelopes::{CallbackName, DeliveryId, NotADeliveryId};
pub use sqlite::{MIGRATIONS, Sqlite};

use crate::base::database::DatabaseError;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a callback that nobody owns yet waits for its POST to be answered: twice what an answer may take by default.
pub const EARLY: Duration = Duration::from_secs(60);

/// How long a callback that was fanned out is kept for owners who come late: as long as a pending request is shared.
pub const LATE: Duration = Duration::from_secs(600);

/// Entries of a page at most.
pub const MOST_LISTED: usize = 1000;

/// References of one team that may wait for one id: as many questions as were asked alike while it was pending.
const MOST_AWAITING: usize = 1000;

/// The state of a gateway, or of several that share a Redis. Clones share it.
#[derive(Clone, Debug)]
pub enum State {
    /// Embedded, for one gateway.
    Sqlite(Arc<Sqlite>),
    /// In a Redis, for gateways that share it.
    Redis(Arc<Redis>),
}

/// Why state could not be asked or changed. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It can't be reached or written just now.
    #[error("state can't be reached or written")]
    Unavailable,
    /// It refuses this, now and later: a damaged entry, or a mistake of ours.
    #[error("state refused the work")]
    Refused,
}

impl From<DatabaseError> for StateError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unwritable | DatabaseError::Closed => Self::Unavailable,
            DatabaseError::Refused => Self::Refused,
        }
    }
}

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
    turn: i64,
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
    turn: i64,
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
pub enum Standing {
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

/// How much waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queues {
    /// By team: deliveries to be made, and dead letters.
    pub tenants: Vec<(TenantName, u64, u64)>,
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

impl State {
    /// Makes a team an owner, durably, or gives it a newer reference. A callback that came already goes to it too, if it
    /// [awaits](Owning::awaits) one. To do it again changes nothing but the time.
    ///
    /// # Errors
    /// It was not stored.
    pub async fn own(&self, owning: Owning) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.own(owning).await,
            Self::Redis(engine) => engine.own(owning).await,
        }
    }

    /// Who owns a record.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.owners(account, id).await,
            Self::Redis(engine) => engine.owners(account, id).await,
        }
    }

    /// Stores a callback, durably.
    ///
    /// # Errors
    /// It was not stored: Iluma has to send it again.
    pub async fn receive(&self, callback: Callback) -> Result<Receipt, StateError> {
        match self {
            Self::Sqlite(engine) => engine.receive(callback).await,
            Self::Redis(engine) => engine.receive(callback).await,
        }
    }

    /// Callbacks that are to be fanned out now, the longest overdue first; they are not handed out again for `lease`.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn waiting(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.waiting(most, lease).await,
            Self::Redis(engine) => engine.waiting(most, lease).await,
        }
    }

    /// Notes what a callback comes to, deliveries and all in one step. If an owner came since it was handed out, it will
    /// be handed out once more; deliveries that exist are not made twice.
    ///
    /// # Errors
    /// Nothing was stored; it will be handed out again.
    pub async fn settle(&self, waiting: &Waiting, verdict: Verdict) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.settle(waiting, verdict).await,
            Self::Redis(engine) => engine.settle(waiting, verdict).await,
        }
    }

    /// Puts callbacks of the gateway's own into the queues.
    ///
    /// # Errors
    /// None of them was stored.
    pub async fn enqueue(&self, made: Vec<Made>) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.enqueue(made).await,
            Self::Redis(engine) => engine.enqueue(made).await,
        }
    }

    /// Deliveries that are due, the longest overdue first: for each team as many as are wanted at most. Nobody else gets
    /// them within `lease`, nor for ever if they are concluded by then.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn claim(&self, wanted: &[(TenantName, usize)], lease: Duration) -> Result<Vec<Delivery>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.claim(wanted, lease).await,
            Self::Redis(engine) => engine.claim(wanted, lease).await,
        }
    }

    /// Notes what became of a delivery, and gives it back.
    ///
    /// # Errors
    /// It was not noted: the delivery will be made again when its lease ends.
    pub async fn conclude(&self, delivery: &Delivery, fate: DeliveryOutcome) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.conclude(delivery, fate).await,
            Self::Redis(engine) => engine.conclude(delivery, fate).await,
        }
    }

    /// A part of a list, oldest first.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn list(&self, standing: Standing, page: &Page) -> Result<Vec<Listed>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.list(standing, page).await,
            Self::Redis(engine) => engine.list(standing, page).await,
        }
    }

    /// Has deliveries made once more; says how many.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        match self {
            Self::Sqlite(engine) => engine.replay(what).await,
            Self::Redis(engine) => engine.replay(what).await,
        }
    }

    /// How much waits.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn queues(&self) -> Result<Queues, StateError> {
        match self {
            Self::Sqlite(engine) => engine.queues().await,
            Self::Redis(engine) => engine.queues().await,
        }
    }

    /// Sets the URL of a team for a type of callback.
    ///
    /// # Errors
    /// It was not stored.
    pub async fn set_url(&self, tenant: &TenantName, kind: CallbackType, url: &str) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.set_url(tenant, kind, url).await,
            Self::Redis(engine) => engine.set_url(tenant, kind, url).await,
        }
    }

    /// The URLs that a team set. They are kept without end, so what is read under an old key is put under the newest.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.urls(tenant).await,
            Self::Redis(engine) => engine.urls(tenant).await,
        }
    }

    /// Removes what is stored about persons. Teams stay owners of their ids, without references; what comes in later
    /// about these records is delivered, and gone with the delivery. Returns once it is in no file any more.
    ///
    /// # Errors
    /// It is not known to be removed: to be tried again.
    pub async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        match self {
            Self::Sqlite(engine) => engine.erase(tags).await,
            Self::Redis(engine) => engine.erase(tags).await,
        }
    }

    /// Removes some of what is older than the configuration keeps it; says how much. To be repeated until that is none.
    ///
    /// # Errors
    /// State can't be written.
    pub async fn sweep(&self) -> Result<u64, StateError> {
        match self {
            Self::Sqlite(engine) => engine.sweep().await,
            Self::Redis(engine) => engine.sweep().await,
        }
    }

    /// What may lose state where it is: for an operator to read, at the start.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn concerns(&self) -> Result<Vec<crate::redis::diagnosis::Cause>, StateError> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Redis(engine) => engine.concerns().await,
        }
    }

    /// Waits until there may be callbacks to fan out. One task may wait.
    pub async fn arrival(&self) {
        match self {
            Self::Sqlite(engine) => engine.arrival().await,
            Self::Redis(engine) => engine.arrival().await,
        }
    }

    /// Waits until there may be deliveries to make. One task may wait.
    pub async fn work(&self) {
        match self {
            Self::Sqlite(engine) => engine.work().await,
            Self::Redis(engine) => engine.work().await,
        }
    }

    /// Lets go of everything, in good order: what was acknowledged stays. The database that it shares is closed with it.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(engine) => engine.close().await,
            Self::Redis(engine) => engine.close(),
        }
    }
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
            turn: 0,
        }
    }
}
