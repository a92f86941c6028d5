//! The paths of the `admin` listener, and their handlers.

use super::answer::{Refusal, json, text, typed};
use super::audit::{self, Order};
use super::auth::needs_token;
use super::callbacks;
use super::console::routes as console;
use super::context::Context;
use super::erasures;
use super::keys;
use super::live;
use super::node_watch::Collect;
use super::nodes;
use super::order_routes::{delete_dead_letter, erase, pause, purge, replay, resume, test};
use super::orders::Orders;
use super::unknown_calls;
use super::usage;
use crate::base::clock::Clock;
use crate::base::web::{self, Bounds, GATEWAY_ERROR};
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::telemetry::logs::LiveLines;
use crate::telemetry::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tower_http::compression::CompressionLayer;

/// The bounds of a request.
const BOUNDS: Bounds = Bounds {
    // A person has a handful of fields, and a replay order has fewer.
    body: 64 << 10,
    // An operator's machine sends this much at once.
    body_deadline: Duration::from_secs(10),
    // The slowest order is an erasure: nodes have seconds to apply it, and the database is rewritten without the data.
    answer_deadline: Duration::from_secs(60),
};

/// The time between two reports of a node.
const REPORTING: Duration = Duration::from_secs(2);

/// The service of the `admin` listener.
#[derive(Debug)]
pub struct Admin(Arc<Context>);

impl Admin {
    /// Makes the API for `settings`, whose orders change `orders`.
    #[must_use]
    pub fn new(
        settings: &Settings,
        telemetry: (Metrics, LiveLines),
        orders: Orders,
        ledger: Ledger,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Context::new(settings, telemetry, orders, ledger, clock)))
    }

    /// Says how the facts about this node are collected.
    pub fn collect_by(&self, collect: Collect) {
        self.0.watch.collect_by(collect);
    }

    /// Publishes this node's report to the other nodes, again and again.
    pub async fn keep_reporting(&self) {
        loop {
            self.0.watch.publish().await;
            tokio::time::sleep(REPORTING).await;
        }
    }

    /// Returns the router of the `admin` listener, with all its layers.
    pub fn router(&self) -> Router {
        let order = |order: Order, handler: MethodRouter<Arc<Context>>| {
            handler.route_layer(from_fn_with_state((Arc::clone(&self.0), order), audit::gate))
        };
        let api = Router::new()
            .route("/v1/tenants", get(tenants))
            .route("/v1/tenants/{tenant}/keys", get(keys::list).merge(order(Order::CreateKey, post(keys::create))))
            .route("/v1/audit", get(audit::list))
            .route("/v1/erasures", get(erasures::list))
            .route("/v1/nodes", get(nodes::list))
            .route("/v1/alarms", get(nodes::alarms))
            .route("/v1/live", get(live::follow))
            .route("/v1/tenants/{tenant}/keys/{id}", order(Order::RevokeKey, delete(keys::revoke)))
            .route("/v1/tenants/{tenant}/keys/{id}/rotate", order(Order::RotateKey, post(keys::rotate)))
            .route("/v1/tenants/{tenant}/suspend", order(Order::Suspend, post(keys::suspend)))
            .route("/v1/tenants/{tenant}/resume", order(Order::Resume, post(keys::resume)))
            .route("/v1/callbacks", get(callbacks::list))
            .route(
                "/v1/callbacks/{id}",
                get(callbacks::show).merge(order(Order::DeleteDeadLetter, delete(delete_dead_letter))),
            )
            .route("/v1/callbacks/replay", order(Order::Replay, post(replay)))
            .route("/v1/callbacks/pause", order(Order::PauseCallbacks, post(pause)))
            .route("/v1/callbacks/resume", order(Order::ResumeCallbacks, post(resume)))
            .route("/v1/callbacks/test", order(Order::TestCallbacks, post(test)))
            .route("/v1/usage", get(usage::usage))
            .route("/v1/usage/unknown", get(unknown_calls::list))
            .route("/v1/usage/unknown/settle", order(Order::Settle, post(unknown_calls::settle)))
            .route("/v1/cache/purge", order(Order::Purge, post(purge)))
            .route("/v1/erase", order(Order::Erase, post(erase)))
            // Without a token no client learns which paths exist.
            .fallback(async || Refusal::UnknownPath)
            .layer(from_fn_with_state(Arc::clone(&self.0), needs_token));
        self.layered(open().merge(console::router()).merge(api))
    }

    /// Returns the router of the `status` listener: the paths that need no token, and no others.
    pub fn status_router(&self) -> Router {
        self.layered(open().fallback(async || Refusal::UnknownPath))
    }

    fn layered(&self, router: Router<Arc<Context>>) -> Router {
        web::layered(
            router.with_state(Arc::clone(&self.0)),
            BOUNDS,
            |status| Refusal::of(status).into_response(),
            |fault| Refusal::invalid(fault.to_string()).into_response(),
        )
    }

    /// Applies other settings.
    pub fn reload(&self, settings: &Settings) {
        self.0.reload(settings);
    }

    /// Makes `/readyz` report from now on that load balancers should use other nodes.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// Waits until every order that was begun has ended, for `most` at the longest.
    pub async fn finish(&self, most: Duration) {
        if !self.0.running.drain(most).await {
            tracing::warn!("an operator's order did not end in time: give it again after the restart");
        }
    }
}

/// Returns the paths that probes and Prometheus ask, which need no token.
fn open() -> Router<Arc<Context>> {
    let metrics = get(metrics).layer(CompressionLayer::new().gzip(true));
    Router::new()
        .route("/healthz", get(async || text(StatusCode::OK, "ok\n")))
        .route("/readyz", get(readiness))
        .route("/metrics", metrics)
}

async fn readiness(State(context): State<Arc<Context>>) -> Response {
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

async fn metrics(State(context): State<Arc<Context>>, headers: HeaderMap) -> Response {
    if wants_openmetrics(&headers) {
        let body = context.metrics.render_open();
        return typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body.into());
    }
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", context.metrics.render().into())
}

/// Returns true if the client takes OpenMetrics 1.0 at least as readily as anything else, as Prometheus does.
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

async fn tenants(State(context): State<Arc<Context>>) -> Response {
    let (config, table) = (context.config(), context.orders.registry.table());
    let shown: Vec<_> = config.tenants.iter().map(|tenant| tenant.with(&table, &context.orders.budgets)).collect();
    json(StatusCode::OK, &serde_json::json!({ "tenants": shown }))
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
