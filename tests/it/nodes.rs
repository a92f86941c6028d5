//! Tests of several gateways that share a cache in Redis.

use crate::support::{Held, Redis, RedisProxy, Rig, Spoil, Upstream, Wire, answer, until};
use redis::cmd;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const BANK_2: &str = "/v2.2/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";

fn account(number: &str, reference: &str) -> String {
    json!({"bank_code": "BCA", "bank_account_number": number, "reference_id": reference}).to_string()
}

/// Starts two nodes on one Redis with one simulator.
async fn two(redis: &Redis) -> (Rig, Rig) {
    let a = Rig::builder().redis(redis).start().await;
    let b = a.another().await;
    (a, b)
}

#[tokio::test]
async fn what_one_node_was_told_the_other_knows() {
    let redis = Redis::start().await;
    let (a, b) = two(&redis).await;
    let first = a.post("lending", BANK, account("1234567855", "loan-1")).send().await;
    assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
    let second = b.post("payments", BANK, account("1234567855", "pay-1")).send().await;
    assert!(second.header("cache-status").starts_with("iluma-gateway; hit; ttl=60"), "{:?}", second.headers);
    assert_eq!((&second.json()["reference_id"], &second.json()["id"]), (&json!("pay-1"), &first.json()["id"]));
    let person = json!({"given_name": "Contoh", "surname": "Demo"}).to_string();
    a.post("lending", CFT, person.clone()).send().await;
    let known = b.post("lending", CFT, person).header("cache-control", "only-if-cached").send().await;
    assert_eq!(known.status, 200);
    assert_eq!(a.sim().stats().requests, 2);
    b.metric_becomes(r#"iluma_gateway_redis_cache_total{outcome="hit"}"#, |hits| hits == 2.0).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn a_hundred_identical_questions_at_two_nodes_make_one_call() {
    let redis = Redis::start().await;
    let a =
        Rig::builder().redis(&redis).simulator(|options| options.latency = Duration::from_millis(100)).start().await;
    let b = a.another().await;
    for round in 1..=10 {
        let mut crowd = JoinSet::new();
        for at in 0..100 {
            let (node, team) = (if at % 2 == 0 { &a } else { &b }, if at % 3 == 0 { "lending" } else { "payments" });
            let reference = format!("r{at}");
            let ask = node.post(team, BANK, account(&format!("12345678{}", 10 + round), &reference));
            crowd.spawn(async move { (reference, ask.send().await) });
        }
        while let Some(done) = crowd.join_next().await {
            let (reference, answer) = done.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["reference_id"], reference.as_str());
        }
        assert_eq!(a.sim().stats().requests, round);
    }
    b.stop().await;
    a.stop().await;
}

