//! Tests that teams notice no fault of Redis: no request fails or waits, and operation is normal again soon afterwards.
//!
//! Two gateways share a Redis while teams send requests without a pause. In the middle a fault begins, lasts until it
//! was noticed and many requests have passed, and ends.

use crate::support::{Ask, Held, PATIENCE, Redis, RedisProxy, Rig, Spoil, Upstream, Wire, ask, until};
use redis::cmd;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";

/// The longest wait of a request for Redis: 50 ms, plus 700 ms for the delays of a busy machine. Without a bound a
/// request would wait longer: the client notices a Redis that hangs only after a second.
const BOUND: Duration = Duration::from_millis(50 + 700);
/// The time for which a lease holds without renewal.
const LEASE: Duration = Duration::from_secs(3);
/// The time after a fault in which operation must be normal again.
const RECOVERY: Duration = Duration::from_secs(5);
/// The smallest number of answers during a fault.
const MANY: usize = 150;

/// The URLs of a node's listeners, and the keys of its two teams.
#[derive(Clone)]
struct Door {
    url: String,
    ready: String,
    keys: [String; 2],
}

impl Door {
    fn of(node: &Rig) -> Self {
        let keys = ["lending", "payments"].map(|team| node.key(team).to_owned());
        Self { url: node.url(""), ready: node.admin_url("/readyz"), keys }
    }

    /// Returns the request with this number, and the reference that its answer must have (JSON null for none).
    fn question(&self, number: usize, reference: &str) -> (Ask, Value) {
        let post = |path: &str, body: &Value| {
            ask("POST", format!("{}{path}", self.url)).key(&self.keys[reference.len() % 2]).json(body.to_string())
        };
        if number.is_multiple_of(3) {
            // A name can't consist of digits.
            let name: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            return (post(CFT, &json!({"given_name": "Contoh", "surname": name})), Value::Null);
        }
        let body = json!({
            "bank_code": "BCA", "bank_account_number": format!("{number:08}55"), "reference_id": reference,
        });
        (post(BANK, &body), body["reference_id"].clone())
    }
}

/// Sends the request with this number. Checks that the answer is 200, has the request's reference, and is no error of
/// the gateway.
async fn asked(node: &Door, number: usize, reference: &str) {
    let (ask, expected) = node.question(number, reference);
    let answer = ask.try_send().await;
    let answer = answer.unwrap_or_else(|error| panic!("question {number}: {error}"));
    assert_eq!(answer.status, 200, "{:?} {}", answer.headers, answer.text());
    assert_eq!(answer.json()["reference_id"], expected, "{}", answer.text());
    assert!(answer.header("x-gateway-error").is_empty(), "{:?}", answer.headers);
}

