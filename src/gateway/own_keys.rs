//! `POST /_gateway/keys/rotate`: a team replaces the key of its request.
//!
//! Invariant: the order runs to its end also if its client goes.

use super::exchange::Exchange;
use super::replies::of_parts;
use crate::base::web::GATEWAY_ERROR;
use crate::reply::{Rejection, ReplyBody};
use crate::state::{KeyOrderError, StateError, Taken, grace};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// Answers with a successor of the request's key, which ends after the grace.
pub(super) async fn rotate(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let registry = exchange.gateway.registry.clone();
    let id = {
        let keys = registry.table();
        exchange.config.tenants.authenticate(request.headers(), &keys, exchange.log.asked())?.key.id.clone()
    };
    let grace = grace(&exchange.read(request.into_body()).await?).ok_or(Rejection::Grace)?;
    let (tenant, (told, answer)) = (exchange.tenant.name.clone(), oneshot::channel());
    exchange.gateway.tasks.spawn(async move {
        // The client may be gone.
        let _ = told.send(registry.rotate(&tenant, &id, grace).await);
    });
    let Taken { value: (info, key), left } =
        answer.await.unwrap_or(Err(KeyOrderError::State(StateError::Unavailable)))?;
    let mut shown = info.json(Some(&key));
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let status = if left.is_empty() {
        StatusCode::OK
    } else {
        shown["error_code"] = "SERVICE_UNAVAILABLE".into();
        shown["message"] =
            "the new key works here; the nodes and stores in `left` apply it once they can be reached".into();
        shown["left"] = left.into();
        headers.insert(GATEWAY_ERROR, HeaderValue::from_static("incomplete"));
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_vec(&shown).map_err(|_| Rejection::Internal)?;
    Ok(of_parts(status, headers, ReplyBody::full(body.into())))
}
