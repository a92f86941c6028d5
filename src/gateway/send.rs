//! One upstream call of a request: admitted, sent, accounted.

use super::call_guard::{CallGuard, PlannedCall};
use super::exchange::Exchange;
use super::observer::ResponseObserver;
use crate::base::tasks::Tasks;
use crate::iluma::route_name::RouteName;
use crate::reference;
use crate::reply::Rejection;
use crate::upstream::{self, AnswerBody, CallError, Collected, Outgoing, OutgoingBody, Progress};
use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Builds a GET without a body, which is free and may be repeated. HEAD is answered from its answer.
pub(super) fn get(target: PathAndQuery, headers: HeaderMap) -> Outgoing {
    Outgoing { method: Method::GET, target, headers, body: OutgoingBody::Empty, repeatable: true }
}

/// Builds the head of a GET of the gateway's own.
pub(super) fn own_head() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

impl Exchange<'_> {
    /// Makes one upstream call on the row `route`, and notes it in the request's log. Once a request that may change or cost
    /// something was wholly sent, the call ends even if this future is dropped.
    pub(super) async fn send(
        &mut self,
        route: RouteName,
        outgoing: Outgoing,
    ) -> Result<Response<AnswerBody>, Rejection> {
        let (repeatable, progress) = (outgoing.repeatable, outgoing.body.progress());
        let planned = PlannedCall { tenant: self.tenant, route, charged: !repeatable };
        let guard = CallGuard::admit(self.config, &self.gateway.ledger, planned, &self.log.redis).await?;
        let (config, index, clock) = (Arc::clone(self.config), self.tenant.account_index, self.gateway.clock.clone());
        // A call that outlives its client keeps the client's place in flight.
        let permit = self.log.permit();
        let (upload, tasks) = (progress.clone(), self.gateway.tasks.clone());
        let call = async move {
            let _held = permit;
            let mut guard = guard;
            let started = clock.now();
            let account = &config.accounts[index];
            guard.start(upload);
            let sent = guard.send(outgoing).await;
            let took = clock.now().saturating_duration_since(started);
            account.metrics.request(route, sent.as_ref().ok().map(|response| response.status().as_u16()), took);
            let observer = match &sent {
                Ok(response) => ResponseObserver::new(guard, response, &tasks),
                Err(error) => {
                    guard.failed(*error);
                    None
                }
            };
            Called { sent, observer, took }
        };
        let called =
            if repeatable { call.await } else { CompleteOnDrop::new(call, progress, self.gateway.tasks.clone()).await };
        self.log.upstream_took = Some(called.took);
        self.log.upstream_status = called.sent.as_ref().ok().map(|response| response.status().as_u16());
        self.log.observer = called.observer;
        Ok(called.sent?)
    }

    /// Gets an answer whole.
    pub(super) async fn get(
        &mut self,
        route: RouteName,
        target: PathAndQuery,
        headers: HeaderMap,
    ) -> Result<Collected, Rejection> {
        let response = self.send(route, get(target, headers)).await?;
        self.collect(response).await
    }

    /// Reads an answer whole. Its outcome is in the ledger when this returns.
    pub(super) async fn collect(&mut self, response: Response<AnswerBody>) -> Result<Collected, Rejection> {
        let (credential, total) = (&self.account().credential, self.config.upstream.timeouts().answer);
        let answer = upstream::collect(response, Some(credential), total).await;
        if let Some(observer) = self.log.observer.take() {
            observer.read_whole(answer.as_ref().ok().map(|answer| &answer.body)).await;
        }
        let mut answer = answer?;
        reference::forwardable_response(&mut answer.headers);
        Ok(answer)
    }
}

/// The result of one call.
struct Called {
    sent: Result<Response<AnswerBody>, CallError>,
    observer: Option<Box<ResponseObserver>>,
    took: Duration,
}

impl Called {
    /// Accounts for the call though nobody waits for its answer any more.
    async fn outlive(self) {
        if let (Ok(response), Some(observer)) = (self.sent, self.observer) {
            observer.read(response.into_body()).await;
        }
    }
}

/// A call that outlives its caller: dropped after its body was wholly sent, it goes on as a task.
struct CompleteOnDrop {
    call: Option<Pin<Box<dyn Future<Output = Called> + Send>>>,
    /// None: there is no body to wait for.
    progress: Option<Arc<Progress>>,
    tasks: Tasks,
}

impl CompleteOnDrop {
    fn new(call: impl Future<Output = Called> + Send + 'static, progress: Option<Arc<Progress>>, tasks: Tasks) -> Self {
        Self { call: Some(Box::pin(call)), progress, tasks }
    }
}

impl Future for CompleteOnDrop {
    type Output = Called;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Called> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let output = std::task::ready!(call.as_mut().poll(cx));
        self.call = None;
        Poll::Ready(output)
    }
}

impl Drop for CompleteOnDrop {
    fn drop(&mut self) {
        let sent = self.progress.as_ref().is_none_or(|progress| progress.is_done());
        if let Some(call) = self.call.take()
            && sent
        {
            self.tasks.spawn(async move { call.await.outlive().await });
        }
    }
}
