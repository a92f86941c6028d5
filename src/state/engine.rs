//! The interface of durable state, which the SQLite engine and the Redis engine share.

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

/// The state of one gateway, or of several gateways that share a Redis. Clones share the same state.
#[derive(Clone, Debug)]
pub enum State {
    /// The embedded engine, for one gateway.
    Sqlite(Arc<Sqlite>),
    /// The engine in a Redis, for several gateways.
    Redis(Arc<Redis>),
}

impl State {
    /// Makes a team an owner of a record, durably. If the team is an owner already, its reference is replaced. If
    /// [`Owning::awaits`] is true, a callback that was received earlier goes to this team too. Repeating the call
    /// changes only [`Owner::since`].
    ///
    /// # Errors
    /// Returns an error if it is not certain that the owner was stored; the caller may repeat the call.
    pub async fn own(&self, owning: Owning) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.own(owning).await,
            Self::Redis(engine) => Box::pin(engine.own(owning)).await,
        }
    }

    /// Returns the owners of a record. `id` is Iluma's id of the record at the account.
    ///
    /// # Errors
    /// Returns an error if state can't be read, or if a reference can't be decrypted.
    pub async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.owners(account, id).await,
            Self::Redis(engine) => Box::pin(engine.owners(account, id)).await,
        }
    }

    /// Stores a callback durably.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the callback was stored durably. Iluma has to send it again then.
    pub async fn receive(&self, callback: Callback) -> Result<ReceiveOutcome, StateError> {
        match self {
            Self::Sqlite(engine) => engine.receive(callback).await,
            Self::Redis(engine) => Box::pin(engine.receive(callback)).await,
        }
    }

    /// Hands out at most `most` callbacks whose fan-out is due. The callback that has been due for the longest time
    /// comes first.
    ///
    /// No callback is handed out again during `lease`, unless [`settle`](State::settle) ends its lease earlier. A
    /// callback that can't be decrypted is postponed, because its key may return. If the future is dropped before it
    /// ends, its callbacks can be handed out again at once.
    ///
    /// # Errors
    /// Returns an error if state can't be read or written.
    pub async fn waiting(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.waiting(most, lease).await,
            Self::Redis(engine) => Box::pin(engine.waiting(most, lease)).await,
        }
    }

    /// Stores the decision about a callback, and makes all deliveries that the decision names. If an owner was added
    /// since the hand-out, the callback is handed out again. A delivery that exists already is not made a second time.
    /// Returns the team of each delivery that became a dead letter at once, because the team's outbox was full.
    ///
    /// # Errors
    /// Returns an error if the decision was not stored as a whole. The callback is then handed out again when its lease
    /// ends.
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

    /// Puts callbacks that the gateway made for cache hits into the outboxes of their teams. Returns the team of each
    /// callback that was dropped, because the team's outbox was full.
    ///
    /// # Errors
    /// Returns an error if some callbacks were not handled. The other callbacks may be in the outboxes then.
    pub async fn enqueue(&self, made: Vec<Made>, bounds: &OutboxBounds) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.enqueue(made, bounds).await,
            Self::Redis(engine) => Box::pin(engine.enqueue(made, bounds)).await,
        }
    }

    /// Hands out due deliveries: for each team of `wanted` at most the number beside the team. The delivery that has
    /// been due for the longest time comes first. Probes of paused endpoints come in addition.
    ///
    /// No delivery is handed out again during `lease`, unless [`conclude`](State::conclude) ends its lease earlier. A
    /// delivery that can't be decrypted is postponed, because its key may return. If the future is dropped before it
    /// ends, its deliveries can be handed out again at once.
    ///
    /// # Errors
    /// Returns an error if state can't be read or written.
    pub async fn claim(&self, wanted: &[(TenantName, usize)], lease: Duration) -> Result<Vec<Delivery>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.claim(wanted, lease).await,
            Self::Redis(engine) => Box::pin(engine.claim(wanted, lease)).await,
        }
    }

    /// Stores the outcome of a delivery, and ends its lease. The result of the attempt may pause the endpoint, or
    /// resume it.
    ///
    /// # Errors
    /// Returns an error if the outcome was not stored. The delivery is then sent again when its lease ends.
    pub async fn conclude(&self, delivery: &Delivery, conclusion: impl Into<Conclusion>) -> Result<(), StateError> {
        let conclusion = conclusion.into();
        match self {
            Self::Sqlite(engine) => engine.conclude(delivery, conclusion).await,
            Self::Redis(engine) => Box::pin(engine.conclude(delivery, conclusion)).await,
        }
    }

    /// Pauses these endpoints durably: until an endpoint is resumed, no further delivery to it is handed out.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn pause(&self, endpoints: &[Endpoint], reason: PauseReason) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.pause(endpoints, reason).await,
            Self::Redis(engine) => Box::pin(engine.pause(endpoints, reason)).await,
        }
    }

    /// Ends the pauses of these endpoints; `which` selects the kind of pauses. For all these endpoints the next failure
    /// counts as the first failure. Returns the number of pauses that ended.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn resume(&self, endpoints: &[Endpoint], which: Resume) -> Result<u64, StateError> {
        match self {
            Self::Sqlite(engine) => engine.resume(endpoints, which).await,
            Self::Redis(engine) => Box::pin(engine.resume(endpoints, which)).await,
        }
    }

    /// Returns the pauses of all paused endpoints, sorted by tenant and type.
    ///
    /// # Errors
    /// Returns an error if state is not available.
    pub async fn pauses(&self) -> Result<Vec<Pause>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.pauses().await,
            Self::Redis(engine) => Box::pin(engine.pauses()).await,
        }
    }

    /// Turns due deliveries to paused endpoints into dead letters, if they have been queued for longer than `age`.
    /// Returns the team of each such delivery, so one team may occur several times. One call changes a bounded number
    /// of deliveries; further calls change the others.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn expire_paused(&self, age: Duration) -> Result<Vec<TenantName>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.expire_paused(age).await,
            Self::Redis(engine) => Box::pin(engine.expire_paused(age)).await,
        }
    }

    /// Returns the entry with this id: a delivery with its attempts, or an unowned callback. Returns `None` if no entry
    /// has this id, or if the entry's content is not kept.
    ///
    /// # Errors
    /// Returns an error if state is not available.
    pub async fn find(&self, id: DeliveryId) -> Result<Option<Found>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.find(id).await,
            Self::Redis(engine) => Box::pin(engine.find(id)).await,
        }
    }

    /// Deletes the content of a dead letter. The dead letter's id is kept for the retention of delivered callbacks, so
    /// that a repeat of the same callback is not delivered.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn delete(&self, id: DeliveryId) -> Result<Deleted, StateError> {
        match self {
            Self::Sqlite(engine) => engine.delete(id).await,
            Self::Redis(engine) => Box::pin(engine.delete(id)).await,
        }
    }

    /// Returns a page of the entries with this status, in the order of [`Listed::cursor`].
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn list(&self, status: DeliveryStatus, page: &Page) -> Result<Vec<Listed>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.list(status, page).await,
            Self::Redis(engine) => Box::pin(engine.list(status, page)).await,
        }
    }

    /// Queues deliveries for new attempts, or an unowned callback for another fan-out. Returns the number of queued
    /// entries.
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

    /// Sets the URL to which a team's callbacks of this type are sent. Also ends the pause of this endpoint if the
    /// gateway made the pause by itself, because such a pause is about the former URL.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the URL was stored and the pause ended.
    pub async fn set_url(&self, tenant: &TenantName, kind: CallbackType, url: &str) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.set_url(tenant, kind, url).await,
            Self::Redis(engine) => Box::pin(engine.set_url(tenant, kind, url)).await,
        }
    }

    /// Deletes the URLs that were set for these endpoints. Also ends the pauses of these endpoints that the gateway
    /// made by itself.
    ///
    /// # Errors
    /// Returns an error if one of these URLs or pauses may still be there.
    pub async fn delete_urls(&self, endpoints: &[Endpoint]) -> Result<(), StateError> {
        match self {
            Self::Sqlite(engine) => engine.delete_urls(endpoints).await,
            Self::Redis(engine) => Box::pin(engine.delete_urls(endpoints)).await,
        }
    }

    /// Returns the URLs that a team has set, each with its type. A URL that was encrypted with an older key is
    /// encrypted again with the current key: URLs do not expire, so the older key could otherwise never be removed.
    ///
    /// # Errors
    /// Returns an error if state can't be read or written, or if a URL can't be decrypted.
    pub async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
        match self {
            Self::Sqlite(engine) => engine.urls(tenant).await,
            Self::Redis(engine) => Box::pin(engine.urls(tenant)).await,
        }
    }

    /// Claims an idempotency key durably, or returns the status of a key that was claimed earlier. After
    /// [`Claimed::New`] and after an error the caller must [end](State::end_claim) the claim.
    ///
    /// # Errors
    /// Returns an error if it is not certain that the key was claimed: state can't be written, or the free space of the
    /// disk is below its reserve. Returns an error also if a kept answer can't be decrypted.
    pub async fn claim_key(&self, claiming: &Claiming) -> Result<Claimed, StateError> {
        let id = self.claim_of(claiming);
        match self {
            Self::Sqlite(engine) => engine.claim_key(claiming, id).await,
            Self::Redis(engine) => Box::pin(engine.claim_key(claiming, id)).await,
        }
    }

    /// Returns the id of a request's claim, which need not exist yet: the id is computed from the team, the key and the
    /// token.
    #[must_use]
    pub fn claim_of(&self, claiming: &Claiming) -> ClaimId {
        ClaimId { name: self.secrecy().claim(&claiming.tenant, &claiming.key), token: claiming.token }
    }

    /// Ends a claim. A claim that ended as [`ClaimEnd::Unknown`] may be ended again, for example with an answer;
    /// [`ClaimEnd::Free`] deletes the claim in any status. Returns true if the claim was changed. Returns false if the
    /// claim does not exist any more, or had ended in another way.
    ///
    /// # Errors
    /// Returns an error if state can't be written; the call may be repeated.
    pub async fn end_claim(&self, claim: &ClaimId, end: ClaimEnd) -> Result<bool, StateError> {
        match self {
            Self::Sqlite(engine) => engine.end_claim(claim, end).await,
            Self::Redis(engine) => Box::pin(engine.end_claim(claim, end)).await,
        }
    }

    /// Stores a new session durably. `id` is the session's id, and `holder` is the name of the token or the team that
    /// opens the session. `secret` is stored unchanged. If the holder has more than
    /// [`MOST_SESSIONS`](super::MOST_SESSIONS) sessions then, the session that ends first is removed.
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

    /// Returns the session with this id, and restarts its idle time. Returns `None` if there is no such session, or if
    /// it has ended.
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

    /// Erases the persons with these tags. Teams stay owners of the persons' records, and the teams' references are
    /// removed. A later callback about these records is delivered, and its content is removed after the delivery.
    ///
    /// The embedded engine returns when no file contains the data any more. With Redis the append-only file may contain
    /// the encrypted data until Redis rewrites the file.
    ///
    /// # Errors
    /// Returns an error if the removal is not certain: the caller has to repeat it.
    pub async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        match self {
            Self::Sqlite(engine) => engine.erase(tags).await,
            Self::Redis(engine) => Box::pin(engine.erase(tags)).await,
        }
    }

    /// Removes entries that are older than their retention. If an entry's name is still needed, only the entry's
    /// content is removed. One call changes a bounded number of entries, and returns that number. Callers repeat the
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

    /// Returns the reasons why Redis may lose state, as warnings for operators at the start. The list is empty for the
    /// embedded engine.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn durability_warnings(&self) -> Result<Vec<Cause>, StateError> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Redis(engine) => Box::pin(engine.durability_warnings()).await,
        }
    }

    /// Verifies the configured keys against the fingerprints that are stored in Redis, and stores the missing
    /// fingerprints. The embedded engine has nothing to verify here: a node's own database is verified when it is
    /// opened.
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

    /// Returns the number of failed decryptions since the start.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.secrecy().unreadable()
    }

    /// Waits until there may be callbacks to fan out. A change by another node does not end the wait. Only one task may
    /// wait.
    pub async fn arrival(&self) {
        match self {
            Self::Sqlite(engine) => engine.arrival().await,
            Self::Redis(engine) => Box::pin(engine.arrival()).await,
        }
    }

    /// Waits until there may be deliveries to make. A change by another node does not end the wait. Only one task may
    /// wait.
    pub async fn work(&self) {
        match self {
            Self::Sqlite(engine) => engine.work().await,
            Self::Redis(engine) => Box::pin(engine.work()).await,
        }
    }

    /// Closes the engine in good order: acknowledged changes are kept, and later calls fail. The embedded engine also
    /// closes the node's database, which other parts use too.
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
