//! Callbacks: the URLs that an account set, and the delivery of results to them.
//!
//! Invariants: a URL is taken only after it answered a test payload 2xx; redirects are not followed; what waits is bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls_platform_verifier::BuilderVerifierExt;
use serde::Serialize;
use serde_json::json;

use super::call::Call;
use super::check::Check;
use super::key::Key;
use super::reply::{Problem, Reply};
use super::server::Tracked;
use super::world::World;

/// Accounts that may set URLs. One developer has a handful.
const MAX_ACCOUNTS: usize = 10_000;
/// Callbacks that wait for their time or for an answer.
const MAX_WAITING: usize = 20_000;
/// The longest URL.
const MAX_URL: usize = 2048;

/// What a callback is about; each has its own URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Type {
    NameValidatorRequest,
    BankNameValidatorDetails,
    IdImageOcrRequest,
    BusinessDocumentOcrRequest,
    DocumentOcrCaptureRequest,
}

impl Type {
    const ALL: [(&str, Self); 5] = [
        ("NAME_VALIDATOR_REQUEST", Self::NameValidatorRequest),
        ("BANK_NAME_VALIDATOR_DETAILS", Self::BankNameValidatorDetails),
        ("ID_IMAGE_OCR_REQUEST", Self::IdImageOcrRequest),
        ("BUSINESS_DOCUMENT_OCR_REQUEST", Self::BusinessDocumentOcrRequest),
        ("DOCUMENT_OCR_CAPTURE_REQUEST", Self::DocumentOcrCaptureRequest),
    ];
}

/// A result to be sent.
#[derive(Clone, Debug)]
pub(super) struct Callback {
    pub(super) kind: Type,
    pub(super) key: Key,
    pub(super) due: Instant,
    /// The object as `GET :id` shows it.
    pub(super) object: Bytes,
}

/// The URLs of every account.
#[derive(Debug, Default)]
pub(super) struct Urls(BTreeMap<(Arc<str>, Type), String>);

impl Urls {
    fn of(&self, account: &Arc<str>) -> Vec<(Type, String)> {
        let all = Type::ALL.iter().map(|(_, kind)| *kind);
        all.filter_map(|kind| Some((kind, self.0.get(&(Arc::clone(account), kind))?.clone()))).collect()
    }

