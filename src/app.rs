//! The composition root: the only place that wires parts together.

pub mod preflight;

use crate::admin::{Admin, Orders};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError, OpenError};
use crate::base::disk::Disk;
use crate::base::tasks::Tasks;
use crate::base::web;
use crate::cache::{Cache, Counts};
use crate::callback::{self, Attempt, Callbacks, Hooks, Note, Skipped};
use crate::config::{Faults, RedisTarget, Settings};
use crate::gateway::{Gateway, Parts, Telemetry};
use crate::iluma::person::Persons;
use crate::ledger::{self, Ledger};
use crate::limit::Nodes;
use crate::redis::diagnosis::Cause;
use crate::redis::{Budget, KeySpace, RedisClient};
use crate::server::{Bounds, Events, Server, TlsHandle, file_descriptors};
use crate::state::{self, Membership, Sentinels, Sqlite, State};
use crate::telemetry::logs::{self, AccessLog, LogWriter};
use crate::telemetry::metrics::{Counted, Listener, Metrics, Reload, families};
use crate::telemetry::redact::Redactor;
use hyper::service::service_fn;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often idle upstream connections are looked over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long a start waits for Redis: where all is well it is there at once, and where it is not the gateway serves without.
const REDIS_PATIENCE: Duration = Duration::from_secs(1);

/// How often nodes tell each other what they see.
const BEAT: Duration = Duration::from_secs(1);

/// What ending takes where all is well, beside the time that requests in flight are given.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The outcomes of deliveries, each of which metrics show from the start.
const DELIVERIES: [&str; 6] = [
    Attempt::Delivered.as_str(),
    Attempt::Failed.as_str(),
    Attempt::Dead.as_str(),
    Skipped::NoUrl.as_str(),
    Skipped::Overflow.as_str(),
    Skipped::Dropped.as_str(),
];

/// What an app needs beside its settings.
pub struct Environment {
    /// Where access log lines go.
    pub access_log: Box<dyn Write + Send>,
    /// The time.
    pub clock: Clock,
    /// Whether the process is the app's own, so that its diagnostics and panics are written as the app's are.
    pub diagnostics: bool,
}

