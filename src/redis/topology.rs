//! Locates the server that holds the gateway's keys: one server, sentinels, or a cluster.
//!
//! The configuration decides which server this is: the server in the URL, the primary that the sentinels name, or the
//! cluster node that owns the keys' slot.
//!
//! Invariant: the answer of one sentinel or of one node of a cluster is never trusted alone: the located server itself
//! must say that it is a primary, and accept the keys.

use super::diagnosis::{Cause, Unreachable};
use super::keys::RedisKey;
use crate::config::{RedisAccess, RedisServers, RedisTarget, ServerAddress};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value,
};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// The timeout of a query to a sentinel or to a cluster node. Two such queries fit into the second that a start waits.
const QUERY_TIMEOUT: Duration = Duration::from_millis(400);
/// The largest number of cluster nodes that are remembered besides the configured nodes. They are asked too, in case
/// all configured nodes are gone.
const MOST_KNOWN: usize = 16;

/// The servers, and the credentials for them.
pub(super) struct Topology {
    target: RedisTarget,
    /// The nodes that the cluster named.
    known: Mutex<Vec<ServerAddress>>,
}

/// A located server.
pub(super) struct Located {
    pub(super) client: redis::Client,
    /// The server's address; `None` if the URL names it.
    pub(super) address: Option<ServerAddress>,
}

impl Topology {
    /// Makes the topology of a configured Redis.
    ///
    /// # Errors
    /// Returns an error if the URL or the certificates can't be used; the configuration has checked both.
    pub(super) fn new(target: &RedisTarget) -> Result<Self, RedisError> {
        let topology = Self { target: target.clone(), known: Mutex::default() };
        match &target.servers {
            RedisServers::Url(url) => topology.client(url.expose_secret().into_connection_info()?)?,
            RedisServers::Sentinel { access, .. } | RedisServers::Cluster { access, .. } => {
                topology.reached(&ServerAddress { host: "localhost".to_owned(), port: 1 }, access)?
            }
        };
        Ok(topology)
    }

