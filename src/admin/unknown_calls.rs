//! Lists calls with an unknown outcome on all nodes, and settles them by hand.

use super::answer::{Refusal, json};
use super::audit::{Order, carry_out};
use super::auth::Caller;
use super::context::Context;
use super::outcome::Outcome;
use crate::base::name::TenantName;
use crate::base::web::{GATEWAY_ERROR, whole_body};
use crate::ledger::{self, CallNumber, HandError, Ledger, OpenCall, SettledByHand, Statement};
use crate::telemetry::redact::Redactor;
use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The number of calls in a page if the query has no `limit`.
const PAGE: usize = 100;
/// The largest `limit`, and the largest number of calls in an order.
const MOST: usize = 1000;
/// The longest note in characters: a sentence or two, as for a key.
const LONGEST_NOTE: usize = 200;
/// The longest name of a node in bytes: a host name has at most 253.
const LONGEST_NODE: usize = 255;

/// The last call of the previous page. `Own` is the number of a call of this node, and `Other` names a call of another
/// node.
#[derive(Debug, PartialEq, Eq)]
enum After {
    Own(i64),
    Other(CallNumber),
}

impl std::str::FromStr for After {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.rsplit_once(':') {
            Some((node, number)) => {
                Ok(Self::Other(CallNumber { node: node.to_owned(), number: number.parse().map_err(|_| ())? }))
            }
            None => text.parse().map(Self::Own).map_err(|_| ()),
        }
    }
}

/// `GET /v1/usage/unknown`: lists the calls whose outcome is unknown. This node's calls come first, then the calls of
/// the other nodes by name; each node's oldest call comes first. The parameters are `tenant`, `limit` and `after` (the
/// value of `next` in the previous page).
pub(super) async fn list(State(context): State<Arc<Context>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let (ledger, query) = (&context.ledger, query.unwrap_or_default());
    let (mut tenant, mut after, mut most) = (None, After::Own(0), PAGE);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let wrong =
            || Refusal::invalid("known here: tenant, limit (1 to 1000) and after (the next of the page before)");
        match &*name {
            "tenant" => tenant = Some(value.parse::<TenantName>().map_err(|_| wrong())?),
            "limit" => most = value.parse().ok().filter(|most| (1..=MOST).contains(most)).ok_or_else(wrong)?,
            "after" => after = value.parse().map_err(|()| wrong())?,
            _ => return Err(wrong()),
        }
    }
    if let Some(tenant) = &tenant {
        context.ever_known(tenant).await?;
    }
    let own = match &after {
        After::Own(after) => ledger.open_calls(tenant.as_ref(), *after, most).await.map_err(|_| Refusal::books())?,
        After::Other(_) => Vec::new(),
    };
    let mut calls: Vec<_> = own.into_iter().map(|call| (context.node.clone(), call)).collect();
    let others = ledger.open_elsewhere().await;
    let is_complete = others.is_some();
    let is_behind = |(node, call): &(String, OpenCall)| match &after {
        After::Own(_) => true,
        After::Other(after) => (node.as_str(), call.id) > (after.node.as_str(), after.number),
    };
    let is_asked_for = |(_, call): &(String, OpenCall)| tenant.as_ref().is_none_or(|name| call.tenant == name.as_str());
    let others = others.unwrap_or_default().into_iter().filter(is_behind).filter(is_asked_for);
    calls.extend(others.take(most - calls.len()));
    let next = calls.last().filter(|_| calls.len() == most).map(|(node, call)| match *node == context.node {
        true => json!(call.id),
        false => json!(format!("{node}:{}", call.id)),
    });
    let calls: Vec<_> = calls.iter().map(shown).collect();
    let mut answer = json(StatusCode::OK, &json!({ "node": context.node, "calls": calls, "next": next }));
    if !is_complete {
        answer.headers_mut().insert("x-gateway-partial", HeaderValue::from_static(Statement::PARTIAL));
    }
    Ok(answer)
}

fn shown((node, call): &(String, OpenCall)) -> Value {
    json!({
        "node": node,
        "number": call.id,
        "booked": humantime::format_rfc3339_millis(call.booked).to_string(),
        "day": call.day,
        "tenant": call.tenant,
        "route": call.route,
        "why": call.why.as_str(),
    })
}

/// An order to settle calls.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settlements {
    calls: Vec<Settlement>,
}

/// The outcome that an order gives to one call.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settlement {
    node: String,
    number: i64,
    outcome: Decided,
    #[serde(default)]
    note: String,
}

