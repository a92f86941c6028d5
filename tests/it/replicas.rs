//! Tests of `state.redis.replicas`: a callback is acknowledged, and an idempotency key is claimed, only once this
//! number of replicas has it.

use crate::support::process::Folder;
use crate::support::{Cluster, PATIENCE, Program, Redis, Rig, Sentinels, Topology, Upstream, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use redis::cmd;

const KIND: &str = "NAME_VALIDATOR_REQUEST";

async fn endpoint() -> Upstream {
    Upstream::answering(|_| Response::new(Full::<Bytes>::default())).await
}

/// Starts a replica of a server.
async fn replica(of: &Redis) -> Redis {
    let port = of.addr().port().to_string();
    let replica =
        Redis::with(&["--save", "", "--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &port]).await;
    // The primary knows this a moment later than the replica.
    until("the replica is in sync", || of.ask::<String>(cmd("INFO").arg("replication")).contains("state=online")).await;
    replica
}

async fn rig(topology: &Topology, endpoint: &Upstream) -> Rig {
    let urls = format!("callback_urls = {{ {KIND} = \"{}/\" }}", endpoint.url());
    Rig::builder().topology(topology, ", replicas = 1").tenant("lending", &urls).start().await
}

fn callback(id: &str) -> String {
    format!(r#"{{"id":"{id}","reference_id":"lending:r"}}"#)
}

async fn posted(rig: &Rig, id: &str) -> u16 {
    rig.callback(KIND, callback(id)).send().await.status
}

#[tokio::test]
async fn a_callback_is_refused_until_the_replica_has_it_and_its_repeat_is_too() {
    let primary = Redis::start().await;
    let (follower, endpoint) = (replica(&primary).await, endpoint().await);
    let topology = Topology::Single(primary);
    let rig = rig(&topology, &endpoint).await;
    assert_eq!(posted(&rig, "a-first").await, 200);
    follower.pause();
    assert_eq!(posted(&rig, "a-second").await, 503);
    // The primary has the callback already. WAIT covers only the writes of its own connection, so a repeat must write
    // too. The other node's connection has not written before.
    let other = rig.another().await;
    assert_eq!(posted(&rig, "a-second").await, 503);
    assert_eq!(posted(&other, "a-second").await, 503);
    let stored: Vec<Vec<u8>> = topology.owner().ask(cmd("KEYS").arg("*:state:callback:*"));
    let written = stored.iter().map(|key| topology.owner().ask::<u8>(cmd("HEXISTS").arg(key).arg("repeated")));
    assert_eq!(written.sum::<u8>(), 1, "a repeat writes");
    follower.resume();
    assert_eq!(posted(&other, "a-second").await, 200);
    until("both are delivered", || endpoint.heard().len() >= 2).await;
    let not_stored =
        format!(r#"iluma_gateway_callbacks_received_total{{account="live",outcome="not_stored",type="{KIND}"}}"#);
    assert_eq!(rig.metric(&not_stored).await, 2.0);
    assert_eq!(other.metric(&not_stored).await, 1.0);
    other.stop().await;
    rig.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_is_claimed_only_once_the_replica_has_it_and_nothing_is_sent_before() {
    let primary = Redis::start().await;
    let follower = replica(&primary).await;
    let iluma = Upstream::answering(|_| {
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(br#"{"status":"COMPLETED"}"#))).expect("a response")
    });
    let (iluma, topology) = (iluma.await, Topology::Single(primary));
    let rig = Rig::builder().topology(&topology, ", replicas = 1").upstream(iluma.url()).start().await;
    let asked = async |key: &str| {
        let body = r#"{"nik":"3171234567890123","name":"Contoh Demo"}"#;
        let request = rig.post("lending", "/v1/identity/ktp_name/validations", body);
        request.header("idempotency-key", key).send().await
    };
    assert_eq!(asked("a-first").await.status, 200);
    follower.pause();
    let refused = asked("a-second").await;
    assert_eq!((refused.status, refused.header("x-gateway-error")), (503, "idempotency_unavailable"));
    assert_eq!(iluma.heard().len(), 1, "nothing was sent");
    let repeated = asked("a-first").await;
    assert_eq!((repeated.status, repeated.header("idempotent-replayed")), (200, "true"), "what is there is read");
    follower.resume();
    let look = async {
        // The refused claim ends a moment after its answer.
        while asked("a-second").await.status != 200 {}
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the key is free again");
    assert_eq!(iluma.heard().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_it_was_idle_costs_no_callback() {
    let primary = Redis::start().await;
    let (_follower, endpoint) = (replica(&primary).await, endpoint().await);
    let topology = Topology::Single(primary);
    let rig = rig(&topology, &endpoint).await;
    assert_eq!(posted(&rig, "first").await, 200);
    let clients: String = topology.owner().ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("NORMAL"));
    let waited: Vec<_> = clients.lines().filter(|line| line.contains(" cmd=wait ")).collect();
    assert_eq!(waited.len(), 1, "one connection of its own: {clients}");
    let id = waited[0].split(' ').next().and_then(|id| id.strip_prefix("id=")).expect("an id");
    topology.owner().ask::<u32>(cmd("CLIENT").arg("KILL").arg("ID").arg(id));
    assert_eq!(posted(&rig, "second").await, 200);
    assert_eq!(rig.metric("iluma_gateway_redis_up").await, 1.0);
    rig.stop().await;
}

#[tokio::test]
async fn replicas_are_waited_for_behind_sentinels_and_in_a_cluster() {
    let sentinels = Topology::Sentinels(Sentinels::start(Program::Redis).await);
    let cluster = Topology::Cluster(Cluster::start(Program::Redis, 1).await);
    for (topology, expected) in [(&sentinels, 200), (&cluster, 503)] {
        let endpoint = endpoint().await;
        let rig = rig(topology, &endpoint).await;
        assert_eq!(posted(&rig, "one").await, expected, "with {} replicas", if expected == 200 { 1 } else { 0 });
        rig.stop().await;
    }
}

#[tokio::test]
async fn check_compares_the_replicas_with_those_that_are_in_sync() {
    let primary = Redis::with(&["--appendonly", "yes"]).await;
    let _follower = replica(&primary).await;
    let warnings = async |user: &str, replicas: usize| {
        let url = format!("redis://{user}{}/", primary.addr());
        let folder = Folder::new("http://127.0.0.1:9").env("REDIS", &url);
        let redis = format!("redis = {{ url = {{ env = \"REDIS\" }}, replicas = {replicas} }}\n[accounts.live]");
        folder.write("config.toml", &Folder::text("http://127.0.0.1:9").replace("[accounts.live]", &redis));
        let said = folder.once("check").await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.stdout.contains(&format!("\nreplicas = {replicas}\n")), "{said:?}");
        said.stderr.lines().filter(|line| line.contains("state.redis")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(warnings("", 1).await, Vec::<String>::new());
    let expect =
        |found: Vec<String>, text: &str| assert!(matches!(&found[..], [one] if one.contains(text)), "{found:?}");
    expect(warnings("", 0).await, "1 replicas in sync and state.redis.replicas is 0");
    expect(warnings("", 2).await, "state.redis.replicas is 2 and Redis has 1 in sync");
    let rules = ["on", ">right", "~*", "&*", "+@all", "-wait"];
    primary.ask::<()>(cmd("ACL").arg("SETUSER").arg("impatient").arg(&rules));
    expect(warnings("impatient:right@", 1).await, "Redis refuses WAIT to this user");
}
