//! The spans of one request, if its trace is sampled: a span for the request, and one for each call to Iluma.

use crate::base::name::TenantName;
use crate::iluma::route_name::RouteName;
use crate::reply::Reason;
use crate::telemetry::CacheOutcome;
use crate::telemetry::traces::{Ended, OpenSpan, SpanKind, request_method};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The open span of a request.
#[derive(Debug)]
pub(super) struct RequestSpan {
    open: OpenSpan,
    /// Method and pattern of the path, such as `GET /health`; `None` if no row of the route table fits.
    pub(super) pattern: Option<Arc<str>>,
}

/// The facts about a request that its span gets at the end.
pub(super) struct Answered<'a> {
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) method: &'static str,
    pub(super) status: u16,
    pub(super) tenant: Option<&'a TenantName>,
    pub(super) route: RouteName,
    pub(super) cache: CacheOutcome,
    pub(super) reason: Option<Reason>,
}

impl RequestSpan {
    pub(super) const fn new(open: OpenSpan) -> Self {
        Self { open, pattern: None }
    }

    /// Records the call to Iluma that ended at `at`; `status` is `None` if Iluma gave no answer. The call's span gets
    /// the request's pattern, because the gateway has the same paths as Iluma.
    pub(super) fn called(&self, at: SystemTime, took: Duration, status: Option<u16>) {
        let mut attributes = self.route();
        attributes.extend(status.map(|status| ("http.response.status_code", i64::from(status).into())));
        if status.is_none() {
            attributes.push(("error.type", "no_answer".into()));
        }
        let name = self.pattern.as_deref().map_or(Cow::Borrowed("HTTP"), |pattern| Cow::Owned(pattern.to_owned()));
        let is_error = status.is_none_or(|status| status >= 400);
        let began = at.checked_sub(took).unwrap_or(at);
        self.open.child(Ended { kind: SpanKind::Client, name, began, took, attributes, is_error });
    }

    /// Ends the span.
    pub(super) fn end(self, answered: &Answered<'_>) {
        let Answered { began, took, method, status, tenant, route, cache, reason } = *answered;
        let method = request_method(method);
        let mut attributes = self.route();
        if attributes.is_empty() {
            attributes.push(("http.request.method", method.into()));
        }
        attributes.push(("http.response.status_code", i64::from(status).into()));
        attributes.push(("iluma_gateway.route", route.as_str().into()));
        attributes.push(("iluma_gateway.cache", cache.as_str().into()));
        attributes.extend(tenant.map(|tenant| ("iluma_gateway.tenant", tenant.as_str().to_owned().into())));
        attributes.extend(reason.map(|reason| ("error.type", reason.into_str().into())));
        let name = self.pattern.as_deref().map_or(Cow::Borrowed(method), |pattern| Cow::Owned(pattern.to_owned()));
        let is_error = status >= 500;
        self.open.end(Ended { kind: SpanKind::Server, name, began, took, attributes, is_error });
    }

    /// Returns the method and the path pattern as attributes; no attributes if no row of the route table fits.
    fn route(&self) -> Vec<(&'static str, opentelemetry::Value)> {
        let parts = self.pattern.as_deref().and_then(|pattern| pattern.split_once(' '));
        parts.map_or_else(Vec::new, |(method, path)| {
            vec![("http.request.method", method.to_owned().into()), ("http.route", path.to_owned().into())]
        })
    }
}
