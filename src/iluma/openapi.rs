//! The OpenAPI 3.1 document of Iluma's routes, as the gateway serves them, and of the team's own API.
//!
//! Invariants: paths and methods are those of the route table; `openapi/operations.json` names the schemas of each
//! path, and `openapi/schemas.json` defines them. Iluma publishes no OpenAPI document, so the schemas follow the
//! examples of its API pages.

use super::callback_type::CallbackType;
use super::routes::{Charge, Kind, ROUTES, RouteSpec};
use crate::base::openapi::{begin, component, content, operation_id, path_parameters};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

const PARTS: [&str; 2] = [include_str!("openapi/gateway.json"), include_str!("openapi/schemas.json")];
const OPERATIONS: &str = include_str!("openapi/operations.json");

const JSON: &str = "application/json";

/// The description of a path of the route table: the parts that the table's row does not contain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    summary: String,
    /// The names of the path's parameters in the document's components.
    #[serde(default)]
    parameters: Vec<String>,
    #[serde(default)]
    body: Option<Body>,
    /// The name of the answer's schema for each version of the path. The key is the version; it is empty if the path
    /// has no version. The name is empty if the answer is not JSON.
    answers: BTreeMap<String, String>,
    /// The content types, other than JSON, that the answer may have.
    #[serde(default)]
    or_as: Vec<String>,
}

/// The body of a request: the name of its schema, and the content types that it may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    schema: String,
    types: Vec<String>,
    #[serde(default)]
    optional: bool,
}

/// The content of `openapi/operations.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operations {
    /// The paths, by their text in the route table.
    paths: BTreeMap<String, Described>,
    /// The paths of the table that are pages for people, and no part of an API.
    #[cfg_attr(not(test), allow(dead_code, reason = "a test compares it with the table"))]
    pages: BTreeSet<String>,
    /// The schemas of callbacks, by type.
    callbacks: BTreeMap<String, Vec<String>>,
}

static DATA: LazyLock<Operations> = LazyLock::new(|| serde_json::from_str(OPERATIONS).unwrap_or_default());

/// Returns the document of the rows that `may_use` selects. `reasons` are the values of `x-gateway-error`.
#[must_use]
pub fn document(may_use: impl Fn(&RouteSpec) -> bool, reasons: &[&str]) -> Value {
    let mut document = begin(&PARTS, env!("CARGO_PKG_VERSION"));
    document["components"]["headers"]["GatewayError"]["schema"]["x-extensible-enum"] = json!(reasons);
    let mut types = BTreeSet::new();
    for row in ROUTES.iter().filter(|row| may_use(row)) {
        types.extend(row.callbacks.iter().map(|(_, kind)| *kind));
        for text in row.paths {
            for (method, path, described) in operations(row, text) {
                document["paths"][path][method] = described;
            }
        }
    }
    for kind in types {
        document["webhooks"][kind.as_str()]["post"] = callback(kind);
    }
    document
}

/// Returns the operations of a path of the table, one for each version: the method in lower case, the path, and the
/// operation's object.
fn operations(row: &RouteSpec, text: &str) -> Vec<(String, String, Value)> {
    let (Some((method, pattern)), Some(described)) = (text.split_once(' '), DATA.paths.get(text)) else {
        return Vec::new();
    };
    let of_version = |(version, schema): (&String, &String)| {
        let segment = |segment: &str| match (segment, segment.strip_prefix(':')) {
            ("v*", _) => format!("/{version}"),
            (_, Some(name)) => format!("/{{{name}}}"),
            (word, None) => format!("/{word}"),
        };
        let path: String = pattern.split('/').map(segment).collect();
        let operation = operation(row, (method, &path), described, schema);
        (method.to_ascii_lowercase(), path, operation)
    };
    described.answers.iter().map(of_version).collect()
}

fn operation(row: &RouteSpec, (method, path): (&str, &str), described: &Described, schema: &str) -> Value {
    let named = described.parameters.iter().map(String::as_str);
    let added = [
        ("CacheControl", row.kind.subject().is_some() && !matches!(row.kind, Kind::Health(_))),
        ("IdempotencyKey", row.idempotent),
        ("RequestId", true),
    ];
    let added = added.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
    let parameters = named.chain(added).map(|name| component("parameters", name));
    let mut operation = json!({
        "operationId": operation_id(method, path),
        "summary": described.summary,
        "tags": [row.text],
        "parameters": path_parameters(path).chain(parameters).collect::<Vec<_>>(),
        "responses": responses(row, schema, &described.or_as),
    });
    if row.charge == Charge::Answered {
        operation["x-charged"] = true.into();
    }
    if matches!(row.kind, Kind::Health(_)) {
        operation["security"] = json!([]);
    }
    if let Some(Body { schema, types, optional }) = &described.body {
        let of_type = |kind: &String| (kind.clone(), content(kind, Some(schema)));
        let by_type: serde_json::Map<_, _> = types.iter().map(of_type).collect();
        operation["requestBody"] = json!({ "required": !optional, "content": by_type });
    }
    operation
}

