//! One upstream call of a request: admitted, sent, accounted for.

use super::call_guard::{CallGuard, PlannedCall};
use super::claim::{ClaimGuard, Idempotency};
use super::exchange::Exchange;
use super::observer::ResponseObserver;
use super::received::Received;
use crate::base::tasks::Tasks;
use crate::iluma::route_name::RouteName;
use crate::limit::Permit;
use crate::reference;
use crate::reply::Rejection;
use crate::upstream::{self, AnswerBody, CallError, Outgoing, OutgoingBody, Progress};
use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Builds a GET without a body. It is free, and may be repeated. It is also sent for HEAD.
pub(super) fn get(target: PathAndQuery, headers: HeaderMap) -> Outgoing {
    Outgoing { method: Method::GET, target, headers, body: OutgoingBody::Empty, repeatable: true }
}

/// Builds the headers of a GET that the gateway itself makes.
pub(super) fn own_head() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

impl Exchange<'_> {
    /// Makes one upstream call on the row `route`, and records it in the request's log. Once a request that may change
    /// or cost something was sent completely, the call is finished even if this future is dropped.
    pub(super) async fn send(
        &mut self,
        route: RouteName,
        outgoing: Outgoing,
    ) -> Result<Response<AnswerBody>, Rejection> {
        let (config, index, clock) = (Arc::clone(self.config), self.tenant.account_index, self.gateway.clock.clone());
        let tasks = self.gateway.tasks.clone();
        let call = move |mut guard: CallGuard, outgoing: Outgoing| async move {
            let started = clock.now();
            guard.start(outgoing.body.progress());
            let sent = guard.send(outgoing).await;
            let took = clock.now().saturating_duration_since(started);
            let status = sent.as_ref().ok().map(|response| response.status().as_u16());
            config.accounts[index].metrics.request(route, status, took);
            let observer = match &sent {
                Ok(response) => ResponseObserver::new(guard, response, &tasks),
                Err(error) => {
                    guard.failed(*error);
                    None
                }
            };
            Streamed { sent, observer, took }
        };
        let called = self.make(route, outgoing, None, call).await?;
        self.log.called(called.took, called.sent.as_ref().ok().map(|response| response.status().as_u16()));
        self.log.observer = called.observer;
        Ok(called.sent?)
    }

    /// Makes the request's own call like [`Exchange::send_whole`], under the request's idempotency key if it has one. A
    /// repetition makes no call, and gets the stored answer.
    pub(super) async fn send_own(&mut self, route: RouteName, outgoing: Outgoing) -> Result<Received, Rejection> {
        match self.idempotency.take() {
            Some(Idempotency::Repetition(repetition)) => self.repeat(repetition, outgoing).await,
            Some(Idempotency::Claim(claim)) => self.whole(route, outgoing, Some(claim)).await,
            None => self.whole(route, outgoing, None).await,
        }
    }

    /// Makes one upstream call, and reads its answer whole. The call's outcome is in the ledger when this returns. A
    /// call that may change or cost something is finished even if this future is dropped.
    pub(super) async fn send_whole(&mut self, route: RouteName, outgoing: Outgoing) -> Result<Received, Rejection> {
        self.whole(route, outgoing, None).await
    }

    async fn whole(
        &mut self,
        route: RouteName,
        outgoing: Outgoing,
        claim: Option<Box<ClaimGuard>>,
    ) -> Result<Received, Rejection> {
        let (config, index, gateway) = (Arc::clone(self.config), self.tenant.account_index, Arc::clone(self.gateway));
        let call = move |mut guard: CallGuard, outgoing: Outgoing| async move {
            let started = gateway.clock.now();
            let account = &config.accounts[index];
            guard.start(outgoing.body.progress());
            let collected = match guard.send(outgoing).await {
                Ok(response) => {
                    let total = config.upstream.timeouts().answer;
                    upstream::collect(response, Some(&account.credential), total).await
                }
                Err(error) => Err(error),
            };
            let took = gateway.clock.now().saturating_duration_since(started);
            let received = collected.map(|collected| Received::new(collected, &gateway.persons));
            let status = received.as_ref().ok().map(|received| received.collected.status.as_u16());
            account.metrics.request(route, status, took);
            match &received {
                Ok(received) => guard.answered(received),
                Err(error) => guard.failed(*error),
            }
            // An outcome that can't be written now is kept, and the answer is still sent.
            let _ = gateway.ledger.settled().await;
            Whole { received, took }
        };
        let Whole { received, took } = self.make(route, outgoing, claim, call).await?;
        self.log.called(took, received.as_ref().ok().map(|received| received.collected.status.as_u16()));
        let mut received = received?;
        reference::forwardable_response(&mut received.collected.headers);
        Ok(received)
    }

    /// Admits a call and makes it. A call that outlives its client keeps the client's slot in flight occupied.
    async fn make<T, F>(
        &mut self,
        route: RouteName,
        outgoing: Outgoing,
        claim: Option<Box<ClaimGuard>>,
        call: impl FnOnce(CallGuard, Outgoing) -> F,
    ) -> Result<T, Rejection>
    where
        T: Outlive,
        F: Future<Output = T> + Send + 'static,
    {
        let (repeatable, progress) = (outgoing.repeatable, outgoing.body.progress());
        let endpoint = self.config.table.endpoint(&outgoing.method, &outgoing.target);
        let (tenant, reference) = (self.tenant, &self.call);
        let planned = PlannedCall { tenant, route, charged: !repeatable, endpoint: &endpoint, reference };
        let guard = CallGuard::admit(self.config, &self.gateway.ledger, planned, claim, &self.log.redis).await?;
        let call = Box::pin(call(guard, outgoing));
        if repeatable {
            return Ok(call.await);
        }
        let (permit, tasks) = (self.log.permit(), self.gateway.tasks.clone());
        Ok(CompleteOnDrop { call: Some(call), permit, progress, tasks }.await)
    }

    /// Makes a GET, and reads its answer whole.
    pub(super) async fn get(
        &mut self,
        route: RouteName,
        target: PathAndQuery,
        headers: HeaderMap,
    ) -> Result<Received, Rejection> {
        self.send_whole(route, get(target, headers)).await
    }

    /// Reads the whole of an answer that [`Exchange::send`] returned as a stream. The call's outcome is in the ledger
    /// when this returns.
    pub(super) async fn collect(&mut self, response: Response<AnswerBody>) -> Result<Received, Rejection> {
        let (credential, total) = (&self.account().credential, self.config.upstream.timeouts().answer);
        let collected = upstream::collect(response, Some(credential), total).await;
        let received = collected.map(|collected| Received::new(collected, &self.gateway.persons));
        if let Some(observer) = self.log.observer.take() {
            observer.read_whole(received.as_ref().ok().map(|received| &received.answer)).await;
        }
        let mut received = received?;
        reference::forwardable_response(&mut received.collected.headers);
        Ok(received)
    }
}

