//! Redis behind sentinels and in a cluster, with real servers: the gateway locates its keys, and follows them.

use crate::support::{PATIENCE, Redis, folder, until};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::{RedisAccess, RedisServers, RedisTarget, ServerAddress};
use iluma_gateway::redis::diagnosis::Cause;
use iluma_gateway::redis::{Budget, KeySpace, RedisClient, RedisFailure};
use redis::{Value, cmd};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The time in which the gateway must use a new primary.
const BACK: Duration = Duration::from_secs(5);

/// A client that is kept until the test ends.
struct Kept {
    client: RedisClient,
    stop: CancellationToken,
}

impl Kept {
    fn on(name: &'static str, servers: RedisServers) -> Self {
        let target = RedisTarget { name, servers, extra_ca: None };
        let names = KeySpace::new(&[1; 32]);
        let client = RedisClient::new(&target, names.clone(), &[names.changes_channel()]).expect("a client");
        let stop = CancellationToken::new();
        client.keep(&Tasks::new(), stop.clone());
        Self { client, stop }
    }

    async fn writes(&self) -> bool {
        let set = cmd("SET").arg(self.client.keys().limit_nodes()).arg("x").clone();
        let written: Result<(), RedisFailure> = self.client.command(&Budget::of(Duration::from_secs(1)), &set).await;
        written.is_ok()
    }

