//! The ledger for operators: calls, cost and savings of each team.

use super::answer::{Refusal, json, typed};
use super::context::Context;
use crate::base::calendar::Day;
use crate::base::name::TenantName;
use crate::ledger::{Row, Statement, csv};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;

/// The ledger as JSON. It is written as it is: a large company has a hundred thousand lines, of which a tree of values would be
/// several times as large.
#[derive(Debug, serde::Serialize)]
struct Usage {
    rows: Vec<Row>,
    restored: Vec<String>,
    /// The first day and the last one, and the time zone in which they begin.
    from: String,
    to: String,
    time_zone: String,
}

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
            _ => return Err(Refusal::invalid("the query takes only from, to and tenant")),
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
    let (from, to, time_zone) = (from.to_string(), to.to_string(), ledger.time_zone());
    Ok(told(json(StatusCode::OK, &Usage { rows, restored, from, to, time_zone })))
}

pub(super) fn unreadable() -> Refusal {
    Refusal::Unavailable("the ledger can't be read now; try again".to_owned())
}
