//! A file that belongs to one of the team's records.

use super::exchange::Exchange;
use super::streamed;
use crate::reference::FingerprintedBody;
use crate::reply::{Rejection, ReplyBody};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

/// Streams a file of a record that the team owns.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    if let Some(failure) = exchange.check_owner().await? {
        return Ok(failure);
    }
    let response = streamed::forward(&mut exchange, request.map(FingerprintedBody::plain)).await?;
    // A missing file is answered like a missing record.
    if response.status() == StatusCode::NOT_FOUND { Err(Rejection::NotFound) } else { Ok(response) }
}
