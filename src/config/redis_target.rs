//! A Redis as the configuration names it: its servers, and the access to them.

use secrecy::{ExposeSecret as _, SecretString};

/// One Redis: a single server, or a group of servers in which one server holds the gateway's keys.
#[derive(Debug, Clone)]
pub struct RedisTarget {
    /// The configuration key that names this Redis.
    pub name: &'static str,
    /// The servers.
    pub servers: RedisServers,
    /// PEM certificates that are trusted instead of the platform's; `None` to trust the platform's.
    pub extra_ca: Option<Vec<u8>>,
}

/// The servers of a Redis, and the access to them.
#[derive(Debug, Clone)]
pub enum RedisServers {
    /// One server, given by a URL: `redis://` or `rediss://`, with user, password and database if needed.
    Url(SecretString),
    /// A primary with replicas. The gateway asks the sentinels for the primary's address.
    Sentinel {
        /// The name under which the sentinels monitor the primary.
        master: String,
        /// The sentinels.
        nodes: Vec<ServerAddress>,
        /// The user of the sentinels, if they require one.
        username: Option<String>,
        /// The password of the sentinels, if they require one.
        password: Option<SecretString>,
        /// Access to the primary.
        access: RedisAccess,
    },
    /// A cluster. The gateway uses the node that owns the slot of the gateway's keys.
    Cluster {
        /// The nodes that the gateway asks for the owner of the slot. Some of the cluster's nodes are enough.
        nodes: Vec<ServerAddress>,
        /// Access to the nodes.
        access: RedisAccess,
    },
}

/// The access to servers that are given without a URL.
#[derive(Debug, Clone)]
pub struct RedisAccess {
    /// The user, if there is one.
    pub username: Option<String>,
    /// The password, if there is one.
    pub password: Option<SecretString>,
    /// True if TLS is used.
    pub tls: bool,
    /// The number of the database.
    pub database: i64,
}

/// The host and the port of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerAddress {
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl RedisTarget {
    /// Returns the Redis that a URL names. `name` is the configuration key with the URL.
    #[must_use]
    pub fn of_url(name: &'static str, url: SecretString, extra_ca: Option<Vec<u8>>) -> Self {
        Self { name, servers: RedisServers::Url(url), extra_ca }
    }

    /// Returns the addresses of the servers as text, without users and passwords.
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

    /// Returns the bytes that identify this Redis, including its secrets. Two configurations of a Redis are compared by
    /// the digest of these bytes.
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
