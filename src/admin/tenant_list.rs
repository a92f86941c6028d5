//! The list of teams.

use super::answer::json;
use super::context::Context;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use std::sync::Arc;

/// `GET /v1/tenants`: lists the teams of the configuration, with their limits, budgets and numbers of keys.
pub(super) async fn list(State(context): State<Arc<Context>>) -> Response {
    let (config, table) = (context.config(), context.orders.registry.table());
    let shown: Vec<_> = config.tenants.iter().map(|tenant| tenant.with(&table, &context.orders.budgets)).collect();
    json(StatusCode::OK, &serde_json::json!({ "tenants": shown }))
}