    fn find(&self, account: &Arc<str>, kind: Type) -> Option<String> {
        self.0.get(&(Arc::clone(account), kind)).cloned()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[derive(Serialize)]
struct Shown {
    r#type: Type,
    url: String,
}

/// `GET`, `POST` and `PATCH /v1/callback/urls`. POST sets a URL, whether one was set or not; PATCH changes one that is set.
pub(super) async fn urls(call: &mut Call<'_>) -> Result<Reply, Problem> {
    if call.method == Method::GET {
        let urls = call.world.urls.lock().of(&call.key.label);
        let shown: Vec<Shown> = urls.into_iter().map(|(r#type, url)| Shown { r#type, url }).collect();
        return Ok(Reply::json(&shown));
    }
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let names: Vec<&str> = Type::ALL.iter().map(|(name, _)| *name).collect();
    let (name, url) = (check.choice("type", &names), check.required("url"));
    if !url.is_empty() && destination(&url).is_none() {
        check.wrong("url", "url must be an http or https URL");
    }
    check.finish()?;
    let kind = Type::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    let (Some(kind), Some(uri)) = (kind, destination(&url)) else { return Err(Problem::not_found()) };
    {
        let urls = call.world.urls.lock();
        if call.method == Method::PATCH && urls.find(&call.key.label, kind).is_none() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "No URL is set for this type"));
        }
        if urls.0.len() >= MAX_ACCOUNTS * Type::ALL.len() {
            return Err(Problem::server("too many callback URLs are set"));
        }
    }
    let payload = json!({ "type": kind, "test": true, "message": "This is a test of your callback URL" });
    let status = call.world.courier.post(&call.world.options, &call.key, uri, payload.to_string().into()).await;
    if !status.is_some_and(|status| status.is_success()) {
        let found = status.map_or_else(|| "nothing".to_owned(), |status| status.as_u16().to_string());
        return Err(Problem::field("url", format!("the test payload must be answered 2xx, it was answered {found}")));
    }
    call.world.urls.lock().0.insert((Arc::clone(&call.key.label), kind), url.clone());
    Ok(Reply::json(&Shown { r#type: kind, url }))
}

/// `GET /v1/callback/authentication_tokens`.
pub(super) fn token(call: &Call<'_>) -> Reply {
    Reply::json(&json!({ "callback_authentication_token": &*call.key.callback_token }))
}

fn destination(url: &str) -> Option<Uri> {
    if url.len() > MAX_URL {
        return None;
    }
    let uri: Uri = url.parse().ok()?;
    uri.host()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends callbacks.
pub(super) struct Courier {
    executor: Tracked,
    clear: OnceLock<HttpClient>,
    secure: OnceLock<HttpClient>,
    waiting: AtomicUsize,
    /// Callbacks of an earlier one are not sent any more.
    generation: AtomicU64,
}

impl Courier {
    pub(super) fn new(executor: Tracked) -> Self {
        Self {
            executor,
            clear: OnceLock::new(),
            secure: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
        }
    }

    /// Forgets the callbacks that wait.
    pub(super) fn reset(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The status that a URL answered with.
    async fn post(&self, options: &super::Options, key: &Key, uri: Uri, body: Bytes) -> Option<StatusCode> {
        let secure = uri.scheme_str() == Some("https");
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "iluma-simulator")
            .header("x-callback-token", &*key.callback_token)
            .body(Full::new(body))
            .ok()?;
        let client = if secure {
            self.secure.get_or_init(|| client(tls(options.callback_tls.as_deref()), self.executor.clone()))
        } else {
            self.clear.get_or_init(|| client(no_roots(), self.executor.clone()))
        };
        match tokio::time::timeout(options.callback_timeout, client.request(request)).await {
            Ok(Ok(answer)) => Some(answer.status()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "callback not delivered");
                None
            }
            Err(_) => None,
        }
    }
}

/// Sends a callback when it is due, `copies` times, in a task of its own.
pub(super) fn send(world: &Arc<World>, callback: Callback, copies: u32) {
    let world = Arc::clone(world);
    if world.courier.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
        world.courier.waiting.fetch_sub(1, Ordering::SeqCst);
        world.tally.callbacks(|count| count.dropped += 1);
        return;
    }
    let generation = world.courier.generation.load(Ordering::SeqCst);
    let executor = world.courier.executor.clone();
    executor.spawn(async move {
        tokio::time::sleep_until(callback.due.into()).await;
        for _ in 0..copies {
            if generation == world.courier.generation.load(Ordering::SeqCst) {
                deliver(&world, &callback).await;
            }
        }
        world.courier.waiting.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Sends a callback now, as often as it takes.
pub(super) async fn deliver(world: &World, callback: &Callback) {
    let url = world.urls.lock().find(&callback.key.label, callback.kind);
    let Some(uri) = url.as_deref().and_then(destination) else {
        world.tally.callbacks(|count| count.no_url += 1);
        return;
    };
    let mut pause = world.options.callback_retry;
    for attempt in 1..=world.options.callback_attempts.max(1) {
        world.tally.callbacks(|count| count.attempts += 1);
        let status = world.courier.post(&world.options, &callback.key, uri.clone(), callback.object.clone()).await;
        if status.is_some_and(|status| status.is_success()) {
            world.tally.callbacks(|count| count.delivered += 1);
            return;
        }
        if attempt < world.options.callback_attempts {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(Duration::from_secs(3600));
        }
    }
    world.tally.callbacks(|count| count.failed += 1);
}

fn client(tls: rustls::ClientConfig, executor: Tracked) -> HttpClient {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Client::builder(executor).build(connector)
}

fn tls(given: Option<&rustls::ClientConfig>) -> rustls::ClientConfig {
    if let Some(given) = given {
        return given.clone();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_or_else(|_| no_roots(), |config| config.with_no_client_auth())
}

/// Trusts nobody; for clients that never speak TLS.
fn no_roots() -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    match builder.with_safe_default_protocol_versions() {
        Ok(builder) => builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        // Cannot happen with this provider, which knows TLS 1.2 and 1.3; the fallback takes the process's default.
        Err(_) => {
            rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_destinations() {
        assert!(destination("http://127.0.0.1:1/x?y").is_some());
        assert!(destination("https://team.internal").is_some());
        for bad in ["", "/x", "ftp://x/", "http://", "nonsense", "javascript:alert(1)"] {
            assert!(destination(bad).is_none(), "{bad}");
        }
        assert!(destination(&format!("http://x/{}", "y".repeat(MAX_URL))).is_none());
    }

    #[test]
    fn types_are_written_as_documented() {
        for (name, kind) in Type::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
    }
}
