//! Lists the receipts of erasures.

use super::answer::Refusal;
use super::context::Context;
use super::log_pages;
use crate::state::{ErasureReceipt, StoredReceipt};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use std::sync::Arc;

/// A page of receipts.
#[derive(Debug, Serialize)]
struct Page {
    erasures: Vec<ErasureReceipt>,
    next: Option<String>,
}

/// `GET /v1/erasures`: lists the receipts of erasures, in pages like those of `/v1/audit`. A client that accepts
/// `application/x-ndjson` gets JSON lines. These lines also have the person tags, which `restore --erasures` needs.
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let found = context.orders.erasures.list(&log_pages::asked(query.as_deref())?).await;
    let found = found.map_err(|error| Refusal::Unavailable(error.to_string()))?;
    let page = |stored: Vec<StoredReceipt>, next| {
        let erasures = stored.into_iter().map(|stored| stored.receipt).collect();
        Page { erasures, next }
    };
    Ok(log_pages::answer(&headers, found, |stored| stored, page))
}
