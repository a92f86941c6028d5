//! What an admitted request and an admitted call hold.
//!
//! Invariant: a guard gives back what it holds when it is dropped, unless that was used.

use super::fair_queue::Slot;
use super::in_flight::{HeldBytes, InFlightSlot};
use super::quota::Reservation;
use crate::config::Limit;

/// A request in flight: its places, and the bytes of its body.
#[derive(Debug)]
pub struct Permit {
    _tenant: InFlightSlot,
    _gateway: InFlightSlot,
    /// None for a request without a tenant, which has no body.
    held: Option<HeldBytes>,
}

impl Permit {
    pub(super) const fn new(tenant: InFlightSlot, gateway: InFlightSlot, held: Option<HeldBytes>) -> Self {
        Self { _tenant: tenant, _gateway: gateway, held }
    }

    /// Takes memory for further bytes of the request's body, until the permit is dropped. Returns false if the gateway or
    /// the tenant holds as many as it may (`server.max_buffered`).
    #[must_use]
    pub fn hold(&self, bytes: usize) -> bool {
        self.held.as_ref().is_none_or(|held| held.add(bytes))
    }
}

/// One upstream call. Dropped before it was [`sent`](Self::sent), it gives back what it took.
#[derive(Debug, Default)]
pub struct CallPermit {
    pub(super) slot: Option<Slot>,
    pub(super) reservation: Option<Reservation>,
}

impl CallPermit {
    /// Counts the call from here on.
    pub fn sent(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.used();
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.keep();
        }
    }

    /// Returns the quota that would have refused the call if it were in force.
    #[must_use]
    pub fn beyond(&self) -> Option<Limit> {
        self.reservation.as_ref().and_then(Reservation::beyond)
    }
}
