//! The reasons why a Redis can't be used, or should not be used.
//!
//! Everything here is a pure function of Redis' answers; the log, the start of the gateway and `check` report the same
//! cause in the same words. No text quotes a command, a value or a secret.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::cmp::Ordering;
use std::fmt;

/// The oldest version of Redis that has everything that the gateway uses.
const OLDEST: Version = Version { major: 6, minor: 2 };

/// A reason why Redis cannot be used or should not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The user or the password is wrong.
    #[error("Redis refuses user and password (WRONGPASS): correct them, or set the password in Redis")]
    WrongPassword,
    /// Redis requires a password.
    #[error("Redis requires a password, and none is configured (NOAUTH): give user and password")]
    PasswordMissing,
    /// The server's certificate is not trusted.
    #[error(
        "the certificate of Redis is not trusted: {0}; name its issuer in extra_ca, and its host as the certificate does"
    )]
    UntrustedCertificate(String),
    /// The server requires a client certificate.
    #[error("Redis wants a client certificate, which the gateway does not have: set tls-auth-clients to no in Redis")]
    ClientCertificateWanted,
    /// The port does not speak TLS.
    #[error("Redis does not speak TLS on that port: use redis:// (without TLS), or the port that tls-port names")]
    NotTls,
    /// The server is a replica.
    #[error("it is a replica, which refuses writes: configure the primary's address")]
    Replica,
    /// The server is a node of a cluster.
    #[error("it is a node of a cluster (CROSSSLOT, MOVED): name its nodes as `cluster` in place of the URL")]
    Cluster,
    /// The user may not run scripts.
    #[error("Redis refuses scripts to this user: allow EVAL, EVALSHA and SCRIPT LOAD (ACL: +@scripting)")]
    NoScripts,
    /// The user lacks another permission.
    #[error(
        "the user of Redis may not do what the gateway needs (NOPERM): \
         allow keys ~{{iluma-gateway:*, channels &{{iluma-gateway:*, and all commands on them"
    )]
    NotPermitted,
    /// The server is too old.
    #[error("this is Redis {0}, which is too old: 6.2 is the oldest that works")]
    TooOld(String),
    /// The number of the database is too high.
    #[error("Redis has no database of that number: correct the number, or raise `databases` in Redis")]
    NoSuchDatabase,
    /// Redis holds keys of a layout that this version does not know.
    #[error(
        "this Redis holds the gateway's layout {0}, and this version knows only layout {known}: \
         run the version that wrote it, or name another Redis or database",
        known = super::keys::LAYOUT_VERSION
    )]
    UnknownLayout(String),
    /// Redis holds keys of a version without layout numbers.
    #[error(
        "this Redis holds keys of a gateway from before 0.1.0 ({0}*, without a hash tag), which this version does not read: \
         let the old version deliver its callbacks, then empty that database (FLUSHDB), or name another one"
    )]
    OldLayout(String),
    /// Nothing answers at the address.
    #[error("it can't be reached: {0}")]
    Unreachable(Unreachable),
    /// The connection ended.
    #[error("Redis ended the connection")]
    Disconnected,
    /// No answer came in time.
    #[error("Redis did not answer in time")]
    Slow,
    /// The server is loading its data.
    #[error("Redis is loading its data (LOADING)")]
    Loading,
    /// The memory is full.
    #[error("Redis is full (OOM): raise maxmemory")]
    Full,
    /// Redis refuses writes.
    #[error("Redis refuses writes ({0})")]
    WritesRefused(String),
    /// A cluster does not serve the slot now.
    #[error("the cluster does not serve the slot of the gateway's keys now ({0})")]
    SlotNotServed(String),
    /// The primary is changing.
    #[error("the primary of Redis is changing: locating the new one")]
    Failover,
    /// The sentinels know no primary of that name.
    #[error("the sentinels know no primary {0:?}: correct sentinel.master, or let them watch it")]
    UnknownMaster(String),
    /// No sentinel can be reached, or the sentinels refuse the query. The value is the reason.
    #[error("no sentinel answers: {0}")]
    Sentinels(Box<Cause>),
    /// The servers are not a cluster.
    #[error("these Redis servers are no cluster (cluster-enabled no): name one of them as url")]
    NotACluster,
    /// The server does not answer as Redis does.
    #[error("the server at that address does not answer as Redis does")]
    NotRedis,
    /// Redis answered with an error that has no cause of its own in this list.
    #[error("Redis answers with an error ({0})")]
    Other(String),
    /// Nothing survives a restart.
    #[error("a restart of Redis loses everything (appendonly is no, save is empty): set appendonly to yes")]
    NotPersistent,
    /// Only snapshots survive a restart.
    #[error("a restart of Redis loses everything since its last snapshot (appendonly is no): set appendonly to yes")]
    SnapshotsOnly,
    /// The operating system decides when data reaches the disk.
    #[error("Redis does not sync its file to disk (appendfsync is no): set appendfsync to everysec or always")]
    NoFsync,
    /// The server does not say what survives a restart.
    #[error("Redis does not report its persistence: allow INFO to its user")]
    PersistenceUnknown,
    /// The configuration may not be read.
    #[error("Redis forbids CONFIG GET: save and appendfsync can't be checked")]
    ConfigForbidden,
    /// State may be evicted.
    #[error("Redis removes state when its memory is full: maxmemory-policy is {0}; set noeviction")]
    EvictsState(String),
    /// Quotas and published figures may be evicted.
    #[error("Redis removes quotas and books when its memory is full: maxmemory-policy is {0}; set noeviction")]
    EvictsQuotas(String),
    /// A callback needs more replicas than there are.
    #[error(
        "state.redis.replicas is {wanted} and Redis has {in_sync} in sync: callbacks are answered 503 until there are {wanted}"
    )]
    ReplicasMissing {
        /// The number of replicas that must have a callback before it is acknowledged.
        wanted: u32,
        /// The number of replicas in sync.
        in_sync: u32,
    },
    /// A failover may promote a replica that lacks acknowledged callbacks.
    #[error(
        "Redis has {in_sync} replicas in sync and state.redis.replicas is {wanted}: \
         a failover to any other replica may lose acknowledged callbacks; set replicas = {in_sync}"
    )]
    ReplicasUnawaited {
        /// The number of replicas that must have a callback before it is acknowledged.
        wanted: u32,
        /// The number of replicas in sync.
        in_sync: u32,
    },
    /// The user lacks the permission for `WAIT`.
    #[error(
        "Redis refuses WAIT to this user: no callback can be acknowledged with state.redis.replicas; allow it (ACL: +wait)"
    )]
    WaitForbidden,
}

