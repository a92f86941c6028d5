//! Compares the cache with a model, which is a plain map. Random steps of teams, operators, time and Redis are done in
//! any order. Two nodes that share a cache must answer like the map, and call upstream exactly if the map has no
//! answer.

use crate::support::{Ask, Heard, Redis, RedisProxy, Rig, Spoil, Upstream, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use redis::cmd;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";

/// The time by which [`Step::Later`] moves the clocks. Lifetimes are multiples of it. A case takes far less time, so
/// the machine's own time never decides if an entry is fresh.
const TICK: Duration = Duration::from_secs(20);
const NODES: usize = 2;
/// The teams; the last one has a private cache.
const TEAMS: [&str; 3] = ["lending", "payments", "closed"];
/// The requests. One account's number is a prefix of the other's; the last two are persons on watchlists.
const QUESTIONS: [(&str, &str); 4] = [(BANK, "12"), (BANK, "123"), (CFT, "Demo"), (CFT, "Demokrat")];

/// Returns the number of cases: 8, or a twentieth of `PROPTEST_CASES` if that is more. A case takes more than half a
/// second, because it waits until Redis counts as up again.
fn cases() -> u32 {
    let asked: Option<u32> = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    asked.map_or(8, |asked| (asked / 20).max(8))
}

#[derive(Debug, Clone)]
enum Step {
    /// A team sends a request to a node, perhaps with no-cache.
    Ask { node: usize, team: usize, question: usize, reference: Option<u8>, no_cache: bool },
    /// Teams send identical requests at once.
    Crowd { question: usize, askers: Vec<(usize, usize)> },
    /// Time passes.
    Later,
    /// An operator purges entries.
    Purge { node: usize, what: What },
    /// An operator erases the person of a request.
    Erase { node: usize, question: usize },
    /// A node ends in good order and starts again with an empty memory.
    Restart { node: usize },
    /// Redis loses everything.
    Empty,
    /// Redis begins to refuse everything, or stops refusing.
    Outage,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Bank,
    Cft,
    Closed,
    All,
}

fn step() -> impl Strategy<Value = Step> {
    let (node, question) = (0..NODES, 0..QUESTIONS.len());
    let what = prop_oneof![Just(What::Bank), Just(What::Cft), Just(What::Closed), Just(What::All)];
    let asker = (0..NODES, 0..TEAMS.len());
    prop_oneof![
        24 => (asker.clone(), question.clone(), proptest::option::of(0..3_u8), prop::bool::weighted(0.1)).prop_map(
            |((node, team), question, reference, no_cache)| Step::Ask { node, team, question, reference, no_cache }
        ),
        4 => (question.clone(), proptest::collection::vec(asker, 2..7))
            .prop_map(|(question, askers)| Step::Crowd { question, askers }),
        5 => Just(Step::Later),
        3 => (node.clone(), what).prop_map(|(node, what)| Step::Purge { node, what }),
        3 => (node.clone(), question).prop_map(|(node, question)| Step::Erase { node, question }),
        1 => node.prop_map(|node| Step::Restart { node }),
        1 => Just(Step::Empty),
        2 => Just(Step::Outage),
    ]
}

/// The key of a cache entry: the index of the request, and the index of the team if the entry is private.
type Key = (usize, Option<usize>);

/// An answer that upstream gave. Its number is its index in [`Model::made`].
#[derive(Debug, Clone, Copy)]
struct Made {
    key: Key,
    /// The time of the answer, in ticks.
    at: u32,
    /// True if a purge or an erasure has removed the answer from all nodes.
    ended: bool,
}

/// The answers that must be stored in the nodes' memories and in Redis, by their numbers.
#[derive(Debug, Default)]
struct Model {
    now: u32,
    made: Vec<Made>,
    memory: [BTreeMap<Key, usize>; NODES],
    redis: BTreeMap<Key, usize>,
    out: bool,
    /// True if [`Step::Later`] happened while Redis was out. The nodes then know that they may have missed a purge.
    blind: bool,
}

/// The answers that a node may give: the stored answer `known`, a new answer of upstream if `new` is true, or either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    known: Option<usize>,
    new: bool,
}

impl Model {
    fn is_fresh(&self, number: usize) -> bool {
        let Made { key, at, .. } = self.made[number];
        // These are the lifetimes in `settings`.
        self.now - at < if QUESTIONS[key.0].0 == BANK { 3 } else { 2 }
    }

