//! Callback settings, which are the team's own: nothing of them reaches Iluma.
//!
//! Invariant: the account's callback token leaves for no team.

use super::record::Record;
use super::runtime::RuntimeConfig;
use super::{Gateway, account_of};
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::{Route, WEBHOOK_SECRET};
use crate::reference;
use crate::reply::{Rejection, ReplyBody};
use crate::tenant::Tenant;
use crate::upstream::{self, Outgoing, OutgoingBody};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

impl Gateway {
    /// Answers a callback row.
    pub(super) async fn settings(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        if route.target.path() == WEBHOOK_SECRET {
            return Ok(secret(self.callbacks.webhook_secret(&tenant.name)));
        }
        if route.name == RouteName::CallbackToken {
            let shape = self.upstream_tokens(live, tenant, &route, record).await;
            return Ok(secret(self.callbacks.tokens(&tenant.name, shape.as_deref())));
        }
        let (head, body) = request.into_parts();
        let shown = if matches!(head.method, Method::GET | Method::HEAD) {
            serde_json::to_vec(&self.callbacks.urls(&tenant.name).await?)
        } else {
            let timeouts = live.upstream.timeouts();
            let body = reference::read(body, timeouts.idle, timeouts.answer).await?;
            let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            serde_json::to_vec(&self.callbacks.set_url(&tenant.name, kind, &body).await?)
        };
        Ok(json(shown.unwrap_or_default().into()))
    }

    /// Upstream's answer, whose shape is documented nowhere. Without one, and with every error, there is none.
    async fn upstream_tokens(
        &self,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        route: &Route,
        record: &mut Record,
    ) -> Option<Bytes> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // Nothing of the team's goes along.
        let target = PathAndQuery::try_from(route.target.path()).ok()?;
        let body = OutgoingBody::Empty;
        let outgoing = Outgoing { method: Method::GET, target, headers, body, repeatable: true };
        let response = self.send(live, tenant, route.name, outgoing, record).await.ok()?;
        let credential = &account_of(live, tenant).credential;
        let answer = upstream::collect(response, Some(credential), live.upstream.timeouts().answer).await.ok()?;
        (answer.status == StatusCode::OK).then_some(answer.body)
    }
}

/// What no cache between here and the team may keep.
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
