//! The console of a large company: 1,000 teams, 90 days of books, 10,000 deliveries. Every question of a view is answered within
//! 300 ms, and takes bounded memory. `tests/bench/console` runs this with a release build.

#![allow(clippy::disallowed_methods, reason = "the time of an answer is real")]

use crate::support::{PATIENCE, Redis, Rig, ask};
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::database::Database;
use iluma_gateway::base::name::TenantName;
use iluma_gateway::base::saved::Saved;
use iluma_gateway::config::{OutboxBounds, Settings};
use iluma_gateway::iluma::callback_type::CallbackType;
use iluma_gateway::iluma::route_name::RouteName;
use iluma_gateway::ledger::{self, Ledger};
use iluma_gateway::state::{self, Copy, DeliveryOutcome, Made, Sqlite, State};
use redis::cmd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// With the two teams that every rig has they are a thousand.
const TEAMS: usize = 998;
const DAYS: u32 = 90;
/// Deliveries of each team, more than 10,000 in all; half of them are dead letters.
const DELIVERIES: usize = 11;
const DAY: Duration = Duration::from_secs(86400);
/// The longest time of an answer, and the largest memory that all answers together may take. A build without optimisation is some ten times slower.
const MOST_TIME: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3000 } else { 300 });
const MOST_MEMORY: u64 = 256 << 20;

fn team(number: usize) -> TenantName {
    format!("team-{number:04}").parse().expect("a name")
}

/// Writes books of 90 days and deliveries of the last one into a gateway's folder, with the gateway's own types.
async fn fill(folder: &Path, settings: &Settings) {
    let clock = Clock::adjustable();
    let parts = [state::MIGRATIONS, ("ledger", ledger::MIGRATIONS)];
    let database = Database::open(&folder.join("iluma-gateway.db"), &parts).expect("a database");
    let ledger = Ledger::open(database.clone(), settings, clock.clone(), None).await.expect("a ledger");
    for _ in 0..DAYS {
        clock.advance(DAY);
        for number in 0..TEAMS {
            let tally = ledger.tally(&team(number));
            for route in [RouteName::Bank, RouteName::Cft] {
                tally.request(route, Some(Saved::Hit));
            }
        }
        ledger.flush().await.expect("a day");
    }
    let state = State::Sqlite(Arc::new(Sqlite::new(database, &settings.state, clock.clone())));
    let bounds = OutboxBounds { deliveries: 1_000_000, bytes: settings.callbacks.outbox.bytes };
    for number in 0..TEAMS {
        let made = |at: usize| Made {
            account: "live".parse().expect("a name"),
            id: format!("bknv_{number}_{at}"),
            kind: CallbackType::NameValidatorRequest,
            copy: Copy { tenant: team(number), reference: None, body: vec![b'x'; 500].into() },
            tags: Vec::new(),
        };
        state.enqueue((0..DELIVERIES).map(made).collect(), &bounds).await.expect("deliveries");
        let claimed = state.claim(&[(team(number), DELIVERIES)], DAY).await.expect("deliveries");
        assert_eq!(claimed.len(), DELIVERIES);
        for (at, delivery) in claimed.iter().enumerate() {
            let later = DeliveryOutcome::Retry(clock.wall() + 20 * DAY);
            let outcome = if at % 2 == 0 { DeliveryOutcome::Dead } else { later };
            state.conclude(delivery, outcome).await.expect("an outcome");
        }
    }
    state.close().await;
}