    fn expected(&self, node: usize, key: Key) -> Expected {
        let fresh = |number: &&usize| self.is_fresh(**number);
        if let Some(known) = self.memory[node].get(&key).filter(fresh).copied() {
            // A node that is cut off may serve watchlist answers only for a short time.
            let may_be_blind = self.out && QUESTIONS[key.0].0 == CFT;
            return Expected { known: Some(known).filter(|_| !(may_be_blind && self.blind)), new: may_be_blind };
        }
        let known = self.redis.get(&key).filter(fresh).filter(|_| !self.out).copied();
        Expected { known, new: known.is_none() }
    }

    /// Records that a node has given this answer, which is now in the node's memory.
    fn given(&mut self, node: usize, key: Key, number: usize) {
        self.memory[node].insert(key, number);
    }

    /// Records that upstream has given this answer to a node, which stores it in its memory and in Redis.
    fn brought(&mut self, node: usize, key: Key, number: usize) {
        self.given(node, key, number);
        if !self.out {
            self.redis.insert(key, number);
        }
    }

    /// Records a purge or an erasure at a node. It removes every entry that `covers` accepts: everywhere, or only in
    /// the node's own memory while Redis is out.
    fn ordered(&mut self, node: usize, covers: impl Fn(Key) -> bool) {
        if self.out {
            self.memory[node].retain(|key, _| !covers(*key));
            return;
        }
        self.memory.iter_mut().for_each(|memory| memory.retain(|key, _| !covers(*key)));
        self.redis.retain(|key, _| !covers(*key));
        self.made.iter_mut().filter(|made| covers(made.key)).for_each(|made| made.ended = true);
    }
}

fn key(team: usize, question: usize) -> Key {
    (question, (TEAMS[team] == "closed").then_some(team))
}

/// Starts an upstream whose answers contain their number.
async fn upstream() -> Upstream {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    Upstream::answering(move |heard: &Heard| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let asked: Value = serde_json::from_slice(&heard.body).expect("JSON");
        let body = if heard.target == CFT {
            json!({"request_name": format!("{} {}", asked["given_name"], asked["surname"]), "results": [], "id": number.to_string()})
        } else {
            json!({
                "id": number.to_string(), "status": "COMPLETED", "reference_id": asked["reference_id"],
                "bank_code": asked["bank_code"], "bank_account_number": asked["bank_account_number"],
                "result": {"is_found": true, "account_holder_name": "Contoh"},
            })
        };
        let body = Full::new(Bytes::from(body.to_string()));
        Response::builder().header("content-type", "application/json").body(body).expect("an answer")
    })
    .await
}

/// The real gateways.
struct World<'a> {
    redis: &'a Redis,
    proxy: RedisProxy,
    upstream: Upstream,
    /// The nodes. A node is `None` while it restarts.
    nodes: [Option<Rig>; NODES],
    asked: usize,
}

impl<'a> World<'a> {
    async fn new(redis: &'a Redis) -> Self {
        redis.ask::<()>(&cmd("FLUSHALL"));
        let (proxy, upstream) = (RedisProxy::to(redis.addr()).await, upstream().await);
        let a = Rig::builder()
            .redis_at(&proxy.url())
            .upstream(upstream.url())
            .tenant("closed", "share_cache = false")
            .section("cache", "bank = { found = \"60s\" }\ncft = { clear = \"40s\" }")
            .start()
            .await;
        let b = a.another().await;
        Self { redis, proxy, upstream, nodes: [Some(a), Some(b)], asked: 0 }
    }

    fn node(&self, node: usize) -> &Rig {
        self.nodes[node].as_ref().expect("a node")
    }

    fn calls(&self) -> usize {
        self.upstream.heard().len()
    }

    /// Returns a request, and the reference that its answer must have (JSON null for none).
    fn question(&mut self, node: usize, team: usize, question: usize, reference: Option<u8>) -> (Ask, Value) {
        self.asked += 1;
        let (path, name) = QUESTIONS[question];
        let body = match (path, reference) {
            (CFT, _) => json!({"given_name": "Contoh", "surname": name}),
            (_, None) => json!({"bank_code": "BCA", "bank_account_number": name}),
            // The references are few, so that teams use equal ones, and use them again.
            (_, Some(reference)) => {
                json!({"bank_code": "BCA", "bank_account_number": name, "reference_id": format!("ref-{reference}")})
            }
        };
        (self.node(node).post(TEAMS[team], path, body.to_string()), body["reference_id"].clone())
    }