impl Environment {
    /// Those of a process that serves: standard output and the machine's time.
    #[must_use]
    pub fn of_process() -> Self {
        Self { access_log: Box::new(io::stdout()), clock: Clock::system(), diagnostics: true }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Why an app does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be bound.
    #[error("{key}: can't listen on {address}: {source}")]
    Bind {
        /// The key that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The configuration.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// The machine's trust store.
    #[error("upstream: {0}")]
    Tls(#[from] rustls::Error),
    /// What the embedded database holds.
    #[error("state.path: {0}")]
    Database(#[from] DatabaseError),
    /// The address of a Redis or its certificates.
    #[error("state.redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// A Redis that cannot be used.
    #[error("{key}: {cause}")]
    UnusableRedis {
        /// Key of the configuration that names it.
        key: &'static str,
        /// Why.
        cause: Cause,
    },
    /// The embedded database.
    #[error("state.path: {path}: {source}", path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// A key is not the one that state was written with.
    #[error(transparent)]
    Keys(#[from] state::KeyError),
    /// Another process runs with this node's identity.
    #[error("state.path: {0}")]
    Identity(#[from] state::IdentityTaken),
    /// Anything else that the machine refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A gateway that serves.
#[derive(Debug)]
pub struct App {
    gateway: Arc<Gateway>,
    admin: Arc<Admin>,
    callbacks: Arc<Callbacks>,
    metrics: Metrics,
    redactor: Redactor,
    /// The secrets of the settings in effect.
    known_secrets: Mutex<Vec<SecretString>>,
    server_address: SocketAddr,
    admin_address: SocketAddr,
    callbacks_address: SocketAddr,
    server_tls: TlsHandle,
    admin_tls: TlsHandle,
    callbacks_tls: TlsHandle,
    drain_timeout: Duration,
    /// What only a restart changes, as it was at the start.
    fixed: Vec<(&'static str, String)>,
    stop: CancellationToken,
    stop_admin: CancellationToken,
    servers: Tasks,
    admin_server: Tasks,
    leftovers: Tasks,
    ledger: Ledger,
    membership: Option<Membership>,
    database: Database,
    /// What goes on beside requests for as long as there may be some.
    background: Tasks,
    stop_background: CancellationToken,
    /// The connections to Redis, which the others say goodbye by.
    links: Tasks,
    stop_links: CancellationToken,
    /// What fans callbacks out and delivers them.
    relay: Tasks,
    logs: Vec<LogWriter>,
}

impl App {
    /// Binds the listeners and serves in the background.
    ///
    /// # Errors
    /// What the machine refuses.
    pub async fn start(settings: &Settings, surroundings: Environment) -> Result<Self, StartError> {
        let redactor = Redactor::new(secrets(settings));
        let (access, log) = AccessLog::start(surroundings.access_log, redactor.clone())?;
        let mut logs = vec![log];
        if surroundings.diagnostics {
            logs.extend(logs::diagnostics(settings.log.level, redactor.clone())?);
            raise_file_descriptors(settings);
        }
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let leftovers = Tasks::new();
        let clock = surroundings.clock;
        let (background, stop_background) = (Tasks::new(), CancellationToken::new());
        let links = Links::new(settings)?;
        let root = settings.state.root_key.expose_secret();
        let database = open(&settings.state.path)?;
        let ledger = match open_ledger(&database, settings, &clock, links.main.clone()).await {
            Ok(ledger) => ledger,
            Err(error) => {
                // The file's lock ends here, so the next start can take it.
                database.close().await;
                return Err(error);
            }
        };
        let state = match &links.main {
            Some(link) => State::Redis(Arc::new(state::Redis::new(link.clone(), &settings.state, clock.clone()))),
            None => State::Sqlite(Arc::new(Sqlite::new(database.clone(), &settings.state, clock.clone()))),
        };
        let membership = links.main.clone().map(|link| {
            let names = (ledger.node(), settings.node.as_str());
            Membership::new(link, names, state.keyring(), clock.clone())
        });
        let persons = Persons::new(root);
        let hooks = hooks(&metrics, &persons);
        let (callbacks, inflow, arrivals) = Callbacks::new(settings, state.clone(), hooks, clock.clone())?;
        let telemetry = Telemetry { access: access.clone(), metrics: metrics.clone(), clock: clock.clone() };
        let parts = Parts {
            link: links.cache.clone(),
            persons: persons.clone(),
            callbacks: Arc::clone(&callbacks),
            state: state.clone(),
            ledger: ledger.clone(),
            nodes: links.main.clone().map(|link| Nodes::new(link, ledger.node())),
        };
        let gateway = Arc::new(Gateway::new(settings, telemetry, leftovers.clone(), parts)?);
        let (link_tasks, stop_links) = (Tasks::new(), CancellationToken::new());
        links.keep(&link_tasks, &stop_links);
        gateway.cache().keep(&background, stop_background.clone());
        let (learner, owner, books) = (Arc::clone(&gateway), Arc::clone(&gateway), ledger.clone());
        background.spawn_until(&stop_background, async move { owner.keep_owners().await });
        background.spawn_until(&stop_background, async move { learner.learn(arrivals).await });
        let ready = links.await_them().await;
        let placed = if ready.is_ok() { take_place(&state, membership.as_ref()).await } else { ready };
        if let Err(error) = placed {
            stop_links.cancel();
            stop_background.cancel();
            link_tasks.drain(LAST_MOMENT).await;
            background.drain(LAST_MOMENT).await;
            database.close().await;
            return Err(error);
        }
        if let Some(membership) = membership.clone() {
            background.spawn_until(&stop_background, async move { membership.keep().await });
        }
        let kept = membership.clone();
        background.spawn_until(&stop_background, async move { books.keep(kept).await });
        // What is stored before this node knows what the others know is found by nobody.
        gateway.cache().confirm(&Budget::of(REDIS_PATIENCE)).await;
        for concern in links.concerns(&state).await {
            tracing::warn!(concern, "Redis: state may be lost");
        }
        // Looking at them puts what teams set under the newest key, before an old one is retired.
        let (teams, set) = (settings.tenants.keys().cloned().collect::<Vec<_>>(), state.clone());
        background.spawn_until(&stop_background, async move {
            for team in teams {
                // Who can't be asked now is looked at when a callback comes for that team.
                let _ = set.urls(&team).await;
            }
        });
        gateway.beat().await;
        let beating = Arc::clone(&gateway);
        background.spawn_until(&stop_background, async move {
            loop {
                tokio::time::sleep(BEAT).await;
                beating.beat().await;
            }
        });
        let orders = Orders { cache: Arc::clone(gateway.cache()), state: state.clone(), persons };
        let admin = Arc::new(Admin::new(settings, metrics.clone(), orders, ledger.clone()));
        observe(&metrics, &gateway, &logs, &redactor, &links);
        metrics.callback_outcomes(settings.tenants.keys(), &DELIVERIES);
        observe_state(&metrics, &state, &settings.state);

        let bounds = Bounds::new(&settings.server, &settings.upstream);
        let server = bind("server.listen", &settings.server.listener, bounds).await?;
        let admin_server = bind("admin.listen", &settings.admin.listener, bounds).await?;
        let callbacks_server = bind("callbacks.listen", &settings.callbacks.listener, bounds).await?;
        let mut app = Self {
            gateway,
            admin,
            callbacks,
            metrics,
            redactor,
            known_secrets: Mutex::new(secrets(settings)),
            server_address: server.address()?,
            admin_address: admin_server.address()?,
            callbacks_address: callbacks_server.address()?,
            server_tls: server.tls_handle(),
            admin_tls: admin_server.tls_handle(),
            callbacks_tls: callbacks_server.tls_handle(),
            drain_timeout: settings.server.drain_timeout,
            fixed: fixed(settings),
            stop: CancellationToken::new(),
            stop_admin: CancellationToken::new(),
            servers: Tasks::new(),
            admin_server: Tasks::new(),
            leftovers,
            ledger,
            membership,
            database,
            background,
            stop_background,
            links: link_tasks,
            stop_links,
            relay: Tasks::new(),
            logs,
        };
        app.callbacks.run(inflow, &app.relay, &app.stop);
        app.serve(server, admin_server, callbacks_server);
        tracing::info!(
            server = %app.server_address, admin = %app.admin_address, callbacks = %app.callbacks_address, "listening"
        );
        Ok(app)
    }

    fn serve(&mut self, server: Server, admin_server: Server, callbacks_server: Server) {
        let (gateway, metrics) = (Arc::clone(&self.gateway), self.metrics.clone());
        let (stop, drain) = (self.stop.clone(), self.drain_timeout);
        self.servers.spawn(async move {
            let services = move |client| {
                let gateway = Arc::clone(&gateway);
                service_fn(move |request| Arc::clone(&gateway).handle(request, client))
            };
            server.serve(services, Noted(metrics, Listener::Server), stop, drain).await;
        });
        let (admin, metrics, stop) = (Arc::clone(&self.admin), self.metrics.clone(), self.stop_admin.clone());
        self.admin_server.spawn(async move {
            let service = web::service(admin.router());
            admin_server.serve(move |_| service.clone(), Noted(metrics, Listener::Admin), stop, LAST_MOMENT / 2).await;
        });
        let (callbacks, metrics, stop) = (Arc::clone(&self.callbacks), self.metrics.clone(), self.stop.clone());
        self.servers.spawn(async move {
            let service = web::service(callback::inbox(callbacks));
            callbacks_server.serve(move |_| service.clone(), Noted(metrics, Listener::Callbacks), stop, drain).await;
        });
        let (gateway, stop) = (Arc::clone(&self.gateway), self.stop.clone());
        self.servers.spawn(async move {
            let sweep = async {
                loop {
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                    gateway.sweep();
                }
            };
            let _: Option<()> = stop.run_until_cancelled(sweep).await;
        });
    }

    /// Where tenants are served.
    #[must_use]
    pub const fn server_address(&self) -> SocketAddr {
        self.server_address
    }

    /// Where operators are served.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where Iluma's callbacks arrive.
    #[must_use]
    pub const fn callbacks_address(&self) -> SocketAddr {
        self.callbacks_address
    }

    /// Returns the gateway, for a caller that has requests without a socket.
    #[must_use]
    pub const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Goes over to other settings, or says why not; then everything stays as it is.
    ///
    /// # Errors
    /// The machine has no usable trust store for upstream's certificate.
    pub fn reload(&self, settings: &Settings) -> Result<(), rustls::Error> {
        // The new secrets are hidden before anything can use them, and the ones before as long as something may.
        let new = secrets(settings);
        let mut known = self.known_secrets.lock();
        self.redactor.replace(known.iter().chain(&new).cloned().collect());
        self.callbacks.reload(settings)?;
        self.gateway.reload(settings)?;
        *known = new;
        self.admin.reload(settings);
        self.metrics.callback_outcomes(settings.tenants.keys(), &DELIVERIES);
        self.server_tls.replace(settings.server.listener.tls.clone());
        self.admin_tls.replace(settings.admin.listener.tls.clone());
        self.callbacks_tls.replace(settings.callbacks.listener.tls.clone());
        for (now, (key, value)) in fixed(settings).into_iter().zip(&self.fixed) {
            if now.1 != *value {
                tracing::warn!(key, "this change takes effect at the next start");
            }
        }
        Ok(())
    }

    /// Notes what became of a changed configuration.
    fn reloaded(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.metrics.config_reload(Reload::Applied);
                tracing::info!("the configuration was reloaded");
            }
            Err(why) => {
                self.metrics.config_reload(Reload::Refused);
                tracing::error!(why, "the changed configuration is refused, the old one stays in effect");
            }
        }
    }

    /// Drains: no new connections, requests in flight finish, within the time that the settings give.
    pub async fn shutdown(self) {
        tracing::info!("draining");
        self.admin.drain();
        self.stop.cancel();
        // One span of time for all of it: who stops us counts it, too.
        let end = tokio::time::Instant::now() + self.drain_timeout;
        self.servers.drain(self.drain_timeout + LAST_MOMENT).await;
        self.gateway.close();
        let left = || end.saturating_duration_since(tokio::time::Instant::now()).max(LAST_MOMENT);
        self.leftovers.drain(left()).await;
        // A delivery that does not end in time is made again at the next start.
        self.relay.drain(left()).await;
        self.gateway.leave().await;
        self.stop_background.cancel();
        self.background.drain(LAST_MOMENT).await;
        if let Some(membership) = &self.membership {
            membership.leave().await;
        }
        self.stop_links.cancel();
        self.links.drain(LAST_MOMENT).await;
        // Last, so that readiness and metrics can be asked until the end.
        self.stop_admin.cancel();
        self.admin_server.drain(LAST_MOMENT).await;
        self.admin.finish(LAST_MOMENT).await;
        if self.ledger.finish().await.is_err() {
            tracing::error!("what was counted last could not be written");
        }
        self.database.close().await;
        LogWriter::finish_all(self.logs);
    }
}

/// Runs a gateway until SIGTERM or SIGINT; SIGHUP or a changed file reloads.
///
/// # Errors
/// What the machine or the configuration refuses at the start.
pub async fn run(path: PathBuf) -> Result<(), StartError> {
    // Signals and changes are watched for before anybody can know that the gateway is there to get them; what changed
    // before the watch began is read by the second load.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut files = crate::config::watch::Watch::new(&Settings::load(&path)?.files);
    let settings = Settings::load(&path)?;
    files.set_files(&settings.files);
    let findings = preflight::look(&settings).await;
    findings.refuse()?;
    let app = App::start(&settings, Environment::of_process()).await?;
    for warning in &findings.warnings {
        tracing::warn!(key = warning.key(), "{}", warning.problem());
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {}
            () = files.changed() => {}
        }
        let outcome = match Settings::load(&path) {
            Ok(settings) => match app.reload(&settings) {
                Ok(()) => {
                    files.set_files(&settings.files);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
            Err(faults) => Err(one_line(&faults)),
        };
        app.reloaded(outcome);
    }
    app.shutdown().await;
    Ok(())
}

/// What speaks against the Redis that `settings` name: persistence that is off, a policy that evicts what must not be lost,
/// or that it can't be asked. Nothing, where a gateway serves alone.
///
/// # Errors
/// A Redis cannot work: its address or certificates, or what it answers.
pub async fn concerns(settings: &Settings) -> Result<Vec<String>, StartError> {
    state::verify_file(&settings.state)?;
    let links = Links::new(settings)?;
    let Some(main) = links.main.clone() else { return Ok(Vec::new()) };
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    links.keep(&tasks, &stop);
    let ready = links.await_them().await;
    match Sentinels::new(&settings.state).verify(&main, false).await {
        Err(error @ state::KeyError::Wrong(_)) => return Err(error.into()),
        // A Redis that does not answer is a warning below.
        Err(state::KeyError::State(_)) | Ok(()) => {}
    }
    let state = State::Redis(Arc::new(state::Redis::new(main, &settings.state, Clock::system())));
    let concerns = links.concerns(&state).await;
    stop.cancel();
    tasks.drain(LAST_MOMENT).await;
    ready.map(|()| concerns)
}

/// The settings that are read at the start alone, by key.
fn fixed(settings: &Settings) -> Vec<(&'static str, String)> {
    let (server, state, kept) = (&settings.server, &settings.state, &settings.state.retention);
    let targets = state.redis.iter().flat_map(|redis| [Some(&redis.main), redis.cache.as_ref()]).flatten();
    vec![
        ("server.listen", server.listener.listen.to_string()),
        ("server.max_connections", server.max_connections.to_string()),
        ("server.header_timeout", format!("{:?}", server.header_timeout)),
        ("server.keep_alive_timeout", format!("{:?}", server.keep_alive_timeout)),
        ("server.max_header_bytes", server.max_header_bytes.to_string()),
        ("server.max_headers", server.max_headers.to_string()),
        ("server.drain_timeout", format!("{:?}", server.drain_timeout)),
        ("admin.listen", settings.admin.listener.listen.to_string()),
        ("callbacks.listen", settings.callbacks.listener.listen.to_string()),
        ("state.path", settings.state.path.display().to_string()),
        ("state.root_key", digest([&state.root_key.expose_secret()[..]])),
        (
            "state.encryption_keys",
            digest(state.encryption_keys.iter().flat_map(|key| [key.id.as_bytes(), &key.key.expose_secret()[..]])),
        ),
        ("state.redis", digest(targets.flat_map(RedisTarget::parts).collect::<Vec<_>>().iter().map(Vec::as_slice))),
        ("state.retention", format!("{:?}", [kept.owners, kept.delivered_callbacks, kept.dead_letters])),
        ("node.name", settings.node.clone()),
        ("state.disk_reserve", state.disk_reserve.to_string()),
        ("log.level", settings.log.level.to_string()),
        ("cache.memory", settings.cache.memory.to_string()),
    ]
}

/// What can be compared of secrets.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    format!("{:?}", digest.finalize())
}

fn one_line(faults: &Faults) -> String {
    faults.to_string().trim().replace('\n', "; ")
}

/// Counts what happens to a listener's connections.
#[derive(Clone)]
struct Noted(Metrics, Listener);

impl Events for Noted {
    type Guard = Counted;

    fn connected(&self) -> Counted {
        self.0.connection(self.1)
    }

    fn handshake_failed(&self) {
        self.0.handshake_failed(self.1);
    }
}

/// Raises the number of files and sockets that the process may have open, and reports it.
fn raise_file_descriptors(settings: &Settings) {
    // Every client's connection, one to Iluma for each request in flight, and some for files, Redis and endpoints.
    let needed = (settings.server.max_connections + settings.server.max_in_flight + 256) as u64;
    match file_descriptors::raise() {
        Ok(file_descriptors::Limit { before, now }) if now < needed => tracing::warn!(
            limit = now,
            before,
            needed,
            "the limit of open files is lower than server.max_connections and max_in_flight need; raise the hard limit \
             (LimitNOFILE, ulimit -Hn) or lower them"
        ),
        Ok(file_descriptors::Limit { before, now }) => {
            tracing::info!(limit = now, before, "raised the limit of open files")
        }
        Err(error) => tracing::warn!(%error, needed, "cannot raise the limit of open files (RLIMIT_NOFILE)"),
    }
}

async fn bind(key: &'static str, listener: &crate::config::Listener, bounds: Bounds) -> Result<Server, StartError> {
    let bound = Server::bind(key.trim_end_matches(".listen"), listener, bounds).await;
    bound.map_err(|source| StartError::Bind { key, address: listener.listen, source })
}

/// The ways to Redis: none where a gateway serves alone.
#[derive(Debug)]
struct Links {
    /// Of limits and books.
    main: Option<RedisClient>,
    /// The cache's, which may be an instance of its own.
    cache: Option<RedisClient>,
}

impl Links {
    fn new(settings: &Settings) -> Result<Self, redis::RedisError> {
        let Some(redis) = &settings.state.redis else { return Ok(Self { main: None, cache: None }) };
        let keys = KeySpace::new(settings.state.root_key.expose_secret());
        let channels = Cache::channels(&keys);
        let cache = RedisClient::new(redis.cache.as_ref().unwrap_or(&redis.main), keys.clone(), &channels)?;
        let main = if redis.cache.is_some() { RedisClient::new(&redis.main, keys, &[])? } else { cache.clone() };
        Ok(Self { main: Some(main), cache: Some(cache) })
    }

    fn all(&self) -> impl Iterator<Item = &RedisClient> {
        // One that serves for both is one.
        let main = self.main.iter().filter(|main| self.cache.as_ref().is_none_or(|cache| !cache.is(main)));
        main.chain(&self.cache)
    }

    fn keep(&self, tasks: &Tasks, stop: &CancellationToken) {
        self.all().for_each(|link| link.keep(tasks, stop.clone()));
    }

    /// Returns what speaks against these Redis, each with its key.
    async fn concerns(&self, state: &State) -> Vec<String> {
        let out = self.all().filter(|link| !link.is_up());
        let mut concerns: Vec<String> = out
            .map(|link| match link.cause() {
                Some(cause) => format!("{}: {cause}", link.name()),
                None => format!("{}: Redis does not answer yet", link.name()),
            })
            .collect();
        if let Some(main) = self.main.as_ref().filter(|main| main.is_up()) {
            let warnings = state.concerns().await.unwrap_or_default();
            concerns.extend(warnings.iter().map(|cause| format!("{}: {cause}", main.name())));
        }
        concerns
    }

    /// Waits until they answer. One that is out for now is tried again by its client.
    async fn await_them(&self) -> Result<(), StartError> {
        for link in self.all() {
            let ready = link.ready(REDIS_PATIENCE).await;
            ready.map_err(|cause| StartError::UnusableRedis { key: link.name(), cause })?;
        }
        Ok(())
    }
}

/// Verifies the keys against shared state, and takes the node's place among the others. With Redis out both are done once
/// it is back.
async fn take_place(state: &State, membership: Option<&Membership>) -> Result<(), StartError> {
    match state.verify_keys().await {
        Err(error @ state::KeyError::Wrong(_)) => return Err(error.into()),
        Err(state::KeyError::State(_)) | Ok(()) => {}
    }
    if let Some(membership) = membership {
        membership.join().await?;
    }
    Ok(())
}

/// Opens the ledger of a database that holds the sentinels of this configuration's keys.
async fn open_ledger(
    database: &Database,
    settings: &Settings,
    clock: &Clock,
    redis: Option<RedisClient>,
) -> Result<Ledger, StartError> {
    state::verify_database(database, &settings.state).await?;
    Ok(Ledger::open(database.clone(), settings, clock.clone(), redis).await?)
}

/// The embedded database: what must not be lost where a gateway serves alone, and every node's own books.
fn open(path: &Path) -> Result<Database, StartError> {
    let parts = [state::MIGRATIONS, ("ledger", ledger::MIGRATIONS)];
    Database::open(path, &parts).map_err(|source| StartError::State { path: path.to_owned(), source })
}

/// What callbacks are counted as, and who tells persons.
fn hooks(metrics: &Metrics, persons: &Persons) -> Hooks {
    let metrics = metrics.clone();
    let note = move |note: Note<'_>| match note {
        Note::Received(account, kind, admission) => metrics.callback_received(account, kind, admission.as_str()),
        Note::Attempted(tenant, attempt) => metrics.callback_delivery(tenant, attempt.as_str()),
        Note::Skipped(tenant, skipped) => metrics.callback_delivery(tenant, skipped.as_str()),
        Note::Queues(queues, now) => {
            let oldest = queues.oldest.and_then(|oldest| now.duration_since(oldest).ok()).unwrap_or_default();
            let tenants = queues.tenants.iter().map(|outbox| (&outbox.tenant, outbox.queued, outbox.dead));
            metrics.callback_queues(tenants, [queues.waiting, queues.unowned], oldest);
        }
    };
    Hooks { persons: persons.clone(), note: Box::new(note) }
}

/// Lets metrics read the numbers that other parts keep.
fn observe(metrics: &Metrics, gateway: &Arc<Gateway>, logs: &[LogWriter], redactor: &Redactor, links: &Links) {
    // Metrics are part of the gateway: a strong reference would keep both alive for ever.
    let cache = Arc::downgrade(gateway.cache());
    metrics.read_one(&families::CACHE_ENTRIES, move || cache.upgrade().map_or(0, |cache| cache.size().0));
    let cache = Arc::downgrade(gateway.cache());
    metrics.read_one(&families::CACHE_BYTES, move || cache.upgrade().map_or(0, |cache| cache.size().1));
    let all: Vec<RedisClient> = links.all().cloned().collect();
    metrics.read_one(&families::REDIS_UP, move || all.iter().all(RedisClient::is_up).into());
    let counts = gateway.cache().counts();
    metrics.read(&families::REDIS_CACHE, move || {
        let read = |count: fn(&Counts) -> &AtomicU64| {
            counts.as_ref().map_or(0, |counts| count(counts).load(Ordering::Relaxed))
        };
        vec![
            ("hit", read(|counts| &counts.hits)),
            ("miss", read(|counts| &counts.misses)),
            ("damaged", read(|counts| &counts.damaged)),
            ("out", read(|counts| &counts.out)),
        ]
    });
    let dropped: Vec<_> = logs.iter().map(LogWriter::dropped).collect();
    metrics.read_one(&families::LOG_LINES_DROPPED, move || dropped.iter().map(|dropped| dropped()).sum());
    let redactor = redactor.clone();
    metrics.read_one(&families::REDACTIONS, move || redactor.total());
}

/// Lets metrics read the numbers of durable state.
fn observe_state(metrics: &Metrics, state: &State, settings: &crate::config::State) {
    let state = state.clone();
    metrics.read_one(&families::STATE_UNREADABLE, move || state.unreadable());
    let disk = Disk::of(&settings.path, 0);
    metrics.read_one(&families::DISK_FREE, move || disk.free().unwrap_or(0));
}

/// What must never be in a line, whatever else happens.
fn secrets(settings: &Settings) -> Vec<SecretString> {
    let accounts = settings.accounts.values();
    let mut secrets: Vec<_> = accounts.clone().map(|account| account.api_key.clone()).collect();
    secrets.extend(accounts.flat_map(|account| account.callback_tokens.iter().cloned()));
    secrets.extend(settings.admin.token.clone());
    secrets.extend(callback::secrets(settings));
    let hex = |key: &[u8; 32]| SecretString::from(key.iter().map(|b| format!("{b:02x}")).collect::<String>());
    secrets.push(hex(settings.state.root_key.expose_secret()));
    secrets.extend(settings.state.encryption_keys.iter().map(|key| hex(key.key.expose_secret())));
    secrets
}
