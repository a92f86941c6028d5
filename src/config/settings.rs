//! The settings, as types that cannot be wrong.
//!
//! Invariants: a `Settings` has resolved secrets, parsed certificates and tenants whose account exists, and no key hash
//! stands in it twice.

use super::fault::Fault;
use super::limits::TenantLimits;
use crate::base::byte_size::ByteSize;
use crate::base::calendar::Calendar;
use crate::base::keyring::EncryptionKey;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::CustomRoute;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything the gateway was told, with defaults filled in.
#[derive(Debug)]
pub struct Settings {
    /// The listener for tenants.
    pub server: Server,
    /// The listener for Iluma's callbacks, and their delivery.
    pub callbacks: Callbacks,
    /// The listener for platform operators.
    pub admin: Admin,
    /// The contact that refusals name, for what a team can't mend itself.
    pub contact: Option<String>,
    /// What is logged.
    pub log: Log,
    /// How Iluma is reached.
    pub upstream: Upstream,
    /// The node's name among others.
    pub node: String,
    /// Durable state and key material.
    pub state: State,
    /// What is remembered, and for how long.
    pub cache: Cache,
    /// How quotas count.
    pub quotas: Quotas,
    /// What a charged call costs, in rupiah, by row; one that is left out costs nothing that we know of.
    pub prices: BTreeMap<RouteName, u64>,
    /// Iluma accounts by name; at least one.
    pub accounts: BTreeMap<AccountName, Account>,
    /// Teams by name.
    pub tenants: BTreeMap<TenantName, Tenant>,
    /// Paths that the operator taught us.
    pub routes: Vec<CustomRoute>,
    /// Files whose change means a reload: the configuration, secrets, certificates.
    pub files: Vec<PathBuf>,
    /// What works, and hardly anybody wants: each with its key.
    pub warnings: Vec<Fault>,
}

/// A socket to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address and port; port 0 lets the machine choose.
    pub listen: SocketAddr,
    /// TLS, and mutual TLS where a client CA was given; ALPN offers `h2` and `http/1.1`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The listener for tenants, and its bounds.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub listener: Listener,
    /// Connections held at once; one more waits in the kernel's backlog.
    pub max_connections: usize,
    /// Requests handled at once, over all tenants; one more is refused with 503.
    pub max_in_flight: usize,
    /// The largest sum of request bodies that are held whole, over all tenants; one tenant has at most half of it.
    pub max_buffered: ByteSize,
    /// The time in which a client must send a request's head.
    pub header_timeout: Duration,
    /// The time that a client's connection is kept without a request.
    pub keep_alive_timeout: Duration,
    /// The largest head of a request.
    pub max_header_bytes: ByteSize,
    /// The most header fields of a request.
    pub max_headers: usize,
    /// How long a shutdown waits for requests in flight.
    pub drain_timeout: Duration,
}

/// The callback listener and delivery.
#[derive(Debug)]
pub struct Callbacks {
    /// Where Iluma's callbacks arrive.
    pub listener: Listener,
    /// How Iluma reaches that listener.
    pub public_url: Option<http::Uri>,
    /// Waits between attempts; after the last one a delivery is dead.
    pub retry: Vec<Duration>,
    /// The time that an endpoint has for the head of its answer.
    pub timeout: Duration,
    /// Bounds of each team's outbox.
    pub outbox: OutboxBounds,
    /// Certificates that deliveries trust beside the platform's.
    pub extra_ca: Vec<rustls::pki_types::CertificateDer<'static>>,
}

/// Bounds of one team's outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Deliveries that may be queued.
    pub deliveries: u64,
    /// Size that they may have, as they are stored.
    pub bytes: ByteSize,
}

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub listener: Listener,
    /// The bearer token of the API; without one the API is off, health and metrics are not.
    pub token: Option<SecretString>,
}

/// What is logged.
#[derive(Debug)]
pub struct Log {
    /// The least severe diagnostics that are written.
    pub level: tracing::Level,
}

