//! Tests of the limits of one team, and of all teams together.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Answer, Held, Rig, RigBuilder, Upstream, Wire};
use std::time::Duration;
use tokio::task::JoinHandle;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CODES: &str = "/bank/available_bank_codes";
const NAME: &str = "/v1/identity/ktp_name/validations";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;

/// Sends `count` requests of a team over one connection without waiting for answers (pipelining). Returns the answers.
async fn burst(rig: &Rig, team: &str, count: usize) -> Vec<Answer> {
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let one = format!("{}content-length: 2\r\n\r\n{{}}", rig.head(team, "POST", NAME));
    wire.send(one.repeat(count)).await;
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(wire.answer().await);
    }
    answers
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

/// Sends a request in a task of its own, and returns the task. It ends with the answer.
fn waiting(rig: &Rig, team: &str, path: &str) -> JoinHandle<Answer> {
    tokio::spawn(rig.post(team, path, QUESTION).send())
}

/// Starts a gateway whose clock stands still. So no rate allows a further request, however slow the machine is.
async fn limited(change: impl FnOnce(RigBuilder) -> RigBuilder) -> (Upstream, Rig) {
    let upstream = Upstream::agreeing().await;
    let rig = change(Rig::builder().upstream(upstream.url())).start().await;
    rig.clock.stop();
    (upstream, rig)
}

/// Checks that an answer refuses a request because of a limit, and that its headers name the limit and the wait.
/// Returns the wait in seconds.
#[track_caller]
fn is_limited(answer: &Answer) -> u64 {
    answer.is_rejection(429, "RATE_LIMIT_EXCEEDED");
    let wait: u64 = answer.header("retry-after").parse().expect("whole seconds");
    assert!((1..=60).contains(&wait), "{:?}", answer.headers);
    // The fields are structured fields of draft-ietf-httpapi-ratelimit-headers: "name";q=…;w=… and "name";r=…;t=…
    let (policy, limit) = (answer.header("ratelimit-policy"), answer.header("ratelimit"));
    let name = |field: &str| field.split(';').next().unwrap_or_default().to_owned();
    assert!(name(policy).starts_with('"') && name(policy) == name(limit), "{policy} / {limit}");
    assert!(policy.contains(";q="), "{policy}");
    assert!(limit.contains(";r=0"), "{limit}");
    wait
}

