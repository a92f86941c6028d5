//! The team's own API: its limits and their use, its callbacks, its key, and the OpenAPI document.

use super::exchange::Exchange;
use super::own_callbacks;
use super::own_document;
use super::own_keys;
use super::own_usage;
use crate::iluma::routes::{OPENAPI, OWN_CALLBACKS, ROTATE_KEY};
use crate::reply::{Rejection, ReplyBody};
use http::{Request, Response};
use hyper::body::Incoming;

/// Answers a request of the team's own API.
pub(super) async fn serve(
    exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let path = exchange.route.target.path();
    if path.starts_with(OWN_CALLBACKS) {
        return own_callbacks::serve(exchange, request).await;
    }
    if path == OPENAPI {
        return Ok(own_document::serve(&exchange));
    }
    if path == ROTATE_KEY {
        return own_keys::rotate(exchange, request).await;
    }
    own_usage::serve(exchange, request.headers()).await
}
