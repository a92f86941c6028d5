//! Tests of failovers: Redis servers are killed, and slots are moved, while teams and Iluma are served. No request
//! fails, and no acknowledged callback is lost.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Cluster, PATIENCE, Program, Rig, Sentinels, Topology, Upstream, ask, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KIND: &str = "NAME_VALIDATOR_REQUEST";
const UP: &str = "iluma_gateway_redis_up";

/// The longest time until a node uses a new primary.
const BACK: Duration = Duration::from_secs(5);
/// A time that is longer than the lease of a callback and the lease of a delivery together.
const LEASES: Duration = Duration::from_secs(100);
/// The pause of a client between two requests. It leaves processor time to the servers and the sentinels, which take a
/// server for dead if its answers are late.
const PACE: Duration = Duration::from_millis(10);

/// The answers that clients and Iluma got, and the callbacks that the team got.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    next: AtomicU64,
    /// Status and body of each answer of 500 or more on bank and cft.
    failures: Mutex<Vec<(u16, String)>>,
    acknowledged: Mutex<BTreeSet<u64>>,
    /// The number of callbacks that were answered 503 first, and were acknowledged when they were repeated.
    repeated: AtomicU64,
    delivered: Mutex<BTreeMap<u64, u64>>,
}

impl Seen {
    /// Sends bank and watchlist requests to a node until the test is over: new questions, and some that were asked
    /// before. `node` is the node's URL and a team's key.
    async fn ask(self: Arc<Self>, node: (String, String)) {
        let (server, key) = node;
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.over.load(Ordering::SeqCst) {
            pace.tick().await;
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            let about = if n.is_multiple_of(3) { n / 2 } else { n };
            let (path, body) = if n.is_multiple_of(2) {
                (
                    BANK,
                    json!({"bank_code": "BCA", "bank_account_number": format!("{}11", 10_000_000 + about), "reference_id": "r"}),
                )
            } else {
                (CFT, json!({"given_name": format!("Contoh {about}"), "surname": "Demo"}))
            };
            let answer = ask("POST", format!("{server}{path}")).key(&key).json(body.to_string()).send().await;
            if answer.status >= 500 {
                self.failures.lock().expect("a record").push((answer.status, answer.text()));
            }
        }
    }

    /// Posts callbacks to a node until the test is over. Repeats each callback until it is acknowledged, as Iluma does.
    async fn post(self: Arc<Self>, (url, token): (String, String)) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.over.load(Ordering::SeqCst) {
            let id = self.next.fetch_add(1, Ordering::SeqCst);
            let body = json!({"id": id.to_string(), "reference_id": "lending:a"}).to_string();
            let mut attempts = 0;
            loop {
                pace.tick().await;
                attempts += 1;
                let answer =
                    ask("POST", url.clone()).header("x-callback-token", token.clone()).json(body.clone()).send().await;
                match answer.status {
                    200 => break,
                    503 => {}
                    other => panic!("{other}: {}", answer.text()),
                }
                if self.over.load(Ordering::SeqCst) {
                    return;
                }
            }
            self.acknowledged.lock().expect("a record").insert(id);
            self.repeated.fetch_add(u64::from(attempts > 1), Ordering::SeqCst);
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("a record").len()
    }

    fn missing(&self) -> usize {
        let delivered = self.delivered.lock().expect("a record");
        self.acknowledged.lock().expect("a record").iter().filter(|id| !delivered.contains_key(id)).count()
    }
}

/// Two nodes that serve teams and Iluma all the time.
struct Load {
    a: Rig,
    b: Rig,
    seen: Arc<Seen>,
    clients: JoinSet<()>,
    _endpoint: Upstream,
}

impl Load {
    async fn on(topology: &Topology, more: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        let endpoint = Upstream::answering(move |heard| {
            let body: Value = serde_json::from_slice(&heard.body).expect("JSON");
            let id = body["id"].as_str().expect("an id").parse().expect("a number");
            *noted.delivered.lock().expect("a record").entry(id).or_default() += 1;
            Response::new(Full::<Bytes>::default())
        })
        .await;
        let urls = format!("callback_urls = {{ {KIND} = \"{}/\" }}", endpoint.url());
        let a = Rig::builder().topology(topology, more).tenant("lending", &urls).start().await;
        let b = a.another().await;
        let mut clients = JoinSet::new();
        for node in [&a, &b] {
            let key = node.key("lending").to_owned();
            clients.spawn(Arc::clone(&seen).ask((node.url(""), key)));
            let token = node.secret("CALLBACK").to_owned();
            clients.spawn(Arc::clone(&seen).post((node.callbacks_url(&format!("/callbacks/live/{KIND}")), token)));
        }
        let load = Self { a, b, seen, clients, _endpoint: endpoint };
        load.goes_on().await;
        load
    }