    /// Returns the kind of the servers: `single`, `sentinel` or `cluster`.
    pub(super) const fn name(&self) -> &'static str {
        match self.target.servers {
            RedisServers::Url(_) => "single",
            RedisServers::Sentinel { .. } => "sentinel",
            RedisServers::Cluster { .. } => "cluster",
        }
    }

    /// Returns true if the servers are a cluster.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.target.servers, RedisServers::Cluster { .. })
    }

    /// Returns the cause as this topology grades it. With sentinels or in a cluster, the new primary can be located. So
    /// the answer of a former primary counts as a failover there, and not as a fault.
    pub(super) fn judge(&self, cause: Cause) -> Cause {
        let is_followed = match (&self.target.servers, &cause) {
            (RedisServers::Url(_), _) => false,
            (RedisServers::Sentinel { .. }, cause) => *cause == Cause::Replica,
            (RedisServers::Cluster { .. }, cause) => matches!(cause, Cause::Replica | Cause::Cluster),
        };
        if is_followed { Cause::Failover } else { cause }
    }

    /// Locates the server that holds `key`.
    pub(super) async fn locate(&self, key: &RedisKey) -> Result<Located, Cause> {
        let cause = |error: RedisError| Cause::of(&error);
        let (address, access) = match &self.target.servers {
            RedisServers::Url(url) => {
                let info = url.expose_secret().into_connection_info().map_err(cause)?;
                return Ok(Located { client: self.client(info).map_err(cause)?, address: None });
            }
            RedisServers::Sentinel { access, .. } => (self.named_by_sentinels().await?, access),
            RedisServers::Cluster { nodes, access } => (self.owner_in_cluster(nodes, access, key).await?, access),
        };
        Ok(Located { client: self.reached(&address, access).map_err(cause)?, address: Some(address) })
    }

    /// Returns true if more than half of the sentinels agree on a primary other than `address`.
    pub(super) async fn has_moved(&self, address: &ServerAddress) -> bool {
        let RedisServers::Sentinel { nodes, .. } = &self.target.servers else { return false };
        let (votes, _) = self.votes().await;
        votes.iter().any(|(named, count)| named != address && count * 2 > nodes.len())
    }

    async fn named_by_sentinels(&self) -> Result<ServerAddress, Cause> {
        let (votes, failure) = self.votes().await;
        match votes.into_iter().max_by_key(|(_, count)| *count) {
            Some((address, _)) => Ok(address),
            None => Err(failure.unwrap_or(Cause::Unreachable(Unreachable::Timeout))),
        }
    }

    /// Asks every sentinel for the primary. Returns the number of votes for each server, and the reason why a sentinel
    /// did not vote; the reason is `None` if all sentinels voted.
    async fn votes(&self) -> (BTreeMap<ServerAddress, usize>, Option<Cause>) {
        let RedisServers::Sentinel { master, nodes, username, password, access } = &self.target.servers else {
            return (BTreeMap::new(), None);
        };
        let credentials =
            RedisAccess { username: username.clone(), password: password.clone(), tls: access.tls, database: 0 };
        let asked = nodes.iter().map(|node| self.named_by(node, &credentials, master));
        let (mut votes, mut failure) = (BTreeMap::new(), None);
        for answer in join_all(asked).await {
            match answer {
                Ok(address) => *votes.entry(address).or_default() += 1,
                // A sentinel that does not know the primary is more informative than one that can't be reached.
                Err(cause @ Cause::UnknownMaster(_)) => failure = Some(cause),
                Err(cause) if failure.is_none() => failure = Some(Cause::Sentinels(Box::new(cause))),
                Err(_) => {}
            }
        }
        (votes, failure)
    }

    async fn named_by(
        &self,
        sentinel: &ServerAddress,
        credentials: &RedisAccess,
        master: &str,
    ) -> Result<ServerAddress, Cause> {
        let asked = async {
            let mut connection = self.connection(sentinel, credentials).await?;
            let mut ask = redis::cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master).query_async(&mut connection).await
        };
        let named: Option<(String, u16)> = timeout(QUERY_TIMEOUT, asked)
            .await
            .map_err(|_| Cause::Unreachable(Unreachable::Timeout))?
            .map_err(|error: RedisError| Cause::of(&error))?;
        named.map(|(host, port)| ServerAddress { host, port }).ok_or_else(|| Cause::UnknownMaster(master.to_owned()))
    }

    async fn owner_in_cluster(
        &self,
        seeds: &[ServerAddress],
        access: &RedisAccess,
        key: &RedisKey,
    ) -> Result<ServerAddress, Cause> {
        let known = self.known.lock().clone();
        let asked = seeds.iter().chain(&known).map(|node| self.owner_by(node, access, key));
        let mut failure = None;
        // A node that was cut off from the others may name a former owner; the located server itself would say so.
        let mut owners = BTreeMap::<ServerAddress, usize>::new();
        for answer in join_all(asked).await {
            match answer {
                Ok((owner, nodes)) => {
                    *owners.entry(owner).or_default() += 1;
                    *self.known.lock() = nodes;
                }
                Err(cause) => failure = failure.or(Some(cause)),
            }
        }
        match owners.into_iter().max_by_key(|(_, count)| *count) {
            Some((owner, _)) => Ok(owner),
            None => Err(failure.unwrap_or(Cause::Unreachable(Unreachable::Timeout))),
        }
    }

    /// Asks a node of the cluster for its slots. Returns the owner of the key's slot, and the nodes that own slots.
    async fn owner_by(
        &self,
        node: &ServerAddress,
        access: &RedisAccess,
        key: &RedisKey,
    ) -> Result<(ServerAddress, Vec<ServerAddress>), Cause> {
        let asked = async {
            let mut connection = self.connection(node, access).await?;
            let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut connection).await?;
            let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
            Ok((slot, slots))
        };
        let answer = timeout(QUERY_TIMEOUT, asked).await.map_err(|_| Cause::Unreachable(Unreachable::Timeout))?;
        let (slot, slots) = answer.map_err(|error: RedisError| match error.detail() {
            Some(detail) if detail.contains("cluster support disabled") => Cause::NotACluster,
            _ => Cause::of(&error),
        })?;
        let ranges = slot_ranges(&slots, &node.host);
        let nodes = ranges.iter().map(|range| range.owner.clone()).take(MOST_KNOWN).collect();
        let owner = ranges.into_iter().find(|range| (range.first..=range.last).contains(&slot));
        owner.map(|range| (range.owner, nodes)).ok_or_else(|| Cause::SlotNotServed("no owner".to_owned()))
    }

    async fn connection(
        &self,
        address: &ServerAddress,
        access: &RedisAccess,
    ) -> Result<MultiplexedConnection, RedisError> {
        // The library's own timeouts are off: QUERY_TIMEOUT covers each step.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        self.reached(address, access)?.get_multiplexed_async_connection_with_config(&settings).await
    }

    /// Makes a client of the server at an address.
    fn reached(&self, address: &ServerAddress, access: &RedisAccess) -> Result<redis::Client, RedisError> {
        let ServerAddress { host, port } = address.clone();
        let address = if access.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut settings = RedisConnectionInfo::default().set_db(access.database);
        if let Some(username) = &access.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &access.password {
            settings = settings.set_password(password.expose_secret());
        }
        self.client(address.into_connection_info()?.set_redis_settings(settings))
    }

    fn client(&self, info: ConnectionInfo) -> Result<redis::Client, RedisError> {
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings);
        match &self.target.extra_ca {
            Some(pem) => redis::Client::build_with_tls(
                info,
                redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) },
            ),
            None => redis::Client::open(info),
        }
    }
}

