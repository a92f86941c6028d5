//! What a connection's protocol and its stream tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signs that a connection gives. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Signs(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    /// The connection broke off in the middle of an answer.
    broken: AtomicBool,
    /// Bytes have arrived since somebody last asked.
    arrived: AtomicBool,
}

impl Signs {
    /// Notes that the connection broke off in the middle of an answer.
    pub(super) fn note_break(&self) {
        self.0.broken.store(true, Ordering::Release);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    /// Notes that bytes have arrived.
    pub(super) fn note_arrival(&self) {
        self.0.arrived.store(true, Ordering::Relaxed);
    }

    /// Returns true if bytes have arrived since the last call.
    pub(super) fn take_arrival(&self) -> bool {
        self.0.arrived.swap(false, Ordering::Relaxed)
    }
}
