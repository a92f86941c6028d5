//! The request path: from a request's head to its answer, stage by stage.
//!
//! Invariants: every request leaves one record (`record`); nothing is sent to upstream for a request that was not
//! authenticated and admitted (but health, which carries no credential); a call that was wholly sent is finished even
//! if nobody waits for it any more.

mod admit;
mod ask;
mod fetch;
mod forward;
mod owners;
mod record;
mod records;
mod runtime;
mod settings;
mod usage;

pub use record::{Recorded, Telemetry};

use crate::base::clock::Clock;
use crate::base::keyring::Keyring;
use crate::base::tasks::Tasks;
use crate::cache::{Cache, SingleFlight};
use crate::callback::Callbacks;
use crate::config::Settings;
use crate::iluma::person::Persons;
use crate::iluma::routes::{Kind, Route};
use crate::ledger::Ledger;
use crate::limit::Nodes;
use crate::redis::client::RedisClient;
use crate::reply::{Rejection, ReplyBody};
use crate::state::State;
use crate::telemetry::metrics;
use crate::tenant::Tenant;
use crate::upstream::CallError;
use arc_swap::ArcSwap;
use fetch::{FetchResult, OvertakingCallbacks};
use futures_util::FutureExt as _;
use http::header::ALLOW;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use owners::Owners;
use record::Record;
use runtime::RuntimeConfig;
use secrecy::ExposeSecret as _;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Everything a request meets on its way.
#[derive(Debug)]
pub struct Gateway {
    live: ArcSwap<RuntimeConfig>,
    cache: Arc<Cache>,
    callbacks: Arc<Callbacks>,
    owners: Owners,
    flights: SingleFlight<Result<Arc<FetchResult>, CallError>>,
    early: OvertakingCallbacks,
    persons: Persons,
    telemetry: Arc<Telemetry>,
    ledger: Ledger,
    nodes: Option<Nodes>,
    clock: Clock,
    /// Calls that nobody may wait for any more.
    tasks: Tasks,
    /// Upstream connections that serve several requests.
    connections: Tasks,
}

/// What a gateway shares with others who serve beside it.
#[derive(Debug)]
pub struct Parts {
    /// Where nodes share the cache.
    pub link: Option<RedisClient>,
    /// Tells persons apart, and nobody who they are.
    pub persons: Persons,
    /// Everything about callbacks.
    pub callbacks: Arc<Callbacks>,
    /// What must not be lost.
    pub state: State,
    /// Where calls are booked.
    pub ledger: Ledger,
    /// Where nodes share limits.
    pub nodes: Option<Nodes>,
}

impl Gateway {
    /// A gateway that serves what `settings` say. `tasks` finishes calls whose client went away.
    ///
    /// # Errors
    /// The machine has no usable trust store for upstream's certificate.
    pub fn new(settings: &Settings, telemetry: Telemetry, tasks: Tasks, parts: Parts) -> Result<Self, rustls::Error> {
        let root = settings.state.root_key.expose_secret();
        let shared = parts
            .link
            .map(|link| (link, Keyring::new(&settings.state.encryption_keys), parts.ledger.node().to_owned()));
        let clock = telemetry.clock.clone();
        let connections = Tasks::new();
        let live = RuntimeConfig::new(
            settings,
            None,
            &telemetry.metrics,
            &clock,
            &connections,
            &parts.ledger,
            parts.nodes.as_ref(),
        )?;
        Ok(Self {
            live: ArcSwap::from_pointee(live),
            cache: Arc::new(Cache::new(&settings.cache, &settings.upstream.base_url, root, shared, clock.clone())),
            callbacks: parts.callbacks,
            owners: Owners::new(parts.state, settings.state.retention.owners),
            flights: SingleFlight::new(),
            early: fetch::none_early(),
            persons: parts.persons,
            telemetry: Arc::new(telemetry),
            ledger: parts.ledger,
            nodes: parts.nodes,
            clock,
            tasks,
            connections,
        })
    }

    /// Goes over to other settings. Requests in flight end under the old ones; cache, counters and limits go on.
    ///
    /// # Errors
    /// As [`Gateway::new`]; then everything stays as it is.
    pub fn reload(&self, settings: &Settings) -> Result<(), rustls::Error> {
        let previous = self.live.load_full();
        let metrics = &self.telemetry.metrics;
        let live = RuntimeConfig::new(
            settings,
            Some(&previous),
            metrics,
            &self.clock,
            &self.connections,
            &self.ledger,
            self.nodes.as_ref(),
        )?;
        self.ledger.reload(settings);
        self.cache.reload(&settings.cache, &settings.upstream.base_url);
        self.live.store(Arc::new(live));
        Ok(())
    }