/// A range of slots and the node that owns it.
#[derive(Debug, PartialEq, Eq)]
struct SlotRange {
    first: u16,
    last: u16,
    owner: ServerAddress,
}

/// Reads the answer to CLUSTER SLOTS, and leaves out damaged rows. A row without a host means the node that answered,
/// whose host is `asked`.
fn slot_ranges(answer: &Value, asked: &str) -> Vec<SlotRange> {
    let Value::Array(rows) = answer else { return Vec::new() };
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let range = |row: &Value| {
        let Value::Array(row) = row else { return None };
        let [first, last, Value::Array(owner), ..] = row.as_slice() else { return None };
        let [host, port, ..] = owner.as_slice() else { return None };
        let host = match host {
            Value::BulkString(name) if !name.is_empty() && name != b"?" => String::from_utf8(name.clone()).ok()?,
            _ => asked.to_owned(),
        };
        let owner = ServerAddress { host, port: number(port)? };
        Some(SlotRange { first: number(first)?, last: number(last)?, owner })
    };
    rows.iter().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec()), Value::Array(vec![])]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node.clone(), node])
    }

    fn range(first: u16, last: u16, host: &str, port: u16) -> SlotRange {
        SlotRange { first, last, owner: ServerAddress { host: host.to_owned(), port } }
    }

    #[test]
    fn the_owners_of_slots_are_read_and_damaged_rows_left_out() {
        let host = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let answer = Value::Array(vec![
            row(0, 5460, host("10.0.0.1"), 6379),
            row(5461, 10_922, Value::Nil, 6380),
            row(10_923, 16_383, host(""), 6381),
            row(-1, 3, host("x"), 1),
            Value::Nil,
        ]);
        let expected = [
            range(0, 5460, "10.0.0.1", 6379),
            range(5461, 10_922, "asked.example", 6380),
            range(10_923, 16_383, "asked.example", 6381),
        ];
        assert_eq!(slot_ranges(&answer, "asked.example"), expected);
        assert_eq!(slot_ranges(&Value::Okay, "asked.example"), []);
    }
}
