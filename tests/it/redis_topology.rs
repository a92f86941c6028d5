//! Tests with real Redis servers behind sentinels and in a cluster: the client finds the server that has the gateway's
//! keys, and follows when another server takes them over.

use crate::support::{Cluster, PATIENCE, Program, Redis, Sentinels, Topology};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::{RedisAccess, RedisServers, RedisTarget, ServerAddress};
use iluma_gateway::redis::diagnosis::Cause;
use iluma_gateway::redis::{Budget, KeySpace, RedisClient, RedisFailure};
use redis::cmd;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The longest time until the client uses a new primary.
const BACK: Duration = Duration::from_secs(5);

/// A Redis client whose background tasks keep its connections. They end when this is dropped.
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

    /// Waits until a write succeeds. Fails if this takes longer than [`BACK`] from `since` on.
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

fn written(to: &Redis) -> bool {
    !to.ask::<Vec<String>>(cmd("KEYS").arg("*limit:nodes")).is_empty()
}

#[tokio::test]
async fn a_promotion_by_sentinels_is_followed_within_5_s() {
    let mut sentinels = Sentinels::start(Program::Redis).await;
    let servers = |master: &str| RedisServers::Sentinel {
        master: master.to_owned(),
        nodes: sentinels.sentinels.iter().map(|sentinel| address(sentinel.addr)).collect(),
        username: None,
        password: None,
        access: open(),
    };
    let unknown = Kept::on("state.redis.sentinel", servers("another"));
    assert_eq!(unknown.client.ready(PATIENCE).await, Err(Cause::UnknownMaster("another".to_owned())));

    let kept = Kept::on("state.redis.sentinel", servers("iluma"));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    sentinels.fail_over().await;
    kept.is_back(Instant::now()).await;
    assert!(written(sentinels.primary()), "to the new primary");
}

fn cluster(seeds: &[Redis]) -> RedisServers {
    RedisServers::Cluster { nodes: seeds.iter().map(|node| address(node.addr())).collect(), access: open() }
}

#[tokio::test]
async fn a_cluster_of_one_shard_serves_and_a_server_that_is_none_is_named() {
    let (one, alone) = (Cluster::start(Program::Redis, 1).await, [Redis::start().await]);
    let kept = Kept::on("state.redis.cluster", cluster(&one.nodes));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    let wrong = Kept::on("state.redis.cluster", cluster(&alone));
    assert_eq!(wrong.client.ready(PATIENCE).await, Err(Cause::NotACluster));
}

#[tokio::test]
async fn in_a_cluster_the_owner_of_the_slot_is_found_and_followed_when_the_slot_moves() {
    let all = Cluster::start(Program::Redis, 3).await;
    let kept = Kept::on("state.redis.cluster", cluster(&all.nodes[..1]));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    let before = all.owner();
    all.move_slot().await;
    kept.is_back(Instant::now()).await;
    assert_ne!(all.owner(), before);
    assert!(written(&all.nodes[all.owner()]), "to the new owner");
}

#[tokio::test]
async fn in_a_cluster_a_promotion_is_followed_within_5_s() {
    let mut all = Cluster::with_replicas(Program::Redis, 3).await;
    let kept = Kept::on("state.redis.cluster", cluster(&all.nodes));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    assert!(kept.writes().await);
    all.fail_over().await;
    kept.is_back(Instant::now()).await;
    assert!(written(&all.nodes[all.owner()]), "to the new owner");
}

/// Checks that a command about the root key's sentinel reaches the cluster node that has it. The sentinel is the only key
/// whose hash slot may differ from the slot of all other keys of the gateway.
#[tokio::test]
async fn in_a_cluster_a_command_about_a_key_in_another_slot_goes_to_its_node() {
    let all = Topology::Cluster(Cluster::start(Program::Redis, 3).await);
    let Topology::Cluster(Cluster { nodes, .. }) = &all else { unreachable!("a cluster") };
    let kept = Kept::on("state.redis.cluster", cluster(nodes));
    assert_eq!(kept.client.ready(PATIENCE).await, Ok(true));
    let root = iluma_gateway::redis::keys::root_sentinel();
    let budget = Budget::of(PATIENCE);
    let set: Result<(), _> = kept.client.command_at(&root, &budget, cmd("SET").arg(&root).arg("x")).await;
    assert_eq!(set, Ok(()));
    let get: Result<String, _> = kept.client.command_at(&root, &budget, cmd("GET").arg(&root)).await;
    assert_eq!(get, Ok("x".to_owned()));
    assert!(kept.client.is_up());
}
