//! The reasons of errors that the gateway makes.

#![allow(missing_docs, reason = "a name says what a variant is, and `Rejection` has the messages")]

use strum::{IntoStaticStr, VariantArray};

/// The reason of an error that the gateway made: the value of `x-gateway-error`, of `reason` in the log, and the label of
/// `gateway_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Reason {
    DotSegment,
    EmptySegment,
    EncodedSlash,
    MalformedPath,
    MissingHost,
    InvalidHost,
    MissingKey,
    MalformedKey,
    UnknownKey,
    ForbiddenPath,
    UnknownPath,
    RouteNotAllowed,
    UnknownRoute,
    MalformedSetting,
    MalformedRequest,
    NoCallbackUrl,
    UnknownCallbackType,
    MalformedCallbackUrl,
    CallbackHostNotAllowed,
    CallbackUrlFailed,
    StateUnavailable,
    RateLimited,
    TooManyInFlight,
    AccountRateLimited,
    EndpointBackingOff,
    QuotaExceeded,
    BudgetExceeded,
    Overloaded,
    BodyTooLarge,
    BodyTooSlow,
    BodyCutOff,
    EncodedBody,
    UnknownContentType,
    MistypedBody,
    MalformedBody,
    MalformedReference,
    ForeignReference,
    UpstreamUnreachable,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamBroken,
    UpstreamGarbled,
    UpstreamTruncated,
    UpstreamTooLarge,
    CircuitOpen,
    LedgerUnavailable,
    NotFound,
    OnlyIfCached,
    Internal,
    UpstreamError,
    UnreadableError,
    UpstreamStalled,
}
