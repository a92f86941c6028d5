//! Tests of the account's rate limit, the quotas and the ledger of calls to Iluma.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Answer, Held, PATIENCE, Redis, Rig, Upstream, ask, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const KTP: &str = "/v1/identity/ktp_name/validations";
const NPWP: &str = "/v0/identity/npwp_data_requests";
const CODES: &str = "/bank/available_bank_codes";
const PRICES: &str = "[prices]\nbank = 500\nktp = 1500\nnpwp = 700\n";

fn question(number: u32) -> String {
    format!(r#"{{"bank_account_number":"{number}","bank_code":"BCA"}}"#)
}

async fn answering(status: u16, body: &'static str) -> Upstream {
    Upstream::answering(move |_| {
        let response = Response::builder().status(status).header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a response")
    })
    .await
}

/// Returns the ledger's figures of a team and a route: requests, calls, billable, unknown, hits, collapsed, shared,
/// cost, saved.
async fn books(rig: &Rig, tenant: &str, route: &str) -> [u64; 9] {
    let answer = admin(rig, "/v1/usage").await;
    let rows = answer.json()["rows"].as_array().expect("rows").clone();
    let row = rows.iter().find(|row| row["tenant"] == tenant && row["route"] == route);
    ["requests", "upstream_calls", "billable", "unknown", "hits", "collapsed", "shared", "cost", "saved"]
        .map(|name| row.map_or(0, |row| row[name].as_u64().expect("a number")))
}

async fn admin(rig: &Rig, path: &str) -> Answer {
    let token = format!("Bearer {}", rig.secret("ADMIN"));
    ask("GET", rig.admin_url(path)).header("authorization", token).send().await
}

fn refused(answer: &Answer, code: &str, reason: &str) -> u64 {
    answer.is_rejection(429, code);
    assert_eq!(answer.header("x-gateway-error"), reason);
    assert!(answer.header("ratelimit").contains(";r=0;t="), "{:?}", answer.headers);
    assert!(answer.header("ratelimit-policy").contains(";q="), "{:?}", answer.headers);
    answer.header("retry-after").parse().expect("seconds")
}

#[tokio::test]
async fn each_call_is_booked_with_what_it_costs_and_what_was_saved() {
    let rig = Rig::builder().extra(PRICES).start().await;
    for number in [1_234_567_855, 1_234_567_855, 1_234_567_800] {
        assert_eq!(rig.post("lending", BANK, question(number)).send().await.status, 200);
    }
    assert_eq!(rig.post("payments", BANK, question(1_234_567_855)).send().await.status, 200);
    // Neither a temporary error nor a refusal by upstream costs anything.
    assert_eq!(rig.post("lending", BANK, question(1_234_567_899)).send().await.status, 200);
    assert_eq!(rig.post("lending", BANK, "{}").send().await.status, 400);
    for nik in ["3171011708450001", "3171011708450099"] {
        let body = format!(r#"{{"nik":"{nik}","name":"X"}}"#);
        assert_eq!(rig.post("payments", KTP, body).send().await.status, 200);
    }
    assert_eq!(rig.post("payments", NPWP, r#"{"account_number":"1"}"#).send().await.status, 400);
    assert_eq!(rig.ask("payments", "GET", CODES).send().await.status, 200);
    assert_eq!(books(&rig, "lending", "bank").await, [5, 4, 2, 0, 1, 0, 0, 1000, 500]);
    assert_eq!(books(&rig, "payments", "bank").await, [1, 0, 0, 0, 1, 0, 0, 0, 500]);
    assert_eq!(books(&rig, "payments", "ktp").await, [2, 2, 1, 0, 0, 0, 0, 1500, 0]);
    assert_eq!(books(&rig, "payments", "npwp").await, [1, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(books(&rig, "payments", "bank_codes").await, [1, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.sim().stats().charged, 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_pending_call_is_unknown_until_a_get_tells() {
    let rig = Rig::builder()
        .simulator(|options| {
            options.pending_first = true;
            options.callback_delay = Duration::from_millis(50);
        })
        .extra(PRICES)
        .start()
        .await;
    let answer = rig.post("lending", BANK, question(1_234_567_812)).send().await;
    assert_eq!(answer.json()["status"], "PENDING");
    assert_eq!(books(&rig, "lending", "bank").await, [1, 1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(unknown(&rig, "").await, [("bank".to_owned(), "pending".to_owned())]);
    let one = format!("{BANK}/{}", answer.json()["id"].as_str().expect("an id"));
    let mut status = String::new();
    while status != "COMPLETED" {
        rig.clock.advance(Duration::from_secs(2));
        let answer = rig.ask("lending", "GET", &one).send().await;
        status = answer.json()["status"].as_str().expect("a status").to_owned();
    }
    assert_eq!(books(&rig, "lending", "bank").await, [1, 1, 1, 0, 0, 0, 0, 500, 0]);
    assert_eq!(unknown(&rig, "").await, []);
    rig.stop().await;
}

/// Returns the route and the reason of each call with an unknown outcome.
async fn unknown(rig: &Rig, query: &str) -> Vec<(String, String)> {
    let list = rig.operator("GET", &format!("/v1/usage/unknown{query}")).send().await;
    assert_eq!(list.status, 200, "{}", list.text());
    let text = |call: &Value, name: &str| call[name].as_str().expect("a text").to_owned();
    let list = list.json();
    list["calls"].as_array().expect("calls").iter().map(|call| (text(call, "route"), text(call, "why"))).collect()
}

#[tokio::test]
async fn what_nobody_saw_answered_is_unknown_and_what_never_left_is_nothing() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).section("upstream", "timeout = \"100ms\"").start().await;
    rig.post("lending", KTP, "{}").send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    rig.post("lending", BANK, question(1)).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    assert_eq!(books(&rig, "lending", "ktp").await, [1, 1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(books(&rig, "lending", "bank").await, [1, 1, 0, 1, 0, 0, 0, 0, 0]);
    let lost = |route: &str| (route.to_owned(), "lost".to_owned());
    assert_eq!(unknown(&rig, "").await, [lost("ktp"), lost("bank")]);
    assert_eq!(unknown(&rig, "?tenant=payments").await, []);
    let first = rig.operator("GET", "/v1/usage/unknown?limit=1").send().await.json();
    let today = humantime::format_rfc3339_seconds(rig.clock.wall()).to_string();
    assert!(first["calls"][0]["booked"].as_str().is_some_and(|time| time[..13] == today[..13]), "{first} {today}");
    assert_eq!(unknown(&rig, &format!("?limit=1&after={}", first["next"])).await, [lost("bank")]);
    assert_eq!(rig.operator("GET", "/v1/usage/unknown?limit=0").send().await.status, 400);
    // A call in flight is in the list too, as `open`.
    let on_its_way = tokio::spawn(rig.post("lending", KTP, "{}").send());
    let open = ("ktp".to_owned(), "open".to_owned());
    let seen = async { while !unknown(&rig, "").await.contains(&open) {} };
    tokio::time::timeout(PATIENCE, seen).await.expect("the call");
    on_its_way.await.expect("an answer");
    rig.stop().await;
    let rig =
        Rig::builder().upstream("http://127.0.0.1:1").tenant("lending", "upstream_calls_per_day = 1").start().await;
    for _ in 0..3 {
        rig.post("lending", KTP, "{}").send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
        rig.post("lending", BANK, question(1)).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    }
    assert_eq!(books(&rig, "lending", "ktp").await, [3, 0, 0, 0, 0, 0, 0, 0, 0]);
    rig.stop().await;
}

#[tokio::test]
async fn a_call_whose_client_went_is_booked_all_the_same() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let mut wire = crate::support::Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", KTP))).await;
    held.holds(1).await;
    wire.reset();
    held.release(1);
    rig.is_idle().await;
    until("the answer", || held.answered() == 1).await;
    let mut got = [0; 9];
    // The call continues in a task of its own, for which the test can't wait.
    for _ in 0..200 {
        got = books(&rig, "lending", "ktp").await;
        if got[2] == 1 {
            break;
        }
    }
    assert_eq!(got, [1, 1, 1, 0, 0, 0, 0, 0, 0]);
    rig.stop().await;
}

#[tokio::test]
async fn a_quota_admits_exactly_what_is_left_of_many_at_once() {
    let upstream = answering(200, r#"{"status":"FOUND"}"#).await;
    let rig = Rig::builder().upstream(upstream.url()).tenant("lending", "upstream_calls_per_day = 37").start().await;
    let all = (0..200).map(|_| rig.post("lending", KTP, "{}").send());
    let answers = futures_util::future::join_all(all).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((passed, upstream.heard().len()), (37, 37));
    let last = answers.iter().find(|answer| answer.status != 200).expect("one too many");
    assert!((1..=86400).contains(&refused(last, "QUOTA_EXCEEDED", "quota_exceeded")));
    // A free GET uses no quota. Another team has its own quota. On the next day the day's quota is free again.
    assert_eq!(rig.ask("lending", "GET", CODES).send().await.status, 200);
    assert_eq!(rig.post("payments", KTP, "{}").send().await.status, 200);
    let series = r#"iluma_gateway_rate_limited_total{limit="quota_day",tenant="lending"}"#;
    assert!((rig.metric(series).await - 163.0).abs() < f64::EPSILON);
    for (series, value) in [
        (r#"iluma_gateway_quota_used{period="day",tenant="lending"}"#, 37.0),
        (r#"iluma_gateway_quota_warning{percent="80",period="day",tenant="lending"}"#, 1.0),
        (r#"iluma_gateway_quota_warning{percent="100",period="day",tenant="lending"}"#, 1.0),
    ] {
        assert!((rig.metric(series).await - value).abs() < f64::EPSILON, "{series}");
    }
    rig.clock.advance(Duration::from_secs(86400));
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_hit_costs_no_quota_and_a_shadow_refuses_nothing() {
    let upstream = answering(200, r#"{"status":"COMPLETED","result":{"is_found":true}}"#).await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .tenant("lending", "upstream_calls_per_month = 1")
        .tenant("payments", "upstream_calls_per_day = 1\nquota_mode = \"shadow\"")
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(rig.post("lending", BANK, question(1)).send().await.status, 200);
    }
    let answer = rig.post("lending", BANK, question(2)).send().await;
    assert!(refused(&answer, "QUOTA_EXCEEDED", "quota_exceeded") <= 31 * 86400);
    for number in 3..6 {
        assert_eq!(rig.post("payments", BANK, question(number)).send().await.status, 200);
    }
    assert_eq!(upstream.heard().len(), 4);
    let series = r#"iluma_gateway_quota_beyond_total{period="day",tenant="payments"}"#;
    assert!((rig.metric(series).await - 2.0).abs() < f64::EPSILON);
    rig.stop().await;
}

#[tokio::test]
async fn a_team_reads_its_own_usage_and_operators_everybodys() {
    let rig = Rig::builder()
        .tenant("lending", "upstream_calls_per_day = 10\nrequests_per_second = 100\nweight = 3")
        .extra(PRICES)
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(rig.post("lending", BANK, question(1_234_567_855)).send().await.status, 200);
    }
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await;
    let usage = usage.json();
    assert_eq!((usage["tenant"].as_str(), usage["limits"]["weight"].as_u64()), (Some("lending"), Some(3)));
    let quota = &usage["quotas"][0];
    assert_eq!((quota["used"].as_u64(), quota["remaining"].as_u64()), (Some(1), Some(9)));
    for span in ["today", "this_month"] {
        let bank = &usage[span]["routes"]["bank"];
        assert_eq!(
            (bank["hits"].as_u64(), bank["saved"].as_u64(), bank["cost"].as_u64()),
            (Some(2), Some(1000), Some(500))
        );
    }
    assert!(!usage.to_string().contains("payments"));
    assert_eq!(ask("GET", rig.url("/_gateway/usage")).send().await.status, 401);
    assert_eq!(rig.ask("lending", "GET", "/_gateway/other").send().await.status, 404);

    assert_eq!(ask("GET", rig.admin_url("/v1/usage")).send().await.status, 401);
    let token = format!("Bearer {}", rig.secret("ADMIN"));
    let csv = ask("GET", rig.admin_url("/v1/usage?tenant=lending")).header("authorization", token);
    let csv = csv.header("accept", "text/csv").send().await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    let lines: Vec<_> = csv.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "day,tenant,route,requests,upstream_calls,billable,unknown,hits,collapsed,shared,cost,saved");
    assert!(lines[1].ends_with(",lending,bank,3,1,1,0,2,0,0,500,1000"), "{lines:?}");
    for bad in ["from=2026-13-01", "tenant=A_B", "day=2026-01-01"] {
        assert_eq!(admin(&rig, &format!("/v1/usage?{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(admin(&rig, "/v1/usage?from=2020-01-01&to=2020-12-31").await.json()["rows"], serde_json::json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn the_books_name_their_days_and_the_time_zone_in_which_those_begin() {
    let zone = "Pacific/Kiritimati";
    let rig = Rig::builder().extra(&format!("[quotas]\ntime_zone = \"{zone}\"\n")).start().await;
    let named = async |query: &str| {
        let usage = admin(&rig, &format!("/v1/usage{query}")).await.json();
        ["from", "to", "time_zone"].map(|member| usage[member].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(named("?from=2026-11-01&to=2026-11-25").await, ["2026-11-01", "2026-11-25", zone]);
    let [from, to, _] = named("").await;
    assert_eq!((&from[..8], &from[8..]), (&to[..8], "01"), "without days they are those of this month, until today");
    rig.stop().await;
}

#[tokio::test]
async fn the_accounts_rate_makes_a_call_wait_for_its_turn_or_refuses_it() {
    let upstream = answering(200, r#"{"status":"FOUND"}"#).await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .account("requests_per_second = 10\nmax_wait = \"250ms\"")
        .tenant("lending", "upstream_calls_per_day = 100")
        .start()
        .await;
    let answers = futures_util::future::join_all((0..20).map(|_| rig.post("lending", KTP, "{}").send())).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    // One call passes at once, and two more within 250 ms. A busy machine sends the requests more slowly, so more may
    // pass.
    assert!((3..=5).contains(&passed), "{passed}");
    let late = answers.iter().find(|answer| answer.status != 200).expect("one too many");
    assert!(refused(late, "RATE_LIMIT_EXCEEDED", "account_rate_limited") <= 2);
    assert_eq!(upstream.heard().len(), passed);
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await.json();
    assert_eq!(usage["quotas"][0]["used"].as_u64(), u64::try_from(passed).ok(), "what was refused is not charged");
    assert_eq!(books(&rig, "lending", "ktp").await[1], passed as u64);
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_that_only_fails_is_left_alone_and_taken_up_again() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let upstream = Upstream::answering(move |_| {
        let status = if is_well.load(Ordering::SeqCst) { 200 } else { 500 };
        Response::builder().status(status).body(Full::new(Bytes::from_static(b"{}"))).expect("a response")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let answer = rig.post("lending", KTP, "{}").send().await;
        if answer.status == 503 {
            assert_eq!(answer.header("x-gateway-error"), "circuit_open");
            assert!(answer.header("retry-after").parse::<u64>().is_ok());
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 10);
    well.store(true, Ordering::SeqCst);
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 503);
    rig.clock.advance(Duration::from_secs(5));
    for _ in 0..30 {
        assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 200);
    }
    rig.stop().await;
}

#[tokio::test]
async fn own_refusals_and_upstreams_429_never_open_the_circuit() {
    let upstream = answering(429, "{}").await;
    let rig = Rig::builder().upstream(upstream.url()).account("max_wait = \"0s\"").start().await;
    for _ in 0..50 {
        assert_eq!(rig.post("lending", KTP, "{}").send().await.header("x-gateway-error"), "");
        assert_eq!(rig.post("lending", KTP, "{}").send().await.header("x-gateway-error"), "endpoint_backing_off");
        // The clock passes the longest back-off, with its jitter.
        rig.clock.advance(Duration::from_secs(80));
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_leader_that_is_refused_leaves_the_lead_to_the_next_team() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).tenant("lending", "upstream_calls_per_day = 0").start().await;
    let answer = rig.post("lending", BANK, question(1)).send().await;
    refused(&answer, "QUOTA_EXCEEDED", "quota_exceeded");
    let leads = tokio::spawn(rig.post("payments", BANK, question(1)).send());
    held.holds(1).await;
    // A team without quota may use an answer that another team paid for.
    let waits = tokio::spawn(rig.post("lending", BANK, question(1)).send());
    rig.metric_becomes("iluma_gateway_in_flight", |value| value == 2.0).await;
    held.release(1);
    assert_eq!(leads.await.expect("an answer").status, 200);
    assert_eq!(waits.await.expect("an answer").status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn quotas_and_books_outlive_the_process() {
    let upstream = answering(200, r#"{"status":"FOUND"}"#).await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .tenant("lending", "upstream_calls_per_day = 3")
        .extra(PRICES)
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 200);
    }
    let rig = rig.restart().await;
    assert_eq!(books(&rig, "lending", "ktp").await, [2, 2, 2, 0, 0, 0, 0, 3000, 0]);
    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 200);
    refused(&rig.post("lending", KTP, "{}").send().await, "QUOTA_EXCEEDED", "quota_exceeded");
    rig.stop().await;
}

/// Waits until a node's ledger has these figures for a team and a route.
async fn books_become(rig: &Rig, tenant: &str, route: &str, so: [u64; 9]) {
    let mut got = [0; 9];
    let look = async {
        while got != so {
            got = books(rig, tenant, route).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(crate::support::PATIENCE, look).await;
    assert!(seen.is_ok(), "{got:?}, not {so:?}");
}

#[tokio::test]
async fn nodes_sum_their_books_and_an_outage_or_a_restart_counts_nothing_twice() {
    let mut redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).extra(PRICES).start().await;
    let b = a.another().await;
    for (rig, number) in [(&a, 1_234_567_801), (&b, 1_234_567_802), (&b, 1_234_567_803)] {
        assert_eq!(rig.post("lending", BANK, question(number)).send().await.status, 200);
    }
    let three = [3, 3, 3, 0, 0, 0, 0, 1500, 0];
    for rig in [&a, &b] {
        books_become(rig, "lending", "bank", three).await;
    }
    redis.kill();
    assert_eq!(b.post("lending", BANK, question(1_234_567_804)).send().await.status, 200);
    a.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    let token = format!("Bearer {}", a.secret("ADMIN"));
    let alone = ask("GET", a.admin_url("/v1/usage")).header("authorization", token).send().await;
    assert_eq!(alone.json()["rows"][0]["billable"], 1);
    assert!(!alone.header("x-gateway-partial").is_empty());
    assert!(!a.ask("lending", "GET", "/_gateway/usage").send().await.header("x-gateway-partial").is_empty());
    redis.run().await;
    let a = a.restart().await;
    for rig in [&a, &b] {
        books_become(rig, "lending", "bank", [4, 4, 4, 0, 0, 0, 0, 2000, 0]).await;
    }
    let keys: Vec<String> = redis.ask(redis::cmd("KEYS").arg("*ledger*"));
    assert!(keys.iter().all(|key| key.starts_with("{iluma-gateway:")), "{keys:?}");
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn a_call_of_one_node_is_settled_by_what_another_hears() {
    let redis = Redis::start().await;
    let a = Rig::builder()
        .redis(&redis)
        .simulator(|options| {
            options.pending_first = true;
            options.callback_delay = Duration::from_millis(50);
        })
        .extra(PRICES)
        .start()
        .await;
    let b = a.another().await;
    let answer = a.post("lending", BANK, question(1_234_567_812)).send().await;
    assert_eq!(answer.json()["status"], "PENDING");
    books_become(&b, "lending", "bank", [1, 1, 0, 1, 0, 0, 0, 0, 0]).await;
    let one = format!("{BANK}/{}", answer.json()["id"].as_str().expect("an id"));
    let mut status = String::new();
    while status != "COMPLETED" {
        b.clock.advance(Duration::from_secs(2));
        let answer = b.ask("lending", "GET", &one).send().await;
        status = answer.json()["status"].as_str().expect("a status").to_owned();
    }
    for rig in [&a, &b] {
        books_become(rig, "lending", "bank", [1, 1, 1, 0, 0, 0, 0, 500, 0]).await;
    }
    b.stop().await;
    a.stop().await;
}

#[tokio::test]
async fn three_gateways_hold_one_quota() {
    let redis = Redis::start().await;
    let upstream = answering(200, r#"{"status":"FOUND"}"#).await;
    let a = Rig::builder()
        .redis(&redis)
        .upstream(upstream.url())
        .tenant("lending", "upstream_calls_per_day = 50")
        .start()
        .await;
    let (b, c) = (a.another().await, a.another().await);
    let asks = (0..200).map(|n| [&a, &b, &c][n % 3].post("lending", KTP, "{}").send());
    let answers = futures_util::future::join_all(asks).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 50);
    assert_eq!(upstream.heard().len(), 50);
    for rig in [c, b, a] {
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_look_that_failed_is_made_once_more_within_a_budget_and_a_post_never() {
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let upstream = Upstream::answering(move |heard| {
        // Each GET fails at its first attempt, and succeeds at the second. POSTs always fail.
        let status = if heard.method == "POST" || failing.fetch_xor(true, Ordering::SeqCst) { 502 } else { 200 };
        let response = Response::builder().status(status).header("content-type", "application/json");
        let record = br#"{"id":"f95ae802-4d96-4066-ada7-fe9487d4ca5e"}"#;
        response.body(Full::new(Bytes::from_static(record))).expect("a response")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).tenant("lending", "owns_unprefixed = true").start().await;
    let one = "/v1/identity/id_card_images/f95ae802-4d96-4066-ada7-fe9487d4ca5e";
    for _ in 0..10 {
        assert_eq!(rig.ask("lending", "GET", one).send().await.status, 200);
    }
    assert_eq!(books(&rig, "lending", "ocr_get").await[..2], [10, 20], "each try is a call");
    // The budget is used up: at most two of the next ten GETs are repeated.
    let statuses = futures_util::future::join_all((0..10).map(|_| rig.ask("lending", "GET", one).send())).await;
    assert!(upstream.heard().len() <= 20 + 10 + 2, "{}", upstream.heard().len());
    assert!(statuses.iter().any(|answer| answer.status == 502));
    let before = upstream.heard().len();
    assert_eq!(rig.post("payments", KTP, "{}").send().await.status, 502);
    assert_eq!(upstream.heard().len(), before + 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_callback_settles_the_pending_call_that_it_is_about() {
    for (body, settled) in [
        (r#"{"id":"bknv_1","status":"COMPLETED","result":{"is_found":true}}"#, [1, 1, 1, 0, 0, 0, 0, 500, 0]),
        (
            r#"{"id":"bknv_1","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#,
            [1, 1, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        let upstream = answering(200, r#"{"id":"bknv_1","status":"PENDING"}"#).await;
        let rig = Rig::builder().upstream(upstream.url()).extra(PRICES).start().await;
        assert_eq!(rig.post("lending", BANK, question(1)).send().await.status, 200);
        assert_eq!(books(&rig, "lending", "bank").await, [1, 1, 0, 1, 0, 0, 0, 0, 0]);
        let callback = ask("POST", rig.callbacks_url("/callbacks/live/NAME_VALIDATOR_REQUEST"));
        let callback = callback.header("x-callback-token", rig.secret("CALLBACK")).json(body);
        assert_eq!(callback.send().await.status, 200);
        books_become(&rig, "lending", "bank", settled).await;
        rig.stop().await;
    }
}