    /// Returns the cache entries in Redis: their keys and values.
    fn entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut connection = self.redis.connection();
        let keys: Vec<Vec<u8>> = cmd("KEYS").arg("*:entry:*").query(&mut connection).expect("keys");
        let value = |key: &Vec<u8>| cmd("GET").arg(key).query(&mut connection).ok();
        let values: Vec<Option<Vec<u8>>> = keys.iter().map(value).collect();
        keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    }

    async fn order(&self, node: usize, path: &str, order: Value) -> u16 {
        self.node(node).operator("POST", path).json(order.to_string()).send().await.status
    }

    /// Waits until each node has applied all purges and erasures in Redis.
    async fn have_looked(&self) {
        let mut connection = self.redis.connection();
        until("every node has looked", || {
            let mut keys =
                |pattern: &str| -> Vec<Vec<u8>> { cmd("KEYS").arg(pattern).query(&mut connection).expect("keys") };
            let (numbers, rolls) = (keys("*:number"), keys("*:membership"));
            let ([number], [roll]) = (&numbers[..], &rolls[..]) else { return false };
            let number: u64 = cmd("GET").arg(number).query(&mut connection).expect("a number");
            let told: Vec<String> = cmd("HVALS").arg(roll).query(&mut connection).expect("what they said");
            let (seconds, _): (u64, u64) = cmd("TIME").query(&mut connection).expect("the time");
            let is_leased = |told: &String| {
                let (taken, at) = told.split_once(' ').expect("a number and a time");
                let at: u64 = at.parse().expect("milliseconds");
                taken.parse() == Ok(number) && at / 1000 + 5 > seconds
            };
            told.len() == NODES && told.iter().all(is_leased)
        })
        .await;
    }
}

/// Checks that an answer has the caller's reference and nothing of another caller, and returns its number.
fn number(answer: &crate::support::Answer, question: usize, reference: &Value) -> Result<usize, TestCaseError> {
    prop_assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    prop_assert_eq!(&body["reference_id"], reference, "{}", body);
    let strange = TEAMS.iter().any(|team| answer.text().contains(&format!("{team}:")));
    prop_assert!(!strange, "a prefix in {}", body);
    let (path, name) = QUESTIONS[question];
    let about = if path == BANK { &body["bank_account_number"] } else { &body["request_name"] };
    prop_assert!(*about == name || *about == format!("\"Contoh\" \"{name}\""), "{}", body);
    Ok(body["id"].as_str().and_then(|id| id.parse().ok()).expect("a number"))
}

/// Checks the rules that hold for every answer from the cache: it has the right key, is fresh, and was not removed.
fn is_lawful(model: &Model, key: Key, number: usize) -> TestCaseResult {
    let made = model.made[number];
    prop_assert_eq!(made.key, key, "an answer to another question, or for another team's eyes");
    prop_assert!(model.is_fresh(number), "an answer past its lifetime");
    prop_assert!(!made.ended, "an answer from before an order that was carried out");
    Ok(())
}