/// The reason why no connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The name has no address.
    #[error("the name of its host has no address")]
    Name,
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// Any other error of the network.
    #[error("the network reports an error")]
    Network,
}

/// The severity of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// The gateway can't work with this Redis until an operator changes something: `check` and the start refuse.
    Fault,
    /// The gateway works, or will work once Redis can be reached: `check` and the start warn.
    Warning,
}

impl Cause {
    /// Returns the severity of the cause.
    #[must_use]
    pub fn grade(&self) -> Grade {
        match self {
            Self::WrongPassword
            | Self::PasswordMissing
            | Self::UntrustedCertificate(_)
            | Self::ClientCertificateWanted
            | Self::NotTls
            | Self::Replica
            | Self::Cluster
            | Self::NoScripts
            | Self::NotPermitted
            | Self::TooOld(_)
            | Self::NoSuchDatabase
            | Self::UnknownLayout(_)
            | Self::UnknownMaster(_)
            | Self::NotACluster
            | Self::OldLayout(_) => Grade::Fault,
            Self::Sentinels(cause) => cause.grade(),
            Self::Unreachable(_)
            | Self::Disconnected
            | Self::Slow
            | Self::Loading
            | Self::Full
            | Self::WritesRefused(_)
            | Self::SlotNotServed(_)
            | Self::Failover
            | Self::NotRedis
            | Self::Other(_)
            | Self::NotPersistent
            | Self::SnapshotsOnly
            | Self::NoFsync
            | Self::PersistenceUnknown
            | Self::ConfigForbidden
            | Self::EvictsState(_)
            | Self::EvictsQuotas(_)
            | Self::ReplicasMissing { .. }
            | Self::ReplicasUnawaited { .. }
            | Self::WaitForbidden => Grade::Warning,
        }
    }

