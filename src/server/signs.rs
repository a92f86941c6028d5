//! Signals between a connection's protocol and its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals of a connection. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Signs(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    /// True once the connection broke off in the middle of an answer.
    broken: AtomicBool,
    /// True if bytes have arrived since the last [`Signs::take_arrival`].
    arrived: AtomicBool,
}

impl Signs {
    /// Records that the connection broke off in the middle of an answer.
    pub(super) fn note_break(&self) {
        self.0.broken.store(true, Ordering::Release);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    /// Records that bytes have arrived.
    pub(super) fn note_arrival(&self) {
        self.0.arrived.store(true, Ordering::Relaxed);
    }

    /// Returns true if bytes have arrived since the last call.
    pub(super) fn take_arrival(&self) -> bool {
        self.0.arrived.swap(false, Ordering::Relaxed)
    }
}
