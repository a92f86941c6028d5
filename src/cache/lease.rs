//! The lease of a call: which node makes it while the others wait.
//!
//! Invariants: a [`Lease`] exists before Redis is asked for it, so whatever is dropped at whatever await gives it back;
//! it is given back by its holder alone, or expires; a result that is not cached is shared before the lease ends.

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

/// Time for which a lease holds without renewal. It is renewed while its call is under way, so this is what a node's death
/// costs the others, and three times what a busy node may be late.
const LEASE: Duration = Duration::from_secs(3);
/// Time between renewals of a lease.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(1);
/// Time for which a result that is not cached lies there for waiters on other nodes; they are told at once.
const RESULT: Duration = Duration::from_secs(5);
/// Leases that wait to be given back, more than one node's calls under way. What finds no place expires.
const MOST_RETURNED: usize = 4096;

/// Secret of a lease's holder.
type Token = [u8; 16];

/// Answer of Redis to a claim.
#[derive(Debug)]
pub(super) enum ClaimAnswer {
    /// The entry is there.
    Entry(Entry),
    /// Another node's call brought a result that is not cached.
    Shared(SharedResult),
    /// This node makes the call.
    Lead(Lease),
    /// Another node makes the call; its lease lasts so long unless it is renewed.
    Wait(Duration),
    /// A value of no use was there, and is out of the way now.
    Nothing,
    /// Redis did not answer.
    Out,
}

/// The right and the duty to make a call for all nodes. Dropped, it is given back, and the next waiter leads.
#[derive(Debug)]
pub struct Lease {
    level2: Arc<RedisCache>,
    key: Key,
    token: Token,
    returned: Returns,
    /// False once it ended with a result, or was never given.
    held: bool,
}

/// Leases on their way back to Redis. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Returns(mpsc::Sender<Returned>);

/// A lease that its holder dropped.
#[derive(Debug)]
pub(super) struct Returned {
    key: Key,
    token: Token,
    /// Later than that it has expired.
    until: Instant,
}

impl Returns {
    /// Returns the queue, and its end for [`give_back`].
    pub(super) fn new() -> (Self, mpsc::Receiver<Returned>) {
        let (send, receive) = mpsc::channel(MOST_RETURNED);
        (Self(send), receive)
    }
}

/// Gives dropped leases back, as soon as Redis answers. Ends with the queue.
pub(super) async fn give_back(level2: Arc<RedisCache>, mut returned: mpsc::Receiver<Returned>) {
    let mut up = level2.link.watch();
    while let Some(Returned { key, token, until }) = returned.recv().await {
        if timeout_at(until, up.wait_for(|up| *up)).await.is_err() {
            continue;
        }
        let keys = level2.link.keys();
        let mut script = scripts::RELEASE.key(keys.cache_lease(key.bytes()));
        script.key(keys.cache_wanted(key.bytes()));
        script.arg(&token).arg(keys.results_channel()).arg(key.bytes());
        let _: Result<i64, RedisFailure> = level2.tell(&script).await;
    }
}

/// Returns the entry of a slot alone.
pub(super) async fn look_up(level2: &Arc<RedisCache>, slot: &CacheSlot, budget: &Budget) -> Option<Entry> {
    let answer = ask(level2, slot, (&[], false), budget).await.ok()?;
    match (answer.0.as_str(), answer.1, answer.2) {
        ("entry", value, left) => level2.usable(slot, &value, left, budget).await,
        _ => {
            level2.counts.misses.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Returns the entry of a slot, or decides which node makes the call. `waited` is true if the caller has waited for the call
/// of another node, whose result will do.
pub(super) async fn claim(
    level2: &Arc<RedisCache>,
    returns: &Returns,
    slot: &CacheSlot,
    waited: bool,
    budget: &Budget,
) -> ClaimAnswer {
    let mut lease = Lease {
        level2: Arc::clone(level2),
        key: slot.key.clone(),
        token: keyring::random(),
        returned: returns.clone(),
        // Redis may give it without our hearing of it.
        held: true,
    };
    let Ok((decision, value, left)) = ask(level2, slot, (&lease.token, waited), budget).await else {
        return ClaimAnswer::Out;
    };
    if decision == "lead" {
        level2.counts.misses.fetch_add(1, Ordering::Relaxed);
        return ClaimAnswer::Lead(lease);
    }
    lease.held = false;
    match decision.as_str() {
        "entry" => match level2.usable(slot, &value, left, budget).await {
            Some(entry) => ClaimAnswer::Entry(entry),
            None => ClaimAnswer::Nothing,
        },
        "landed" => level2.shared_result(slot, &value).map_or(ClaimAnswer::Nothing, ClaimAnswer::Shared),
        "wait" => ClaimAnswer::Wait(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
        _ => {
            level2.counts.misses.fetch_add(1, Ordering::Relaxed);
            ClaimAnswer::Nothing
        }
    }
}

async fn ask(
    level2: &RedisCache,
    slot: &CacheSlot,
    (token, waited): (&[u8], bool),
    budget: &Budget,
) -> Result<(String, Vec<u8>, i64), RedisFailure> {
    let (keys, key) = (level2.link.keys(), slot.key.bytes());
    let mut script = scripts::CLAIM.key(level2.entry_key(slot));
    script.key(keys.cache_lease(key)).key(keys.cache_result(key)).key(keys.cache_wanted(key));
    script.arg(token).arg(millis(LEASE)).arg(u8::from(waited));
    let answer = level2.link.script(budget, &script).await;
    if answer.is_err() {
        level2.counts.out.fetch_add(1, Ordering::Relaxed);
    }
    answer
}

impl Lease {
    /// Returns the holder's secret.
    pub(super) fn token(&self) -> &[u8] {
        &self.token
    }

    /// Extends the lease while the call runs. A Redis that is out changes nothing for the call.
    pub async fn renew(&self) {
        let level2 = &self.level2;
        let mut script = scripts::RENEW.key(level2.link.keys().cache_lease(self.key.bytes()));
        script.arg(&self.token).arg(millis(LEASE));
        let _: Result<i64, RedisFailure> = level2.tell(&script).await;
    }

    /// Leaves a result that is not cached to waiters on other nodes, and ends the lease.
    pub async fn land(mut self, result: &SharedResult) {
        let (level2, keys) = (&self.level2, self.level2.link.keys());
        let name = keys.cache_result(self.key.bytes());
        let value = level2.encrypted(&name, &wire::write_result(result));
        let mut script = scripts::LAND.key(keys.cache_lease(self.key.bytes()));
        script.key(keys.cache_wanted(self.key.bytes())).key(name);
        script.arg(&self.token).arg(value).arg(millis(RESULT));
        script.arg(keys.results_channel()).arg(self.key.bytes());
        let landed: Result<i64, RedisFailure> = level2.tell(&script).await;
        self.held = landed.is_err();
    }

    /// Notes that storing the entry has ended the lease.
    pub(super) fn ended(mut self) {
        self.held = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held {
            let returned = Returned { key: self.key.clone(), token: self.token, until: Instant::now() + LEASE };
            // Full, or nobody gives leases back any more: it expires.
            let _ = self.returned.0.try_send(returned);
        }
    }
}