/// Returns the resident memory of this process in bytes: now (`VmRSS`), or at most so far (`VmHWM`).
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: tests/bench/console runs it with a release build"]
async fn every_view_of_a_large_company_is_quick_and_takes_bounded_memory() {
    let rig = (0..TEAMS).fold(Rig::builder(), |rig, number| rig.tenant(team(number).as_str(), "")).start().await;
    let settings = rig.settings(|text| text).expect("settings");
    let rig = rig.restart_after(async |folder| fill(folder, &settings).await).await;
    let rig = rig.restart_at(DAYS * DAY).await;
    let cookie = log_in(&rig).await;
    let ledger_day = |ahead: u32| {
        let time = rig.clock.wall() - DAYS * DAY + ahead * DAY;
        humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned()
    };
    let (first, last) = (ledger_day(0), ledger_day(DAYS + 1));
    let audit = format!("/v1/audit?limit=1000&from={}", ledger_day(DAYS - 7));
    let questions = [
        ("overview", "/".to_owned()),
        ("overview", format!("/v1/usage?from={}&to={last}&by=day", ledger_day(DAYS - 30))),
        ("overview", "/v1/alarms".into()),
        ("cache", "/metrics".into()),
        ("teams", "/v1/tenants".into()),
        ("teams", "/v1/tenants/team-0500/keys".into()),
        ("callbacks", "/v1/callbacks?state=dead&limit=100".into()),
        ("callbacks", "/v1/callbacks?state=queued&limit=1000".into()),
        ("callbacks", "/v1/callbacks?state=dead&tenant=team-0997&limit=100".into()),
        ("callbacks", "/v1/callbacks?state=dead&type=ID_IMAGE_OCR_REQUEST&limit=100".into()),
        ("erasure", "/v1/erasures".into()),
        ("money", format!("/v1/usage?from={first}&to={last}&by=day")),
        ("money", format!("/v1/usage?from={first}&to={last}&by=tenant")),
        ("money", format!("/v1/usage?from={first}&to={last}&by=route")),
        ("money", format!("/v1/usage?from={first}&to={last}&by=day%2Ctenant%2Croute&limit=500")),
        ("money", format!("/v1/usage?from={first}&to={last}&by=day&tenant=team-0001")),
        ("money, a page of CSV", format!("/v1/usage?from={first}&to={last}&limit=10000")),
        ("money", "/v1/usage/unknown".into()),
        ("nodes", "/v1/nodes".into()),
        ("nodes", audit),
    ];
    measure(&rig, &cookie, &questions, MOST_TIME, || {}).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: tests/bench/console runs it with a release build"]
async fn the_books_of_two_nodes_are_summed_quickly_and_in_bounded_memory() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    let today = humantime::format_rfc3339_seconds(a.clock.wall()).to_string()[..10].to_owned();
    let days = async |folder: &Path| {
        let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("a database");
        let fill = "WITH RECURSIVE days (ago) AS (SELECT 0 UNION ALL SELECT ago + 1 FROM days WHERE ago < ?2),
                teams (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM teams WHERE number < ?3)
            INSERT INTO ledger_days (day, tenant, route, requests, hits, saved)
            SELECT date(?1, '-' || ago || ' days'), printf('team-%04d', number), route, 2, 2, 1000
            FROM days, teams, (SELECT 'bank' AS route UNION SELECT 'cft')";
        assert_eq!(database.execute(fill, rusqlite::params![today, DAYS, 1000]).expect("lines"), 182_000);
    };
    let a = a.restart_after(&days).await;
    let b = b.restart_after(&days).await;
    let ledger_day =
        |ago: u32| humantime::format_rfc3339_seconds(a.clock.wall() - ago * DAY).to_string()[..10].to_owned();
    let range = format!("from={}&to={today}", ledger_day(DAYS));
    let sum = format!("/v1/usage?{range}&by=route");
    let texts = || -> Vec<String> { redis.ask(cmd("KEYS").arg("*:ledger:text:*")) };
    let seen = async {
        while a.operator("GET", &sum).send().await.json()["rows"][0]["requests"] != 364_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while texts().len() < DAYS as usize {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(6 * PATIENCE, seen)
        .await
        .expect("the other node's lines, and the texts of all days before today");
    let questions = [
        ("overview, two nodes", format!("/v1/usage?from={}&to={today}&by=day", ledger_day(30))),
        ("money, two nodes", format!("/v1/usage?{range}&by=day")),
        ("money, two nodes", format!("/v1/usage?{range}&by=tenant")),
        ("money, two nodes", sum.clone()),
        ("money, two nodes", format!("/v1/usage?{range}&by=day%2Ctenant%2Croute&limit=500")),
        ("money, two nodes", format!("/v1/usage?{range}&by=day&tenant=team-0001")),
        ("money, two nodes", format!("/v1/usage?{range}&limit=10000")),
    ];
    let cookie = log_in(&a).await;
    println!("further questions of a view: the text of today is kept too:");
    measure(&a, &cookie, &questions, MOST_TIME, || {}).await;
    println!("first questions of a view: a node has published lines of today since, so that its text has to be made:");
    let forget = |is_forgotten: &dyn Fn(&str) -> bool| {
        let forgotten: Vec<String> = texts().into_iter().filter(|text| is_forgotten(text)).collect();
        let _: u64 = if forgotten.is_empty() { 0 } else { redis.ask(cmd("DEL").arg(forgotten)) };
    };
    measure(&a, &cookie, &questions, MOST_TIME, || forget(&|text| text.ends_with(&today))).await;
    println!("Redis has lost the texts of all days:");
    measure(&a, &cookie, &questions, 2 * MOST_TIME, || forget(&|_| true)).await;
    b.stop().await;
    a.stop().await;
}

/// Logs in to the console; returns the cookie of the session.
async fn log_in(rig: &Rig) -> String {
    let log_in =
        ask("POST", rig.admin_url("/console/login")).form(format!("token={}", rig.secret("ADMIN"))).send().await;
    log_in.header("set-cookie").split(';').next().expect("a cookie").to_owned()
}

/// Asks each question five times, after `prepare` each time, and prints the median time. Fails if a median is above `most`, or if
/// all questions together take too much memory.
async fn measure(rig: &Rig, cookie: &str, questions: &[(&str, String)], most: Duration, prepare: impl Fn()) {
    let before = memory("VmRSS");
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is reset");
    let mut slow = Vec::new();
    for (view, path) in questions {
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..5 {
            prepare();
            let question = ask("GET", rig.admin_url(path)).header("cookie", cookie);
            let started = Instant::now();
            let answer = question.send().await;
            times.push(started.elapsed());
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            size = answer.body.len();
        }
        times.sort();
        println!("{view:<20} {:>8.1} ms {:>10} bytes  {path}", times[2].as_secs_f64() * 1000.0, size);
        if times[2] > most {
            slow.push(path);
        }
    }
    let (grown, peak) = (memory("VmRSS").saturating_sub(before), memory("VmHWM").saturating_sub(before));
    println!("memory: {} MiB before, {} MiB more at most, {} MiB more now", before >> 20, peak >> 20, grown >> 20);
    assert!(slow.is_empty(), "slower than {most:?}: {slow:?}");
    assert!(peak < MOST_MEMORY, "{peak} bytes more");
}
