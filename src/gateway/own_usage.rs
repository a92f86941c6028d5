//! `GET /_gateway/usage`: a team's own limits, their use, and its part of the ledger.

use super::allowance::Allowance;
use super::exchange::Exchange;
use super::replies::of_parts;
use crate::base::calendar::Day;
use crate::base::retry_after::whole_seconds;
use crate::config::Limit;
use crate::ledger::{Columns, Counts, Row, Selection, Statement, csv};
use crate::limit::QuotaState;
use crate::reply::{Rejection, ReplyBody};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Usage<'a> {
    tenant: &'a str,
    account: &'a str,
    limits: &'a Allowance,
    quotas: Vec<Quota>,
    #[serde(flatten)]
    budget: Budget,
    today: Span,
    this_month: Span,
    /// The requested days, if the request names any.
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Period>,
}

#[derive(Serialize)]
struct Quota {
    name: &'static str,
    used: u64,
    limit: u64,
    remaining: u64,
    resets_in_seconds: u64,
}

/// The team's budget for this month and its use, in rupiah.
#[derive(Serialize)]
struct Budget {
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_per_month: Option<u64>,
    budget_used: u64,
}

#[derive(Serialize)]
struct Span {
    from: String,
    to: String,
    #[serde(flatten)]
    total: Counts,
    routes: BTreeMap<String, Counts>,
}

/// A span of days, with the counts of each day that has calls.
#[derive(Serialize)]
struct Period {
    #[serde(flatten)]
    span: Span,
    days: BTreeMap<String, Counts>,
}

/// The days that a request asks for. The default is this month, up to today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    from: Day,
    to: Day,
    /// False if the request names no day.
    is_named: bool,
}

/// Answers with the team's own limits, and with its usage of today, of this month, and of the days that the query
/// names. If `accept` names CSV, answers instead with the ledger's rows of the days in the query, by default of this
/// month.
pub(super) async fn serve(exchange: Exchange<'_>, accepted: &HeaderMap) -> Result<Response<ReplyBody>, Rejection> {
    let Exchange { gateway, config, tenant, route, .. } = exchange;
    let today = gateway.ledger.today();
    let asked = asked(route.target.query().unwrap_or_default(), today).ok_or(Rejection::UsageQuery)?;
    let statement = async |from, to| {
        let selection = Selection { tenant: Some(tenant.name.clone()), ..Selection::days(from, to) };
        let books = gateway.ledger.statement(selection).await;
        books.map_err(|_| Rejection::BooksClosed)
    };
    let mut values = accepted.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if values.any(|value| value.to_ascii_lowercase().contains("text/csv")) {
        let Statement { rows, is_complete, .. } = statement(asked.from, asked.to).await?;
        return Ok(answered("text/csv; charset=utf-8", csv(Columns::ALL, &rows).into_bytes(), is_complete));
    }
    let from = today.month().first();
    let Statement { rows, mut is_complete, .. } = statement(from, today).await?;
    let period = if asked.is_named {
        let named = statement(asked.from, asked.to).await?;
        is_complete &= named.is_complete;
        Some(Period::new(asked, &named.rows))
    } else {
        None
    };
    let (day, month) = (today.to_string(), from.to_string());
    let (mut of_day, mut of_month) = (Span::new(&day, &day), Span::new(&month, &day));
    for row in rows {
        of_month.add(&row.route, row.counts);
        if row.day == day {
            of_day.add(&row.route, row.counts);
        }
    }
    config.refund(&gateway.ledger);
    let quotas = config.limits.quotas(tenant.index).into_iter().flatten();
    let budget = quotas.clone().find(|state| state.limit == Limit::BudgetMonth);
    let usage = Usage {
        tenant: tenant.name.as_str(),
        account: tenant.account.as_str(),
        limits: &config.allowances[tenant.index],
        quotas: quotas.filter_map(Quota::new).collect(),
        budget: Budget {
            budget_per_month: budget.and_then(|state| state.quota),
            budget_used: budget.map_or(0, |state| state.used),
        },
        today: of_day,
        this_month: of_month,
        period,
    };
    let body = serde_json::to_vec(&usage).map_err(|_| Rejection::Internal)?;
    Ok(answered("application/json", body, is_complete))
}

fn answered(content_type: &'static str, body: Vec<u8>, is_complete: bool) -> Response<ReplyBody> {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    if !is_complete {
        headers.insert("x-gateway-partial", HeaderValue::from_static(Statement::PARTIAL));
    }
    of_parts(StatusCode::OK, headers, ReplyBody::full(body.into()))
}

/// Reads the days `from` and `to` of a query, both included. Without `to`, the last day is today. Without `from`, the
/// first day is the 1st of the last day's month. Returns `None` if the query is malformed.
fn asked(query: &str, today: Day) -> Option<Asked> {
    let (mut from, mut to) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let day = Some(value.parse::<Day>().ok()?);
        match &*name {
            "from" => from = day,
            "to" => to = day,
            _ => return None,
        }
    }
    let is_named = from.is_some() || to.is_some();
    let to = to.unwrap_or(today);
    Some(Asked { from: from.unwrap_or(to.month().first()), to, is_named })
}

impl Quota {
    fn new(state: QuotaState) -> Option<Self> {
        let QuotaState { limit, used, quota, resets_in } = state;
        let quota = quota?;
        let (name, remaining) = (limit.as_str(), quota.saturating_sub(used));
        Some(Self { name, used, limit: quota, remaining, resets_in_seconds: whole_seconds(resets_in) })
    }
}

impl Span {
    fn new(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), total: Counts::default(), routes: BTreeMap::new() }
    }

    fn add(&mut self, route: &str, counts: Counts) {
        self.total += counts;
        *self.routes.entry(route.to_owned()).or_default() += counts;
    }
}

impl Period {
    fn new(asked: Asked, rows: &[Row]) -> Self {
        let span = Span::new(&asked.from.to_string(), &asked.to.to_string());
        let mut period = Self { span, days: BTreeMap::new() };
        for row in rows {
            period.span.add(&row.route, row.counts);
            *period.days.entry(row.day.clone()).or_default() += row.counts;
        }
        period
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_client_that_waits_for_the_shown_seconds_does_not_come_too_early() {
        for (millis, seconds) in [(1900, 2), (1000, 1), (1, 1)] {
            let resets_in = Duration::from_millis(millis);
            let state = QuotaState { limit: Limit::QuotaDay, used: 9, quota: Some(9), resets_in };
            assert_eq!(Quota::new(state).unwrap().resets_in_seconds, seconds, "{millis} ms");
        }
    }

    #[test]
    fn the_days_are_those_of_this_month_unless_the_query_names_others() {
        let day = |text: &str| text.parse::<Day>().unwrap();
        for (query, expected) in [
            ("", Some(("2026-11-01", "2026-11-25", false))),
            ("from=2026-09-03&to=2026-10-31", Some(("2026-09-03", "2026-10-31", true))),
            ("to=2026-10-31", Some(("2026-10-01", "2026-10-31", true))),
            ("from=2026-09-03", Some(("2026-09-03", "2026-11-25", true))),
            ("from=yesterday", None),
            ("month=2026-10", None),
        ] {
            let expected = expected.map(|(from, to, is_named)| Asked { from: day(from), to: day(to), is_named });
            assert_eq!(asked(query, day("2026-11-25")), expected, "{query}");
        }
    }
}
