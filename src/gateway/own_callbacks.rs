//! The team's own callbacks: lists, the attempts of each callback, and orders to replay, pause, resume and test.
//!
//! Invariant: a team sees and changes only its own callbacks.

use super::exchange::Exchange;
use super::replies::of_parts;
use crate::callback;
use crate::iluma::routes::OWN_CALLBACKS;
use crate::reply::{Rejection, ReplyBody};
use crate::state::PauseReason;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a request below `/_gateway/callbacks`.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let callbacks = Arc::clone(&exchange.gateway.callbacks);
    let own = Some(&exchange.tenant.name);
    let target = exchange.route.target.clone();
    let below = target.path().strip_prefix(OWN_CALLBACKS).unwrap_or_default().trim_start_matches('/');
    let (head, body) = request.into_parts();
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(shown(&match below {
            "" => callbacks.list(target.query().unwrap_or_default(), own).await?,
            id => callbacks.show(id, own).await?,
        }));
    }
    let body = exchange.read(body).await?;
    let answer = match below {
        "replay" => json!({ "replayed": callbacks.replay(callback::replay(&body, own)?).await? }),
        "pause" => {
            json!({ "paused": callbacks.pause(&callback::endpoints(&body, own)?, PauseReason::Team).await? })
        }
        "resume" => json!({ "resumed": callbacks.resume(&callback::endpoints(&body, own)?).await? }),
        "test" => callbacks.test(&callback::endpoints(&body, own)?).await?,
        _ => return Err(Rejection::UnknownOwnPath),
    };
    Ok(shown(&answer))
}

fn shown(answer: &Value) -> Response<ReplyBody> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    of_parts(StatusCode::OK, headers, ReplyBody::full(serde_json::to_vec(answer).unwrap_or_default().into()))
}
