//! Tests of `GET /v1/usage`: sums by day, team and route, pages, and the largest number of rows.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{Answer, PATIENCE, Redis, Rig};
use redis::cmd;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const COLUMNS: [&str; 3] = ["day", "tenant", "route"];
const FIGURES: [&str; 9] =
    ["requests", "upstream_calls", "billable", "unknown", "hits", "collapsed", "shared", "cost", "saved"];
const SUMS: [&str; 7] = ["day", "tenant", "route", "day,tenant", "day,route", "tenant,route", "day,tenant,route"];
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;
const TEAMS: [&str; 4] = ["collections", "lending", "payments", "screening"];

/// Returns the day that is `ago` days before today.
fn day(rig: &Rig, ago: u32) -> String {
    let time = rig.clock.wall() - ago * Duration::from_secs(86400);
    humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned()
}

/// Writes ledger lines of these days into a node's database. All figures are multiples of `factor`.
fn fill(folder: &Path, days: &[String], factor: i64) {
    let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("a database");
    let insert = format!(
        "INSERT INTO ledger_days (day, tenant, route, {}) VALUES (?1, ?2, ?3, {})",
        FIGURES.join(", "),
        [1, 2, 3, 4, 5, 6, 7, 8, 9].map(|place| format!("{place} * ?4")).join(", ")
    );
    let mut number = 0;
    for day in days {
        // The last team has no lines on days that end in 1.
        let teams = if day.ends_with('1') { &TEAMS[..3] } else { &TEAMS };
        for team in teams {
            for route in ["bank", "bank_get", "ktp"] {
                number += 1;
                database.execute(&insert, rusqlite::params![day, team, route, factor * number]).expect("a line");
            }
        }
    }
}