    /// Waits until a write succeeds, at most for the time in which the gateway must be back.
    async fn is_back(&self, since: Instant) {
        while !self.writes().await {
            assert!(since.elapsed() < BACK, "not back after {:?}: {:?}", since.elapsed(), self.client.cause());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(since.elapsed() < BACK, "back after {:?}", since.elapsed());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn address(addr: SocketAddr) -> ServerAddress {
    ServerAddress { host: addr.ip().to_string(), port: addr.port() }
}

fn open() -> RedisAccess {
    RedisAccess { username: None, password: None, tls: false, database: 0 }
}

fn ask<T: redis::FromRedisValue>(addr: SocketAddr, command: &redis::Cmd) -> Option<T> {
    let client = redis::Client::open(format!("redis://{addr}/")).expect("a URL");
    client.get_connection().and_then(|mut connection| command.query(&mut connection)).ok()
}

/// A sentinel that runs until it is dropped.
struct Sentinel {
    addr: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Sentinel {
    async fn of(primary: SocketAddr) -> Self {
        let folder = folder();
        let addr = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let (path, port, watched) = (folder.path().join("sentinel.conf"), addr.port(), primary.port());
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor iluma 127.0.0.1 {watched} 2\n\
             sentinel down-after-milliseconds iluma 500\nsentinel failover-timeout iluma 3000\n"
        );
        std::fs::write(&path, text).expect("a file");
        let mut command = Command::new("redis-server");
        command.arg(&path).arg("--sentinel").current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = Self { addr, child: command.spawn().expect("redis-server"), _folder: folder };
        until("the sentinel answers", || ask::<String>(addr, &cmd("PING")).is_some()).await;
        sentinel
    }

    /// Returns true if the sentinel knows the other two sentinels and the replica.
    fn knows_all(&self) -> bool {
        let state: Option<std::collections::BTreeMap<String, String>> =
            ask(self.addr, cmd("SENTINEL").arg("MASTER").arg("iluma"));
        state.is_some_and(|state| {
            let is = |key: &str, value: &str| state.get(key).is_some_and(|found| found == value);
            is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
        })
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_primary(addr: SocketAddr) -> bool {
    ask::<Value>(addr, &cmd("ROLE")).is_some_and(|role| match role {
        Value::Array(parts) => parts.first() == Some(&Value::BulkString(b"master".to_vec())),
        _ => false,
    })
}

#[tokio::test]
async fn a_promotion_by_sentinels_is_followed_within_5_s() {
    let mut primary = Redis::start().await;
    let port = primary.addr().port().to_string();
    let replica = Redis::with(&["--save", "", "--replicaof", "127.0.0.1", &port]).await;
    let sentinels =
        [Sentinel::of(primary.addr()).await, Sentinel::of(primary.addr()).await, Sentinel::of(primary.addr()).await];
    until("the sentinels know each other", || sentinels.iter().all(Sentinel::knows_all)).await;
    let servers = |master: &str| RedisServers::Sentinel {
        master: master.to_owned(),
        nodes: sentinels.iter().map(|sentinel| address(sentinel.addr)).collect(),
        username: None,
        password: None,
        access: open(),
    };
    let unknown = Kept::on("state.redis.sentinel", servers("another"));
    assert_eq!(unknown.client.ready(PATIENCE).await, Err(Cause::UnknownMaster("another".to_owned())));

    let kept = Kept::on("state.redis.sentinel", servers("iluma"));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    primary.kill();
    until("the replica is promoted", || is_primary(replica.addr())).await;
    kept.is_back(Instant::now()).await;
    assert!(!replica.ask::<Vec<String>>(cmd("KEYS").arg("*limit:nodes")).is_empty(), "written to the new primary");
}

/// Starts a node of a cluster; it notices within a second that another node is gone.
async fn node() -> Redis {
    Redis::with(&["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]).await
}

fn id(node: &Redis) -> String {
    node.ask(cmd("CLUSTER").arg("MYID"))
}

async fn is_whole(nodes: &[&Redis]) {
    let ok = |node: &&Redis| {
        let (info, known): (String, String) =
            (node.ask(cmd("CLUSTER").arg("INFO")), node.ask(cmd("CLUSTER").arg("NODES")));
        info.contains("cluster_state:ok") && known.lines().count() == nodes.len()
    };
    until("the cluster is whole", || nodes.iter().all(ok)).await;
}

/// Gives each node its part of the slots, and joins the nodes.
async fn joined(nodes: &[&Redis]) {
    let part = 16_384 / nodes.len();
    for (at, node) in nodes.iter().enumerate() {
        let last = if at + 1 == nodes.len() { 16_383 } else { (at + 1) * part - 1 };
        node.ask::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(at * part).arg(last));
        meet(nodes[0], node);
    }
    is_whole(nodes).await;
}

fn meet(one: &Redis, other: &Redis) {
    if one.addr() != other.addr() {
        other.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(one.addr().port()));
    }
}

fn cluster(seeds: &[&Redis]) -> RedisServers {
    RedisServers::Cluster { nodes: seeds.iter().map(|node| address(node.addr())).collect(), access: open() }
}

fn slot_of(kept: &Kept, node: &Redis) -> u16 {
    node.ask(cmd("CLUSTER").arg("KEYSLOT").arg(kept.client.keys().limit_nodes()))
}

#[tokio::test]
async fn a_cluster_of_one_shard_serves_and_a_server_that_is_none_is_named() {
    let (one, alone) = (node().await, Redis::start().await);
    joined(&[&one]).await;
    let kept = Kept::on("state.redis.cluster", cluster(&[&one]));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    let wrong = Kept::on("state.redis.cluster", cluster(&[&alone]));
    assert_eq!(wrong.client.ready(PATIENCE).await, Err(Cause::NotACluster));
}

#[tokio::test]
async fn in_a_cluster_the_owner_of_the_slot_is_found_and_followed_when_the_slot_moves() {
    let nodes = [node().await, node().await, node().await];
    let all = [&nodes[0], &nodes[1], &nodes[2]];
    joined(&all).await;
    let kept = Kept::on("state.redis.cluster", cluster(&all[..1]));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    let slot = slot_of(&kept, all[0]);
    let held = |node: &Redis| node.ask::<Vec<Vec<u8>>>(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1000));
    let (mut owner, mut others): (Vec<&Redis>, Vec<&Redis>) = all.iter().partition(|node| !held(node).is_empty());
    let (from, to) = (owner.pop().expect("an owner"), others.pop().expect("another"));
    assert!(owner.is_empty(), "one node owns the slot");
    let set = |node: &Redis, how: &str, other: &Redis| {
        node.ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how).arg(id(other)));
    };
    set(to, "IMPORTING", from);
    set(from, "MIGRATING", to);
    while let keys @ [_, ..] = held(from).as_slice() {
        let port = to.addr().port();
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(port).arg("").arg(0).arg(1000).arg("REPLACE").arg("KEYS").arg(keys);
        from.ask::<()>(&migrate);
    }
    for node in [to, from].into_iter().chain(others) {
        set(node, "NODE", to);
    }
    kept.is_back(Instant::now()).await;
    assert!(!held(to).is_empty(), "written to the new owner");
}

#[tokio::test]
async fn in_a_cluster_a_promotion_is_followed_within_5_s() {
    let mut nodes = [node().await, node().await, node().await];
    joined(&nodes.iter().collect::<Vec<_>>()).await;
    let replica = node().await;
    let kept = Kept::on("state.redis.cluster", cluster(&nodes.iter().collect::<Vec<_>>()));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    let slot = slot_of(&kept, &nodes[0]);
    let owns = |node: &Redis| node.ask::<usize>(cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot)) > 0;
    let owner = nodes.iter().position(owns).expect("an owner");
    meet(&nodes[owner], &replica);
    is_whole(&nodes.iter().chain([&replica]).collect::<Vec<_>>()).await;
    replica.ask::<()>(cmd("CLUSTER").arg("REPLICATE").arg(id(&nodes[owner])));
    until("the replica has the keys", || {
        replica.ask::<String>(cmd("INFO").arg("replication")).contains("master_link_status:up")
    })
    .await;
    nodes[owner].kill();
    until("the replica is promoted", || is_primary(replica.addr())).await;
    kept.is_back(Instant::now()).await;
    assert!(owns(&replica), "written to the new owner");
}
