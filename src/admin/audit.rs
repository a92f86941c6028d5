//! Operators' orders: each runs in a task of its own to its end, even if its client leaves.
//!
//! Invariant: an order is in the audit log as an intent before anything is changed, and as a result after it has ended,
//! with counts and without any data of the persons concerned.

use super::answer::{Refusal, json};
use crate::base::tasks::Tasks;
use crate::base::web::GATEWAY_ERROR;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::StatusCode;
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use tokio::sync::oneshot;

/// The name of the token that gives orders; there is one.
const TOKEN: &str = "admin";

/// A kind of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Purge,
    Erase,
    Replay,
    PauseCallbacks,
    ResumeCallbacks,
    TestCallbacks,
    DeleteDeadLetter,
}

impl Order {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Erase => "erase",
            Self::Replay => "replay",
            Self::PauseCallbacks => "pause_callbacks",
            Self::ResumeCallbacks => "resume_callbacks",
            Self::TestCallbacks => "test_callbacks",
            Self::DeleteDeadLetter => "delete_dead_letter",
        }
    }
}

/// The result of an order.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The changes, as numbers by name.
    pub(super) counts: Value,
    /// The names of the nodes or stores that could not be reached; the order has to be repeated.
    pub(super) left: Vec<String>,
    /// The answer.
    pub(super) answer: Result<Response, Refusal>,
}

impl Outcome {
    /// Returns the outcome of an order about callbacks; its counts are its answer.
    pub(super) fn counted(counts: Result<Value, Refusal>) -> Self {
        let answer = counts.map(|counts| (json(StatusCode::OK, &counts), counts));
        match answer {
            Ok((answer, counts)) => Self { counts, left: Vec::new(), answer: Ok(answer) },
            Err(refusal) => Self { counts: serde_json::json!({}), left: Vec::new(), answer: Err(refusal) },
        }
    }

    /// Returns the outcome of an order that removes data: 200, or 503 with the remaining parts.
    pub(super) fn removed(counts: Value, left: Vec<String>) -> Self {
        let answer = if left.is_empty() {
            json(StatusCode::OK, &serde_json::json!({ "removed": counts }))
        } else {
            let body = serde_json::json!({
                "error_code": "SERVICE_UNAVAILABLE",
                "message": "not everything could be reached; give the order again once it can",
                "removed": counts,
                "left": left,
            });
            ([(GATEWAY_ERROR, "incomplete")], json(StatusCode::SERVICE_UNAVAILABLE, &body)).into_response()
        };
        Self { counts, left, answer: Ok(answer) }
    }
}

/// Runs an order in a task of its own, and returns its answer. Dropping the returned future does not stop the order.
pub(super) async fn carry_out<F>(tasks: &Tasks, order: Order, work: F) -> Result<Response, Refusal>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let (told, answer) = oneshot::channel();
    tasks.spawn(async move {
        let name = order.as_str();
        tracing::info!(audit = name, token = TOKEN, phase = "intent", "an operator's order begins");
        // A panic is a result too.
        let Ok(outcome) = AssertUnwindSafe(work).catch_unwind().await else {
            tracing::error!(audit = name, token = TOKEN, phase = "result", done = false, "an operator's order failed");
            return;
        };
        let Outcome { counts, left, answer } = outcome;
        let done = left.is_empty() && answer.is_ok();
        tracing::info!(audit = name, token = TOKEN, phase = "result", removed = %counts, done, "an operator's order ended");
        // The client may have left.
        let _ = told.send(answer);
    });
    answer.await.unwrap_or(Err(Refusal::Internal))
}
