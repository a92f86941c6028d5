//! The handler of a public list, which is the same for every tenant of an account.

use super::cached_request::bypassed;
use super::exchange::Exchange;
use super::fetch_request::FetchRequest;
use super::send;
use super::shared_head::SharedHead;
use crate::cache::{Scope, Subject};
use crate::reference::Directives;
use crate::reply::{Rejection, ReplyBody};
use http::{Request, Response};
use hyper::body::Incoming;

/// Answers with the list, from the cache if possible.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
    subject: Subject,
) -> Result<Response<ReplyBody>, Rejection> {
    let sent = request.into_parts().0.headers;
    let directives = Directives::of(&sent).at_most(exchange.tenant.max_age.of(subject));
    let head = SharedHead::of_get(&sent, &exchange.config.forward_headers);
    let (tenant, target) = (exchange.tenant, exchange.route.target.clone());
    if let Some(detail) = head.bypass {
        return bypassed(&mut exchange, send::get(target, head.for_iluma()), directives, detail).await;
    }
    let slot = exchange.gateway.cache.place(&Scope::shared(&tenant.account), subject, target.as_str(), &[]);
    let request = FetchRequest::get(slot, exchange.route.name, Some(tenant), directives, (target, head.for_iluma()));
    exchange.gateway.fetch(exchange.config, Box::new(request), exchange.log).await
}
