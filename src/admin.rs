//! What platform operators ask: health, readiness, metrics, and who the tenants are.
//!
//! Invariant: what names a team needs the admin token, compared in constant time; metrics hold nothing personal and
//! are open.

use crate::calendar::Day;
use crate::config::Settings;
use crate::ledger::{Counts, Ledger, Row};
use crate::name::{RouteName, TenantName};
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use subtle::ConstantTimeEq as _;

/// Answers the admin listener.
#[derive(Debug)]
pub struct Admin {
    metrics: Metrics,
    ledger: Ledger,
    live: ArcSwap<Live>,
    draining: AtomicBool,
}

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
    /// Answers for what `settings` say.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Metrics, ledger: Ledger) -> Self {
        Self { metrics, ledger, live: ArcSwap::from_pointee(Live::new(settings)), draining: AtomicBool::new(false) }
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
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        let known = matches!(path, "/healthz" | "/readyz" | "/metrics" | "/v1/tenants" | "/v1/usage");
        Ok(match path {
            _ if known && !asks => {
                let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "only GET is known here");
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                refused
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.draining.load(Ordering::Acquire) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/metrics" => {
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render().into())
            }
            _ => self.api(path, request.uri().query().unwrap_or_default(), request.headers()).await,
        })
    }

    async fn api(&self, path: &str, query: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let live = self.live.load_full();
        let Some(token) = &live.token else {
            return error(
                StatusCode::FORBIDDEN,
                "REQUEST_FORBIDDEN_ERROR",
                "the admin API is off, admin.token turns it on",
            );
        };
        if !bears(headers, token) {
            return error(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "the admin token is missing or wrong");
        }
        match path {
            "/v1/tenants" => {
                let body = serde_json::to_vec(&serde_json::json!({ "tenants": live.tenants })).unwrap_or_default();
                typed(StatusCode::OK, "application/json", body.into())
            }
            "/v1/usage" => self.usage(query, headers).await,
            _ => error(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "there is nothing at this path"),
        }
    }
}

impl Admin {
    /// The books, `from` a day `to` a day, both included; left out, from the first of this month to today.
    async fn usage(&self, query: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let invalid = |message: &str| error(StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", message);
        let today = self.ledger.today();
        let (mut from, mut to, mut tenant) = (today.month().first(), today, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "from" | "to" => match (value.parse::<Day>(), &*name) {
                    (Ok(day), "from") => from = day,
                    (Ok(day), _) => to = day,
                    (Err(_), _) => return invalid("from and to are days, such as 2026-11-25"),
                },
                "tenant" => match value.parse::<TenantName>() {
                    Ok(name) => tenant = Some(name),
                    Err(_) => return invalid("tenant is the name of a team"),
                },
                _ => return invalid("known here: from, to and tenant"),
            }
        }
        let Ok(rows) = self.ledger.rows(from, to, tenant.as_ref()).await else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "the ledger can't be read just now");
        };
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if accepted.into_iter().any(|value| value.to_ascii_lowercase().contains("text/csv")) {
            return typed(StatusCode::OK, "text/csv; charset=utf-8", csv(&rows).into());
        }
        let body = serde_json::to_vec(&serde_json::json!({ "rows": rows })).unwrap_or_default();
        typed(StatusCode::OK, "application/json", body.into())
    }
}

/// RFC 4180. Names need no quotes.
fn csv(rows: &[Row]) -> String {
    let mut text = format!("day,tenant,route,{}\r\n", Counts::NAMES.join(","));
    for Row { day, tenant, route, counts } in rows {
        let numbers = counts.numbers().map(|number| number.to_string());
        text.push_str(&format!("{day},{tenant},{route},{}\r\n", numbers.join(",")));
    }
    text
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
    let body = serde_json::to_vec(&serde_json::json!({ "error_code": code, "message": message })).unwrap_or_default();
    typed(status, "application/json", body.into())
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