    /// Waits until more than ten further callbacks are acknowledged.
    async fn goes_on(&self) {
        let before = self.seen.acknowledged();
        until("callbacks are acknowledged", || self.seen.acknowledged() > before + 10).await;
    }

    /// Waits until both nodes use Redis. Fails if this takes longer than [`BACK`] from `since` on.
    async fn is_back(&self, since: Instant) {
        for node in [&self.a, &self.b] {
            while node.metric(UP).await < 1.0 {
                assert!(since.elapsed() < BACK, "Redis is out after {:?}", since.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Ends the load, and checks the answers, the deliveries and the ledger.
    async fn was_served(mut self, what: &str) {
        self.seen.over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client");
        }
        assert_eq!(*self.seen.failures.lock().expect("a record"), [], "no 5xx on bank and cft");
        // A node may have claimed a callback or a delivery at the moment of an outage. It is free after its lease.
        for node in [&self.a, &self.b] {
            node.clock.advance(LEASES);
        }
        until("every acknowledged callback is delivered", || self.seen.missing() == 0).await;
        let charged = self.a.sim().stats().charged;
        for node in [&self.a, &self.b] {
            let books = async {
                loop {
                    let usage = node.operator("GET", "/v1/usage").send().await.json();
                    let rows = usage["rows"].as_array().cloned().unwrap_or_default();
                    let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
                    if (sum("billable"), sum("unknown")) == (charged, 0) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            assert!(tokio::time::timeout(PATIENCE, books).await.is_ok(), "the books have the {charged} calls");
        }
        let (acknowledged, repeated) = (self.seen.acknowledged(), self.seen.repeated.load(Ordering::SeqCst));
        let twice = self.seen.delivered.lock().expect("a record").values().filter(|times| **times > 1).count();
        println!(
            "{what}: {charged} calls; {acknowledged} callbacks acknowledged, {repeated} after a 503, {twice} delivered twice"
        );
        self.b.stop().await;
        self.a.stop().await;
    }
}

async fn sentinels_promote(times: usize) {
    let mut topology = Topology::Sentinels(Sentinels::start(Program::Redis).await);
    let load = Load::on(&topology, ", replicas = 1").await;
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let Topology::Sentinels(servers) = &mut topology else { unreachable!("sentinels") };
        let repeated = load.seen.repeated.load(Ordering::SeqCst);
        servers.fail_over().await;
        let promoted = Instant::now();
        load.is_back(promoted).await;
        slowest = slowest.max(promoted.elapsed());
        servers.is_whole_again().await;
        load.goes_on().await;
        assert!(load.seen.repeated.load(Ordering::SeqCst) > repeated, "a callback was 503, and then acknowledged");
        servers.are_ready().await;
    }
    load.was_served(&format!("{times} promotions by sentinels, back after {slowest:?} at most")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_3_promotions_by_sentinels() {
    sentinels_promote(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: tests/run --long runs it"]
async fn nothing_acknowledged_is_lost_in_50_promotions_by_sentinels() {
    sentinels_promote(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_primary_of_a_shard_is_killed() {
    let mut topology = Topology::Cluster(Cluster::with_replicas(Program::Redis, 3).await);
    let load = Load::on(&topology, ", replicas = 1").await;
    let Topology::Cluster(cluster) = &mut topology else { unreachable!("a cluster") };
    let killed = cluster.fail_over().await;
    let promoted = Instant::now();
    load.is_back(promoted).await;
    let back = promoted.elapsed();
    // The killed node comes back as a replica of the promoted one.
    cluster.nodes[killed].run().await;
    load.goes_on().await;
    load.was_served(&format!("a shard's primary killed, back after {back:?}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_callbacks_are_served_while_the_slot_moves() {
    let topology = Topology::Cluster(Cluster::start(Program::Redis, 3).await);
    let load = Load::on(&topology, "").await;
    let Topology::Cluster(cluster) = &topology else { unreachable!("a cluster") };
    let before = cluster.owner();
    cluster.move_slot().await;
    let moved = Instant::now();
    load.is_back(moved).await;
    let back = moved.elapsed();
    load.goes_on().await;
    assert_ne!(cluster.owner(), before);
    load.was_served(&format!("a slot moved, back after {back:?}")).await;
}
