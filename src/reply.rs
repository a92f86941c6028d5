//! Replies to tenants: the only place where a fault becomes a status, an error code and a reason.
//!
//! Invariants:
//! - Every error that the gateway makes has Iluma's own shape (`{"error_code","message"}`), and its reason in
//!   `x-gateway-error`.
//! - A message never quotes the request.

mod key_conflict;
mod reason;

pub use key_conflict::KeyConflict;
pub use reason::Reason;

use crate::base::host::HostError;
use crate::base::retry_after::whole_seconds;
use crate::callback::{OrderError, SettingError};
use crate::config::Limit;
use crate::iluma::callback_url::UrlError;
use crate::iluma::error_body;
use crate::iluma::routes::{PathError, documented};
use crate::limit::Refusal;
use crate::reference::BodyError;
use crate::state::KeyOrderError;
use crate::tenant::Unauthenticated;
use crate::upstream::{AnswerBody, AnswerError, CallError};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub use crate::base::web::GATEWAY_ERROR;

/// The challenge of a 401 (RFC 7617): the key is the user, the password is empty.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"iluma-gateway\", charset=\"UTF-8\"");

/// The reason why the gateway answers a request with an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The path is malformed, or servers may read it as another path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The request names no host, more than one host, or a malformed host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The request has no valid key.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// The path is never forwarded.
    #[error(
        "this path is never forwarded to Iluma; the only paths with callback, businesses or api_keys that the gateway serves are {}",
        documented("callback")
    )]
    Forbidden,
    /// The gateway's own API has no such method and path.
    #[error("the gateway's own API has no such method and path; it has {}", documented("_gateway"))]
    UnknownOwnPath,
    /// Too many wrong keys came from the client's address. The client must wait for this time.
    #[error("too many wrong API keys came from this address: wait for retry-after; a valid key is never refused")]
    TooManyFailures(Duration),
    /// The portal's sessions can't be read or written.
    #[error("sessions can't be read or written right now: send the API key itself, or try again later")]
    SessionsUnavailable,
    /// Operators have suspended the team.
    #[error("this team is suspended; platform operations can resume it")]
    TenantSuspended,
    /// A team's order about its key was refused.
    #[error(transparent)]
    Key(#[from] KeyOrderError),
    /// The query of the team's own usage is malformed.
    #[error("the query takes only from and to: each is a day such as 2026-11-25, and both days are included")]
    UsageQuery,
    /// The body of a team's order about its key is malformed.
    #[error("the body must be empty, or {{\"grace\":\"24h\"}} with a time span of at most a year")]
    Grace,
    /// The tenant's `routes` do not include this row of the route table.
    #[error("this API key may not use this route; platform operations can add it to the routes of the team")]
    RouteNotAllowed,
    /// No row of the route table matches the method and the path.
    #[error(
        "the gateway does not know this method and path; platform operations can allow it by upstream.unknown_routes \
         or by an entry in routes"
    )]
    UnknownRoute,
    /// A callback setting was refused.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// An order about the team's own callbacks was refused.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The request is refused because of its `Idempotency-Key`.
    #[error(transparent)]
    IdempotencyKey(#[from] KeyConflict),
    /// A limit was reached.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request body can't be used.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The call to upstream failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The circuit is open because Iluma fails. The client should wait for this time before it tries again.
    #[error("circuit open: Iluma is failing; nothing was sent, try again in {} s", retry_seconds(*.0))]
    CircuitOpen(Duration),
    /// The call's intent could not be written to the ledger. A call without an intent is not sent.
    #[error("the call journal is not writable, so nothing was sent; try again later")]
    Unbooked,
    /// The ledger can't be read.
    #[error("the usage ledger can't be read right now; try again later")]
    BooksClosed,
    /// The record does not exist, or belongs to another team. The answer is the same in both cases.
    #[error("there is no such record")]
    NotFound,
    /// State can't be read, so the owner of a record can't be verified.
    #[error("ownership of this record can't be verified right now; try again later")]
    OwnerUnknown,
    /// The request accepts only a stored answer, and there is none.
    #[error("there is no stored answer, and only-if-cached accepts no other; nothing was sent")]
    OnlyIfCached,
    /// The gateway itself failed.
    #[error("the gateway failed to handle the request; report it with the x-request-id")]
    Internal,
}

