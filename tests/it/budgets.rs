//! Budgets in rupiah, and the limits that every answer shows.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Answer, Redis, Rig, Upstream};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const KTP: &str = "/v1/identity/ktp_name/validations";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;
const PRICES: &str = "[prices]\nbank = 500\nktp = 1500\n";

/// Starts an upstream that answers every request with the status in `status`.
async fn saying(status: &Arc<AtomicU16>) -> Upstream {
    let status = Arc::clone(status);
    Upstream::answering(move |_| {
        let response = Response::builder().status(status.load(Ordering::SeqCst));
        let body = Full::new(Bytes::from_static(br#"{"status":"FOUND"}"#));
        response.header("content-type", "application/json").body(body).expect("a response")
    })
    .await
}

fn fields(answer: &Answer) -> [&str; 2] {
    ["ratelimit-policy", "ratelimit"].map(|name| answer.header(name))
}

/// Returns the rupiah of its budget that a team has used. Checks that the team and the operators see the same number.
async fn used(rig: &Rig, team: &str) -> u64 {
    let usage = rig.ask(team, "GET", "/_gateway/usage").send().await.json();
    let tenants = rig.operator("GET", "/v1/tenants").send().await.json();
    let shown = tenants["tenants"].as_array().and_then(|all| all.iter().find(|shown| shown["name"] == team)).cloned();
    let shown = shown.expect("the team");
    assert_eq!(
        (&shown["budget_used"], &shown["budget_per_month"]),
        (&usage["budget_used"], &usage["budget_per_month"])
    );
    usage["budget_used"].as_u64().expect("rupiah")
}

#[tokio::test]
async fn every_answer_shows_what_is_left_of_each_limit() {
    let limits = "requests_per_second = 20\nburst = 40\nmax_in_flight = 200\nupstream_calls_per_day = 10\n\
                  upstream_calls_per_month = 100\nbudget_per_month = 5000";
    let rig = Rig::builder().extra(PRICES).tenant("lending", limits).start().await;
    let miss = rig.post("lending", BANK, QUESTION).send().await;
    let policy = "\"requests\";q=40;w=2;qu=\"requests\", \"in_flight\";q=200;qu=\"concurrent-requests\", \
                  \"quota_day\";q=10;qu=\"requests\", \"quota_month\";q=100;qu=\"requests\", \
                  \"budget_month\";q=5000;qu=\"rupiah\"";
    assert_eq!((miss.status, fields(&miss)[0]), (200, policy));
    rig.clock.advance(std::time::Duration::from_secs(1));
    let hit = rig.post("lending", BANK, QUESTION).send().await;
    assert!(hit.header("cache-status").starts_with("iluma-gateway; hit"), "{:?}", hit.headers);
    let left = fields(&hit)[1];
    for part in ["\"requests\";r=39;t=1", "\"in_flight\";r=199", "\"quota_day\";r=9;t=", "\"budget_month\";r=4500;t="] {
        assert!(left.contains(part), "{part}: {left}");
    }
    for answer in [
        rig.ask("lending", "GET", "/_gateway/usage").send().await,
        rig.ask("lending", "GET", "/businesses").send().await,
        rig.post("lending", BANK, "{").send().await,
    ] {
        assert_eq!(fields(&answer)[0], policy, "{}", answer.status);
    }
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await.json();
    let limit = &usage["limits"]["budget_per_month"];
    assert_eq!((limit.as_u64(), usage["budget_per_month"].as_u64()), (Some(5000), Some(5000)));
    assert_eq!(usage["budget_used"].as_u64(), Some(500));
    rig.stop().await;
}

#[tokio::test]
async fn the_teams_own_api_costs_no_request_of_its_rate() {
    let rig = Rig::builder().tenant("lending", "requests_per_second = 1\nburst = 1").start().await;
    rig.clock.stop();
    for _ in 0..5 {
        assert_eq!(rig.ask("lending", "GET", "/_gateway/usage").send().await.status, 200);
    }
    let answers = [(); 2].map(|()| rig.ask("lending", "GET", "/bank/available_bank_codes").send());
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(answer.await.status);
    }
    assert_eq!(statuses, [200, 429]);
    assert_eq!(rig.ask("lending", "GET", "/_gateway/usage").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_budget_spends_every_rupiah_and_none_beyond_it() {
    let status = Arc::new(AtomicU16::new(200));
    let upstream = saying(&status).await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .extra(PRICES)
        .tenant("lending", "budget_per_month = 46000")
        .start()
        .await;
    let all = futures_util::future::join_all((0..200).map(|_| rig.post("lending", KTP, "{}").send())).await;
    let passed = all.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((passed, upstream.heard().len()), (30, 30), "thirty at 1500 are 45000");
    let refused = all.iter().find(|answer| answer.status != 200).expect("one too many");
    refused.is_rejection(429, "QUOTA_EXCEEDED");
    assert_eq!(refused.header("x-gateway-error"), "budget_exceeded");
    assert!(fields(refused)[1].starts_with("\"budget_month\";r=0;t="), "{:?}", refused.headers);
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") <= 31 * 86400);
    assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 200, "500 of the 1000 that are left");
    assert_eq!(rig.post("lending", BANK, QUESTION.replace("55", "66")).send().await.status, 200, "the last 500");
    assert_eq!(used(&rig, "lending").await, 46_000);
    let warning = r#"iluma_gateway_quota_warning{percent="100",period="budget_month",tenant="lending"}"#;
    assert!((rig.metric(warning).await - 1.0).abs() < f64::EPSILON);
    // A restart forgets nothing of it.
    let rig = rig.restart().await;
    assert_eq!(used(&rig, "lending").await, 46_000);
    rig.post("lending", KTP, "{}").send().await.is_rejection(429, "QUOTA_EXCEEDED");
    rig.stop().await;
}

#[tokio::test]
async fn a_budget_gets_back_what_was_not_billable() {
    let status = Arc::new(AtomicU16::new(400));
    let upstream = saying(&status).await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .extra(PRICES)
        .tenant("lending", "budget_per_month = 1500")
        .tenant("payments", "budget_per_month = 1500\nquota_mode = \"shadow\"")
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 400, "an error costs nothing");
    }
    assert_eq!(used(&rig, "lending").await, 0);
    status.store(200, Ordering::SeqCst);
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 200);
    rig.post("lending", KTP, "{}").send().await.is_rejection(429, "QUOTA_EXCEEDED");
    for _ in 0..3 {
        assert_eq!(rig.post("payments", KTP, "{}").send().await.status, 200, "a shadow refuses nothing");
    }
    let series = r#"iluma_gateway_quota_beyond_total{period="budget_month",tenant="payments"}"#;
    assert!((rig.metric(series).await - 2.0).abs() < f64::EPSILON);
    rig.stop().await;
}

#[tokio::test]
async fn nodes_spend_a_budget_together() {
    let redis = Redis::start().await;
    let status = Arc::new(AtomicU16::new(200));
    let upstream = saying(&status).await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .redis(&redis)
        .extra(PRICES)
        .tenant("lending", "budget_per_month = 45000")
        .start()
        .await;
    let other = rig.another().await;
    let ask = |number: usize| [&rig, &other][number % 2].post("lending", KTP, "{}").send();
    let all = futures_util::future::join_all((0..200).map(ask)).await;
    let passed = all.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((passed, upstream.heard().len()), (30, 30));
    other.stop().await;
    rig.stop().await;
}
