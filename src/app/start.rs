//! The start of a gateway, stage by stage.

use super::environment::Environment;
use super::error::StartError;
use super::listeners::Listeners;
use super::node::{App, Stages};
use super::node_facts::{FactCollector, NodeEvents};
use super::observe::{DELIVERIES, hooks, observe, observe_certificates, observe_ledger, observe_state, secrets};
use super::redis_clients::{REDIS_TIMEOUT, RedisClients};
use super::reload::fixed;
use super::stage::LAST_MOMENT;
use super::storage::Storage;
use crate::admin::{Admin, BudgetUse, Build, Collect, Orders};
use crate::base::auth_failures::AuthFailures;
use crate::base::clock::Clock;
use crate::cache::{Change, DiskLevel, Follow};
use crate::callback::{Arrived, Callbacks};
use crate::config::Settings;
use crate::gateway::{Gateway, Parts, Telemetry};
use crate::iluma::person::Persons;
use crate::limit::Nodes;
use crate::redis::Budget;
use crate::reply::Reason;
use crate::server::file_descriptors;
use crate::state::{Registry, State};
use crate::telemetry::logs::{self, AccessLog, LogWriter};
use crate::telemetry::metrics::{Metrics, families};
use crate::telemetry::redact::Redactor;
use crate::telemetry::traces::Tracer;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;
use strum::VariantArray as _;
use tokio::sync::mpsc;

