//! Tests of calls whose answers were lost. A later callback or GET about the call's record settles the call, by the
//! record's id or by its reference.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Answer, Held, PATIENCE, Part, Redis, Rig, Upstream, ask, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const IMAGES: &str = "/v1/identity/id_card_images";
const KIND: &str = "NAME_VALIDATOR_REQUEST";
const TOKEN: &str = "the-callback-token-of-the-account";
const PRICES: &str = "[prices]\nbank = 500\nocr = 800\n[node]\nname = \"a\"\n";

fn question(number: u32, reference: &str) -> String {
    format!(r#"{{"bank_account_number":"{number}","bank_code":"BCA","reference_id":"{reference}"}}"#)
}

/// Returns the numbers of billable and of unknown calls in the ledger.
async fn books(rig: &Rig) -> (u64, u64) {
    let usage = rig.operator("GET", "/v1/usage").send().await.json();
    let rows = usage["rows"].as_array().expect("rows");
    let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum();
    (sum("billable"), sum("unknown"))
}

async fn becomes(rig: &Rig, expected: (u64, u64)) {
    let mut last = (0, 0);
    let waits = async {
        while last != expected {
            last = books(rig).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waits).await;
    assert!(in_time.is_ok(), "{last:?} instead of {expected:?}");
}

/// Sets the callback URLs of the account at the simulator, so that it sends callbacks of both types to `node`.
async fn calls_back(rig: &Rig, node: &Rig) {
    for kind in [KIND, "ID_IMAGE_OCR_REQUEST"] {
        let url = node.callbacks_url(&format!("/callbacks/live/{kind}"));
        let order = ask("POST", format!("{}/v1/callback/urls", rig.sim().url())).key(&rig.account_key);
        let answer = order.json(format!(r#"{{"type":"{kind}","url":"{url}"}}"#)).send().await;
        assert!((200..300).contains(&answer.status), "{}", answer.text());
    }
}

fn with_simulator() -> crate::support::RigBuilder {
    let rig = Rig::builder().simulator(|options| {
        options.pending_first = true;
        options.callback_delay = Duration::from_millis(50);
        options.callback_token = Some(TOKEN.to_owned());
    });
    rig.secret("CALLBACK", TOKEN).extra(PRICES)
}

async fn post(rig: &Rig, number: u32, reference: &str, fault: &str) -> Answer {
    rig.post("lending", BANK, question(number, reference)).header("x-sim-fault", fault).send().await
}

#[tokio::test]
async fn a_callback_settles_a_call_whose_answer_was_lost_by_its_reference() {
    let rig = with_simulator().start().await;
    calls_back(&rig, &rig).await;
    for (number, fault) in (1_234_567_801..).zip(["reset", "truncate", "garbage", "reset, callback_twice"]) {
        assert_eq!(post(&rig, number, "r", fault).await.status, 504, "{fault}");
    }
    becomes(&rig, (4, 0)).await;
    assert_eq!(rig.sim().stats().charged, 4);
    assert_eq!(rig.metric("iluma_gateway_unknown_calls{tenant=\"lending\"}").await, 0.0);
    // Without a callback, and without a reference, nothing settles a call.
    assert_eq!(post(&rig, 1_234_567_811, "s", "reset, no_callback").await.status, 504);
    assert_eq!(post(&rig, 1_234_567_812, "", "reset").await.status, 504);
    // An answer that came names the record's id, and by this id a callback settles the call.
    assert_eq!(post(&rig, 1_234_567_813, "r", "callback_twice").await.status, 200);
    becomes(&rig, (5, 2)).await;
    let open = rig.operator("GET", "/v1/usage/unknown").send().await.json();
    let why: Vec<_> = open["calls"].as_array().expect("calls").iter().map(|call| call["why"].clone()).collect();
    assert_eq!(why, ["lost", "lost"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_get_by_reference_settles_a_call_whose_answer_and_callback_were_lost() {
    let rig = with_simulator().start().await;
    let file = Part::File("image", "card.png", "image/png", vec![1; 64]);
    let image = [Part::Text("type", "indonesia_ktp"), Part::Text("reference_id", "r"), file];
    let upload = rig.ask("lending", "POST", IMAGES).multipart(&image).header("x-sim-fault", "reset, no_callback");
    assert_eq!(upload.send().await.status, 504);
    assert_eq!(books(&rig).await, (0, 1));
    let list = format!("{IMAGES}?reference_id=r");
    let of_another = rig.ask("payments", "GET", &list).send().await;
    assert_eq!(of_another.json()["data"].as_array().map(Vec::len), Some(0), "{}", of_another.text());
    let settled = async {
        while books(&rig).await != (1, 0) {
            assert_eq!(rig.ask("lending", "GET", &list).send().await.status, 200);
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("a final record");
    rig.stop().await;
}

#[tokio::test]
async fn a_callback_at_any_node_settles_the_oldest_lost_call_of_all_nodes() {
    let redis = Redis::start().await;
    let held = Held::start().await;
    let lost = Rig::builder().upstream(held.url()).section("upstream", "timeout = \"100ms\"").extra(PRICES);
    let rig = lost.redis(&redis).start().await;
    let other = rig.another_with(|text| text.replace("name = \"a\"", "name = \"b\"")).await;
    for (node, number) in [(&rig, 1), (&other, 2)] {
        let answer = node.post("lending", BANK, question(number, "r")).send().await;
        answer.is_rejection(504, "UPSTREAM_TIMEOUT");
    }
    becomes(&rig, (0, 2)).await;
    let body = |id: &str| format!(r#"{{"id":"{id}","status":"COMPLETED","reference_id":"lending:r"}}"#);
    // A callback about one record settles one call, even if it arrives at two nodes.
    for node in [&other, &rig] {
        assert_eq!(node.callback(KIND, body("x1")).send().await.status, 200);
    }
    becomes(&rig, (1, 1)).await;
    let open = rig.operator("GET", "/v1/usage/unknown").send().await.json();
    let nodes: Vec<_> = open["calls"].as_array().expect("calls").iter().map(|call| call["node"].clone()).collect();
    assert_eq!(nodes, ["b"], "the first one was older");
    assert_eq!(rig.callback(KIND, body("x2")).send().await.status, 200);
    becomes(&other, (2, 0)).await;
    other.stop().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_call_whose_own_answer_came_is_settled_by_its_id_alone() {
    let upstream = Upstream::answering(|_| {
        let pending = br#"{"id":"own","status":"PENDING","reference_id":"lending:r"}"#;
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(pending))).expect("a response")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).extra(PRICES).start().await;
    assert_eq!(rig.post("lending", BANK, question(1, "r")).send().await.status, 200);
    // Another record with the same reference was not charged. This says nothing about the call, whose id is known.
    let free =
        r#"{"id":"another","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR","reference_id":"lending:r"}"#;
    assert_eq!(rig.callback(KIND, free).send().await.status, 200);
    let own = r#"{"id":"own","status":"COMPLETED","reference_id":"lending:r"}"#;
    assert_eq!(rig.callback(KIND, own).send().await.status, 200);
    becomes(&rig, (1, 0)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_lost_call_is_settled_after_a_restart() {
    let held = Held::start().await;
    let lost = Rig::builder().upstream(held.url()).section("upstream", "timeout = \"100ms\"").extra(PRICES);
    let rig = lost.start().await;
    rig.post("lending", BANK, question(1, "r")).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    let rig = rig.restart().await;
    let body = r#"{"id":"x","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR","reference_id":"lending:r"}"#;
    assert_eq!(rig.callback(KIND, body).send().await.status, 200);
    becomes(&rig, (0, 0)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_callback_is_passed_on_only_once_its_settlement_is_on_disk() {
    let (redis, held, folder) =
        (Redis::start().await, Held::start().await, Arc::new(tempfile::tempdir().expect("a folder")));
    let path = folder.path().join("iluma-gateway.db");
    let (journal, seen) = (path.clone(), Arc::new(AtomicI64::new(-1)));
    let words = Arc::clone(&seen);
    let endpoint = Upstream::answering(move |_| {
        let journal = rusqlite::Connection::open(&journal).expect("the file");
        let count = journal.query_row("SELECT count(*) FROM ledger_references", [], |row| row.get(0));
        words.store(count.expect("a count"), Ordering::SeqCst);
        Response::new(Full::new(Bytes::new()))
    })
    .await;
    let lost = Rig::builder().upstream(held.url()).section("upstream", "timeout = \"100ms\"").extra(PRICES);
    let lines = format!("callback_urls = {{ {KIND} = \"{}\" }}", endpoint.url());
    let rig = lost.in_folder(&folder).tenant("lending", &lines).redis(&redis).start().await;
    rig.post("lending", BANK, question(1, "r")).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    becomes(&rig, (0, 1)).await;
    // Another connection holds the file's write lock: the ledger can't be written meanwhile, and the inbox can.
    let intruder = rusqlite::Connection::open(&path).expect("the file");
    intruder.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let body = r#"{"id":"x","status":"COMPLETED","reference_id":"lending:r"}"#;
    assert_eq!(rig.callback(KIND, body).send().await.status, 200);
    for _ in 0..2 {
        assert_eq!(rig.post("lending", BANK, question(2, "s")).send().await.status, 503, "the ledger can't be written");
    }
    intruder.execute_batch("ROLLBACK").expect("the lock's end");
    until("the team has its callback", || seen.load(Ordering::SeqCst) >= 0).await;
    assert_eq!(seen.load(Ordering::SeqCst), 1, "what it says was on disk before");
    becomes(&rig, (1, 0)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_streamed_upload_has_its_reference_in_the_ledger_before_iluma_has_it_whole() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let (journal, found) = (folder.path().join("iluma-gateway.db"), Arc::new(AtomicI64::new(-1)));
    let known = Arc::clone(&found);
    let upstream = Upstream::answering(move |_| {
        let journal = rusqlite::Connection::open(&journal).expect("the file");
        let count = "SELECT count(*) FROM ledger_calls WHERE reference IS NOT NULL AND ended = 0";
        known.store(journal.query_row(count, [], |row| row.get(0)).expect("a count"), Ordering::SeqCst);
        Response::new(Full::new(Bytes::from_static(b"garbage")))
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).extra(PRICES).in_folder(&folder).start().await;
    let file = Part::File("image", "card.png", "image/png", vec![1; 1 << 20]);
    let image = [Part::Text("type", "indonesia_ktp"), file, Part::Text("reference_id", "r")];
    rig.ask("lending", "POST", IMAGES).multipart(&image).send().await;
    assert_eq!(found.load(Ordering::SeqCst), 1, "the intent has the reference while the call is in flight");
    rig.stop().await;
}
