//! The paths of the `admin` and `status` listeners, with their layers.

use super::answer::Refusal;
use super::audit;
use super::auth::needs_token;
use super::console::routes as console;
use super::context::Context;
use super::node_watch::Collect;
use super::openapi::Document;
use super::operation::{Access, Operation};
use super::operations::{open, operations};
use super::orders::Orders;
use crate::base::clock::Clock;
use crate::base::web::{self, Bounds};
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::telemetry::logs::LiveLines;
use crate::telemetry::metrics::Metrics;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::{Extension, Router};
use std::sync::Arc;
use std::time::Duration;

/// The bounds of a request.
const BOUNDS: Bounds = Bounds {
    // The largest order settles a thousand calls without notes, or some hundreds of calls with notes. Other orders have
    // a handful of fields.
    body: 64 << 10,
    // An operator's machine sends a body of this size at once.
    body_deadline: Duration::from_secs(10),
    // The slowest order is an erasure: the other nodes get some seconds to apply it, and the database is rewritten
    // without the erased data.
    answer_deadline: Duration::from_secs(60),
};

/// The time between two reports of a node.
const REPORTING: Duration = Duration::from_secs(2);

/// The service of the `admin` and `status` listeners.
#[derive(Debug)]
pub struct Admin(Arc<Context>);

impl Admin {
    /// Makes the API for `settings`. Its orders change the parts in `orders`.
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

    /// Sets the parts from which this node's report is made.
    pub fn collect_by(&self, collect: Collect) {
        self.0.watch.collect_by(collect);
    }

    /// Publishes this node's report to the other nodes every 2 seconds, until the future is dropped.
    pub async fn keep_reporting(&self) {
        loop {
            self.0.watch.publish().await;
            tokio::time::sleep(REPORTING).await;
        }
    }

    /// Returns the router of the `admin` listener, with all its layers.
    pub fn router(&self) -> Router {
        let operations = operations();
        let document = Document::of(&operations);
        let (open, guarded): (Vec<_>, Vec<_>) =
            operations.into_iter().partition(|operation| operation.access == Access::Open);
        let api = self
            .served(guarded)
            // A client without a token does not learn which paths exist.
            .fallback(async || Refusal::UnknownPath)
            .layer(from_fn_with_state(Arc::clone(&self.0), needs_token))
            .layer(Extension(document));
        self.layered(self.served(open).merge(console::router()).merge(api))
    }

    /// Returns the router of the `status` listener: the paths that need no token, and no others.
    pub fn status_router(&self) -> Router {
        self.layered(self.served(open()).fallback(async || Refusal::UnknownPath))
    }

    /// Returns a router that serves the operations. Only this function adds paths of the API.
    fn served(&self, operations: Vec<Operation>) -> Router<Arc<Context>> {
        operations.into_iter().fold(Router::new(), |router, Operation { path, access, handler, .. }| match access {
            Access::Open | Access::Viewer => router.route(path, handler),
            Access::Order(order) => {
                let gate = from_fn_with_state((Arc::clone(&self.0), order), audit::gate);
                router.route(path, handler.route_layer(gate))
            }
        })
    }

    fn layered(&self, router: Router<Arc<Context>>) -> Router {
        web::layered(
            router.with_state(Arc::clone(&self.0)),
            BOUNDS,
            |status| Refusal::of(status).into_response(),
            |fault| Refusal::invalid(fault.to_string()).into_response(),
        )
    }

    /// Applies changed settings.
    pub fn reload(&self, settings: &Settings) {
        self.0.reload(settings);
    }

    /// Makes `/readyz` answer 503 from now on, so that load balancers use other nodes.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// Waits until every order that has begun has ended, but at most for `most`.
    pub async fn finish(&self, most: Duration) {
        if !self.0.running.drain(most).await {
            tracing::warn!("an operator's order did not end in time: give it again after the restart");
        }
    }
}