/// The result of a call, which may have to be finished after its request has ended.
trait Outlive: Send + 'static {
    fn outlive(self) -> impl Future<Output = ()> + Send;
}

/// The result of a call whose answer is streamed.
struct Streamed {
    sent: Result<Response<AnswerBody>, CallError>,
    observer: Option<Box<ResponseObserver>>,
    took: Duration,
}

impl Outlive for Streamed {
    /// Accounts for the call although no request waits for its answer any more.
    async fn outlive(self) {
        if let (Ok(response), Some(observer)) = (self.sent, self.observer) {
            observer.read(response.into_body()).await;
        }
    }
}

/// The result of a call that reads its answer whole and settles itself.
struct Whole {
    received: Result<Received, CallError>,
    took: Duration,
}

impl Outlive for Whole {
    async fn outlive(self) {}
}

/// A call that outlives its caller. If it is dropped after its body was sent completely, it continues as a task.
struct CompleteOnDrop<T: Outlive> {
    call: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// The client's slot in flight.
    permit: Option<Arc<Permit>>,
    /// The progress of the streamed body; `None` if the call does not stream a body.
    progress: Option<Arc<Progress>>,
    tasks: Tasks,
}

impl<T: Outlive> Future for CompleteOnDrop<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let output = std::task::ready!(call.as_mut().poll(cx));
        self.call = None;
        Poll::Ready(output)
    }
}

impl<T: Outlive> Drop for CompleteOnDrop<T> {
    fn drop(&mut self) {
        let sent = self.progress.as_ref().is_none_or(|progress| progress.is_done());
        if let Some(call) = self.call.take()
            && sent
        {
            let permit = self.permit.take();
            self.tasks.spawn(async move {
                call.await.outlive().await;
                drop(permit);
            });
        }
    }
}
