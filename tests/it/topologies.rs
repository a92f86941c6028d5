//! Tests of two nodes that share state: the same checks for each form of Redis and Valkey.

use crate::support::process::Folder;
use crate::support::tls::Authority;
use crate::support::{Cluster, MASTER, Program, Redis, Rig, Sentinels, Topology, Upstream, folder, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use redis::cmd;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Duration;
use tokio::task::JoinSet;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_name/validations";
const KIND: &str = "NAME_VALIDATOR_REQUEST";

/// Two nodes of one deployment, and the endpoint of the team `lending`.
struct Pair {
    a: Rig,
    b: Rig,
    endpoint: Upstream,
}

fn person(name: &str) -> String {
    json!({"given_name": name, "surname": "Demo"}).to_string()
}

fn account(number: &str, reference: &str) -> String {
    json!({"bank_code": "BCA", "bank_account_number": number, "reference_id": reference}).to_string()
}

impl Pair {
    async fn on(topology: &Topology) -> Self {
        let endpoint = Upstream::answering(|_| Response::new(Full::<Bytes>::default())).await;
        let urls = format!("callback_urls = {{ {KIND} = \"{}/\" }}", endpoint.url());
        let builder = Rig::builder().topology(topology, "").tenant("lending", &urls);
        let builder = builder.tenant("scoring", "upstream_calls_per_day = 3").simulator(|options| {
            options.pending_first = true;
            options.callback_delay = Duration::from_secs(3600);
            options.latency = Duration::from_millis(20);
        });
        let a = builder.start().await;
        let b = a.another().await;
        Self { a, b, endpoint }
    }

    fn requests(&self, route: &str) -> u64 {
        self.a.sim().stats().routes.get(route).map_or(0, |stats| stats.requests)
    }

    async fn is_known(node: &Rig, name: &str) -> bool {
        node.post("lending", CFT, person(name)).header("cache-control", "only-if-cached").send().await.status == 200
    }

    async fn share_the_cache(&self) {
        let first = self.a.post("lending", CFT, person("Contoh")).send().await;
        assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
        until("the other node may know it", || self.requests("cft") == 1).await;
        let second = self.b.post("payments", CFT, person("Contoh")).send().await;
        assert!(second.header("cache-status").starts_with("iluma-gateway; hit"), "{:?}", second.headers);
        assert_eq!(second.body, first.body);
    }

    async fn collapse(&self) {
        let before = self.requests("cft");
        let mut crowd = JoinSet::new();
        for at in 0..20 {
            let node = if at % 2 == 0 { &self.a } else { &self.b };
            crowd.spawn(node.post("lending", CFT, person("Ramai")).send());
        }
        while let Some(done) = crowd.join_next().await {
            assert_eq!(done.expect("an answer").status, 200);
        }
        assert_eq!(self.requests("cft"), before + 1);
    }

    async fn share_what_is_pending_and_deliver_its_callback(&self) {
        let first = self.a.post("lending", BANK, account("1234567811", "loan-1")).send().await.json();
        assert_eq!(first["status"], "PENDING");
        let shared = self.b.post("payments", BANK, account("1234567811", "pay-1")).send().await;
        assert_eq!((&shared.json()["id"], &shared.json()["reference_id"]), (&first["id"], &json!("pay-1")));
        assert_eq!(self.requests("bank"), 1);
        let result = json!({
            "id": first["id"], "reference_id": "lending:loan-1", "status": "COMPLETED", "bank_code": "BCA",
            "bank_account_number": "1234567811", "result": {"is_found": true, "account_holder_name": "BUDI"}
        });
        // The callback is posted twice to the node that did not make the call.
        for _ in 0..2 {
            assert_eq!(self.b.callback(KIND, result.to_string()).send().await.status, 200);
        }
        until("it is delivered", || !self.endpoint.heard().is_empty()).await;
        let delivered: Vec<Value> =
            self.endpoint.heard().iter().map(|heard| serde_json::from_slice(&heard.body).expect("JSON")).collect();
        assert_eq!(delivered.len(), 1, "once: {delivered:?}");
        assert_eq!((&delivered[0]["id"], &delivered[0]["reference_id"]), (&first["id"], &json!("loan-1")));
        let answer = async || self.a.post("payments", BANK, account("1234567811", "pay-2")).send().await.json();
        while answer().await["status"] == "PENDING" {
            // A node may keep "pending" for 5 s by its own clock.
            self.a.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(answer().await["result"]["account_holder_name"], "BUDI");
        assert_eq!(self.requests("bank"), 1);
    }

    async fn keep_a_quota_and_the_books(&self) {
        let mut statuses = Vec::new();
        for at in 0..4 {
            let node = if at % 2 == 0 { &self.a } else { &self.b };
            let body = json!({"nik": format!("317123456789{at:04}"), "name": "Contoh"}).to_string();
            statuses.push(node.post("scoring", KTP, body).send().await.status);
        }
        assert_eq!(statuses, [200, 200, 200, 429]);
        let charged = self.a.sim().stats().charged;
        for node in [&self.a, &self.b] {
            let books = async || {
                let usage = node.operator("GET", "/v1/usage").send().await.json();
                let sum = |name: &str| {
                    usage["rows"].as_array().into_iter().flatten().filter_map(|row| row[name].as_u64()).sum::<u64>()
                };
                sum("billable") == charged && sum("unknown") == 0
            };
            let look = async {
                while !books().await {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let seen = tokio::time::timeout(crate::support::PATIENCE, look).await;
            assert!(seen.is_ok(), "each node tells the {charged} calls of both");
        }
    }

    async fn purge_and_erase(&self) {
        for node in [&self.a, &self.b] {
            node.post("lending", CFT, person("Hapus")).send().await;
        }
        let purged = self.b.operator("POST", "/v1/cache/purge").json(r#"{"route":"cft"}"#).send().await;
        assert_eq!(purged.status, 200, "{}", purged.text());
        for node in [&self.a, &self.b] {
            assert!(!Self::is_known(node, "Hapus").await);
        }
        let order = json!({"bank_code": "BCA", "bank_account_number": "1234567811"}).to_string();
        let erased = self.a.operator("POST", "/v1/erase").json(order).send().await;
        assert_eq!(erased.status, 200, "{}", erased.text());
        for node in [&self.a, &self.b] {
            let asked =
                node.post("lending", BANK, account("1234567811", "x")).header("cache-control", "only-if-cached");
            assert_eq!(asked.send().await.status, 504);
        }
    }
}

/// Runs all checks of two nodes over servers of this form.
async fn is_shared_over(topology: &Topology) {
    let pair = Pair::on(topology).await;
    assert_eq!(pair.b.metric("iluma_gateway_redis_up").await, 1.0);
    pair.share_the_cache().await;
    pair.collapse().await;
    pair.share_what_is_pending_and_deliver_its_callback().await;
    pair.keep_a_quota_and_the_books().await;
    pair.purge_and_erase().await;
    assert_eq!(pair.a.metric("iluma_gateway_redis_up").await, 1.0);
    pair.b.stop().await;
    pair.a.stop().await;
}

async fn single(program: Program) -> Topology {
    Topology::Single(Redis::of(program, &["--save", ""]).await)
}

#[tokio::test]
async fn redis_7_serves_two_nodes() {
    is_shared_over(&single(Program::Redis).await).await;
}

#[tokio::test]
async fn redis_6_2_serves_two_nodes() {
    is_shared_over(&single(Program::Redis62).await).await;
}

#[tokio::test]
async fn valkey_serves_two_nodes() {
    is_shared_over(&single(Program::Valkey).await).await;
}

#[tokio::test]
async fn a_primary_with_a_replica_behind_three_sentinels_serves_two_nodes() {
    is_shared_over(&Topology::Sentinels(Sentinels::start(Program::Redis).await)).await;
}

#[tokio::test]
async fn redis_6_2_behind_sentinels_serves_two_nodes() {
    is_shared_over(&Topology::Sentinels(Sentinels::start(Program::Redis62).await)).await;
}

#[tokio::test]
async fn valkey_behind_sentinels_serves_two_nodes() {
    is_shared_over(&Topology::Sentinels(Sentinels::start(Program::Valkey).await)).await;
}

#[tokio::test]
async fn a_cluster_of_one_shard_serves_two_nodes() {
    is_shared_over(&Topology::Cluster(Cluster::start(Program::Redis, 1).await)).await;
}

#[tokio::test]
async fn a_cluster_of_three_shards_serves_two_nodes() {
    is_shared_over(&Topology::Cluster(Cluster::start(Program::Redis, 3).await)).await;
}

#[tokio::test]
async fn a_valkey_cluster_of_three_shards_serves_two_nodes() {
    is_shared_over(&Topology::Cluster(Cluster::start(Program::Valkey, 3).await)).await;
}

/// Creates the Redis user `gateway` with the rules of docs/several-nodes.md, and `more` rules.
fn restricted(redis: &Redis, more: &[&str]) {
    let document = include_str!("../../docs/several-nodes.md");
    let begin = "ACL SETUSER gateway on >PASSWORD ";
    let rules = document.lines().find_map(|line| line.strip_prefix(begin)).expect("rules").split(' ');
    let rules: Vec<_> = ["on", ">right"].into_iter().chain(rules).chain(more.iter().copied()).collect();
    redis.ask::<()>(cmd("ACL").arg("SETUSER").arg("gateway").arg(rules));
}

#[tokio::test]
async fn a_user_with_our_keys_and_channels_alone_serves_two_nodes() {
    let redis = Redis::with(&["--save", ""]).await;
    restricted(&redis, &[]);
    redis.ask::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("off"));
    let url = format!("redis://gateway:right@{}/", redis.addr());
    let said = checked(&url, ", replicas = 1").await;
    let refused = ["CONFIG", "WAIT", "INFO"].map(|command| said.contains(command));
    assert_eq!(refused, [false; 3], "nothing of what check looks at: {said}");
    is_shared_over(&Topology::Other { servers: vec![redis], keys: "url = { env = \"REDIS\" }".to_owned(), url }).await;
}

#[tokio::test]
async fn a_user_with_our_keys_alone_serves_two_nodes_in_a_cluster() {
    let Cluster { nodes, .. } = Cluster::start(Program::Redis, 3).await;
    let more = ["+cluster|keyslot", "+cluster|slots"];
    let document = include_str!("../../docs/several-nodes.md");
    assert!(document.contains(&format!("`{}`", more.join(" "))), "the document says so");
    nodes.iter().for_each(|node| restricted(node, &more));
    let user = "username = \"gateway\", password = { env = \"REDIS\" }";
    let keys = format!("cluster = [\"{}\"], {user}", nodes[0].addr());
    is_shared_over(&Topology::Other { servers: nodes, keys, url: "right".to_owned() }).await;
}

#[tokio::test]
async fn sentinels_and_servers_with_passwords_of_their_own_serve_two_nodes() {
    let Sentinels { servers, sentinels } = Sentinels::start(Program::Redis).await;
    for sentinel in &sentinels {
        sentinel.ask::<()>(cmd("SENTINEL").arg("SET").arg(MASTER).arg("auth-pass").arg("right")).expect("an answer");
        sentinel
            .ask::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("resetpass").arg(">watching"))
            .expect("an answer");
    }
    for server in &servers {
        server.ask::<()>(cmd("CONFIG").arg("SET").arg("masterauth").arg("right").arg("requirepass").arg("right"));
    }
    let nodes = sentinels.each_ref().map(|sentinel| format!("\"{}\"", sentinel.addr)).join(", ");
    let dir = folder();
    let file = dir.path().join("password");
    std::fs::write(&file, "watching").expect("a file");
    let sentinel = format!("{{ master = \"{MASTER}\", nodes = [{nodes}], password = {{ file = {file:?} }} }}");
    let keys = format!("sentinel = {sentinel}, password = {{ env = \"REDIS\" }}");
    is_shared_over(&Topology::Other { servers: servers.into(), keys, url: "right".to_owned() }).await;
}

/// Runs `check` on a Redis that works. `more` has further keys of `state.redis`. Returns the standard error.
async fn checked(url: &str, more: &str) -> String {
    let folder = Folder::new("http://127.0.0.1:9").env("REDIS", url);
    let redis = format!("redis = {{ url = {{ env = \"REDIS\" }}{more} }}\n[accounts.live]");
    folder.write("config.toml", &Folder::text("http://127.0.0.1:9").replace("[accounts.live]", &redis));
    let said = folder.once("check").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    said.stderr
}

#[tokio::test]
async fn a_redis_without_config_serves_two_nodes_and_check_warns() {
    let redis = Redis::with(&["--save", "", "--rename-command", "CONFIG", ""]).await;
    let said = checked(&redis.url(), "").await;
    assert!(said.contains("state.redis.url: Redis forbids CONFIG GET"), "{said}");
    is_shared_over(&Topology::Single(redis)).await;
}

#[tokio::test]
async fn a_redis_over_tls_with_a_certificate_of_our_own_serves_two_nodes() {
    let (dir, ours) = (folder(), Authority::new());
    ours.leaf("127.0.0.1").write(dir.path(), None);
    let ca = ours.write(dir.path(), "ca.pem");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let tls = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    let redis = Redis::with(&[&["--save", ""], &tls[..], &["--tls-ca-cert-file", &path("ca.pem")]].concat()).await;
    let (url, keys) = (format!("rediss://127.0.0.1:{port}/"), format!("extra_ca = {ca:?}"));
    checked(&url, &format!(", {keys}")).await;
    let keys = format!("url = {{ env = \"REDIS\" }}, {keys}");
    is_shared_over(&Topology::Other { servers: vec![redis], keys, url }).await;
}

#[tokio::test]
async fn a_cache_with_a_redis_of_its_own_serves_two_nodes() {
    let (state, cache) =
        (Redis::start().await, Redis::with(&["--save", "", "--maxmemory-policy", "allkeys-lru"]).await);
    let url = state.url();
    let said = checked(&url, ", cache = { url = { env = \"REDIS\" } }").await;
    assert!(!said.contains("noeviction"), "{said}");
    let dir = folder();
    let file = dir.path().join("cache-url");
    std::fs::write(&file, cache.url()).expect("a file");
    let keys = format!("url = {{ env = \"REDIS\" }}, cache = {{ url = {{ file = {file:?} }} }}");
    let topology = Topology::Other { servers: vec![state, cache], keys, url };
    is_shared_over(&topology).await;
    let Topology::Other { servers, .. } = &topology else { unreachable!("two servers") };
    let has = |server: &Redis, what: &str| !server.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg(what)).is_empty();
    assert_eq!([has(&servers[0], "*:state:*"), has(&servers[0], "*:cache:*")], [true, false]);
    assert_eq!([has(&servers[1], "*:state:*"), has(&servers[1], "*:cache:*")], [false, true]);
}
