//! Admission and accounting of one upstream call.
//!
//! Invariants:
//! - A call that may be charged is sent only after its intent is in the ledger.
//! - A call that was never sent counts neither in the limits nor in the ledger.
//! - A call ends with one outcome, even if its caller is cancelled. The outcome is unknown if the answer was not read.
//!
//! The guard is made before anything is taken for the call. So a caller that is cancelled at any point gives everything
//! back.

use super::call_reference::{CallReference, answered};
use super::claim::ClaimGuard;
use super::received::Received;
use super::runtime::RuntimeConfig;
use crate::base::name::AccountName;
use crate::base::retry_after::retry_after;
use crate::iluma::answer::Answer;
use crate::iluma::route_name::RouteName;
use crate::ledger::{self, Booking, ChargeOutcome, Ledger, Outcome};
use crate::limit::{Call, CallPermit, Endpoint};
use crate::redis::Budget;
use crate::reply::Rejection;
use crate::tenant::Tenant;
use crate::upstream::{self, AnswerBody, BreakerPermit, CallError, Outgoing, Progress};
use http::{HeaderMap, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// The average wait before a GET is repeated. A restarting host needs about this time.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The facts about a call that its admission needs.
#[derive(Clone, Copy)]
pub(super) struct PlannedCall<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) route: RouteName,
    /// True if Iluma may charge for the call.
    pub(super) charged: bool,
    pub(super) endpoint: &'a Endpoint,
    pub(super) reference: &'a CallReference,
}

/// The owner of everything that one upstream call takes: its slots in the limits, its intent in the ledger, and its
/// idempotency key. The guard is made before the first of these is taken, and ends when the call's outcome is recorded.
pub(super) struct CallGuard {
    config: Arc<RuntimeConfig>,
    ledger: Ledger,
    tenant: usize,
    account: usize,
    pub(super) route: RouteName,
    pub(super) charged: bool,
    breaker: BreakerPermit,
    limits: Option<CallPermit>,
    /// The intent. It is `None` before the intent is on disk, after the call is settled, and for a call that Iluma does
    /// not charge for.
    booking: Option<Booking>,
    /// The claim of the request's idempotency key, if the request has one.
    claim: Option<Box<ClaimGuard>>,
    endpoint: Endpoint,
    reference: CallReference,
    /// The wait that the answer demands in `retry-after`; `None` if it demands none.
    asked: Option<Duration>,
    /// True once the call may have reached upstream.
    started: bool,
    /// The progress of a streamed body; `None` for any other body. Iluma can act only after the whole body was sent.
    upload: Option<Arc<Progress>>,
}

impl CallGuard {
    /// Admits one upstream call. Waits for a slot in the account's fair queue, and until the intent is on disk.
    pub(super) async fn admit(
        config: &Arc<RuntimeConfig>,
        ledger: &Ledger,
        call: PlannedCall<'_>,
        claim: Option<Box<ClaimGuard>>,
        redis: &Budget,
    ) -> Result<Self, Rejection> {
        let PlannedCall { tenant, route, charged, endpoint, reference } = call;
        let account = tenant.account_index;
        let mut guard = Self {
            breaker: config.accounts[account].breaker.enter(config.upstream.host()).map_err(Rejection::CircuitOpen)?,
            config: Arc::clone(config),
            ledger: ledger.clone(),
            tenant: tenant.index,
            account,
            route,
            charged,
            limits: None,
            booking: None,
            claim,
            endpoint: Arc::clone(endpoint),
            reference: reference.clone(),
            asked: None,
            started: false,
            upload: None,
        };
        config.refund(ledger);
        let price = charged.then(|| ledger.price(route));
        let wanted = Call { endpoint, price };
        let limits = guard.limits.insert(config.limits.admit_call(tenant.index, wanted, redis).await?);
        config.report_quotas(tenant.index, limits.beyond());
        if charged {
            let (claim, text) = (guard.claim.as_ref().map(|claim| claim.bytes()), reference.text());
            let about = text.as_deref().map(|text| (&tenant.account, text));
            let booking = ledger.book(&tenant.name, route, claim, about).await;
            let booking = guard.booking.insert(booking.map_err(|_| Rejection::Unbooked)?);
            reference.write_before_end(booking.referrer(), tenant.account.clone(), route);
        }
        Ok(guard)
    }

