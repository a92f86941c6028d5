//! Tests of operators' tokens with roles, of the audit log, and of failed authentications.

use crate::support::{Answer, Redis, Rig, RigBuilder, ask};
use serde_json::{Value, json};
use std::time::Duration;

const VIEWER: &str = "a-token-of-a-viewer";
const OPERATOR: &str = "a-token-of-an-operator";
/// The paths that every role reads.
const VIEWS: [&str; 9] = [
    "/v1/tenants",
    "/v1/tenants/lending/keys",
    "/v1/usage",
    "/v1/usage/unknown",
    "/v1/callbacks?state=dead",
    "/v1/nodes",
    "/v1/alarms",
    "/v1/erasures",
    "/v1/audit",
];
const ROLES: [(&str, &str); 3] = [("viewer", VIEWER), ("operator", OPERATOR), ("admin", "")];

const SETTLEMENT: &str = r#"{"calls":[{"node":"nobody","number":1,"outcome":"billable","note":"bill 11"}]}"#;

fn with_roles() -> RigBuilder {
    let tokens = "tokens = { view = { token = { env = \"VIEWER\" }, role = \"viewer\" }, \
                  night = { token = { env = \"OPERATOR\" }, role = \"operator\" } }";
    Rig::builder().section("admin", tokens).secret("VIEWER", VIEWER).secret("OPERATOR", OPERATOR)
}

async fn as_role(rig: &Rig, role: &str, method: &str, path: &str, body: &str) -> Answer {
    let own = ROLES.iter().find(|(name, _)| *name == role).expect("a role").1;
    let token = if own.is_empty() { rig.secret("ADMIN") } else { own };
    let ask = ask(method, rig.admin_url(path)).header("authorization", format!("Bearer {token}"));
    ask.json(body).send().await
}