/// How Iluma is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Scheme and authority; no path.
    pub base_url: http::Uri,
    /// Certificates trusted beside the platform's.
    pub extra_ca: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// An HTTP proxy, used with CONNECT.
    pub proxy: Option<http::Uri>,
    /// For the TCP and TLS handshakes, name look-up included.
    pub connect_timeout: Duration,
    /// From the request wholly sent to the answer's head.
    pub timeout: Duration,
    /// Without a byte of body, either way.
    pub idle_timeout: Duration,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// What happens to a path that no row of the table knows.
    pub unknown_routes: UnknownRoutes,
    /// Further headers that are sent on rows whose answers are shared; a request with one bypasses the cache.
    pub forward_headers: Vec<http::HeaderName>,
}

/// What happens to a path that no row of the table knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownRoutes {
    /// POSTs are forwarded, the rest is refused.
    Post,
    /// Everything is forwarded.
    Forward,
    /// Everything is refused.
    Deny,
}

/// Durable state and the key material that protects it.
#[derive(Debug)]
pub struct State {
    /// The embedded database.
    pub path: PathBuf,
    /// The root of all derived keys; never rotated.
    pub root_key: SecretBox<[u8; 32]>,
    /// Keys for data at rest; the first writes, all read. Never empty.
    pub encryption_keys: Vec<EncryptionKey>,
    /// Where gateways share what they know; none for a gateway that serves alone.
    pub redis: Option<Redis>,
    /// What all of Redis together may cost one request.
    pub redis_timeout: Duration,
    /// Free bytes of the disk below which only the ledger, the inbox and operators' orders are written.
    pub disk_reserve: ByteSize,
    /// How long what is stored is kept.
    pub retention: Retention,
}

/// Where gateways share what they know.
#[derive(Debug, Clone)]
pub struct Redis {
    /// What must not be lost: callbacks, limits, quotas.
    pub main: RedisTarget,
    /// What may be lost, if it has an instance of its own: the cache.
    pub cache: Option<RedisTarget>,
}

/// One Redis: a server, or several of which one holds the keys.
#[derive(Debug, Clone)]
pub struct RedisTarget {
    /// Key of the configuration that names it.
    pub name: &'static str,
    /// The servers.
    pub servers: RedisServers,
    /// PEM certificates that are trusted in place of the platform's.
    pub extra_ca: Option<Vec<u8>>,
}

/// Servers of a Redis, and how they are reached.
#[derive(Debug, Clone)]
pub enum RedisServers {
    /// One server: `redis://` or `rediss://`, with user, password and database where there are any.
    Url(SecretString),
    /// The primary that sentinels name.
    Sentinel {
        /// Name under which the sentinels watch the primary.
        master: String,
        /// The sentinels.
        nodes: Vec<ServerAddress>,
        /// User of the sentinels, where they want one.
        username: Option<String>,
        /// Password of the sentinels, where they want one.
        password: Option<SecretString>,
        /// Access to the primary.
        access: RedisAccess,
    },
    /// The owner of the keys' slot in a cluster.
    Cluster {
        /// Nodes that are asked for the owner; some of all are enough.
        nodes: Vec<ServerAddress>,
        /// Access to the nodes.
        access: RedisAccess,
    },
}

