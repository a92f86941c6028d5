//! Who owns which record: noted before an answer leaves, asked before a record is shown.
//!
//! Invariants: a team that was told an id owns it, durably, before it has the answer; a record's newest reference is
//! written soon after, for a hit must not wait for a disk each time; nothing that is held here tells a reference or an id.

use super::Gateway;
use crate::cache::{Entry, Hit};
use crate::link::Budget;
use crate::name::{AccountName, CallbackType, TenantName};
use crate::person::Tag;
use crate::splice::Spliced;
use crate::state::{Copy, Made, Owner, Owning, State, StateError};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, mpsc, watch};

/// Records whose owners need not be written again: a day's worth for a busy account, at some 100 bytes.
const MOST_KNOWN: u64 = 500_000;
/// Newer references that wait to be written. What finds no room stays as it was before.
const MOST_LATE: usize = 4096;
/// Of those, what shares one transaction.
const MOST_TOGETHER: usize = 256;
/// How long a look waits for references that are being written.
const LATE_PATIENCE: Duration = Duration::from_secs(1);

/// A team that asks about a record.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) tenant: TenantName,
    pub(super) account: AccountName,
    /// What Iluma's callbacks about the record are.
    pub(super) kind: Option<CallbackType>,
    /// When it asked.
    pub(super) asked: SystemTime,
}

/// What is known of owners.
#[derive(Debug)]
pub(super) struct Owners {
    state: State,
    /// By team and id: the hash of the newest reference.
    known: moka::sync::Cache<[u64; 2], Arc<AtomicU64>>,
    hashes: [RandomState; 2],
    late: mpsc::Sender<Owning>,
    waiting: Mutex<mpsc::Receiver<Owning>>,
    sent: AtomicU64,
    written: watch::Sender<u64>,
}

impl Owners {
    pub(super) fn new(state: State) -> Self {
        let (late, waiting) = mpsc::channel(MOST_LATE);
        Self {
            state,
            known: moka::sync::Cache::new(MOST_KNOWN),
            hashes: [RandomState::new(), RandomState::new()],
            late,
            waiting: Mutex::new(waiting),
            sent: AtomicU64::new(0),
            written: watch::Sender::new(0),
        }
    }

    /// Writes newer references as they come.
    pub(super) async fn keep(&self) {
        let mut waiting = self.waiting.lock().await;
        let mut group = Vec::new();
        while waiting.recv_many(&mut group, MOST_TOGETHER).await > 0 {
            let count = group.len() as u64;
            for written in join_all(group.drain(..).map(|owning| self.state.own(owning))).await {
                if let Err(error) = written {
                    tracing::warn!(%error, "a newer reference was not written");
                }
            }
            self.written.send_modify(|written| *written += count);
        }
    }

    /// Makes the team an owner. Where it can't be written the answer is worth no less, and the team will not be able to
    /// look at it by its id. A Redis that takes longer than the request can wait has it soon after.
    async fn own(&self, asker: &Asker, id: &str, reference: Option<&[u8]>, awaits: bool, tags: &[Tag], redis: &Budget) {
        let name =
            self.hashes.each_ref().map(|hash| hash.hash_one((asker.tenant.as_str(), asker.account.as_str(), id)));
        let newest = self.hashes[0].hash_one(reference);
        let owning = || Owning {
            account: asker.account.clone(),
            id: id.to_owned(),
            tenant: asker.tenant.clone(),
            reference: reference.map(Bytes::copy_from_slice),
            kind: asker.kind,
            awaits,
            tags: tags.to_vec(),
            asked: asker.asked,
        };
        if !awaits && let Some(known) = self.known.get(&name) {
            if known.swap(newest, Ordering::Relaxed) != newest {
                self.write_late(owning());
            }
            return;
        }
        match self.within(redis, self.state.own(owning())).await {
            Some(Ok(())) => self.known.insert(name, Arc::new(AtomicU64::new(newest))),
            Some(Err(error)) => tracing::warn!(%error, "an owner was not written"),
            // It may have been done: to do it again changes nothing.
            None => self.write_late(owning()),
        }
    }

    fn write_late(&self, owning: Owning) {
        if self.late.try_send(owning).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for state no longer than a request may wait for Redis, if that is where state is.
    async fn within<T>(&self, redis: &Budget, work: impl Future<Output = T>) -> Option<T> {
        match self.state {
            State::Sqlite(_) => Some(work.await),
            State::Redis(_) => redis.wait(work).await,
        }
    }

    /// As [`of`](Self::of), within what a request may wait for Redis.
    pub(super) async fn told(
        &self,
        tenant: &TenantName,
        account: &AccountName,
        id: &str,
        redis: &Budget,
    ) -> Result<(Option<Owner>, bool), StateError> {
        self.within(redis, self.of(tenant, account, id)).await.unwrap_or(Err(StateError::Unavailable))
    }

    /// The team's part in a record, and whether anybody else is known to own it.
    pub(super) async fn of(
        &self,
        tenant: &TenantName,
        account: &AccountName,
        id: &str,
    ) -> Result<(Option<Owner>, bool), StateError> {
        let sent = self.sent.load(Ordering::Relaxed);
        let _ =
            tokio::time::timeout(LATE_PATIENCE, self.written.subscribe().wait_for(|written| *written >= sent)).await;
        let owners = self.state.owners(account, id).await?;
        let others = owners.iter().any(|owner| owner.tenant != *tenant);
        Ok((owners.into_iter().find(|owner| owner.tenant == *tenant), others))
    }
}

impl Gateway {
    /// Makes the team an owner of what its own question, or one that it shared, was answered with.
    pub(super) async fn own(&self, asker: &Asker, id: &str, reference: Option<&[u8]>, tags: &[Tag], redis: &Budget) {
        self.owners.own(asker, id, reference, true, tags, redis).await;
    }

    /// Makes the team an owner of what it was answered with from the cache; the callback that a call would have caused is
    /// made here.
    pub(super) async fn own_hit(&self, asker: &Asker, hit: &Hit, reference: Option<&[u8]>, redis: &Budget) {
        let Entry { id: Some(id), pending, tags, body, .. } = &*hit.entry else { return };
        self.owners.own(asker, id, reference, *pending, tags, redis).await;
        if *pending {
            return;
        }
        if let Some(kind) = asker.kind
            && self.callbacks.may_listen(&asker.tenant)
        {
            let (tenant, reference, body) =
                (asker.tenant.clone(), reference.map(Bytes::copy_from_slice), body.with(reference));
            let copy = Copy { tenant, reference, body };
            let (account, id) = (asker.account.clone(), id.to_string());
            self.callbacks.hit(Made { account, id, kind, copy, tags: tags.to_vec() });
        }
    }
}

/// Upstream's id in an answer, if it has one.
pub(super) fn id_of(body: &Spliced) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_slice::<Id>(&body.with(None)).ok().map(|Id { id }| id)
}