fn responses(row: &RouteSpec, schema: &str, or_as: &[String]) -> Value {
    let mut by_type = json!({});
    if !schema.is_empty() {
        by_type[JSON] = content(JSON, Some(schema));
    }
    for kind in or_as {
        by_type[kind] = content(kind, None);
    }
    let mut headers = vec![("x-request-id", "RequestId")];
    if !matches!(row.kind, Kind::Health(_)) {
        headers.extend([("ratelimit", "RateLimit"), ("ratelimit-policy", "RateLimitPolicy")]);
    }
    if row.kind.subject().is_some() {
        headers.extend([("age", "Age"), ("cache-status", "CacheStatus")]);
    }
    if row.idempotent {
        headers.push(("idempotent-replayed", "IdempotentReplayed"));
    }
    let headers: serde_json::Map<_, _> =
        headers.into_iter().map(|(name, header)| (name.to_owned(), component("headers", header))).collect();
    let mut responses = json!({ "200": { "description": "Done", "headers": headers, "content": by_type } });
    for status in statuses(row) {
        responses[*status] = component("responses", status);
    }
    responses
}

/// Returns the error statuses that a request of the row can get, from the gateway or from Iluma. The document has one
/// description for each status.
const fn statuses(row: &RouteSpec) -> &'static [&'static str] {
    match row.kind {
        Kind::Health(_) => &["400", "429", "500", "503", "504"],
        Kind::CallbackSetting | Kind::OwnApi => &["400", "401", "403", "404", "408", "409", "413", "429", "500", "503"],
        Kind::CachedRequest(_)
        | Kind::CachedRecord(_)
        | Kind::PublicList(_)
        | Kind::Submission
        | Kind::Records
        | Kind::File
        | Kind::Streamed
        | Kind::Options
        | Kind::Forbidden
        | Kind::Unknown
        | Kind::Closed
        | Kind::Absent => &["400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503", "504"],
    }
}

/// Returns the description of the callback that a team's endpoint gets.
fn callback(kind: CallbackType) -> Value {
    let schemas = DATA.callbacks.get(kind.as_str()).map_or(&[][..], Vec::as_slice);
    let any: Vec<_> = schemas.iter().map(|name| component("schemas", name)).collect();
    let headers = ["CallbackToken", "WebhookId", "WebhookTimestamp", "WebhookSignature"];
    json!({
        "summary": "The result of a request, sent to the team's URL for this type",
        "operationId": format!("callback_{}", kind.as_str().to_ascii_lowercase()),
        "parameters": headers.map(|name| component("parameters", name)),
        "requestBody": { "required": true, "content": { JSON: { "schema": { "anyOf": any } } } },
        "responses": {
            "2XX": { "description": "The callback is taken." },
            "default": { "description": "The callback is sent again later; 410 pauses the endpoint." },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Value {
        document(|_| true, &["not_found"])
    }

    #[test]
    fn every_path_of_the_table_is_described_and_no_other() {
        let data: Operations = serde_json::from_str(OPERATIONS).unwrap();
        let table: BTreeSet<&str> = ROUTES.iter().flat_map(|row| row.paths.iter().copied()).collect();
        let beyond: Vec<_> = data.paths.keys().filter(|text| !table.contains(text.as_str())).collect();
        assert!(beyond.is_empty(), "openapi/operations.json describes what the table does not have: {beyond:?}");
        for row in &ROUTES {
            for text in row.paths.iter().filter(|text| !data.pages.contains(**text)) {
                assert!(data.paths.contains_key(*text), "openapi/operations.json does not describe {text}");
                let described = &data.paths[*text];
                assert!(!described.answers.is_empty(), "{text} has no answer");
                let has_version = text.contains("v*");
                assert!(described.answers.keys().all(|version| version.is_empty() != has_version), "{text}: versions");
                let needs_body = row.charge == Charge::Answered && text.starts_with("POST");
                assert!(!needs_body || described.body.is_some(), "{text} is charged, and its body has no schema");
            }
        }
        let types: BTreeSet<&str> = CallbackType::ALL.map(CallbackType::as_str).into();
        assert_eq!(data.callbacks.keys().map(String::as_str).collect::<BTreeSet<_>>(), types);
    }

    #[test]
    fn every_reference_leads_to_a_component_and_every_component_is_used() {
        let document = whole();
        let mut named = BTreeSet::new();
        collect(&document, &mut named);
        for reference in &named {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
        }
        for kind in ["schemas", "parameters", "headers", "responses"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                assert!(named.contains(&format!("#/components/{kind}/{name}")), "{kind}: nothing uses {name}");
            }
        }
    }

    fn collect(value: &Value, named: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
                Some(text) if name == "$ref" => {
                    named.insert(text.to_owned());
                }
                _ => collect(value, named),
            }),
            Value::Array(items) => items.iter().for_each(|item| collect(item, named)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn a_team_sees_the_rows_that_it_may_use() {
        let document = document(|row| row.always_allowed || row.text == "cft", &[]);
        let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        assert!(paths.iter().any(|path| *path == "/v1/identity/cft/individual_watchlist"));
        assert!(paths.iter().any(|path| *path == "/bank/available_bank_codes"));
        assert!(!paths.iter().any(|path| path.contains("face_comparisons")), "{paths:?}");
        assert!(document.get("webhooks").is_none());
    }

    #[test]
    fn an_operation_says_what_its_row_says() {
        let document = whole();
        let bank = &document["paths"]["/v1.1/identity/bank_account_data_requests"]["post"];
        assert_eq!(bank["x-charged"], true);
        assert!(bank["responses"]["200"]["headers"].get("cache-status").is_some());
        let ktp = &document["paths"]["/v1/identity/ktp_name/validations"]["post"];
        assert!(ktp["responses"]["200"]["headers"].get("idempotent-replayed").is_some());
        assert_eq!(document["paths"]["/health"]["get"]["security"], json!([]));
    }
}
