//! Tests that the gateway opens state that an earlier version wrote. `tests/fixtures` has databases and a dump of
//! Redis, written by the first version with the layout.
//!
//! `UPDATE_FIXTURES=1 cargo nextest run -E 'test(/^layouts::/)'` writes new fixtures. Use it only for a new layout,
//! with a new folder, so that the old fixtures are still opened.

use crate::support::{Redis, Rig, RigBuilder, Upstream, folder, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use redis::cmd;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const KIND: &str = "NAME_VALIDATOR_REQUEST";
/// The URL of an endpoint at which nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9/";
const DATABASE: &str = "iluma-gateway.db";
/// The folder of the newest layout. It is the first layout that all later versions must open.
const LAYOUT: &str = "layout-1";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(LAYOUT).join(name)
}

fn is_written_anew() -> bool {
    std::env::var_os("UPDATE_FIXTURES").is_some()
}

/// Returns the builder of a gateway with the fixtures' secrets and the state in a folder. Retention is ten years, so
/// that nothing in the fixtures is deleted as too old.
fn over(state: &Arc<TempDir>, iluma: &Upstream, endpoint: &str) -> RigBuilder {
    let kept = ["owners", "delivered_callbacks", "dead_letters", "ledger"].map(|what| format!("{what} = \"3650d\""));
    Rig::builder()
        .in_folder(state)
        .upstream(iluma.url())
        .secret("ROOT", &"1a".repeat(32))
        .secret("ENCRYPTION", &"2b".repeat(32))
        .section("state", &format!("retention = {{ {} }}", kept.join(", ")))
        .tenant("lending", &format!("callback_urls = {{ {KIND} = \"{endpoint}\" }}"))
}

/// Writes one entry of each kind of state: an owner with its call, a waiting delivery, a key, a suspension, an erasure.
async fn fill(rig: &Rig) {
    let question = json!({"bank_code": "BCA", "bank_account_number": "1234567855", "reference_id": "loan-1"});
    let asked = rig.post("lending", BANK, question.to_string()).send().await;
    assert_eq!(asked.json()["status"], "COMPLETED", "{}", asked.text());
    let callback = json!({"id": "bknv_fixture", "reference_id": "lending:loan-2", "status": "COMPLETED"});
    assert_eq!(rig.callback(KIND, callback.to_string()).send().await.status, 200);
    let waits = r#"iluma_gateway_callback_queue{state="queued",tenant="lending"}"#;
    rig.metric_becomes(waits, |count| count == 1.0).await;
    for (path, body) in [
        ("/v1/tenants/lending/keys", r#"{"note":"of the fixture"}"#),
        ("/v1/tenants/payments/suspend", ""),
        ("/v1/erase", r#"{"nik":"3171234567890123"}"#),
    ] {
        let ordered = rig.operator("POST", path).json(body).send().await;
        assert_eq!(ordered.status, 200, "{path}: {}", ordered.text());
    }
}

/// Checks that everything that [`fill`] wrote is there.
async fn is_there(rig: &Rig, endpoint: &Upstream) {
    until("the delivery that waited is made", || !endpoint.heard().is_empty()).await;
    let delivered: Value = serde_json::from_slice(&endpoint.heard()[0].body).expect("JSON");
    assert_eq!((&delivered["id"], &delivered["reference_id"]), (&json!("bknv_fixture"), &json!("loan-2")));
    let keys = rig.operator("GET", "/v1/tenants/lending/keys").send().await.json();
    let notes: Vec<_> = keys["keys"].as_array().expect("keys").iter().map(|key| key["note"].clone()).collect();
    assert!(notes.contains(&json!("of the fixture")), "{notes:?}");
    assert_eq!(rig.ask("payments", "GET", "/_gateway/usage").send().await.status, 403, "suspended");
    let usage = rig.operator("GET", "/v1/usage?from=2026-11-01&to=2027-01-31").send().await.json();
    let billable: u64 = usage["rows"].as_array().expect("rows").iter().filter_map(|row| row["billable"].as_u64()).sum();
    assert_eq!(billable, 1, "{usage}");
    let erasures = rig.operator("GET", "/v1/erasures").send().await;
    assert_eq!(erasures.json()["erasures"].as_array().map(Vec::len), Some(1), "{}", erasures.text());
    // A callback without a reference goes to the owner of its record.
    let callback = json!({"id": "bknv_owned", "status": "COMPLETED"}).to_string();
    assert_eq!(rig.callback(KIND, callback).send().await.status, 200);
    until("the owner has its callback", || endpoint.heard().len() >= 2).await;
    let delivered: Value = serde_json::from_slice(&endpoint.heard()[1].body).expect("JSON");
    assert_eq!(delivered["id"], "bknv_owned");
    // The persons that entries name are found as well.
    let person = r#"{"bank_code":"BCA","bank_account_number":"1234567855"}"#;
    let receipt = rig.operator("POST", "/v1/erase").json(person).send().await;
    assert_eq!(receipt.json()["removed"]["owners"], 1, "{}", receipt.text());
}

/// Starts an upstream that finds every bank account under one id, and an endpoint that accepts every callback.
async fn around() -> (Upstream, Upstream) {
    let found = json!({"is_found": true, "account_holder_name": "BUDI"});
    let answer = json!({"status": "COMPLETED", "id": "bknv_owned", "result": found}).to_string();
    let iluma = Upstream::answering(move |_| {
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(answer.clone()))).expect("an answer")
    });
    (iluma.await, Upstream::answering(|_| Response::new(Full::<Bytes>::default())).await)
}

/// Copies a fixture's database into a new folder, and returns the folder.
fn unpacked(database: &str) -> Arc<TempDir> {
    let state = folder();
    std::fs::copy(fixture(database), state.path().join(DATABASE)).expect("a fixture");
    Arc::new(state)
}

/// Copies the database of a gateway that has ended to the fixtures.
fn keep(state: &TempDir, database: &str) {
    std::fs::create_dir_all(fixture("")).expect("a folder");
    assert!(!state.path().join(format!("{DATABASE}-wal")).exists(), "all is in the file");
    std::fs::copy(state.path().join(DATABASE), fixture(database)).expect("a fixture");
}

#[tokio::test]
async fn a_database_of_the_last_layout_is_opened() {
    let (iluma, endpoint) = around().await;
    if is_written_anew() {
        let state = Arc::new(folder());
        let rig = over(&state, &iluma, NOWHERE).start().await;
        fill(&rig).await;
        rig.stop().await;
        keep(&state, "alone.sqlite");
    }
    let state = unpacked("alone.sqlite");
    let rig = over(&state, &iluma, &endpoint.url()).start().await;
    is_there(&rig, &endpoint).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_redis_of_the_last_layout_is_opened() {
    let (iluma, endpoint) = around().await;
    if is_written_anew() {
        let (state, redis) = (Arc::new(folder()), Redis::start().await);
        let rig = over(&state, &iluma, NOWHERE).redis(&redis).start().await;
        fill(&rig).await;
        rig.stop().await;
        keep(&state, "node.sqlite");
        redis.ask::<()>(&cmd("SAVE"));
        std::fs::copy(redis.file("dump.rdb"), fixture("dump.rdb")).expect("a fixture");
    }
    let state = unpacked("node.sqlite");
    let redis = Redis::over(&fixture("dump.rdb")).await;
    let rig = over(&state, &iluma, &endpoint.url()).redis(&redis).start().await;
    is_there(&rig, &endpoint).await;
    rig.stop().await;
}