impl Settlement {
    fn name(&self) -> CallNumber {
        CallNumber { node: self.node.clone(), number: self.number }
    }
}

/// An outcome that an operator may give.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decided {
    Billable,
    NotBillable,
}

impl From<Decided> for ledger::Outcome {
    fn from(decided: Decided) -> Self {
        match decided {
            Decided::Billable => Self::Billable,
            Decided::NotBillable => Self::NotBillable,
        }
    }
}

/// `POST /v1/usage/unknown/settle`: settles calls by hand, including calls that other nodes booked.
pub(super) async fn settle(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let calls = wanted(&whole_body(request).await?)?;
    let (ledger, subject) = (context.ledger.clone(), calls.iter().map(named).collect::<Vec<_>>().join(", "));
    let outcomes = calls.into_iter().map(|call| (call.name(), call.outcome.into())).collect();
    carry_out(&context, &caller, Order::Settle, Some(subject), async move { settled(&ledger, outcomes).await }).await
}

/// Parses an order to settle calls. An order that names a call twice is refused.
fn wanted(body: &[u8]) -> Result<Vec<Settlement>, Refusal> {
    let unclear = || {
        Refusal::invalid(
            "the body must be {\"calls\":[{\"node\",\"number\",\"outcome\":\"billable\" or \"not_billable\",\"note\"}]}, with 1 to \
             1000 different calls in at most 64 KiB, and notes of one line of at most 200 characters",
        )
    };
    let Settlements { calls } = serde_json::from_slice(body).map_err(|_| unclear())?;
    let names: BTreeSet<_> = calls.iter().map(Settlement::name).collect();
    let fits = |note: &str| note.chars().count() <= LONGEST_NOTE && !note.chars().any(char::is_control);
    let is_clear = (1..=MOST).contains(&calls.len())
        && names.len() == calls.len()
        && calls.iter().all(|call| fits(&call.note) && is_node(&call.node) && call.number > 0);
    if is_clear { Ok(calls) } else { Err(unclear()) }
}

/// Returns true if the text has the form of a node's name, and so may be written to the audit log.
fn is_node(text: &str) -> bool {
    (1..=LONGEST_NODE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Returns the text of a settlement for the audit log: the call, its outcome and its note, without personal data.
fn named(call: &Settlement) -> String {
    let Settlement { node, number, outcome, note } = call;
    let node = clean(node);
    let outcome = match outcome {
        Decided::Billable => "billable",
        Decided::NotBillable => "not billable",
    };
    if note.is_empty() {
        format!("{node}/{number} {outcome}")
    } else {
        format!("{node}/{number} {outcome}: {}", clean(note))
    }
}

/// Removes from a text the parts that look like personal data or like a secret.
fn clean(text: &str) -> String {
    let mut line = serde_json::to_vec(text).unwrap_or_default();
    Redactor::new(Vec::new()).scrub(&mut line);
    serde_json::from_slice(&line).unwrap_or_default()
}

async fn settled(ledger: &Ledger, outcomes: BTreeMap<CallNumber, ledger::Outcome>) -> Outcome {
    let done = match ledger.settle_by_hand(outcomes).await {
        Ok(done) => done,
        Err(error) => {
            let refusal = match error {
                HandError::UnknownNode(_) => Refusal::UnknownNode,
                HandError::Database(_) => Refusal::Unavailable(error.to_string()),
            };
            return Outcome { counts: json!({}), left: Vec::new(), answer: Err(refusal) };
        }
    };
    let SettledByHand { settled, not_open, left } = done;
    let left: Vec<_> = left.into_iter().collect();
    let counts = json!({ "settled": settled.len(), "not_open": not_open.len() });
    let shown = |calls: BTreeSet<CallNumber>| -> Vec<Value> {
        calls.iter().map(|call| json!({ "node": call.node, "number": call.number })).collect()
    };
    let shown = json!({ "settled": shown(settled), "not_open": shown(not_open), "left": left });
    let answer = if left.is_empty() {
        json(StatusCode::OK, &shown)
    } else {
        let mut shown = shown;
        shown["error_code"] = "SERVICE_UNAVAILABLE".into();
        shown["message"] = "the nodes in left did not take their part yet; give the order again once they run".into();
        ([(GATEWAY_ERROR, "incomplete")], json(StatusCode::SERVICE_UNAVAILABLE, &shown)).into_response()
    };
    Outcome { counts, left, answer: Ok(answer) }
}