/// Checks that a failure, which is not stored, answers all waiting requests on both nodes, so that no further calls are
/// made.
#[tokio::test]
async fn an_answer_that_is_not_kept_is_everybodys_on_every_node() {
    let redis = Redis::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let (calls, opened) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&gate));
    let counted = Arc::clone(&calls);
    let upstream = Upstream::on_connection(move |stream| {
        let (counted, opened) = (Arc::clone(&counted), Arc::clone(&opened));
        async move {
            let mut wire = Wire::over(stream);
            while wire.request().await.is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                opened.acquire().await.expect("a gate").forget();
                wire.send(answer(500, r#"{"error_code":"SERVER_ERROR","message":"m"}"#)).await;
            }
        }
    })
    .await;
    let a = Rig::builder().redis(&redis).upstream(upstream.url()).start().await;
    let b = a.another().await;
    let mut crowd = JoinSet::new();
    for at in 0..20 {
        let ask = if at % 2 == 0 { &a } else { &b }.post("lending", BANK, account("12", "x"));
        crowd.spawn(ask.send());
    }
    for node in [&a, &b] {
        node.metric_becomes("iluma_gateway_in_flight", |count| count == 10.0).await;
    }
    // All requests except one wait, and the other node has marked that it waits.
    until("the other node waits", || !redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:wanted:*")).is_empty()).await;
    gate.add_permits(1);
    while let Some(answer) = crowd.join_next().await {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &answer.json()["error_code"]), (500, &json!("SERVER_ERROR")));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn a_node_that_dies_while_it_leads_is_followed_by_the_next() {
    let redis = Redis::start().await;
    let held = Held::start().await;
    let a = Rig::builder().redis(&redis).upstream(held.url()).start().await;
    let b = a.another().await;
    // The test gives the lease to a dead node, which neither renews nor releases it.
    let mut asked = JoinSet::new();
    asked.spawn(a.post("lending", BANK, account("12", "a")).send());
    held.holds(1).await;
    let leases: Vec<Vec<u8>> = redis.ask(cmd("KEYS").arg("*:lease:*"));
    redis.ask::<()>(cmd("SET").arg(&leases[0]).arg("another node").arg("PX").arg(500));
    asked.spawn(b.post("payments", BANK, account("12", "b")).send());
    held.holds(2).await;
    held.release(2);
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let left = || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:lease:*"));
    until("no lease is left", || left().is_empty()).await;
    b.stop().await;
    a.stop().await;
}

/// Checks that Redis contains none of the planted values in clear. They are invented.
#[tokio::test]
async fn what_is_in_redis_tells_nothing() {
    let redis = Redis::start().await;
    let rig = Rig::builder().redis(&redis).simulator(|options| options.pending_first = true).start().await;
    let number = "5550123456789";
    let answer = rig.post("lending", BANK, account(number, "planted-reference")).send().await;
    assert_eq!(answer.json()["status"], "PENDING");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let final_answer = loop {
        let answer = rig.ask("lending", "GET", &format!("{BANK}/{id}")).send().await;
        if answer.json()["status"] != "PENDING" {
            break answer.json();
        }
        rig.clock.advance(Duration::from_secs(1));
    };
    let holder = final_answer["result"]["account_holder_name"].as_str().expect("a name").to_owned();
    rig.post("payments", BANK, account(number, "other-planted")).send().await;
    rig.post("lending", CFT, json!({"given_name": "Planted", "surname": "Person"}).to_string()).send().await;
    until("answers are in Redis", || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len() >= 3).await;
    let everything = redis.everything();
    assert!(everything.len() > 1000);
    for planted in [number, &holder, "planted", "Planted", "Person", &id, rig.key("lending"), &rig.account_key] {
        let found = everything.windows(planted.len()).any(|window| window == planted.as_bytes());
        assert!(!found, "{planted} is in Redis");
    }
    rig.stop().await;
}

#[tokio::test]
async fn keys_are_rotated_without_a_miss_and_a_retired_one_is_a_miss() {
    let redis = Redis::start().await;
    let keys = |list: &str| format!("encryption_keys = [{list}]");
    let (old, new) = (r#"{ id = "old", key = { env = "OLD" } }"#, r#"{ id = "new", key = { env = "NEW" } }"#);
    let a = Rig::builder().secret("OLD", &"0a".repeat(32)).secret("NEW", &"0b".repeat(32)).redis(&redis);
    let a = a.section("state", &keys(old)).start().await;
    a.post("lending", BANK, account("1234567811", "a")).send().await;
    let stored = |count: usize| {
        let redis = &redis;
        move || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len() == count
    };
    until("the old key's entry", stored(1)).await;

    let b = a.another_with(|text| text.replace(&keys(old), &keys(&format!("{new}, {old}")))).await;
    assert!(b.post("lending", BANK, account("1234567811", "b")).send().await.header("cache-status").contains("hit"));
    b.post("lending", BANK, account("1234567812", "b")).send().await;
    until("the new key's entry", stored(2)).await;

    let c = a.another_with(|text| text.replace(&keys(old), &keys(new))).await;
    assert!(c.post("lending", BANK, account("1234567812", "c")).send().await.header("cache-status").contains("hit"));
    let missed = c.post("lending", BANK, account("1234567811", "c")).send().await;
    assert_eq!((missed.status, missed.header("cache-status")), (200, "iluma-gateway; fwd=uri-miss; stored"));
    c.metric_becomes(r#"iluma_gateway_redis_cache_total{outcome="damaged"}"#, |count| count == 1.0).await;
    for node in [c, b, a] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_person_is_erased_everywhere_whatever_is_under_way() {
    let redis = Redis::start().await;
    let held = Held::start().await;
    // With `stale_if_error`, Redis keeps a second copy of an entry. Both count as one entry.
    let cache = "bank = { stale_if_error = \"1h\" }";
    let a = Rig::builder().redis(&redis).upstream(held.url()).section("cache", cache).start().await;
    let (b, c) = (a.another().await, a.another().await);
    held.release(2);
    for number in ["12", "123"] {
        for node in [&a, &b, &c] {
            assert_eq!(node.post("lending", BANK, account(number, "x")).send().await.status, 200);
        }
    }
    assert_eq!(held.arrived(), 2);
    // A call about the same person is in flight, in another version of the API.
    let mut under_way = JoinSet::new();
    let other = "/v2.2/identity/bank_account_data_requests";
    under_way.spawn(b.post("payments", other, account("12", "y")).send());
    held.holds(3).await;
    let order = json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string();
    let erased = a.operator("POST", "/v1/erase").json(order.clone()).send().await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    assert_eq!((&erased.json()["removed"]["memory"], &erased.json()["removed"]["redis"]), (&json!(3), &json!(1)));
    held.release(1);
    assert_eq!(under_way.join_next().await.expect("a call").expect("an answer").status, 200);

    let only_stored = |node: &Rig, path: &str, number: &str| {
        node.post("lending", path, account(number, "z")).header("cache-control", "only-if-cached").send()
    };
    for node in [&a, &b, &c] {
        assert_eq!(only_stored(node, BANK, "12").await.status, 504);
        assert_eq!(only_stored(node, other, "12").await.status, 504, "an answer in flight is not stored");
        assert_eq!(only_stored(node, BANK, "123").await.status, 200, "another person");
    }
    let again = a.operator("POST", "/v1/erase").json(order).send().await;
    assert_eq!((&again.json()["removed"]["memory"], &again.json()["removed"]["redis"]), (&json!(0), &json!(0)));
    for node in [c, b, a] {
        node.stop().await;
    }
}

/// Checks that erased answers stay erased on a Redis that evicts keys: the sets by which an erasure finds entries, the
/// tombstones, or the list of changes.
#[tokio::test]
async fn what_an_erasure_did_not_find_is_served_by_nobody() {
    let (redis, held) = (Redis::start().await, Held::start().await);
    let a = Rig::builder().redis(&redis).upstream(held.url()).start().await;
    let b = a.another().await;
    let evict = |pattern: &str| {
        let keys: Vec<Vec<u8>> = redis.ask(cmd("KEYS").arg(pattern));
        assert!(!keys.is_empty(), "{pattern}");
        let _: u64 = redis.ask(cmd("DEL").arg(keys));
    };
    held.release(2);
    for number in ["12", "123"] {
        assert_eq!(a.post("lending", BANK, account(number, "x")).send().await.status, 200);
    }
    until("both are in Redis", || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len() == 2).await;
    evict("*:tag:*");
    let order = json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string();
    let erased = a.operator("POST", "/v1/erase").json(order).send().await;
    assert_eq!((erased.status, &erased.json()["removed"]["redis"]), (200, &json!(0)), "it was not found");
    evict("*:erased:*");
    // One node was there before, and one came later.
    let c = a.another().await;
    for node in [&b, &c, &a] {
        assert!(!is_stored(node, "12").await);
        assert!(is_stored(node, "123").await, "another person");
    }
    // A new answer may be stored again: the person is a customer again.
    held.release(1);
    assert_eq!(c.post("lending", BANK, account("12", "y")).send().await.status, 200);
    until("it is in Redis", || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len() == 2).await;
    assert!(is_stored(&b, "12").await);
    // A node that can't know the erasures trusts no earlier entry.
    evict("*:changes");
    let d = a.another().await;
    assert!(!is_stored(&d, "123").await && is_stored(&d, "12").await);
    for node in [d, c, b, a] {
        node.stop().await;
    }
}

/// Starts three nodes. The third one reaches Redis through the returned proxy, which can drop messages or everything.
async fn three(redis: &Redis, held: &Held) -> (Rig, Rig, Rig, RedisProxy) {
    let proxy = RedisProxy::to(redis.addr()).await;
    let a = Rig::builder().secret("OTHER", &proxy.url()).redis(redis).upstream(held.url()).start().await;
    let named = |text: String| {
        text.replace(r#"url = { env = "REDIS" }"#, r#"url = { env = "OTHER" }"#) + "\n[node]\nname = \"gateway-c\"\n"
    };
    let c = a.another_with(named).await;
    (a.another().await, a, c, proxy)
}

async fn is_stored(node: &Rig, number: &str) -> bool {
    let ask = node.post("lending", BANK, account(number, "z")).header("cache-control", "only-if-cached");
    match ask.send().await.status {
        200 => true,
        504 => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_node_that_missed_the_word_of_an_erasure_looks_for_itself_and_is_waited_for() {
    let (redis, held) = (Redis::start().await, Held::start().await);
    let (b, a, c, proxy) = three(&redis, &held).await;
    for round in 0..3 {
        held.release(2);
        for number in ["12", "123"] {
            for node in [&a, &b, &c] {
                assert_eq!(node.post("lending", BANK, account(number, "x")).send().await.status, 200);
            }
        }
        // A call about the same person is in flight on the node that misses the message.
        let before = held.arrived();
        let mut under_way = JoinSet::new();
        under_way.spawn(c.post("payments", BANK_2, account("12", "y")).send());
        held.holds(before + 1).await;
        proxy.spoil(Spoil::DropPushes);
        let lost = proxy.spoiled();
        let (order, began) = (json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string(), Instant::now());
        let erased = a.operator("POST", "/v1/erase").json(order).send().await;
        let took = began.elapsed();
        // The third node is asked first: its memory now is its memory at the time of the answer.
        assert!(!is_stored(&c, "12").await, "its memory was not clean when the order was answered");
        assert_eq!(erased.status, 200, "{}", erased.text());
        assert_eq!(erased.json()["removed"]["memory"], 3);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(proxy.spoiled() > lost, "no message was lost");
        held.release(1);
        assert_eq!(under_way.join_next().await.expect("a call").expect("an answer").status, 200);
        for node in [&a, &b, &c] {
            assert!(!is_stored(node, "12").await);
            assert!(is_stored(node, "123").await, "another person");
            let other = node.post("lending", BANK_2, account("12", "z")).header("cache-control", "only-if-cached");
            assert_eq!(other.send().await.status, 504, "an answer in flight is not stored");
        }
        proxy.spoil(Spoil::Pass);
        let purged = a.operator("POST", "/v1/cache/purge").json(r#"{"all":true}"#).send().await;
        assert_eq!(purged.status, 200, "round {round}: {}", purged.text());
    }
    for node in [c, b, a] {
        node.stop().await;
    }
}

/// Checks that an erasure is answered 503 with the name of a node that is cut off. A repetition succeeds when the node
/// is back.
#[tokio::test]
async fn an_erasure_names_the_node_that_it_did_not_reach() {
    let (redis, held) = (Redis::start().await, Held::start().await);
    let (b, a, c, proxy) = three(&redis, &held).await;
    held.release(1);
    for node in [&a, &b, &c] {
        assert_eq!(node.post("lending", BANK, account("12", "x")).send().await.status, 200);
    }
    proxy.spoil(Spoil::Swallow);
    let order = json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string();
    let erased = a.operator("POST", "/v1/erase").json(order.clone()).send().await;
    assert_eq!(erased.status, 503, "{}", erased.text());
    let left = erased.json()["left"].clone();
    assert!(left.as_array().is_some_and(|left| left.len() == 1), "{left}");
    assert_eq!(left[0], "node gateway-c");
    for node in [&a, &b] {
        assert!(!is_stored(node, "12").await);
    }
    proxy.spoil(Spoil::Pass);
    c.metric_becomes("iluma_gateway_redis_up", |up| up == 1.0).await;
    let again = a.operator("POST", "/v1/erase").json(order).send().await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert!(!is_stored(&c, "12").await);
    for node in [c, b, a] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_purge_reaches_every_node() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).tenant("payments", "share_cache = false").start().await;
    let b = a.another().await;
    let person = json!({"given_name": "Contoh", "surname": "Demo"}).to_string();
    let fill = async || {
        for node in [&a, &b] {
            for team in ["lending", "payments"] {
                node.post(team, BANK, account("1234567855", "x")).send().await;
                node.post(team, CFT, person.clone()).send().await;
            }
        }
    };
    let stored = async |node: &Rig, team: &str, path: &str| {
        let body = if path == CFT { person.clone() } else { account("1234567855", "x") };
        node.post(team, path, body).header("cache-control", "only-if-cached").send().await.status == 200
    };
    for (order, gone) in [
        (json!({"route": "cft"}), [("lending", CFT), ("payments", CFT)].as_slice()),
        (json!({"route": "bank"}), &[("lending", BANK), ("payments", BANK)]),
        (json!({"tenant": "payments"}), &[("payments", BANK), ("payments", CFT)]),
        (json!({"all": true}), &[("lending", BANK), ("lending", CFT), ("payments", BANK), ("payments", CFT)]),
    ] {
        fill().await;
        until("every answer is in Redis", || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len() == 4).await;
        let purged = b.operator("POST", "/v1/cache/purge").json(order.to_string()).send().await;
        assert_eq!(purged.status, 200, "{}", purged.text());
        let removed = json!({"memory": 2 * gone.len(), "disk": 0, "redis": gone.len()});
        assert_eq!(purged.json(), json!({"removed": removed}), "{order}");
        for (team, path) in [("lending", BANK), ("lending", CFT), ("payments", BANK), ("payments", CFT)] {
            for node in [&a, &b] {
                assert_eq!(stored(node, team, path).await, !gone.contains(&(team, path)), "{order} {team} {path}");
            }
        }
    }
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn what_was_under_way_at_a_purge_is_kept_by_no_node() {
    let (redis, held) = (Redis::start().await, Held::start().await);
    let a = Rig::builder().redis(&redis).upstream(held.url()).start().await;
    let b = a.another().await;
    for (round, order) in [json!({"route": "bank"}), json!({"all": true})].into_iter().enumerate() {
        let mut under_way = JoinSet::new();
        under_way.spawn(b.post("lending", BANK, account("12", "x")).send());
        held.holds(round + 1).await;
        let purged = a.operator("POST", "/v1/cache/purge").json(order.to_string()).send().await;
        assert_eq!(purged.status, 200, "{}", purged.text());
        held.release(1);
        assert_eq!(under_way.join_next().await.expect("a call").expect("an answer").status, 200);
        assert!(!is_stored(&a, "12").await && !is_stored(&b, "12").await, "{order}");
    }
    b.stop().await;
    a.stop().await;
}

/// Checks that an entry that is too old by the nodes' clocks causes one call, although Redis still has it by its own
/// clock.
#[tokio::test]
async fn an_answer_past_its_lifetime_by_our_clock_alone_is_asked_for_once() {
    let (redis, held) = (Redis::start().await, Held::start().await);
    let a = Rig::builder().redis(&redis).upstream(held.url()).start().await;
    let b = a.another().await;
    held.release(1);
    a.post("lending", BANK, account("12", "x")).send().await;
    until("the answer is in Redis", || !redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).is_empty()).await;
    for node in [&a, &b] {
        node.clock.advance(Duration::from_secs(8 * 24 * 3600));
    }
    let mut crowd = JoinSet::new();
    for node in [&a, &b].repeat(5) {
        crowd.spawn(node.post("payments", BANK, account("12", "y")).send());
    }
    for node in [&a, &b] {
        node.metric_becomes("iluma_gateway_in_flight", |count| count == 5.0).await;
    }
    until("the other node waits", || !redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:wanted:*")).is_empty()).await;
    held.release(10);
    assert!(crowd.join_all().await.iter().all(|answer| answer.status == 200));
    assert_eq!(held.arrived(), 2);
    b.stop().await;
    a.stop().await;
}

/// Checks that a node serves no watchlist answer from memory after five seconds without Redis, because it may have
/// missed a purge.
#[tokio::test]
async fn a_node_that_is_cut_off_serves_no_watchlist_answer_from_memory() {
    let redis = Redis::start().await;
    let rig = Rig::builder().redis(&redis).start().await;
    let person = json!({"given_name": "Contoh", "surname": "Demo"}).to_string();
    let ask = async |path: &str, body: &str| {
        rig.post("lending", path, body).header("cache-control", "only-if-cached").send().await.status
    };
    rig.post("lending", CFT, person.clone()).send().await;
    rig.post("lending", BANK, account("1234567855", "x")).send().await;
    assert_eq!((ask(CFT, &person).await, ask(BANK, &account("1234567855", "x")).await), (200, 200));
    redis.pause();
    rig.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!((ask(CFT, &person).await, ask(BANK, &account("1234567855", "x")).await), (504, 200));
    let purged = rig.operator("POST", "/v1/cache/purge").json(r#"{"route":"cft"}"#).send().await;
    assert_eq!((purged.status, &purged.json()["left"][1]), (503, &json!("the memory of the other nodes")));
    assert_eq!(purged.json()["left"][0], "redis");
    let through = rig.post("lending", CFT, person.clone()).send().await;
    assert_eq!(through.status, 200, "an outage of Redis is nothing to a team");
    redis.resume();
    rig.metric_becomes("iluma_gateway_redis_up", |up| up == 1.0).await;
    let purged = rig.operator("POST", "/v1/cache/purge").json(r#"{"route":"cft"}"#).send().await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    rig.stop().await;
}
