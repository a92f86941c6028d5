//! The ledger for operators: calls, cost and savings of each team.

use super::answer::{Refusal, json, typed};
use super::context::Context;
use crate::base::calendar::Day;
use crate::base::name::TenantName;
use crate::ledger::{Counts, OpenCall, Row, Statement};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;

/// The default and the largest number of calls on a page.
const PAGE: usize = 100;
const MOST: usize = 1000;

/// `GET /v1/usage`: the ledger `from` a day `to` a day, both included; the default is from the first of this month to
/// today.
pub(super) async fn usage(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (ledger, query) = (&context.ledger, query.unwrap_or_default());
    let today = ledger.today();
    let (mut from, mut to, mut tenant) = (today.month().first(), today, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let day = value.parse::<Day>();
        let no_day = |_| Refusal::invalid("from and to are days, such as 2026-11-25");
        match &*name {
            "from" => from = day.map_err(no_day)?,
            "to" => to = day.map_err(no_day)?,
            "tenant" => {
                let name = value.parse::<TenantName>().map_err(|_| Refusal::invalid("tenant is the name of a team"))?;
                tenant = Some(name);
            }
            _ => return Err(Refusal::invalid("known here: from, to and tenant")),
        }
    }
    let books = ledger.statement(from, to, tenant.as_ref()).await;
    let Statement { rows, is_complete, restored } = books.map_err(|_| unreadable())?;
    let told = |mut response: Response| {
        if !is_complete {
            response.headers_mut().insert("x-gateway-partial", HeaderValue::from_static(Statement::PARTIAL));
        }
        response
    };
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.to_ascii_lowercase().contains("text/csv")) {
        return Ok(told(typed(StatusCode::OK, "text/csv; charset=utf-8", csv(&rows).into())));
    }
    Ok(told(json(StatusCode::OK, &serde_json::json!({ "rows": rows, "restored": restored }))))
}

/// `GET /v1/usage/unknown`: this node's calls with an unknown outcome, the oldest first, with `tenant`, `limit` and
/// `after` (the `next` of the previous page).
pub(super) async fn unknown(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let (ledger, query) = (&context.ledger, query.unwrap_or_default());
    let (mut tenant, mut after, mut most) = (None, 0, PAGE);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let wrong =
            || Refusal::invalid("known here: tenant, limit (1 to 1000) and after (the next of the page before)");
        match &*name {
            "tenant" => tenant = Some(value.parse::<TenantName>().map_err(|_| wrong())?),
            "limit" => most = value.parse().ok().filter(|most| (1..=MOST).contains(most)).ok_or_else(wrong)?,
            "after" => after = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    let calls = ledger.open_calls(tenant.as_ref(), after, most).await.map_err(|_| unreadable())?;
    let next = calls.last().filter(|_| calls.len() == most).map(|last| last.id);
    let shown = |call: &OpenCall| {
        serde_json::json!({
            "number": call.id,
            "booked": humantime::format_rfc3339_millis(call.booked).to_string(),
            "day": call.day,
            "tenant": call.tenant,
            "route": call.route,
            "why": call.why.as_str(),
        })
    };
    let calls: Vec<_> = calls.iter().map(shown).collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "node": context.node, "calls": calls, "next": next })))
}

fn unreadable() -> Refusal {
    Refusal::Unavailable("the ledger can't be read now; try again".to_owned())
}

/// Formats lines as CSV (RFC 4180). Names need no quotes.
fn csv(rows: &[Row]) -> String {
    let mut text = format!("day,tenant,route,{}\r\n", Counts::NAMES.join(","));
    for Row { day, tenant, route, counts } in rows {
        let numbers = counts.numbers().map(|number| number.to_string());
        text.push_str(&format!("{day},{tenant},{route},{}\r\n", numbers.join(",")));
    }
    text
}
