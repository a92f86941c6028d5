//! What platform operators ask and order: health, readiness, metrics, who the tenants are, what became of callbacks; purges
//! and erasures.
//!
//! Invariant: what names a team needs the admin token, compared in constant time; metrics hold nothing personal and
//! are open.

mod callbacks;
mod orders;
mod usage;

pub use orders::Orders;

use crate::base::request_id;
use crate::config::{Settings, TenantLimits};
use crate::iluma::route_name::RouteName;
use crate::ledger::Ledger;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The largest body: a person has a handful of fields, an order to replay fewer.
const LARGEST_BODY: usize = 64 << 10;

/// How long an operator's body may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the admin listener.
#[derive(Debug)]
pub struct Admin {
    metrics: Metrics,
    orders: Orders,
    ledger: Ledger,
    live: ArcSwap<AdminConfig>,
    draining: AtomicBool,
}

/// What the configuration says to the API.
#[derive(Debug)]
struct AdminConfig {
    token: Option<SecretString>,
    tenants: Vec<Tenant>,
}

#[derive(Debug, serde::Serialize)]
struct Tenant {
    name: String,
    account: String,
    keys: usize,
    #[serde(flatten)]
    limits: TenantLimits,
    routes: Vec<&'static str>,
    share_cache: bool,
}

impl AdminConfig {
    fn new(settings: &Settings) -> Self {
        let tenants = settings.tenants.iter().map(|(name, tenant)| Tenant {
            name: name.to_string(),
            account: tenant.account.to_string(),
            keys: tenant.key_sha256.len(),
            limits: tenant.limits.clone(),
            routes: tenant.routes.iter().copied().map(RouteName::as_str).collect(),
            share_cache: tenant.share_cache,
        });
        Self { token: settings.admin.token.clone(), tenants: tenants.collect() }
    }
}

impl Admin {
    /// Answers for what `settings` say, and has `orders` carried out.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Metrics, orders: Orders, ledger: Ledger) -> Self {
        let live = ArcSwap::from_pointee(AdminConfig::new(settings));
        Self { metrics, orders, ledger, live, draining: AtomicBool::new(false) }
    }

    /// Goes over to other settings.
    pub fn reload(&self, settings: &Settings) {
        self.live.store(Arc::new(AdminConfig::new(settings)));
    }

    /// From now on `/readyz` sends load balancers away.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Answers one request.
    ///
    /// # Errors
    /// None.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let method = match path {
            "/v1/callbacks/replay" | "/v1/cache/purge" | "/v1/erase" => Some(Method::POST),
            "/healthz" | "/readyz" | "/metrics" | "/v1/tenants" | "/v1/callbacks" | "/v1/usage"
            | "/v1/usage/unknown" => Some(Method::GET),
            _ => None,
        };
        let asked = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let mut response = match path {
            _ if method.as_ref().is_some_and(|method| method != asked) => not_allowed(method == Some(Method::POST)),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.draining.load(Ordering::Acquire) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/metrics" => {
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render().into())
            }
            _ => self.api(path, &head, body).await.unwrap_or_else(|refused| refused),
        };
        response.headers_mut().insert(request_id::HEADER, request_id::of(&head.headers).1);
        Ok(response)
    }

    async fn api<B>(&self, path: &str, head: &Parts, body: B) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let live = self.live.load_full();
        let Some(token) = &live.token else {
            return Err(error(
                StatusCode::FORBIDDEN,
                "REQUEST_FORBIDDEN_ERROR",
                "the admin API is off, admin.token turns it on",
            ));
        };
        if !bears(&head.headers, token) {
            return Err(error(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "the admin token is missing or wrong"));
        }
        match path {
            "/v1/tenants" => Ok(json(StatusCode::OK, &serde_json::json!({ "tenants": live.tenants }))),
            "/v1/callbacks" => Ok(callbacks::list(&self.orders.state, head.uri.query().unwrap_or_default()).await),
            "/v1/usage" => usage::usage(&self.ledger, head.uri.query().unwrap_or_default(), &head.headers).await,
            "/v1/usage/unknown" => usage::unknown(&self.ledger, head.uri.query().unwrap_or_default()).await,
            "/v1/callbacks/replay" => Ok(callbacks::replay(&self.orders.state, &read(body).await?).await),
            "/v1/cache/purge" => {
                let known = |tenant: &str| live.tenants.iter().any(|known| known.name == tenant);
                self.orders.purge(&read(body).await?, known).await
            }
            "/v1/erase" => self.orders.erase(&read(body).await?).await,
            _ => Err(error(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "there is nothing at this path")),
        }
    }
}

/// An operator's body, whole.
async fn read<B>(body: B) -> Result<Bytes, Response<Full<Bytes>>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match tokio::time::timeout(READ_TIMEOUT, Limited::new(body, LARGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(error(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", "a body has 64 KiB at most here")),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not arrive in time")),
    }
}

fn not_allowed(post: bool) -> Response<Full<Bytes>> {
    let (message, allow) =
        if post { ("only POST is known here", "POST") } else { ("only GET is known here", "GET, HEAD") };
    let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message);
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    refused
}

/// Whether the request carries the token. Hashes are compared, so that not even its length shows.
fn bears(headers: &HeaderMap, token: &SecretString) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let given = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let hash = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
    given.is_some_and(|given| hash(given).ct_eq(&hash(token.expose_secret())).into())
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    typed(status, "application/json", serde_json::to_vec(value).unwrap_or_default().into())
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error_code": code, "message": message }))
}

fn invalid(message: &str) -> Response<Full<Bytes>> {
    error(StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", message)
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
