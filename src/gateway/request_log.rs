//! The log line and the counts of one request, also of a cancelled one.
//!
//! Invariant: every request leaves exactly one line and one count. A log begins with status 499, "the client hung up".
//! It keeps this status unless the whole answer was passed to the client's connection.

use super::observer::{Booked, ResponseObserver};
use super::request_span::{Answered, RequestSpan};
use super::runtime::RuntimeConfig;
use crate::base::name::TenantName;
use crate::base::request_id;
use crate::base::trace_context::{TraceContext, TraceId};
use crate::base::web::method_label;
use crate::iluma::route_name::RouteName;
use crate::ledger::Tally;
use crate::limit::{Permit, Refusal};
use crate::redis::Budget;
use crate::reference;
use crate::reply::{Reason, Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use crate::telemetry::logs::{self, AccessLog};
use crate::telemetry::metrics::{Counted, Metrics, TenantMetrics};
use crate::telemetry::traces::Tracer;
use crate::tenant::Tenant;
use crate::upstream::{AnswerError, Progress};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::{Body, Frame, SizeHint};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};
use tracing::Span;
use uuid::Uuid;

/// The status for a client that hung up. nginx uses the same number, so common dashboards know it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The destinations of a request's log line, metrics and spans.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The access log.
    pub access: AccessLog,
    /// Metrics.
    pub metrics: Metrics,
    /// Spans.
    pub tracer: Tracer,
    /// The clock.
    pub clock: crate::base::clock::Clock,
}

/// The log of one request, from its head to the last byte of its answer.
#[derive(Debug)]
pub(super) struct RequestLog {
    telemetry: Arc<Telemetry>,
    metrics: Arc<TenantMetrics>,
    /// The client's address.
    pub(super) client: Option<IpAddr>,
    /// True if the client speaks TLS, with the gateway or with the load balancer.
    pub(super) secure: bool,
    tenant: Option<TenantName>,
    tally: Option<Arc<Tally>>,
    /// The index of the tenant; `None` while no tenant is known.
    pub(super) tenant_index: Option<usize>,
    time: SystemTime,
    started: Instant,
    id: Uuid,
    trace: TraceId,
    /// The request's span, if its trace is sampled.
    span: Option<Box<RequestSpan>>,
    id_header: HeaderValue,
    method: &'static str,
    status: u16,
    handed_over: bool,
    upload: Option<Arc<Progress>>,
    response_bytes: u64,
    permit: Option<Arc<Permit>>,
    /// The observer of a streamed answer, if the answer's body decides the outcome of a call.
    pub(super) observer: Option<Box<ResponseObserver>>,
    _in_flight: Counted,
    pub(super) route: RouteName,
    pub(super) cache: CacheOutcome,
    pub(super) request_bytes: u64,
    upstream_took: Option<Duration>,
    upstream_status: Option<u16>,
    pub(super) reason: Option<Reason>,
    /// The time for which the request may still wait for Redis.
    pub(super) redis: Budget,
}

impl RequestLog {
    /// Opens the log of a request. `metrics` are the metrics of requests without a tenant, for use until the tenant is
    /// known. `redis` is the time for which the request may wait for Redis.
    pub(super) fn open(
        telemetry: &Arc<Telemetry>,
        metrics: &Arc<TenantMetrics>,
        method: &Method,
        headers: &HeaderMap,
        redis: Duration,
    ) -> Box<Self> {
        let (id, id_header) = request_id::of(headers);
        let context = TraceContext::of(headers);
        let span = telemetry.tracer.begin(context).map(|open| Box::new(RequestSpan::new(open)));
        // The log is on the heap, because it is moved several times until the answer is sent.
        Box::new(Self {
            telemetry: Arc::clone(telemetry),
            metrics: Arc::clone(metrics),
            client: None,
            secure: false,
            tenant: None,
            tally: None,
            tenant_index: None,
            time: telemetry.clock.wall(),
            started: telemetry.clock.now(),
            id,
            trace: context.trace,
            span,
            id_header,
            method: method_label(method),
            status: CLIENT_CLOSED_REQUEST,
            handed_over: false,
            upload: None,
            response_bytes: 0,
            permit: None,
            observer: None,
            _in_flight: telemetry.metrics.in_flight(),
            route: RouteName::Other,
            cache: CacheOutcome::None,
            request_bytes: 0,
            upstream_took: None,
            upstream_status: None,
            reason: None,
            redis: Budget::of(redis),
        })
    }

