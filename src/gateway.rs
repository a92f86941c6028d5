//! The request path: every stage from a request's head to its answer.
//!
//! `Gateway::handle` writes one log line for each request. `serve` runs the stages of a request. Each kind of route has
//! a handler in a file of its own.
//!
//! Invariants:
//! - Every request is logged once (`request_log`).
//! - Nothing is sent to Iluma for a request that was not authenticated and admitted. The exception is health, which
//!   carries no credential.
//! - A call that may be charged is finished once its request was sent completely, even if the client has left.

mod allowance;
mod authentication;
mod cached_record;
mod cached_request;
mod call_guard;
mod call_reference;
mod callback_setting;
mod claim;
mod condition;
mod core;
mod exchange;
mod fetch;
mod fetch_call;
mod fetch_request;
mod fetch_result;
mod file;
mod health;
mod idempotency;
mod index;
mod kept_answer;
mod known_owners;
mod observer;
mod options;
mod own_api;
mod own_callbacks;
mod own_document;
mod own_keys;
mod own_usage;
mod owners;
mod ownership;
mod persons_in;
mod portal;
mod public_list;
mod received;
mod records;
mod repetition;
mod replies;
mod request_log;
mod request_span;
mod runtime;
mod send;
mod settle;
mod shared_head;
mod streamed;
mod submission;
mod unknown_route;

pub use self::core::{Gateway, Parts};
pub use condition::Condition;
pub use request_log::{LoggedBody, Telemetry};

use crate::base::host;
use crate::base::peer::Client;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::{INDEX, Kind};
use crate::reference::Directives;
use crate::reply::{Rejection, ReplyBody};
use crate::tenant::Authenticated;
use authentication::{Credentials, authenticate, may_have_session, own_session, unauthenticated};
use call_reference::CallReference;
use exchange::Exchange;
use futures_util::FutureExt as _;
use http::uri::PathAndQuery;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use request_log::RequestLog;
use runtime::RuntimeConfig;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use tracing::Instrument as _;

impl Gateway {
    /// Answers any request of a client.
    ///
    /// # Errors
    /// Returns no error: the type [`Infallible`] has no value.
    pub async fn handle(
        self: Arc<Self>,
        (request, client): (Request<Incoming>, Client),
    ) -> Result<Response<LoggedBody>, Infallible> {
        let config = self.config.load_full();
        let mut log = RequestLog::open(
            &self.telemetry,
            &config.nobody,
            request.method(),
            request.headers(),
            config.redis_timeout,
        );
        log.client = Some(client.address);
        log.secure = client.secure;
        let head = request.method() == Method::HEAD;
        let span = log.log_span();
        let served = {
            // The future is pinned here, so that the adapters move only a pointer. A panic is a bug, and must affect
            // one request only.
            let serving = pin!(serve(&self, &config, request, &mut log));
            let caught = AssertUnwindSafe(serving).catch_unwind();
            caught.instrument(span.clone()).await.unwrap_or(Err(Rejection::Internal))
        };
        let rejection = served.as_ref().err().copied();
        let mut response = served.unwrap_or_else(|rejection| {
            span.in_scope(|| log.rejected(&rejection));
            rejection.into_response(config.contact.as_deref())
        });
        let refusal = rejection.as_ref().and_then(Rejection::refusal);
        // If a limit refused the request's call, the request does not count toward the team's rate, unless the request
        // made another call.
        if let (Some(index), Some(refusal)) = (log.tenant_index, refusal)
            && refusal.is_of_a_call()
            && !log.has_called()
        {
            config.limits.give_back(index);
        }
        if let Some(fields) = log.tenant_index.and_then(|index| config.limits.fields(index, refusal)) {
            fields.insert_into(response.headers_mut());
        }
        if head {
            replies::remove_body(&mut response);
        }
        let mut response = log.reply(response);
        response.body_mut().gather().await;
        Ok(response)
    }
}

/// Serves one request in four stages: route, authentication, admission, handler.
async fn serve(
    gateway: &Arc<Gateway>,
    config: &Arc<RuntimeConfig>,
    request: Request<Incoming>,
    log: &mut RequestLog,
) -> Result<Response<ReplyBody>, Rejection> {
    host::check(&request)?;
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("*"));
    let route = config.table.find(request.method(), &target)?;
    log.route = route.name;
    log.matched(|| config.table.pattern(request.method(), &target));
    if let Kind::Health(subject) = route.kind {
        log.hold(config.limits.admit_anonymous()?);
        return Box::pin(health::serve(gateway, config, subject, log)).await;
    }
    if route.kind == Kind::Unknown && target.path() == INDEX && matches!(*request.method(), Method::GET | Method::HEAD)
    {
        log.route = RouteName::Gateway;
        log.hold(config.limits.admit_anonymous()?);
        return Ok(index::serve(config, request.headers()));
    }

    if let Some(place) = portal::Place::of(&route) {
        log.hold(config.limits.admit_anonymous()?);
        return Box::pin(portal::serve(gateway, config, (place, request), log)).await;
    }

    let (method, headers, path, time) = (request.method(), request.headers(), route.target.path(), log.asked());
    let given = Credentials { method, headers, path, time };
    let session = if may_have_session(given) { Box::pin(own_session(gateway, config, given)).await? } else { None };
    let keys = gateway.registry.table();
    let known = authenticate(config, given, session.as_ref(), &keys);
    let Authenticated { tenant, key } = known.map_err(|error| unauthenticated(gateway, log, error))?;
    log.set_tenant(tenant, config);
    if key.is_suspended {
        return Err(Rejection::TenantSuspended);
    }
    drop(keys);
    config.permit(tenant, request.method(), &route)?;
    let is_own_api = route.kind == Kind::OwnApi;
    log.hold(if is_own_api { config.limits.admit_unrated(tenant.index) } else { config.limits.admit(tenant.index) }?);
    // Answers of this kind of row are never cached, so a request with `only-if-cached` is refused.
    if route.kind.is_always_sent() && Directives::of(request.headers()).only_if_cached {
        return Err(Rejection::OnlyIfCached);
    }

    let call = CallReference::None;
    let mut exchange = Exchange { gateway, config, tenant, route, log, idempotency: None, call };
    match exchange.route.kind {
        // This handler serves hits. It is the only one whose future is not on the heap.
        Kind::CachedRequest(subject) => cached_request::serve(&mut exchange, (request, subject)).await,
        Kind::CachedRecord(subject) => Box::pin(cached_record::serve(exchange, request, subject)).await,
        Kind::PublicList(subject) => Box::pin(public_list::serve(exchange, request, subject)).await,
        Kind::Submission | Kind::Streamed => Box::pin(idempotency::serve(exchange, request)).await,
        Kind::Records => Box::pin(records::serve(exchange, request)).await,
        Kind::File => Box::pin(file::serve(exchange, request)).await,
        Kind::Unknown => Box::pin(unknown_route::serve(exchange, request)).await,
        Kind::CallbackSetting => Box::pin(callback_setting::serve(exchange, request)).await,
        Kind::OwnApi => Box::pin(own_api::serve(exchange, request)).await,
        Kind::Options => Ok(options::serve(config, &exchange.route)),
        // Health was answered above, and the other kinds were not permitted.
        Kind::Health(_) | Kind::Forbidden | Kind::Closed | Kind::Absent => Err(Rejection::Forbidden),
    }
}
