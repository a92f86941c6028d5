//! Tests of the waits for Redis. A command that only informs other nodes delays no request of this node. A command
//! whose answer is needed is waited for.
//!
//! A proxy holds a command to the Redis of the cache; everything else uses another Redis. Each command is held for less
//! than a second, because after a second a node would count that Redis as out.

use crate::support::{Answer, Redis, RedisProxy, Rig, RigBuilder, Spoil, Upstream, until};
use bytes::Bytes;
use futures_util::poll;
use http::Response;
use http_body_util::Full;
use redis::cmd;
use serde_json::json;
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";

/// Bytes of the command by which a node tells other nodes that a call has ended. No other command contains them.
const TELLS: &[u8] = b"results\r\n";
/// The longest time for which a node tries to send that command. A request that waited for the command would take as
/// long.
const TELLING: Duration = Duration::from_secs(1);

fn account(number: &str, reference: &str) -> String {
    json!({"bank_code": "BCA", "bank_account_number": number, "reference_id": reference}).to_string()
}

/// Starts an upstream that answers every POST with a pending record, and every GET with the completed record.
async fn upstream() -> Upstream {
    Upstream::answering(|heard| {
        let body: &[u8] = match heard.method.as_str() {
            "POST" => br#"{"status":"PENDING","id":"one","reference_id":"lending:a"}"#,
            _ => br#"{"status":"COMPLETED","id":"one","result":{"is_found":true},"reference_id":"lending:a"}"#,
        };
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(body))).expect("an answer")
    })
    .await
}

/// Returns the builder of a node whose cache has a Redis of its own, behind a proxy.
fn node(main: &Redis, proxy: &RedisProxy, upstream: &Upstream) -> RigBuilder {
    let redis = r#"redis = { url = { env = "REDIS" }, cache_url = { env = "CACHE" } }"#;
    let rig = Rig::builder().secret("REDIS", &main.url()).secret("CACHE", &proxy.url()).upstream(upstream.url());
    let rig = rig.section("state", redis).section("state", "redis_timeout = \"1s\"");
    rig.tenant("payments", "upstream_calls_per_day = 1")
}

/// Waits until the proxy holds the command, and checks by the access log that the answer did not wait for it.
async fn was_not_kept_waiting(node: &Rig, proxy: &RedisProxy, answer: &Answer) {
    proxy.holds().await;
    let id = answer.header("x-request-id").to_owned();
    let line = || node.log.lines().into_iter().find(|line| line.contains(&id));
    until("its line in the log", || line().is_some()).await;
    let line: serde_json::Value = serde_json::from_str(&line().expect("a line")).expect("a JSON line");
    let took = Duration::from_micros(line["duration_us"].as_u64().expect("microseconds"));
    assert!(took < TELLING, "{line}");
}

#[tokio::test]
async fn a_final_answer_takes_the_place_of_pending_before_other_nodes_are_told() {
    let (main, cache, upstream) = (Redis::start().await, Redis::start().await, upstream().await);
    let proxy = RedisProxy::to(cache.addr()).await;
    let node = node(&main, &proxy, &upstream).start().await;
    assert_eq!(node.post("lending", BANK, account("12", "a")).send().await.json()["status"], "PENDING");
    // The key of the pending answer comes with the last command about the call.
    until("it is noted", || !cache.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:pending:*")).is_empty()).await;
    proxy.hold(TELLS);
    let told = node.ask("lending", "GET", &format!("{BANK}/one")).send().await;
    assert_eq!(told.json()["status"], "COMPLETED", "{}", told.text());
    was_not_kept_waiting(&node, &proxy, &told).await;
    let known = node.post("payments", BANK, account("12", "b")).header("cache-control", "only-if-cached").send().await;
    assert_eq!((known.status, &known.json()["status"]), (200, &json!("COMPLETED")), "{}", known.text());
    proxy.release();
    assert_eq!(upstream.heard().len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn who_is_refused_does_not_wait_until_the_lead_is_given_up() {
    let (main, cache, upstream) = (Redis::start().await, Redis::start().await, upstream().await);
    let proxy = RedisProxy::to(cache.addr()).await;
    let node = node(&main, &proxy, &upstream).start().await;
    assert_eq!(node.post("payments", BANK, account("12", "a")).send().await.status, 200);
    until("it is noted", || !cache.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:pending:*")).is_empty()).await;
    proxy.hold(TELLS);
    let refused = node.post("payments", BANK, account("123", "a")).send().await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    was_not_kept_waiting(&node, &proxy, &refused).await;
    let leases = || cache.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:lease:*")).len();
    assert_eq!(leases(), 1);
    proxy.release();
    until("the lead is given up", || leases() == 0).await;
    node.stop().await;
}

/// Checks that a node serves only after it has read the epochs and changes in Redis. No node would find an entry that
/// it stored before.
#[tokio::test]
async fn a_node_serves_once_it_knows_what_the_others_know() {
    let (main, cache, upstream) = (Redis::start().await, Redis::start().await, upstream().await);
    let proxy = RedisProxy::to(cache.addr()).await;
    // This part is in the query of epochs and changes, and in no probe or channel.
    proxy.hold(b"epochs\r\n");
    let mut starts = Box::pin(node(&main, &proxy, &upstream).start());
    tokio::select! {
        biased;
        _ = &mut starts => panic!("it serves without having looked"),
        () = proxy.holds() => {}
    }
    // Another node, whose command is not held, starts and ends meanwhile.
    let free = RedisProxy::to(cache.addr()).await;
    // The node has root keys of its own, so it has a state of its own.
    let state = Redis::start().await;
    node(&state, &free, &upstream).start().await.stop().await;
    assert!(poll!(&mut starts).is_pending());
    proxy.release();
    starts.await.stop().await;
}

/// Checks that a node releases a lease that Redis granted in an answer that never arrived.
#[tokio::test]
async fn what_redis_gave_without_our_hearing_of_it_is_given_back() {
    let (main, cache, upstream) = (Redis::start().await, Redis::start().await, upstream().await);
    let proxy = RedisProxy::to(cache.addr()).await;
    let node = node(&main, &proxy, &upstream).start().await;
    // From here on Redis knows the scripts.
    assert_eq!(node.post("lending", BANK, account("1", "a")).send().await.status, 200);
    until("it is noted", || !cache.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:pending:*")).is_empty()).await;
    proxy.spoil(Spoil::Swallow);
    proxy.hold(TELLS);
    assert_eq!(node.post("lending", BANK, account("12", "a")).send().await.status, 200);
    let leases = || cache.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:lease:*"));
    let [lease] = &leases()[..] else { panic!("{:?}", leases()) };
    // The lease must not end by itself.
    assert_eq!(cache.ask::<u8>(cmd("PEXPIRE").arg(lease).arg(60_000)), 1);
    proxy.spoil(Spoil::Pass);
    proxy.release();
    until("it is given back", || leases().is_empty()).await;
    node.stop().await;
}
