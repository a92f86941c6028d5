//! The two engines behind one interface.

use super::error::StateError;
use super::model::{
    Callback, Delivery, DeliveryOutcome, DeliveryStatus, Erased, Listed, Made, Owner, Owning, Page, Queues, Receipt,
    Replay, Verdict, Waiting,
};
use super::redis::Redis;
use super::sentinels::KeyError;
use super::sqlite::Sqlite;
use crate::base::keyring::Keyring;
use crate::base::name::{AccountName, TenantName};
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use crate::redis::diagnosis::Cause;
use std::sync::Arc;
use std::time::Duration;

/// The state of a gateway, or of several that share a Redis. Clones share it.
#[derive(Clone, Debug)]
pub enum State {
    /// Embedded, for one gateway.
    Sqlite(Arc<Sqlite>),
    /// In a Redis, for gateways that share it.
    Redis(Arc<Redis>),
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

    /// Returns the owners of a record.
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

    /// Hands out callbacks that are to be fanned out now, the longest overdue first; they are not handed out again for
    /// `lease`. A callback that can't be opened waits for its key. If the future is dropped, all are given back.
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
    /// be handed out once more; deliveries that exist are not made twice. Returns the team of each delivery that its
    /// outbox had no room for: such a delivery is a dead letter at once.
    ///
    /// # Errors
    /// Nothing was stored; it will be handed out again.
    pub async fn settle(
        &self,
        waiting: &Waiting,
        verdict: Verdict,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.settle(waiting, verdict, bounds).await,
            Self::Redis(engine) => engine.settle(waiting, verdict, bounds).await,
        }
    }

    /// Puts callbacks of the gateway's own into the outboxes. Returns the team of each callback that its outbox had no
    /// room for: such a callback is dropped.
    ///
    /// # Errors
    /// None of them was stored.
    pub async fn enqueue(&self, made: Vec<Made>, bounds: &OutboxBounds) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.enqueue(made, bounds).await,
            Self::Redis(engine) => engine.enqueue(made, bounds).await,
        }
    }

    /// Hands out deliveries that are due, the longest overdue first: for each team as many as are wanted at most. Nobody
    /// else gets them within `lease`, nor ever if they are concluded by then. A delivery that can't be opened waits for
    /// its key. If the future is dropped, all are given back.
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
    pub async fn conclude(&self, delivery: &Delivery, outcome: DeliveryOutcome) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.conclude(delivery, outcome).await,
            Self::Redis(engine) => engine.conclude(delivery, outcome).await,
        }
    }

    /// Returns a part of a list, oldest first.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn list(&self, status: DeliveryStatus, page: &Page) -> Result<Vec<Listed>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.list(status, page).await,
            Self::Redis(engine) => engine.list(status, page).await,
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

    /// Returns the sizes of all queues.
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

    /// Returns the URLs that a team set. They are kept without end, so what is read under an old key is put under the newest.
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

    /// Returns warnings about a store that may lose state: for an operator to read, at the start.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn concerns(&self) -> Result<Vec<Cause>, StateError> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Redis(engine) => engine.concerns().await,
        }
    }

    /// Verifies the keys of the configuration against those that shared state was written with. A node's own database is
    /// verified when it is opened.
    ///
    /// # Errors
    /// A key is wrong, or state can't be asked.
    pub async fn verify_keys(&self) -> Result<(), KeyError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Redis(engine) => engine.verify_keys().await,
        }
    }

    /// Returns the keys that entries are encrypted with, which all clones share.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        match self {
            Self::Sqlite(engine) => engine.secrecy.keyring().clone(),
            Self::Redis(engine) => engine.secrecy.keyring().clone(),
        }
    }

    /// Returns how often an entry could not be opened.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        match self {
            Self::Sqlite(engine) => engine.secrecy.unreadable(),
            Self::Redis(engine) => engine.secrecy.unreadable(),
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
            Self::Redis(engine) => engine.close().await,
        }
    }
}
