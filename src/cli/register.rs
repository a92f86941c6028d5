//! `register-callbacks`: points Iluma's callback URLs at this gateway.
//!
//! Invariants: only configured accounts are changed, with their own keys; a URL that is correct already is not set
//! again; failures are reported for every account and type, not only for the first.

use crate::base::clock::Clock;
use crate::base::name::AccountName;
use crate::base::tasks::Tasks;
use crate::config::{self, Faults, Settings};
use crate::iluma::callback_type::CallbackType;
use crate::upstream::{self, Collected, Credential, Outgoing, OutgoingBody, Upstream};
use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The path at which Iluma keeps an account's URLs. Iluma's API document shows neither this path nor its answers.
const URLS: &str = "/v1/callback/urls";

/// The longest time of a request. Iluma first posts a test to the gateway and waits for its answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway register-callbacks --config /etc/iluma-gateway/config.toml")]
pub(super) struct Args {
    /// The configuration file; callbacks.public_url is the URL at which Iluma reaches the gateway.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The reason why URLs were not registered.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegisterError {
    /// The configuration has faults.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// The public URL is not configured.
    #[error("callbacks.public_url: missing; give the URL at which Iluma reaches the callbacks listener")]
    NoPublicUrl,
    /// A URL was not set, or an account has no callback token, so that its callbacks would be refused. Holds a list of
    /// all successes and failures.
    #[error("{0}")]
    Failed(String),
    /// The machine has no usable trust store.
    #[error("upstream: {0}")]
    Tls(#[from] rustls::Error),
}

/// Registers the callback URLs of the gateway that has this configuration file.
///
/// # Errors
/// Returns the errors of [`register`], or the faults of the configuration.
pub(super) async fn run(args: &Args) -> Result<String, RegisterError> {
    register(&Settings::load(&args.config)?).await
}

/// Sets the callback URLs of each account at Iluma, unless they are set correctly already. Returns one line for each
/// account and type, also for an unchanged URL. The gateway must be running, because Iluma posts a test to each URL
/// before it accepts the URL.
///
/// # Errors
/// Returns an error if a URL was not set, or if an account has no callback token; the text lists all successes and
/// failures. Also returns an error if no public URL is configured, or if TLS can't be set up.
pub(super) async fn register(settings: &Settings) -> Result<String, RegisterError> {
    let public_url = settings.callbacks.public_url.as_ref().ok_or(RegisterError::NoPublicUrl)?;
    let (connections, clock) = (Tasks::new(), Clock::system());
    let patient = config::Upstream { timeout: settings.upstream.timeout.max(TIMEOUT), ..settings.upstream.clone() };
    let upstream = Upstream::new(&patient, &clock, connections)?;
    let (mut told, mut failed) = (String::new(), false);
    for (name, account) in &settings.accounts {
        let iluma = Iluma { upstream: &upstream, credential: Arc::new(Credential::new(&account.api_key)) };
        let known = iluma.urls().await;
        for kind in CallbackType::ALL {
            let wanted = url_of(public_url, name, kind);
            let line = match known.iter().find(|(known, _)| *known == kind) {
                Some((_, url)) if *url == wanted => format!("unchanged: {wanted}"),
                before => match iluma.set(kind, &wanted).await {
                    Ok(()) => match before {
                        Some((_, before)) => format!("changed: {wanted} (was {})", without_query(before)),
                        None => format!("set: {wanted}"),
                    },
                    Err(why) => {
                        failed = true;
                        format!("FAILED: {why}")
                    }
                },
            };
            let _ = writeln!(told, "{name} {kind} {line}");
        }
        if account.callback_tokens.is_empty() {
            failed = true;
            let _ = writeln!(
                told,
                "{name} FAILED: accounts.{name}.callback_token is missing, so its callbacks are refused"
            );
        }
    }
    if failed { Err(RegisterError::Failed(told.trim_end().to_owned())) } else { Ok(told) }
}

/// Returns the callback URL of an account and a type: `<public_url>/callbacks/<account>/<TYPE>`.
fn url_of(public_url: &http::Uri, account: &AccountName, kind: CallbackType) -> String {
    format!("{}/callbacks/{account}/{kind}", public_url.to_string().trim_end_matches('/'))
}

/// Removes the query of a previous URL. It may be a team's own URL, with a token in the query.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// The client of Iluma for one account.
struct Iluma<'a> {
    upstream: &'a Upstream,
    credential: Arc<Credential>,
}

impl Iluma<'_> {
    /// Returns the current URLs of the account, as far as they can be read from Iluma's answer. The shape of the answer
    /// is not documented.
    async fn urls(&self) -> Vec<(CallbackType, String)> {
        let answer = self.ask(Method::GET, None).await;
        let shown = answer.ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
        let list = match shown {
            Some(Value::Array(list)) => list,
            Some(Value::Object(mut members)) => match members.remove("data") {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let one = |item: &Value| {
            let kind = item["type"].as_str()?.parse().ok()?;
            Some((kind, item["url"].as_str()?.to_owned()))
        };
        list.iter().filter_map(one).collect()
    }

    /// Sets a URL by POST. If Iluma refuses the POST, for example because a URL is set already, it sets the URL by
    /// PATCH.
    async fn set(&self, kind: CallbackType, url: &str) -> Result<(), String> {
        let mut why = String::new();
        for method in [Method::POST, Method::PATCH] {
            let body = json!({ "type": kind.as_str(), "url": url }).to_string();
            let answer = self.ask(method, Some(body.into())).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            // The reason of the POST is reported, because PATCH may fail only because no URL was set before.
            if why.is_empty() {
                why = format!("Iluma answered {}{}", answer.status, reason(&answer.body));
            }
        }
        Err(why)
    }

    async fn ask(&self, method: Method, body: Option<Bytes>) -> Result<Collected, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let repeatable = method == Method::GET;
        let body = body.map_or(OutgoingBody::Empty, |body| OutgoingBody::Full(Some(body)));
        let outgoing = Outgoing { method, target: PathAndQuery::from_static(URLS), headers, body, repeatable };
        let response = self.upstream.send(outgoing, Some(&self.credential)).await.map_err(|error| error.to_string())?;
        upstream::collect(response, Some(&self.credential), TIMEOUT).await.map_err(|error| error.to_string())
    }
}

/// Returns the error code and the message of Iluma's error, after a colon. Returns an empty text if the body has not
/// the shape of Iluma's errors.
fn reason(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let text = |name: &str| value.as_ref().and_then(|value| value[name].as_str());
    match (text("error_code"), text("message")) {
        (Some(code), Some(message)) => format!(": {code}, {message}"),
        (Some(code), None) => format!(": {code}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_account_and_type() {
        let (account, kind) = ("live".parse().unwrap(), CallbackType::IdImageOcrRequest);
        for public in ["https://kyc.example.com", "https://kyc.example.com/"] {
            let url = url_of(&public.parse().unwrap(), &account, kind);
            assert_eq!(url, "https://kyc.example.com/callbacks/live/ID_IMAGE_OCR_REQUEST");
        }
        let below = url_of(&"https://example.com/kyc/".parse().unwrap(), &account, kind);
        assert_eq!(below, "https://example.com/kyc/callbacks/live/ID_IMAGE_OCR_REQUEST");
    }
}
