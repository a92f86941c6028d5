//! From memory, from Redis, from a call that is under way here or on another node, or from upstream.

use super::Gateway;
use super::admit::Admission;
use super::ask::{Ask, look};
use super::forward::whole;
use super::owners::{Asker, id_of};
use super::record::Record;
use super::runtime::RuntimeConfig;
use crate::base::json_template::{Absent, JsonTemplate};
use crate::base::name::AccountName;
use crate::cache::{
    CacheCandidate, CacheSlot, Entry, Hit, LEASE_RENEWAL, Leader, Lease, LeaseDecision, Report, Role, Scope,
    SharedResult, Subject,
};
use crate::callback::Arrived;
use crate::iluma::person::Tag;
use crate::iluma::route_name::RouteName;
use crate::ledger;
use crate::redis::client::Budget;
use crate::reference::{self, PrefixStripper};
use crate::reply::{Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use crate::telemetry::metrics::Saved;
use crate::upstream::{self, CallError, Collected};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{AGE, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// How old the word that a request is pending may be before upstream is asked what became of it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What looking up where the answer of a callback belongs may take, for which no request waits.
const SETTLING: Duration = Duration::from_secs(1);
/// How long a result waits for the answer that it has overtaken, and how many bytes of them do.
const EARLY: Duration = Duration::from_secs(5);
const MOST_EARLY: u64 = 16 << 20;

/// What one call brought to all who asked.
#[derive(Debug)]
pub(super) struct FetchResult {
    pub(super) answer: Collected,
    /// The body for those who ask with another reference; none if it tells the first one's.
    pub(super) shared: Option<JsonTemplate>,
    /// What is kept of it.
    pub(super) entry: Option<Arc<Entry>>,
    /// Upstream's id, where it is a record.
    id: Option<String>,
    /// Whom it names.
    tags: Vec<Tag>,
    /// Where a pending request was asked whose result this is, and what is kept there.
    settled: Option<(CacheSlot, Arc<Entry>)>,
    took: Duration,
}

type Outcome = Result<Arc<FetchResult>, CallError>;

impl Gateway {
    /// Answers from the cache, from a call that is under way, or makes the call.
    pub(super) async fn ask(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        ask: Ask,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let (directives, reference, route, place) =
            (ask.directives, ask.reference.clone(), ask.route, ask.place.clone());
        let (reference, asker) = (reference.as_deref(), ask.asker.clone());
        if let Some(detail) = ask.bypass {
            if directives.only_if_cached {
                return Err(Rejection::OnlyIfCached);
            }
            let landed = self.alone(live, ask, record).await?;
            self.own_landed(asker.as_ref(), &landed, reference, &record.redis).await;
            return Ok(brought(&landed, Report::Bypass { detail }, CacheOutcome::Bypass, record));
        }
        if !directives.no_cache
            && let Some(hit) = self.known(live, &ask, directives.max_age, record).await
            // "Pending" is no answer that is stored.
            && !(directives.only_if_cached && hit.entry.pending)
        {
            return Ok(self.reply_from(&hit, asker.as_ref(), reference, route, record).await);
        }
        if directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        // The caller wants an answer that is newer than any call which began before.
        let newer = directives.no_cache
            || directives.no_store
            || directives.max_age.is_some() && self.known(live, &ask, None, record).await.is_some();
        if newer {
            let landed = self.alone(live, ask, record).await?;
            self.own_landed(asker.as_ref(), &landed, reference, &record.redis).await;
            let stored = landed.is_stored();
            return Ok(brought(&landed, Report::Directed { stored }, CacheOutcome::Request, record));
        }
        match self.join(live, ask, record).await {
            Ok(Joined::Hit(hit)) => Ok(self.reply_from(&hit, asker.as_ref(), reference, route, record).await),
            Ok(Joined::Led(landed)) if !landed.is_failure() => {
                self.own_landed(asker.as_ref(), &landed, reference, &record.redis).await;
                let stored = landed.is_stored();
                let outcome = if stored { CacheOutcome::Stored } else { CacheOutcome::Miss };
                Ok(brought(&landed, Report::Miss { stored }, outcome, record))
            }
            // A limit is no fault of upstream's.
            Err(refused @ Rejection::Refused(_)) => Err(refused),
            failed => {
                // Nothing new, and it is upstream's fault: what is old may have to do.
                if let Some(hit) = self.cache.look_up_stale(&place, &record.redis).await {
                    if let Some(asker) = &asker {
                        self.own_hit(asker, &hit, reference, &record.redis).await;
                    }
                    return Ok(from_stale(&hit, reference, route, record));
                }
                match failed? {
                    Joined::Led(landed) => {
                        Ok(brought(&landed, Report::Miss { stored: false }, CacheOutcome::Miss, record))
                    }
                    Joined::Shared(landed, body) => {
                        self.own_landed(asker.as_ref(), &landed, reference, &record.redis).await;
                        Ok(collapsed(&landed.answer, body.with(reference), route, record))
                    }
                    Joined::Hit(hit) => Ok(self.reply_from(&hit, asker.as_ref(), reference, route, record).await),
                }
            }
        }
    }

    /// The reply from an entry, to who owns it from then on.
    async fn reply_from(
        &self,
        hit: &Hit,
        asker: Option<&Asker>,
        reference: Option<&[u8]>,
        route: RouteName,
        record: &mut Record,
    ) -> Response<ReplyBody> {
        if let Some(asker) = asker {
            self.own_hit(asker, hit, reference, &record.redis).await;
        }
        from_entry(hit, reference, route, record)
    }

    /// Makes who asked an owner of what a call brought.
    async fn own_landed(&self, asker: Option<&Asker>, landed: &FetchResult, reference: Option<&[u8]>, redis: &Budget) {
        if let (Some(asker), Some(id)) = (asker, &landed.id) {
            self.own(asker, id, reference, &landed.tags, redis).await;
        }
    }

    /// A call that nobody else is to wait for.
    pub(super) async fn alone(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        ask: Ask,
        record: &Record,
    ) -> Result<Arc<FetchResult>, Rejection> {
        let admission = self.admit_question(live, &ask, &record.redis).await?;
        self.spawn_call(live, ask, admission, None, None, record).await
    }

    /// What is known already, here or in Redis. That a request is pending is looked after, if the word is not new.
    pub(super) async fn known(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        ask: &Ask,
        max_age: Option<Duration>,
        record: &Record,
    ) -> Option<Hit> {
        let hit = match self.cache.look_up(&ask.place, max_age) {
            Some(hit) => hit,
            // Without a directive the call that follows asks Redis anyway, with one question less.
            None if max_age.is_some() || ask.directives.only_if_cached => {
                self.cache.look_further(&ask.place, max_age, &record.redis).await?
            }
            None => return None,
        };
        let (true, Some(id), Subject::Bank) = (hit.entry.pending, &hit.entry.id, ask.place.subject) else {
            return Some(hit);
        };
        if hit.age >= POLL_INTERVAL {
            self.poll(live, ask, id, record).await;
            return self.cache.look_up(&ask.place, max_age);
        }
        Some(hit)
    }

    /// Asks upstream what became of a pending request, as its own GET would; a final answer takes the place of "pending".
    async fn poll(self: &Arc<Self>, live: &Arc<RuntimeConfig>, ask: &Ask, id: &str, record: &Record) {
        let Some(account) = ask.account else { return };
        let target = format!("{}/{}", ask.outgoing.target.path(), percent_encoding::utf8_percent_encode(id, PATH));
        let Ok(target) = PathAndQuery::try_from(target) else { return };
        let Some(name) = live.accounts.get(account).map(|account| &account.name) else { return };
        let place = self.cache.place(&Scope::shared(name), Subject::BankGet, target.as_str(), &[]);
        if self.cache.look_up(&place, None).is_some() {
            return;
        }
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let outgoing = look(target, headers);
        let poll = Ask {
            place,
            route: RouteName::BankGet,
            directives: ask.directives,
            reference: None,
            tenant: ask.tenant,
            account: Some(account),
            outgoing,
            tags: BTreeSet::new(),
            asker: None,
            seal: None,
            bypass: None,
        };
        // What comes of it is in the cache, or upstream could not be asked: then it is still pending, as far as we know.
        let _: Result<Joined, Rejection> = Box::pin(self.join(live, poll, record)).await;
    }

    /// Joins the call that is under way for a question, or makes it.
    pub(super) async fn join(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        ask: Ask,
        record: &Record,
    ) -> Result<Joined, Rejection> {
        let patience = live.upstream.timeouts().answer * 2;
        loop {
            // A call may have landed in the meantime.
            if let Some(hit) = self.cache.look_up(&ask.place, None) {
                return Ok(Joined::Hit(hit));
            }
            let leader = match self.flights.join(&ask.place.key) {
                Role::Leader(leader) => leader,
                Role::Follower(waiter) => {
                    let Some(landed) = waiter.landed().await else { continue };
                    let landed = landed?;
                    match landed.shared.clone() {
                        Some(body) => return Ok(Joined::Shared(landed, body)),
                        // What came back is for the other one's eyes alone.
                        None => continue,
                    }
                }
            };
            // The answer may have landed between the look-up and here.
            if let Some(hit) = self.cache.look_up(&ask.place, None) {
                return Ok(Joined::Hit(hit));
            }
            let lease = match self.cache.claim(&ask.place, &record.redis, patience).await {
                LeaseDecision::Hit(hit) => return Ok(Joined::Hit(hit)),
                LeaseDecision::FetchResult(told) => {
                    let outcome = told_here(told);
                    // A failure, too: no herd follows.
                    leader.land(outcome.clone());
                    let landed = outcome?;
                    match landed.shared.clone() {
                        Some(body) => return Ok(Joined::Shared(landed, body)),
                        None => continue,
                    }
                }
                LeaseDecision::Lead(lease) => Some(lease),
                LeaseDecision::Alone(doubtful) => {
                    if let Some(lease) = doubtful {
                        self.tasks.spawn(lease.disown());
                    }
                    None
                }
            };
            // Refused, it leaves the lead to the next one, who is asked for itself.
            let admission = match renewing(self.admit_question(live, &ask, &record.redis), lease.as_ref()).await {
                Ok(admission) => admission,
                Err(refused) => {
                    if let Some(lease) = lease {
                        self.tasks.spawn(lease.release());
                    }
                    return Err(refused);
                }
            };
            return Ok(Joined::Led(self.spawn_call(live, ask, admission, Some(leader), lease, record).await?));
        }
    }

    /// Leave to make the call. Health carries no credential, so no account's limits know it.
    async fn admit_question(
        &self,
        live: &Arc<RuntimeConfig>,
        ask: &Ask,
        redis: &Budget,
    ) -> Result<Option<Admission>, Rejection> {
        match ask.tenant.and_then(|index| live.tenants.at(index)) {
            Some(tenant) => self.admit(live, tenant, ask.route, !ask.outgoing.repeatable, redis).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes the call in a task of its own, which ends whether or not anybody still waits.
    async fn spawn_call(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        ask: Ask,
        admission: Option<Admission>,
        leader: Option<Leader<Outcome>>,
        lease: Option<Lease>,
        record: &Record,
    ) -> Result<Arc<FetchResult>, Rejection> {
        let (gateway, live, permit) = (Arc::clone(self), Arc::clone(live), record.permit());
        let (done, landed) = tokio::sync::oneshot::channel();
        let redis = Arc::new(Budget::of(record.redis.left()));
        let spent = Arc::clone(&redis);
        self.tasks.spawn(async move {
            let (place, account) = (ask.place.clone(), ask.account);
            // A panic is a bug; it must not make every waiter send the same again.
            let call = AssertUnwindSafe(gateway.call(&live, ask, admission, &redis)).catch_unwind();
            let called = renewing(call, lease.as_ref()).await;
            let answer = called.unwrap_or(Err(CallError::Broken)).map(Arc::new);
            // What follows is for other nodes: who has its answer takes nobody's place, however long Redis takes.
            drop(permit);
            if let Some(leader) = leader {
                leader.land(answer.clone());
            }
            // Whoever asked may have gone away.
            let _ = done.send(answer.clone());
            let landed = answer.as_ref().ok();
            let account = account.and_then(|index| live.accounts.get(index)).map(|account| &account.name);
            match (landed.and_then(|landed| landed.entry.as_ref()), lease) {
                (Some(entry), lease) => gateway.cache.publish(&place, entry, account, lease).await,
                (None, Some(lease)) => lease.land(&told_elsewhere(&answer)).await,
                (None, None) => {}
            }
            if let Some((place, entry)) = landed.and_then(|landed| landed.settled.as_ref()) {
                gateway.cache.publish(place, entry, account, None).await;
            }
        });
        let landed = landed.await;
        record.redis.spend(spent.spent());
        // The task always sends, unless the process ends.
        Ok(landed.map_err(|_| Rejection::Internal)??)
    }

    async fn call(
        &self,
        live: &RuntimeConfig,
        ask: Ask,
        mut admission: Option<Admission>,
        redis: &Budget,
    ) -> Result<FetchResult, CallError> {
        let started = self.clock.now();
        if let Some(admission) = &mut admission {
            admission.start(None);
        }
        let account = ask.account.and_then(|index| live.accounts.get(index));
        let credential = account.map(|account| &account.credential);
        let total = live.upstream.timeouts().answer;
        let target = ask.outgoing.target.clone();
        let sent = match &admission {
            Some(admission) => admission.send(ask.outgoing).await,
            None => live.upstream.send(ask.outgoing, None).await,
        };
        let answer = match sent {
            Ok(response) => upstream::collect(response, credential, total).await,
            Err(error) => Err(error),
        };
        let took = self.clock.now().saturating_duration_since(started);
        if let Some(account) = account {
            account.metrics.request(ask.route, answer.as_ref().ok().map(|a| a.status.as_u16()), took);
        }
        if let Some(admission) = admission {
            match &answer {
                Ok(answer) => admission.answered(answer),
                Err(error) => admission.failed(*error),
            }
            // Whoever sees the answer finds its outcome in the books, even if the process is killed right after. Where it
            // can't be written now it is kept, and the answer is worth no less.
            let _ = self.ledger.settled().await;
        }
        let mut answer = answer?;
        reference::forwardable_response(&mut answer.headers);
        let (subject, success) = (ask.place.subject, answer.status.is_success());
        let is_record = matches!(subject, Subject::Bank | Subject::BankGet) && success;
        // Where a reference was given, its absence is the answer. A bank answer echoes what was given; sealed, something
        // always is.
        let given = ask.reference.is_some() || ask.seal.is_some();
        let absent = if is_record && !given { Absent::Insert } else { Absent::Leave };
        let split = JsonTemplate::split(&answer.body, absent).filter(|_| success);
        let whole = split.is_none();
        if let Some(seal) = &ask.seal {
            let reference = ask.reference.as_deref();
            let echo = PrefixStripper::new(seal.clone(), reference.and_then(reference::reference_text).as_deref());
            reference::forget_body(&mut answer.headers);
            echo.head(&mut answer.headers);
            // As upstream spells it, but for the seal.
            let own = reference::Record::read(&answer.body, &reference::ReferencePrefixes::of([seal.tenant().clone()]));
            let own = own
                .filter(|record| record.ownership(seal) == reference::Ownership::Own)
                .map(|record| record.made_with(reference));
            answer.body = match (&split, own) {
                (None, _) => echo.error(&answer.body),
                (Some(_), Some(own)) => own,
                (Some(body), None) => body.with(reference),
            };
        }
        let spliced = split.unwrap_or_else(|| JsonTemplate::whole(&answer.body));
        let mut tags = ask.tags;
        tags.append(&mut self.persons.in_json(&answer.body));
        let kept = !ask.directives.no_store && ask.bypass.is_none();
        let entry = if kept { self.keep(&ask.place, &answer, &spliced, tags.clone()) } else { None };
        let mut settled = None;
        if let (Some(account), Some(entry)) = (account, &entry) {
            match (entry.pending, &entry.id, subject) {
                (true, Some(id), Subject::Bank) => {
                    self.cache.await_result(&account.name, id, &ask.place, target.path(), entry);
                    // In this order, and the other way round in `learn`: whoever is second finds the other's.
                    if let Some(early) = self.early.remove(&(account.name.clone(), id.to_string())) {
                        settled = self.settle(&account.name, None, id, &told_by_callback(early), redis).await;
                    }
                }
                (false, _, Subject::BankGet) => {
                    if let Some((path, id)) = target.path().rsplit_once('/') {
                        settled = self.settle(&account.name, Some(path), id, &answer, redis).await;
                    }
                }
                _ => {}
            }
        }
        // An error's text may quote the reference, outside of the place that is ours to change, or the team's seal.
        let quoted = |text: &[u8]| memchr::memmem::find(&answer.body, text).is_some();
        let tells = whole
            && (ask.reference.as_deref().is_some_and(|reference| quotes(&spliced, reference))
                || ask.seal.as_ref().is_some_and(|seal| quoted(format!("{}:", seal.tenant()).as_bytes())));
        let id = if is_record { id_of(&spliced) } else { None };
        let tags = tags.into_iter().collect();
        Ok(FetchResult { answer, shared: (!tells).then_some(spliced), entry, id, tags, settled, took })
    }

    fn keep(
        &self,
        place: &CacheSlot,
        answer: &Collected,
        spliced: &JsonTemplate,
        tags: BTreeSet<Tag>,
    ) -> Option<Arc<Entry>> {
        let content_type = answer.headers.get(CONTENT_TYPE);
        self.cache
            .offer(place, CacheCandidate { status: answer.status, content_type, body: &answer.body, spliced, tags })
    }

    /// Learns from callbacks as they come: a final answer takes the place of "pending".
    pub async fn learn(&self, mut arrivals: mpsc::Receiver<Arrived>) {
        while let Some(Arrived { account, id, body, .. }) = arrivals.recv().await {
            // What became of the call that it is about: now it is known whether that was charged.
            if let Some((named, outcome)) = ledger::told(&body)
                && named == id
            {
                self.ledger.settle(&account, &id, outcome);
            }
            let about = (account, id);
            self.early.insert(about.clone(), body.clone());
            let (account, id) = &about;
            let answer = told_by_callback(body);
            if let Some((place, entry)) = self.settle(account, None, id, &answer, &Budget::of(SETTLING)).await {
                self.early.invalidate(&about);
                self.cache.publish(&place, &entry, Some(account), None).await;
            }
        }
    }

    /// Gives the final answer to a pending request its place: who asks the same here from now on gets it, and who asks
    /// elsewhere once it is published. `path` is where it was asked for, if it was.
    async fn settle(
        &self,
        account: &AccountName,
        path: Option<&str>,
        id: &str,
        answer: &Collected,
        redis: &Budget,
    ) -> Option<(CacheSlot, Arc<Entry>)> {
        let awaited = self.cache.awaited(account, id, redis).await?;
        // Another version of the API says the same in another shape.
        if path.is_some_and(|path| awaited.path != path) {
            return None;
        }
        let spliced =
            JsonTemplate::split(&answer.body, Absent::Insert).unwrap_or_else(|| JsonTemplate::whole(&answer.body));
        let mut tags = awaited.tags;
        tags.append(&mut self.persons.in_json(&answer.body));
        let entry = self.keep(&awaited.place, answer, &spliced, tags)?;
        Some((awaited.place, entry))
    }
}

/// What joining comes to.
pub(super) enum Joined {
    Hit(Hit),
    /// The own call's answer.
    Led(Arc<FetchResult>),
    /// Another's, with the body for anybody.
    Shared(Arc<FetchResult>, JsonTemplate),
}

impl FetchResult {
    /// Whether it is kept as a result.
    pub(super) fn is_stored(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| !entry.pending)
    }

    /// Whether upstream says that it is its own fault.
    fn is_failure(&self) -> bool {
        self.answer.status.is_server_error()
    }
}

/// What a path segment can't hold (RFC 3986, section 3.3).
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Results that came by callback before their POST was answered, by account and id. They hold what is personal, so not
/// longer than an erasure may take.
pub(super) type OvertakingCallbacks = moka::sync::Cache<(AccountName, String), Bytes>;

/// None yet.
pub(super) fn none_early() -> OvertakingCallbacks {
    let weight = |_: &(AccountName, String), body: &Bytes| u32::try_from(body.len()).unwrap_or(u32::MAX);
    OvertakingCallbacks::builder().weigher(weight).max_capacity(MOST_EARLY).time_to_live(EARLY).build()
}

/// A callback's body, as if a GET had been answered with it.
fn told_by_callback(body: Bytes) -> Collected {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Collected { status: StatusCode::OK, headers, body }
}

/// A call, and meanwhile the lease renewed.
async fn renewing<T>(call: impl Future<Output = T>, lease: Option<&Lease>) -> T {
    let Some(lease) = lease else { return call.await };
    let renew = async {
        loop {
            tokio::time::sleep(LEASE_RENEWAL).await;
            lease.renew().await;
        }
    };
    tokio::select! {
        answer = call => answer,
        () = renew => unreachable!("renewing has no end"),
    }
}

/// What another node's call brought, as if a call here had.
fn told_here(told: SharedResult) -> Outcome {
    match told {
        SharedResult::Failed(reason) => Err(CallError::from_number(reason)),
        SharedResult::Answer(status, content_type, shared) => {
            let status = StatusCode::from_u16(status).map_err(|_| CallError::Garbled)?;
            let content_type = content_type.and_then(|value| HeaderValue::from_bytes(&value).ok());
            let headers = content_type.map(|value| (CONTENT_TYPE, value)).into_iter().collect();
            let answer = Collected { status, headers, body: Bytes::new() };
            let id = shared.as_ref().filter(|_| answer.status.is_success()).and_then(id_of);
            Ok(Arc::new(FetchResult {
                answer,
                shared,
                entry: None,
                settled: None,
                id,
                tags: Vec::new(),
                took: Duration::ZERO,
            }))
        }
    }
}

/// What a call brought, as other nodes are told.
fn told_elsewhere(outcome: &Outcome) -> SharedResult {
    match outcome {
        Err(error) => SharedResult::Failed(error.number()),
        Ok(landed) => {
            let content_type = landed.answer.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
            SharedResult::Answer(landed.answer.status.as_u16(), content_type, landed.shared.clone())
        }
    }
}

/// Whether a body has a reference (JSON text with its quotes) anywhere in it. One of two letters could be any two
/// letters, and tells nothing.
fn quotes(body: &JsonTemplate, reference: &[u8]) -> bool {
    let bare = reference.get(1..reference.len().saturating_sub(1)).unwrap_or_default();
    bare.len() > 2 && memchr::memmem::find(&body.with(None), bare).is_some()
}

/// The reply from an entry.
pub(super) fn from_entry(
    hit: &Hit,
    reference: Option<&[u8]>,
    route: RouteName,
    record: &mut Record,
) -> Response<ReplyBody> {
    // That a request is pending is no stored result: it is another's call, which goes on.
    let pending = hit.entry.pending && route == RouteName::Bank;
    let (outcome, saved, report) = if pending {
        (CacheOutcome::Shared, Saved::Shared, Report::Pending)
    } else {
        (CacheOutcome::Hit, Saved::Hit, Report::Hit { ttl: hit.ttl })
    };
    record.cache = outcome;
    record.metrics().saved(route, saved);
    let mut response = stored(hit, reference, report);
    if !pending {
        response.headers_mut().insert(AGE, HeaderValue::from(hit.age.as_secs()));
    }
    response
}

/// The reply from an entry that is past its lifetime.
fn from_stale(hit: &Hit, reference: Option<&[u8]>, route: RouteName, record: &mut Record) -> Response<ReplyBody> {
    record.cache = CacheOutcome::Stale;
    record.metrics().saved(route, Saved::Hit);
    let mut response = stored(hit, reference, Report::Stale { by: hit.age.saturating_sub(hit.entry.lifetime) });
    response.headers_mut().insert(AGE, HeaderValue::from(hit.age.as_secs()));
    response
}

fn stored(hit: &Hit, reference: Option<&[u8]>, report: Report) -> Response<ReplyBody> {
    let body = ReplyBody::full(hit.entry.body.with(reference));
    let mut response = bare(hit.entry.status, hit.entry.content_type.as_ref(), body);
    response.headers_mut().insert(CACHE_STATUS, report.header());
    response
}

/// The reply to who made the call: upstream's answer as it came.
pub(super) fn brought(
    landed: &FetchResult,
    report: Report,
    outcome: CacheOutcome,
    record: &mut Record,
) -> Response<ReplyBody> {
    record.cache = outcome;
    record.upstream_took = Some(landed.took);
    record.upstream_status = Some(landed.answer.status.as_u16());
    let body = ReplyBody::full(landed.answer.body.clone());
    let mut response = whole(landed.answer.status, landed.answer.headers.clone(), body);
    response.headers_mut().insert(CACHE_STATUS, report.header());
    response
}

/// The reply to who waited for another's call, with nothing in it of the other.
fn collapsed(answer: &Collected, body: Bytes, route: RouteName, record: &mut Record) -> Response<ReplyBody> {
    record.cache = CacheOutcome::Collapsed;
    record.metrics().saved(route, Saved::Collapsed);
    let mut response = bare(answer.status, answer.headers.get(CONTENT_TYPE), ReplyBody::full(body));
    response.headers_mut().insert(CACHE_STATUS, Report::Collapsed.header());
    response
}

fn bare(status: StatusCode, content_type: Option<&HeaderValue>, body: ReplyBody) -> Response<ReplyBody> {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    whole(status, headers, body)
}