/// Two nodes on one Redis, and teams that send requests without a pause.
struct Scene {
    nodes: [Rig; 2],
    doors: [Door; 2],
    teams: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Scene {
    /// Starts the scene with default settings, and waits until everything is up.
    async fn start(url: &str) -> Self {
        let rig = Rig::builder().secret("REDIS", url).section("state", r#"redis = { url = { env = "REDIS" } }"#);
        let a = rig.start().await;
        let nodes = [a.another().await, a];
        let doors = nodes.each_ref().map(Door::of);
        let (mut teams, answered, stop) = (JoinSet::new(), Arc::<AtomicUsize>::default(), CancellationToken::new());
        for worker in 1..=3 {
            let (doors, answered, stop) = (doors.clone(), Arc::clone(&answered), stop.clone());
            teams.spawn(async move {
                let mut number: usize = worker * 1_000_000;
                while !stop.is_cancelled() {
                    let [one, other] = if number.is_multiple_of(2) { [0, 1] } else { [1, 0] };
                    // The requests are a miss, a hit on the same node and a hit on the other one.
                    for node in [one, one, other] {
                        asked(&doors[node], number, "a-reference").await;
                    }
                    // These requests are identical and concurrent.
                    number += 1;
                    let crowd = (0..4).map(|at| {
                        let node = &doors[at % 2];
                        async move { asked(node, number, &"r".repeat(3 + at)).await }
                    });
                    futures_util::future::join_all(crowd).await;
                    number += 1;
                    answered.fetch_add(7, Ordering::SeqCst);
                }
            });
        }
        let (probed, probes_end) = (doors.clone(), stop.clone());
        teams.spawn(async move {
            while !probes_end.is_cancelled() {
                for node in &probed {
                    let ready = ask("GET", &node.ready).send().await;
                    assert_eq!(ready.status, 200, "{}", ready.text());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let scene = Self { nodes, doors, teams, answered, stop };
        scene.is_well(900_000).await;
        scene
    }

    /// Waits until both nodes have noticed the fault, and then until [`MANY`] more requests were answered.
    async fn is_felt(&mut self) {
        let Self { nodes, teams, .. } = self;
        let all = futures_util::future::join_all(
            nodes.iter().map(|node| node.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0)),
        );
        while_asking(teams, all).await;
        self.lasts().await;
    }

    /// Waits until [`MANY`] more requests were answered.
    async fn lasts(&mut self) {
        let answered = Arc::clone(&self.answered);
        let before = answered.load(Ordering::SeqCst);
        let all = until("teams are answered", || answered.load(Ordering::SeqCst) >= before + MANY);
        while_asking(&mut self.teams, all).await;
    }

    /// Waits until an answer that one node got is a hit at the other node. The requests have new numbers from `first`
    /// on.
    async fn is_well(&self, first: usize) {
        let [a, b] = &self.doors;
        let both_ways = async {
            for number in first.. {
                // This request is about a bank account.
                let number = 3 * number + 1;
                asked(a, number, "first").await;
                let known = b.question(number, "second").0.header("cache-control", "only-if-cached").send().await;
                if known.status == 200 && known.header("cache-status").contains("hit") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, both_ways).await.is_ok(), "what one node is told the other never knows");
    }

    /// Purges the watchlist answers, and repeats the order while its answer says that Redis was not reached. On a busy
    /// machine an answer of Redis may take longer than 50 ms, and then the circuit is open for a moment.
    async fn purges(&self) {
        let done = async {
            loop {
                let order = self.nodes[0].operator("POST", "/v1/cache/purge").json(r#"{"route":"cft"}"#);
                let purged = order.send().await;
                if purged.status == 200 {
                    return;
                }
                assert_eq!((purged.status, &purged.json()["left"][0]), (503, &json!("redis")), "{}", purged.text());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, done).await.is_ok(), "an order is never carried out");
    }

    /// Checks that the fault has ended: operation is normal again soon, and teams noticed nothing.
    async fn recovers(mut self) {
        let ended = Instant::now();
        self.is_well(950_000).await;
        let took = ended.elapsed();
        assert!(took < RECOVERY, "normal again after {took:?}");
        self.purges().await;
        self.lasts().await;
        self.stop.cancel();
        while let Some(team) = self.teams.join_next().await {
            team.expect("a team that was never refused");
        }
        let logs = self.nodes.each_ref().map(|node| node.log.clone());
        for node in self.nodes {
            node.stop().await;
        }
        let lines: Vec<Value> = logs
            .iter()
            .flat_map(|log| log.lines())
            .map(|line| serde_json::from_str(&line).expect("a JSON line"))
            .collect();
        assert!(lines.iter().any(|line| line["redis_us"].as_u64() > Some(0)), "nobody was asked");
        for line in &lines {
            // Only the test itself sends requests with only-if-cached.
            assert!(line["status"] == 200 || line["status"] == 504 && line["reason"] == "only_if_cached", "{line}");
            let time = |field: &str| Duration::from_micros(line[field].as_u64().unwrap_or(0));
            assert!(time("redis_us") < BOUND, "{line}");
            // A node whose connection comes back later gives its lease back later: until then the other node waits.
            assert!(time("duration_us") < LEASE + BOUND, "{line}");
        }
    }
}

/// Waits for `work`; a team's failed request meanwhile ends the test at once.
async fn while_asking<T>(teams: &mut JoinSet<()>, work: impl Future<Output = T>) {
    tokio::select! {
        _ = work => {}
        ended = teams.join_next() => ended.expect("teams").expect("teams go on asking"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs() {
    let redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    redis.pause();
    scene.is_felt().await;
    redis.resume();
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_empty() {
    let mut redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    redis.kill();
    scene.is_felt().await;
    redis.run().await;
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_restarted_at_once() {
    let mut redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    redis.kill();
    redis.run().await;
    scene.lasts().await;
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_takes_no_writes() {
    let redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    redis.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg("1"));
    scene.is_felt().await;
    redis.ask::<()>(cmd("REPLICAOF").arg("NO").arg("ONE"));
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full() {
    let redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"));
    scene.is_felt().await;
    redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg("0"));
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_slow_and_never_by_the_same_time() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let mut scene = Scene::start(&proxy.url()).await;
    proxy.spoil(Spoil::Late(Duration::from_millis(5)));
    scene.lasts().await;
    proxy.spoil(Spoil::Pass);
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_answers_never_come_or_are_cut_off() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let mut scene = Scene::start(&proxy.url()).await;
    for spoil in [Spoil::Swallow, Spoil::Cut] {
        proxy.spoil(spoil);
        scene.is_felt().await;
    }
    proxy.spoil(Spoil::Pass);
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loads_or_refuses_everything() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let mut scene = Scene::start(&proxy.url()).await;
    for error in [&b"-LOADING Redis is loading the dataset in memory\r\n"[..], b"-MISCONF Errors writing to disk\r\n"] {
        proxy.spoil(Spoil::Instead(error));
        scene.is_felt().await;
    }
    proxy.spoil(Spoil::Pass);
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_garbage() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let mut scene = Scene::start(&proxy.url()).await;
    for garbage in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"\x00\xff\xfe\r\n", b"$99999999999\r\nx", b"*-9\r\n$x\r\n"] {
        proxy.spoil(Spoil::Instead(garbage));
        scene.is_felt().await;
    }
    proxy.spoil(Spoil::Pass);
    scene.recovers().await;
}

/// Checks valid answers of Redis that belong to other commands. The client can't recognise them as a fault of Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_what_was_not_asked() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let mut scene = Scene::start(&proxy.url()).await;
    for answer in [
        &b"+OK\r\n"[..],
        b"_\r\n",
        b":-1\r\n",
        b"%1\r\n+a\r\n:1\r\n",
        b"*3\r\n$5\r\nentry\r\n$0\r\n\r\n:5\r\n",
        b"*3\r\n$4\r\nlead\r\n$0\r\n\r\n:0\r\n",
        b"*3\r\n$4\r\nwait\r\n$0\r\n\r\n:-1\r\n",
        b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    ] {
        proxy.spoil(Spoil::Instead(answer));
        scene.lasts().await;
    }
    proxy.spoil(Spoil::Pass);
    scene.recovers().await;
}

/// The kinds of the cache's keys in Redis, as their names contain them.
const KINDS: [&str; 7] = ["lease", "entry", "landed", "wanted", "pending", "tag", "erased"];

/// Calls `spoil` with each key of these kinds in Redis. Returns the number of these keys.
fn replace_all(redis: &Redis, kinds: &[&str], mut spoil: impl FnMut(&mut redis::Connection, &[u8])) -> usize {
    let mut connection = redis.connection();
    let keys: Vec<Vec<u8>> = cmd("KEYS").arg("*").query(&mut connection).expect("keys");
    let ours = |key: &[u8]| kinds.iter().any(|kind| key.windows(kind.len()).any(|part| part == kind.as_bytes()));
    let ours: Vec<_> = keys.into_iter().filter(|key| ours(key)).collect();
    ours.iter().for_each(|key| spoil(&mut connection, key));
    ours.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_in_which_another_program_writes_under_our_names() {
    let redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    let mut replaced = 0;
    for round in 0..20 {
        replaced += replace_all(&redis, &KINDS, |connection, key| {
            cmd("DEL").arg(key).exec(connection).expect("an answer");
            // A node may have been faster: then its own value stays this time.
            let _ = match round % 3 {
                0 => cmd("LPUSH").arg(key).arg("x").exec(connection),
                1 => cmd("HSET").arg(key).arg("x").arg("y").exec(connection),
                _ => cmd("SET").arg(key).arg("x").exec(connection),
            };
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(replaced > 100, "{replaced}");
    scene.lasts().await;
    scene.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_values_are_damaged() {
    let redis = Redis::start().await;
    let mut scene = Scene::start(&redis.url()).await;
    let (mut before, mut damaged) = (Vec::new(), 0);
    for round in 0..20 {
        // Leases are left out: a damaged lease counts as the lease of a dead node, and other nodes wait for its end.
        replace_all(&redis, &KINDS[1..], |connection, key| {
            // A value that is no string stays.
            let Ok(value) = cmd("GET").arg(key).query::<Vec<u8>>(connection) else { return };
            let bad = match round % 3 {
                0 => value[..value.len() / 2].to_vec(),
                1 => value
                    .iter()
                    .enumerate()
                    .map(|(at, byte)| if at == value.len() / 2 { byte ^ 1 } else { *byte })
                    .collect(),
                _ => std::mem::replace(&mut before, value.clone()),
            };
            cmd("SET").arg(key).arg(bad).arg("XX").arg("KEEPTTL").exec(connection).expect("an answer");
            damaged += 1;
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(damaged > 100, "{damaged}");
    scene.lasts().await;
    scene.recovers().await;
}

fn account(number: &str, reference: &str) -> String {
    json!({"bank_code": "BCA", "bank_account_number": number, "reference_id": reference}).to_string()
}

/// Checks that a lease without an end, from another program or damaged, makes nobody wait for ever.
#[tokio::test]
async fn what_is_no_lease_of_ours_keeps_nobody_waiting() {
    let redis = Redis::start().await;
    let held = Held::start().await;
    let a = Rig::builder().redis(&redis).upstream(held.url()).start().await;
    let b = a.another().await;
    let mut asked = JoinSet::new();
    asked.spawn(a.post("lending", BANK, account("12", "a")).send());
    held.holds(1).await;
    let leases = || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:lease:*"));
    redis.ask::<()>(cmd("SET").arg(&leases()[0]).arg("x"));
    asked.spawn(b.post("lending", BANK, account("12", "b")).send());
    held.holds(2).await;
    let left: i64 = redis.ask(cmd("PTTL").arg(&leases()[0]));
    assert!((1..=3000).contains(&left), "{left}");
    held.release(2);
    assert!(asked.join_all().await.iter().all(|answer| answer.status == 200));
    until("no lease is left", || leases().is_empty()).await;
    b.stop().await;
    a.stop().await;
}

/// Checks that each spoiled value is a miss, is counted, and is replaced by a valid one.
#[tokio::test]
async fn a_value_that_was_damaged_or_moved_is_a_miss_that_is_counted() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let entries = || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*"));
    let (mut keys, numbers) =
        (Vec::<Vec<u8>>::new(), ["1234567155", "1234567255", "1234567355", "1234567455", "1234567555"]);
    for number in numbers {
        a.post("lending", BANK, account(number, "a")).send().await;
        until("the answer is in Redis", || entries().len() == keys.len() + 1).await;
        keys.extend(entries().into_iter().find(|key| !keys.contains(key)));
    }
    let value = |at: usize| redis.ask::<Vec<u8>>(cmd("GET").arg(&keys[at]));
    let put = |at: usize, value: &[u8]| redis.ask::<()>(cmd("SET").arg(&keys[at]).arg(value).arg("KEEPTTL"));
    let whole: Vec<_> = (0..numbers.len()).map(value).collect();
    put(0, &whole[0][..whole[0].len() - 1]);
    put(1, b"");
    let mut flipped = whole[2].clone();
    *flipped.last_mut().expect("bytes") ^= 0x80;
    put(2, &flipped);
    put(3, &whole[4]);
    put(4, &whole[3]);

    let b = a.another().await;
    for (number, asked) in numbers.into_iter().zip(1..) {
        let answer = b.post("payments", BANK, account(number, "b")).send().await;
        assert_eq!((answer.status, answer.header("cache-status")), (200, "iluma-gateway; fwd=uri-miss; stored"));
        assert_eq!(answer.json()["bank_account_number"], number);
        assert_eq!(b.metric(r#"iluma_gateway_redis_cache_total{outcome="damaged"}"#).await, f64::from(asked));
    }
    until("what is whole has taken their places", || (0..keys.len()).all(|at| value(at) != whole[at])).await;
    let c = a.another().await;
    for number in numbers {
        let answer = c.post("lending", BANK, account(number, "c")).send().await;
        assert!(answer.header("cache-status").starts_with("iluma-gateway; hit"), "{:?}", answer.headers);
        assert_eq!(answer.json()["bank_account_number"], number);
    }
    assert_eq!(a.sim().stats().requests, 2 * numbers.len() as u64);
    for node in [c, b, a] {
        node.stop().await;
    }
}

/// Checks orders after another program overwrote the keys that all nodes share. A purge still reaches every node. An
/// erasure still finds a person whose index was overwritten.
#[tokio::test]
async fn orders_are_carried_out_over_what_another_program_left() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    let stored = async |node: &Rig, number: &str| {
        let ask = node.post("lending", BANK, account(number, "x")).header("cache-control", "only-if-cached");
        ask.send().await.status == 200
    };
    let entries = || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len();
    for (kind, value) in
        [("epochs", "LPUSH"), ("number", "LPUSH"), ("changes", "LPUSH"), ("membership", "LPUSH"), ("number", "SET")]
    {
        for node in [&a, &b] {
            node.post("lending", BANK, account("1234567855", "x")).send().await;
        }
        until("the answer is in Redis", || entries() == 1).await;
        let key = &redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg(format!("*:{kind}")))[0];
        redis.ask::<()>(cmd("DEL").arg(key));
        redis.ask::<Anything>(cmd(value).arg(key).arg("not ours"));
        let purged = a.operator("POST", "/v1/cache/purge").json(r#"{"all":true}"#).send().await;
        assert_eq!(purged.status, 200, "{kind} {}", purged.text());
        until("the entry is gone", || entries() == 0).await;
        assert!(!stored(&a, "1234567855").await && !stored(&b, "1234567855").await, "{kind}");
    }
    a.post("lending", BANK, account("1234567855", "x")).send().await;
    until("the answer is in Redis", || entries() == 1).await;
    for tag in redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:tag:*")) {
        redis.ask::<()>(cmd("SET").arg(tag).arg("not ours"));
    }
    // An erasure could not find this answer by the overwritten index, so it is not stored.
    b.post("lending", BANK, account("1234567855", "x")).header("cache-control", "no-cache").send().await;
    let order = json!({"bank_code": "BCA", "bank_account_number": "1234567855"}).to_string();
    let erased = a.operator("POST", "/v1/erase").json(order).send().await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    assert_eq!(entries(), 0);
    assert!(!stored(&a, "1234567855").await && !stored(&b, "1234567855").await);
    b.stop().await;
    a.stop().await;
}

/// An answer of Redis of any type.
type Anything = redis::Value;

/// Checks that an answered request does not count as in flight any more while the node still tells Redis about it.
#[tokio::test]
async fn telling_other_nodes_takes_no_place_of_the_team() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let rig = Rig::builder().redis_at(&proxy.url()).tenant("lending", "max_in_flight = 1").start().await;
    proxy.spoil(Spoil::Late(Duration::from_millis(20)));
    for number in 0..10 {
        let answer =
            rig.post("lending", CFT, json!({"given_name": "A", "surname": "B".repeat(number + 1)}).to_string());
        let answer = answer.send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    rig.stop().await;
}

/// Checks that a failed call answers all waiting requests on both nodes, and that these make no further call.
#[tokio::test]
async fn a_call_that_breaks_is_everybodys_failure_on_every_node() {
    let redis = Redis::start().await;
    let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, counted) = (Arc::clone(&gate), Arc::clone(&calls));
    let upstream = Upstream::on_connection(move |stream| {
        let (counted, opened) = (Arc::clone(&counted), Arc::clone(&opened));
        async move {
            let mut wire = Wire::over(stream);
            if wire.request().await.is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _open = opened.acquire().await;
            }
        }
    })
    .await;
    let a = Rig::builder().redis(&redis).upstream(upstream.url()).start().await;
    let b = a.another().await;
    let mut crowd = JoinSet::new();
    for at in 0..20 {
        crowd.spawn(if at % 2 == 0 { &a } else { &b }.post("lending", BANK, account("12", "x")).send());
    }
    for node in [&a, &b] {
        node.metric_becomes("iluma_gateway_in_flight", |count| count == 10.0).await;
    }
    until("the other node waits", || !redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:wanted:*")).is_empty()).await;
    gate.add_permits(100);
    let mut answers = crowd.join_all().await.into_iter().map(|answer| (answer.status, answer.text()));
    let first = answers.next().expect("an answer");
    assert!(first.0 >= 500, "{first:?}");
    assert!(answers.all(|answer| answer == first));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    b.stop().await;
    a.stop().await;
}

/// Checks that the numbers of changes grow even if Redis loses them. So the answer of a call that began before an
/// erasure is not stored after it.
#[tokio::test]
async fn an_erasure_after_redis_was_emptied_is_heeded_by_what_was_under_way_before() {
    let redis = Redis::start().await;
    let held = Held::start().await;
    let a = Rig::builder().redis(&redis).upstream(held.url()).start().await;
    let order = json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string();
    // Some changes make the numbers differ from those of a new Redis.
    for _ in 0..3 {
        assert_eq!(a.operator("POST", "/v1/erase").json(order.clone()).send().await.status, 200);
    }
    let mut under_way = JoinSet::new();
    under_way.spawn(a.post("lending", BANK, account("12", "x")).send());
    held.holds(1).await;
    redis.ask::<()>(&cmd("FLUSHALL"));
    assert_eq!(a.operator("POST", "/v1/erase").json(order).send().await.status, 200);
    held.release(1);
    let answer = under_way.join_next().await.expect("a call").expect("an answer");
    assert_eq!((answer.status, answer.header("cache-status")), (200, "iluma-gateway; fwd=uri-miss"));
    assert_eq!(a.metric("iluma_gateway_cache_entries").await, 0.0);
    a.stop().await;
    assert_eq!(redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len(), 0);
}

/// Checks that an erasure does not wait for a node that ended in good order.
#[tokio::test]
async fn a_node_that_has_ended_is_not_missed() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    for _ in 0..3 {
        a.another().await.stop().await;
        let order = json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string();
        let erased = a.operator("POST", "/v1/erase").json(order).send().await;
        assert_eq!(erased.status, 200, "{}", erased.text());
    }
    a.stop().await;
}
