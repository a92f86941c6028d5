//! Redis servers of each form for one test: a single one, a primary with a replica and sentinels, a cluster.

use super::redis::{Program, Redis};
use super::{folder, until};
use redis::{FromRedisValue, cmd};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Redis servers in one of the forms that the gateway supports.
#[allow(clippy::large_enum_variant, reason = "a test has one of them")]
pub enum Topology {
    Single(Redis),
    Sentinels(Sentinels),
    Cluster(Cluster),
    /// Servers for which the test gives the keys of `state.redis`, and the value of the secret `REDIS`.
    Other {
        servers: Vec<Redis>,
        keys: String,
        url: String,
    },
}

impl Topology {
    /// Returns the keys of `state.redis` that name the servers, and the value of the secret `REDIS`.
    pub fn form(&self) -> (String, String) {
        let list = |addresses: Vec<SocketAddr>| {
            addresses.iter().map(|addr| format!("\"{addr}\"")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Single(redis) => ("url = { env = \"REDIS\" }".to_owned(), redis.url()),
            Self::Sentinels(servers) => {
                let nodes = list(servers.sentinels.iter().map(|sentinel| sentinel.addr).collect());
                (format!("sentinel = {{ master = \"{MASTER}\", nodes = [{nodes}] }}"), String::new())
            }
            Self::Other { keys, url, .. } => (keys.clone(), url.clone()),
            Self::Cluster(cluster) => {
                let nodes = list(cluster.nodes.iter().map(Redis::addr).collect());
                (format!("cluster = [{nodes}]"), String::new())
            }
        }
    }

    /// Returns the server that holds the gateway's keys.
    pub fn owner(&self) -> &Redis {
        match self {
            Self::Single(redis) => redis,
            Self::Sentinels(servers) => servers.primary(),
            Self::Cluster(cluster) => &cluster.nodes[cluster.owner()],
            Self::Other { servers, .. } => &servers[0],
        }
    }
}

/// The name by which the sentinels know the primary.
pub const MASTER: &str = "iluma";

/// A primary and a replica, which three sentinels watch.
pub struct Sentinels {
    pub servers: [Redis; 2],
    pub sentinels: [Sentinel; 3],
}

impl Sentinels {
    pub async fn start(program: Program) -> Self {
        let primary = Redis::of(program, &["--save", "", "--repl-diskless-sync-delay", "0"]).await;
        let (addr, port) = (primary.addr(), primary.addr().port().to_string());
        let replica = ["--save", "", "--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &port];
        let replica = Redis::of(program, &replica).await;
        until("the replica is in sync", || replica.is_in_sync()).await;
        let sentinels =
            [Sentinel::of(program, addr).await, Sentinel::of(program, addr).await, Sentinel::of(program, addr).await];
        let all = Self { servers: [primary, replica], sentinels };
        all.are_ready().await;
        all
    }

    /// Waits until the sentinels know each other and the replica, and see nothing wrong.
    pub async fn are_ready(&self) {
        until("the sentinels are ready", || self.sentinels.iter().all(Sentinel::is_ready)).await;
    }

    pub fn primary(&self) -> &Redis {
        self.servers.iter().find(|server| server.is_primary()).expect("a primary")
    }

    /// Kills the primary, and waits until the other server is promoted.
    pub async fn fail_over(&mut self) {
        let at = self.servers.iter().position(Redis::is_primary).expect("a primary");
        self.servers[at].kill();
        until("the replica is promoted", || self.servers[1 - at].is_primary()).await;
    }

    /// Starts the server that was killed as a replica of the other one.
    pub async fn is_whole_again(&mut self) {
        let primary = self.primary().addr();
        let killed = self.servers.iter_mut().find(|server| server.addr() != primary).expect("two servers");
        killed.run_as_replica_of(primary).await;
        until("the new replica is in sync", || killed.is_in_sync()).await;
    }
}

/// A sentinel that runs until it is dropped.
pub struct Sentinel {
    pub addr: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Sentinel {
    async fn of(program: Program, primary: SocketAddr) -> Self {
        let folder = folder();
        let addr = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let (path, port, watched) = (folder.path().join("sentinel.conf"), addr.port(), primary.port());
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor {MASTER} 127.0.0.1 {watched} 2\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 1000\n"
        );
        std::fs::write(&path, text).expect("a file");
        let mut command = Command::new(program.path());
        command.arg(&path).arg("--sentinel").current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = Self { addr, child: command.spawn().expect("a sentinel"), _folder: folder };
        until("the sentinel answers", || sentinel.ask::<String>(&cmd("PING")).is_some()).await;
        sentinel
    }

    pub fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let client = redis::Client::open(format!("redis://{}/", self.addr)).expect("a URL");
        client.get_connection().and_then(|mut connection| command.query(&mut connection)).ok()
    }

