//! The guards of an admitted request and an admitted call.
//!
//! Invariant: a dropped guard gives back everything that it holds, unless it was used.

use super::endpoints::Pass;
use super::fair_queue::Slot;
use super::in_flight::{HeldBytes, InFlightSlot};
use super::quota::Reservation;
use crate::config::Limit;
use std::time::Duration;

/// An admitted request, with its slots and the held bytes of its body.
#[derive(Debug)]
pub struct Permit {
    _tenant: InFlightSlot,
    _gateway: InFlightSlot,
    /// The held bytes; `None` for a request without a tenant, which has no body.
    held: Option<HeldBytes>,
}

impl Permit {
    pub(super) const fn new(tenant: InFlightSlot, gateway: InFlightSlot, held: Option<HeldBytes>) -> Self {
        Self { _tenant: tenant, _gateway: gateway, held }
    }

    /// Holds memory for further bytes of the request's body, until the permit is dropped. Returns false if the gateway
    /// or the tenant holds as many bytes as allowed (`server.max_buffered`).
    #[must_use]
    pub fn hold(&self, bytes: usize) -> bool {
        self.held.as_ref().is_none_or(|held| held.add(bytes))
    }
}

/// The permit of one upstream call. If it is dropped before it was [`sent`](Self::sent), it gives everything back.
#[derive(Debug, Default)]
pub struct CallPermit {
    pub(super) pass: Option<Pass>,
    pub(super) slot: Option<Slot>,
    pub(super) reservation: Option<Reservation>,
}

impl CallPermit {
    /// Marks the call as sent: it counts from here on.
    pub fn sent(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.used();
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.keep();
        }
    }

    /// Records that upstream refused the call, because the rate of calls was too high. The endpoint backs off for
    /// `retry_after`. If that is `None`, it backs off for a wait that grows with each refused probe.
    pub fn refused(&mut self, retry_after: Option<Duration>) {
        if let Some(pass) = self.pass.take() {
            pass.refused(retry_after);
        }
    }

    /// Records that upstream accepted the call. If the call was the probe of its endpoint, the back-off is over.
    pub fn succeeded(&mut self) {
        if let Some(pass) = self.pass.take() {
            pass.succeeded();
        }
    }

    /// Returns the quota that the call exceeds in shadow mode; `None` if it exceeds none. An enforced quota would have
    /// refused the call.
    #[must_use]
    pub fn beyond(&self) -> Option<Limit> {
        self.reservation.as_ref().and_then(Reservation::beyond)
    }
}
