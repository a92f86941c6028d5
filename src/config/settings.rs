//! The settings, as types that can't hold invalid values.
//!
//! Invariants: a `Settings` has resolved secrets, parsed certificates and tenants with existing accounts, and no key
//! hash appears twice.

use super::fault::Fault;
use super::limits::TenantLimits;
use super::redis_target::RedisTarget;
use crate::base::byte_size::ByteSize;
use crate::base::calendar::Calendar;
use crate::base::keyring::EncryptionKey;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::CustomRoute;
use crate::iluma::subject::Subject;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use secrecy::{SecretBox, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The whole configuration, with defaults filled in.
#[derive(Debug)]
pub struct Settings {
    /// The listener for tenants.
    pub server: Server,
    /// The listener for Iluma's callbacks, and their delivery.
    pub callbacks: Callbacks,
    /// The listener for platform operators.
    pub admin: Admin,
    /// The listener for probes and Prometheus; `None` if it is not configured.
    pub status: Option<Listener>,
    /// The number of wrong credentials that one client address may send in a minute, on each listener.
    pub max_auth_failures: NonZeroU32,
    /// The contact that refusals name, for problems that a team can't solve itself; `None` if they name none.
    pub contact: Option<String>,
    /// The logs.
    pub log: Log,
    /// The collector of traces, if there is one.
    pub otlp: Option<Otlp>,
    /// The connection to Iluma.
    pub upstream: Upstream,
    /// The name of this node among the nodes.
    pub node: String,
    /// Durable state and key material.
    pub state: State,
    /// The lifetimes of stored answers, and the bounds of the cache.
    pub cache: Cache,
    /// The periods of quotas.
    pub quotas: Quotas,
    /// The price of a charged call in rupiah, by row; a missing row has the price 0.
    pub prices: BTreeMap<RouteName, u64>,
    /// Iluma accounts by name. There is at least one.
    pub accounts: BTreeMap<AccountName, Account>,
    /// Teams by name.
    pub tenants: BTreeMap<TenantName, Tenant>,
    /// Paths that the operator added.
    pub routes: Vec<CustomRoute>,
    /// The effective settings as a table, without secrets.
    pub(super) effective: toml::Table,
    /// The hash of the configuration file's text, which is the same on nodes with the same file: 16 hex digits of
    /// SHA-256.
    pub hash: String,
    /// Files whose change causes a reload: the configuration, secrets, certificates.
    pub files: Vec<PathBuf>,
    /// The warnings about valid but probably unintended settings, each with its key.
    pub warnings: Vec<Fault>,
}

/// A socket to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address and port; with port 0 the system chooses the port.
    pub listen: SocketAddr,
    /// The TLS settings; `None` for connections in clear. TLS is mutual if a client CA is configured. ALPN offers `h2`
    /// and `http/1.1`.
    pub tls: Option<ServerTls>,
    /// The networks of load balancers that are trusted to name the client of a connection or request.
    pub trusted_proxies: Arc<[IpNet]>,
    /// True if every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// The TLS of a listener.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The certificates and protocols.
    pub config: Arc<rustls::ServerConfig>,
    /// The listener's own certificate, the first of its chain.
    pub certificate: CertificateDer<'static>,
    /// The moment at which the certificate expires; `None` if it can't be read.
    pub expires: Option<SystemTime>,
}

/// The listener for tenants, and its bounds.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub listener: Listener,
    /// The largest number of connections. Further connections wait in the kernel's backlog.
    pub max_connections: usize,
    /// The largest number of requests in flight, over all tenants. Further requests are refused with 503.
    pub max_in_flight: usize,
    /// The largest total size of the request bodies that the gateway holds whole, over all tenants. One tenant has at
    /// most half of it.
    pub max_buffered: ByteSize,
    /// The time in which a client must send a request's head.
    pub header_timeout: Duration,
    /// The time for which a client's connection is kept without a request.
    pub keep_alive_timeout: Duration,
    /// The largest head of a request.
    pub max_header_bytes: ByteSize,
    /// The largest number of header fields of a request.
    pub max_headers: usize,
    /// The longest time that a shutdown waits for requests in flight.
    pub drain_timeout: Duration,
}