/// The shape of a rejection: status, Iluma's error code, and the reason in header, log and metrics.
struct Shape(StatusCode, &'static str, Reason);

impl Shape {
    const fn invalid(reason: Reason) -> Self {
        Self(StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", reason)
    }

    const fn unauthorized(reason: Reason) -> Self {
        Self(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", reason)
    }

    const fn forbidden(reason: Reason) -> Self {
        Self(StatusCode::FORBIDDEN, "REQUEST_FORBIDDEN_ERROR", reason)
    }

    const fn not_found(reason: Reason) -> Self {
        Self(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", reason)
    }

    const fn conflict(reason: Reason) -> Self {
        Self(StatusCode::CONFLICT, "REQUEST_CONFLICT", reason)
    }

    const fn rate_limited(reason: Reason) -> Self {
        Self(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", reason)
    }

    const fn unavailable(reason: Reason) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", reason)
    }

    const fn of_setting(error: &SettingError) -> Self {
        match error {
            SettingError::Malformed => Shape::invalid(Reason::MalformedSetting),
            SettingError::Type => Shape::invalid(Reason::UnknownCallbackType),
            SettingError::Url(UrlError::Shape) => Shape::invalid(Reason::MalformedCallbackUrl),
            SettingError::Url(UrlError::Host | UrlError::Address) => Shape::invalid(Reason::CallbackHostNotAllowed),
            SettingError::Test => Shape::invalid(Reason::CallbackUrlFailed),
            SettingError::Unavailable => Shape::unavailable(Reason::StateUnavailable),
        }
    }

    const fn of_callback_order(error: &OrderError) -> Self {
        match error {
            OrderError::Malformed(_) => Shape::invalid(Reason::MalformedRequest),
            OrderError::Type => Shape::invalid(Reason::UnknownCallbackType),
            // Only an operator's order gets `UnknownTenant` and `NotDead`: a team's order names no tenant, and deletes
            // nothing.
            OrderError::NotFound | OrderError::UnknownTenant | OrderError::NotDead => {
                Shape::not_found(Reason::NotFound)
            }
            OrderError::NoUrl => Shape::not_found(Reason::NoCallbackUrl),
            OrderError::Busy => Shape::unavailable(Reason::Overloaded),
            OrderError::Unavailable => Shape::unavailable(Reason::StateUnavailable),
        }
    }

    const fn of_key_order(error: &KeyOrderError) -> Self {
        match error {
            KeyOrderError::FromFile => Shape::conflict(Reason::KeyInFile),
            KeyOrderError::Ended => Shape::conflict(Reason::KeyEnded),
            KeyOrderError::TooMany => Shape::conflict(Reason::TooManyKeys),
            KeyOrderError::Unknown => Shape::unauthorized(Reason::UnknownKey),
            KeyOrderError::State(_) => Shape::unavailable(Reason::StateUnavailable),
        }
    }

    const fn of_key_conflict(error: &KeyConflict) -> Self {
        match error {
            KeyConflict::Malformed(_) => Shape::invalid(Reason::MalformedIdempotencyKey),
            KeyConflict::Reused => {
                Shape(StatusCode::UNPROCESSABLE_ENTITY, "API_VALIDATION_ERROR", Reason::IdempotencyKeyReused)
            }
            KeyConflict::InFlight => Shape::conflict(Reason::IdempotencyInFlight),
            KeyConflict::OutcomeUnknown => Shape::conflict(Reason::IdempotencyOutcomeUnknown),
            KeyConflict::NotKept => Shape::conflict(Reason::IdempotencyAnswerNotKept),
            KeyConflict::Erased => Shape::conflict(Reason::IdempotencyAnswerErased),
            KeyConflict::Unavailable => Shape::unavailable(Reason::IdempotencyUnavailable),
        }
    }

    /// Returns the shape of a 504, such as for a call with an unknown outcome.
    const fn timed_out(reason: Reason) -> Self {
        Self(StatusCode::GATEWAY_TIMEOUT, "UPSTREAM_TIMEOUT", reason)
    }
}

impl Rejection {
    /// Returns the reason for header, log and metrics.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.shape().2
    }

    const fn shape(&self) -> Shape {
        match self {
            Self::Path(PathError::DotSegment) => Shape::invalid(Reason::DotSegment),
            Self::Path(PathError::EmptySegment) => Shape::invalid(Reason::EmptySegment),
            Self::Path(PathError::EncodedSlash) => Shape::invalid(Reason::EncodedSlash),
            Self::Path(PathError::Malformed) => Shape::invalid(Reason::MalformedPath),
            Self::Host(HostError::Missing) => Shape::invalid(Reason::MissingHost),
            Self::Host(HostError::Repeated | HostError::Invalid | HostError::Different) => {
                Shape::invalid(Reason::InvalidHost)
            }
            Self::Unauthenticated(Unauthenticated::Missing) => Shape::unauthorized(Reason::MissingKey),
            Self::Unauthenticated(Unauthenticated::Malformed) => Shape::unauthorized(Reason::MalformedKey),
            Self::Unauthenticated(Unauthenticated::Unknown) => Shape::unauthorized(Reason::UnknownKey),
            Self::Forbidden => Shape::forbidden(Reason::ForbiddenPath),
            Self::UnknownOwnPath => Shape::not_found(Reason::UnknownPath),
            Self::TooManyFailures(_) => Shape::rate_limited(Reason::TooManyFailures),
            Self::SessionsUnavailable => Shape::unavailable(Reason::StateUnavailable),
            Self::TenantSuspended => Shape::forbidden(Reason::TenantSuspended),
            Self::UsageQuery => Shape::invalid(Reason::MalformedRequest),
            Self::Grace => Shape::invalid(Reason::MalformedBody),
            Self::Key(error) => Shape::of_key_order(error),
            Self::Setting(error) => Shape::of_setting(error),
            Self::Order(error) => Shape::of_callback_order(error),
            Self::IdempotencyKey(error) => Shape::of_key_conflict(error),
            Self::RouteNotAllowed => Shape::forbidden(Reason::RouteNotAllowed),
            Self::UnknownRoute => Shape::forbidden(Reason::UnknownRoute),
            Self::Refused(Refusal::Exceeded { limit: Limit::Requests, .. }) => Shape::rate_limited(Reason::RateLimited),
            Self::Refused(Refusal::Exceeded { limit: Limit::InFlight, .. }) => {
                Shape::rate_limited(Reason::TooManyInFlight)
            }
            Self::Refused(Refusal::Exceeded { limit: Limit::Account, .. }) => {
                Shape::rate_limited(Reason::AccountRateLimited)
            }
            Self::Refused(Refusal::Exceeded { limit: Limit::QuotaDay | Limit::QuotaMonth, .. }) => {
                Shape(StatusCode::TOO_MANY_REQUESTS, "QUOTA_EXCEEDED", Reason::QuotaExceeded)
            }
            Self::Refused(Refusal::Exceeded { limit: Limit::BudgetMonth, .. }) => {
                Shape(StatusCode::TOO_MANY_REQUESTS, "QUOTA_EXCEEDED", Reason::BudgetExceeded)
            }
            Self::Refused(Refusal::BackingOff { .. }) => Shape::rate_limited(Reason::EndpointBackingOff),
            Self::Refused(Refusal::Overloaded) | Self::Body(BodyError::NoRoom) => {
                Shape::unavailable(Reason::Overloaded)
            }
            Self::Body(BodyError::TooLarge) => {
                Shape(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", Reason::BodyTooLarge)
            }
            Self::Body(BodyError::TooSlow) | Self::Call(CallError::ClientTooSlow) => {
                Shape(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", Reason::BodyTooSlow)
            }
            Self::Body(BodyError::CutOff) | Self::Call(CallError::ClientCutOff) => Shape::invalid(Reason::BodyCutOff),
            Self::Body(BodyError::Encoded) => Shape::invalid(Reason::EncodedBody),
            Self::Body(BodyError::UnknownType) => Shape::invalid(Reason::UnknownContentType),
            Self::Body(BodyError::Mistyped) => Shape::invalid(Reason::MistypedBody),
            Self::Body(BodyError::Malformed) => Shape::invalid(Reason::MalformedBody),
            Self::Body(BodyError::Reference) => Shape::invalid(Reason::MalformedReference),
            Self::Body(BodyError::Foreign) => Shape::invalid(Reason::ForeignReference),
            Self::Call(CallError::Unreachable) => Shape::unavailable(Reason::UpstreamUnreachable),
            Self::Call(CallError::NotProcessed) => Shape::unavailable(Reason::UpstreamRefused),
            Self::Call(CallError::TimedOut) => Shape::timed_out(Reason::UpstreamTimeout),
            Self::Call(CallError::Broken) => Shape::timed_out(Reason::UpstreamBroken),
            Self::Call(CallError::Garbled) => Shape::timed_out(Reason::UpstreamGarbled),
            Self::Call(CallError::Truncated) => Shape::timed_out(Reason::UpstreamTruncated),
            Self::Call(CallError::TooLarge) => Shape::timed_out(Reason::UpstreamTooLarge),
            Self::CircuitOpen(_) => Shape::unavailable(Reason::CircuitOpen),
            Self::BooksClosed => Shape::unavailable(Reason::LedgerUnavailable),
            Self::Unbooked => Shape::unavailable(Reason::LedgerUnavailable),
            Self::NotFound => Shape::not_found(Reason::NotFound),
            Self::OwnerUnknown => Shape::unavailable(Reason::StateUnavailable),
            Self::OnlyIfCached => Shape::timed_out(Reason::OnlyIfCached),
            Self::Internal => Shape(StatusCode::INTERNAL_SERVER_ERROR, "SERVER_ERROR", Reason::Internal),
        }
    }

    /// Returns the refusal of a limit; `None` if the request was rejected for another reason.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// Returns the response for the tenant. A 401, 403 or 429 names `contact`, because the tenant may need help.
    #[must_use]
    pub fn into_response(self, contact: Option<&str>) -> Response<ReplyBody> {
        let Shape(status, code, reason) = self.shape();
        let asks_for_help =
            matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        let mut response = match contact.filter(|_| asks_for_help) {
            Some(contact) => error(status, code, &format!("{self}; for help: {contact}")),
            None => error(status, code, &self.to_string()),
        };
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        headers.insert(GATEWAY_ERROR, HeaderValue::from_static(reason.into_str()));
        match self {
            Self::Refused(Refusal::Exceeded { retry_after, .. } | Refusal::BackingOff { retry_after }) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_seconds(retry_after)));
            }
            Self::CircuitOpen(wait) | Self::TooManyFailures(wait) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_seconds(wait)));
            }
            Self::Refused(Refusal::Overloaded)
            | Self::Body(BodyError::NoRoom)
            | Self::Call(CallError::Unreachable | CallError::NotProcessed)
            | Self::Setting(SettingError::Unavailable)
            | Self::Order(OrderError::Busy | OrderError::Unavailable)
            | Self::OwnerUnknown
            | Self::SessionsUnavailable
            | Self::IdempotencyKey(KeyConflict::InFlight | KeyConflict::Unavailable)
            | Self::Key(KeyOrderError::State(_))
            | Self::Unbooked
            | Self::BooksClosed => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// Builds an error in Iluma's shape.
#[must_use]
pub fn error(status: StatusCode, code: &'static str, message: &str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::full(error_body::json(status, code, message)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Builds the response that replaces an error of Iluma's, if the gateway can't decode its content encoding. Such an
/// error can't be searched for secrets. The response has Iluma's status.
#[must_use]
pub fn unreadable(status: StatusCode) -> Response<ReplyBody> {
    let message = "Iluma answered with an error in an encoding that can't be passed on";
    instead_of_upstreams(status, message, Reason::UnreadableError)
}

/// Builds the response that replaces an error of Iluma's about a record that the team is not known to own. Iluma's text
/// may be about another team's record. The response has Iluma's status.
#[must_use]
pub fn withheld_failure(status: StatusCode) -> Response<ReplyBody> {
    let message =
        "Iluma failed to answer, try again later; its text is not shown, since this record is not known to be yours";
    instead_of_upstreams(status, message, Reason::UpstreamError)
}

fn instead_of_upstreams(status: StatusCode, message: &str, reason: Reason) -> Response<ReplyBody> {
    let code = match status {
        StatusCode::BAD_REQUEST => "API_VALIDATION_ERROR",
        StatusCode::UNAUTHORIZED => "INVALID_API_KEY",
        StatusCode::FORBIDDEN => "REQUEST_FORBIDDEN_ERROR",
        StatusCode::NOT_FOUND => "DATA_NOT_FOUND",
        StatusCode::PAYLOAD_TOO_LARGE => "FILE_TOO_LARGE",
        StatusCode::TOO_MANY_REQUESTS => "RATE_LIMIT_EXCEEDED",
        StatusCode::SERVICE_UNAVAILABLE => "SERVICE_UNAVAILABLE",
        _ => "SERVER_ERROR",
    };
    let mut response = error(status, code, message);
    response.headers_mut().insert(GATEWAY_ERROR, HeaderValue::from_static(reason.into_str()));
    response
}

/// Returns the seconds in `Retry-After`: whole seconds, at least one.
fn retry_seconds(wait: Duration) -> u64 {
    whole_seconds(wait).max(1)
}

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// A body that is in memory as a whole; `None` if it is empty, and once it was passed on.
    Full(Option<Bytes>),
    /// Upstream's body, as it arrives.
    Upstream(Box<AnswerBody>),
}

impl ReplyBody {
    /// Makes a body from all of its bytes.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    /// Makes an empty body.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Full(None)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Upstream(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let refusal = Refusal::Exceeded {
            limit: Limit::Requests,
            quota: 40,
            window: Some(Duration::from_secs(2)),
            retry_after: Duration::from_millis(1050),
        };
        let response = Rejection::from(refusal).into_response(None);
        assert_eq!(response.status(), 429);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("retry-after"), "2");
        assert_eq!(header("x-gateway-error"), "rate_limited");
    }

    #[test]
    fn an_error_has_ilumas_shape() {
        let ReplyBody::Full(Some(body)) = Rejection::UnknownRoute.into_response(None).into_body() else {
            panic!("no body")
        };
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let members: Vec<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error_code", "message"]);
        assert_eq!(value["error_code"], "REQUEST_FORBIDDEN_ERROR");
    }
}
