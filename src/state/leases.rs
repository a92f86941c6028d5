//! Who has what in hand, in the memory of the one process that can have it.

use crate::base::clock::Clock;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What was handed out, and until when. Bounded by what claimants hold at once.
#[derive(Debug)]
pub(super) struct Leases<K> {
    held: Mutex<HashMap<K, Instant>>,
    clock: Clock,
}

impl<K: Copy + Eq + Hash> Leases<K> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { held: Mutex::default(), clock }
    }

    /// What is in somebody's hands now.
    pub(super) fn held(&self) -> HashSet<K> {
        let (mut held, now) = (self.held.lock(), self.clock.now());
        held.retain(|_, until| *until > now);
        held.keys().copied().collect()
    }

    /// Hands something out.
    pub(super) fn take(&self, key: K, lease: Duration) {
        let until = self.clock.now() + lease;
        self.held.lock().insert(key, until);
    }

    /// It is back.
    pub(super) fn give_back(&self, key: &K) {
        self.held.lock().remove(key);
    }
}
