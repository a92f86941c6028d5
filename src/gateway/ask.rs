//! Rows that are read and cached: from memory, from a call that is under way, or from upstream.

use super::fetch::{CACHE_STATUS, from_entry};
use super::forward::passed_on;
use super::owners::Asker;
use super::record::Record;
use super::runtime::RuntimeConfig;
use super::{Gateway, account_of};
use crate::base::json_template::Absent;
use crate::cache::{CacheSlot, Report, Scope, Subject};
use crate::iluma::person::Tag;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::{References, Route};
use crate::reference::{self, Ambiguity, Directives, Question, ReferencePrefix};
use crate::reply::{Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use crate::tenant::Tenant;
use crate::upstream::{Outgoing, OutgoingBody};
use bytes::Bytes;
use http::header::{self, ACCEPT_ENCODING, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use std::collections::BTreeSet;
use std::sync::Arc;

const MAGIC_REPLY: &str = "magic-reply";
const NO_STORE: &str = "no-store";

/// A question that the cache may answer.
pub(super) struct Ask {
    pub(super) place: CacheSlot,
    pub(super) route: RouteName,
    pub(super) directives: Directives,
    /// The caller's, as JSON text.
    pub(super) reference: Option<Bytes>,
    /// Whose call it is, by index; none for health.
    pub(super) tenant: Option<usize>,
    /// Whose credential the call carries, by index; none for health.
    pub(super) account: Option<usize>,
    pub(super) outgoing: Outgoing,
    /// Whom the question names.
    pub(super) tags: BTreeSet<Tag>,
    /// Who comes to own what it is answered with, where that is a record.
    pub(super) asker: Option<Asker>,
    /// What its reference is sealed with toward upstream.
    pub(super) seal: Option<ReferencePrefix>,
    /// Why the cache is left out of it, if it is.
    pub(super) bypass: Option<&'static str>,
}

impl Gateway {
    /// A bank or watchlist question.
    pub(super) async fn answer(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        (route, subject): (Route, Subject),
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let timeouts = live.upstream.timeouts();
        let (parts, body) = request.into_parts();
        let body = reference::read(body, timeouts.idle, timeouts.answer).await?;
        record.request_bytes = body.len() as u64;
        let is_prefixed = route.name.spec().references == References::Prefixed;
        let question = match Question::parse(&parts.headers, &body) {
            Ok(question) => question,
            // Malformed or unreadable: on a row without references that is upstream's to judge.
            Err(_) if !is_prefixed => Question::unreadable(),
            Err(error) => return Err(error.into()),
        };
        let directives = Directives::of(&parts.headers);
        let bypass = bypass(&parts.headers, &question, directives);
        if self.cache.is_behind() {
            self.cache.confirm(&record.redis).await;
        }
        let place = self.cache.place(&scope_of(tenant), subject, route.target.as_str(), &question.parameters);

        let asker = is_prefixed.then(|| asker(tenant, &route, record));
        // A hit needs no more. What comes after is large and has a call to wait for: on the heap it does not weigh on
        // every request.
        if bypass.is_none()
            && !directives.no_cache
            && let Some(hit) = self.cache.look_up(&place, directives.max_age)
            && !hit.entry.pending
        {
            if let Some(asker) = &asker {
                self.own_hit(asker, &hit, question.reference.as_deref(), &record.redis).await;
            }
            return Ok(from_entry(&hit, question.reference.as_deref(), route.name, record));
        }
        let tags = self.named(&parts.headers, &body);
        let (method, mut headers) = (parts.method, parts.headers);
        readable(&mut headers);
        let seal = live.seal(tenant).filter(|_| is_prefixed).map(|(seal, _)| seal);
        let sealed = seal.as_ref().and_then(|seal| question.seal(seal, Absent::Insert));
        let (body, repeatable) = (OutgoingBody::Full(Some(sealed.unwrap_or(body))), false);
        let outgoing = Outgoing { method, target: route.target, headers, body, repeatable };
        if let Some(detail) = bypass
            && !is_prefixed
        {
            return Box::pin(self.bypass(live, tenant, route.name, outgoing, directives, detail, record)).await;
        }
        let (reference, account) = (question.reference, Some(tenant.account_index));
        let (route, tenant) = (route.name, Some(tenant.index));
        let ask = Ask { place, route, directives, reference, tenant, account, outgoing, tags, asker, seal, bypass };
        Box::pin(self.ask(live, ask, record)).await
    }

    /// Whom a question names.
    fn named(&self, headers: &HeaderMap, body: &Bytes) -> BTreeSet<Tag> {
        let is_form = |kind: &HeaderValue| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form");
        if headers.get(CONTENT_TYPE).is_some_and(is_form) {
            let fields: Vec<_> = form_urlencoded::parse(body).collect();
            return self.persons.in_fields(fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        }
        self.persons.in_json(body)
    }

    /// A public list, the same for every tenant of an account.
    pub(super) async fn list(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        (route, subject): (Route, Subject),
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let (scope, mut headers) = (Scope::shared(&tenant.account), request.into_parts().0.headers);
        let (directives, magic) = (Directives::of(&headers), reference::is_magic(&headers));
        readable(&mut headers);
        if magic {
            let outgoing = look(route.target, headers);
            return self.bypass(live, tenant, route.name, outgoing, directives, MAGIC_REPLY, record).await;
        }
        self.ask(live, self.plain(&scope, subject, Some(tenant), directives, route, headers), record).await
    }

    /// A call that the cache is left out of.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own, and there is one caller for each row")]
    pub(super) async fn bypass(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        route: RouteName,
        outgoing: Outgoing,
        directives: Directives,
        detail: &'static str,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        if directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        record.cache = CacheOutcome::Bypass;
        let response = self.send(live, tenant, route, outgoing, record).await?;
        let account = account_of(live, tenant);
        let mut response = passed_on(response, &account.credential, live.upstream.timeouts().answer).await?;
        response.headers_mut().insert(CACHE_STATUS, Report::Bypass { detail }.header());
        Ok(response)
    }

    /// Upstream's health, which has no account and needs no key.
    pub(super) async fn health(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        route: Route,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        // Who needs no key has no say in what is sent, nor in how often: no query, no header, no directive counts.
        let route = Route { target: PathAndQuery::from_static("/health"), ..route };
        // Any account names the one upstream that all of them share.
        let account = live.accounts.first().ok_or(Rejection::Internal)?;
        let (scope, headers) = (Scope::shared(&account.name), HeaderMap::new());
        let directives = Directives::default();
        self.ask(live, self.plain(&scope, Subject::Health, None, directives, route, headers), record).await
    }

    /// A GET whose answer is the same for everybody in `scope`.
    pub(super) fn plain(
        &self,
        scope: &Scope<'_>,
        subject: Subject,
        tenant: Option<&Tenant>,
        directives: Directives,
        route: Route,
        headers: HeaderMap,
    ) -> Ask {
        let place = self.cache.place(scope, subject, route.target.as_str(), &[]);
        let outgoing = look(route.target, headers);
        let (tenant, account) = (tenant.map(|tenant| tenant.index), tenant.map(|tenant| tenant.account_index));
        Ask {
            place,
            route: route.name,
            directives,
            reference: None,
            tenant,
            account,
            outgoing,
            tags: BTreeSet::new(),
            asker: None,
            seal: None,
            bypass: None,
        }
    }
}

/// A GET that only looks; HEAD is answered from its answer.
pub(super) fn look(target: PathAndQuery, headers: HeaderMap) -> Outgoing {
    Outgoing { method: Method::GET, target, headers, body: OutgoingBody::Empty, repeatable: true }
}

/// The team as who asks on this row.
pub(super) fn asker(tenant: &Tenant, route: &Route, record: &Record) -> Asker {
    Asker {
        tenant: tenant.name.clone(),
        account: tenant.account.clone(),
        kind: route.callback_type(),
        asked: record.asked(),
    }
}

/// Whom the entries that a tenant's questions make may serve.
fn scope_of(tenant: &Tenant) -> Scope<'_> {
    if tenant.share_cache { Scope::shared(&tenant.account) } else { Scope::private(&tenant.account, &tenant.name) }
}

/// Why the cache is left out of it, if it is.
fn bypass(headers: &HeaderMap, question: &Question, directives: Directives) -> Option<&'static str> {
    if reference::is_magic(headers) {
        return Some(MAGIC_REPLY);
    }
    match question.ambiguity {
        Some(Ambiguity::DuplicateMember) => Some("duplicate-member"),
        Some(Ambiguity::Nesting) => Some("nesting"),
        Some(Ambiguity::Unreadable) => Some("unreadable"),
        None => directives.no_store.then_some(NO_STORE),
    }
}

/// Takes from a request's head what would make the answer one for this caller alone, or one that can't be read.
pub(super) fn readable(headers: &mut HeaderMap) {
    reference::forwardable_request(headers);
    for name in [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::TE,
        header::TRAILER,
        // The body has been read, and is sent in one piece.
        header::CONTENT_LENGTH,
    ] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}
