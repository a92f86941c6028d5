//! Tells in the log when upstream stops and starts to be reachable: one line a change.

use super::connect::ConnectError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The last thing that is known of upstream's reachability.
#[derive(Debug)]
pub(super) struct Reachability {
    host: Arc<str>,
    /// Attempts that failed since the last one that succeeded.
    failures: AtomicU64,
}

impl Reachability {
    pub(super) fn new(host: &Arc<str>) -> Self {
        Self { host: Arc::clone(host), failures: AtomicU64::new(0) }
    }

    /// Notes an attempt to connect that failed.
    pub(super) fn failed(&self, cause: &ConnectError) {
        let host = &*self.host;
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(host, %cause, "cannot connect to Iluma: requests that need it are answered 503 until it works");
        } else {
            tracing::debug!(host, %cause, "still cannot connect to Iluma");
        }
    }

    /// Notes a connection that was made.
    pub(super) fn connected(&self) {
        // Read first: a shared line of memory is written only where something changes.
        if self.failures.load(Ordering::Relaxed) > 0 {
            let failures = self.failures.swap(0, Ordering::Relaxed);
            if failures > 0 {
                tracing::info!(host = &*self.host, failures, "connected to Iluma again");
            }
        }
    }
}