/// The listener for Iluma's callbacks, and their delivery to teams.
#[derive(Debug)]
pub struct Callbacks {
    /// The socket for Iluma's callbacks.
    pub listener: Listener,
    /// The networks that callbacks may come from; `None` if they may come from anywhere.
    pub allow: Option<Vec<IpNet>>,
    /// The URL at which Iluma reaches the listener, if it is configured.
    pub public_url: Option<http::Uri>,
    /// The waits between attempts. If the attempt after the last wait fails, the delivery is a dead letter.
    pub retry: Vec<Duration>,
    /// The time in which an endpoint must send the head of its answer.
    pub timeout: Duration,
    /// Bounds of each team's outbox.
    pub outbox: OutboxBounds,
    /// Certificates that deliveries trust in addition to the platform's.
    pub extra_ca: Vec<rustls::pki_types::CertificateDer<'static>>,
}

/// Bounds of one team's outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// The largest number of queued deliveries.
    pub deliveries: u64,
    /// The largest total size of queued deliveries, in their stored form.
    pub bytes: ByteSize,
}

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    /// The socket.
    pub listener: Listener,
    /// The API's bearer token with the name `admin`, if one is configured.
    pub token: Option<SecretString>,
    /// Every token by its name, with its role. [`token`](Self::token) is among them under the name `admin`. Without any
    /// token the API is off, and health and metrics still work.
    pub tokens: BTreeMap<String, (SecretString, Role)>,
}

/// The rights of an operator's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The token may read.
    Viewer,
    /// The token may also replay, pause, resume, test, purge and settle.
    Operator,
    /// The token may also erase, suspend tenants, manage keys and delete dead letters.
    Admin,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Returns the role as configuration, audit and messages name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The settings of logs.
#[derive(Debug)]
pub struct Log {
    /// The least severe level of diagnostics that is written.
    pub level: tracing::Level,
}

/// A collector of traces (OpenTelemetry).
#[derive(Debug, Clone)]
pub struct Otlp {
    /// The URL of the collector, to which the path `/v1/traces` is added.
    pub endpoint: http::Uri,
    /// The share of traces that are sent, from 0 to 1. It applies to traces that begin at this gateway.
    pub sample: f64,
    /// Certificates that are trusted in addition to the platform's.
    pub extra_ca: Vec<rustls::pki_types::CertificateDer<'static>>,
}

/// The settings of the connection to Iluma.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The scheme and the authority of Iluma's URL, without a path.
    pub base_url: http::Uri,
    /// Certificates that are trusted in addition to the platform's.
    pub extra_ca: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// An HTTP proxy for the connection, used with CONNECT; `None` for a direct connection.
    pub proxy: Option<http::Uri>,
    /// The longest time of one attempt to connect: the look-up of the name, and the TCP and TLS handshakes.
    pub connect_timeout: Duration,
    /// The longest time from the end of the request to the answer's head.
    pub timeout: Duration,
    /// The longest time without a byte of body, in either direction.
    pub idle_timeout: Duration,
    /// The time for which an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// The treatment of paths that match no row.
    pub unknown_routes: UnknownRoutes,
    /// Further headers that are sent on rows with shared answers. A request with one of these headers bypasses the
    /// cache.
    pub forward_headers: Vec<http::HeaderName>,
}

/// The treatment of paths that match no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownRoutes {
    /// POSTs are forwarded, and everything else is refused.
    Post,
    /// Every request to such a path is forwarded.
    Forward,
    /// Every request to such a path is refused.
    Deny,
}

/// Durable state and the key material that protects it.
#[derive(Debug)]
pub struct State {
    /// The path of the embedded database.
    pub path: PathBuf,
    /// The root key, from which other keys derive. It is never rotated.
    pub root_key: SecretBox<[u8; 32]>,
    /// The keys for data at rest, at least one. The first key encrypts new data, and every key decrypts.
    pub encryption_keys: Vec<EncryptionKey>,
    /// The Redis that gateways share; `None` for a single gateway.
    pub redis: Option<Redis>,
    /// The longest time that one request may spend on all of its Redis commands together.
    pub redis_timeout: Duration,
    /// The size of free disk space below which only the ledger, the inbox and operators' orders are written.
    pub disk_reserve: ByteSize,
    /// The retention of stored data.
    pub retention: Retention,
}

/// The Redis that gateways share.
#[derive(Debug, Clone)]
pub struct Redis {
    /// The Redis for data that must not be lost: callbacks, limits, quotas.
    pub main: RedisTarget,
    /// The number of replicas that must have a write before it counts as done. Such writes are received callbacks and
    /// claims of idempotency keys.
    pub replicas: u32,
    /// The Redis of the cache, whose data may be lost; `None` if the cache uses `main`.
    pub cache: Option<RedisTarget>,
}

