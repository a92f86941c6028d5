//! Operators' orders: each order runs to its end in a task of its own, even if its client disconnects.
//!
//! Invariants: the audit log has an order's intent before anything is changed, and its result after it has ended; a
//! result has counts, and no data of the persons concerned.

use super::answer::Refusal;
use super::auth::Caller;
use super::context::Context;
use super::log_pages;
use super::outcome::Outcome;
use crate::config::Role;
use crate::state::{AuditLog, BEGUN, Entry, Ordered};
use axum::Extension;
use axum::extract::{Path, RawQuery, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::HeaderMap;
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A kind of order that an operator can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Purge,
    Erase,
    Replay,
    PauseCallbacks,
    ResumeCallbacks,
    TestCallbacks,
    DeleteDeadLetter,
    CreateKey,
    RotateKey,
    RevokeKey,
    Suspend,
    Resume,
    Settle,
}

impl Order {
    /// All orders.
    pub(super) const ALL: [Self; 13] = [
        Self::Purge,
        Self::Erase,
        Self::Replay,
        Self::PauseCallbacks,
        Self::ResumeCallbacks,
        Self::TestCallbacks,
        Self::DeleteDeadLetter,
        Self::CreateKey,
        Self::RotateKey,
        Self::RevokeKey,
        Self::Suspend,
        Self::Resume,
        Self::Settle,
    ];

    /// Returns the name in the audit log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Erase => "erase",
            Self::Replay => "replay",
            Self::PauseCallbacks => "pause_callbacks",
            Self::ResumeCallbacks => "resume_callbacks",
            Self::TestCallbacks => "test_callbacks",
            Self::DeleteDeadLetter => "delete_dead_letter",
            Self::CreateKey => "create_key",
            Self::RotateKey => "rotate_key",
            Self::RevokeKey => "revoke_key",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Settle => "settle",
        }
    }

    /// Returns the lowest role that may give the order.
    pub(super) const fn role(self) -> Role {
        match self {
            Self::Purge
            | Self::Replay
            | Self::PauseCallbacks
            | Self::ResumeCallbacks
            | Self::TestCallbacks
            | Self::Settle => Role::Operator,
            Self::Erase
            | Self::DeleteDeadLetter
            | Self::CreateKey
            | Self::RotateKey
            | Self::RevokeKey
            | Self::Suspend
            | Self::Resume => Role::Admin,
        }
    }
}

/// Carries out an order, `work`, in a task of its own, and returns the answer for the client. The order runs to its end
/// even if the returned future is dropped. `subject` names the team, key or other thing that the order concerns,
/// without personal data; it goes into the audit log. If the audit log can't be written, the order does not begin.
pub(super) async fn carry_out<F>(
    context: &Context,
    caller: &Caller,
    order: Order,
    subject: Option<String>,
    work: F,
) -> Result<Response, Refusal>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let (told, answer) = oneshot::channel();
    let (audit, caller) = (context.orders.audit.clone(), caller.clone());
    context.running.spawn(async move {
        let (name, token) = (order.as_str(), &*caller.token);
        caller.record();
        let Ok(entry) = audit.begin(ordered(&caller, order, subject, BEGUN)).await else {
            tracing::error!(
                audit = name,
                token,
                "the audit log can't be written: the order is refused; free space or repair the disk"
            );
            let why = "the audit log can't be written, so the order was not carried out; try again later".to_owned();
            let _ = told.send(Err(Refusal::Unavailable(why)));
            return;
        };
        tracing::info!(audit = name, token, phase = "intent", "an operator's order begins");
        // An order that panics gets a result in the audit log as well.
        let Ok(outcome) = AssertUnwindSafe(work).catch_unwind().await else {
            tracing::error!(audit = name, token, phase = "result", done = false, "an operator's order failed");
            note_end(&audit, entry, "failed", serde_json::json!({})).await;
            return;
        };
        let Outcome { counts, left, answer } = outcome;
        let done = left.is_empty() && answer.is_ok();
        tracing::info!(audit = name, token, phase = "result", removed = %counts, done, "an operator's order ended");
        let word = match &answer {
            Ok(_) if left.is_empty() => "done",
            Ok(_) => "incomplete",
            Err(Refusal::Unavailable(_) | Refusal::Internal | Refusal::Late) => "failed",
            Err(_) => REFUSED,
        };
        note_end(&audit, entry, word, counts).await;
        // The client may be gone.
        let _ = told.send(answer);
    });
    answer.await.unwrap_or(Err(Refusal::Internal))
}

/// Passes on the request for an order if its caller's role may give the order, otherwise refuses it. An order that is
/// refused before it begins gets an entry in the audit log.
pub(super) async fn gate(
    State((context, order)): State<(Arc<Context>, Order)>,
    Extension(caller): Extension<Caller>,
    Path(path): Path<BTreeMap<String, String>>,
    request: Request,
    next: Next,
) -> Response {
    // A path may contain any text. Only the name of a known team goes into the audit log, because other text may be
    // personal data.
    let subject = path.get("tenant").filter(|tenant| context.tenant(tenant).is_ok()).cloned();
    let response =
        if caller.role < order.role() { Refusal::Role(order.role()).into_response() } else { next.run(request).await };
    if response.status().is_client_error() && !caller.is_recorded() {
        let refused = ordered(&caller, order, subject, REFUSED);
        if context.orders.audit.begin(refused).await.is_err() {
            tracing::error!(
                audit = order.as_str(),
                "the audit log can't be written, so a refused order is missing in it; free space or repair the disk"
            );
        }
    }
    response
}

const REFUSED: &str = "refused";

fn ordered(caller: &Caller, order: Order, subject: Option<String>, outcome: &'static str) -> Ordered {
    Ordered {
        token: caller.token.to_string(),
        role: caller.role.as_str(),
        peer: caller.peer.map(|peer| peer.to_string()),
        order: order.as_str(),
        subject,
        outcome,
    }
}

async fn note_end(audit: &AuditLog, entry: Entry, outcome: &'static str, counts: Value) {
    if audit.end(entry, outcome, counts).await.is_err() {
        tracing::error!(
            outcome,
            "the audit log can't be written: the entry of an order has no outcome; free space or repair the disk"
        );
    }
}

/// `GET /v1/audit`: lists the orders of all nodes, the oldest first, or the newest first if `newest_first` is true.
/// Further parameters are `after` (the value of `next` in the previous page), `limit`, `from` and `to`. A client that
/// accepts `application/x-ndjson` gets JSON lines.
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    #[derive(serde::Serialize)]
    struct Page {
        entries: Vec<Value>,
        next: Option<String>,
    }
    let found = context.orders.audit.list(&log_pages::asked(query.as_deref())?).await;
    let found = found.map_err(|error| Refusal::Unavailable(error.to_string()))?;
    Ok(log_pages::answer(&headers, found, |entry| entry, |entries, next| Page { entries, next }))
}