    /// Returns true if the sentinel knows the other two sentinels, and a primary and a replica that work.
    fn is_ready(&self) -> bool {
        type State = std::collections::BTreeMap<String, String>;
        let state: Option<State> = self.ask(cmd("SENTINEL").arg("MASTER").arg(MASTER));
        let replicas: Option<Vec<State>> = self.ask(cmd("SENTINEL").arg("REPLICAS").arg(MASTER));
        let (Some(state), Some(replicas)) = (state, replicas) else { return false };
        let is = |state: &State, key: &str, value: &str| state.get(key).is_some_and(|found| found == value);
        is(&state, "num-other-sentinels", "2")
            && is(&state, "flags", "master")
            && replicas.len() == 1
            && replicas.iter().all(|replica| is(replica, "flags", "slave") && is(replica, "master-link-status", "ok"))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster: its primaries, and then their replicas if it has any.
pub struct Cluster {
    pub nodes: Vec<Redis>,
    shards: usize,
}

impl Cluster {
    /// Starts a cluster with this number of shards, without replicas.
    pub async fn start(program: Program, shards: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..shards {
            nodes.push(Self::node(program).await);
        }
        let (cluster, part) = (Self { nodes, shards }, 16_384 / shards);
        for (at, node) in cluster.nodes.iter().enumerate() {
            let last = if at + 1 == shards { 16_383 } else { (at + 1) * part - 1 };
            // Redis 6.2 has no command for ranges of slots.
            let mut add = cmd("CLUSTER");
            add.arg("ADDSLOTS").arg((at * part..=last).collect::<Vec<_>>());
            node.ask::<()>(&add);
            cluster.meet(node);
        }
        cluster.is_whole().await;
        cluster
    }

    /// Starts a cluster with this number of shards, each with a replica.
    pub async fn with_replicas(program: Program, shards: usize) -> Self {
        let mut cluster = Self::start(program, shards).await;
        for _ in 0..shards {
            let replica = Self::node(program).await;
            cluster.meet(&replica);
            cluster.nodes.push(replica);
        }
        cluster.is_whole().await;
        let (primaries, replicas) = cluster.nodes.split_at(shards);
        for (primary, replica) in primaries.iter().zip(replicas) {
            replica.ask::<()>(cmd("CLUSTER").arg("REPLICATE").arg(Self::id(primary)));
        }
        until("the replicas are in sync", || replicas.iter().all(Redis::is_in_sync)).await;
        cluster
    }

    /// Starts a node, which notices within a second that another one is gone.
    async fn node(program: Program) -> Redis {
        let timeout = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        Redis::of(program, &[&timeout[..], &["--repl-diskless-sync-delay", "0"]].concat()).await
    }

    fn meet(&self, node: &Redis) {
        let first = self.nodes[0].addr();
        if node.addr() != first {
            node.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(first.port()));
        }
    }

    async fn is_whole(&self) {
        let ok = |node: &Redis| {
            let (info, known): (String, String) =
                (node.ask(cmd("CLUSTER").arg("INFO")), node.ask(cmd("CLUSTER").arg("NODES")));
            info.contains("cluster_state:ok") && known.lines().count() == self.nodes.len()
        };
        until("the cluster is whole", || self.nodes.iter().all(ok)).await;
    }

    fn id(node: &Redis) -> String {
        node.ask(cmd("CLUSTER").arg("MYID"))
    }

    /// Returns the index in `nodes` of the primary that holds the gateways' keys.
    pub fn owner(&self) -> usize {
        let owns = |node: &Redis| node.is_primary() && Self::a_key(node).is_some();
        self.nodes.iter().position(owns).expect("a node with keys")
    }

    /// Returns the key `layout` if the node has it. Its slot has nearly all keys of the gateways.
    fn a_key(node: &Redis) -> Option<Vec<u8>> {
        node.try_ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("{iluma-gateway:*}:layout"))?.pop()
    }

    /// Kills the primary that holds the gateways' keys, and waits until its replica is promoted. Returns the index of
    /// the killed node in `nodes`.
    pub async fn fail_over(&mut self) -> usize {
        let owner = self.owner();
        self.nodes[owner].kill();
        until("the replica is promoted", || self.nodes[owner + self.shards].is_primary()).await;
        owner
    }

    /// Moves the slot with the gateways' keys to another node, as redis-cli does.
    pub async fn move_slot(&self) {
        let from = &self.nodes[self.owner()];
        let slot: u16 = from.ask(cmd("CLUSTER").arg("KEYSLOT").arg(Self::a_key(from)));
        let to = self.nodes.iter().find(|node| node.addr() != from.addr() && node.is_primary()).expect("another node");
        let set = |node: &Redis, how: &str, other: &Redis| {
            node.ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how).arg(Self::id(other)));
        };
        set(to, "IMPORTING", from);
        set(from, "MIGRATING", to);
        let held = || from.ask::<Vec<Vec<u8>>>(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100));
        while let keys @ [_, ..] = held().as_slice() {
            let mut migrate = cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(to.addr().port())
                .arg("")
                .arg(0)
                .arg(5000)
                .arg("REPLACE")
                .arg("KEYS")
                .arg(keys);
            from.ask::<redis::Value>(&migrate);
            tokio::task::yield_now().await;
        }
        for node in [to, from].into_iter().chain(self.nodes.iter().filter(|node| node.is_primary())) {
            set(node, "NODE", to);
        }
    }
}
