//! Bounds on concurrent use: requests in flight, and the bytes of their bodies.
//!
//! Invariant: a guard gives everything back when it is dropped, however the request ends; a refused request leaves no
//! trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on requests in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    inside: AtomicUsize,
    most: AtomicUsize,
}

/// The slot of one request in flight. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct InFlightSlot(Option<Arc<InFlight>>);

impl InFlight {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), most: AtomicUsize::new(most) })
    }

    /// Sets the bound; requests in flight are not affected.
    pub(super) fn set(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    pub(super) fn enter(self: &Arc<Self>) -> Option<InFlightSlot> {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        let slot = InFlightSlot(Some(Arc::clone(self)));
        // Dropping the slot reverts the addition.
        (before < self.most.load(Ordering::Relaxed)).then_some(slot)
    }

    pub(super) fn most(&self) -> u64 {
        u64::try_from(self.most.load(Ordering::Relaxed)).unwrap_or(u64::MAX)
    }

    /// Returns the number of free slots.
    pub(super) fn left(&self) -> u64 {
        let inside = u64::try_from(self.inside.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        self.most().saturating_sub(inside)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }
}

impl InFlightSlot {
    /// Makes a slot that counts toward no bound.
    pub(super) const fn free() -> Self {
        Self(None)
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        if let Some(limit) = &self.0 {
            limit.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A bound on the bytes of request bodies that are held in memory.
#[derive(Debug, Default)]
pub(super) struct ByteBudget {
    held: AtomicUsize,
    most: AtomicUsize,
}

impl ByteBudget {
    /// Sets the bound; held bytes are not affected.
    pub(super) fn set(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let add = |held: usize| held.checked_add(bytes).filter(|held| *held <= most);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn remove(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// The bytes that one request holds, in the gateway's budget and in its tenant's. Dropping the value gives the bytes
/// back.
#[derive(Debug)]
pub(super) struct HeldBytes {
    budgets: [Arc<ByteBudget>; 2],
    bytes: AtomicUsize,
}

impl HeldBytes {
    pub(super) fn none(gateway: &Arc<ByteBudget>, tenant: &Arc<ByteBudget>) -> Self {
        Self { budgets: [gateway, tenant].map(Arc::clone), bytes: AtomicUsize::new(0) }
    }

    /// Holds further bytes. Returns false and changes nothing if a budget has no room for them.
    pub(super) fn add(&self, bytes: usize) -> bool {
        let [gateway, tenant] = &self.budgets;
        // The tenant's budget is first: a tenant beyond its part takes nothing from others.
        if !tenant.add(bytes) {
            return false;
        }
        if !gateway.add(bytes) {
            tenant.remove(bytes);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.budgets.iter().for_each(|budget| budget.remove(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_back_when_dropped_and_a_refused_one_leaves_no_trace() {
        let limit = InFlight::new(2);
        let (first, _second) = (limit.enter().unwrap(), limit.enter().unwrap());
        assert!(limit.enter().is_none());
        assert!(limit.enter().is_none());
        assert_eq!(limit.count(), 2);
        drop(first);
        assert!(limit.enter().is_some());
        limit.set(1);
        assert!(limit.enter().is_none(), "a bound that shrank holds for what comes");
        assert_eq!(limit.count(), 1);
    }

    #[test]
    fn bytes_are_held_within_both_budgets_and_given_back_when_dropped() {
        let [gateway, one, other] = [100, 50, 80].map(|most| {
            let budget = Arc::new(ByteBudget::default());
            budget.set(most);
            budget
        });
        let held = |tenant| HeldBytes::none(&gateway, tenant);
        let (first, second) = (held(&one), held(&one));
        assert!(first.add(20) && first.add(20) && second.add(10));
        assert!(!second.add(1), "one tenant has its half");
        let third = held(&other);
        assert!(third.add(50));
        assert!(!third.add(1), "the gateway has no more");
        let used = || [&gateway, &one, &other].map(|budget| budget.held());
        assert_eq!(used(), [100, 50, 50], "a refusal leaves no trace");
        drop(first);
        assert_eq!(used(), [60, 10, 50]);
        assert!(third.add(30));
        one.set(5);
        assert!(!second.add(1), "a bound that shrank holds for what comes");
        drop((second, third));
        assert_eq!(used(), [0, 0, 0]);
    }
}
