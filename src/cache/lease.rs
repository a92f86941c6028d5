//! The lease of a call: it decides which node makes the call while the others wait.
//!
//! Invariants: a [`Lease`] is made before Redis is asked for it, so it is given back even if the task is cancelled;
//! only its holder gives it back, or it expires; a result that is not cached is shared before the lease ends.

use super::entry::{Entry, SharedResult};
use super::key::Key;
use super::redis_cache::RedisCache;
use super::slot::CacheSlot;
use super::wire::{self, millis};
use crate::base::keyring;
use crate::redis::{Budget, RedisFailure, scripts::cache as scripts};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// The time for which a lease holds without renewal. Its holder renews it every second while the call runs, and may be
/// up to two seconds late. If a node dies, the other nodes wait at most this long.
const LEASE: Duration = Duration::from_secs(3);
/// The interval of a lease's renewals.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(1);
/// The time for which Redis keeps a result that is not cached. Waiters on other nodes are notified at once, so it is
/// short.
const RESULT: Duration = Duration::from_secs(5);
/// The largest number of leases that wait to be given back to Redis. A node has fewer calls in flight. Further leases
/// are not given back, and expire.
const MOST_RETURNED: usize = 4096;

/// The random secret by which Redis recognises the holder of a lease.
type Token = [u8; 16];

/// The answer of Redis to a node that needs an entry, or else the lease of the call for this entry.
#[derive(Debug)]
pub(super) enum ClaimAnswer {
    /// The entry exists, and may be served.
    Entry(Entry),
    /// Another node's call had a result that is not cached.
    Shared(SharedResult),
    /// This node has the lease, and makes the call.
    Lead(Lease),
    /// Another node makes the call. The value is the time until its lease ends, unless that node renews it.
    Wait(Duration),
    /// Redis had a value that can't be used, and granted no lease. An unusable entry has been removed.
    Nothing,
    /// Redis did not answer, or its answer was an error.
    Out,
}

/// The right and the duty to make a call for all nodes. If the lease is dropped without a result, it is given back to
/// Redis, and a waiting node makes the call.
#[derive(Debug)]
pub struct Lease {
    l2: Arc<RedisCache>,
    key: Key,
    token: Token,
    returned: Returns,
    /// True if the lease has to be given back. False if Redis did not grant the lease, or once a result has ended it.
    held: bool,
}

/// The queue of leases that this node gives back to Redis. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Returns(mpsc::Sender<Returned>);

/// A lease that its holder dropped.
#[derive(Debug)]
pub(super) struct Returned {
    key: Key,
    token: Token,
    /// The latest time at which the lease expires by itself.
    until: Instant,
}

impl Returns {
    /// Returns the queue, and its receiver for [`give_back`].
    pub(super) fn new() -> (Self, mpsc::Receiver<Returned>) {
        let (send, receive) = mpsc::channel(MOST_RETURNED);
        (Self(send), receive)
    }
}

/// Gives dropped leases back to Redis as soon as Redis is up. Returns when the queue is closed.
pub(super) async fn give_back(l2: Arc<RedisCache>, mut returned: mpsc::Receiver<Returned>) {
    let mut up = l2.redis.watch();
    while let Some(Returned { key, token, until }) = returned.recv().await {
        if timeout_at(until, up.wait_for(|up| *up)).await.is_err() {
            continue;
        }
        let keys = l2.redis.keys();
        let mut script = scripts::RELEASE.key(keys.cache_lease(key.bytes()));
        script.key(keys.cache_wanted(key.bytes()));
        script.arg(&token).arg(keys.results_channel()).arg(key.bytes());
        let _: Result<i64, RedisFailure> = l2.tell(&script).await;
    }
}

