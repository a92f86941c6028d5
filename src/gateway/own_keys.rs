//! `POST /_gateway/keys/rotate`: a team replaces the key of its request, or the key of its session.
//!
//! Invariants:
//! - The order runs to its end even if its client leaves.
//! - The audit log gets an entry before the order begins, and the outcome after the order has ended.
//! - The entry has the team's name where an operator's order has the name of a token.

use super::authentication::{Credentials, authenticate, may_have_session, session};
use super::exchange::Exchange;
use super::replies::of_parts;
use crate::base::name::TenantName;
use crate::base::web::GATEWAY_ERROR;
use crate::reply::{Rejection, ReplyBody};
use crate::state::{AuditLog, BEGUN, KeyInfo, KeyOrderError, Ordered, Registry, StateError, Taken, grace};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use secrecy::SecretString;
use std::time::Duration;
use tokio::sync::oneshot;

/// Answers with a new key that replaces the request's key. The old key ends after the grace period.
pub(super) async fn rotate(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let registry = exchange.gateway.registry.clone();
    let id = {
        let (method, headers, time) = (request.method(), request.headers(), exchange.log.asked());
        let given = Credentials { method, headers, path: exchange.route.target.path(), time };
        let by_session = may_have_session(given);
        let session = if by_session { session(exchange.gateway, exchange.config, given).await? } else { None };
        let keys = registry.table();
        authenticate(exchange.config, given, session.as_ref(), &keys)?.key.id.clone()
    };
    let grace = grace(&exchange.read(request.into_body()).await?).ok_or(Rejection::Grace)?;
    let (tenant, (told, answer)) = (exchange.tenant.name.clone(), oneshot::channel());
    let (audit, peer) = (exchange.gateway.audit.clone(), exchange.log.client.map(|peer| peer.to_string()));
    exchange.gateway.tasks.spawn(async move {
        // The client may be gone.
        let _ = told.send(audited(&audit, peer, (&registry, &tenant, &id, grace)).await);
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

/// Rotates a key, with an entry in the audit log. If the entry can't be written, the key is not rotated.
async fn audited(
    audit: &AuditLog,
    peer: Option<String>,
    (registry, tenant, id, grace): (&Registry, &TenantName, &str, Duration),
) -> Result<Taken<(KeyInfo, SecretString)>, KeyOrderError> {
    let ordered = Ordered {
        token: tenant.to_string(),
        role: "team",
        peer,
        order: "rotate_key",
        subject: Some(format!("{tenant}/{id}")),
        outcome: BEGUN,
    };
    let Ok(entry) = audit.begin(ordered).await else {
        tracing::error!(%tenant, "the audit log can't be written: a team's rotation of its key is refused; free space or repair the disk");
        return Err(KeyOrderError::State(StateError::Unavailable));
    };
    let rotated = registry.rotate(tenant, id, grace).await;
    let outcome = match &rotated {
        Ok(taken) if taken.left.is_empty() => "done",
        Ok(_) => "incomplete",
        Err(KeyOrderError::State(_)) => "failed",
        Err(KeyOrderError::Unknown | KeyOrderError::FromFile | KeyOrderError::Ended | KeyOrderError::TooMany) => {
            "refused"
        }
    };
    if audit.end(entry, outcome, serde_json::json!({})).await.is_err() {
        tracing::error!(%tenant, outcome, "the audit log can't be written: the rotation of a team's key ended, but its entry shows no outcome; free space or repair the disk");
    }
    rotated
}
