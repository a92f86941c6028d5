//! An upstream that speaks HTTP/2: refusals without processing, and its limit on concurrent requests (RFC 9113,
//! sections 5.1.2, 6.8 and 8.7).

use crate::support::h2_peer::{Peer, before};
use crate::support::{Answer, Rig};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Barrier;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const FACE: &str = "/v2/identity/face_comparisons";
const NAME: &str = "/v1/identity/ktp_name/validations";
const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;
const FOUND: &str = r#"{"status":"COMPLETED","result":{"is_found":true}}"#;

/// Answers every request of a connection, and counts them.
async fn agree(mut peer: Peer, processed: &AtomicUsize) {
    while let Some(stream) = peer.request().await {
        processed.fetch_add(1, Ordering::SeqCst);
        peer.answer(stream, FOUND).await;
    }
}

/// Returns the numbers of billable and of unknown calls in the ledger.
async fn booked(rig: &Rig) -> (u64, u64) {
    let usage = rig.operator("GET", "/v1/usage").send().await.json();
    let rows = usage["rows"].as_array().expect("rows").clone();
    let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum();
    (sum("billable"), sum("unknown"))
}

#[derive(Debug, Clone, Copy)]
enum Refusal {
    Stream,
    GoAway,
    GoAwayAndClose,
}

const REFUSALS: [Refusal; 3] = [Refusal::Stream, Refusal::GoAway, Refusal::GoAwayAndClose];

async fn refuse(mut peer: Peer, stream: u32, how: Refusal) {
    match how {
        Refusal::Stream => peer.refuse(stream).await,
        Refusal::GoAway => peer.goaway(stream - 1).await,
        Refusal::GoAwayAndClose => return peer.goaway(stream - 1).await,
    }
    peer.closed().await;
}

#[tokio::test]
async fn what_upstream_refuses_unprocessed_is_sent_again_on_another_connection() {
    for how in REFUSALS {
        for (method, path, body) in [("POST", BANK, QUESTION), ("POST", NAME, "{}"), ("GET", PHONE, "")] {
            let processed = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&processed);
            let (rig, _held) = before(100, move |mut peer: Peer| {
                let processed = Arc::clone(&counted);
                async move {
                    if peer.number > 1 {
                        return agree(peer, &processed).await;
                    }
                    let Some(stream) = peer.request().await else { return };
                    refuse(peer, stream, how).await;
                }
            })
            .await;
            let rig = rig.start().await;
            let ask = rig.ask("lending", method, path);
            let answer = if method == "POST" { ask.json(body) } else { ask }.send().await;
            assert_eq!((answer.status, answer.text().as_str()), (200, FOUND), "{how:?} on {method} {path}");
            assert_eq!(processed.load(Ordering::SeqCst), 1, "{how:?} on {method} {path}");
            rig.stop().await;
        }
    }
}

/// Checks that an answer is a 503 with `retry-after`, whose reason is that upstream refused the request unprocessed.
#[track_caller]
fn is_refused(answer: &Answer) {
    answer.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert_eq!(answer.header("x-gateway-error"), "upstream_refused");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn what_can_not_be_sent_again_is_a_503_that_costs_nothing() {
    for how in REFUSALS {
        // The refusal comes in the middle of an upload: the sent part was not kept.
        let (rig, _held) = before(100, move |mut peer: Peer| async move {
            let Some(stream) = peer.head().await else { return };
            refuse(peer, stream, how).await;
        })
        .await;
        let rig = rig.start().await;
        let large = rig.ask("lending", "POST", FACE).header("content-type", "image/png").body(vec![b'x'; 4 << 20]);
        is_refused(&large.send().await);
        assert_eq!(booked(&rig).await, (0, 0), "{how:?}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_only_refuses_is_not_asked_for_ever_and_opens_no_circuit() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let (rig, _held) = before(100, move |mut peer: Peer| {
        let asked = Arc::clone(&counted);
        async move {
            while let Some(stream) = peer.request().await {
                asked.fetch_add(1, Ordering::SeqCst);
                peer.refuse(stream).await;
            }
        }
    })
    .await;
    let rig = rig.start().await;
    for n in 1..=15 {
        is_refused(&rig.post("lending", BANK, QUESTION).send().await);
        let asked = asked.load(Ordering::SeqCst);
        assert!((n..=5 * n).contains(&asked), "{asked} times for {n} requests");
    }
    assert_eq!(booked(&rig).await, (0, 0));
    rig.stop().await;
}

#[tokio::test]
async fn what_upstream_may_have_processed_is_not_sent_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // Upstream announces that it accepted this request, and closes.
    let (rig, _held) = before(100, move |mut peer: Peer| {
        let asked = Arc::clone(&counted);
        async move {
            let Some(stream) = peer.request().await else { return };
            asked.fetch_add(1, Ordering::SeqCst);
            peer.goaway(stream).await;
        }
    })
    .await;
    let rig = rig.start().await;
    rig.post("lending", NAME, "{}").send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    assert_eq!((asked.load(Ordering::SeqCst), booked(&rig).await), (1, (0, 1)));
    rig.stop().await;
}

