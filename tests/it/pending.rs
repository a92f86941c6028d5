//! Tests of requests that are pending upstream, of answers by id, and of stale answers.

use crate::support::{Held, Redis, Rig, Upstream};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const SHARED: &str = "iluma-gateway; fwd=uri-miss; collapsed; detail=pending";

fn account(number: &str, reference: &str) -> String {
    json!({"bank_code": "BCA", "bank_account_number": number, "reference_id": reference}).to_string()
}

/// Starts a gateway with a simulator whose answers stay pending.
async fn pending() -> Rig {
    Rig::builder()
        .simulator(|options| {
            options.pending_first = true;
            options.callback_delay = Duration::from_secs(3600);
        })
        .start()
        .await
}

#[tokio::test]
async fn a_pending_request_is_shared_and_each_has_its_own_reference() {
    let rig = pending().await;
    let first = rig.post("lending", BANK, account("1234567811", "a")).send().await;
    assert_eq!(
        (first.header("cache-status"), &first.json()["status"]),
        ("iluma-gateway; fwd=uri-miss", &json!("PENDING"))
    );
    for (team, reference) in [("payments", "b"), ("lending", "c")] {
        let shared = rig.post(team, BANK, account("1234567811", reference)).send().await;
        assert_eq!(shared.header("cache-status"), SHARED);
        assert_eq!(shared.header("age"), "");
        let mut expected = first.json();
        expected["reference_id"] = json!(reference);
        assert_eq!(shared.json(), expected);
    }
    assert_eq!(rig.sim().stats().requests, 1);
    let saved = r#"iluma_gateway_upstream_calls_saved_total{how="shared",route="bank",tenant="payments"}"#;
    assert_eq!(rig.metric(saved).await, 1.0);
    // A pending answer is shared for ten minutes, which are long enough for any bank.
    rig.clock.advance(Duration::from_secs(600));
    let anew = rig.post("payments", BANK, account("1234567811", "d")).send().await;
    assert_eq!(anew.header("cache-status"), "iluma-gateway; fwd=uri-miss");
    rig.stop().await;
}

/// Checks that a client that repeats its POST until there is a result gets the result, and that Iluma charges once.
#[tokio::test]
async fn who_asks_again_gets_the_answer_as_soon_as_there_is_one() {
    let rig = Rig::builder()
        .simulator(|options| {
            options.pending_first = true;
            options.callback_delay = Duration::from_millis(50);
        })
        .start()
        .await;
    let first = rig.post("lending", BANK, account("1234567811", "a")).send().await.json();
    assert_eq!(first["status"], "PENDING");
    let answer = loop {
        let answer = rig.post("payments", BANK, account("1234567811", "b")).send().await;
        if answer.json()["status"] != "PENDING" {
            break answer;
        }
        assert_eq!(answer.header("cache-status"), SHARED);
        rig.clock.advance(Duration::from_secs(1));
    };
    assert!(answer.header("cache-status").starts_with("iluma-gateway; hit; ttl="), "{:?}", answer.headers);
    assert_eq!((&answer.json()["reference_id"], &answer.json()["id"]), (&json!("b"), &first["id"]));
    assert_eq!(rig.sim().stats().charged, 1);
    rig.stop().await;
}

/// An upstream that answers every request with the status and the body that the test sets.
struct Ids {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    last: Arc<std::sync::Mutex<Value>>,
}

async fn ids() -> Ids {
    let last = Arc::new(std::sync::Mutex::new(json!({"status": "PENDING", "id": "one"})));
    let status = Arc::new(AtomicU16::new(200));
    let (told, code) = (Arc::clone(&last), Arc::clone(&status));
    let upstream = Upstream::answering(move |_| {
        let body = told.lock().expect("an answer").to_string();
        let response =
            Response::builder().status(code.load(Ordering::SeqCst)).header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body))).expect("an answer")
    })
    .await;
    Ids { upstream, status, last }
}

impl Ids {
    fn says(&self, what: Value) {
        *self.last.lock().expect("an answer") = what;
    }
}