    /// Sets the tenant.
    pub(super) fn set_tenant(&mut self, tenant: &Tenant, config: &RuntimeConfig) {
        self.tenant = Some(tenant.name.clone());
        self.tenant_index = Some(tenant.index);
        self.tally = Some(Arc::clone(&config.tallies[tenant.index]));
        self.metrics = Arc::clone(&config.metrics[tenant.index]);
    }

    /// Holds the request's slot in flight until the request's answer is sent, and until a call that outlives the
    /// request has ended.
    pub(super) fn hold(&mut self, permit: Permit) {
        self.permit = Some(Arc::new(permit));
    }

    /// Reserves memory for further bytes of the request's body until its answer is sent. Returns false if there is not
    /// enough.
    pub(super) fn reserve_room(&self, bytes: usize) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.hold(bytes))
    }

    /// Returns a handle that keeps the request's slot in flight occupied.
    pub(super) fn permit(&self) -> Option<Arc<Permit>> {
        self.permit.clone()
    }

    /// Sets the method and the path pattern of the route table on the request's span. If the request has no span,
    /// `pattern` is not called.
    pub(super) fn matched(&mut self, pattern: impl FnOnce() -> Option<Arc<str>>) {
        if let Some(span) = &mut self.span {
            span.pattern = pattern();
        }
    }

    /// Records an upstream call that has ended: its duration, and the status of its answer if there was one.
    pub(super) fn called(&mut self, took: Duration, status: Option<u16>) {
        (self.upstream_took, self.upstream_status) = (Some(took), status);
        if let Some(span) = &mut self.span {
            span.called(self.telemetry.clock.wall(), took, status);
        }
    }

    /// Returns true if an upstream call of the request has ended.
    pub(super) const fn has_called(&self) -> bool {
        self.upstream_took.is_some()
    }

    /// Sets the progress of the request's streamed body, which counts the body's bytes.
    pub(super) fn upload(&mut self, progress: Option<Arc<Progress>>) {
        self.upload = progress;
    }

    /// Returns the time at which the request arrived.
    pub(super) const fn asked(&self) -> SystemTime {
        self.time
    }

    /// Records the reason of the gateway's refusal.
    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        self.reason = Some(rejection.reason());
        let mut refusing = None;
        if let Rejection::Refused(Refusal::Exceeded { limit, .. }) = rejection {
            self.metrics.limited(*limit);
            refusing = Some(limit.as_str());
        }
        tracing::debug!(reason = rejection.reason().into_str(), limit = refusing, "the request was refused");
    }

    /// Returns the span in which the decisions about the request are logged. It is disabled unless the level is `debug`
    /// or finer.
    pub(super) fn log_span(&self) -> Span {
        tracing::debug_span!("request", request_id = %self.id, trace_id = %self.trace)
    }

    pub(super) fn metrics(&self) -> &TenantMetrics {
        &self.metrics
    }

    /// Records a piece of the answer; `None` is the end. `ended` is true if no further piece follows. Returns true if
    /// the answer ends here, whole or cut off.
    fn sees(&mut self, piece: &mut Piece, ended: bool) -> bool {
        match piece {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    reference::forwardable_response(trailers);
                }
                self.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if let (Some(observer), Some(data)) = (&mut self.observer, frame.data_ref()) {
                    observer.see(data);
                }
                ended
            }
            Some(Err(error)) => {
                // The client's connection breaks because upstream's broke. The reason shows that the client did not
                // hang up.
                self.reason = Some(match error {
                    AnswerError::Truncated => Reason::UpstreamTruncated,
                    AnswerError::Stalled => Reason::UpstreamStalled,
                });
                true
            }
            None => true,
        }
    }

    /// Returns the answer with a body that owns the log. When this body is dropped, the log line is written.
    pub(super) fn reply(mut self: Box<Self>, response: Response<ReplyBody>) -> Response<LoggedBody> {
        let (mut parts, body) = response.into_parts();
        parts.headers.insert(request_id::HEADER, self.id_header.clone());
        self.status = parts.status.as_u16();
        // hyper does not poll a body that has no frames.
        self.handed_over = body.is_end_stream();
        if self.handed_over
            && let Some(observer) = self.observer.take()
        {
            drop(observer.close(true));
        }
        if matches!(body, ReplyBody::Full(_)) {
            // The work is done; a client that reads slowly occupies no slot.
            self.permit = None;
        }
        Response::from_parts(parts, LoggedBody { body, log: self, next: None })
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let status = if self.handed_over { self.status } else { CLIENT_CLOSED_REQUEST };
        let duration = self.telemetry.clock.now().saturating_duration_since(self.started);
        self.metrics.request(self.route, status, self.cache);
        if let Some(tally) = &self.tally {
            tally.request(self.route, self.cache.saved());
        }
        if let Some(reason) = self.reason {
            self.telemetry.metrics.gateway_error(reason.into_str());
        }
        self.telemetry.metrics.request_took(self.route, self.cache, duration);
        if let Some(span) = self.span.take() {
            span.end(&Answered {
                began: self.time,
                took: duration,
                method: self.method,
                status,
                tenant: self.tenant.as_ref(),
                route: self.route,
                cache: self.cache,
                reason: self.reason,
            });
        }
        self.telemetry.access.write(&logs::Record {
            time: self.time,
            request_id: self.id,
            trace_id: self.trace,
            client: self.client,
            tenant: self.tenant.as_ref(),
            route: self.route,
            method: self.method,
            status,
            cache: self.cache,
            duration,
            upstream_duration: self.upstream_took,
            request_bytes: self.upload.as_ref().map_or(self.request_bytes, |upload| upload.bytes()),
            response_bytes: self.response_bytes,
            upstream_status: self.upstream_status,
            reason: self.reason.map(|reason| reason.into_str()),
            redis_duration: self.redis.spent(),
        });
    }
}