    /// Closes upstream connections that carry no request, before the end.
    pub fn close(&self) {
        self.live.load().upstream.close();
    }

    /// Work to be done from time to time: closes upstream connections that nobody uses, tells metrics what changes with
    /// the time.
    pub fn sweep(&self) {
        let live = self.live.load();
        live.upstream.sweep();
        live.tell();
    }

    /// Tells other nodes what this one sees, where there are any. Called once a second.
    pub async fn beat(&self) {
        let live = self.live.load_full();
        live.limits.beat().await;
    }

    /// Leaves the other nodes, so that they take this one's part at once.
    pub async fn leave(&self) {
        let live = self.live.load_full();
        live.limits.leave().await;
    }

    /// Writes down what need not be written at once, until it is stopped.
    pub async fn keep_owners(&self) {
        self.owners.keep().await;
    }

    /// What is remembered.
    #[must_use]
    pub const fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Answers one request, whatever it is.
    ///
    /// # Errors
    /// None.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Recorded>, Infallible> {
        let live = self.live.load_full();
        let mut record =
            Record::open(&self.telemetry, &live.nobody, request.method(), request.headers(), live.redis_timeout);
        let head = request.method() == Method::HEAD;
        // A panic is a bug, and must stay one request's.
        let served = AssertUnwindSafe(self.serve(&live, request, &mut record)).catch_unwind().await;
        let mut response = served.unwrap_or(Err(Rejection::Internal)).unwrap_or_else(|rejection| {
            record.reason = Some(rejection.reason());
            if let Rejection::Refused(crate::limit::Refusal::Exceeded { limit, .. }) = rejection {
                record.metrics().limited(match limit {
                    crate::limit::Limit::Requests => metrics::Limit::Requests,
                    crate::limit::Limit::InFlight => metrics::Limit::InFlight,
                    crate::limit::Limit::Account => metrics::Limit::Account,
                    crate::limit::Limit::QuotaDay => metrics::Limit::QuotaDay,
                    crate::limit::Limit::QuotaMonth => metrics::Limit::QuotaMonth,
                });
            }
            rejection.into_response()
        });
        if head {
            forward::without_body(&mut response);
        }
        Ok(record.reply(response))
    }

    /// A request's way.
    async fn serve(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("*"));
        let route = live.table.find(request.method(), &target)?;
        record.route = route.name;
        if let Kind::Health(_) = route.kind {
            record.hold(live.limits.admit_anonymous()?);
            return Box::pin(self.health(live, route, record)).await;
        }

        let tenant = live.tenants.authenticate(request.headers())?;
        record.is_of(&tenant.name, &live.metrics[tenant.index], &live.tallies[tenant.index]);
        live.permit(tenant, request.method(), &route)?;
        record.hold(live.limits.admit(tenant.index)?);

        match route.kind {
            Kind::CachedQuestion(subject) => self.answer(live, tenant, request, (route, subject), record).await,
            Kind::CachedRecord(subject) => {
                Box::pin(self.look_at(live, tenant, request, (route, subject), record)).await
            }
            Kind::Submission => Box::pin(self.submit(live, tenant, request, route, record)).await,
            Kind::Records => Box::pin(self.records(live, tenant, request, route, record)).await,
            Kind::File => Box::pin(self.file(live, tenant, request, route, record)).await,
            Kind::PublicList(subject) => Box::pin(self.list(live, tenant, request, (route, subject), record)).await,
            Kind::OwnApi => Box::pin(self.usage(live, tenant)).await,
            Kind::Options => Ok(describe(live, &route)),
            Kind::CallbackSetting => Box::pin(self.settings(live, tenant, request, route, record)).await,
            Kind::Streamed | Kind::Unknown => Box::pin(self.forward(live, tenant, request, route, record)).await,
            // Answered above.
            Kind::Health(_) | Kind::Forbidden => Err(Rejection::Forbidden),
        }
    }
}

/// The methods of a path that some row knows.
fn describe(live: &RuntimeConfig, route: &Route) -> Response<ReplyBody> {
    let mut methods = live.table.methods(&route.target).unwrap_or_default();
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods.push(Method::OPTIONS);
    let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The account whose credential a tenant's calls carry.
fn account_of<'a>(live: &'a RuntimeConfig, tenant: &Tenant) -> &'a runtime::Account {
    &live.accounts[tenant.account_index]
}
