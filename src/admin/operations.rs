//! All operations of the `admin` listener, in the order in which the documents list them.

use super::answer::{Refusal, text};
use super::audit::{self, Order};
use super::callbacks;
use super::erasures;
use super::health::{metrics, readiness};
use super::keys;
use super::live;
use super::nodes;
use super::openapi;
use super::operation::Operation;
use super::order_routes::{delete_dead_letter, erase, pause, purge, replay, resume, test};
use super::tenant_list;
use super::unknown_calls;
use super::usage;
use crate::state::KeyOrderError;
use axum::routing::get;
use http::StatusCode;
use tower_http::compression::CompressionLayer;

const PAGE: &[&str] = &["After", "Limit", "From", "To", "NewestFirst"];
const NDJSON: &str = "application/x-ndjson";

/// Returns all operations: those that need no token, then the API.
#[must_use]
pub fn operations() -> Vec<Operation> {
    [open(), about_teams(), about_nodes(), about_books(), about_callbacks(), about_data()]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the operations for probes and Prometheus, which need no token.
pub(super) fn open() -> Vec<Operation> {
    const TEXT: &str = "text/plain";
    let metrics = get(metrics).layer(CompressionLayer::new().gzip(true));
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    vec![
        Operation::open("/healthz", get(async || text(StatusCode::OK, "ok\n")), "200 while the process serves", TEXT),
        Operation::open("/readyz", get(readiness), "200, or 503 with the reason", TEXT)
            .or_text(unavailable, "draining", "the node drains")
            .or_text(unavailable, "state_unavailable", "the node's database can't be written"),
        Operation::open("/metrics", metrics, "metrics for Prometheus, with gzip by accept-encoding", TEXT)
            .or_as("application/openmetrics-text"),
    ]
}

fn about_teams() -> Vec<Operation> {
    const KEYS: &str = "/v1/tenants/{tenant}/keys";
    vec![
        Operation::get("/v1/openapi.json", openapi::show, "this API as an OpenAPI document", "Document"),
        Operation::get(
            "/v1/tenants",
            tenant_list::list,
            "teams with their limits and routes, without secrets",
            "Tenants",
        ),
        Operation::get(KEYS, keys::list, "a team's keys, with their last uses", "Keys"),
        Operation::post(Order::CreateKey, KEYS, keys::create, "creates a key, which is shown this once", "NewKey")
            .optional_body("WantedKey")
            .refusing([Refusal::Key(KeyOrderError::TooMany)])
            .leaving(),
        Operation::post(
            Order::RotateKey,
            "/v1/tenants/{tenant}/keys/{id}/rotate",
            keys::rotate,
            "creates a successor; the key ends after a grace",
            "NewKey",
        )
        .optional_body("Grace")
        .refusing(
            [KeyOrderError::Unknown, KeyOrderError::FromFile, KeyOrderError::Ended, KeyOrderError::TooMany]
                .map(Refusal::Key),
        )
        .leaving(),
        Operation::delete(Order::RevokeKey, "/v1/tenants/{tenant}/keys/{id}", keys::revoke, "revokes a key", "Key")
            .refusing([KeyOrderError::Unknown, KeyOrderError::FromFile, KeyOrderError::Ended].map(Refusal::Key))
            .leaving(),
        Operation::post(
            Order::Suspend,
            "/v1/tenants/{tenant}/suspend",
            keys::suspend,
            "refuses a team's requests",
            "Suspension",
        )
        .leaving(),
        Operation::post(
            Order::Resume,
            "/v1/tenants/{tenant}/resume",
            keys::resume,
            "serves a team's requests again",
            "Suspension",
        )
        .leaving(),
        Operation::get("/v1/audit", audit::list, "every order, on every node", "Audit")
            .query(PAGE)
            .or_as(NDJSON)
            .reading(),
    ]
}

fn about_nodes() -> Vec<Operation> {
    vec![
        Operation::get(
            "/v1/nodes",
            nodes::list,
            "the nodes: version, configuration, Redis, certificates, last reload, back-off",
            "Nodes",
        )
        .reading(),
        Operation::get("/v1/alarms", nodes::alarms, "what needs an operator now", "Alarms").reading(),
        Operation::get_as(
            "/v1/live",
            live::follow,
            "the access log as it is written, as server-sent events",
            "text/event-stream",
        )
        .query(&["Tenant", "Route", "Status"])
        .refusing([Refusal::UnknownTenant])
        .reading(),
    ]
}

fn about_books() -> Vec<Operation> {
    vec![
        Operation::get("/v1/usage", usage::usage, "the ledger by day, team and route, or its sums", "Usage")
            .query(&["FromDay", "ToDay", "Tenant", "By", "MostLines", "AfterLine"])
            .refusing([Refusal::UnknownTenant])
            .or_as("text/csv")
            .reading(),
        Operation::get(
            "/v1/usage/unknown",
            unknown_calls::list,
            "all nodes' calls whose outcome is not known",
            "UnknownCalls",
        )
        .query(&["Tenant", "AfterCall", "Limit"])
        .refusing([Refusal::UnknownTenant])
        .reading(),
        Operation::post(
            Order::Settle,
            "/v1/usage/unknown/settle",
            unknown_calls::settle,
            "settles such calls by hand",
            "Settled",
        )
        .body("Settlements")
        .refusing([Refusal::UnknownNode])
        .leaving(),
    ]
}

fn about_callbacks() -> Vec<Operation> {
    vec![
        Operation::get("/v1/callbacks", callbacks::list, "lists of callbacks by state", "Callbacks")
            .query(&["State", "Tenant", "Type", "Since", "Until", "Limit", "AfterCallback"])
            .refusing([Refusal::UnknownTenant])
            .reading(),
        Operation::get("/v1/callbacks/{id}", callbacks::show, "one callback with each attempt", "CallbackDetails")
            .refusing([Refusal::UnknownCallback])
            .reading(),
        Operation::post(Order::Replay, "/v1/callbacks/replay", replay, "delivers again", "Replayed")
            .body("Replay")
            .refusing([Refusal::UnknownTenant, Refusal::UnknownCallback]),
        Operation::post(Order::PauseCallbacks, "/v1/callbacks/pause", pause, "stops attempts at an endpoint", "Paused")
            .body("Endpoints")
            .refusing([Refusal::UnknownTenant]),
        Operation::post(Order::ResumeCallbacks, "/v1/callbacks/resume", resume, "ends a pause", "Resumed")
            .body("Endpoints")
            .refusing([Refusal::UnknownTenant]),
        Operation::post(Order::TestCallbacks, "/v1/callbacks/test", test, "sends a signed test delivery", "Tested")
            .body("Endpoints")
            .refusing([Refusal::UnknownTenant, Refusal::NoCallbackUrl]),
        Operation::delete(
            Order::DeleteDeadLetter,
            "/v1/callbacks/{id}",
            delete_dead_letter,
            "deletes a dead letter",
            "Deleted",
        )
        .refusing([Refusal::UnknownCallback, Refusal::NotDead]),
    ]
}

fn about_data() -> Vec<Operation> {
    vec![
        Operation::post(Order::Purge, "/v1/cache/purge", purge, "ends stored answers, or counts them", "Purged")
            .body("Purge")
            .refusing([Refusal::UnknownTenant])
            .leaving(),
        Operation::post(Order::Erase, "/v1/erase", erase, "erases a person, and answers with a receipt", "Receipt")
            .body("Person")
            .leaving(),
        Operation::get("/v1/erasures", erasures::list, "the receipts of erasures, on every node", "Receipts")
            .query(PAGE)
            .or_as(NDJSON)
            .reading(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::operation::Access;
    use super::*;

    #[test]
    fn every_order_has_one_operation() {
        let orders = operations().into_iter().filter_map(|operation| match operation.access {
            Access::Order(order) => Some(order.as_str()),
            Access::Open | Access::Viewer => None,
        });
        let (mut declared, mut all) = (orders.collect::<Vec<_>>(), Order::ALL.map(Order::as_str).to_vec());
        declared.sort_unstable();
        all.sort_unstable();
        assert_eq!(declared, all);
    }
}