/// Checks that a refused request counts for no limit. If a quota refuses the call, the rate gets its request back.
#[tokio::test]
async fn a_request_that_a_quota_refuses_takes_nothing_of_the_rate() {
    let limits = "requests_per_second = 1\nburst = 3\nupstream_calls_per_day = 1";
    let (upstream, rig) = limited(|rig| rig.tenant("lending", limits)).await;
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    for _ in 0..10 {
        let refused = rig.post("lending", NAME, "{}").send().await;
        refused.is_rejection(429, "QUOTA_EXCEEDED");
        assert!(!refused.header("ratelimit").contains("\"requests\";r=0"), "{}", refused.header("ratelimit"));
    }
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_rate_lets_a_burst_pass_and_then_one_at_a_time() {
    let (upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 3")).await;
    let answers = burst(&rig, "lending", 6).await;
    assert_eq!(statuses(&answers), [200, 200, 200, 429, 429, 429]);
    assert!(is_limited(&answers[3]) <= 2, "{:?}", answers[3].headers);
    assert!(answers[3].header("ratelimit-policy").contains(";w="), "{:?}", answers[3].headers);
    assert_eq!(upstream.heard().len(), 3, "what is refused goes nowhere");
    rig.clock.advance(Duration::from_millis(1050));
    assert_eq!(statuses(&burst(&rig, "lending", 2).await), [200, 429]);
    // A long idle time saves up no more than one burst.
    rig.clock.advance(Duration::from_secs(3600));
    assert_eq!(statuses(&burst(&rig, "lending", 5).await), [200, 200, 200, 429, 429]);
    let series = r#"iluma_gateway_rate_limited_total{limit="requests",tenant="lending"}"#;
    assert!((rig.metric(series).await - 6.0).abs() < f64::EPSILON);
    rig.stop().await;
}

#[tokio::test]
async fn who_comes_back_when_told_to_is_served() {
    let (_upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 1")).await;
    let answers = burst(&rig, "lending", 2).await;
    assert_eq!(answers[0].status, 200);
    rig.clock.advance(Duration::from_secs(is_limited(&answers[1])));
    assert_eq!(statuses(&burst(&rig, "lending", 1).await), [200]);
    rig.stop().await;
}

#[tokio::test]
async fn a_rate_without_a_burst_allows_a_second_at_once() {
    let (_upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 5")).await;
    let statuses = statuses(&burst(&rig, "lending", 12).await);
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!((5..=7).contains(&passed), "{statuses:?}");
    rig.stop().await;
}

#[tokio::test]
async fn one_teams_limit_does_not_touch_another() {
    let (_upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 1")).await;
    assert_eq!(statuses(&burst(&rig, "lending", 3).await), [200, 429, 429]);
    assert_eq!(statuses(&burst(&rig, "payments", 50).await), [200; 50], "a limit left out is no limit");
    assert_eq!(statuses(&burst(&rig, "lending", 1).await), [429]);
    rig.stop().await;
}

#[tokio::test]
async fn a_hit_costs_a_request() {
    let (upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 3")).await;
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(rig.post("lending", BANK, QUESTION).send().await);
    }
    assert_eq!(statuses(&got), [200, 200, 200, 429]);
    assert!(got[2].header("cache-status").starts_with("iluma-gateway; hit"));
    is_limited(&got[3]);
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn health_and_what_is_refused_before_cost_nothing() {
    let (_upstream, rig) =
        limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 2\nroutes = [\"ktp\"]")).await;
    for _ in 0..5 {
        assert_eq!(rig.ask("lending", "GET", "/health").send().await.status, 200);
        assert_eq!(rig.ask("lending", "GET", "/businesses/1").send().await.status, 403);
        assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 403, "not among its routes");
        assert_eq!(rig.post("lending", "/v1//x", "").send().await.status, 400);
    }
    assert_eq!(statuses(&burst(&rig, "lending", 3).await), [200, 200, 429]);
    rig.stop().await;
}

#[tokio::test]
async fn a_team_has_only_so_many_requests_in_flight() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).tenant("lending", "max_in_flight = 2").start().await;
    let first = [waiting(&rig, "lending", NAME), waiting(&rig, "lending", "/v9/new")];
    held.holds(2).await;
    let refused = rig.post("lending", NAME, "{}").send().await;
    is_limited(&refused);
    // Cached and listed rows count like any other row.
    is_limited(&rig.post("lending", BANK, QUESTION).send().await);
    is_limited(&rig.ask("lending", "GET", CODES).send().await);
    let others = [waiting(&rig, "payments", NAME), waiting(&rig, "payments", NAME), waiting(&rig, "payments", NAME)];
    held.holds(5).await;
    held.release(100);
    for one in first.into_iter().chain(others) {
        assert_eq!(one.await.expect("an answer").status, 200);
    }
    rig.is_idle().await;
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    let series = r#"iluma_gateway_rate_limited_total{limit="in_flight",tenant="lending"}"#;
    assert!((rig.metric(series).await - 3.0).abs() < f64::EPSILON);
    rig.stop().await;
}

#[tokio::test]
async fn the_gateway_has_only_so_many_requests_in_flight() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).section("server", "max_in_flight = 2").start().await;
    let first = [waiting(&rig, "lending", NAME), waiting(&rig, "payments", NAME)];
    held.holds(2).await;
    for team in ["lending", "payments"] {
        rig.post(team, NAME, "{}").send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
        rig.post(team, BANK, QUESTION).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    }
    assert_eq!(held.arrived(), 2);
    assert_eq!(rig.ask("lending", "GET", "/businesses").send().await.status, 403, "said without a place");
    held.release(100);
    for one in first {
        assert_eq!(one.await.expect("an answer").status, 200);
    }
    rig.is_idle().await;
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_team_without_a_bound_of_its_own_holds_at_most_half_of_all_places() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).section("server", "max_in_flight = 4").start().await;
    let mut first = vec![waiting(&rig, "lending", NAME), waiting(&rig, "lending", NAME)];
    held.holds(2).await;
    let refused = rig.post("lending", NAME, "{}").send().await;
    is_limited(&refused);
    assert_eq!(refused.header("x-gateway-error"), "too_many_in_flight");
    first.push(waiting(&rig, "payments", NAME));
    held.holds(3).await;
    held.release(100);
    for one in first {
        assert_eq!(one.await.expect("an answer").status, 200);
    }
    rig.stop().await;
}