    /// Returns the cause of an error from Redis or from the connection.
    #[must_use]
    pub fn of(error: &RedisError) -> Self {
        let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
        match error.kind() {
            ErrorKind::AuthenticationFailed => return Self::WrongPassword,
            ErrorKind::RESP3NotSupported => return Self::TooOld("5 or older".to_owned()),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => return Self::NotRedis,
            ErrorKind::Io => return Self::of_io(error),
            ErrorKind::Server(ServerErrorKind::ResponseError) if detail.contains("DB index is out of range") => {
                return Self::NoSuchDatabase;
            }
            _ => {}
        }
        match code {
            "WRONGPASS" => Self::WrongPassword,
            "NOAUTH" => Self::PasswordMissing,
            "READONLY" => Self::Replica,
            "CROSSSLOT" | "MOVED" => Self::Cluster,
            "ASK" | "TRYAGAIN" | "CLUSTERDOWN" => Self::SlotNotServed(code.to_owned()),
            // Redis 6.2 and 7 have different texts; both name the command.
            "NOPERM" if detail.contains("eval") || detail.contains("script") => Self::NoScripts,
            "NOPERM" => Self::NotPermitted,
            "LOADING" => Self::Loading,
            "OOM" => Self::Full,
            "MISCONF" | "NOREPLICAS" | "MASTERDOWN" => Self::WritesRefused(code.to_owned()),
            "NOPROTO" => Self::TooOld("5 or older".to_owned()),
            "ERR" if detail.contains("unknown command") && detail.to_ascii_lowercase().contains("eval") => {
                Self::NoScripts
            }
            "" => Self::Disconnected,
            // Only the code is kept: a message may quote the command.
            code => Self::Other(code.chars().filter(char::is_ascii_alphanumeric).take(20).collect()),
        }
    }

    fn of_io(error: &RedisError) -> Self {
        let text = error.to_string();
        // The TLS library's errors pass through two other libraries, which keep only their text.
        if let Some((_, why)) = text.split_once("invalid peer certificate: ") {
            return Self::UntrustedCertificate(why.chars().take_while(|c| c.is_ascii_alphanumeric()).collect());
        }
        if text.contains("CertificateRequired") {
            return Self::ClientCertificateWanted;
        }
        if text.contains("InvalidContentType") {
            return Self::NotTls;
        }
        if text.contains("failed to lookup address") || text.contains("No address found") {
            return Self::Unreachable(Unreachable::Name);
        }
        if error.is_connection_refusal() {
            return Self::Unreachable(Unreachable::Refused);
        }
        if error.is_timeout() {
            return Self::Unreachable(Unreachable::Timeout);
        }
        if error.is_connection_dropped() { Self::Disconnected } else { Self::Unreachable(Unreachable::Network) }
    }
}

