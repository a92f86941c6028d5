//! Answers from the cache, from a call in flight here or on another node, or from Iluma.
//!
//! At most one call per cache key is in flight, except in these cases:
//! - A request bypasses the cache.
//! - A request requires an answer that is newer than any call in flight.
//! - Redis is out, so other nodes may make the same call.
//! - An answer is only for its own caller, so the requests that waited for it make calls of their own.

use super::call_guard::{CallGuard, PlannedCall};
use super::core::Gateway;
use super::fetch_request::FetchRequest;
use super::fetch_result::{FetchResult, Fetched, Joined, Lead, from_other_node, renewing};
use super::owners::{Owned, Requester};
use super::replies::{brought, collapsed, from_entry, from_stale};
use super::request_log::RequestLog;
use super::runtime::RuntimeConfig;
use super::send;
use crate::base::json_template::JsonTemplate;
use crate::cache::{FlightRole, Hit, Leader, LeaseDecision, Report, Scope, Subject};
use crate::iluma::route_name::RouteName;
use crate::redis::Budget;
use crate::reference::Directives;
use crate::reply::{Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use http::Response;
use http::uri::PathAndQuery;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The age from which a stored "pending" is too old: Iluma is then polled again.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The next step of a leader, which is the one request of this node that may make the call of its cache key.
enum Leading {
    /// The answer has been stored meanwhile.
    Hit(Hit),
    /// Another node's call got an answer that every caller may have. The template makes each caller's body.
    Shared(Arc<FetchResult>, JsonTemplate),
    /// Another node's answer is only for its own caller, so this request tries again.
    Again,
    /// This request makes the call. The values are its role as the leader, and the guard of the call (`None` for
    /// health). They are boxed, because the other variants are small.
    Call(Box<(Lead, Option<CallGuard>)>),
}

/// The caller of a request, as the owner of the record in its answer.
#[derive(Clone, Copy)]
struct Caller<'a> {
    /// The requester of the record; `None` if the answer is no record.
    requester: Option<&'a Requester>,
    /// The caller's own reference, as JSON text.
    reference: Option<&'a [u8]>,
}