/// Access to servers that no URL names.
#[derive(Debug, Clone)]
pub struct RedisAccess {
    /// User, where there is one.
    pub username: Option<String>,
    /// Password, where there is one.
    pub password: Option<SecretString>,
    /// True for TLS.
    pub tls: bool,
    /// Number of the database.
    pub database: i64,
}

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerAddress {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl RedisTarget {
    /// Returns the Redis that a URL names.
    #[must_use]
    pub fn of_url(name: &'static str, url: SecretString, extra_ca: Option<Vec<u8>>) -> Self {
        Self { name, servers: RedisServers::Url(url), extra_ca }
    }

    /// Returns the places of its servers, without users and passwords.
    #[must_use]
    pub fn place(&self) -> String {
        let list = |nodes: &[ServerAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.servers {
            RedisServers::Url(url) => {
                let url = ::redis::parse_redis_url(url.expose_secret());
                let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or("its socket").to_owned();
                format!("{host}:{}", url.as_ref().and_then(|url| url.port()).unwrap_or(6379))
            }
            RedisServers::Sentinel { nodes, .. } => format!("sentinels {}", list(nodes)),
            RedisServers::Cluster { nodes, .. } => format!("cluster {}", list(nodes)),
        }
    }

    /// Returns everything that makes it this Redis, secrets included, to be compared by digest.
    #[must_use]
    pub fn parts(&self) -> Vec<Vec<u8>> {
        let secret = |secret: &Option<SecretString>| {
            secret.as_ref().map(|secret| secret.expose_secret().as_bytes().to_vec()).unwrap_or_default()
        };
        let open = format!("{:?}", self.servers).into_bytes();
        let secrets = match &self.servers {
            RedisServers::Url(url) => vec![url.expose_secret().as_bytes().to_vec()],
            RedisServers::Sentinel { password, access, .. } => vec![secret(password), secret(&access.password)],
            RedisServers::Cluster { access, .. } => vec![secret(&access.password)],
        };
        [vec![open], secrets, vec![self.extra_ca.clone().unwrap_or_default()]].concat()
    }
}

impl std::str::FromStr for ServerAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "must be a host and a port, such as \"redis-1.internal:6379\"";
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(wrong)?;
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How long what is stored is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Who owns an id.
    pub owners: Duration,
    /// Callbacks that were delivered.
    pub delivered_callbacks: Duration,
    /// Callbacks that nobody took, and those that nobody owns.
    pub dead_letters: Duration,
    /// The ledger's days.
    pub ledger: Duration,
}

/// What is remembered, and for how long.
#[derive(Debug, Clone)]
pub struct Cache {
    /// The bound of the level in memory.
    pub memory: ByteSize,
    /// A bank account that exists.
    pub bank_found: Duration,
    /// A bank account that does not exist.
    pub bank_not_found: Duration,
    /// How much longer a bank answer may be served while Iluma fails.
    pub bank_stale_if_error: Duration,
    /// A watchlist question without a match.
    pub cft_clear: Duration,
    /// A watchlist question with one.
    pub cft_match: Duration,
    /// The list of bank codes.
    pub bank_codes: Duration,
}

/// How quotas count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quotas {
    /// Where a day and a month begin, for quotas and for the ledger.
    pub calendar: Calendar,
}

/// An Iluma account.
#[derive(Debug)]
pub struct Account {
    /// The secret that only the gateway knows.
    pub api_key: SecretString,
    /// What Iluma's callbacks carry; several while it changes.
    pub callback_tokens: Vec<SecretString>,
    /// What the account may send to Iluma, per second.
    pub requests_per_second: Option<u32>,
    /// How long a request may queue for its turn.
    pub max_wait: Duration,
    /// True if references toward Iluma begin with the tenant's name.
    pub prefix_references: bool,
}

/// A team.
#[derive(Debug)]
pub struct Tenant {
    /// Whose key its requests carry to Iluma.
    pub account: AccountName,
    /// SHA-256 of each of its keys.
    pub key_sha256: Vec<[u8; 32]>,
    /// Rates, places, weight and quotas.
    pub limits: TenantLimits,
    /// Rows it may use, included and always allowed ones among them.
    pub routes: BTreeSet<RouteName>,
    /// Whether its cache entries serve other teams of the account, and theirs serve it.
    pub share_cache: bool,
    /// True if records without a prefix that no team is known to own are this team's.
    pub owns_unprefixed: bool,
    /// Where its callbacks may be sent.
    pub callback_hosts: BTreeSet<String>,
    /// Callback URLs by type, until the team sets its own.
    pub callback_urls: BTreeMap<CallbackType, http::Uri>,
    /// What its callbacks carry as `x-callback-token`; none is one derived from the root key.
    pub callback_token: Option<SecretString>,
    /// What its callbacks are signed with, `whsec_` and base64 each: all of them, while it changes. None is one derived
    /// from the root key.
    pub webhook_secrets: Vec<SecretString>,
}