#[tokio::test]
async fn bodies_that_are_held_have_a_bound_of_which_one_team_has_half() {
    let (_upstream, rig) = limited(|rig| rig.section("server", "max_buffered = \"2MiB\"")).await;
    // Two incomplete bodies exceed the team's half together: the second one is refused.
    let mut wires = [Wire::connect(rig.app.server_address()).await, Wire::connect(rig.app.server_address()).await];
    for wire in &mut wires {
        wire.send(format!("{}content-length: {}\r\n\r\n", rig.head("lending", "POST", BANK), 1 << 20)).await;
        wire.send("x".repeat(600_000)).await;
    }
    let [first, second] = &mut wires;
    let refused = tokio::select! { answer = first.answer() => answer, answer = second.answer() => answer };
    refused.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert_eq!(refused.header("x-gateway-error"), "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(rig.post("lending", NAME, QUESTION).send().await.status, 200, "what streams holds nothing");
    assert_eq!(rig.post("payments", BANK, QUESTION).send().await.status, 200, "the other half is the others'");
    for wire in wires {
        wire.reset();
    }
    rig.is_idle().await;
    assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 200, "what was held came back");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_refused_for_want_of_a_place_is_not_charged_to_the_rate() {
    for (settings, refused_with) in [("max_in_flight = 1", 429), ("", 503)] {
        let held = Held::start().await;
        let server = if settings.is_empty() { "max_in_flight = 1" } else { "" };
        let rig = Rig::builder()
            .upstream(held.url())
            .section("server", server)
            .tenant("lending", &format!("requests_per_second = 1\nburst = 2\n{settings}"))
            .start()
            .await;
        let first = waiting(&rig, "lending", NAME);
        held.holds(1).await;
        assert_eq!(statuses(&burst(&rig, "lending", 5).await), [refused_with; 5]);
        held.release(100);
        assert_eq!(first.await.expect("an answer").status, 200);
        rig.is_idle().await;
        // One of the two slots is left.
        assert_eq!(statuses(&burst(&rig, "lending", 2).await), [200, 429], "{settings}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn what_is_refused_for_the_rate_holds_no_place() {
    let held = Held::start().await;
    let rig = Rig::builder()
        .upstream(held.url())
        .tenant("lending", "requests_per_second = 1\nburst = 1\nmax_in_flight = 2")
        .start()
        .await;
    let first = waiting(&rig, "lending", NAME);
    held.holds(1).await;
    for answer in burst(&rig, "lending", 10).await {
        assert!(answer.header("ratelimit").contains("requests"), "the rate, not the places: {:?}", answer.headers);
    }
    held.release(100);
    assert_eq!(first.await.expect("an answer").status, 200);
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn places_come_back_however_a_request_ends() {
    let held = Held::start().await;
    let rig = Rig::builder()
        .upstream(held.url())
        .section("upstream", "timeout = \"300ms\"\nidle_timeout = \"300ms\"")
        .section("server", "max_in_flight = 1")
        .tenant("lending", "max_in_flight = 1")
        .start()
        .await;
    // Upstream does not answer.
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 504);
    rig.is_idle().await;
    // The client hangs up.
    let before = held.arrived();
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", NAME))).await;
    held.holds(before + 1).await;
    wire.reset();
    rig.is_idle().await;
    // The body does not arrive.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}content-length: 2\r\n\r\n", rig.head("lending", "POST", BANK))).await;
    assert_ne!(wire.answer().await.status, 200);
    rig.is_idle().await;
    // The request is forbidden.
    assert_eq!(rig.post("lending", "/businesses", "").send().await.status, 403);
    rig.is_idle().await;
    held.release(100);
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_reload_forgets_no_request_that_was_counted() {
    let (_upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 3")).await;
    assert_eq!(statuses(&burst(&rig, "lending", 2).await), [200, 200]);
    let settings = rig.settings(|text| text.replace("[log]\n", "[log]\nlevel = \"warn\"\n")).expect("settings");
    rig.app.reload(&settings).expect("a reload");
    assert_eq!(statuses(&burst(&rig, "lending", 2).await), [200, 429]);
    // The other team's limit changed, this team's did not.
    let settings = rig.settings(|text| {
        text.replace("[tenants.payments]\n", "[tenants.payments]\nrequests_per_second = 1\nburst = 1\n")
    });
    rig.app.reload(&settings.expect("settings")).expect("a reload");
    assert_eq!(statuses(&burst(&rig, "payments", 2).await), [200, 429]);
    assert_eq!(statuses(&burst(&rig, "lending", 1).await), [429]);
    rig.stop().await;
}

#[tokio::test]
async fn a_reload_changes_limits() {
    let (_upstream, rig) = limited(|rig| rig.tenant("lending", "requests_per_second = 1\nburst = 1")).await;
    assert_eq!(statuses(&burst(&rig, "lending", 2).await), [200, 429]);
    let settings = rig.settings(|text| text.replace("burst = 1\n", "burst = 4\n")).expect("settings");
    rig.app.reload(&settings).expect("a reload");
    let passed = statuses(&burst(&rig, "lending", 6).await).iter().filter(|status| **status == 200).count();
    assert!((3..=4).contains(&passed), "{passed} passed");
    let none = rig.settings(|text| text.replace("requests_per_second = 1\nburst = 1\n", "")).expect("settings");
    rig.app.reload(&none).expect("a reload");
    assert_eq!(statuses(&burst(&rig, "lending", 50).await), [200; 50]);
    rig.stop().await;
}

#[tokio::test]
async fn a_reload_counts_on_who_is_in_flight() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).tenant("lending", "max_in_flight = 2").start().await;
    let first = [waiting(&rig, "lending", NAME), waiting(&rig, "lending", NAME)];
    held.holds(2).await;
    rig.app.reload(&rig.settings(|text| text).expect("settings")).expect("a reload");
    is_limited(&rig.post("lending", NAME, "{}").send().await);
    held.release(100);
    for one in first {
        assert_eq!(one.await.expect("an answer").status, 200);
    }
    rig.is_idle().await;
    assert_eq!(statuses(&burst(&rig, "lending", 3).await), [200; 3]);
    rig.stop().await;
}
