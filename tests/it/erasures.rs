//! Tests of the receipts of erasures, and of purges that only count (dry runs).

use crate::support::{Answer, Redis, RedisProxy, Rig, Spoil, until};
use redis::cmd;
use serde_json::{Value, json};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const NUMBER: &str = "1234567855";

fn account() -> String {
    json!({"bank_code": "BCA", "bank_account_number": NUMBER, "reference_id": "loan-1"}).to_string()
}

async fn erase(rig: &Rig) -> Answer {
    let person = json!({"bank_code": "BCA", "bank_account_number": NUMBER}).to_string();
    rig.operator("POST", "/v1/erase").json(person).send().await
}

async fn listed(rig: &Rig, query: &str) -> Vec<Value> {
    let answer = rig.operator("GET", &format!("/v1/erasures{query}")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["erasures"].as_array().expect("a list").clone()
}

async fn is_stored(rig: &Rig) -> bool {
    let ask = rig.post("lending", BANK, account()).header("cache-control", "only-if-cached");
    ask.send().await.status == 200
}

fn members(value: &Value) -> Vec<&str> {
    let mut members: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

fn named(name: &'static str) -> impl FnOnce(String) -> String {
    move |text| format!("{text}\n[node]\nname = \"{name}\"\n")
}

#[tokio::test]
async fn an_erasure_is_answered_with_a_receipt_that_stays_and_names_nobody() {
    let rig = Rig::builder().extra("[node]\nname = \"gateway-a\"\n").start().await;
    rig.post("lending", BANK, account()).send().await;
    let erased = erase(&rig).await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    let receipt = erased.json();
    assert_eq!(members(&receipt), ["id", "left", "nodes", "removed", "time"]);
    assert_eq!(
        members(&receipt["removed"]),
        ["answers", "callbacks", "deliveries", "disk", "memory", "owners", "redis"]
    );
    assert_eq!((&receipt["removed"]["memory"], &receipt["left"]), (&json!(1), &json!([])));
    assert_eq!(receipt["nodes"], json!([{"name": "gateway-a", "state": "done"}]));
    assert!(humantime::parse_rfc3339(receipt["time"].as_str().expect("a time")).is_ok(), "{receipt}");

    assert_eq!(erase(&rig).await.status, 200);
    let rig = rig.restart().await;
    let all = listed(&rig, "").await;
    assert_eq!((all.len(), &all[0]), (2, &receipt));
    let first = rig.operator("GET", "/v1/erasures?limit=1").send().await.json();
    let next = first["next"].as_str().expect("more").to_owned();
    assert_eq!((&first["erasures"][0], listed(&rig, &format!("?after={next}")).await), (&receipt, all[1..].to_vec()));
    assert_eq!(listed(&rig, "?from=2100-01-01").await.len(), 0);
    rig.operator("GET", "/v1/erasures?page=2").send().await.is_rejection(400, "API_VALIDATION_ERROR");
    // Only the export has the person tags, which are keyed hashes.
    let lines = rig.operator("GET", "/v1/erasures").header("accept", "application/x-ndjson").send().await.text();
    let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&line["id"], line["persons"].as_array().map(Vec::len)), (&receipt["id"], Some(1)));
    assert!(!format!("{lines}{all:?}").contains(NUMBER));
    rig.stop().await;
}