async fn asked(rig: &Rig, path: &str) -> Answer {
    let answer = rig.operator("GET", path).send().await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

async fn rows(rig: &Rig, path: &str) -> Vec<Value> {
    asked(rig, path).await.json()["rows"].as_array().expect("rows").clone()
}

/// Sums the lines by these columns, as `/v1/usage` must do.
fn summed(lines: &[Value], by: &str) -> Vec<Value> {
    let named: Vec<&str> = COLUMNS.into_iter().filter(|column| by.split(',').any(|name| name == *column)).collect();
    let mut sums: BTreeMap<Vec<&str>, [u64; 9]> = BTreeMap::new();
    for line in lines {
        let name = named.iter().map(|column| line[*column].as_str().expect("a name")).collect();
        let sum = sums.entry(name).or_default();
        for (number, figure) in sum.iter_mut().zip(FIGURES) {
            *number += line[figure].as_u64().expect("a number");
        }
    }
    let row = |(name, numbers): (Vec<&str>, [u64; 9])| {
        let names = named.iter().zip(name).map(|(column, part)| ((*column).to_owned(), json!(part)));
        let figures = FIGURES.into_iter().zip(numbers).map(|(figure, number)| (figure.to_owned(), json!(number)));
        Value::Object(names.chain(figures).collect::<Map<_, _>>())
    };
    sums.into_iter().map(row).collect()
}

/// Compares every sum that a node returns, whole and in pages, with the sum of the lines.
async fn compare(rig: &Rig, range: &str, lines: &[Value]) {
    for by in SUMS {
        let expected = summed(lines, by);
        let whole = asked(rig, &format!("/v1/usage?{range}&by={by}")).await.json();
        assert_eq!(whole["rows"], Value::Array(expected.clone()), "by {by}");
        assert_eq!(whole.get("next"), None, "an answer with all rows is no page");
        let (mut read, mut after) = (Vec::new(), String::new());
        loop {
            let page = asked(rig, &format!("/v1/usage?{range}&by={by}&limit=4{after}")).await.json();
            let rows = page["rows"].as_array().expect("rows");
            assert!(rows.len() <= 4, "{page}");
            read.extend(rows.iter().cloned());
            let Some(next) = page["next"].as_str() else {
                assert_eq!(page["next"], Value::Null);
                break;
            };
            assert_eq!(rows.len(), 4, "a page that is not the last is full");
            after = format!("&after={next}");
        }
        assert_eq!(read, expected, "by {by}, in pages");
        let of_lending: Vec<Value> = lines.iter().filter(|line| line["tenant"] == "lending").cloned().collect();
        let own = rows(rig, &format!("/v1/usage?{range}&by={by}&tenant=lending")).await;
        assert_eq!(own, summed(&of_lending, by), "of one team, by {by}");
    }
}

#[tokio::test]
async fn sums_by_any_of_day_team_and_route_are_those_of_the_lines() {
    let rig = Rig::start().await;
    let days = ["2026-03-30", "2026-03-31", "2026-04-01"].map(str::to_owned);
    let rig = rig.restart_after(async |folder| fill(folder, &days, 1)).await;
    let range = "from=2026-03-30&to=2026-04-01";
    let lines = rows(&rig, &format!("/v1/usage?{range}")).await;
    assert_eq!(lines.len(), 30);
    assert_eq!(
        (&lines[0]["day"], &lines[0]["tenant"], &lines[0]["cost"]),
        (&json!(days[0]), &json!("collections"), &json!(8))
    );
    compare(&rig, range, &lines).await;
    for bad in ["by=team", "by=", "limit=0", "limit=10001", "after=lending", "by=route&after=2026-03-30,bank"] {
        let refused = rig.operator("GET", &format!("/v1/usage?{bad}")).send().await;
        refused.is_rejection(400, "API_VALIDATION_ERROR");
    }
    rig.stop().await;
}

#[tokio::test]
async fn sums_have_the_lines_of_all_nodes() {
    let redis = Redis::start().await;
    let a = Rig::builder().redis(&redis).start().await;
    let b = a.another().await;
    // The range has more days than the gateway reads from Redis together.
    let days: Vec<String> = (1..=11).rev().map(|ago| day(&a, ago)).collect();
    let range = format!("from={}&to={}", days[0], days[10]);
    let a = a.restart_after(async |folder| fill(folder, &days, 1)).await;
    let b = b.restart_after(async |folder| {
        fill(folder, &days[2..], 1000);
        let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("a database");
        let former = "INSERT INTO ledger_days (day, tenant, route, requests) VALUES (?1, 'former', 'bank', 1001)";
        database.execute(former, [&days[10]]).expect("a line");
    });
    let b = b.await;
    let path = format!("/v1/usage?{range}");
    let seen = async {
        loop {
            let (at_a, at_b) = (rows(&a, &path).await, rows(&b, &path).await);
            let is_of_both = at_a.last().is_some_and(|row| row["requests"].as_u64() > Some(1000));
            if is_of_both && at_a == at_b {
                return at_a;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let lines = tokio::time::timeout(PATIENCE, seen).await.expect("the other node's lines");
    compare(&a, &range, &lines).await;
    compare(&b, &range, &lines).await;
    let former = rows(&a, &format!("{path}&tenant=former&by=tenant")).await;
    assert_eq!(
        former[0]["requests"], 1001,
        "a team that called at the other node alone, before it left the configuration"
    );
    rig_knows_no(&a, "nobody").await;
    let far = asked(&a, "/v1/usage?from=0001-01-01&to=9999-12-31&by=route").await.json();
    assert_eq!(far["rows"], Value::Array(summed(&lines, "route")), "Redis is asked for days that nodes keep");
    b.stop().await;
    a.stop().await;
}

/// Returns the text of a day that Redis keeps, and its remaining lifetime in seconds, once `is_meant` is true for the text (empty if
/// there is none).
async fn kept_text(redis: &Redis, day: &str, is_meant: impl Fn(&str) -> bool) -> (String, i64) {
    let kept = async {
        loop {
            let keys: Vec<String> = redis.ask(cmd("KEYS").arg(format!("*:ledger:text:{day}")));
            let text =
                keys.first().and_then(|key| redis.ask::<Option<String>>(cmd("GET").arg(key))).unwrap_or_default();
            if is_meant(&text) {
                return (text, keys.first().map_or(0, |key| redis.ask(cmd("TTL").arg(key))));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.unwrap_or_else(|_| panic!("Redis has another text of {day}"))
}

#[tokio::test]
async fn publishing_makes_the_text_of_each_day_that_is_over_and_no_reader_has_to() {
    let redis = Redis::start().await;
    let rig = Rig::builder().redis(&redis).start().await;
    let days: Vec<String> = (1..=2).rev().map(|ago| day(&rig, ago)).collect();
    let rig = rig.restart_after(async |folder| fill(folder, &days, 1)).await;
    for day in &days {
        let (text, lifetime) = kept_text(&redis, day, |text| text.matches("|bank\n").count() >= 3).await;
        let lines = asked(&rig, &format!("/v1/usage?from={day}&to={day}")).await.json();
        assert_eq!(text.lines().count(), 2 * lines["rows"].as_array().expect("rows").len(), "{text}");
        assert!(lifetime > 86400, "kept as long as the lines: {lifetime} s");
    }
    // A line of a day that is over changes: the text does too.
    let update = format!("UPDATE ledger_days SET requests = 4711 WHERE day = '{}' AND route = 'ktp'", days[0]);
    let rig = rig
        .restart_after(async |folder| {
            let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("a database");
            database.execute(&update, []).expect("the lines");
        })
        .await;
    kept_text(&redis, &days[0], |text| text.contains("\n4711,")).await;
    // Today's lines change each second: their text is made by a reader, until the day is over.
    let today = day(&rig, 0);
    assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 200);
    let has_lines = async {
        while redis.ask::<Vec<String>>(cmd("KEYS").arg(format!("*:ledger:day:{today}"))).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, has_lines).await.expect("today's lines");
    kept_text(&redis, &today, str::is_empty).await;
    rig.clock.advance(Duration::from_secs(86400));
    kept_text(&redis, &today, |text| text.contains("|lending|bank\n1,1,")).await;
    rig.stop().await;
}

async fn rig_knows_no(rig: &Rig, team: &str) {
    for path in ["/v1/usage?tenant=", "/v1/usage/unknown?tenant=", "/v1/callbacks?state=dead&tenant="] {
        let refused = rig.operator("GET", &format!("{path}{team}")).send().await;
        refused.is_rejection(404, "DATA_NOT_FOUND");
        assert_eq!(refused.header("x-gateway-error"), "unknown_tenant", "{path}");
    }
    let replay = json!({ "tenant": team, "since": "2026-11-25T08:30:00Z" }).to_string();
    let refused = rig.operator("POST", "/v1/callbacks/replay").json(&replay).send().await;
    assert_eq!((refused.status, refused.header("x-gateway-error")), (404, "unknown_tenant"));
}

#[tokio::test]
async fn a_team_is_unknown_if_neither_the_configuration_nor_the_books_have_it() {
    let rig = Rig::start().await;
    rig_knows_no(&rig, "nobody").await;
    let audit = rig.operator("GET", "/v1/audit?newest_first=true&limit=1").send().await.json();
    assert_eq!((&audit["entries"][0]["order"], &audit["entries"][0]["outcome"]), (&json!("replay"), &json!("refused")));
    let today = [day(&rig, 1)];
    // The teams `collections` and `screening` have lines in the ledger, and are not in the configuration.
    let rig = rig.restart_after(async |folder| fill(folder, &today, 1)).await;
    for team in TEAMS {
        for path in ["/v1/usage?tenant=", "/v1/usage/unknown?tenant=", "/v1/callbacks?state=dead&tenant="] {
            asked(&rig, &format!("{path}{team}")).await;
        }
        let replay = json!({ "tenant": team, "since": "2026-11-25T08:30:00Z" }).to_string();
        assert_eq!(rig.operator("POST", "/v1/callbacks/replay").json(&replay).send().await.json()["replayed"], 0);
    }
    rig_knows_no(&rig, "nobody").await;
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_has_ten_thousand_rows_at_most_and_never_leaves_one_out_without_a_word() {
    let rig = Rig::start().await;
    let rig = rig.restart_after(async |folder| {
        let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("a database");
        let fill = "WITH RECURSIVE teams (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM teams WHERE number < 5001)
            INSERT INTO ledger_days (day, tenant, route, requests, cost)
            SELECT '2026-03-' || day, 'team-' || number, 'bank', 2, 500 FROM teams, (SELECT '30' AS day UNION SELECT '31')
            WHERE NOT (day = '31' AND number > 5000)";
        database.execute(fill, []).expect("lines");
    });
    let rig = rig.await;
    let refused = rig.operator("GET", "/v1/usage?from=2026-03-30&to=2026-03-31").send().await;
    refused.is_rejection(400, "API_VALIDATION_ERROR");
    assert_eq!(refused.header("x-gateway-error"), "malformed_request");
    assert!(refused.text().contains("more than 10000 lines: sum them with by=day"), "{}", refused.text());
    let csv = rig.operator("GET", "/v1/usage?from=2026-03-30&to=2026-03-31").header("accept", "text/csv").send().await;
    assert_eq!(csv.status, 400, "nor is a file cut off");

    let sum = rows(&rig, "/v1/usage?from=2026-03-30&to=2026-03-31&by=route").await;
    assert_eq!(
        (&sum[0]["route"], &sum[0]["requests"], &sum[0]["cost"]),
        (&json!("bank"), &json!(20_002), &json!(5_000_500))
    );
    assert_eq!(rows(&rig, "/v1/usage?from=2026-03-31&to=2026-03-31").await.len(), 5000);

    // In CSV, the first three columns of a page's last line are `after` for the next page.
    let (mut after, mut lines, mut pages) = (String::new(), 0, 0);
    loop {
        let path = format!("/v1/usage?from=2026-03-30&to=2026-03-31&limit=10000{after}");
        let page = rig.operator("GET", &path).header("accept", "text/csv").send().await;
        let text = page.text();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        (lines, pages) = (lines + rows.len(), pages + 1);
        if rows.len() < 10_000 {
            break;
        }
        after = format!("&after={}", rows[9999].splitn(4, ',').take(3).collect::<Vec<_>>().join(","));
    }
    assert_eq!((lines, pages), (10_001, 2));
    rig.stop().await;
}