#[tokio::test]
async fn polls_of_a_pending_id_make_one_call_a_second_and_a_final_answer_is_kept() {
    let ids = ids().await;
    let rig = Rig::builder().upstream(ids.upstream.url()).start().await;
    let one = format!("{BANK}/one");
    // The team that received the id owns it.
    assert_eq!(rig.post("lending", BANK, account("12", "r")).send().await.json()["id"], "one");
    for _ in 0..5 {
        assert_eq!(rig.ask("lending", "GET", &one).send().await.json()["status"], "PENDING");
    }
    assert_eq!(ids.upstream.heard().len(), 2);
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.ask("lending", "GET", &one).send().await.status, 200);
    assert_eq!(ids.upstream.heard().len(), 3);
    let completed = json!({"status": "COMPLETED", "id": "one", "result": {"is_found": true}, "reference_id": "r"});
    let mut sealed = completed.clone();
    sealed["reference_id"] = json!("lending:r");
    ids.says(sealed);
    rig.clock.advance(Duration::from_secs(1));
    let stored = rig.ask("lending", "GET", &one).send().await;
    assert_eq!(
        (stored.header("cache-status"), stored.json()),
        ("iluma-gateway; fwd=uri-miss; stored", completed.clone())
    );
    rig.clock.advance(Duration::from_secs(3600));
    let hit = rig.ask("lending", "GET", &one).send().await;
    assert!(hit.header("cache-status").starts_with("iluma-gateway; hit; "), "{:?}", hit.headers);
    assert_eq!((hit.json(), ids.upstream.heard().len()), (completed, 4));
    let head = rig.ask("lending", "HEAD", &one).send().await;
    assert_eq!((head.status, head.body.len(), ids.upstream.heard().len()), (200, 0, 4));
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_by_id_that_is_no_answer_is_not_kept() {
    let ids = ids().await;
    let rig = Rig::builder().upstream(ids.upstream.url()).start().await;
    // The record `one` is the team's own, so only the answer decides if it is stored. The record `other` is not.
    rig.post("lending", BANK, account("12", "r")).send().await;
    ids.status.store(404, Ordering::SeqCst);
    ids.says(json!({"error_code": "DATA_NOT_FOUND", "message": "m"}));
    for calls in 1..=3 {
        for (id, heard) in [("one", 2 * calls), ("other", 2 * calls + 1)] {
            let answer = rig.ask("lending", "GET", &format!("{BANK}/{id}")).send().await;
            answer.is_rejection(404, "DATA_NOT_FOUND");
            assert_eq!(ids.upstream.heard().len(), heard);
        }
    }
    rig.stop().await;
}