async fn take(world: &mut World<'_>, model: &mut Model, step: &Step) -> TestCaseResult {
    match *step {
        Step::Ask { node, team, question, reference, no_cache } => {
            let key = key(team, question);
            let expected = if no_cache { Expected { known: None, new: true } } else { model.expected(node, key) };
            let (calls, entries) = (world.calls(), world.entries());
            let (ask, reference) = world.question(node, team, question, reference);
            let ask = if no_cache { ask.header("cache-control", "no-cache") } else { ask };
            let answer = ask.send().await;
            let number = number(&answer, question, &reference)?;
            if world.calls() == calls {
                prop_assert_eq!(Some(number), expected.known, "{:?}", answer.headers);
                is_lawful(model, key, number)?;
                model.given(node, key, number);
            } else {
                prop_assert!(expected.new, "a call too many: {:?}", answer.headers);
                prop_assert_eq!((number, world.calls()), (calls, calls + 1));
                model.made.push(Made { key, at: model.now, ended: false });
                model.brought(node, key, number);
                if !model.out {
                    until("the answer is in Redis", || world.entries() != entries).await;
                }
            }
        }
        Step::Crowd { question, ref askers } => {
            if model.out && QUESTIONS[question].0 == CFT {
                return Ok(());
            }
            let (calls, entries) = (world.calls(), world.entries());
            let crowd: Vec<_> = askers
                .iter()
                .zip(0..)
                .map(|(&(node, team), reference)| (world.question(node, team, question, Some(reference)), node, team))
                .collect();
            let answers =
                futures_util::future::join_all(crowd.into_iter().map(async |((ask, reference), node, team)| {
                    (ask.send().await, reference, node, key(team, question))
                }))
                .await;
            let mut new = BTreeMap::new();
            let mut served = Vec::new();
            for (answer, reference, node, key) in answers {
                let number = number(&answer, question, &reference)?;
                match model.expected(node, key).known {
                    Some(known) => prop_assert_eq!(number, known, "{:?}", answer.headers),
                    // With Redis all nodes make one call together, without it each makes its own.
                    None => {
                        let place = (key, model.out.then_some(node));
                        prop_assert_eq!(*new.entry(place).or_insert(number), number, "{:?}", answer.headers);
                    }
                }
                served.push((node, key, number));
            }
            let numbers: BTreeSet<_> = new.values().copied().collect();
            prop_assert_eq!(numbers, (calls..calls + new.len()).collect(), "calls: {}", world.calls() - calls);
            prop_assert_eq!(world.calls(), calls + new.len());
            let mut made: Vec<_> = new.iter().map(|((key, _), number)| (*number, *key)).collect();
            made.sort_unstable();
            for (_, key) in &made {
                model.made.push(Made { key: *key, at: model.now, ended: false });
            }
            for (node, key, number) in served {
                is_lawful(model, key, number)?;
                if number >= calls { model.brought(node, key, number) } else { model.given(node, key, number) }
            }
            if !model.out && !made.is_empty() {
                let stored = || {
                    let now = world.entries();
                    now.iter().filter(|(key, value)| entries.get(*key) != Some(value)).count() == made.len()
                };
                until("the answers are in Redis", stored).await;
            }
        }
        Step::Later => {
            model.now += 1;
            model.blind |= model.out;
            (0..NODES).for_each(|node| world.node(node).clock.advance(TICK));
        }
        Step::Purge { node, what } => {
            let order = match what {
                What::Bank => json!({"route": "bank"}),
                What::Cft => json!({"route": "cft"}),
                What::Closed => json!({"tenant": "closed"}),
                What::All => json!({"all": true}),
            };
            let status = world.order(node, "/v1/cache/purge", order).await;
            prop_assert_eq!(status, if model.out { 503 } else { 200 });
            model.ordered(node, |(question, private)| match what {
                What::Bank => QUESTIONS[question].0 == BANK,
                What::Cft => QUESTIONS[question].0 == CFT,
                What::Closed => private.is_some(),
                What::All => true,
            });
        }
        Step::Erase { node, question } => {
            let order = match QUESTIONS[question] {
                (BANK, number) => json!({"bank_code": "BCA", "bank_account_number": number}),
                (_, surname) => json!({"given_name": "Contoh", "surname": surname}),
            };
            let status = world.order(node, "/v1/erase", order).await;
            prop_assert_eq!(status, if model.out { 503 } else { 200 });
            model.ordered(node, |(erased, _)| erased == question);
        }
        Step::Restart { node } => {
            // A node that ends while it is cut off can't leave the membership, and purges would wait for it.
            if !model.out {
                let ended = world.nodes[node].take().expect("a node");
                let started = ended.restart().await;
                started.clock.advance(TICK * model.now);
                world.nodes[node] = Some(started);
                model.memory[node].clear();
            }
        }
        Step::Empty => {
            if !model.out {
                world.redis.ask::<()>(&cmd("FLUSHALL"));
                world.have_looked().await;
                model.memory.iter_mut().for_each(BTreeMap::clear);
                model.redis.clear();
            }
        }
        Step::Outage => {
            model.out = !model.out;
            model.blind = false;
            let spoil = if model.out { Spoil::Instead(b"-LOADING Redis is loading\r\n") } else { Spoil::Pass };
            world.proxy.spoil(spoil);
            let up = f64::from(u8::from(!model.out));
            for node in 0..NODES {
                // This request makes the node notice the change at once.
                let ask = world.node(node).post("lending", CFT, json!({"given_name": "Nobody"}).to_string());
                ask.header("cache-control", "only-if-cached").send().await;
                world.node(node).metric_becomes("iluma_gateway_redis_up", |now| now == up).await;
            }
        }
    }
    Ok(())
}

async fn run(redis: &Redis, steps: &[Step]) -> TestCaseResult {
    let (mut world, mut model) = (World::new(redis).await, Model::default());
    for (at, step) in steps.iter().enumerate() {
        take(&mut world, &mut model, step).await.map_err(|error| match error {
            TestCaseError::Fail(why) => TestCaseError::fail(format!("step {at}: {why}")),
            rejected => rejected,
        })?;
    }
    for node in world.nodes.into_iter().flatten() {
        node.stop().await;
    }
    Ok(())
}

#[test]
fn two_nodes_answer_as_a_plain_map_would() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let redis = runtime().block_on(Redis::start());
    // A failed case is shrunk for at most a minute.
    let config = Config { cases: cases(), max_shrink_time: 60_000, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(step(), 1..40);
    let result = TestRunner::new(config).run(&steps, |steps| runtime().block_on(run(&redis, &steps)));
    if let Err(error) = result {
        panic!("{error}");
    }
}
