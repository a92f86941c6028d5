//! Callbacks for operators: lists by state, and a single callback with its attempts.

use super::answer::{Refusal, json};
use super::context::Context;
use crate::callback::OrderError;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use std::sync::Arc;

/// `GET /v1/callbacks?state=queued|dead|unowned|delivered`: lists the callbacks in that state. Further parameters are
/// `tenant`, `type`, `since`, `until`, `limit` and `after` (the value of `next` in the previous page).
pub(super) async fn list(State(context): State<Arc<Context>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let shown = context.orders.callbacks.list(&query, None).await?;
    // The list has parsed the same query, so every name in the query is well formed.
    for (_, tenant) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "tenant") {
        context.ever_known(&tenant.parse().map_err(|_| Refusal::UnknownTenant)?).await?;
    }
    Ok(json(StatusCode::OK, &shown))
}

/// `GET /v1/callbacks/{id}`: shows one callback with all its attempts.
pub(super) async fn show(State(context): State<Arc<Context>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &context.orders.callbacks.show(&id, None).await?))
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Malformed(_) | OrderError::Type => Self::invalid(error.to_string()),
            OrderError::UnknownTenant => Self::UnknownTenant,
            OrderError::NotFound => Self::UnknownCallback,
            OrderError::NotDead => Self::NotDead,
            OrderError::NoUrl => Self::NoCallbackUrl,
            OrderError::Busy | OrderError::Unavailable => Self::Unavailable(error.to_string()),
        }
    }
}
