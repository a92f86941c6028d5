//! The two engines behind one interface.

use super::envelopes::{DeliveryId, Secrecy};
use super::error::StateError;
use super::idempotency::{ClaimEnd, ClaimId, Claimed, Claiming};
use super::model::{
    Callback, Conclusion, Deleted, Delivery, DeliveryStatus, Erased, FanOutDecision, Found, Listed, Made, Owner,
    Owning, Page, Queues, ReceiveOutcome, Replay, Waiting,
};
use super::pauses::{Endpoint, Pause, PauseReason, Resume};
use super::redis::Redis;
use super::sentinels::KeyError;
use super::sessions::{SessionKind, StoredSession};
use super::sqlite::Sqlite;
use crate::base::keyring::Keyring;
use crate::base::name::{AccountName, TenantName};
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use crate::redis::diagnosis::Cause;
use std::sync::Arc;
use std::time::Duration;

/// The state of a gateway, or of several gateways that share a Redis. Clones share it.
#[derive(Clone, Debug)]
pub enum State {
    /// The embedded engine, for one gateway.
    Sqlite(Arc<Sqlite>),
    /// The engine in a Redis, for several gateways.
    Redis(Arc<Redis>),
}

impl State {
    /// Makes a team an owner, durably, or stores its newer reference. A callback that was received earlier goes to this
    /// team too, if the team [awaits](Owning::awaits) one. Repeating the call changes only the time.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the owner was stored; the caller may repeat the call.
    pub async fn own(&self, owning: Owning) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.own(owning).await,
            Self::Redis(engine) => Box::pin(engine.own(owning)).await,
        }
    }

    /// Returns the owners of a record.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.owners(account, id).await,
            Self::Redis(engine) => Box::pin(engine.owners(account, id)).await,
        }
    }

    /// Stores a callback durably.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the callback was stored durably: Iluma has to send it again.
    pub async fn receive(&self, callback: Callback) -> Result<ReceiveOutcome, StateError> {
        match self {
            Self::Sqlite(engine) => engine.receive(callback).await,
            Self::Redis(engine) => Box::pin(engine.receive(callback)).await,
        }
    }

    /// Hands out callbacks whose fan-out is due, the longest overdue first. They are not handed out again for `lease`.
    /// A callback that can't be decrypted waits for its key. If the future is dropped, all are given back.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn waiting(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.waiting(most, lease).await,
            Self::Redis(engine) => Box::pin(engine.waiting(most, lease)).await,
        }
    }

    /// Stores the decision on a callback with all its deliveries. If an owner was added since the hand-out, the
    /// callback is handed out again; existing deliveries are not made twice. Returns the team of each delivery for
    /// which the team's outbox had no room: such a delivery is a dead letter at once.
    ///
    /// # Errors
    /// Returns an error if the decision was not stored as a whole; the callback will be handed out again.
    pub async fn settle(
        &self,
        waiting: &Waiting,
        decision: FanOutDecision,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.settle(waiting, decision, bounds).await,
            Self::Redis(engine) => Box::pin(engine.settle(waiting, decision, bounds)).await,
        }
    }

    /// Puts callbacks of cache hits into the outboxes. Returns the team of each callback for which the team's outbox
    /// had no room: such a callback is dropped.
    ///
    /// # Errors
    /// Returns an error if not all of the callbacks were handled; some may be in the outboxes.
    pub async fn enqueue(&self, made: Vec<Made>, bounds: &OutboxBounds) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.enqueue(made, bounds).await,
            Self::Redis(engine) => Box::pin(engine.enqueue(made, bounds)).await,
        }
    }

    /// Hands out due deliveries, the longest overdue first: for each team up to the wanted number. A delivery is not
    /// handed out again during `lease`, or after it was concluded. A delivery that can't be decrypted waits for its
    /// key. If the future is dropped, all are given back.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn claim(&self, wanted: &[(TenantName, usize)], lease: Duration) -> Result<Vec<Delivery>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.claim(wanted, lease).await,
            Self::Redis(engine) => Box::pin(engine.claim(wanted, lease)).await,
        }
    }

    /// Stores the outcome of a delivery, and ends its lease. The attempt may pause its endpoint, or resume it.
    ///
    /// # Errors
    /// Returns an error if the outcome was not stored: the delivery will be sent again when its lease ends.
    pub async fn conclude(&self, delivery: &Delivery, conclusion: impl Into<Conclusion>) -> Result<(), StateError> {
        let conclusion = conclusion.into();
        match self {
            Self::Sqlite(engine) => engine.conclude(delivery, conclusion).await,
            Self::Redis(engine) => Box::pin(engine.conclude(delivery, conclusion)).await,
        }
    }

    /// Stops attempts at these endpoints until they are resumed, durably.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn pause(&self, endpoints: &[Endpoint], reason: PauseReason) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.pause(endpoints, reason).await,
            Self::Redis(engine) => Box::pin(engine.pause(endpoints, reason)).await,
        }
    }

    /// Ends the pauses of these endpoints; returns how many were paused.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn resume(&self, endpoints: &[Endpoint], which: Resume) -> Result<u64, StateError> {
        match self {
            Self::Sqlite(engine) => engine.resume(endpoints, which).await,
            Self::Redis(engine) => Box::pin(engine.resume(endpoints, which)).await,
        }
    }

    /// Returns the endpoints that are paused, by tenant and type.
    ///
    /// # Errors
    /// Returns an error if state is not available.
    pub async fn pauses(&self) -> Result<Vec<Pause>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.pauses().await,
            Self::Redis(engine) => Box::pin(engine.pauses()).await,
        }
    }

    /// Turns deliveries to paused endpoints into dead letters, if they are due and have been queued for longer than
    /// `age`. Returns the team of each. One call changes a bounded number of them, so the caller repeats it.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn expire_paused(&self, age: Duration) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.expire_paused(age).await,
            Self::Redis(engine) => Box::pin(engine.expire_paused(age)).await,
        }
    }

    /// Returns a delivery with its attempts, or an unowned callback.
    ///
    /// # Errors
    /// Returns an error if state is not available.
    pub async fn find(&self, id: DeliveryId) -> Result<Option<Found>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.find(id).await,
            Self::Redis(engine) => Box::pin(engine.find(id)).await,
        }
    }

    /// Deletes a dead letter. Its name stays for a while, so that the same callback is not delivered again.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn delete(&self, id: DeliveryId) -> Result<Deleted, StateError> {
        match self {
            Self::Sqlite(engine) => engine.delete(id).await,
            Self::Redis(engine) => Box::pin(engine.delete(id)).await,
        }
    }

    /// Returns a page of a list, oldest first.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn list(&self, status: DeliveryStatus, page: &Page) -> Result<Vec<Listed>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.list(status, page).await,
            Self::Redis(engine) => Box::pin(engine.list(status, page)).await,
        }
    }

    /// Queues deliveries again, and returns their number.
    ///
    /// # Errors
    /// Returns an error if state can't be written. In Redis some of the deliveries may be queued then.
    pub async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        match self {
            Self::Sqlite(engine) => engine.replay(what).await,
            Self::Redis(engine) => Box::pin(engine.replay(what)).await,
        }
    }

    /// Returns the sizes of all queues.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn queues(&self) -> Result<Queues, StateError> {
        match self {
            Self::Sqlite(engine) => engine.queues().await,
            Self::Redis(engine) => Box::pin(engine.queues()).await,
        }
    }

    /// Sets the URL of a team for a type of callback, and ends a pause that the gateway made by itself.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the URL was stored and the pause ended.
    pub async fn set_url(&self, tenant: &TenantName, kind: CallbackType, url: &str) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.set_url(tenant, kind, url).await,
            Self::Redis(engine) => Box::pin(engine.set_url(tenant, kind, url)).await,
        }
    }

    /// Deletes the URLs that were set for these endpoints, and ends pauses that the gateway made by itself.
    ///
    /// # Errors
    /// Returns an error if a URL may still be there.
    pub async fn delete_urls(&self, endpoints: &[Endpoint]) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.delete_urls(endpoints).await,
            Self::Redis(engine) => Box::pin(engine.delete_urls(endpoints)).await,
        }
    }

    /// Returns the URLs that a team set. URLs do not expire, so a URL under an old encryption key is encrypted again
    /// with the newest key.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.urls(tenant).await,
            Self::Redis(engine) => Box::pin(engine.urls(tenant)).await,
        }
    }

    /// Claims an idempotency key durably, or returns what is stored for the key. After [`Claimed::New`] and after an
    /// error the claim must be [ended](State::end_claim).
    ///
    /// # Errors
    /// Returns an error if the claim is not certain: state can't be written, or the free space of the disk is below its
    /// reserve.
    pub async fn claim_key(&self, claiming: &Claiming) -> Result<Claimed, StateError> {
        let id = self.claim_of(claiming);
        match self {
            Self::Sqlite(engine) => engine.claim_key(claiming, id).await,
            Self::Redis(engine) => Box::pin(engine.claim_key(claiming, id)).await,
        }
    }

    /// Returns the id of a request's claim, also if there is no such claim yet.
    #[must_use]
    pub fn claim_of(&self, claiming: &Claiming) -> ClaimId {
        ClaimId { name: self.secrecy().claim(&claiming.tenant, &claiming.key), token: claiming.token }
    }

    /// Ends a claim. A claim whose outcome is unknown may still get an answer, and any claim may become free. Returns
    /// false if the claim is not there any more, or has ended.
    ///
    /// # Errors
    /// Returns an error if state can't be written; the call may be repeated.
    pub async fn end_claim(&self, claim: &ClaimId, end: ClaimEnd) -> Result<bool, StateError> {
        match self {
            Self::Sqlite(engine) => engine.end_claim(claim, end).await,
            Self::Redis(engine) => Box::pin(engine.end_claim(claim, end)).await,
        }
    }

    /// Stores a new session of a holder durably. `secret` is stored unchanged. If the holder has the largest number of
    /// sessions, the one that ends first is removed.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the session was stored: state can't be written, or the free space of
    /// the disk is below its reserve.
    pub async fn open_session(
        &self,
        kind: SessionKind,
        id: &str,
        (holder, secret): (&str, [u8; 32]),
    ) -> Result<(), StateError> {
        let (name, holder) = (self.secrecy().session(kind, id), kind.holder(holder));
        match self {
            Self::Sqlite(engine) => engine.open_session(name, holder, secret).await,
            Self::Redis(engine) => Box::pin(engine.open_session(name, holder, secret)).await,
        }
    }

    /// Returns the session with this id, if it has not ended, and restarts its idle time.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn session(&self, kind: SessionKind, id: &str) -> Result<Option<StoredSession>, StateError> {
        let name = self.secrecy().session(kind, id);
        match self {
            Self::Sqlite(engine) => engine.session(kind, name).await,
            Self::Redis(engine) => Box::pin(engine.session(kind, name)).await,
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// Returns an error if the session may still be there.
    pub async fn close_session(&self, kind: SessionKind, id: &str) -> Result<(), StateError> {
        let name = self.secrecy().session(kind, id);
        match self {
            Self::Sqlite(engine) => engine.close_session(name).await,
            Self::Redis(engine) => Box::pin(engine.close_session(name)).await,
        }
    }

    /// Erases persons. Teams stay owners of their records, without references. A later callback about these records is
    /// delivered, and its content is removed after the delivery. The embedded engine returns once no file contains the
    /// data. Redis' append-only file may contain it, encrypted, until Redis rewrites that file.
    ///
    /// # Errors
    /// Returns an error if the removal is not certain: the caller has to repeat it.
    pub async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        match self {
            Self::Sqlite(engine) => engine.erase(tags).await,
            Self::Redis(engine) => Box::pin(engine.erase(tags)).await,
        }
    }

    /// Removes some of the entries that are older than their retention, and returns their number. Callers repeat the
    /// call until the number is 0.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn sweep(&self) -> Result<u64, StateError> {
        match self {
            Self::Sqlite(engine) => engine.sweep().await,
            Self::Redis(engine) => Box::pin(engine.sweep()).await,
        }
    }

    /// Returns warnings about a store that may lose state, for operators at the start.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn durability_warnings(&self) -> Result<Vec<Cause>, StateError> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Redis(engine) => Box::pin(engine.durability_warnings()).await,
        }
    }

    /// Verifies the configured keys against those of shared state. A node's own database is verified when it is opened.
    ///
    /// # Errors
    /// Returns an error if a key is wrong, or if state can't be read.
    pub async fn verify_keys(&self) -> Result<(), KeyError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Redis(engine) => Box::pin(engine.verify_keys()).await,
        }
    }

    /// Returns the encryption keys, which all clones share.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        self.secrecy().keyring().clone()
    }

    /// Returns the number of failed decryptions.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.secrecy().unreadable()
    }

    /// Waits until there may be callbacks to fan out. Only one task may wait.
    pub async fn arrival(&self) {
        match self {
            Self::Sqlite(engine) => engine.arrival().await,
            Self::Redis(engine) => Box::pin(engine.arrival()).await,
        }
    }

    /// Waits until there may be deliveries to make. Only one task may wait.
    pub async fn work(&self) {
        match self {
            Self::Sqlite(engine) => engine.work().await,
            Self::Redis(engine) => Box::pin(engine.work()).await,
        }
    }

    /// Closes the engine in good order: acknowledged changes stay. The embedded engine also closes the database, which
    /// other parts use too.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(engine) => engine.close().await,
            Self::Redis(engine) => Box::pin(engine.close()).await,
        }
    }

    fn secrecy(&self) -> &Secrecy {
        match self {
            Self::Sqlite(engine) => &engine.secrecy,
            Self::Redis(engine) => &engine.secrecy,
        }
    }
}
