//! The team's own API: its limits and their use (`GET /_gateway/usage`), and its key.

use super::allowance::Allowance;
use super::exchange::Exchange;
use super::own_callbacks;
use super::own_keys;
use super::replies::of_parts;
use crate::config::Limit;
use crate::iluma::routes::{OWN_CALLBACKS, ROTATE_KEY};
use crate::ledger::{Counts, Statement};
use crate::limit::QuotaState;
use crate::reply::{Rejection, ReplyBody};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
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
}

#[derive(Serialize)]
struct Quota {
    name: &'static str,
    used: u64,
    limit: u64,
    remaining: u64,
    resets_in_seconds: u64,
}

/// Rupiah of this month.
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

/// Answers a request of the team's own API.
pub(super) async fn serve(
    exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let path = exchange.route.target.path();
    if path.starts_with(OWN_CALLBACKS) {
        return own_callbacks::serve(exchange, request).await;
    }
    if path == ROTATE_KEY {
        return own_keys::rotate(exchange, request).await;
    }
    usage(exchange).await
}

/// Answers with the team's own limits and usage, of today and of this month.
async fn usage(exchange: Exchange<'_>) -> Result<Response<ReplyBody>, Rejection> {
    let Exchange { gateway, config, tenant, .. } = exchange;
    let today = gateway.ledger.today();
    let from = today.month().first();
    let books = gateway.ledger.statement(from, today, Some(&tenant.name)).await;
    let Statement { rows, is_complete, .. } = books.map_err(|_| Rejection::BooksClosed)?;
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
    };
    let body = serde_json::to_vec(&usage).map_err(|_| Rejection::Internal)?;
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    if !is_complete {
        headers.insert("x-gateway-partial", HeaderValue::from_static(Statement::PARTIAL));
    }
    Ok(of_parts(StatusCode::OK, headers, ReplyBody::full(body.into())))
}

impl Quota {
    fn new(state: QuotaState) -> Option<Self> {
        let QuotaState { limit, used, quota, resets_in } = state;
        let quota = quota?;
        let (name, remaining) = (limit.as_str(), quota.saturating_sub(used));
        Some(Self { name, used, limit: quota, remaining, resets_in_seconds: resets_in.as_secs() })
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