/// A version of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map_while(|part| part.parse().ok());
        Some(Self { major: parts.next()?, minor: parts.next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The answer to INFO, as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerInfo<'a>(pub(super) &'a str);

impl<'a> ServerInfo<'a> {
    fn field(self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    }

    /// Returns the fault that keeps a server from being used, if any. `cluster` is true if a cluster is expected. A
    /// server whose INFO is empty or lacks a field counts as good. If it has a fault, the first commands will fail.
    pub(super) fn fault(self, cluster: bool) -> Option<Cause> {
        let version = self.field("redis_version").and_then(Version::parse);
        if let Some(version) = version.filter(|version| *version < OLDEST) {
            return Some(Cause::TooOld(version.to_string()));
        }
        if self.field("cluster_enabled") == Some("1") && !cluster {
            return Some(Cause::Cluster);
        }
        (self.field("role") == Some("slave")).then_some(Cause::Replica)
    }

    /// Returns the warning about a server with fewer or more replicas in sync than a callback needs, if any.
    pub(super) fn replication_warning(self, wanted: u32) -> Option<Cause> {
        let is_in_sync = |line: &&str| {
            line.strip_prefix("slave").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                && line.contains("state=online")
        };
        let in_sync = u32::try_from(self.0.lines().filter(is_in_sync).count()).unwrap_or(u32::MAX);
        match in_sync.cmp(&wanted) {
            Ordering::Less => Some(Cause::ReplicasMissing { wanted, in_sync }),
            Ordering::Equal => None,
            Ordering::Greater => Some(Cause::ReplicasUnawaited { wanted, in_sync }),
        }
    }

    /// Returns a warning for each setting of a server that may lose state. `save` and `fsync` are the values of `save`
    /// and `appendfsync`; `None` if the value could not be read.
    pub(super) fn durability_warnings(self, save: Option<&str>, fsync: Option<&str>) -> Vec<Cause> {
        let mut warnings = Vec::new();
        match (self.field("aof_enabled"), save) {
            (Some("0"), Some("")) => warnings.push(Cause::NotPersistent),
            (Some("0"), _) => warnings.push(Cause::SnapshotsOnly),
            (Some(_), _) if fsync == Some("no") => warnings.push(Cause::NoFsync),
            // `everysec`, Redis' own default, is the operator's choice between a lost second and a slower disk.
            (Some(_), _) => {}
            (None, _) => warnings.push(Cause::PersistenceUnknown),
        }
        if save.is_none() || fsync.is_none() {
            warnings.push(Cause::ConfigForbidden);
        }
        match self.field("maxmemory_policy") {
            Some(policy) if policy.starts_with("allkeys") => warnings.push(Cause::EvictsState(policy.to_owned())),
            Some(policy) if policy.starts_with("volatile") => warnings.push(Cause::EvictsQuotas(policy.to_owned())),
            Some(_) | None => {}
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::make_extension_error;
    use std::io;

    fn server(code: &str, detail: &str) -> RedisError {
        make_extension_error(code.to_owned(), Some(detail.to_owned()))
    }

    fn network(kind: io::ErrorKind, text: &str) -> RedisError {
        io::Error::new(kind, text.to_owned()).into()
    }

    fn refused() -> RedisError {
        io::Error::from(io::ErrorKind::ConnectionRefused).into()
    }

    #[test]
    fn each_error_has_its_cause() {
        for (error, cause) in [
            (server("WRONGPASS", "invalid username-password pair or user is disabled."), Cause::WrongPassword),
            (server("NOAUTH", "HELLO must be called with the client already authenticated"), Cause::PasswordMissing),
            (server("READONLY", "You can't write against a read only replica."), Cause::Replica),
            (server("CROSSSLOT", "Keys in request don't hash to the same slot"), Cause::Cluster),
            (server("MOVED", "3999 127.0.0.1:6381"), Cause::Cluster),
            (server("CLUSTERDOWN", "Hash slot not served"), Cause::SlotNotServed("CLUSTERDOWN".to_owned())),
            (server("NOPERM", "this user has no permissions to run the 'evalsha' command"), Cause::NoScripts),
            (server("NOPERM", "User x has no permissions to run the 'script|load' command"), Cause::NoScripts),
            (server("NOPERM", "No permissions to access a key"), Cause::NotPermitted),
            (server("ERR", "unknown command 'EVALSHA', with args beginning with: "), Cause::NoScripts),
            (server("NOPROTO", "unsupported protocol version"), Cause::TooOld("5 or older".to_owned())),
            (server("LOADING", "Redis is loading the dataset in memory"), Cause::Loading),
            (server("OOM", "command not allowed when used memory > 'maxmemory'."), Cause::Full),
            (server("MISCONF", "Errors writing to the AOF file"), Cause::WritesRefused("MISCONF".to_owned())),
            (server("SECRETS", "of 1234567890"), Cause::Other("SECRETS".to_owned())),
            (
                network(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"),
                Cause::UntrustedCertificate("UnknownIssuer".to_owned()),
            ),
            (
                network(io::ErrorKind::InvalidData, "received fatal alert: CertificateRequired"),
                Cause::ClientCertificateWanted,
            ),
            (network(io::ErrorKind::InvalidData, "received corrupt message of type InvalidContentType"), Cause::NotTls),
            (
                network(io::ErrorKind::Other, "failed to lookup address information: Name or service not known"),
                Cause::Unreachable(Unreachable::Name),
            ),
            (refused(), Cause::Unreachable(Unreachable::Refused)),
            (network(io::ErrorKind::TimedOut, "timed out"), Cause::Unreachable(Unreachable::Timeout)),
            (network(io::ErrorKind::ConnectionReset, "reset"), Cause::Disconnected),
        ] {
            assert_eq!(Cause::of(&error), cause, "{error:?}");
        }
    }

    #[test]
    fn a_cause_that_waiting_does_not_cure_is_a_fault() {
        for (cause, grade) in [
            (Cause::WrongPassword, Grade::Fault),
            (Cause::Cluster, Grade::Fault),
            (Cause::OldLayout(String::new()), Grade::Fault),
            (Cause::Unreachable(Unreachable::Refused), Grade::Warning),
            (Cause::Loading, Grade::Warning),
            (Cause::EvictsState("allkeys-lru".to_owned()), Grade::Warning),
            (Cause::ConfigForbidden, Grade::Warning),
        ] {
            assert_eq!(cause.grade(), grade, "{cause:?}");
        }
    }

    #[test]
    fn a_server_that_cannot_work_is_known_by_what_it_says_of_itself() {
        let fault = |info: &str, cluster| ServerInfo(&info.replace(' ', "\r\n")).fault(cluster);
        assert_eq!(fault("redis_version:6.2.0 role:master cluster_enabled:0", false), None);
        assert_eq!(fault("redis_version:7.2.4 valkey_version:8.0.1 role:master", false), None);
        assert_eq!(fault("redis_version:6.0.16 role:master", false), Some(Cause::TooOld("6.0".to_owned())));
        assert_eq!(fault("redis_version:10.0.1 role:slave", false), Some(Cause::Replica));
        assert_eq!(fault("redis_version:7.0.15 role:master cluster_enabled:1", false), Some(Cause::Cluster));
        assert_eq!(fault("redis_version:7.0.15 role:master cluster_enabled:1", true), None);
        assert_eq!(fault("redis_version:7.0.15 role:slave cluster_enabled:1", true), Some(Cause::Replica));
        assert_eq!(fault("", false), None);
    }

    #[test]
    fn settings_that_may_lose_state_are_named() {
        let warnings =
            |info: &str, save, fsync| ServerInfo(&info.replace(' ', "\r\n")).durability_warnings(save, fsync);
        for fsync in ["always", "everysec"] {
            assert_eq!(warnings("aof_enabled:1 maxmemory_policy:noeviction", Some(""), Some(fsync)), []);
        }
        assert_eq!(warnings("aof_enabled:1 maxmemory_policy:noeviction", Some(""), Some("no")), [Cause::NoFsync]);
        // Keys with an expiry may be evicted: state has none, but quotas and published books have one.
        assert_eq!(
            warnings("aof_enabled:1 maxmemory_policy:volatile-lru", None, None),
            [Cause::ConfigForbidden, Cause::EvictsQuotas("volatile-lru".to_owned())]
        );
        assert_eq!(
            warnings("aof_enabled:1 maxmemory_policy:allkeys-lru", Some("60 1"), Some("no")),
            [Cause::NoFsync, Cause::EvictsState("allkeys-lru".to_owned())]
        );
        assert_eq!(warnings("aof_enabled:0", Some("3600 1"), Some("always")), [Cause::SnapshotsOnly]);
        assert_eq!(warnings("aof_enabled:0", Some(""), Some("always")), [Cause::NotPersistent]);
        assert_eq!(warnings("", Some(""), Some("always")), [Cause::PersistenceUnknown]);
    }

    #[test]
    fn replicas_that_are_too_few_or_not_waited_for_are_named() {
        let replica =
            |at: usize, state: &str| format!("slave{at}:ip=10.0.0.{at},port=6379,state={state},offset=1,lag=0\r\n");
        let head = "role:master\r\nconnected_slaves:2\r\nslave_read_only:1\r\n".to_owned();
        let (one, two) = (
            head.clone() + &replica(0, "online") + &replica(1, "wait_bgsave"),
            head + &replica(0, "online") + &replica(1, "online"),
        );
        let warning = |info: &str, wanted| ServerInfo(info).replication_warning(wanted);
        assert_eq!(warning("role:master\r\nconnected_slaves:0\r\n", 0), None);
        assert_eq!(warning(&one, 1), None);
        assert_eq!(warning(&two, 2), None);
        assert_eq!(warning(&one, 2), Some(Cause::ReplicasMissing { wanted: 2, in_sync: 1 }));
        assert_eq!(warning(&two, 1), Some(Cause::ReplicasUnawaited { wanted: 1, in_sync: 2 }));
        assert_eq!(warning(&one, 0), Some(Cause::ReplicasUnawaited { wanted: 0, in_sync: 1 }));
    }
}
