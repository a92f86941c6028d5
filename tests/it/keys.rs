//! Tests of teams' keys that operators or the team itself make, rotate and revoke, and of suspensions.

use crate::support::{Answer, Redis, RedisProxy, Rig, Spoil, ask};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const USAGE: &str = "/_gateway/usage";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const ACCOUNT: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;

/// Gives an order about the team `lending`.
async fn order(rig: &Rig, method: &str, path: &str, body: &str) -> Answer {
    rig.operator(method, &format!("/v1/tenants/lending{path}")).json(body).send().await
}

async fn made(rig: &Rig, body: &str) -> Value {
    let answer = order(rig, "POST", "/keys", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member}: {value}"))
}

/// Returns the status that a request with this key is answered.
async fn status(rig: &Rig, key: &str) -> u16 {
    ask("GET", rig.url(USAGE)).key(key).send().await.status
}

async fn listed(rig: &Rig) -> Vec<Value> {
    let answer = order(rig, "GET", "/keys", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["keys"].as_array().expect("a list").clone()
}

async fn until_status(rig: &Rig, key: &str, expected: u16) {
    for _ in 0..1000 {
        if status(rig, key).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the status did not become {expected}");
}

#[tokio::test]
async fn a_key_opens_until_it_is_revoked_and_is_shown_once() {
    let rig = Rig::start().await;
    let key = made(&rig, r#"{"note":"the batch job","expires_in":"90d"}"#).await;
    let mut members: Vec<_> = key.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["created", "expires", "id", "key", "last_used", "note", "source", "tenant"]);
    assert!(text(&key, "key").starts_with("igw_lending_"));
    assert_eq!(
        (&key["tenant"], &key["note"], &key["source"]),
        (&json!("lending"), &json!("the batch job"), &json!("api"))
    );
    assert_eq!(key["last_used"], Value::Null);
    let time = |member: &str| humantime::parse_rfc3339(text(&key, member)).expect("a time");
    assert_eq!(time("expires").duration_since(time("created")).expect("later"), Duration::from_secs(90 * 86400));

    assert_eq!(status(&rig, text(&key, "key")).await, 200);
    let all = listed(&rig).await;
    assert_eq!(all.len(), 2, "the file's and this one: {all:?}");
    assert_eq!((&all[0]["source"], &all[1]["id"]), (&json!("file"), &key["id"]));
    assert!(text(&all[1], "last_used").ends_with(":00Z"), "{all:?}");
    assert!(!format!("{all:?}").contains(text(&key, "key")));
    let tenants = rig.operator("GET", "/v1/tenants").send().await.json();
    assert_eq!(tenants["tenants"][0]["keys"], 2, "{tenants}");

    let id = text(&key, "id");
    let revoked = order(&rig, "DELETE", &format!("/keys/{id}"), "").await;
    assert_eq!((revoked.status, &revoked.json()["id"]), (200, &key["id"]));
    let refused = ask("GET", rig.url(USAGE)).key(text(&key, "key")).send().await;
    refused.is_rejection(401, "INVALID_API_KEY");
    assert_eq!(listed(&rig).await.len(), 1);
    assert_eq!(order(&rig, "DELETE", &format!("/keys/{id}"), "").await.status, 200, "again");
    let ended = order(&rig, "POST", &format!("/keys/{id}/rotate"), "").await;
    ended.is_rejection(409, "REQUEST_CONFLICT");
    rig.stop().await;
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused() {
    let rig = Rig::start().await;
    let file = text(&listed(&rig).await[0], "id").to_owned();
    for (method, path, body, expected) in [
        ("DELETE", format!("/keys/{file}"), "", (409, "key_in_file")),
        ("POST", format!("/keys/{file}/rotate"), "", (409, "key_in_file")),
        ("DELETE", "/keys/none".into(), "", (404, "unknown_key")),
        ("POST", "/keys/none/rotate".into(), "", (404, "unknown_key")),
        ("POST", "/keys".into(), r#"{"expires_in":"soon"}"#, (400, "malformed_request")),
        ("POST", "/keys".into(), r#"{"expires_in":"1s"}"#, (400, "malformed_request")),
        ("POST", "/keys".into(), r#"{"note":"two\nlines"}"#, (400, "malformed_request")),
        ("POST", "/keys".into(), r#"{"name":"x"}"#, (400, "malformed_request")),
        ("POST", "/keys/none/rotate".into(), r#"{"grace":"-1s"}"#, (400, "malformed_request")),
    ] {
        let answer = order(&rig, method, &path, body).await;
        assert_eq!((answer.status, answer.header("x-gateway-error")), expected, "{method} {path} {body}");
    }
    for path in ["/v1/tenants/nobody/keys", "/v1/tenants/nobody/suspend"] {
        rig.operator("POST", path).send().await.is_rejection(404, "DATA_NOT_FOUND");
    }
    for _ in 0..32 {
        made(&rig, "").await;
    }
    let full = order(&rig, "POST", "/keys", "").await;
    assert_eq!((full.status, full.header("x-gateway-error")), (409, "too_many_keys"));
    rig.stop().await;
}

#[tokio::test]
async fn rotations_at_the_same_time_keep_to_the_bound_together() {
    let rig = Rig::start().await;
    let key = made(&rig, "").await;
    let rotate = || ask("POST", rig.url("/_gateway/keys/rotate")).key(text(&key, "key")).send();
    let answers = futures_util::future::join_all((0..64).map(|_| rotate())).await;
    let made = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(made, 31, "with the first one there are 32");
    let refused = answers.iter().filter(|answer| answer.header("x-gateway-error") == "too_many_keys").count();
    assert_eq!(refused, 64 - made);
    let of_orders = listed(&rig).await.iter().filter(|key| key["source"] == "api").count();
    assert_eq!(of_orders, 32);
    rig.stop().await;
}

#[tokio::test]
async fn a_key_that_is_replaced_at_once_has_one_successor() {
    let rig = Rig::start().await;
    let path = format!("/keys/{}/rotate", text(&made(&rig, "").await, "id"));
    let answers = futures_util::future::join_all((0..8).map(|_| order(&rig, "POST", &path, r#"{"grace":"0s"}"#))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(made.len(), 1);
    assert!(refused.iter().all(|answer| answer.header("x-gateway-error") == "key_ended"), "{}", refused[0].text());
    rig.stop().await;
}

/// Checks that rotations count for the bound on a team's keys. A rotation makes a key, and the old key is accepted
/// during its grace.
#[tokio::test]
async fn a_team_has_no_more_keys_by_rotating_them() {
    let rig = Rig::start().await;
    let mut key = made(&rig, "").await;
    for _ in 1..32 {
        let path = format!("/keys/{}/rotate", text(&key, "id"));
        let rotated = order(&rig, "POST", &path, "").await;
        assert_eq!(rotated.status, 200, "{}", rotated.text());
        key = rotated.json();
    }
    let path = format!("/keys/{}/rotate", text(&key, "id"));
    let full = order(&rig, "POST", &path, "").await;
    assert_eq!((full.status, full.header("x-gateway-error")), (409, "too_many_keys"));
    let own = ask("POST", rig.url("/_gateway/keys/rotate")).key(text(&key, "key")).send().await;
    assert_eq!((own.status, own.header("x-gateway-error")), (409, "too_many_keys"));
    // At the bound, a key that leaked can still be replaced without grace.
    let at_once = order(&rig, "POST", &path, r#"{"grace":"0s"}"#).await;
    assert_eq!(at_once.status, 200, "{}", at_once.text());
    let again = format!("/keys/{}/rotate", text(&at_once.json(), "id"));
    let full = order(&rig, "POST", &again, r#"{"grace":"0s"}"#).await;
    assert_eq!((full.status, full.header("x-gateway-error")), (409, "too_many_keys"), "no endless rotation");
    // Keys whose grace is over do not count any more a day later.
    rig.clock.advance(Duration::from_secs(86401));
    made(&rig, "").await;
    rig.stop().await;
}

#[tokio::test]
async fn a_rotated_key_opens_until_its_grace_is_over_and_a_key_until_it_expires() {
    let rig = Rig::start().await;
    let first = made(&rig, r#"{"note":"n","expires_in":"10d"}"#).await;
    let second = order(&rig, "POST", &format!("/keys/{}/rotate", text(&first, "id")), r#"{"grace":"1h"}"#).await.json();
    assert_eq!((&second["note"], status(&rig, text(&second, "key")).await), (&json!("n"), 200));
    assert_eq!(status(&rig, text(&first, "key")).await, 200);
    rig.clock.advance(Duration::from_secs(3601));
    assert_eq!(status(&rig, text(&first, "key")).await, 401);
    assert_eq!(status(&rig, text(&second, "key")).await, 200);

    // The team rotates its own key, with the default grace of a day.
    let own = ask("POST", rig.url("/_gateway/keys/rotate")).key(text(&second, "key")).send().await;
    assert_eq!(own.status, 200, "{}", own.text());
    let third = own.json();
    assert_eq!((&third["tenant"], &third["source"]), (&json!("lending"), &json!("api")));
    rig.clock.advance(Duration::from_secs(86000));
    assert_eq!(status(&rig, text(&second, "key")).await, 200);
    rig.clock.advance(Duration::from_secs(401));
    assert_eq!(status(&rig, text(&second, "key")).await, 401);
    assert_eq!(status(&rig, text(&third, "key")).await, 200);
    rig.clock.advance(Duration::from_secs(10 * 86400));
    assert_eq!(
        status(&rig, text(&third, "key")).await,
        401,
        "a successor lives as long as its predecessor was to live"
    );

    let file = rig.ask("lending", "POST", "/_gateway/keys/rotate").send().await;
    file.is_rejection(409, "REQUEST_CONFLICT");
    let odd = rig.ask("lending", "POST", "/_gateway/keys/rotate").json(r#"{"grace":1}"#).send().await;
    odd.is_rejection(400, "API_VALIDATION_ERROR");
    rig.stop().await;
}

#[tokio::test]
async fn a_key_of_the_file_ends_when_the_file_says() {
    let rig = Rig::start().await;
    let settings = rig.settings(|text| {
        let hash = text.split("key_sha256 = [\"").nth(1).expect("a key").split('"').next().expect("a hash").to_owned();
        let table = format!("{{ sha256 = \"{hash}\", expires = 2100-01-01, note = \"from the file\" }}");
        text.replacen(&format!("\"{hash}\""), &table, 1)
    });
    rig.app.reload(&settings.expect("settings")).expect("a reload");
    let all = listed(&rig).await;
    assert_eq!((&all[0]["note"], &all[0]["expires"]), (&json!("from the file"), &json!("2100-01-01T00:00:00Z")));
    assert_eq!(status(&rig, rig.key("lending")).await, 200);
    rig.clock.advance(Duration::from_secs(80 * 366 * 86400));
    assert_eq!(status(&rig, rig.key("lending")).await, 401);
    rig.stop().await;
}

#[tokio::test]
async fn a_suspended_team_is_refused_until_it_is_resumed() {
    let mut rig = Rig::start().await;
    let suspended = order(&rig, "POST", "/suspend", "").await;
    assert_eq!((suspended.status, suspended.json()), (200, json!({"tenant": "lending", "suspended": true})));
    for _ in 0..2 {
        let refused = rig.ask("lending", "GET", USAGE).send().await;
        refused.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
        assert_eq!(refused.header("x-gateway-error"), "tenant_suspended");
        assert_eq!(status(&rig, rig.key("payments")).await, 200);
        let tenants = rig.operator("GET", "/v1/tenants").send().await.json();
        assert_eq!(tenants["tenants"][0]["suspended"], true);
        rig = rig.restart().await;
    }
    assert_eq!(order(&rig, "POST", "/resume", "").await.status, 200);
    assert_eq!(status(&rig, rig.key("lending")).await, 200);
    rig.stop().await;
}

#[tokio::test]
async fn keys_and_revocations_outlive_a_restart() {
    let rig = Rig::start().await;
    let (kept, gone) = (made(&rig, "").await, made(&rig, "").await);
    order(&rig, "DELETE", &format!("/keys/{}", text(&gone, "id")), "").await;
    let rig = rig.restart().await;
    assert_eq!(status(&rig, text(&kept, "key")).await, 200);
    assert_eq!(status(&rig, text(&gone, "key")).await, 401);
    rig.stop().await;
}

/// Makes and revokes `keys` keys on the node `a`, and checks that each order is in effect on the node `b` when it is
/// answered. Meanwhile `clients` clients send requests to `b`.
async fn orders_are_in_effect_everywhere(a: &Rig, b: &Rig, keys: usize, clients: usize) {
    let stop = CancellationToken::new();
    let mut load = JoinSet::new();
    for _ in 0..clients {
        let (stop, url, key) = (stop.clone(), b.url(BANK), b.key("lending").to_owned());
        load.spawn(async move {
            while !stop.is_cancelled() {
                let answer = ask("POST", &url).key(&key).json(ACCOUNT).send().await;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        });
    }
    for _ in 0..keys {
        let key = made(a, "").await;
        assert_eq!(status(b, text(&key, "key")).await, 200);
        let revoked = order(a, "DELETE", &format!("/keys/{}", text(&key, "id")), "").await;
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        assert_eq!(status(b, text(&key, "key")).await, 401);
    }
    stop.cancel();
    while let Some(ended) = load.join_next().await {
        ended.expect("a client");
    }
}

#[tokio::test]
#[ignore = "a thousand keys take a minute: tests/run --long"]
async fn a_thousand_keys_are_on_every_node_when_their_orders_are_answered() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).extra("[auth]\nmax_failures = 2000\n").start().await;
    let b = a.another().await;
    orders_are_in_effect_everywhere(&a, &b, 1000, 8).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn every_node_has_taken_an_order_when_it_is_answered() {
    let redis = Redis::start().await;
    // Each revoked key that is tried counts as a wrong one.
    let a = Rig::builder().redis(&redis).extra("[auth]\nmax_failures = 1000\n").start().await;
    let b = a.another().await;
    orders_are_in_effect_everywhere(&a, &b, 25, 0).await;
    for (path, expected) in [("/suspend", 403), ("/resume", 200)] {
        assert_eq!(order(&b, "POST", path, "").await.status, 200);
        assert_eq!(status(&a, a.key("lending")).await, expected);
    }
    // A node that starts later accepts the key from its start.
    let key = made(&a, "").await;
    let c = a.another().await;
    assert_eq!(status(&c, text(&key, "key")).await, 200);
    c.stop().await;
    b.stop().await;
    a.stop().await;
}

/// Checks that the order is in effect on the other nodes, and on the node that was cut off once it is back.
#[tokio::test]
async fn a_node_that_is_cut_off_while_a_key_is_made_is_named() {
    let redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let a = Rig::builder().secret("OTHER", &proxy.url()).redis(&redis).start().await;
    let b = a.another().await;
    let c = a
        .another_with(|text| {
            text.replace(r#"url = { env = "REDIS" }"#, r#"url = { env = "OTHER" }"#)
                + "\n[node]\nname = \"gateway-c\"\n"
        })
        .await;
    proxy.spoil(Spoil::Swallow);
    let answer = order(&a, "POST", "/keys", "").await;
    assert_eq!((answer.status, answer.header("x-gateway-error")), (503, "incomplete"), "{}", answer.text());
    let made = answer.json();
    assert_eq!(made["left"], json!(["node gateway-c"]), "{made}");
    let key = text(&made, "key");
    assert_eq!((status(&a, key).await, status(&b, key).await), (200, 200));
    assert_eq!(status(&c, key).await, 401, "it can't know");
    proxy.spoil(Spoil::Pass);
    until_status(&c, key, 200).await;
    for node in [c, b, a] {
        node.stop().await;
    }
}

#[tokio::test]
async fn without_redis_each_node_has_its_own_copy_and_no_revoked_key_revives() {
    let mut redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    let (kept, gone) = (made(&a, "").await, made(&a, "").await);
    // This Redis loses its data at a restart.
    redis.kill();
    a.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    let b = b.restart().await;
    assert_eq!(status(&b, text(&kept, "key")).await, 200, "a node that starts while Redis is out");
    let left = order(&a, "DELETE", &format!("/keys/{}", text(&gone, "id")), "").await;
    assert_eq!((left.status, left.header("x-gateway-error")), (503, "incomplete"), "{}", left.text());
    assert!(left.json()["left"].to_string().contains("redis"), "{}", left.text());
    assert_eq!(status(&a, text(&gone, "key")).await, 401);
    assert_eq!(status(&b, text(&gone, "key")).await, 200, "it can't know");
    redis.run().await;
    until_status(&b, text(&gone, "key"), 401).await;
    assert_eq!(status(&b, text(&kept, "key")).await, 200);
    let a = a.restart().await;
    assert_eq!(status(&a, text(&gone, "key")).await, 401);
    assert_eq!(status(&a, text(&kept, "key")).await, 200);
    b.stop().await;
    a.stop().await;
}
