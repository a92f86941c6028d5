//! The simulator's own API under `/_sim`: statistics, faults, and the requests that it received.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::problem::Problem;
use super::reply::Reply;
use super::world::World;

/// The largest body of `POST /_sim/faults`, in bytes. A hundred fault rules have far fewer bytes.
const MAX_BODY: usize = 256 * 1024;
/// The number of requests that are shown if the caller gives no `limit`.
const DEFAULT_SHOWN: usize = 100;

const HELP: &str = "\
GET    /_sim/stats                     requests, charged calls, rupiah, in flight, callbacks, by route and by key
POST   /_sim/reset                     forget records, URLs, faults, requests and counts
GET    /_sim/faults                    faults that wait, and the kinds there are
POST   /_sim/faults                    {\"kind\": \"status=503\", \"method\": \"POST\", \"path\": \"/v1\", \"times\": 2}, or an array of these
DELETE /_sim/faults                    no faults any more
GET    /_sim/requests?path=/v1&limit=9 the last requests as received, oldest first
A single call asks for a fault with the header x-sim-fault: kind[=value][, kind[=value]].
";

/// Returns true if a path belongs to the control API.
pub(super) fn is_ours(path: &str) -> bool {
    path == "/_sim" || path.starts_with("/_sim/")
}

/// Answers a request to the control API.
pub(super) async fn answer(world: &World, parts: &Parts, body: Incoming) -> Reply {
    let path = parts.uri.path().trim_end_matches('/');
    match (&parts.method, path) {
        (&Method::GET, "/_sim") => {
            Reply::bytes(HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from_static(HELP.as_bytes()))
        }
        (&Method::GET, "/_sim/stats") => Reply::json(&world.stats()),
        (&Method::POST, "/_sim/reset") => {
            world.reset();
            Reply::json(&json!({ "reset": true }))
        }
        (&Method::GET, "/_sim/faults") => Reply::json(&world.faults.lock().shown()),
        (&Method::POST, "/_sim/faults") => {
            let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
                return Problem::too_large("at most 256 KiB of faults").into();
            };
            let mut rules = world.faults.lock();
            match rules.add(&body.to_bytes()) {
                Ok(()) => Reply::json(&rules.shown()).status(StatusCode::CREATED),
                Err(message) => Problem::field("body", message).into(),
            }
        }
        (&Method::DELETE, "/_sim/faults") => {
            let mut rules = world.faults.lock();
            rules.clear();
            Reply::json(&rules.shown())
        }
        (&Method::GET, "/_sim/requests") => {
            let query = parts.uri.query().unwrap_or("").as_bytes();
            let value = |name: &str| form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value);
            let limit = value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(DEFAULT_SHOWN);
            Reply::json(&world.journal.lock().shown(&value("path").unwrap_or_default(), limit))
        }
        _ => Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND_ERROR", "see GET /_sim").into(),
    }
}
