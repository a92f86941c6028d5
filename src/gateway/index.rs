//! `GET /` on `server`: describes the service, also to a client without a key.

use super::replies::of_parts;
use super::runtime::RuntimeConfig;
use crate::iluma::routes::{OPENAPI, ROUTES};
use crate::reply::ReplyBody;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use maud::{DOCTYPE, html};
use serde::Serialize;

/// The text that describes the gateway.
const ABOUT: &str = "A gateway to the API of Iluma for the teams of this company. Calls work as at Iluma: change the base URL \
                     and the key. To receive callbacks, set their URL here again.";
/// The path of the team portal. It is shown if the route table has it.
const PORTAL: &str = "/_gateway/";

/// The description of the service.
#[derive(Debug, Serialize)]
struct Index<'a> {
    service: &'static str,
    about: &'static str,
    /// The paths of the team's own API.
    own_api: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documentation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<&'a str>,
}

/// Returns true if the route table has a GET row with this path.
fn has_row(path: &str) -> bool {
    let is_same = |pattern: &str| pattern.trim_matches('/') == path.trim_matches('/');
    ROUTES.iter().flat_map(|row| row.patterns()).any(|(method, pattern)| method == Method::GET && is_same(pattern))
}

/// Answers in HTML if `accept` names HTML, else in JSON.
pub(super) fn serve(config: &RuntimeConfig, accepted: &HeaderMap) -> Response<ReplyBody> {
    let own = ROUTES.iter().flat_map(|row| row.patterns()).filter(|(_, path)| path.starts_with("_gateway"));
    let index = Index {
        service: "iluma-gateway",
        about: ABOUT,
        own_api: own.map(|(method, path)| format!("{method} /{path}")).collect(),
        portal: has_row(PORTAL).then_some(PORTAL),
        documentation: has_row(OPENAPI).then_some(OPENAPI),
        contact: config.contact.as_deref(),
    };
    let mut values = accepted.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (content_type, body) = if values.any(|value| value.to_ascii_lowercase().contains("text/html")) {
        ("text/html; charset=utf-8", page(&index).into_bytes())
    } else {
        ("application/json", serde_json::to_vec(&index).unwrap_or_default())
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    of_parts(StatusCode::OK, headers.into_iter().collect(), ReplyBody::full(body.into()))
}

fn page(index: &Index<'_>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { (index.service) } }
            body {
                h1 { (index.service) }
                p { (index.about) }
                @if let Some(portal) = index.portal { p { a href=(portal) { "Team portal" } } }
                @if let Some(documentation) = index.documentation { p { a href=(documentation) { "API document" } } }
                p { "The team's own API, with the team's key:" }
                ul { @for path in &index.own_api { li { code { (path) } } } }
                @if let Some(contact) = index.contact { p { "Help: " (contact) } }
            }
        }
    };
    page.into_string()
}
