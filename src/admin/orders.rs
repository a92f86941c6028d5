//! Operators' orders: stored answers end before their time, persons are forgotten.
//!
//! Invariant: an order is noted, with who gave it and what it came to, and without a word about whom it concerned.

use super::{error, invalid, json};
use crate::base::name::TenantName;
use crate::cache::{Cache, Change, Removed};
use crate::iluma::person::Persons;
use crate::iluma::route_name::RouteName;
use crate::state::{Erased, State};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use std::sync::Arc;

/// What orders are carried out on.
#[derive(Debug)]
pub struct Orders {
    /// Stored answers.
    pub cache: Arc<Cache>,
    /// Owners, callbacks and deliveries.
    pub state: State,
    /// Tells whom an order names.
    pub persons: Persons,
}

/// An order to purge names one thing.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    route: Option<String>,
    tenant: Option<String>,
    all: Option<bool>,
}

impl Orders {
    /// Ends stored answers by route, by team (those that serve it alone), or all.
    pub(super) async fn purge(
        &self,
        order: &[u8],
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let unclear = || {
            invalid(
                "name one thing to purge: {\"route\":\"bank\"}, \"cft\" or \"bank_codes\", {\"tenant\":\"NAME\"} or \
                 {\"all\":true}",
            )
        };
        let changes = match serde_json::from_slice(order).map_err(|_| unclear())? {
            Purge { route: Some(route), tenant: None, all: None } => match route.parse() {
                Ok(name) => of_route(name).ok_or_else(unclear)?,
                Err(_) => return Err(unclear()),
            },
            Purge { route: None, tenant: Some(tenant), all: None } => {
                let tenant: TenantName = tenant.parse().map_err(|_| unclear())?;
                if !is_known(tenant.as_str()) {
                    return Err(error(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "there is no such tenant"));
                }
                vec![Change::Tenant(tenant)]
            }
            Purge { route: None, tenant: None, all: Some(true) } => vec![Change::All],
            Purge { .. } => return Err(unclear()),
        };
        let mut removed = Removed::default();
        for change in &changes {
            removed = removed.and(self.cache.change(change).await);
        }
        let Removed { memory, redis, left } = removed;
        Ok(carried_out("purge", serde_json::json!({ "memory": memory, "redis": redis }), &left))
    }

    /// Removes what is known about a person.
    pub(super) async fn erase(&self, order: &[u8]) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let tags = self.persons.named(order).map_err(|error| invalid(&error.to_string()))?;
        let all: Vec<_> = tags.iter().copied().collect();
        let Removed { memory, redis, mut left } = self.cache.change(&Change::Erased(tags)).await;
        let erased = self.state.erase(&all).await.unwrap_or_else(|_| {
            left.push("state".to_owned());
            Erased::default()
        });
        let Erased { owners, callbacks, deliveries } = erased;
        let removed = serde_json::json!({
            "memory": memory, "redis": redis, "owners": owners, "callbacks": callbacks, "deliveries": deliveries,
        });
        Ok(carried_out("erase", removed, &left))
    }
}

/// What an order came to: 200, or 503 with what is left to do.
fn carried_out(order: &'static str, removed: serde_json::Value, left: &[String]) -> Response<Full<Bytes>> {
    tracing::info!(audit = order, token = "admin", %removed, done = left.is_empty(), "an operator's order");
    if left.is_empty() {
        return json(StatusCode::OK, &serde_json::json!({ "removed": removed }));
    }
    let body = serde_json::json!({
        "error_code": "SERVICE_UNAVAILABLE",
        "message": "not everything could be reached; give the order again once it can",
        "removed": removed,
        "left": left,
    });
    json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Returns the changes that purge a row, and the rows that it includes, which are about the same; none if nothing of the row
/// is stored.
fn of_route(name: RouteName) -> Option<Vec<Change>> {
    let own = name.spec().kind.subject()?;
    let included = name.spec().includes.iter().filter_map(|name| name.spec().kind.subject());
    Some(std::iter::once(own).chain(included).map(Change::Subject).collect())
}
