//! What platform operators ask and order: health, readiness, metrics, who the tenants are, purges and
//! erasures, and what became of callbacks.
//!
//! Invariant: what names a team needs the admin token, compared in constant time; metrics hold nothing personal and
//! are open.

mod callbacks;

use crate::cache::{Cache, Change, Removed, Subject};
use crate::config::Settings;
use crate::name::{RouteName, TenantName};
use crate::person::Persons;
use crate::state::{Erased, State};
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
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

/// Answers the admin listener.
#[derive(Debug)]
pub struct Admin {
    metrics: Metrics,
    cache: Arc<Cache>,
    persons: Persons,
    state: State,
    live: ArcSwap<Live>,
    draining: AtomicBool,
}

/// An order to purge names one thing.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    route: Option<String>,
    tenant: Option<String>,
    all: Option<bool>,
}

/// Orders are short; a person has a handful of fields.
const LARGEST_ORDER: usize = 64 << 10;
/// How long an order may take to arrive.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// What the configuration says to the API.
#[derive(Debug)]
struct Live {
    token: Option<SecretString>,
    tenants: Vec<Tenant>,
}

#[derive(Debug, serde::Serialize)]
struct Tenant {
    name: String,
    account: String,
    keys: usize,
    requests_per_second: Option<u32>,
    burst: Option<u32>,
    max_in_flight: Option<usize>,
    routes: Vec<&'static str>,
    share_cache: bool,
}

impl Live {
    fn new(settings: &Settings) -> Self {
        let tenants = settings.tenants.iter().map(|(name, tenant)| Tenant {
            name: name.to_string(),
            account: tenant.account.to_string(),
            keys: tenant.key_sha256.len(),
            requests_per_second: tenant.requests_per_second,
            burst: tenant.burst,
            max_in_flight: tenant.max_in_flight,
            routes: tenant.routes.iter().copied().map(RouteName::as_str).collect(),
            share_cache: tenant.share_cache,
        });
        Self { token: settings.admin.token.clone(), tenants: tenants.collect() }
    }
}

impl Admin {
    /// Answers for what `settings` say, and orders what operators order.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Metrics, cache: Arc<Cache>, persons: Persons, state: State) -> Self {
        let live = ArcSwap::from_pointee(Live::new(settings));
        Self { metrics, cache, persons, state, live, draining: AtomicBool::new(false) }
    }

    /// Goes over to other settings.
    pub fn reload(&self, settings: &Settings) {
        self.live.store(Arc::new(Live::new(settings)));
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
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        let methods = match path {
            "/healthz" | "/readyz" | "/metrics" | "/v1/tenants" | "/v1/callbacks" => "GET, HEAD",
            "/v1/cache/purge" | "/v1/erase" | "/v1/callbacks/replay" => "POST",
            _ => "",
        };
        let fits = methods.is_empty() || if asks { methods != "POST" } else { methods == *request.method() };
        Ok(match path {
            _ if !fits => {
                let mut refused =
                    error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this method is not known here");
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
                refused
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.draining.load(Ordering::Acquire) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/metrics" => {
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render().into())
            }
            _ => self.api(request).await.unwrap_or_else(|refused| refused),
        })
    }

    async fn api<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Send,
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
        let (parts, body) = request.into_parts();
        if !bears(&parts.headers, token) {
            return Err(error(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "the admin token is missing or wrong"));
        }
        match parts.uri.path() {
            "/v1/tenants" => Ok(json(StatusCode::OK, &serde_json::json!({ "tenants": live.tenants }))),
            "/v1/cache/purge" => self.purge(&live, &read(body).await?).await,
            "/v1/callbacks" => callbacks::list(&self.state, parts.uri.query().unwrap_or_default()).await,
            "/v1/callbacks/replay" => callbacks::replay(&self.state, &read(body).await?).await,
            "/v1/erase" => self.erase(&read(body).await?).await,
            _ => Err(error(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "there is nothing at this path")),
        }
    }

    /// Ends stored answers by route, by team (those that serve it alone), or all.
    async fn purge(&self, live: &Live, order: &[u8]) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let unclear = || {
            invalid(
                "name one thing to purge: {\"route\":\"bank\"}, \"cft\" or \"bank_codes\", {\"tenant\":\"NAME\"} or {\"all\":true}",
            )
        };
        let changes = match serde_json::from_slice(order).map_err(|_| unclear())? {
            Purge { route: Some(route), tenant: None, all: None } => match route.parse() {
                // The answers by id are about the same accounts.
                Ok(RouteName::Bank) => vec![Change::Subject(Subject::Bank), Change::Subject(Subject::BankGet)],
                Ok(name) => vec![Change::Subject(Subject::of(name).ok_or_else(unclear)?)],
                Err(_) => return Err(unclear()),
            },
            Purge { route: None, tenant: Some(tenant), all: None } => {
                let tenant: TenantName = tenant.parse().map_err(|_| unclear())?;
                if !live.tenants.iter().any(|known| known.name == tenant.as_str()) {
                    return Err(error(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "there is no such tenant"));
                }
                vec![Change::Tenant(tenant)]
            }
            Purge { route: None, tenant: None, all: Some(true) } => vec![Change::All],
            Purge { .. } => return Err(unclear()),
        };
        let mut removed = Removed::default();
        for change in &changes {
            removed = removed.and(self.cache.change(change).await);
        }
        Ok(carried_out("purge", &removed, None))
    }

    /// Removes what is known about a person.
    async fn erase(&self, order: &[u8]) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let tags = self.persons.named(order).map_err(|error| invalid(&error.to_string()))?;
        let listed: Vec<_> = tags.iter().copied().collect();
        let change = Change::Erased(tags);
        let (mut removed, stored) = tokio::join!(self.cache.change(&change), self.state.erase(&listed));
        if stored.is_err() {
            removed.left.push("state".to_owned());
        }
        Ok(carried_out("erase", &removed, stored.ok()))
    }
}

/// What an order came to: 200, or 503 with what is left to do. It is noted, without a word about whom it concerned.
fn carried_out(order: &'static str, removed: &Removed, stored: Option<Erased>) -> Response<Full<Bytes>> {
    let Removed { memory, redis, left } = removed;
    let done = left.is_empty();
    tracing::info!(audit = order, token = "admin", memory, redis, done, "an operator's order");
    let mut counts = serde_json::json!({ "memory": memory, "redis": redis });
    if let Some(Erased { owners, callbacks, deliveries }) = stored {
        counts["owners"] = owners.into();
        counts["callbacks"] = callbacks.into();
        counts["deliveries"] = deliveries.into();
    }
    if done {
        return json(StatusCode::OK, &serde_json::json!({ "removed": counts }));
    }
    let message = "not everything could be reached; give the order again once it can";
    json(
        StatusCode::SERVICE_UNAVAILABLE,
        &serde_json::json!({
            "error_code": "SERVICE_UNAVAILABLE", "message": message, "removed": counts, "left": left,
        }),
    )
}

/// The body of an order.
async fn read<B>(body: B) -> Result<Bytes, Response<Full<Bytes>>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let read = tokio::time::timeout(ORDER_PATIENCE, Limited::new(body, LARGEST_ORDER).collect());
    match read.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(error(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", "an order has 64 KiB at most")),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the order did not arrive in time")),
    }
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

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error_code": code, "message": message }))
}

fn invalid(message: &str) -> Response<Full<Bytes>> {
    error(StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", message)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    typed(status, "application/json", serde_json::to_vec(value).unwrap_or_default().into())
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
