//! What a team may use and has used, for the team itself: `GET /_gateway/usage`.

use super::Gateway;
use super::forward::whole;
use super::runtime::RuntimeConfig;
use crate::config::{self, Settings};
use crate::ledger::{Counts, Statement};
use crate::limit::Standing;
use crate::reply::{Rejection, ReplyBody};
use crate::tenant::Tenant;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a team may use; what is left out has no limit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Allowance {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<usize>,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_calls_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_calls_per_month: Option<u64>,
    quota_mode: &'static str,
    /// Of the account, which all of its teams share by weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_requests_per_second: Option<u32>,
}

#[derive(Serialize)]
struct Usage<'a> {
    tenant: &'a str,
    account: &'a str,
    limits: &'a Allowance,
    quotas: Vec<Quota>,
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

#[derive(Serialize)]
struct Span {
    from: String,
    to: String,
    #[serde(flatten)]
    total: Counts,
    routes: BTreeMap<String, Counts>,
}

impl Allowance {
    pub(super) fn new(tenant: &config::Tenant, settings: &Settings) -> Self {
        Self {
            requests_per_second: tenant.requests_per_second,
            burst: tenant.burst,
            max_in_flight: tenant.max_in_flight,
            weight: tenant.weight,
            upstream_calls_per_day: tenant.upstream_calls_per_day,
            upstream_calls_per_month: tenant.upstream_calls_per_month,
            quota_mode: tenant.quota_mode.as_str(),
            account_requests_per_second: settings.accounts.get(&tenant.account).and_then(|a| a.requests_per_second),
        }
    }
}

impl Gateway {
    /// The team's own limits and books, today's and this month's.
    pub(super) async fn usage(&self, live: &RuntimeConfig, tenant: &Tenant) -> Result<Response<ReplyBody>, Rejection> {
        let today = self.ledger.today();
        let from = today.month().first();
        let books = self.ledger.statement(from, today, Some(&tenant.name)).await;
        let Statement { rows, is_complete } = books.map_err(|_| Rejection::BooksClosed)?;
        let (day, month) = (today.to_string(), from.to_string());
        let (mut of_day, mut of_month) = (Span::new(&day, &day), Span::new(&month, &day));
        for row in rows {
            of_month.add(&row.route, row.counts);
            if row.day == day {
                of_day.add(&row.route, row.counts);
            }
        }
        let standings = live.limits.standing(tenant.index).into_iter().flatten();
        let usage = Usage {
            tenant: tenant.name.as_str(),
            account: tenant.account.as_str(),
            limits: &live.allowances[tenant.index],
            quotas: standings.filter_map(Quota::new).collect(),
            today: of_day,
            this_month: of_month,
        };
        let body = serde_json::to_vec(&usage).map_err(|_| Rejection::Internal)?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if !is_complete {
            headers.insert("x-gateway-partial", HeaderValue::from_static(Statement::PARTIAL));
        }
        Ok(whole(StatusCode::OK, headers, ReplyBody::full(body.into())))
    }
}

impl Quota {
    fn new(standing: Standing) -> Option<Self> {
        let Standing { limit, used, quota, resets_in } = standing;
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
