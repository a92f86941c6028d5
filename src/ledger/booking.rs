//! The guard of one call's intent.

use super::charge::{ChargeOutcome, Outcome};
use super::inner::Inner;
use super::journal;
use super::settlement::{Call, CallName, ClaimLink, Closing, End};
use crate::base::database::DatabaseError;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::route_name::RouteName;
use rusqlite::Connection;
use std::sync::Arc;

/// A call whose intent is on disk. If the booking is dropped without an outcome, the intent is withdrawn, and the
/// ledger forgets the call. The database's thread makes the booking at the commit, and drops it if the caller was
/// cancelled meanwhile. So a cancelled caller leaves no intent behind.
#[derive(Debug)]
pub struct Booking {
    ledger: Arc<Inner>,
    id: i64,
    /// The keyed hash of the reference that Iluma receives, if the reference is already known.
    reference: Option<CallName>,
    ended: bool,
}

impl Booking {
    /// Books a call that may be charged; returns once its intent is on disk.
    pub(super) async fn take(
        ledger: &Arc<Inner>,
        tenant: &TenantName,
        route: RouteName,
        claim: Option<ClaimLink>,
        reference: Option<CallName>,
    ) -> Result<Self, DatabaseError> {
        let live = ledger.live.load();
        let now = ledger.clock.wall();
        let day = live.calendar.day(now).to_string();
        let (tenant, tenant_name, price) = (tenant.clone(), tenant.clone(), live.prices[route as usize]);
        drop(live);
        let book = move |day: &String, connection: &Connection| {
            journal::book(connection, (day, tenant.as_str(), route.as_str()), price, now, (claim, reference))
        };
        let (inner, booked) = (Arc::clone(ledger), tenant_name);
        let own = move |day, id| {
            inner.changed([day]);
            inner.totals.booked(&booked);
            Self { ledger: inner, id, reference, ended: false }
        };
        ledger.database.write_owned(day, book, own).await
    }

    /// Withdraws the intent of a call that was never sent.
    pub fn withdraw(self) {}

    /// Returns the call's number in the journal of this node.
    #[must_use]
    pub const fn number(&self) -> i64 {
        self.id
    }

    /// Sets a reference that became known after the booking, in the form that Iluma receives.
    pub fn refer(&mut self, account: &AccountName, route: RouteName, reference: &str) {
        self.reference = Some(self.ledger.reference(account, route, reference));
    }

    /// Returns a writer of the call's reference, for a reference that becomes known while the request is sent.
    #[must_use]
    pub fn referrer(&self) -> Referrer {
        Referrer { ledger: Arc::clone(&self.ledger), id: self.id }
    }

    /// Records the outcome of the call.
    pub fn settle(mut self, account: &AccountName, charge: &ChargeOutcome) {
        let name = charge.id.as_deref().map(|id| self.ledger.name(account, id));
        self.end(charge.outcome, name);
    }

    fn end(&mut self, outcome: Outcome, name: Option<[u8; 32]>) {
        self.ended = true;
        let (call, end) = (Call::Booked(self.id), End::Outcome(outcome, name));
        self.ledger.push(Closing { call, end, reference: self.reference, is_early: false });
    }
}

/// Writes the reference of a booked call to the journal before the request is sent completely. If the process is killed
/// afterwards, the reference can still settle the call.
#[derive(Debug)]
pub struct Referrer {
    ledger: Arc<Inner>,
    id: i64,
}

impl Referrer {
    /// Writes the reference in the form that Iluma receives. If this write fails, the reference is written when the
    /// call is settled.
    pub async fn refer(self, account: &AccountName, route: RouteName, reference: &str) {
        let (id, reference) = (self.id, self.ledger.reference(account, route, reference));
        let _ = self.ledger.database.write(move |connection| journal::refer(connection, id, reference)).await;
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.close(Call::Booked(self.id), End::Withdrawn);
        }
    }
}
