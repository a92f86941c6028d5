//! Tasks of this process that wait for other nodes' calls.

use super::key::Key;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// The waiters of this process, by cache key. A key has at most one waiter: the request that leads the single-flight
/// for this key.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<Key, Arc<Notify>>>);

/// A registered waiter. Dropping it ends the registration.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    key: Key,
    notify: Arc<Notify>,
}

impl Waiters {
    /// Registers a waiter for a key. The caller registers first and asks Redis for the lease afterwards, so that it
    /// misses no message.
    pub(super) fn register(&self, key: &Key) -> Waiter<'_> {
        let notify = Arc::clone(self.0.lock().entry(key.clone()).or_default());
        Waiter { waiters: self, key: key.clone(), notify }
    }

    /// Wakes the waiter for a key. If the waiter does not wait yet, its next wait ends at once.
    pub(super) fn wake(&self, key: &Key) {
        if let Some(notify) = self.0.lock().get(key) {
            notify.notify_one();
        }
    }

    /// Wakes every waiter, because messages may have been lost.
    pub(super) fn wake_all(&self) {
        self.0.lock().values().for_each(|notify| notify.notify_one());
    }
}

impl Waiter<'_> {
    /// Returns when the waiter is woken.
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.0.lock().remove(&self.key);
    }
}
