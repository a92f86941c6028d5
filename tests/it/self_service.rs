//! Tests of the teams' own API: callback URLs go back to the configured ones, usage of any days, rotation of a key, and
//! the first page.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{PATIENCE, Redis, Rig, RigBuilder, Upstream, ask};
use serde_json::{Value, json};
use std::time::Duration;

const URLS: &str = "/v1/callback/urls";
const KIND: &str = "NAME_VALIDATOR_REQUEST";
const OTHER: &str = "ID_IMAGE_OCR_REQUEST";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";

fn configured(builder: RigBuilder) -> RigBuilder {
    builder.tenant(
        "lending",
        &format!("callback_hosts = [\"127.0.0.1\"]\ncallback_urls = {{ {KIND} = \"http://127.0.0.1:1/configured\" }}"),
    )
}

async fn urls(rig: &Rig) -> Value {
    rig.ask("lending", "GET", URLS).send().await.json()
}

async fn set(rig: &Rig, kind: &str, url: &str) {
    let answer = rig.post("lending", URLS, json!({"type": kind, "url": url}).to_string()).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn urls_go_back(rig: &Rig, other: &Rig) {
    let endpoint = Upstream::agreeing().await;
    let own = format!("{}/own", endpoint.url());
    let before = json!([{"type": KIND, "url": "http://127.0.0.1:1/configured"}]);
    assert_eq!(urls(rig).await, before);
    set(rig, KIND, &own).await;
    set(rig, OTHER, &own).await;
    let both = json!([{"type": KIND, "url": own}, {"type": OTHER, "url": own}]);
    assert_eq!(urls(other).await, both);
    let one = other.ask("lending", "DELETE", &format!("{URLS}?type={KIND}")).send().await;
    let expected = json!([{"type": KIND, "url": "http://127.0.0.1:1/configured"}, {"type": OTHER, "url": own}]);
    assert_eq!((one.status, one.json()), (200, expected));
    set(rig, KIND, &own).await;
    let by_body = rig.ask("lending", "DELETE", "/v2.1/callback/urls").json(json!({"type": OTHER}).to_string());
    assert_eq!(by_body.send().await.json(), json!([{"type": KIND, "url": own}]));
    let all = rig.ask("lending", "DELETE", URLS).send().await;
    assert_eq!((all.status, all.json()), (200, before.clone()));
    assert_eq!(urls(other).await, before);
    let wrong = rig.ask("lending", "DELETE", &format!("{URLS}?type=X")).send().await;
    wrong.is_rejection(400, "API_VALIDATION_ERROR");
    let options = rig.ask("lending", "OPTIONS", URLS).send().await;
    assert_eq!(options.header("allow"), "GET, POST, PATCH, DELETE, HEAD, OPTIONS");
}

#[tokio::test]
async fn a_team_returns_its_urls_to_those_of_the_configuration() {
    let rig = configured(Rig::builder()).start().await;
    urls_go_back(&rig, &rig).await;
    assert_eq!(rig.sim().stats().requests, 0, "nothing of it reaches Iluma");
    rig.stop().await;
}

#[tokio::test]
async fn on_every_node_a_team_returns_its_urls_to_those_of_the_configuration() {
    let redis = Redis::start().await;
    let a = configured(Rig::builder()).redis(&redis).start().await;
    let b = a.another().await;
    urls_go_back(&a, &b).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn a_team_reads_its_usage_of_any_days_as_json_and_as_csv() {
    let rig = Rig::builder().extra("[prices]\nbank = 500\n").start().await;
    let bank = |number: u32| json!({"bank_code": "BCA", "bank_account_number": format!("{number}")}).to_string();
    let today = |rig: &Rig| humantime::format_rfc3339_seconds(rig.clock.wall()).to_string()[..10].to_owned();
    rig.post("lending", BANK, bank(1_234_567_811)).send().await;
    rig.post("payments", BANK, bank(1_234_567_812)).send().await;
    let usage = async |query: &str| rig.ask("lending", "GET", &format!("/_gateway/usage{query}")).send().await;
    let first = usage("").await.json()["today"]["from"].as_str().expect("a day").to_owned();
    rig.clock.advance(Duration::from_secs(40 * 86400));
    rig.post("lending", BANK, bank(1_234_567_813)).send().await;
    let plain = usage("").await.json();
    assert_eq!((plain["this_month"]["billable"].as_u64(), plain.get("period")), (Some(1), None), "{plain}");
    let both = usage(&format!("?from={first}")).await.json();
    assert_eq!((&both["period"]["billable"], &both["period"]["cost"]), (&json!(2), &json!(1000)), "{both}");
    assert_eq!(both["period"]["days"].as_object().map(serde_json::Map::len), Some(2), "{both}");
    assert_eq!(both["period"]["routes"]["bank"]["billable"], 2);
    let earlier = usage(&format!("?from={first}&to={first}")).await.json();
    assert_eq!((&earlier["period"]["billable"], &earlier["this_month"]["billable"]), (&json!(1), &json!(1)));
    let csv = rig.ask("lending", "GET", &format!("/_gateway/usage?from={first}")).header("accept", "text/csv");
    let csv = csv.send().await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let is_shown = |line: &&str| line.contains(",bank,") || line.starts_with("day");
    let lines: Vec<String> = csv.text().lines().filter(is_shown).map(str::to_owned).collect();
    assert!(lines[0].starts_with("day,tenant,route,requests,"), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{first},lending,bank,")) && lines.len() == 3, "{lines:?}");
    assert!(!csv.text().contains("payments"), "{lines:?}");
    assert!(today(&rig) > first);
    for wrong in ["?from=yesterday", "?month=2026-10", "?tenant=payments"] {
        usage(wrong).await.is_rejection(400, "API_VALIDATION_ERROR");
    }
    rig.stop().await;
}

async fn rotations(rig: &Rig) -> Vec<Value> {
    let entries = rig.operator("GET", "/v1/audit").send().await.json()["entries"].clone();
    let all = entries.as_array().expect("a list").iter();
    all.filter(|entry| entry["order"] == "rotate_key").cloned().collect()
}

#[tokio::test]
async fn a_teams_rotation_of_its_key_is_in_the_audit_log_of_all_nodes() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    let made = a.operator("POST", "/v1/tenants/lending/keys").send().await.json();
    let key = made["key"].as_str().expect("a key");
    let rotated = ask("POST", b.url("/_gateway/keys/rotate")).key(key).send().await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    let file = a.ask("lending", "POST", "/_gateway/keys/rotate").send().await;
    file.is_rejection(409, "REQUEST_CONFLICT");
    let noted = rotations(&a).await;
    let id = made["id"].as_str().expect("an id");
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert_eq!(
        (&noted[0]["token"], &noted[0]["role"], &noted[0]["outcome"], &noted[0]["subject"], &noted[0]["peer"]),
        (&json!("lending"), &json!("team"), &json!("done"), &json!(format!("lending/{id}")), &json!("127.0.0.1"))
    );
    assert_eq!(noted[1]["outcome"], "refused");
    assert!(!format!("{noted:?}").contains(key));
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn a_rotation_that_cannot_be_audited_is_refused() {
    let rig = Rig::start().await;
    let made = rig.operator("POST", "/v1/tenants/lending/keys").send().await.json();
    let key = made["key"].as_str().expect("a key").to_owned();
    let rig = rig.restart_without_audit().await;
    let refused = ask("POST", rig.url("/_gateway/keys/rotate")).key(&key).send().await;
    refused.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert_eq!(
        rig.operator("GET", "/v1/tenants/lending/keys").send().await.json()["keys"].as_array().map(Vec::len),
        Some(2)
    );
    rig.stop().await;
}

#[tokio::test]
async fn the_first_page_says_what_answers_there() {
    let rig = Rig::builder().extra("[help]\ncontact = \"#kyc-platform\"\n").start().await;
    let plain = ask("GET", rig.url("/")).send().await;
    assert_eq!((plain.status, plain.header("content-type")), (200, "application/json"));
    let told = plain.json();
    assert_eq!((&told["service"], &told["contact"]), (&json!("iluma-gateway"), &json!("#kyc-platform")));
    assert!(told["own_api"].to_string().contains("GET /_gateway/usage"), "{told}");
    let page = ask("GET", rig.url("/")).header("accept", "text/html,*/*;q=0.8").send().await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text().starts_with("<!DOCTYPE html>") && page.text().contains("#kyc-platform"), "{}", page.text());
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let head = ask("HEAD", rig.url("/")).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    ask("POST", rig.url("/")).send().await.is_rejection(401, "INVALID_API_KEY");
    let logged = rig.logged(4).await;
    assert_eq!((&logged[0]["route"], &logged[0]["tenant"]), (&json!("gateway"), &Value::Null));
    assert_eq!(rig.sim().stats().requests, 0);
    rig.stop().await;
}

/// Checks that a suspension holds back the team's callbacks, and loses none of them.
#[tokio::test]
async fn callbacks_of_a_suspended_team_wait_and_go_out_once_it_is_resumed() {
    let endpoint = Upstream::agreeing().await;
    let urls = format!("callback_hosts = [\"127.0.0.1\"]\ncallback_urls = {{ {KIND} = \"{}\" }}", endpoint.url());
    let rig = Rig::builder().tenant("lending", &urls).start().await;
    assert_eq!(rig.operator("POST", "/v1/tenants/lending/suspend").send().await.status, 200);
    for id in ["one", "two"] {
        let body = format!(r#"{{"id":"{id}","reference_id":"lending:a"}}"#);
        assert_eq!(rig.callback(KIND, body).send().await.status, 200);
    }
    let queued = r#"iluma_gateway_callback_queue{state="queued",tenant="lending"}"#;
    rig.metric_becomes(queued, |count| count == 2.0).await;
    let rig = rig.restart().await;
    rig.metric_becomes(queued, |count| count == 2.0).await;
    assert_eq!(endpoint.heard().len(), 0, "nothing goes out while the team is suspended");
    let listed = rig.operator("GET", "/v1/callbacks?state=queued").send().await.json();
    assert_eq!(listed["callbacks"][0]["attempts"], 0, "{listed}");
    assert_eq!(rig.operator("POST", "/v1/tenants/lending/resume").send().await.status, 200);
    let delivered = async {
        while endpoint.heard().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, delivered).await.is_ok(), "the callbacks never go out");
    rig.stop().await;
}
