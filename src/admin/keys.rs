//! Operators' orders about teams' keys and suspensions.

use super::answer::{Refusal, json};
use super::audit::{Order, carry_out};
use super::auth::Caller;
use super::context::Context;
use super::outcome::Outcome;
use crate::base::name::TenantName;
use crate::base::web::{GATEWAY_ERROR, whole_body};
use crate::state::{KeyInfo, KeyOrderError, NewKey, StateError};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use secrecy::SecretString;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The longest note of a key, in characters.
const MAX_NOTE: usize = 200;
/// The allowed lifetimes of a key: from a minute to ten years. A shorter or longer lifetime is most likely a mistake.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(10 * 366 * 86400);

/// `GET /v1/tenants/{tenant}/keys`: lists a team's keys.
pub(super) async fn list(State(context): State<Arc<Context>>, Path(tenant): Path<String>) -> Result<Response, Refusal> {
    let tenant = context.tenant(&tenant)?;
    let keys: Vec<_> = context.orders.registry.list(&tenant).await.iter().map(|key| key.json(None)).collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "keys": keys })))
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    note: Option<String>,
    expires_in: Option<String>,
}

/// `POST /v1/tenants/{tenant}/keys`: creates a key. The body may have `note` and `expires_in`.
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let tenant = context.tenant(&tenant)?;
    let subject = tenant.to_string();
    let new = wanted(tenant, &whole_body(request).await?).ok_or_else(|| {
        Refusal::invalid(
            "the body may have a note, one line of at most 200 characters, and expires_in, a time span from a minute to \
             ten years, such as \"90d\"",
        )
    })?;
    let registry = context.orders.registry.clone();
    let order = async move {
        match registry.create(new).await {
            Ok(taken) => made(&taken.value.0, &taken.value.1, taken.left),
            Err(error) => refused(error),
        }
    };
    carry_out(&context, &caller, Order::CreateKey, Some(subject), order).await
}

/// `POST /v1/tenants/{tenant}/keys/{id}/rotate`: creates a successor of a key. The old key still works for the duration
/// `grace`, which is a day by default.
pub(super) async fn rotate(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let tenant = context.tenant(&tenant)?;
    let grace = crate::state::grace(&whole_body(request).await?)
        .ok_or_else(|| Refusal::invalid("the body may have a grace, a time span of at most a year, such as \"24h\""))?;
    let (registry, subject) = (context.orders.registry.clone(), subject_of(&tenant, &id));
    let order = async move {
        match registry.rotate(&tenant, &id, grace).await {
            Ok(taken) => made(&taken.value.0, &taken.value.1, taken.left),
            Err(error) => refused(error),
        }
    };
    carry_out(&context, &caller, Order::RotateKey, Some(subject), order).await
}

/// `DELETE /v1/tenants/{tenant}/keys/{id}`: revokes a key.
pub(super) async fn revoke(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, id)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let tenant = context.tenant(&tenant)?;
    let (registry, subject) = (context.orders.registry.clone(), subject_of(&tenant, &id));
    let order = async move {
        match registry.revoke(&tenant, &id).await {
            Ok(taken) => taken_by(taken.value.json(None), taken.left),
            Err(error) => refused(error),
        }
    };
    carry_out(&context, &caller, Order::RevokeKey, Some(subject), order).await
}

/// `POST /v1/tenants/{tenant}/suspend`: suspends a team.
pub(super) async fn suspend(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Path(tenant): Path<String>,
) -> Result<Response, Refusal> {
    set_suspended(&context, &caller, &tenant, Order::Suspend).await
}

/// `POST /v1/tenants/{tenant}/resume`: ends the suspension of a team.
pub(super) async fn resume(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Path(tenant): Path<String>,
) -> Result<Response, Refusal> {
    set_suspended(&context, &caller, &tenant, Order::Resume).await
}

async fn set_suspended(context: &Context, caller: &Caller, tenant: &str, order: Order) -> Result<Response, Refusal> {
    let (tenant, is_suspended) = (context.tenant(tenant)?, order == Order::Suspend);
    let subject = tenant.to_string();
    let registry = context.orders.registry.clone();
    let work = async move {
        match registry.suspend(&tenant, is_suspended).await {
            Ok(taken) => {
                let shown = serde_json::json!({ "tenant": tenant.as_str(), "suspended": is_suspended });
                taken_by(shown, taken.left)
            }
            Err(error) => refused(error.into()),
        }
    };
    carry_out(context, caller, order, Some(subject), work).await
}

/// Returns a key's name for the audit log, `team/id`. If no key can have this id, returns only the team.
fn subject_of(tenant: &TenantName, id: &str) -> String {
    let is_id =
        id.len() <= 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) || id.starts_with("file-") && id.len() == 17;
    if is_id { format!("{tenant}/{id}") } else { tenant.to_string() }
}

fn wanted(tenant: TenantName, body: &[u8]) -> Option<NewKey> {
    let Wanted { note, expires_in } =
        if body.is_empty() { Wanted::default() } else { serde_json::from_slice(body).ok()? };
    let note = note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    if note.as_ref().is_some_and(|note| note.chars().count() > MAX_NOTE || note.chars().any(char::is_control)) {
        return None;
    }
    let lifetime = match expires_in {
        Some(text) => Some(humantime::parse_duration(&text).ok().filter(|time| LIFETIME.contains(time))?),
        None => None,
    };
    Some(NewKey { tenant, note, lifetime })
}

fn made(info: &KeyInfo, key: &SecretString, left: Vec<String>) -> Outcome {
    taken_by(info.json(Some(key)), left)
}

/// Returns the outcome of an order that is in effect on this node. `shown` is the JSON of the answer. `left` names the
/// nodes and stores in which the order is not in effect yet.
fn taken_by(mut shown: Value, left: Vec<String>) -> Outcome {
    let answer = if left.is_empty() {
        json(StatusCode::OK, &shown)
    } else {
        shown["error_code"] = "SERVICE_UNAVAILABLE".into();
        shown["message"] =
            "the order is in effect here; the nodes and stores in `left` apply it once they can be reached".into();
        shown["left"] = left.clone().into();
        ([(GATEWAY_ERROR, "incomplete")], json(StatusCode::SERVICE_UNAVAILABLE, &shown)).into_response()
    };
    Outcome { counts: serde_json::json!({}), left, answer: Ok(answer) }
}

fn refused(error: KeyOrderError) -> Outcome {
    let refusal = match error {
        KeyOrderError::State(StateError::Unavailable | StateError::Refused) => Refusal::Unavailable(error.to_string()),
        KeyOrderError::Unknown | KeyOrderError::FromFile | KeyOrderError::Ended | KeyOrderError::TooMany => {
            Refusal::Key(error)
        }
    };
    Outcome { counts: serde_json::json!({}), left: Vec::new(), answer: Err(refusal) }
}
