//! Owners of records: written before an answer is sent, read before a record is shown.
//!
//! Invariants:
//! - A team that receives a record's id is stored as an owner before it receives the answer. If state can't be written,
//!   the owner is stored as soon as it can.
//! - A record's newest reference is stored shortly after the answer, because a hit must not wait for a disk each time.
//! - This process remembers stored owners and references only as hashes, which reveal no reference and no id.

use super::known_owners::{KnownOwners, OwnerName};
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use crate::redis::Budget;
use crate::state::{Owner, Owning, State, StateError};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, mpsc, watch};

/// The largest number of owners and newer references in the queue for later writes.
const MOST_LATE: usize = 4096;
/// The largest number of queued owners and references that are written at the same time.
const MOST_TOGETHER: usize = 256;
/// The pause before state is written again after a failure.
const REST: Duration = Duration::from_secs(1);
/// The longest time for which a look-up of owners waits for owners that are being written.
const LATE_TIMEOUT: Duration = Duration::from_secs(1);

/// A team that requests a record.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    pub(super) tenant: TenantName,
    pub(super) account: AccountName,
    /// The type of Iluma's callbacks about the record; `None` if Iluma sends none.
    pub(super) kind: Option<CallbackType>,
    /// The time of the team's request.
    pub(super) asked: SystemTime,
}

/// A record of which a team becomes an owner.
#[derive(Clone, Copy)]
pub(super) struct Owned<'a> {
    pub(super) id: &'a str,
    /// The team's own reference, as JSON text.
    pub(super) reference: Option<&'a [u8]>,
    /// True if the team gets the record's callback.
    pub(super) awaits: bool,
    pub(super) tags: &'a [Tag],
}

/// The owners of records.
#[derive(Debug)]
pub(super) struct Owners {
    state: State,
    known: KnownOwners,
    hashes: [RandomState; 2],
    late: mpsc::Sender<Owning>,
    waiting: Mutex<mpsc::Receiver<Owning>>,
    sent: AtomicU64,
    written: watch::Sender<u64>,
    /// True while the owners in the queue can't be written. Then no request waits for them.
    stalled: AtomicBool,
}

impl Owners {
    /// Opens the owners that are stored in `state`. State forgets an owner after `retention`.
    pub(super) fn new(state: State, retention: Duration) -> Self {
        let (late, waiting) = mpsc::channel(MOST_LATE);
        Self {
            state,
            // After half of the retention an owner is written again, so that state keeps it while its record is
            // requested.
            known: KnownOwners::new(retention / 2),
            hashes: [RandomState::new(), RandomState::new()],
            late,
            waiting: Mutex::new(waiting),
            sent: AtomicU64::new(0),
            written: watch::Sender::new(0),
            stalled: AtomicBool::new(false),
        }
    }

    /// Returns the number of owners that this process remembers as written.
    pub(super) fn known(&self) -> u64 {
        self.known.count()
    }

    /// Writes the owners in the queue as they arrive. While state is unavailable, retries once a second.
    pub(super) async fn keep(&self) {
        let mut waiting = self.waiting.lock().await;
        let mut group = Vec::new();
        while waiting.recv_many(&mut group, MOST_TOGETHER).await > 0 {
            let count = group.len() as u64;
            while !group.is_empty() {
                let outcomes = join_all(group.iter().map(|owning| self.state.own(owning.clone()))).await;
                outcomes.iter().for_each(warn_if_refused);
                let mut outcomes = outcomes.into_iter();
                group.retain(|_| outcomes.next() == Some(Err(StateError::Unavailable)));
                self.stalled.store(!group.is_empty(), Ordering::Relaxed);
                if !group.is_empty() {
                    tracing::warn!(count = group.len(), "cannot persist record owners; will retry");
                    tokio::time::sleep(REST).await;
                }
            }
            self.written.send_modify(|written| *written += count);
        }
    }