/// Returns the entry of a slot, without asking for the lease. Returns `None` if there is no usable entry, or if Redis
/// does not answer within `budget`.
pub(super) async fn look_up(l2: &Arc<RedisCache>, slot: &CacheSlot, budget: &Budget) -> Option<Entry> {
    let answer = ask(l2, slot, (&[], false), budget).await.ok()?;
    match (answer.0.as_str(), answer.1, answer.2) {
        ("entry", value, left) => l2.usable(slot, &value, left, budget).await,
        _ => {
            l2.counts.misses.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Asks Redis for the entry of a slot, or for the lease of its call. `waited` is true if the caller has waited for
/// another node's call. Then the shared result of that call is an answer too.
pub(super) async fn claim(
    l2: &Arc<RedisCache>,
    returns: &Returns,
    slot: &CacheSlot,
    waited: bool,
    budget: &Budget,
) -> ClaimAnswer {
    let mut lease = Lease {
        l2: Arc::clone(l2),
        key: slot.key.clone(),
        token: keyring::random(),
        returned: returns.clone(),
        // Redis may grant the lease even if its answer is lost.
        held: true,
    };
    let Ok((decision, value, left)) = ask(l2, slot, (&lease.token, waited), budget).await else {
        return ClaimAnswer::Out;
    };
    if decision == "lead" {
        l2.counts.misses.fetch_add(1, Ordering::Relaxed);
        return ClaimAnswer::Lead(lease);
    }
    lease.held = false;
    match decision.as_str() {
        "entry" => match l2.usable(slot, &value, left, budget).await {
            Some(entry) => ClaimAnswer::Entry(entry),
            None => ClaimAnswer::Nothing,
        },
        "landed" => l2.shared_result(slot, &value).map_or(ClaimAnswer::Nothing, ClaimAnswer::Shared),
        "wait" => ClaimAnswer::Wait(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
        _ => {
            l2.counts.misses.fetch_add(1, Ordering::Relaxed);
            ClaimAnswer::Nothing
        }
    }
}

async fn ask(
    l2: &RedisCache,
    slot: &CacheSlot,
    (token, waited): (&[u8], bool),
    budget: &Budget,
) -> Result<(String, Vec<u8>, i64), RedisFailure> {
    let (keys, key) = (l2.redis.keys(), slot.key.bytes());
    let mut script = scripts::CLAIM.key(l2.entry_key(slot));
    script.key(keys.cache_lease(key)).key(keys.cache_result(key)).key(keys.cache_wanted(key));
    script.arg(token).arg(millis(LEASE)).arg(u8::from(waited));
    let answer = l2.redis.script(budget, &script).await;
    if answer.is_err() {
        l2.counts.out.fetch_add(1, Ordering::Relaxed);
    }
    answer
}

impl Lease {
    /// Returns the holder's secret.
    pub(super) fn token(&self) -> &[u8] {
        &self.token
    }

    /// Extends the lease while the call runs. A failure of Redis is ignored, because it does not affect the call.
    pub async fn renew(&self) {
        let l2 = &self.l2;
        let mut script = scripts::RENEW.key(l2.redis.keys().cache_lease(self.key.bytes()));
        script.arg(&self.token).arg(millis(LEASE));
        let _: Result<i64, RedisFailure> = l2.tell(&script).await;
    }

    /// Shares a result that is not cached with waiters on other nodes, and ends the lease.
    pub async fn land(mut self, result: &SharedResult) {
        let (l2, keys) = (&self.l2, self.l2.redis.keys());
        let name = keys.cache_result(self.key.bytes());
        let value = l2.encrypted(&name, &wire::write_result(result));
        let mut script = scripts::LAND.key(keys.cache_lease(self.key.bytes()));
        script.key(keys.cache_wanted(self.key.bytes())).key(name);
        script.arg(&self.token).arg(value).arg(millis(RESULT));
        script.arg(keys.results_channel()).arg(self.key.bytes());
        let landed: Result<i64, RedisFailure> = l2.tell(&script).await;
        self.held = landed.is_err();
    }

    /// Marks the lease as ended, because the script that stored the entry has ended it in Redis.
    pub(super) fn ended(mut self) {
        self.held = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held {
            let returned = Returned { key: self.key.clone(), token: self.token, until: Instant::now() + LEASE };
            // If the queue is full or closed, the lease expires.
            let _ = self.returned.0.try_send(returned);
        }
    }
}