/// The retention of stored data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The retention of the owners of records.
    pub owners: Duration,
    /// The retention of delivered callbacks.
    pub delivered_callbacks: Duration,
    /// The retention of dead letters, and of callbacks without an owner.
    pub dead_letters: Duration,
    /// The retention of the ledger's sums for each day.
    pub ledger: Duration,
}

/// The lifetimes of stored answers, and the bounds of the cache.
#[derive(Debug, Clone)]
pub struct Cache {
    /// The bound of the cache in memory.
    pub memory: ByteSize,
    /// The bound of the level on disk, for a gateway without Redis; 0 means that there is no such level.
    pub disk: ByteSize,
    /// The lifetime of the answer for an existing bank account.
    pub bank_found: Duration,
    /// The lifetime of a bank answer that Iluma marked for review.
    pub bank_need_review: Duration,
    /// The lifetime of the answer for a bank account that does not exist.
    pub bank_not_found: Duration,
    /// The time after the end of its lifetime for which a bank answer may be served while Iluma fails.
    pub bank_stale_if_error: Duration,
    /// The lifetime of a watchlist answer without a match.
    pub cft_clear: Duration,
    /// The lifetime of a watchlist answer with a match.
    pub cft_match: Duration,
    /// The lifetime of the list of bank codes.
    pub bank_codes: Duration,
}

/// The periods of quotas: days and months.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quotas {
    /// The calendar of days and months, for quotas and for the ledger.
    pub calendar: Calendar,
}

/// The greatest age of stored answers that a team accepts. With `None` only their lifetime counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaxAge {
    /// The greatest age of answers about bank accounts, and of bank requests by id.
    pub bank: Option<Duration>,
    /// The greatest age of watchlist answers.
    pub cft: Option<Duration>,
}

impl MaxAge {
    /// Returns the greatest age that the team accepts for an answer about a subject, if one is configured.
    #[must_use]
    pub const fn of(&self, subject: Subject) -> Option<Duration> {
        match subject {
            Subject::Bank | Subject::BankGet => self.bank,
            Subject::Cft => self.cft,
            Subject::BankCodes | Subject::Health => None,
        }
    }
}

/// An Iluma account.
#[derive(Debug)]
pub struct Account {
    /// The API key, which only the gateway knows.
    pub api_key: SecretString,
    /// The tokens that Iluma's callbacks may carry. There are several while the token is being replaced.
    pub callback_tokens: Vec<SecretString>,
    /// The largest number of requests a second that the account may send to Iluma; `None` means no limit.
    pub requests_per_second: Option<u32>,
    /// The longest time that a request may wait in the fair queue.
    pub max_wait: Duration,
    /// True if the gateway puts the tenant's name in front of each reference that it sends to Iluma.
    pub prefix_references: bool,
}

/// A team's key in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    /// The SHA-256 of the key.
    pub sha256: [u8; 32],
    /// The time at which the key expires; `None` if it does not expire.
    pub expires: Option<SystemTime>,
    /// The operators' note on the key, if there is one.
    pub note: Option<String>,
}

/// A team.
#[derive(Debug)]
pub struct Tenant {
    /// The account whose key the team's requests carry to Iluma.
    pub account: AccountName,
    /// The team's keys in the file. Operators may make further keys by orders.
    pub key_sha256: Vec<FileKey>,
    /// Rates, concurrency, weight and quotas.
    pub limits: TenantLimits,
    /// The rows that the team may use: the rows in its key `routes`, the rows that these include, and the always
    /// allowed rows. Without the key `routes`, these are all rows except the row of the forbidden paths.
    pub routes: BTreeSet<RouteName>,
    /// True if the team shares cache entries with the other teams of its account.
    pub share_cache: bool,
    /// The greatest age of stored answers that the team accepts.
    pub max_age: MaxAge,
    /// True if records without a prefix and without a known owner are this team's.
    pub owns_unprefixed: bool,
    /// The hosts to which the team's callbacks may be sent.
    pub callback_hosts: BTreeSet<String>,
    /// Callback URLs by type, until the team sets its own.
    pub callback_urls: BTreeMap<CallbackType, http::Uri>,
    /// The team's `x-callback-token`. If it is `None`, the gateway derives one from the root key.
    pub callback_token: Option<SecretString>,
    /// The secrets that sign the team's callbacks, each as `whsec_` and base64. There are several while a secret is
    /// being replaced. If the list is empty, the gateway derives a secret from the root key.
    pub webhook_secrets: Vec<SecretString>,
}