async fn audited(rig: &Rig, query: &str) -> Vec<Value> {
    let answer = rig.operator("GET", &format!("/v1/audit{query}")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["entries"].as_array().expect("a list").clone()
}

/// Returns the order, the name of the token and the outcome of an entry of the audit log.
fn short(entry: &Value) -> (String, String, String) {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    (text("order"), text("token"), text("outcome"))
}

#[tokio::test]
async fn each_role_may_do_what_it_is_for_and_every_order_is_audited() {
    let rig = with_roles().start().await;
    // The gateway has no callbacks, and no key with the id `none`. Yet a token without the role is refused with 403
    // first.
    let endpoints = r#"{"tenant":"lending"}"#;
    let orders = [
        ("pause_callbacks", "POST", "/v1/callbacks/pause", endpoints, "operator"),
        ("resume_callbacks", "POST", "/v1/callbacks/resume", endpoints, "operator"),
        ("test_callbacks", "POST", "/v1/callbacks/test", endpoints, "operator"),
        ("delete_dead_letter", "DELETE", "/v1/callbacks/none", "", "admin"),
        ("purge", "POST", "/v1/cache/purge", r#"{"all":true}"#, "operator"),
        ("replay", "POST", "/v1/callbacks/replay", r#"{"all":true}"#, "operator"),
        ("settle", "POST", "/v1/usage/unknown/settle", SETTLEMENT, "operator"),
        ("erase", "POST", "/v1/erase", r#"{"nik":"3171234567890123"}"#, "admin"),
        ("create_key", "POST", "/v1/tenants/lending/keys", "", "admin"),
        ("rotate_key", "POST", "/v1/tenants/lending/keys/none/rotate", "", "admin"),
        ("revoke_key", "DELETE", "/v1/tenants/lending/keys/none", "", "admin"),
        ("suspend", "POST", "/v1/tenants/lending/suspend", "", "admin"),
        ("resume", "POST", "/v1/tenants/lending/resume", "", "admin"),
    ];
    let mut expected = Vec::new();
    for (place, (role, _)) in ROLES.iter().enumerate() {
        assert_eq!(as_role(&rig, role, "GET", "/v1/tenants", "").await.status, 200);
        for view in VIEWS {
            assert_eq!(as_role(&rig, role, "GET", view, "").await.status, 200, "{role} {view}");
        }
        let counted = as_role(&rig, role, "POST", "/v1/cache/purge", r#"{"all":true,"dry_run":true}"#).await;
        assert_eq!(counted.status == 200, *role != "viewer", "{role}: {}", counted.text());
        if *role == "viewer" {
            expected.push(("purge".to_owned(), "view".to_owned(), "refused".to_owned()));
        }
        for (order, method, path, body, needed) in &orders {
            let answer = as_role(&rig, role, method, path, body).await;
            let may = ROLES[..=place].iter().any(|(known, _)| known == needed);
            if may {
                assert_ne!(answer.status, 403, "{role} {order}");
            } else {
                answer.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
                assert_eq!(answer.header("x-gateway-error"), "role_not_allowed");
                assert!(answer.text().contains(&format!("the role {needed}")), "{}", answer.text());
            }
            let outcome = if may && answer.status == 200 { "done" } else { "refused" };
            let token = ["view", "night", "admin"][place];
            expected.push(((*order).to_owned(), token.to_owned(), outcome.to_owned()));
        }
    }
    as_role(&rig, "admin", "POST", "/v1/erase", "{}").await.is_rejection(400, "API_VALIDATION_ERROR");
    expected.push(("erase".into(), "admin".into(), "refused".into()));
    let entries = audited(&rig, "").await;
    assert_eq!(entries.iter().map(short).collect::<Vec<_>>(), expected);
    let mut members: Vec<_> = entries[0].as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    let all = ["counts", "id", "node", "order", "outcome", "peer", "role", "subject", "time", "token"];
    assert_eq!(members, all);
    assert_eq!((&entries[0]["peer"], &entries[0]["role"]), (&json!("127.0.0.1"), &json!("viewer")));
    let purged = entries.iter().find(|entry| short(entry) == ("purge".into(), "night".into(), "done".into()));
    assert_eq!(purged.expect("a purge")["counts"], json!({"disk": 0, "memory": 0, "redis": 0}));
    assert!(!format!("{entries:?}").contains("317123456789"));

    // A restart keeps the entries, and a page begins after the last entry of the page before.
    let rig = rig.restart().await;
    assert_eq!(audited(&rig, "").await, entries);
    let first = rig.operator("GET", "/v1/audit?limit=5").send().await.json();
    let next = first["next"].as_str().expect("more").to_owned();
    assert_eq!(audited(&rig, &format!("?after={next}")).await, entries[5..]);
    assert_eq!(audited(&rig, "?from=2100-01-01").await.len(), 0);
    assert_eq!(audited(&rig, "?to=2020-01-01").await.len(), 0);
    rig.operator("GET", "/v1/audit?limit=0").send().await.is_rejection(400, "API_VALIDATION_ERROR");
    let lines = rig.operator("GET", "/v1/audit").header("accept", "application/x-ndjson").send().await;
    assert_eq!(lines.text().lines().count(), entries.len());
    rig.stop().await;
}

#[tokio::test]
async fn the_audit_log_is_read_from_either_end() {
    let redis = Redis::start().await;
    for rig in [Rig::builder(), Rig::builder().redis(&redis)] {
        let rig = rig.start().await;
        for team in ["lending", "payments", "lending"] {
            let purge = rig.operator("POST", "/v1/cache/purge").json(format!("{{\"tenant\":\"{team}\"}}"));
            assert_eq!(purge.send().await.status, 200);
        }
        let oldest_first = audited(&rig, "").await;
        let newest_first: Vec<_> = oldest_first.iter().rev().cloned().collect();
        assert_eq!(oldest_first.len(), 3);
        assert_eq!(audited(&rig, "?newest_first=false").await, oldest_first);
        assert_eq!(audited(&rig, "?newest_first=true").await, newest_first);
        let first = rig.operator("GET", "/v1/audit?newest_first=true&limit=1").send().await.json();
        let next = first["next"].as_str().expect("more");
        assert_eq!(audited(&rig, &format!("?newest_first=true&after={next}")).await, newest_first[1..]);
        assert_eq!(audited(&rig, &format!("?newest_first=true&after={next}&from=2100-01-01")).await.len(), 0);
        assert_eq!(audited(&rig, "?newest_first=true&to=2020-01-01").await.len(), 0);
        let unclear = rig.operator("GET", "/v1/audit?newest_first=yes").send().await;
        unclear.is_rejection(400, "API_VALIDATION_ERROR");
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_audit_log_is_that_of_all_nodes() {
    let mut redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    let purge = |node: &Rig| node.operator("POST", "/v1/cache/purge").json(r#"{"all":true}"#).send();
    assert_eq!(purge(&a).await.status, 200);
    assert_eq!(purge(&b).await.status, 200);
    let all = audited(&a, "").await;
    assert_eq!((all.len(), &all), (2, &audited(&b, "").await));
    // This Redis loses its data at a restart. A node shares the entries that it wrote meanwhile once Redis is back.
    redis.kill();
    b.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    assert_eq!(purge(&b).await.status, 503);
    let alone = b.operator("GET", "/v1/audit").send().await;
    assert_eq!(alone.header("x-gateway-partial"), "other nodes' entries are missing");
    assert_eq!(short(&alone.json()["entries"][1]), ("purge".into(), "admin".into(), "incomplete".into()));
    redis.run().await;
    a.metric_becomes("iluma_gateway_redis_up", |up| up == 1.0).await;
    b.metric_becomes("iluma_gateway_redis_up", |up| up == 1.0).await;
    for _ in 0..500 {
        // The earlier entries come back too, because each node keeps its own entries.
        if audited(&a, "").await.len() == 3 {
            assert_eq!(short(&audited(&a, "").await[2]).2, "incomplete");
            b.stop().await;
            return a.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the entry of the other node never came");
}

#[tokio::test]
async fn an_order_that_cannot_be_audited_is_not_carried_out() {
    let rig = Rig::start().await;
    let rig = rig.restart_without_audit().await;
    let suspend = rig.operator("POST", "/v1/tenants/lending/suspend").send().await;
    suspend.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert!(suspend.text().contains("the audit log can't be written"), "{}", suspend.text());
    assert_eq!(rig.ask("lending", "GET", "/_gateway/usage").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn wrong_credentials_are_limited_and_valid_ones_never() {
    let rig = Rig::start().await;
    let wrong = |listener: &str| match listener {
        "server" => ask("GET", rig.url("/_gateway/usage")).key("igw_lending_wrong"),
        _ => ask("GET", rig.admin_url("/v1/tenants")).header("authorization", "Bearer wrong"),
    };
    let callback = || ask("POST", rig.callbacks_url("/callbacks/live")).json("{}");
    for listener in ["server", "admin"] {
        for _ in 0..20 {
            wrong(listener).send().await.is_rejection(401, "INVALID_API_KEY");
        }
        let limited = wrong(listener).send().await;
        limited.is_rejection(429, "RATE_LIMIT_EXCEEDED");
        assert_eq!(limited.header("x-gateway-error"), "too_many_failures");
        assert!((1..=3).contains(&limited.header("retry-after").parse::<u64>().expect("seconds")));
    }
    for _ in 0..25 {
        // A missing credential is no attempt to guess one.
        ask("GET", rig.url("/_gateway/usage")).send().await.is_rejection(401, "INVALID_API_KEY");
        callback().send().await;
    }
    let of = |listener: &str| format!("iluma_gateway_auth_failures_total{{listener=\"{listener}\"}}");
    assert_eq!(rig.metric(&of("callbacks")).await, 0.0);
    let mut statuses = Vec::new();
    for _ in 0..21 {
        statuses.push(callback().header("x-callback-token", "wrong").send().await.status);
    }
    assert_eq!((statuses[0], statuses[19], statuses[20]), (401, 401, 429));
    assert_eq!(rig.metric(&of("callbacks")).await, 21.0);
    assert_eq!(rig.metric(&of("server")).await, 21.0);
    assert_eq!(rig.metric(&of("admin")).await, 21.0);
    assert_eq!(rig.ask("lending", "GET", "/_gateway/usage").send().await.status, 200);
    assert_eq!(rig.operator("GET", "/v1/tenants").send().await.status, 200);
    rig.stop().await;
}