/// Checks that a final answer to a GET by id becomes the stored answer to the POST on every node. A GET in another
/// version of the API does not count.
#[tokio::test]
async fn a_final_answer_by_id_ends_the_sharing_on_every_node() {
    let (redis, ids) = (Redis::start().await, ids().await);
    let a = Rig::builder().redis(&redis).upstream(ids.upstream.url()).start().await;
    let b = a.another().await;
    a.post("lending", BANK, account("12", "a")).send().await;
    let shared = b.post("payments", BANK, account("12", "b")).send().await;
    assert_eq!(shared.header("cache-status"), SHARED, "{}", shared.text());
    ids.says(json!({"status": "COMPLETED", "id": "one", "result": {"is_found": true}}));
    let other = "/v2/identity/bank_account_data_requests";
    assert_eq!(b.ask("payments", "GET", &format!("{other}/one")).send().await.status, 200);
    assert_eq!(b.post("payments", BANK, account("12", "b")).send().await.json()["status"], "PENDING");
    assert_eq!(b.ask("payments", "GET", &format!("{BANK}/one")).send().await.status, 200);
    let before = ids.upstream.heard().len();
    for (node, reference) in [(&b, "c"), (&a, "d")] {
        let hit = async {
            loop {
                let answer = node.post("lending", BANK, account("12", reference)).send().await;
                if answer.json()["status"] == "COMPLETED" {
                    break answer;
                }
            }
        };
        let hit = tokio::time::timeout(crate::support::PATIENCE, hit).await.expect("the answer on every node");
        assert!(hit.header("cache-status").starts_with("iluma-gateway; hit; ttl=60"), "{:?}", hit.headers);
        assert_eq!(hit.json()["reference_id"], reference);
    }
    assert_eq!(ids.upstream.heard().len(), before);
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn a_bank_answer_outlives_its_time_only_while_upstream_fails_and_a_watchlist_answer_never() {
    let ids = ids().await;
    let rig = Rig::builder().upstream(ids.upstream.url());
    let rig = rig.section("cache", "bank = { found = \"1h\", stale_if_error = \"1d\" }").start().await;
    let found = json!({"status": "COMPLETED", "id": "one", "result": {"is_found": true}, "results": []});
    ids.says(found.clone());
    let person = json!({"given_name": "Contoh", "surname": "Demo"}).to_string();
    rig.post("lending", BANK, account("12", "a")).send().await;
    rig.post("lending", CFT, person.clone()).send().await;
    rig.clock.advance(Duration::from_secs(3600 + 60));
    ids.status.store(503, Ordering::SeqCst);
    ids.says(json!({"error_code": "SERVICE_UNAVAILABLE", "message": "m"}));
    let stale = rig.post("payments", BANK, account("12", "b")).send().await;
    assert_eq!((stale.status, stale.json()), (200, found));
    assert_eq!((stale.header("cache-status"), stale.header("age")), ("iluma-gateway; hit; ttl=-60", "3660"));
    assert_eq!(rig.post("lending", CFT, person).send().await.status, 503);
    // An error caused by the client is no failure of upstream.
    ids.status.store(400, Ordering::SeqCst);
    assert_eq!(rig.post("payments", BANK, account("12", "c")).send().await.status, 400);
    ids.status.store(503, Ordering::SeqCst);
    rig.clock.advance(Duration::from_secs(86400));
    assert_eq!(rig.post("payments", BANK, account("12", "d")).send().await.status, 503);
    rig.stop().await;
}

#[tokio::test]
async fn without_a_time_of_grace_a_failure_is_a_failure() {
    let ids = ids().await;
    let rig = Rig::builder().upstream(ids.upstream.url()).section("cache", "bank = { found = \"1h\" }").start().await;
    ids.says(json!({"status": "COMPLETED", "id": "one", "result": {"is_found": true}}));
    rig.post("lending", BANK, account("12", "a")).send().await;
    rig.clock.advance(Duration::from_secs(3600));
    ids.status.store(500, Ordering::SeqCst);
    assert_eq!(rig.post("lending", BANK, account("12", "a")).send().await.status, 500);
    rig.stop().await;
}

#[tokio::test]
async fn operators_orders_are_exact() {
    let rig = Rig::start().await;
    for bad in
        ["", "{}", "[]", r#"{"route":"ktp"}"#, r#"{"route":"bank","all":true}"#, r#"{"all":false}"#, r#"{"x":1}"#]
    {
        let answer = rig.operator("POST", "/v1/cache/purge").json(bad).send().await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("API_VALIDATION_ERROR")), "{bad}");
    }
    let unknown = rig.operator("POST", "/v1/cache/purge").json(r#"{"tenant":"nobody"}"#).send().await;
    assert_eq!(unknown.status, 404);
    for bad in ["", "{}", r#"{"bank_code":"BCA"}"#, r#"{"nik":"1","x":"2"}"#, r#"{"nik":1}"#] {
        let answer = rig.operator("POST", "/v1/erase").json(bad).send().await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("API_VALIDATION_ERROR")), "{bad}");
    }
    assert_eq!(rig.operator("POST", "/v1/erase").body(vec![b' '; (64 << 10) + 1]).send().await.status, 413);
    assert_eq!(rig.operator("GET", "/v1/erase").send().await.status, 405);
    assert_eq!(crate::support::ask("POST", rig.admin_url("/v1/erase")).json("{}").send().await.status, 401);
    rig.stop().await;
}

/// Checks on a single node that the answer of a call that was in flight at the erasure of its person is not stored.
#[tokio::test]
async fn one_node_erases_what_it_holds_and_what_is_under_way() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let mut under_way = tokio::task::JoinSet::new();
    under_way.spawn(rig.post("lending", BANK, account("12", "a")).send());
    held.holds(1).await;
    let order = json!({"bank_code": "BCA", "bank_account_number": "12"}).to_string();
    let erased = rig.operator("POST", "/v1/erase").json(order).send().await;
    assert_eq!(erased.json()["removed"]["memory"], 0);
    held.release(2);
    let answer = under_way.join_next().await.expect("a call").expect("an answer");
    assert_eq!(answer.header("cache-status"), "iluma-gateway; fwd=uri-miss");
    let later = rig.post("lending", BANK, account("12", "a")).send().await;
    assert_eq!(later.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
    rig.stop().await;
}
