//! Logs when Iluma becomes unreachable, and when it becomes reachable again: one line for each change.

use super::connect::ConnectError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The last known reachability of Iluma.
#[derive(Debug)]
pub(super) struct Reachability {
    host: Arc<str>,
    /// The number of failed attempts to connect since the last successful attempt.
    failures: AtomicU64,
}

impl Reachability {
    pub(super) fn new(host: &Arc<str>) -> Self {
        Self { host: Arc::clone(host), failures: AtomicU64::new(0) }
    }

    /// Records a failed attempt to connect.
    pub(super) fn failed(&self, cause: &ConnectError) {
        let host = &*self.host;
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(host, %cause, "cannot connect to Iluma: requests that need it are answered 503 until it works");
        } else {
            tracing::debug!(host, %cause, "still cannot connect to Iluma");
        }
    }

    /// Records a successful connection.
    pub(super) fn connected(&self) {
        // Reading comes first, because writing to shared memory is slow and only a change needs it.
        if self.failures.load(Ordering::Relaxed) > 0 {
            let failures = self.failures.swap(0, Ordering::Relaxed);
            if failures > 0 {
                tracing::info!(host = &*self.host, failures, "connected to Iluma again");
            }
        }
    }
}
