//! A public list, the same for every tenant of an account.

use super::cached_question::{MAGIC_REPLY, bypassed};
use super::exchange::Exchange;
use super::fetch_request::FetchRequest;
use super::replies::readable;
use super::send;
use crate::cache::{Scope, Subject};
use crate::reference::{self, Directives};
use crate::reply::{Rejection, ReplyBody};
use http::{Request, Response};
use hyper::body::Incoming;

/// Answers with the list, from the cache if it is there.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
    subject: Subject,
) -> Result<Response<ReplyBody>, Rejection> {
    let mut headers = request.into_parts().0.headers;
    let (directives, magic) = (Directives::of(&headers), reference::is_magic(&headers));
    readable(&mut headers);
    let (tenant, target) = (exchange.tenant, exchange.route.target.clone());
    if magic {
        return bypassed(&mut exchange, send::get(target, headers), directives, MAGIC_REPLY).await;
    }
    let slot = exchange.gateway.cache.place(&Scope::shared(&tenant.account), subject, target.as_str(), &[]);
    let request = FetchRequest::get(slot, exchange.route.name, Some(tenant), directives, (target, headers));
    exchange.gateway.fetch(exchange.config, request, exchange.log).await
}