impl Gateway {
    /// Answers from the cache, from a call in flight, or by a new call.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        config: &Arc<RuntimeConfig>,
        request: Box<FetchRequest>,
        log: &mut RequestLog,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let (directives, reference, route, slot) =
            (request.directives, request.reference.clone(), request.route, request.slot.clone());
        let (reference, requester) = (reference.as_deref(), request.requester.clone());
        let caller = Caller { requester: requester.as_ref(), reference };
        if let Some(detail) = request.bypass {
            if directives.only_if_cached {
                return Err(Rejection::OnlyIfCached);
            }
            let fetched = self.alone(config, request, log).await?;
            return Ok(brought(&fetched, Report::Bypass { detail }, CacheOutcome::Bypass, log));
        }
        if !directives.no_cache
            && let Some(hit) = self.known(config, &request, directives.max_age, log).await
            // "Pending" does not count as a stored answer.
            && !(directives.only_if_cached && hit.entry.pending)
        {
            return Ok(self.reply_from(&hit, caller, route, log).await);
        }
        if directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        // The caller requires the answer of a call that begins now.
        let is_newest = directives.no_cache || directives.no_store || directives.max_age == Some(Duration::ZERO);
        if is_newest {
            let fetched = self.alone(config, request, log).await?;
            let stored = fetched.is_stored();
            return Ok(brought(&fetched, Report::Directed { stored }, CacheOutcome::Request, log));
        }
        // True if an answer is stored, and is too old for the caller's `max-age`.
        let is_directed = directives.max_age.is_some() && self.known(config, &request, None, log).await.is_some();
        match self.join(config, request, log).await {
            Ok(Joined::Hit(hit)) => Ok(self.reply_from(&hit, caller, route, log).await),
            Ok(Joined::Led(fetched)) if !fetched.is_failure() => {
                let stored = fetched.is_stored();
                Ok(match (is_directed, stored) {
                    (true, _) => brought(&fetched, Report::Directed { stored }, CacheOutcome::Request, log),
                    (false, true) => brought(&fetched, Report::Miss { stored }, CacheOutcome::Stored, log),
                    (false, false) => brought(&fetched, Report::Miss { stored }, CacheOutcome::Miss, log),
                })
            }
            Ok(Joined::Shared(fetched, body)) if !fetched.is_failure() => {
                Ok(self.reply_shared((&fetched, body), caller, route, log).await)
            }
            // A refusal by a limit is no failure of Iluma, so no stale answer is served.
            Err(refused @ Rejection::Refused(_)) => Err(refused),
            failed => {
                // Iluma failed to give a new answer, so a stale answer may be served.
                if let Some(hit) = self.cache.look_up_stale(&slot, directives.max_age, &log.redis).await {
                    if let Some(requester) = &requester {
                        self.own_hit(requester, &hit, reference, &log.redis).await;
                    }
                    return Ok(from_stale(&hit, reference, route, log));
                }
                match failed? {
                    Joined::Led(fetched) => {
                        Ok(brought(&fetched, Report::Miss { stored: false }, CacheOutcome::Miss, log))
                    }
                    Joined::Shared(fetched, body) => Ok(self.reply_shared((&fetched, body), caller, route, log).await),
                    Joined::Hit(hit) => Ok(self.reply_from(&hit, caller, route, log).await),
                }
            }
        }
    }

    /// Replies from a cache entry, and makes the caller an owner of its record.
    async fn reply_from(
        &self,
        hit: &Hit,
        caller: Caller<'_>,
        route: RouteName,
        log: &mut RequestLog,
    ) -> Response<ReplyBody> {
        if let Some(requester) = caller.requester {
            self.own_hit(requester, hit, caller.reference, &log.redis).await;
        }
        from_entry(hit, caller.reference, route, log)
    }

    /// Replies with the answer of a call that another request made, and makes the caller an owner of its record.
    async fn reply_shared(
        &self,
        (fetched, body): (&FetchResult, JsonTemplate),
        caller: Caller<'_>,
        route: RouteName,
        log: &mut RequestLog,
    ) -> Response<ReplyBody> {
        self.own_fetched(caller, fetched, &log.redis).await;
        collapsed(&fetched.answer, body.with(caller.reference), route, log)
    }

    /// Makes the caller an owner of the record in a call's answer.
    async fn own_fetched(&self, Caller { requester, reference }: Caller<'_>, fetched: &FetchResult, redis: &Budget) {
        if let (Some(requester), Some(id)) = (requester, &fetched.id) {
            self.owners.own(requester, Owned { id, reference, awaits: true, tags: &fetched.tags }, redis).await;
        }
    }

    /// Makes a call that no other request shares.
    pub(super) async fn alone(
        self: &Arc<Self>,
        config: &Arc<RuntimeConfig>,
        request: Box<FetchRequest>,
        log: &RequestLog,
    ) -> Result<Arc<FetchResult>, Rejection> {
        let guard = self.admit(config, &request, &log.redis).await?;
        self.call_detached(config, request, (None, guard), log).await
    }

    /// Returns the stored answer; `None` if there is none, or if it is older than `max_age`. L2 is read only if
    /// `max_age` is given or the request has `only-if-cached`. If the answer is an old "pending", Iluma is polled
    /// first.
    pub(super) async fn known(
        self: &Arc<Self>,
        config: &Arc<RuntimeConfig>,
        request: &FetchRequest,
        max_age: Option<Duration>,
        log: &RequestLog,
    ) -> Option<Hit> {
        let hit = match self.cache.look_up(&request.slot, max_age) {
            Some(hit) => hit,
            // Without these directives a claim follows, which reads L2 anyway. Reading L2 here too would cost another
            // Redis command.
            None if max_age.is_some() || request.directives.only_if_cached => {
                self.cache.look_further(&request.slot, max_age, &log.redis).await?
            }
            None => return None,
        };
        let (true, Some(id), Subject::Bank) = (hit.entry.pending, &hit.entry.id, request.slot.subject) else {
            return Some(hit);
        };
        if hit.age >= POLL_INTERVAL {
            self.poll(config, request, id, log).await;
            return self.cache.look_up(&request.slot, max_age);
        }
        Some(hit)
    }

    /// Polls Iluma for a pending bank request, by a GET with the id of that request. A final answer replaces "pending"
    /// in the cache.
    async fn poll(self: &Arc<Self>, config: &Arc<RuntimeConfig>, request: &FetchRequest, id: &str, log: &RequestLog) {
        let Some(account) = request.account else { return };
        let target =
            format!("{}/{}", request.outgoing.target.path(), percent_encoding::utf8_percent_encode(id, ESCAPED));
        let Ok(target) = PathAndQuery::try_from(target) else { return };
        let Some(name) = config.accounts.get(account).map(|account| &account.name) else { return };
        let slot = self.cache.place(&Scope::shared(name), Subject::BankGet, target.as_str(), &[]);
        // The caller's `max-age` applies to its own request, not to this GET.
        let directives = Directives { max_age: None, ..request.directives };
        if self.cache.look_up(&slot, None).is_some() {
            return;
        }
        let route = RouteName::BankGet;
        let tenant = request.tenant.and_then(|index| config.tenants.at(index));
        let poll = Box::new(FetchRequest::get(slot, route, tenant, directives, (target, send::own_head())));
        // The answer is in the cache now, or Iluma could not be asked: then the request counts as still pending.
        let _: Result<Joined, Rejection> = Box::pin(self.join(config, poll, log)).await;
    }

    /// Waits for the call that is in flight for the same cache key. If there is no such call, makes it.
    pub(super) async fn join(
        self: &Arc<Self>,
        config: &Arc<RuntimeConfig>,
        request: Box<FetchRequest>,
        log: &RequestLog,
    ) -> Result<Joined, Rejection> {
        loop {
            // A call may have ended meanwhile.
            let max_age = request.directives.max_age;
            if let Some(hit) = self.cache.look_up(&request.slot, max_age) {
                return Ok(Joined::Hit(hit));
            }
            let leader = match self.flights.join(&request.slot.key) {
                FlightRole::Leader(leader) => leader,
                FlightRole::Follower(waiter) => {
                    let Some(fetched) = waiter.landed().await else { continue };
                    let fetched = fetched?;
                    match fetched.shared.clone() {
                        Some(body) => return Ok(Joined::Shared(fetched, body)),
                        // The answer is only for its own caller.
                        None => continue,
                    }
                }
            };
            // The answer may have been stored between the look-up and here.
            if let Some(hit) = self.cache.look_up(&request.slot, max_age) {
                return Ok(Joined::Hit(hit));
            }
            match self.lead(config, &request, leader, log).await? {
                Leading::Hit(hit) => return Ok(Joined::Hit(hit)),
                Leading::Shared(fetched, body) => return Ok(Joined::Shared(fetched, body)),
                Leading::Again => {}
                Leading::Call(call) => {
                    let (lead, guard) = *call;
                    return Ok(Joined::Led(self.call_detached(config, request, (Some(lead), guard), log).await?));
                }
            }
        }
    }

    /// Agrees with the other nodes on the node that makes the call. If it is this node, admits the call.
    async fn lead(
        &self,
        config: &Arc<RuntimeConfig>,
        request: &FetchRequest,
        leader: Leader<Fetched>,
        log: &RequestLog,
    ) -> Result<Leading, Rejection> {
        let timeout = config.upstream.timeouts().answer * 2;
        let lease = match self.cache.claim(&request.slot, request.directives.max_age, &log.redis, timeout).await {
            LeaseDecision::Hit(hit) => return Ok(Leading::Hit(hit)),
            LeaseDecision::Shared(result) => {
                let outcome = from_other_node(result);
                // A failure is shared too, so that it causes no wave of calls.
                leader.land(outcome.clone());
                let fetched = outcome?;
                return Ok(match fetched.shared.clone() {
                    Some(body) => Leading::Shared(fetched, body),
                    None => Leading::Again,
                });
            }
            LeaseDecision::Lead(lease) => Some(lease),
            LeaseDecision::Alone => None,
        };
        // If this admission is refused, the next waiting request leads, and asks for its own admission.
        let admitted = pin!(self.admit(config, request, &log.redis));
        let guard = renewing(admitted, lease.as_ref()).await?;
        Ok(Leading::Call(Box::new((Lead { leader, lease }, guard))))
    }

    /// Admits the call. Returns `None` for health, which carries no credential, so that no account's limits apply.
    async fn admit(
        &self,
        config: &Arc<RuntimeConfig>,
        request: &FetchRequest,
        redis: &Budget,
    ) -> Result<Option<CallGuard>, Rejection> {
        match request.tenant.and_then(|index| config.tenants.at(index)) {
            Some(tenant) => {
                let (route, charged) = (request.route, !request.outgoing.repeatable);
                let endpoint = config.table.endpoint(&request.outgoing.method, &request.outgoing.target);
                let planned = PlannedCall { tenant, route, charged, endpoint: &endpoint, reference: &request.call };
                CallGuard::admit(config, &self.ledger, planned, None, redis).await.map(Some)
            }
            None => Ok(None),
        }
    }
}

/// The characters that are percent-encoded in a path segment: all except the unreserved characters of RFC 3986, section
/// 2.3.
const ESCAPED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
