//! Tests with `kill -9` at random moments while callbacks arrive: every callback that was answered 200 is delivered.

use crate::support::process::{Folder, Program};
use crate::support::{Redis, Upstream, ask, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use iluma_gateway::base::keyring;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

const KIND: &str = "NAME_VALIDATOR_REQUEST";
const TOKEN: &str = "the-token-of-the-account";

/// The number of peers that post concurrently.
const POSTERS: usize = 4;

/// The longest life of a process after its first acknowledged callback, in milliseconds. It is long enough for
/// callbacks in every state.
const LONGEST_LIFE: u64 = 250;

/// The longest time for which a killed node keeps deliveries from other nodes: its lease, and a margin.
const LEASES: Duration = Duration::from_secs(90);

/// The acknowledged callbacks, and the number of deliveries of each.
#[derive(Default)]
struct Seen {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
    delivered: Mutex<BTreeMap<u64, u64>>,
}

impl Seen {
    fn missing(&self) -> usize {
        let delivered = self.delivered.lock().expect("a record");
        self.acknowledged.lock().expect("a record").iter().filter(|id| !delivered.contains_key(id)).count()
    }

    /// Posts one callback after the other until a post gets no answer, because the gateway was killed.
    async fn post(self: Arc<Self>, to: SocketAddr) {
        loop {
            let id = self.next.fetch_add(1, Ordering::SeqCst);
            let body = format!(r#"{{"id":"{id}","reference_id":"lending:a"}}"#);
            let url = format!("http://{to}/callbacks/live/{KIND}");
            match ask("POST", url).header("x-callback-token", TOKEN).json(body).try_send().await {
                Ok(answer) if answer.status == 200 => {
                    self.acknowledged.lock().expect("a record").insert(id);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// Kills a gateway `kills` times, and checks that every acknowledged callback is delivered. The state is in the
/// gateway's own file, or in `redis`, which keeps running.
async fn survives(kills: usize, redis: Option<&Redis>) {
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    let endpoint = Upstream::answering(move |heard| {
        let body: Value = serde_json::from_slice(&heard.body).expect("JSON");
        assert_eq!(body["reference_id"], "a");
        let id = body["id"].as_str().expect("an id").parse().expect("a number");
        *noted.delivered.lock().expect("a record").entry(id).or_default() += 1;
        Response::new(Full::<Bytes>::default())
    })
    .await;
    let mut folder = Folder::new("http://127.0.0.1:9").env("CALLBACK", TOKEN);
    let mut text = Folder::text("http://127.0.0.1:9");
    if let Some(redis) = redis {
        folder = folder.env("REDIS", &redis.url());
        text = text.replace("[state]", "[state]\nredis = { url = { env = \"REDIS\" } }");
    }
    let text = text.replace("[tenants.lending]", "callback_token = { env = \"CALLBACK\" }\n[tenants.lending]");
    let url = endpoint.url();
    folder.write("config.toml", &format!("{text}callback_urls = {{ {KIND} = \"{url}/\" }}\n"));

    for _ in 0..kills {
        let mut program: Program = folder.run();
        let address = program.address("callbacks").await;
        let before = seen.acknowledged.lock().expect("a record").len();
        let mut posters = JoinSet::new();
        for _ in 0..POSTERS {
            posters.spawn(Arc::clone(&seen).post(address));
        }
        until("it serves", || seen.acknowledged.lock().expect("a record").len() > before).await;
        // The sleep waits for nothing: it makes the moment of the kill random.
        tokio::time::sleep(Duration::from_millis(u64::from_be_bytes(keyring::random()) % LONGEST_LIFE)).await;
        program.signal_at_once("KILL");
        program.ended().await;
        while let Some(ended) = posters.join_next().await {
            ended.expect("a poster");
        }
    }
    let program = folder.run();
    program.listening().await;
    let delivered = async {
        while seen.missing() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LEASES, delivered).await.expect("every acknowledged callback is delivered");
    let delivered = seen.delivered.lock().expect("a record");
    let repeats: u64 = delivered.values().map(|times| times - 1).sum();
    let acknowledged = seen.acknowledged.lock().expect("a record").len();
    println!("{kills} kills: {acknowledged} acknowledged, all delivered, {repeats} of them more than once");
    assert!(acknowledged >= kills);
}

/// Checks that a killed node that is started again takes part in an erasure at once. Its journal identifies the node,
/// so it does not wait for the lease of the killed process.
#[tokio::test]
async fn a_node_that_was_killed_and_is_back_is_not_missed_by_an_erasure() {
    let redis = Redis::start().await;
    let node = || {
        let folder = Folder::new("http://127.0.0.1:9").env("REDIS", &redis.url());
        let text = Folder::text("http://127.0.0.1:9");
        folder.write("config.toml", &text.replace("[state]", "[state]\nredis = { url = { env = \"REDIS\" } }"));
        folder
    };
    let (one, other) = (node(), node());
    let serving = one.run();
    let (_, admin) = serving.listening().await;
    let mut killed = other.run();
    killed.listening().await;
    let on_the_roll = || redis.ask::<Vec<Vec<u8>>>(redis::cmd("HKEYS").arg(roll(&redis))).len();
    until("both are on the roll", || on_the_roll() == 2).await;
    killed.signal_at_once("KILL");
    killed.ended().await;
    let erase = async || {
        let order =
            ask("POST", format!("http://{admin}/v1/erase")).header("authorization", "Bearer a-token-of-operators");
        order.json(r#"{"nik":"3171234567890123"}"#).send().await.status
    };
    let began = tokio::time::Instant::now();
    assert_eq!(erase().await, 503, "it may be alive, with the person in its memory");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let back = other.run();
    back.listening().await;
    assert_eq!(erase().await, 200);
    assert_eq!(on_the_roll(), 2);
}

fn roll(redis: &Redis) -> Vec<u8> {
    redis.ask::<Vec<Vec<u8>>>(redis::cmd("KEYS").arg("*:membership")).pop().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    survives(20, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_node_is_killed() {
    // Each start waits for the lease of the previous process, so there are fewer kills than without Redis.
    survives(8, Some(&Redis::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: tests/run --long runs it"]
async fn nothing_acknowledged_is_lost_in_200_kills_of_a_process() {
    survives(200, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: tests/run --long runs it"]
async fn nothing_acknowledged_is_lost_in_200_kills_of_a_node() {
    survives(200, Some(&Redis::start().await)).await;
}
