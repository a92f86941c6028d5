//! The nodes and their alarms, as operators see them on any node.

use super::alarms::{Alarm, joined};
use super::answer::{Refusal, json};
use super::context::Context;
use super::node_report::NodeReport;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::sync::Arc;

/// A node, in the form that operators see.
#[derive(Debug, Serialize)]
struct ShownNode {
    name: String,
    /// The state: `live`, or `silent` if the node stopped its heartbeats without leaving.
    state: &'static str,
    /// The time of the node's last heartbeat.
    seen: String,
    /// The node's report; `None` if the node has published none, or if this version can't read it.
    #[serde(flatten)]
    report: Option<NodeReport>,
}

#[derive(Debug, Serialize)]
struct Nodes {
    nodes: Vec<ShownNode>,
}

#[derive(Debug, Serialize)]
struct Alarms {
    alarms: Vec<Alarm>,
}

/// `GET /v1/nodes`: lists all nodes, with this node's current report and the last published reports of the others.
pub(super) async fn list(State(context): State<Arc<Context>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    takes_no_query(query.as_deref())?;
    let (known, is_complete) = context.watch.known().await?;
    let shown = known.into_iter().map(|known| {
        let state = if known.is_live { "live" } else { "silent" };
        ShownNode { name: known.name, state, seen: known.seen, report: known.report.map(|published| published.report) }
    });
    Ok(told(json(StatusCode::OK, &Nodes { nodes: shown.collect() }), is_complete))
}

/// `GET /v1/alarms`: lists the alarms of all nodes, the most urgent first.
pub(super) async fn alarms(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    takes_no_query(query.as_deref())?;
    let (known, is_complete) = context.watch.known().await?;
    let alarms = joined(known.into_iter().filter_map(|known| known.report).flat_map(|published| published.alarms));
    Ok(told(json(StatusCode::OK, &Alarms { alarms }), is_complete))
}

fn takes_no_query(query: Option<&str>) -> Result<(), Refusal> {
    if query.is_none_or(str::is_empty) { Ok(()) } else { Err(Refusal::invalid("this path takes no query")) }
}

fn told(mut response: Response, is_complete: bool) -> Response {
    if !is_complete {
        response.headers_mut().insert("x-gateway-partial", HeaderValue::from_static("other nodes are missing"));
    }
    response
}
