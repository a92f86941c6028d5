//! The result of an operator's order.

use super::answer::{Refusal, json};
use crate::base::web::GATEWAY_ERROR;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// The result of an order.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The number of changed items of each kind, as a JSON object for the audit log.
    pub(super) counts: Value,
    /// The names of the nodes and stores that could not be reached; empty if the order is done.
    pub(super) left: Vec<String>,
    /// The answer to the client.
    pub(super) answer: Result<Response, Refusal>,
}

impl Outcome {
    /// Returns the outcome of an order about callbacks. The counts are also the answer to the client.
    pub(super) fn counted(counts: Result<Value, Refusal>) -> Self {
        let answer = counts.map(|counts| (json(StatusCode::OK, &counts), counts));
        match answer {
            Ok((answer, counts)) => Self { counts, left: Vec::new(), answer: Ok(answer) },
            Err(refusal) => Self { counts: serde_json::json!({}), left: Vec::new(), answer: Err(refusal) },
        }
    }

    /// Returns the outcome of an order that removes data. The answer is 200 with `result`, or 503 with `result` if
    /// `left` names nodes or stores that were not reached.
    pub(super) fn removed(counts: Value, result: &impl Serialize, left: Vec<String>) -> Self {
        let answer = if left.is_empty() { json(StatusCode::OK, result) } else { incomplete(result) };
        Self { counts, left, answer: Ok(answer) }
    }
}

/// The answer to an order that was not carried out everywhere.
#[derive(Debug, Serialize)]
struct Incomplete<'a, T> {
    error_code: &'static str,
    message: &'static str,
    #[serde(flatten)]
    result: &'a T,
}

fn incomplete(result: &impl Serialize) -> Response {
    let message = "not everything could be reached; give the order again once it can";
    let body = Incomplete { error_code: "SERVICE_UNAVAILABLE", message, result };
    ([(GATEWAY_ERROR, "incomplete")], json(StatusCode::SERVICE_UNAVAILABLE, &body)).into_response()
}
