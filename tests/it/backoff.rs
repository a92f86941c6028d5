//! Tests of the back-off from an endpoint of Iluma's that refuses calls because of their rate.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Answer, PATIENCE, Redis, Rig, Upstream};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KTP: &str = "/v1/identity/ktp_name/validations";
const OTHER_VERSION: &str = "/v2.1/identity/ktp_name/validations";
const NPWP: &str = "/v0/identity/npwp_data_requests";

/// The answer with which the KTP endpoint refuses: status, body, and `retry-after` if it has one.
type Refusal = (u16, &'static str, Option<String>);

/// Starts an upstream whose KTP endpoint refuses while `refuses` is true. Every other endpoint answers 200.
async fn refusing(refuses: &Arc<AtomicBool>, (status, body, retry_after): Refusal) -> Upstream {
    let refuses = Arc::clone(refuses);
    Upstream::answering(move |heard| {
        let (mut status, mut body, mut response) = (status, body, Response::builder());
        if !(heard.target.contains("ktp") && refuses.load(Ordering::SeqCst)) {
            (status, body) = (200, r#"{"status":"FOUND"}"#);
        } else if let Some(retry_after) = &retry_after {
            response = response.header("retry-after", retry_after);
        }
        let response = response.status(status).header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a response")
    })
    .await
}

fn attempts(upstream: &Upstream) -> usize {
    upstream.heard().iter().filter(|heard| heard.target.contains("ktp")).count()
}

#[track_caller]
fn backs_off(answer: &Answer) -> u64 {
    answer.is_rejection(429, "RATE_LIMIT_EXCEEDED");
    assert_eq!(answer.header("x-gateway-error"), "endpoint_backing_off");
    answer.header("retry-after").parse().expect("seconds")
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_tried_after_1_2_4_8_seconds_and_others_go_on() {
    let refuses = Arc::new(AtomicBool::new(true));
    let ktps = r#"{"error_code":"RATE_LIMIT_EXCEEDED","message":"x"}"#;
    let upstream = refusing(&refuses, (400, ktps, None)).await;
    let rig = Rig::builder().upstream(upstream.url()).account("max_wait = \"0s\"").start().await;
    let started = rig.clock.now();
    let (mut tried, mut gaps) = (started, Vec::new());
    while gaps.len() < 8 {
        let before = attempts(&upstream);
        let path = if gaps.len() % 2 == 0 { KTP } else { OTHER_VERSION };
        let answer = rig.post("lending", path, "{}").send().await;
        if attempts(&upstream) > before {
            assert_eq!(answer.status, 400);
            gaps.push((rig.clock.now() - tried).as_secs_f64());
            tried = rig.clock.now();
        } else {
            assert!(backs_off(&answer) <= 78, "{:?}", answer.headers);
            assert_eq!(rig.post("payments", NPWP, "{}").send().await.status, 200, "another endpoint");
        }
        rig.clock.advance(Duration::from_millis(200));
    }
    for (gap, expected) in gaps[1..].iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]) {
        // The clock's step and the machine's delays make a gap longer.
        assert!((expected..expected * 1.3 + 5.0).contains(gap), "{gap} s, not {expected} s: {gaps:?}");
    }
    assert!((rig.metric(r#"iluma_gateway_endpoints_backing_off{account="live"}"#).await - 1.0).abs() < f64::EPSILON);
    refuses.store(false, Ordering::SeqCst);
    rig.clock.advance(Duration::from_secs(80));
    for _ in 0..3 {
        assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 200, "a success ends it");
    }
    rig.stop().await;
}

#[tokio::test]
async fn upstreams_retry_after_is_kept_in_seconds_and_as_a_date() {
    for seconds in [true, false] {
        let refuses = Arc::new(AtomicBool::new(true));
        let at = std::time::SystemTime::now() + Duration::from_secs(30);
        let asked = if seconds { "30".to_owned() } else { httpdate::fmt_http_date(at) };
        let upstream = refusing(&refuses, (429, "{}", Some(asked.clone()))).await;
        let rig = Rig::builder().upstream(upstream.url()).account("max_wait = \"0s\"").start().await;
        assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 429);
        let wait = backs_off(&rig.post("lending", KTP, "{}").send().await);
        assert!((20..=31).contains(&wait), "{asked}: {wait}");
        assert_eq!(attempts(&upstream), 1);
        rig.stop().await;
    }
}

#[tokio::test]
async fn requests_that_may_wait_go_once_a_probe_succeeds() {
    let refuses = Arc::new(AtomicBool::new(true));
    let upstream = refusing(&refuses, (429, "{}", Some("1".to_owned()))).await;
    let rig = Rig::builder().upstream(upstream.url()).account("max_wait = \"20s\"").start().await;
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 429);
    refuses.store(false, Ordering::SeqCst);
    let all = futures_util::future::join_all((0..20).map(|_| rig.post("lending", KTP, "{}").send())).await;
    let statuses: Vec<_> = all.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200; 20]);
    assert_eq!(attempts(&upstream), 21);
    rig.stop().await;
}

#[tokio::test]
async fn refusals_of_calls_in_flight_together_are_one_step() {
    let refuses = Arc::new(AtomicBool::new(true));
    let upstream = refusing(&refuses, (429, "{}", None)).await;
    let rig = Rig::builder().upstream(upstream.url()).account("max_wait = \"0s\"").start().await;
    futures_util::future::join_all((0..20).map(|_| rig.post("lending", KTP, "{}").send())).await;
    assert!(backs_off(&rig.post("lending", KTP, "{}").send().await) <= 2, "the first step");
    rig.stop().await;
}

#[tokio::test]
async fn nodes_back_off_together() {
    let redis = Redis::start().await;
    let refuses = Arc::new(AtomicBool::new(true));
    let upstream = refusing(&refuses, (429, "{}", Some("60".to_owned()))).await;
    let rig = Rig::builder().upstream(upstream.url()).redis(&redis).account("max_wait = \"0s\"").start().await;
    let other = rig.another().await;
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 429);
    let gauge = r#"iluma_gateway_endpoints_backing_off{account="live"}"#;
    // The other node learns of it at its next heartbeat.
    other.metric_becomes(gauge, |value| value == 1.0).await;
    backs_off(&other.post("payments", KTP, "{}").send().await);
    assert_eq!(attempts(&upstream), 1);
    other.stop().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_probe_that_succeeds_ends_the_back_off_of_every_node() {
    let redis = Redis::start().await;
    let refuses = Arc::new(AtomicBool::new(true));
    let upstream = refusing(&refuses, (429, "{}", Some("1".to_owned()))).await;
    let rig = Rig::builder().upstream(upstream.url()).redis(&redis).account("max_wait = \"0s\"").start().await;
    let other = rig.another().await;
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 429);
    refuses.store(false, Ordering::SeqCst);
    for node in [&rig, &other] {
        let asks = async { while node.post("lending", KTP, "{}").send().await.status != 200 {} };
        tokio::time::timeout(PATIENCE, asks).await.expect("a success");
    }
    assert_eq!(attempts(&upstream), 3, "one refused, and one success on each node");
    other.stop().await;
    rig.stop().await;
}
