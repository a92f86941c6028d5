//! Callback settings, which belong to the team. No setting of a team reaches Iluma.
//!
//! Invariant: no team ever receives the account's callback token.

use super::exchange::Exchange;
use super::send;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::WEBHOOK_SECRET;
use crate::reply::{Rejection, ReplyBody};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

/// Answers a request for a callback setting.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let (callbacks, tenant) = (&exchange.gateway.callbacks, &exchange.tenant.name);
    if exchange.route.target.path() == WEBHOOK_SECRET {
        return Ok(secret(callbacks.webhook_secret(tenant)));
    }
    if exchange.route.name == RouteName::CallbackToken {
        let shape = upstream_tokens(&mut exchange).await;
        return Ok(secret(callbacks.tokens(tenant, shape.as_deref())));
    }
    let (head, body) = request.into_parts();
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(json(serde_json::to_vec(&callbacks.urls(tenant).await?).unwrap_or_default().into()));
    }
    let target = exchange.route.target.clone();
    let body = exchange.read(body).await?;
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let shown = if head.method == Method::DELETE {
        serde_json::to_vec(&callbacks.reset_urls(tenant, target.query().unwrap_or_default(), (kind, &body)).await?)
    } else {
        serde_json::to_vec(&callbacks.set_url(tenant, kind, &body).await?)
    };
    Ok(json(shown.unwrap_or_default().into()))
}

/// Sends a GET of the same path to Iluma, and returns the body of the answer; `None` if Iluma does not answer with 200.
/// Iluma does not document the shape of this body, so the gateway copies the shape for its own answer.
async fn upstream_tokens(exchange: &mut Exchange<'_>) -> Option<Bytes> {
    // The call to Iluma contains nothing from the team.
    let target = PathAndQuery::try_from(exchange.route.target.path()).ok()?;
    let answer = exchange.get(exchange.route.name, target, send::own_head()).await.ok()?;
    (answer.collected.status == StatusCode::OK).then_some(answer.collected.body)
}

/// Builds an answer that no cache may store.
fn secret(body: Bytes) -> Response<ReplyBody> {
    let mut response = json(body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json(body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