/// The time between two heartbeats. With a heartbeat, the nodes exchange how much of the limits they use.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The program's revision, or `unknown` if the build does not name it.
const REVISION: &str = match option_env!("ILUMA_GATEWAY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Logs, metrics and clock, which every other part gets.
struct Instruments {
    redactor: Redactor,
    access: AccessLog,
    logs: Vec<LogWriter>,
    metrics: Metrics,
    clock: Clock,
}

impl Instruments {
    fn new(settings: &Settings, environment: Environment) -> Result<Self, StartError> {
        let redactor = Redactor::new(secrets(settings));
        let (access, log) = AccessLog::start(environment.access_log, redactor.clone())?;
        let mut logs = vec![log];
        if environment.diagnostics {
            logs.extend(logs::diagnostics(settings.log.level, redactor.clone())?);
            raise_file_descriptors(settings);
        }
        let metrics = Metrics::new(VERSION, REVISION);
        metrics.config_applied(environment.clock.wall());
        Ok(Self { redactor, access, logs, metrics, clock: environment.clock })
    }
}

impl App {
    /// Binds the listeners and serves in the background.
    ///
    /// # Errors
    /// Returns an error if the system, the state, or a Redis refuses the settings. All parts that were started are
    /// stopped then.
    pub async fn start(settings: &Settings, environment: Environment) -> Result<Self, StartError> {
        let instruments = Instruments::new(settings, environment)?;
        let redis_clients = RedisClients::new(settings)?;
        let storage = Storage::open(settings, &instruments.clock, &redis_clients).await?;
        let (stages, database) = (Stages::default(), storage.database.clone());
        let (background, connections) = (stages.background.clone(), stages.redis_clients.clone());
        let started = wire(settings, instruments, redis_clients, storage, stages).await;
        if started.is_err() {
            connections.ask_to_stop();
            background.end(LAST_MOMENT).await;
            connections.end(LAST_MOMENT).await;
            database.close().await;
        }
        started
    }
}

/// Wires the parts together, reads the data that all nodes share, and serves.
async fn wire(
    settings: &Settings,
    instruments: Instruments,
    redis_clients: RedisClients,
    storage: Storage,
    stages: Stages,
) -> Result<App, StartError> {
    let Instruments { redactor, access, logs, metrics, clock } = instruments;
    let tracer = tracer(settings, &metrics, &stages)?;
    let failures = auth_failures(settings, &metrics, &clock);
    let events = NodeEvents::new(settings, &clock);
    let persons = Persons::new(settings.state.root_key.expose_secret());
    let (callbacks, inflow, arrivals) = Callbacks::new(
        settings,
        storage.state.clone(),
        hooks((&metrics, &tracer), &persons, (&storage.registry, &failures), (&events, &storage.ledger)),
        clock.clone(),
    )?;
    let parts = Parts {
        redis: redis_clients.cache.clone(),
        disk: DiskLevel::open(&storage.database, settings, &clock).await?,
        persons: persons.clone(),
        callbacks: Arc::clone(&callbacks),
        state: storage.state.clone(),
        registry: storage.registry.clone(),
        audit: storage.audit.clone(),
        failures: failures.clone(),
        ledger: storage.ledger.clone(),
        nodes: redis_clients.main.clone().map(|redis| Nodes::new(redis, storage.ledger.node())),
    };
    let live = access.live();
    let telemetry = Telemetry { access, metrics: metrics.clone(), tracer: tracer.clone(), clock: clock.clone() };
    let gateway = Arc::new(Gateway::new(settings, telemetry, stages.leftovers.clone(), parts)?);
    join_registry(&gateway, &storage.registry);
    catch_up(settings, (&gateway, arrivals), &redis_clients, &storage, &stages).await?;

    let orders = orders(settings, (&gateway, &callbacks), &storage, (&failures, persons));
    let telemetry = (metrics.clone(), live);
    let admin = Arc::new(Admin::new(settings, telemetry, orders, storage.ledger.clone(), clock.clone()));
    observe(&metrics, &gateway, &logs, &redactor, &redis_clients);
    observe_storage(settings, &metrics, &storage);

    let listeners = Listeners::bind(settings).await?;
    let sockets = listeners.sockets()?;
    observe_certificates(&metrics, sockets.handles());
    let facts =
        FactCollector::new(settings, (&gateway, &clock), (&redis_clients, &storage), sockets.handles(), events.clone());
    report(&admin, facts, &storage, &stages);
    let app = App {
        gateway,
        admin,
        callbacks,
        failures,
        metrics,
        tracer,
        clock,
        redactor,
        known_secrets: Mutex::new(secrets(settings)),
        sockets,
        events,
        drain_timeout: settings.server.drain_timeout,
        fixed: fixed(settings),
        storage,
        stages,
        logs,
    };
    app.callbacks.run(inflow, &app.stages.deliveries, &app.stages.servers.stop());
    app.serve(listeners);
    let (server, admin, callbacks) = (app.server_address(), app.admin_address(), app.callbacks_address());
    let status = app.status_address().map(tracing::field::display);
    tracing::info!(%server, %admin, %callbacks, status, "listening");
    Ok(app)
}

/// Makes the counters of wrong credentials, and connects metrics to them.
fn auth_failures(settings: &Settings, metrics: &Metrics, clock: &Clock) -> AuthFailures {
    let failures = AuthFailures::new(settings.max_auth_failures, clock);
    let counted = failures.clone();
    metrics.read(&families::AUTH_FAILURES, move || counted.counts());
    failures
}

/// Starts the exporter of spans, if a collector is configured. The exporter ends with the stage `background`, after the
/// last request.
fn tracer(settings: &Settings, metrics: &Metrics, stages: &Stages) -> Result<Tracer, StartError> {
    let background = &stages.background;
    let tracer = match &settings.otlp {
        Some(otlp) => Tracer::start(otlp, &settings.node, background.tasks(), background.stop())?,
        None => Tracer::default(),
    };
    let counts = tracer.counts();
    metrics.read(&families::SPANS, move || counts.all().to_vec());
    Ok(tracer)
}

/// Returns the parts that operators' orders use.
fn orders(
    settings: &Settings,
    (gateway, callbacks): (&Arc<Gateway>, &Arc<Callbacks>),
    storage: &Storage,
    (failures, persons): (&AuthFailures, Persons),
) -> Orders {
    let spending = Arc::downgrade(gateway);
    Orders {
        budgets: BudgetUse::new(move |tenant| spending.upgrade().map_or(0, |gateway| gateway.budget_used(tenant))),
        cache: Arc::clone(gateway.cache()),
        state: storage.state.clone(),
        callbacks: Arc::clone(callbacks),
        audit: storage.audit.clone(),
        erasures: storage.erasures.clone(),
        node: settings.node.clone(),
        failures: failures.clone(),
        registry: storage.registry.clone(),
        persons,
    }
}

/// Connects metrics to state and the ledger. Also makes the counters of refusal reasons and of each team's deliveries
/// appear in the output from the start, at 0.
fn observe_storage(settings: &Settings, metrics: &Metrics, storage: &Storage) {
    metrics.gateway_error_reasons(Reason::VARIANTS.iter().map(|reason| reason.into_str()));
    metrics.callback_outcomes(settings.tenants.keys(), &DELIVERIES);
    observe_state(metrics, &storage.state, &settings.state);
    observe_ledger(metrics, &storage.ledger);
}

/// Starts the node's reports about itself, for operators and for the other nodes.
fn report(admin: &Arc<Admin>, facts: FactCollector, storage: &Storage, stages: &Stages) {
    let facts = Arc::new(facts);
    admin.collect_by(Collect {
        facts: Box::new(move || {
            let facts = Arc::clone(&facts);
            Box::pin(async move { facts.collect().await })
        }),
        membership: storage.membership.clone(),
        build: Build { version: VERSION, revision: REVISION },
    });
    let reporter = Arc::clone(admin);
    stages.background.spawn_until_end(async move { reporter.keep_reporting().await });
}

/// Connects to Redis, joins the other nodes, and reads the data that all nodes share. Also starts the background work
/// that needs this data.
async fn catch_up(
    settings: &Settings,
    (gateway, arrivals): (&Arc<Gateway>, mpsc::Receiver<Arrived>),
    redis_clients: &RedisClients,
    storage: &Storage,
    stages: &Stages,
) -> Result<(), StartError> {
    redis_clients.keep(&stages.redis_clients);
    keep_owners_and_answers(gateway, arrivals, stages);
    redis_clients.await_them().await?;
    storage.take_place().await?;
    // Keys that were made while this node was down work from its first request on.
    storage.registry.follow().await;
    end_interrupted_orders(storage).await;
    storage.keep(&stages.background);
    // This node first learns the epochs of the other nodes. With another epoch it would find none of their stored
    // entries.
    gateway.cache().confirm(&Budget::of(REDIS_TIMEOUT)).await;
    for warning in redis_clients.durability_warnings(&storage.state).await {
        tracing::warn!(warning, "Redis may lose state");
    }
    renew_callback_urls(settings, &storage.state, stages);
    keep_heartbeat(gateway, stages).await;
    Ok(())
}

/// Writes the outcome `interrupted` to the audit log for the orders that were running when an earlier process of this
/// node ended.
async fn end_interrupted_orders(storage: &Storage) {
    match storage.audit.end_interrupted().await {
        Ok(0) => {}
        Ok(orders) => tracing::warn!(
            orders,
            "operators' orders were interrupted when the gateway last ended: see GET /v1/audit, and give them again"
        ),
        Err(error) => {
            tracing::warn!(%error, "the audit log can't be read: interrupted orders are still noted as begun")
        }
    }
}

/// Connects the registry of keys with the cache, through which nodes announce changes to each other. This node's
/// changes of keys are announced like purges, and the other nodes' changes reach this registry.
fn join_registry(gateway: &Arc<Gateway>, registry: &Registry) {
    // The cache and the registry refer to each other, so one of the references must be weak.
    let cache = Arc::downgrade(gateway.cache());
    registry.announce_by(Box::new(move || {
        let cache = cache.upgrade();
        Box::pin(async move {
            match cache {
                Some(cache) => cache.change(&Change::Registry).await.left,
                None => Vec::new(),
            }
        })
    }));
    let registry = registry.clone();
    gateway.cache().follow_registry_by(Follow(Box::new(move || {
        let registry = registry.clone();
        Box::pin(async move { registry.follow().await })
    })));
}

/// Starts the background work of the cache, of record owners and of idempotency claims. Also starts the task that
/// stores answers from arriving callbacks in the cache.
fn keep_owners_and_answers(gateway: &Arc<Gateway>, arrivals: mpsc::Receiver<Arrived>, stages: &Stages) {
    let background = &stages.background;
    gateway.cache().keep(background.tasks(), background.stop());
    let [learner, owners, claims] = [(); 3].map(|()| Arc::clone(gateway));
    background.spawn_until_end(async move { owners.keep_owners().await });
    background.spawn_until_end(async move { claims.free_claims().await });
    background.spawn_until_end(async move { learner.learn(arrivals).await });
}

/// Reads every team's callback URLs. A URL under an old encryption key is encrypted with the newest key when it is
/// read, so the old key can be removed.
fn renew_callback_urls(settings: &Settings, state: &State, stages: &Stages) {
    let (teams, state) = (settings.tenants.keys().cloned().collect::<Vec<_>>(), state.clone());
    stages.background.spawn_until_end(async move {
        for team in teams {
            // URLs that can't be read now are read when a callback arrives for that team.
            let _ = state.urls(&team).await;
        }
    });
}

/// Exchanges the use of limits with the other nodes, at once and then every second. Also takes over a back-off that
/// another node has begun, changed or ended.
async fn keep_heartbeat(gateway: &Arc<Gateway>, stages: &Stages) {
    gateway.heartbeat().await;
    let (gateway, follower) = (Arc::clone(gateway), Arc::clone(gateway));
    stages.background.spawn_until_end(async move { follower.follow_backoff().await });
    stages.background.spawn_until_end(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            gateway.heartbeat().await;
        }
    });
}

/// Raises the process's limit of open files and sockets, and logs it.
fn raise_file_descriptors(settings: &Settings) {
    // The process needs a descriptor for each client's connection, one to Iluma for each request in flight, and some
    // for files, Redis and endpoints.
    let needed = (settings.server.max_connections + settings.server.max_in_flight + 256) as u64;
    match file_descriptors::raise() {
        Ok(file_descriptors::Limit { before, now }) if now < needed => tracing::warn!(
            limit = now,
            before,
            needed,
            "the limit of open files is lower than server.max_connections and max_in_flight need; raise the hard limit \
             (LimitNOFILE, ulimit -Hn), or lower these two settings"
        ),
        Ok(file_descriptors::Limit { before, now }) => {
            tracing::info!(limit = now, before, "raised the limit of open files")
        }
        Err(error) => {
            tracing::warn!(%error, needed, "cannot raise the limit of open files (RLIMIT_NOFILE): raise it outside (LimitNOFILE, ulimit -n)")
        }
    }
}
