//! Intents, and the guard of each.
//!
//! A job takes the intents that wait when it begins, so one job books all calls that came until then.

use super::charge::{ChargeOutcome, Outcome};
use super::inner::Inner;
use super::intents::{Intent, Waiting};
use super::journal;
use super::settlement::{Call, CallName, ClaimLink, Closing, End};
use crate::base::database::DatabaseError;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::route_name::RouteName;
use rusqlite::Connection;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A call whose intent is on disk. Dropping it without an outcome withdraws the intent, as if the call had never been
/// booked. A caller that is cancelled while it waits leaves nothing behind either.
#[derive(Debug)]
pub struct Booking {
    ledger: Arc<Inner>,
    id: i64,
    /// The name of the call's reference at Iluma, if it has one and it is known by now.
    reference: Option<CallName>,
    ended: bool,
}

impl Booking {
    /// Books a call that may be charged; returns once its intent is on disk. Of several callers one queues the job for all.
    pub(super) async fn take(
        ledger: &Arc<Inner>,
        tenant: &TenantName,
        route: RouteName,
        claim: Option<ClaimLink>,
        reference: Option<CallName>,
    ) -> Result<Self, DatabaseError> {
        let booked = ledger.clock.wall();
        let intent = {
            let live = ledger.live.load();
            let (day, price) = (live.calendar.day(booked).to_string(), live.prices[route as usize]);
            Intent { day, tenant: tenant.clone(), route, price, booked, claim, reference }
        };
        let (told, number) = oneshot::channel();
        let mut awaited = Awaited { ledger: Arc::clone(ledger), number };
        if ledger.intents.lock().push(intent, told) {
            queue(ledger);
        }
        let id = (&mut awaited.number).await.map_err(|_| DatabaseError::Unwritable)?;
        Ok(Self { ledger: Arc::clone(ledger), id, reference, ended: false })
    }

    /// Withdraws the intent: the call was never sent.
    pub fn withdraw(self) {}

    /// Returns the call's number in the journal of this node.
    #[must_use]
    pub const fn number(&self) -> i64 {
        self.id
    }

    /// Sets the call's reference as Iluma has it, if it became known after the booking.
    pub fn refer(&mut self, account: &AccountName, route: RouteName, reference: &str) {
        self.reference = Some(self.ledger.reference(account, route, reference));
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

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.close(Call::Booked(self.id), End::Withdrawn);
        }
    }
}

/// A caller that waits for its call's number. If it goes meanwhile, the intent is withdrawn.
struct Awaited {
    ledger: Arc<Inner>,
    number: oneshot::Receiver<i64>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.number.close();
        // It was booked, and its caller has not heard of it.
        if let Ok(number) = self.number.try_recv() {
            self.ledger.close(Call::Booked(number), End::Withdrawn);
        }
    }
}

/// Queues a job that books every call whose intent waits when it begins.
fn queue(ledger: &Arc<Inner>) {
    let queued = Queued { ledger: Arc::clone(ledger), has_begun: false };
    let work = move |connection: &Connection| {
        let (ledger, mut intents) = queued.begin();
        // A caller that has gone makes no call.
        intents.retain(|(_, caller)| !caller.is_closed());
        let numbers = journal::book(connection, intents.iter().map(|(intent, _)| intent))?;
        Ok((ledger, intents, numbers))
    };
    ledger.database.post(work, |(ledger, intents, numbers)| {
        for ((Intent { day, tenant, .. }, caller), number) in intents.into_iter().zip(numbers) {
            ledger.changed([day]);
            ledger.totals.booked(&tenant);
            if caller.send(number).is_err() {
                ledger.close(Call::Booked(number), End::Withdrawn);
            }
        }
    });
}

/// A job in the database's queue that will take intents. If it is dropped there, their callers get no booking.
struct Queued {
    ledger: Arc<Inner>,
    has_begun: bool,
}

impl Queued {
    fn begin(mut self) -> (Arc<Inner>, Vec<Waiting>) {
        self.has_begun = true;
        (Arc::clone(&self.ledger), self.ledger.intents.lock().take())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.has_begun {
            drop(self.ledger.intents.lock().take());
        }
    }
}
