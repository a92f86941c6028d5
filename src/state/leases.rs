//! Leases in memory, for the embedded engine: only one gateway process can use its database.

use crate::base::clock::Clock;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The leased entries, each with the end of its lease. Their number is bounded, because each caller asks for a bounded
/// number of entries.
#[derive(Debug)]
pub(super) struct Leases<K> {
    held: Mutex<HashMap<K, Instant>>,
    clock: Clock,
}

impl<K: Copy + Eq + Hash> Leases<K> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { held: Mutex::default(), clock }
    }

    /// Returns the entries that are leased now.
    pub(super) fn held(&self) -> HashSet<K> {
        let (mut held, now) = (self.held.lock(), self.clock.now());
        held.retain(|_, until| *until > now);
        held.keys().copied().collect()
    }

    /// Leases an entry.
    fn take(&self, key: K, lease: Duration) {
        let until = self.clock.now() + lease;
        self.held.lock().insert(key, until);
    }

    /// Ends the lease of an entry.
    pub(super) fn give_back(&self, key: &K) {
        self.held.lock().remove(key);
    }

    /// Begins a hand-out of entries. If the caller is cancelled, the hand-out is dropped before [`HandOut::keep`], and
    /// its leases end.
    pub(super) fn hand_out(&self) -> HandOut<'_, K> {
        HandOut { leases: self, keys: Vec::new() }
    }
}

/// The leases of an unfinished hand-out. If this value is dropped before [`HandOut::keep`], the leases end.
#[derive(Debug)]
pub(super) struct HandOut<'a, K: Copy + Eq + Hash> {
    leases: &'a Leases<K>,
    keys: Vec<K>,
}

impl<K: Copy + Eq + Hash> HandOut<'_, K> {
    pub(super) fn take(&mut self, key: K, lease: Duration) {
        self.leases.take(key, lease);
        self.keys.push(key);
    }

    /// Finishes the hand-out: the caller holds the leases now.
    pub(super) fn keep(mut self) {
        self.keys.clear();
    }
}

impl<K: Copy + Eq + Hash> Drop for HandOut<'_, K> {
    fn drop(&mut self) {
        self.keys.iter().for_each(|key| self.leases.give_back(key));
    }
}