    /// Makes the team an owner of a record. If the owner can't be written now, the answer is still sent, and the owner
    /// is written as soon as possible.
    pub(super) async fn own(&self, requester: &Requester, owned: Owned<'_>, redis: &Budget) {
        let Owned { id, reference, awaits, tags } = owned;
        // An empty reference counts as none, so that an owner gets only one callback.
        let reference = reference.filter(|reference| *reference != br#""""#);
        let name = self
            .hashes
            .each_ref()
            .map(|hash| hash.hash_one((requester.tenant.as_str(), requester.account.as_str(), id)));
        let name = OwnerName(name);
        let newest = self.hashes[0].hash_one(reference);
        let known = if awaits { None } else { self.known.renew(name, newest) };
        if known == Some(newest) {
            return;
        }
        let owning = Owning {
            account: requester.account.clone(),
            id: id.to_owned(),
            tenant: requester.tenant.clone(),
            reference: reference.map(Bytes::copy_from_slice),
            kind: requester.kind,
            awaits,
            tags: tags.to_vec(),
            asked: requester.asked,
        };
        if known.is_some() {
            if self.write_late(&owning) {
                return;
            }
            // `renew` has noted the newest reference as written. It is not written yet, and this request may be
            // cancelled, so the name is forgotten until the write.
            self.known.forget(name);
        }
        // Most hits skip this write, so its future is on the heap and does not enlarge theirs.
        let outcome = Box::pin(self.within(redis, self.state.own(owning.clone()))).await;
        outcome.iter().for_each(warn_if_refused);
        match outcome {
            Some(Ok(())) => self.known.insert(name, newest),
            Some(Err(StateError::Refused)) => {}
            // The owner may have been written; writing it again changes nothing.
            Some(Err(StateError::Unavailable)) | None => {
                // Without room the name is forgotten, so that the next answer writes the owner.
                if !self.write_late(&owning) {
                    self.known.forget(name);
                    tracing::warn!(
                        "too many record owners wait to be stored: this owner is stored with the next answer that shows the record"
                    );
                }
            }
        }
    }

    /// Queues an owner to be written soon. Returns false if there is no room.
    fn write_late(&self, owning: &Owning) -> bool {
        let has_room = self.late.try_send(owning.clone()).is_ok();
        if has_room {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Returns the output of `work`. If state is in Redis, returns `None` once the request's time for Redis is over.
    async fn within<T>(&self, redis: &Budget, work: impl Future<Output = T>) -> Option<T> {
        match self.state {
            State::Sqlite(_) => Some(work.await),
            State::Redis(_) => redis.wait(work).await,
        }
    }

    /// Returns the result of [`of`](Self::of). If state is in Redis, returns `Unavailable` once the request's time for
    /// Redis is over.
    pub(super) async fn of_in_time(
        &self,
        tenant: &TenantName,
        account: &AccountName,
        id: &str,
        redis: &Budget,
    ) -> Result<(Option<Owner>, bool), StateError> {
        self.within(redis, self.of(tenant, account, id)).await.unwrap_or(Err(StateError::Unavailable))
    }

    /// Returns the owners of a record from the team's view. The first value is the team as an owner; `None` if the team
    /// is not known to own the record. The second value is true if another team is known to own it. The look-up first
    /// waits for owners that are being written, for a second at most.
    pub(super) async fn of(
        &self,
        tenant: &TenantName,
        account: &AccountName,
        id: &str,
    ) -> Result<(Option<Owner>, bool), StateError> {
        let sent = self.sent.load(Ordering::Relaxed);
        if !self.stalled.load(Ordering::Relaxed) {
            let mut written = self.written.subscribe();
            let _ = tokio::time::timeout(LATE_TIMEOUT, written.wait_for(|written| *written >= sent)).await;
        }
        let owners = self.state.owners(account, id).await?;
        let others = owners.iter().any(|owner| owner.tenant != *tenant);
        Ok((owners.into_iter().find(|owner| owner.tenant == *tenant), others))
    }
}

/// Logs that an owner is lost, if state refused it.
fn warn_if_refused(outcome: &Result<(), StateError>) {
    if let Err(error @ StateError::Refused) = outcome {
        tracing::warn!(%error, "cannot store the owner of a record: the team may get 404 for it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::state::fixtures;
    use futures_util::FutureExt as _;

    const DAY: Duration = Duration::from_secs(86400);

    fn owners() -> Owners {
        Owners::new(fixtures::in_memory(Clock::system()), DAY)
    }

    async fn reference(owners: &Owners, requester: &Requester) -> Option<Bytes> {
        let owners = owners.state.owners(&requester.account, "id").await.unwrap();
        owners.into_iter().next().and_then(|owner| owner.reference)
    }

    #[tokio::test]
    async fn a_newer_reference_that_finds_no_room_is_written_all_the_same() {
        let owners = owners();
        let requester = Requester {
            tenant: "lending".parse().unwrap(),
            account: "live".parse().unwrap(),
            kind: None,
            asked: Clock::system().wall(),
        };
        let redis = Budget::of(Duration::from_secs(5));
        let owned = |reference: &'static [u8]| Owned { id: "id", reference: Some(reference), awaits: false, tags: &[] };
        owners.own(&requester, owned(br#""first""#), &redis).await;
        // Nothing takes the waiting owners out of the queue.
        let mut waiting = 0;
        loop {
            let text = format!("\"{waiting}\"");
            let owned = Owned { id: "other", reference: Some(text.as_bytes()), awaits: false, tags: &[] };
            if waiting > 0 && owners.late.capacity() == 0 {
                break;
            }
            owners.own(&requester, owned, &redis).await;
            waiting += 1;
        }
        // The request is cancelled after its first step, and then sent again.
        let _: Option<()> = owners.own(&requester, owned(br#""second""#), &redis).now_or_never();
        owners.own(&requester, owned(br#""second""#), &redis).await;
        assert_eq!(reference(&owners, &requester).await.as_deref(), Some(&br#""second""#[..]));
    }
}