    /// Marks the call and its claim as begun: from now on the call may reach Iluma.
    pub(super) fn start(&mut self, upload: Option<Arc<Progress>>) {
        (self.started, self.upload) = (true, upload);
        if let Some(claim) = &mut self.claim {
            claim.sent();
        }
    }

    /// Makes the call. A free GET that failed is repeated once, if the repetition may succeed and the retry budget
    /// allows it.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Response<AnswerBody>, CallError> {
        let (upstream, account) = (&self.config.upstream, &self.config.accounts[self.account]);
        let again = if self.charged { None } else { outgoing.again().map(Box::new) };
        let sent = upstream.send(outgoing, Some(&account.credential)).await;
        let Some(again) = again else { return sent };
        account.retries.note();
        if !(upstream::may_succeed_next(&sent) && account.retries.spend()) {
            return sent;
        }
        Box::pin(self.repeat(*again, sent)).await
    }

    /// Waits about 100 ms, then repeats the call and returns the new result. If the limits refuse the repetition,
    /// returns `sent`, the result of the first attempt.
    async fn repeat(
        &self,
        again: Outgoing,
        sent: Result<Response<AnswerBody>, CallError>,
    ) -> Result<Response<AnswerBody>, CallError> {
        let [jitter] = crate::base::keyring::random::<1>();
        tokio::time::sleep(RETRY_DELAY.mul_f64(0.5 + f64::from(jitter) / 255.0)).await;
        // The repetition is one more call, and waits in the fair queue like any other call. No quota counts it, so it
        // needs no time for Redis.
        let budget = Budget::of(Duration::ZERO);
        let wanted = Call { endpoint: &self.endpoint, price: None };
        let Ok(mut permit) = self.config.limits.admit_call(self.tenant, wanted, &budget).await else { return sent };
        drop(sent);
        let account = &self.config.accounts[self.account];
        let sent = self.config.upstream.send(again, Some(&account.credential)).await;
        if !sent.as_ref().is_err_and(|error| error.is_unprocessed()) {
            permit.sent();
            self.config.tallies[self.tenant].call(self.route);
        }
        sent
    }

    /// Records that the call failed before a whole answer arrived.
    pub(super) fn failed(mut self, error: CallError) {
        self.breaker.failed(error);
        self.tell_circuit();
        match error {
            // Nothing was processed, so everything is given back.
            CallError::Unreachable | CallError::NotProcessed => {
                self.started = false;
                self.unsent();
            }
            CallError::ClientTooSlow | CallError::ClientCutOff => {
                self.unsent();
                self.settle(&ChargeOutcome { outcome: Outcome::NotBillable, id: None });
            }
            CallError::TimedOut
            | CallError::Broken
            | CallError::Garbled
            | CallError::Truncated
            | CallError::TooLarge => self.settle(&ChargeOutcome::UNKNOWN),
        }
    }

    /// Records an answer that was read whole.
    pub(super) fn answered(mut self, received: &Received) {
        let (status, headers) = (received.collected.status, &received.collected.headers);
        self.head(status, headers);
        if let Some(claim) = self.claim.take() {
            claim.answered(self.route, received);
        }
        self.whole(status, Some(&received.answer));
    }

    /// Frees the idempotency key: Iluma has not processed the request.
    fn unsent(&mut self) {
        if let Some(claim) = &mut self.claim {
            claim.unsent();
        }
    }

    /// Records the head of an answer.
    pub(super) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.breaker.answered(status);
        self.tell_circuit();
        self.asked = retry_after(headers, self.config.clock.wall());
        match status {
            StatusCode::TOO_MANY_REQUESTS => self.refused(),
            // The body decides: KTP reports its rate limit with this status.
            StatusCode::BAD_REQUEST => {}
            status if status.is_server_error() => {}
            _ => self.accepted(),
        }
    }

    /// Settles the call by the body of its answer. If the call is a free GET of a record, settles the earlier call that
    /// made the record. `answer` is `None` if the body was not needed, or could not be read.
    pub(super) fn whole(&mut self, status: StatusCode, answer: Option<&Answer>) {
        let account = self.account_name();
        if self.charged {
            self.settle(&ledger::charge_outcome(self.route, status.as_u16(), answer.filter(|_| self.charges())));
        } else if let Some(answer) = answer.filter(|_| status.is_success() && self.route.spec().settles) {
            self.settle_by(&account, answer);
        }
        // KTP reports its rate limit with status 400, so only the body shows the limit.
        if status == StatusCode::BAD_REQUEST {
            if answer.is_some_and(Answer::is_rate_limited) { self.refused() } else { self.accepted() }
        }
    }

    /// Settles the call that made the record in the answer to a GET.
    fn settle_by(&self, account: &AccountName, answer: &Answer) {
        let is_unanswered = match &self.reference {
            CallReference::Unanswered => true,
            CallReference::None | CallReference::Known(_) | CallReference::Streamed(..) => false,
        };
        let reference = answered(answer).filter(|_| is_unanswered);
        match (ledger::seen(answer), reference.as_deref().zip(self.route.made_by())) {
            (Some((id, outcome)), Some((reference, route))) => {
                self.ledger.settle_by_reference(account, id, (route, reference), outcome);
            }
            (Some((_, Outcome::Unknown)) | None, _) => {}
            (Some((id, outcome)), None) => self.ledger.settle(account, id, outcome),
        }
    }

    fn settle(&mut self, charge: &ChargeOutcome) {
        if let Some(mut booking) = self.booking.take() {
            if let (CallReference::Streamed(..), Some(text)) = (&self.reference, self.reference.text()) {
                booking.refer(&self.account_name(), self.route, &text);
            }
            let free = ChargeOutcome { outcome: Outcome::NotBillable, id: None };
            booking.settle(&self.account_name(), if self.charges() { charge } else { &free });
        }
    }

    /// Returns true if the account pays for its calls. An account with a development key pays nothing.
    fn charges(&self) -> bool {
        self.config.accounts[self.account].charges
    }

    /// Returns the ledger that books the call.
    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn account_name(&self) -> AccountName {
        self.config.accounts[self.account].name.clone()
    }

    fn tell_circuit(&self) {
        let account = &self.config.accounts[self.account];
        account.metrics.set_circuit(account.breaker.is_open());
    }

    /// Records that the endpoint refused the call because of the rate limit.
    fn refused(&mut self) {
        if let Some(limits) = &mut self.limits {
            limits.refused(self.asked);
        }
        self.tell_backoff();
    }

    /// Records that the endpoint accepted the call.
    fn accepted(&mut self) {
        if let Some(limits) = &mut self.limits {
            limits.succeeded();
        }
        self.tell_backoff();
    }

    fn tell_backoff(&self) {
        let count = self.config.limits.backing_off(self.account).len();
        self.config.accounts[self.account].metrics.set_backing_off(count);
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if self.started {
            if let Some(limits) = &mut self.limits {
                limits.sent();
            }
            let cut_off = self.upload.as_ref().is_some_and(|upload| !upload.is_done());
            if cut_off {
                self.unsent();
            }
            let outcome = if cut_off { Outcome::NotBillable } else { Outcome::Unknown };
            self.settle(&ChargeOutcome { outcome, id: None });
            if !self.charged {
                self.config.tallies[self.tenant].call(self.route);
            }
        } else if let Some(booking) = self.booking.take() {
            booking.withdraw();
        }
    }
}
