//! Readiness and metrics, which probes and Prometheus request without a token.

use super::answer::{text, typed};
use super::context::Context;
use crate::base::web::GATEWAY_ERROR;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// `GET /readyz`: answers 200, or 503 with the reason while the node drains or can't write its state.
pub(super) async fn readiness(State(context): State<Arc<Context>>) -> Response {
    let unready =
        |reason, why: String| ([(GATEWAY_ERROR, reason)], text(StatusCode::SERVICE_UNAVAILABLE, why)).into_response();
    if context.is_draining() {
        return unready("draining", "draining\n".to_owned());
    }
    match context.ledger.unready() {
        Some(why) => unready("state_unavailable", format!("{why}\n")),
        None => text(StatusCode::OK, "ready\n"),
    }
}

/// `GET /metrics`: answers with the metrics, as OpenMetrics for clients that prefer it, otherwise as Prometheus text.
pub(super) async fn metrics(State(context): State<Arc<Context>>, headers: HeaderMap) -> Response {
    if wants_openmetrics(&headers) {
        let body = context.metrics.render_open();
        return typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body.into());
    }
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", context.metrics.render().into())
}

/// Returns true if the `accept` header gives OpenMetrics at least the weight (`q`) of plain text, as the header of
/// Prometheus does. A range for OpenMetrics counts only without a version, or with the version 1.0.0 or 0.0.1.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = accepted.flat_map(|value| value.split(',')).map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let (mut weight, mut version) = (1.0, "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => weight = value.trim().parse::<f32>().unwrap_or(0.0),
                "version" => version = value.trim(),
                _ => {}
            }
        }
        (kind == "application/openmetrics-text" && matches!(version, "" | "1.0.0" | "0.0.1"), kind, weight)
    });
    let best = |mut best: (f32, f32), (open, kind, weight): (bool, &str, f32)| {
        if open {
            best.0 = best.0.max(weight);
        } else if matches!(kind, "text/plain" | "text/*" | "*/*") {
            best.1 = best.1.max(weight);
        }
        best
    };
    let (open, plain) = ranges.fold((0.0, 0.0), best);
    open > 0.0 && open >= plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn openmetrics_is_for_clients_that_ask_for_it() {
        for (accept, expected) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", true),
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", true),
            ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.2", false),
            ("application/openmetrics-text;q=0.1,text/plain;q=0.9", false),
            ("application/openmetrics-text;q=0", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]);
            assert_eq!(wants_openmetrics(&headers), expected, "{accept}");
        }
    }
}