#[tokio::test]
async fn a_receipt_names_each_node_and_the_one_that_was_not_reached() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let a = Rig::builder().secret("OTHER", &proxy.url()).redis(&redis).start().await;
    let b = a.another_with(named("gateway-b")).await;
    let through_proxy =
        |text: String| named("gateway-c")(text.replace(r#"url = { env = "REDIS" }"#, r#"url = { env = "OTHER" }"#));
    let c = a.another_with(through_proxy).await;
    let state = |receipt: &Value, name: &str| {
        let nodes = receipt["nodes"].as_array().expect("nodes").clone();
        let node = nodes.into_iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {receipt}"));
        node["state"].as_str().expect("a state").to_owned()
    };
    let whole = erase(&b).await.json();
    assert_eq!((state(&whole, "gateway-b"), state(&whole, "gateway-c")), ("done".into(), "done".into()));
    assert_eq!(whole["nodes"].as_array().map(Vec::len), Some(3), "{whole}");

    proxy.spoil(Spoil::Swallow);
    let partial = erase(&b).await;
    assert_eq!((partial.status, partial.header("x-gateway-error")), (503, "incomplete"), "{}", partial.text());
    let partial = partial.json();
    assert_eq!((state(&partial, "gateway-b"), state(&partial, "gateway-c")), ("done".into(), "left".into()));
    assert_eq!((&partial["left"], &partial["error_code"]), (&json!(["node gateway-c"]), &json!("SERVICE_UNAVAILABLE")));
    // Another node lists both receipts.
    let all = listed(&a, "").await;
    assert_eq!(all.iter().map(|receipt| &receipt["id"]).collect::<Vec<_>>(), [&whole["id"], &partial["id"]]);
    assert_eq!(all[1]["left"], json!(["node gateway-c"]));
    proxy.spoil(Spoil::Pass);
    for node in [c, b, a] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_purge_that_is_a_dry_run_counts_and_changes_nothing() {
    let rig = Rig::start().await;
    let purge = |order: &'static str| rig.operator("POST", "/v1/cache/purge").json(order).send();
    rig.post("lending", BANK, account()).send().await;
    for _ in 0..2 {
        let counted = purge(r#"{"route":"bank","dry_run":true}"#).await;
        let removed = json!({"memory": 1, "disk": 1, "redis": 0});
        assert_eq!((counted.status, counted.json()), (200, json!({"dry_run": true, "removed": removed})));
        assert!(is_stored(&rig).await);
    }
    assert_eq!(purge(r#"{"route":"cft","dry_run":true}"#).await.json()["removed"]["memory"], 0);
    assert_eq!(purge(r#"{"tenant":"lending","dry_run":true}"#).await.json()["removed"]["memory"], 0);
    purge(r#"{"dry_run":true}"#).await.is_rejection(400, "API_VALIDATION_ERROR");
    purge(r#"{"all":true,"dry_run":1}"#).await.is_rejection(400, "API_VALIDATION_ERROR");
    // The audit log has the refused orders. It does not have the dry runs.
    let audited = rig.operator("GET", "/v1/audit").send().await.json();
    let outcomes: Vec<_> =
        audited["entries"].as_array().expect("a list").iter().map(|entry| &entry["outcome"]).collect();
    assert_eq!(outcomes, ["refused", "refused"]);
    let removed = purge(r#"{"all":true,"dry_run":false}"#).await.json();
    assert_eq!(removed, json!({"removed": {"memory": 1, "disk": 1, "redis": 0}}));
    assert!(!is_stored(&rig).await);
    rig.stop().await;
}

#[tokio::test]
async fn a_dry_run_counts_on_every_node_and_names_the_one_that_was_not_reached() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    // With `stale_if_error`, Redis keeps a second copy of an entry. Both count as one entry.
    let cache = "bank = { stale_if_error = \"1h\" }";
    let a = Rig::builder().secret("OTHER", &proxy.url()).redis(&redis).section("cache", cache).start().await;
    let b = a.another().await;
    let through_proxy =
        |text: String| named("gateway-c")(text.replace(r#"url = { env = "REDIS" }"#, r#"url = { env = "OTHER" }"#));
    let c = a.another_with(through_proxy).await;
    for node in [&a, &b, &c] {
        assert_eq!(node.post("lending", BANK, account()).send().await.status, 200);
    }
    until("it is in Redis", || redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:entry:*")).len() == 2).await;
    let count = || b.operator("POST", "/v1/cache/purge").json(r#"{"route":"bank","dry_run":true}"#).send();
    let epochs = || {
        let key: Vec<Vec<u8>> = redis.ask(cmd("KEYS").arg("*:epochs"));
        redis.ask::<std::collections::BTreeMap<String, Vec<u8>>>(cmd("HGETALL").arg(&key[0]))
    };
    let before = epochs();
    let counted = count().await;
    let removed = json!({"memory": 3, "disk": 0, "redis": 1});
    assert_eq!((counted.status, counted.json()), (200, json!({"dry_run": true, "removed": removed})));
    assert_eq!(epochs(), before);
    for node in [&a, &b, &c] {
        assert!(is_stored(node).await);
    }
    proxy.spoil(Spoil::Swallow);
    let partial = count().await;
    assert_eq!((partial.status, &partial.json()["left"]), (503, &json!(["node gateway-c"])), "{}", partial.text());
    assert_eq!(partial.json()["removed"]["memory"], 2);
    proxy.spoil(Spoil::Pass);
    for node in [c, b, a] {
        node.stop().await;
    }
}
