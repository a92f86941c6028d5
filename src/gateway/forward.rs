//! Rows that are not cached: both bodies pass without being held.

use super::admit::ResponseObserver;
use super::record::Record;
use super::runtime::{Account, RuntimeConfig};
use super::{Gateway, account_of};
use crate::base::tasks::Tasks;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::{References, Route};
use crate::reference::{self, SealedBody};
use crate::reply::{self, Rejection, ReplyBody};
use crate::tenant::Tenant;
use crate::upstream::{self, AnswerBody, CallError, Credential, Outgoing, OutgoingBody, Progress};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

impl Gateway {
    /// Streams a request to upstream and the answer back.
    pub(super) async fn forward(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let (mut parts, body) = request.into_parts();
        let mut outcome = None;
        let body = match live.seal(tenant) {
            // What no row knows may take a reference all the same: another team's it must not be.
            Some((seal, seals)) if route.name.spec().references == References::Checked => {
                reference::screen_target(&route.target, &seal, seals)?;
                if body.is_end_stream() {
                    OutgoingBody::Empty
                } else {
                    let screened = SealedBody::screen(&parts.headers, body, &seal, seals)?;
                    outcome = Some(screened.outcome());
                    OutgoingBody::filtered(screened, reference::forwardable_trailers)
                }
            }
            _ => OutgoingBody::stream(body, reference::forwardable_trailers),
        };
        reference::forwardable_request(&mut parts.headers);
        let repeatable = route.repeatable;
        let outgoing =
            Outgoing { method: parts.method, target: route.target, headers: parts.headers, body, repeatable };
        record.upload(outgoing.body.progress());
        let sent = self.send(live, tenant, route.name, outgoing, record).await;
        // What broke off is the body that was refused, whatever that looks like at the other end.
        if let Some(Err(error)) = outcome.and_then(|outcome| outcome.result()) {
            return Err(error.into());
        }
        let response = sent?;
        passed_on(response, &account_of(live, tenant).credential, live.upstream.timeouts().answer).await
    }

    /// Makes one upstream call for the tenant, booked in its record. Once a request that may change or cost
    /// something was wholly sent, the call ends even if this future is dropped.
    pub(super) async fn send(
        &self,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        route: RouteName,
        outgoing: Outgoing,
        record: &mut Record,
    ) -> Result<Response<AnswerBody>, Rejection> {
        let (repeatable, progress) = (outgoing.repeatable, outgoing.body.progress());
        let mut admission = self.admit(live, tenant, route, !repeatable, &record.redis).await?;
        let (live, index, clock) = (Arc::clone(live), tenant.account_index, self.clock.clone());
        // A call that outlives its client keeps the client's place.
        let permit = record.permit();
        let (upload, tasks) = (progress.clone(), self.tasks.clone());
        let call = async move {
            let _held = permit;
            let started = clock.now();
            let account: &Account = &live.accounts[index];
            admission.start(upload);
            let sent = admission.send(outgoing).await;
            let took = clock.now().saturating_duration_since(started);
            account.metrics.request(route, sent.as_ref().ok().map(|response| response.status().as_u16()), took);
            let witness = match &sent {
                Ok(response) => ResponseObserver::new(admission, response, &tasks),
                Err(error) => {
                    admission.failed(*error);
                    None
                }
            };
            Called { sent, witness, took }
        };
        let called =
            if repeatable { call.await } else { CompleteOnDrop::new(call, progress, self.tasks.clone()).await };
        record.upstream_took = Some(called.took);
        record.upstream_status = called.sent.as_ref().ok().map(|response| response.status().as_u16());
        record.witness = called.witness;
        Ok(called.sent?)
    }
}

/// What a call brought.
struct Called {
    sent: Result<Response<AnswerBody>, CallError>,
    witness: Option<Box<ResponseObserver>>,
    took: Duration,
}

impl Called {
    /// Nobody is left who wants it, but what it cost is booked all the same.
    async fn outlive(self) {
        if let (Ok(response), Some(witness)) = (self.sent, self.witness) {
            witness.read(response.into_body()).await;
        }
    }
}

/// Upstream's answer as the tenant gets it.
pub(super) async fn passed_on(
    mut response: Response<AnswerBody>,
    credential: &Arc<Credential>,
    total: Duration,
) -> Result<Response<ReplyBody>, Rejection> {
    reference::forwardable_response(response.headers_mut());
    let failure = response.status().is_client_error() || response.status().is_server_error();
    if failure && response.body().is_encoded() {
        // An error may quote the account's key, and in an encoding it could not be found.
        let status = response.status();
        return match upstream::collect(response, Some(credential), total).await {
            Ok(answer) => Ok(whole(answer.status, answer.headers, ReplyBody::full(answer.body))),
            Err(CallError::Garbled) => Ok(reply::unreadable(status)),
            Err(error) => Err(error.into()),
        };
    }
    Ok(response.map(|body| ReplyBody::Upstream(Box::new(body))))
}

/// A response of its parts.
pub(super) fn whole(status: StatusCode, headers: http::HeaderMap, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The answer to HEAD: the head that GET would have.
pub(super) fn without_body(response: &mut Response<ReplyBody>) {
    if !response.headers().contains_key(CONTENT_LENGTH)
        && let Some(length) = response.body().size_hint().exact()
        && length > 0
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = reply::ReplyBody::empty();
}

/// A call that outlives its caller: dropped after its body was wholly sent, it goes on as a task.
struct CompleteOnDrop {
    call: Option<Pin<Box<dyn Future<Output = Called> + Send>>>,
    /// None: there was no body to wait for.
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
