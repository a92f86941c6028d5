//! `GET /_gateway/openapi.json`: the OpenAPI document of the routes that the team may use.

use super::exchange::Exchange;
use super::replies::of_parts;
use crate::iluma::openapi;
use crate::reply::{Reason, ReplyBody};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use strum::VariantArray as _;

/// Answers with the document.
pub(super) fn serve(exchange: &Exchange<'_>) -> Response<ReplyBody> {
    let reasons: Vec<&str> = Reason::VARIANTS.iter().map(|reason| (*reason).into()).collect();
    let document = openapi::document(|row| exchange.tenant.may_use(row.name), &reasons);
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    of_parts(StatusCode::OK, headers, ReplyBody::full(serde_json::to_vec(&document).unwrap_or_default().into()))
}