/// A reply's body, with the log of its request. The end of the body waits until the call's outcome is in the ledger. So
/// the outcome is there before the client has the whole answer, even if the process is killed right after.
#[derive(Debug)]
pub struct LoggedBody {
    body: ReplyBody,
    log: Box<RequestLog>,
    /// The piece that leaves next, if it was already taken from `body`. It is on the heap, because few answers wait and
    /// every answer is moved several times.
    next: Option<Box<Next>>,
}

/// A piece of an answer.
struct Next {
    piece: Piece,
    /// True for the last piece.
    ends: bool,
    /// The future for which the last piece waits: it ends once the call's outcome is in the ledger. `None` if there is
    /// nothing to wait for.
    booked: Option<Booked>,
}

type Piece = Option<Result<Frame<Bytes>, AnswerError>>;

impl LoggedBody {
    /// Takes the first piece of an answer that settles a call, if the piece has arrived. If this piece is also the last
    /// one, the method waits until the call's outcome is in the ledger. Head and body then leave in one write.
    pub(super) async fn gather(&mut self) {
        if self.log.observer.is_none() || self.body.is_end_stream() {
            return;
        }
        poll_fn(|cx| {
            if self.next.is_none() {
                match self.poll_next(cx) {
                    Poll::Pending => return Poll::Ready(()),
                    Poll::Ready(next) => self.next = Some(Box::new(next)),
                }
            }
            self.next.as_mut().map_or(Poll::Ready(()), |next| next.poll_booked(cx))
        })
        .await;
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut piece = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let ends = self.log.sees(&mut piece, self.body.is_end_stream());
        let observer = self.log.observer.take_if(|_| ends);
        let booked = observer.map(|observer| observer.close(!matches!(piece, Some(Err(_)))));
        Poll::Ready(Next { piece, ends, booked })
    }
}

impl Next {
    fn poll_booked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(booked) = &mut self.booked {
            ready!(booked.as_mut().poll(cx));
            self.booked = None;
        }
        Poll::Ready(())
    }
}

impl Body for LoggedBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece> {
        let mut next = match self.next.take() {
            Some(next) => next,
            None => match ready!(self.poll_next(cx)) {
                Next { piece, ends, booked: None } => {
                    self.log.handed_over |= ends;
                    return Poll::Ready(piece);
                }
                waiting => Box::new(waiting),
            },
        };
        if next.poll_booked(cx).is_pending() {
            self.next = Some(next);
            return Poll::Pending;
        }
        self.log.handed_over |= next.ends;
        Poll::Ready(next.piece)
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let taken = self.next.as_ref().and_then(|next| next.piece.as_ref()?.as_ref().ok()?.data_ref());
        let taken = taken.map_or(0, |data| data.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(taken));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(taken));
        }
        hint
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        if let Some(observer) = self.log.observer.take() {
            observer.outlive(std::mem::replace(&mut self.body, ReplyBody::empty()));
        }
    }
}
