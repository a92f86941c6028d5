//! A layer for an axum router, which makes a span for each sampled request.

use super::tracer::{Ended, Tracer, request_method};
use crate::base::clock::Clock;
use crate::base::trace_context::TraceContext;
use crate::base::web::method_label;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use opentelemetry::trace::SpanKind;

/// Returns the router with a layer that makes a span for each sampled request. The span's attribute `http.route` is the
/// pattern of the request's path.
pub fn traced(router: Router, tracer: &Tracer, clock: &Clock) -> Router {
    let (tracer, clock) = (tracer.clone(), clock.clone());
    router.layer(from_fn(move |request: Request, next: Next| {
        let (tracer, clock) = (tracer.clone(), clock.clone());
        async move {
            let Some(span) = tracer.begin(TraceContext::of(request.headers())) else { return next.run(request).await };
            let method = request_method(method_label(request.method()));
            let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
            let (began, started) = (clock.wall(), clock.now());
            let response = next.run(request).await;
            let status = response.status();
            let mut attributes = vec![
                ("http.request.method", method.into()),
                ("http.response.status_code", i64::from(status.as_u16()).into()),
            ];
            let name = match &route {
                Some(route) => format!("{method} {route}").into(),
                None => method.into(),
            };
            attributes.extend(route.map(|route| ("http.route", route.into())));
            let took = clock.now().saturating_duration_since(started);
            span.end(Ended {
                kind: SpanKind::Server,
                name,
                began,
                took,
                attributes,
                is_error: status.is_server_error(),
            });
            response
        }
    }))
}
