//! `GET /v1/openapi.json`: the OpenAPI 3.1 document of the API, made from its operations.
//!
//! Schemas and parameters are in `openapi/components.json`; the test in `tests/openapi` compares them with answers.

use super::answer::typed;
use super::operation::{Access, Answer, JSON, Operation};
use crate::base::openapi::{begin, component, content, operation_id, path_parameters};
use axum::Extension;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

const COMPONENTS: &str = include_str!("openapi/components.json");

/// The OpenAPI document as JSON, in the form that is sent.
#[derive(Debug, Clone)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn of(operations: &[Operation]) -> Self {
        Self(serde_json::to_vec(&document(operations)).unwrap_or_default().into())
    }
}

/// `GET /v1/openapi.json`: answers with the document.
pub(super) async fn show(Extension(Document(document)): Extension<Document>) -> Response {
    typed(StatusCode::OK, JSON, document)
}

fn document(operations: &[Operation]) -> Value {
    let mut document = begin(&[COMPONENTS], env!("CARGO_PKG_VERSION"));
    for operation in operations {
        let described = described(operation);
        document["paths"][operation.path][operation.method.to_ascii_lowercase()] = described;
    }
    document
}

fn described(operation: &Operation) -> Value {
    let query = operation.query.iter().map(|name| component("parameters", name));
    let parameters: Vec<_> = path_parameters(operation.path).chain(query).collect();
    let mut described = json!({
        "operationId": operation_id(operation.method, operation.path),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {},
    });
    match operation.access {
        Access::Open => described["security"] = json!([]),
        Access::Viewer => described["x-role"] = "viewer".into(),
        Access::Order(order) => {
            described["x-role"] = order.role().as_str().into();
            described["x-order"] = order.as_str().into();
        }
    }
    if let Some((schema, is_required)) = operation.body {
        described["requestBody"] = json!({ "required": is_required, "content": { JSON: content(JSON, Some(schema)) } });
    }
    for answer in &operation.answers {
        add(&mut described["responses"][answer.status.as_str()], answer);
    }
    described
}

/// Adds an answer to `response`, the description of all answers with the same status.
fn add(response: &mut Value, answer: &Answer) {
    let Answer { status, content_type, schema, reason, text } = answer;
    if response.is_null() {
        *response = json!({ "description": "", "headers": { "x-request-id": component("headers", "RequestId") } });
    }
    let said = reason.map_or_else(|| text.clone(), |reason| format!("{reason}: {text}"));
    let before = response["description"].as_str().filter(|before| !before.is_empty() && *before != said);
    response["description"] = before.map_or_else(|| said.clone(), |before| format!("{before}. {said}")).into();
    // The schema `Incomplete` has the members of an error too, so it describes both answers of the status.
    let is_wider = *schema == Some("Incomplete") || response["content"][content_type].is_null();
    if is_wider {
        response["content"][content_type] = content(content_type, *schema);
    }
    let headers = &mut response["headers"];
    match reason {
        None => headers["x-gateway-partial"] = component("headers", "Partial"),
        Some(reason) => {
            if headers["x-gateway-error"].is_null() {
                headers["x-gateway-error"] = json!({ "description": "The reason.", "schema": { "enum": [] } });
            }
            if let Some(reasons) = headers["x-gateway-error"]["schema"]["enum"].as_array_mut()
                && !reasons.iter().any(|known| known == reason)
            {
                reasons.push((*reason).into());
            }
        }
    }
    match *status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers["retry-after"] = component("headers", "RetryAfter");
        }
        StatusCode::METHOD_NOT_ALLOWED => headers["allow"] = component("headers", "Allow"),
        _ => {}
    }
}
