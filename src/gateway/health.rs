//! The handler of Iluma's health, a request that needs no key and belongs to no account.

use super::core::Gateway;
use super::fetch_request::FetchRequest;
use super::request_log::RequestLog;
use super::runtime::RuntimeConfig;
use crate::cache::{Scope, Subject};
use crate::reference::Directives;
use crate::reply::{Rejection, ReplyBody};
use http::uri::PathAndQuery;
use http::{HeaderMap, Response};
use std::sync::Arc;

/// Answers with Iluma's health, which is cached for some seconds.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    config: &Arc<RuntimeConfig>,
    subject: Subject,
    log: &mut RequestLog,
) -> Result<Response<ReplyBody>, Rejection> {
    // A client without a key does not influence the call: its query, headers and directives are ignored.
    let target = PathAndQuery::from_static("/health");
    // The choice of the account does not matter, because all accounts share one upstream.
    let account = config.accounts.first().ok_or(Rejection::Internal)?;
    let slot = gateway.cache.place(&Scope::shared(&account.name), subject, target.as_str(), &[]);
    let request = FetchRequest::get(slot, log.route, None, Directives::default(), (target, HeaderMap::new()));
    gateway.fetch(config, Box::new(request), log).await
}
