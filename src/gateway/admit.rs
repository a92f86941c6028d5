//! What stands around one upstream call: it is let through, counted and booked before, and settled after.
//!
//! Invariants: a call that may be charged leaves only with its intent in the books; a call that was never sent leaves no
//! trace in limits or books; whatever happens to the caller, a call ends with one outcome, which is unknown where nobody
//! saw its answer.

use super::Gateway;
use super::runtime::RuntimeConfig;
use crate::base::clock::Clock;
use crate::base::name::AccountName;
use crate::base::retry_after::retry_after;
use crate::base::tasks::Tasks;
use crate::iluma::route_name::RouteName;
use crate::ledger::{self, Booking, Ledger, Outcome, Verdict};
use crate::limit::CallPermit;
use crate::redis::client::Budget;
use crate::reply::{Rejection, ReplyBody};
use crate::tenant::Tenant;
use crate::upstream::{self, AnswerBody, BreakerPermit, CallError, Collected, Outgoing, Progress};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Of a streamed answer, what is looked at to know whether it is charged; Iluma's have a few kilobytes.
const LARGEST_LOOK: usize = 256 << 10;
/// Before a look is made once more: a restarting host takes about as long to be there.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Where upstream says that it is asked too much, but not for how long.
const PAUSE: Duration = Duration::from_secs(1);

/// Leave to make one call, and the duty to tell what became of it.
pub(super) struct Admission {
    live: Arc<RuntimeConfig>,
    ledger: Ledger,
    clock: Clock,
    tenant: usize,
    account: usize,
    route: RouteName,
    charged: bool,
    permit: CallPermit,
    passage: BreakerPermit,
    /// None: upstream does not charge for it, or it is settled.
    booking: Option<Booking>,
    /// From here on it may have reached upstream.
    started: bool,
    /// The body that has to be sent wholly before upstream can act.
    upload: Option<Arc<Progress>>,
}

impl Gateway {
    /// Admits one upstream call of the tenant; `charged` if upstream may charge for it. It waits for its turn,
    /// and until its intent is on disk.
    pub(super) async fn admit(
        &self,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        route: RouteName,
        charged: bool,
        redis: &Budget,
    ) -> Result<Admission, Rejection> {
        let (index, account) = (tenant.index, tenant.account_index);
        let passage = live.accounts[account].breaker.enter().map_err(Rejection::CircuitOpen)?;
        let permit = live.limits.admit_call(index, charged, redis).await?;
        live.tell_standing(index, permit.beyond());
        let booking = if charged {
            let booked = self.ledger.book(&tenant.name, route).await;
            Some(booked.map_err(|_| Rejection::Unbooked)?)
        } else {
            None
        };
        let (live, ledger) = (Arc::clone(live), self.ledger.clone());
        let (started, upload) = (false, None);
        Ok(Admission {
            live,
            ledger,
            clock: self.clock.clone(),
            tenant: index,
            account,
            route,
            charged,
            permit,
            passage,
            booking,
            started,
            upload,
        })
    }
}

impl Admission {
    /// The call is made now.
    pub(super) fn start(&mut self, upload: Option<Arc<Progress>>) {
        (self.started, self.upload) = (true, upload);
    }