#[tokio::test]
async fn beyond_what_upstream_takes_at_once_further_connections_are_opened() {
    const AT_ONCE: usize = 12;
    let (together, connections) = (Arc::new(Barrier::new(AT_ONCE)), Arc::new(AtomicUsize::new(0)));
    let shared = (Arc::clone(&together), Arc::clone(&connections));
    let (rig, _held) = before(2, move |mut peer: Peer| {
        let (together, connections) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
        async move {
            connections.fetch_max(peer.number, Ordering::SeqCst);
            if peer.number == 1 {
                let Some(stream) = peer.request().await else { return };
                peer.answer(stream, FOUND).await;
            }
            // No request is answered before all have arrived: a request that queues behind another would wait for ever.
            while let (Some(first), Some(second)) = (peer.request().await, peer.request().await) {
                tokio::join!(together.wait(), together.wait());
                peer.answer(first, FOUND).await;
                peer.answer(second, FOUND).await;
            }
        }
    })
    .await;
    let rig = rig.section("upstream", "timeout = \"10s\"").start().await;
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..AT_ONCE {
        asked.spawn(rig.post("lending", NAME, format!("{{\"n\":{n}}}")).send());
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.expect("a task").status, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), AT_ONCE / 2);
    rig.stop().await;
}

#[tokio::test]
async fn an_early_answer_is_read_though_the_upload_is_cut_off() {
    let (rig, _held) = before(100, |mut peer: Peer| async move {
        let Some(stream) = peer.head().await else { return };
        peer.answer(stream, FOUND).await;
        // RST_STREAM with NO_ERROR means that the rest of the body is not needed (RFC 9113, section 8.1).
        peer.stop_upload(stream).await;
        peer.closed().await;
    })
    .await;
    let rig = rig.start().await;
    let large = rig.ask("lending", "POST", FACE).header("content-type", "image/png").body(vec![b'x'; 4 << 20]);
    assert_eq!(large.send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_of_h2_serves_no_longer_than_five_minutes() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let (rig, _held) = before(100, move |peer: Peer| {
        counted.store(peer.number, Ordering::SeqCst);
        async move { agree(peer, &AtomicUsize::new(0)).await }
    })
    .await;
    let rig = rig.start().await;
    let mut opened = Vec::new();
    for _ in 0..3 {
        assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
        opened.push(connections.load(Ordering::SeqCst));
        rig.clock.advance(Duration::from_secs(200));
    }
    assert_eq!(opened, [1, 1, 2], "after 0, 200 and 400 seconds");
    rig.stop().await;
}

#[tokio::test]
async fn a_refusal_is_named_in_the_log() {
    let (rig, _held) = before(100, |mut peer: Peer| async move {
        while let Some(stream) = peer.request().await {
            peer.refuse(stream).await;
        }
    })
    .await;
    let rig = rig.start().await;
    is_refused(&rig.ask("lending", "GET", PHONE).send().await);
    let line = rig.logged_line(|line: &Value| line["status"] == 503).await;
    assert!(line.to_string().contains("upstream_refused"), "{line}");
    rig.stop().await;
}