    /// Makes the call; a look is made once more where that may go better and the budget has it.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Response<AnswerBody>, CallError> {
        let (upstream, account) = (&self.live.upstream, &self.live.accounts[self.account]);
        let again = if self.charged { None } else { outgoing.again() };
        let sent = upstream.send(outgoing, Some(&account.credential)).await;
        let Some(again) = again else { return sent };
        account.retries.note();
        if !(upstream::may_go_better(&sent) && account.retries.spend()) {
            return sent;
        }
        let [jitter] = crate::base::keyring::random::<1>();
        tokio::time::sleep(RETRY_DELAY.mul_f64(0.5 + f64::from(jitter) / 255.0)).await;
        // It is one more call, and waits for its turn like any other. No quota counts it, so it needs no other node's count.
        let budget = Budget::of(Duration::ZERO);
        let Ok(mut permit) = self.live.limits.admit_call(self.tenant, false, &budget).await else { return sent };
        drop(sent);
        let sent = upstream.send(again, Some(&account.credential)).await;
        if !matches!(sent, Err(CallError::Unreachable)) {
            permit.sent();
            self.live.tallies[self.tenant].call(self.route);
        }
        sent
    }

    /// There is no answer.
    pub(super) fn failed(mut self, error: CallError) {
        self.passage.failed(error);
        self.tell_circuit();
        match error {
            // Nothing was sent: what was taken is given back.
            CallError::Unreachable => self.started = false,
            CallError::ClientTooSlow | CallError::ClientCutOff => {
                self.settle(&Verdict { outcome: Outcome::NotBillable, id: None });
            }
            _ => self.settle(&Verdict::UNKNOWN),
        }
    }

    /// The answer was read whole.
    pub(super) fn answered(mut self, answer: &Collected) {
        self.head(answer.status, &answer.headers);
        self.whole(answer.status, Some(&answer.body));
    }

    /// What the head of an answer says.
    fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.passage.answered(status);
        self.tell_circuit();
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.pause(headers);
        }
    }

    /// What the body of an answer says; none if it could not be read.
    fn whole(&mut self, status: StatusCode, body: Option<&[u8]>) {
        let account = self.account_name();
        if self.charged {
            self.settle(&ledger::verdict(self.route, status.as_u16(), body.filter(|_| self.charges())));
        } else if status.is_success()
            && let Some((id, outcome)) = body.filter(|_| self.route.spec().settles).and_then(ledger::told)
        {
            self.ledger.settle(&account, &id, outcome);
        }
        // KTP says it with a status that has no header for it.
        if status == StatusCode::BAD_REQUEST && body.is_some_and(says_too_much) {
            self.pause(&HeaderMap::new());
        }
    }

    fn settle(&mut self, verdict: &Verdict) {
        if let Some(booking) = self.booking.take() {
            let free = Verdict { outcome: Outcome::NotBillable, id: None };
            booking.settle(&self.account_name(), if self.charges() { verdict } else { &free });
        }
    }

    /// Whether the account pays for anything at all: development keys don't.
    fn charges(&self) -> bool {
        self.live.accounts[self.account].charges
    }

    fn account_name(&self) -> AccountName {
        self.live.accounts[self.account].name.clone()
    }

    fn tell_circuit(&self) {
        let account = &self.live.accounts[self.account];
        account.metrics.circuit(account.breaker.is_open());
    }

    fn pause(&self, headers: &HeaderMap) {
        self.live.limits.pause(self.account, retry_after(headers, self.clock.wall()).unwrap_or(PAUSE));
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.started {
            self.permit.sent();
            let cut_off = self.upload.as_ref().is_some_and(|upload| !upload.is_done());
            let outcome = if cut_off { Outcome::NotBillable } else { Outcome::Unknown };
            self.settle(&Verdict { outcome, id: None });
            if !self.charged {
                self.live.tallies[self.tenant].call(self.route);
            }
        } else if let Some(booking) = self.booking.take() {
            booking.withdraw();
        }
    }
}

fn says_too_much(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Error<'a> {
        error_code: &'a str,
    }
    serde_json::from_slice::<Error<'_>>(body).is_ok_and(|error| error.error_code == "RATE_LIMIT_EXCEEDED")
}

/// Sees a streamed answer go by, and settles its call at the end.
pub(super) struct ResponseObserver {
    admission: Admission,
    status: StatusCode,
    encoding: HeaderMap,
    seen: BytesMut,
    too_large: bool,
    tasks: Tasks,
}

impl ResponseObserver {
    /// Sees the head. None if the body makes no difference: then the call is settled.
    pub(super) fn new(mut admission: Admission, response: &Response<AnswerBody>, tasks: &Tasks) -> Option<Box<Self>> {
        let (status, headers) = (response.status(), response.headers());
        admission.head(status, headers);
        let matters = match status {
            status if status.is_success() => admission.charged || admission.route.spec().settles,
            status => status == StatusCode::BAD_REQUEST,
        };
        if !matters {
            admission.whole(status, None);
            return None;
        }
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let encoding = encodings.map(|value| (CONTENT_ENCODING, value.clone())).collect();
        let (seen, tasks) = (BytesMut::new(), tasks.clone());
        Some(Box::new(Self { admission, status, encoding, seen, too_large: false, tasks }))
    }

    /// A piece of the body.
    pub(super) fn see(&mut self, data: &Bytes) {
        self.too_large |= self.seen.len() + data.len() > LARGEST_LOOK;
        if !self.too_large {
            self.seen.extend_from_slice(data);
        }
    }

    /// The body is over, `whole` or not. What this gives is done once the outcome is in the books; where it can't be
    /// written now it is kept, and the answer is worth no less.
    pub(super) fn close(mut self: Box<Self>, whole: bool) -> Booked {
        let body = self.seen.split().freeze();
        let body = if whole && !self.too_large { upstream::decoded(&self.encoding, &body) } else { None };
        self.admission.whole(self.status, body.as_deref());
        let ledger = self.admission.ledger.clone();
        Box::pin(async move { ledger.settled().await.unwrap_or_default() })
    }

    /// The client has gone before the end of the body: what is charged is read on all the same.
    pub(super) fn outlive(self: Box<Self>, body: ReplyBody) {
        match body {
            ReplyBody::Upstream(body) if self.admission.charged && self.status.is_success() => {
                self.tasks.clone().spawn(async move { self.read(*body).await });
            }
            _ => drop(self.close(false)),
        }
    }

    /// Reads to the end. The body has a deadline for each of its pieces.
    pub(super) async fn read(mut self: Box<Self>, mut body: AnswerBody) {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return drop(self.close(false)) };
            if let Some(data) = frame.data_ref() {
                self.see(data);
            }
            if self.too_large {
                break;
            }
        }
        drop(self.close(true));
    }
}

/// A call's outcome on its way into the books.
pub(super) type Booked = Pin<Box<dyn Future<Output = ()> + Send>>;

impl std::fmt::Debug for ResponseObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseObserver").field("status", &self.status).finish_non_exhaustive()
    }
}
