//! Tests of calls with an unknown outcome that an operator settles, and of the comparison of the ledger with Iluma's
//! bill.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::process::{Folder, Program};
use crate::support::{Answer, Held, PATIENCE, Redis, Rig, RigBuilder, ask};
use iluma_simulator::{Options, Simulator};
use serde_json::{Value, json};

const KTP: &str = "/v1/identity/ktp_name/validations";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const PRICES: &str = "[prices]\nktp = 1500\n[node]\nname = \"a\"\n";

/// Returns the calls with an unknown outcome that a node lists: each call's node and number.
async fn unknown(rig: &Rig) -> Vec<(String, i64)> {
    listed(rig, "").await.0
}

/// Returns a page of the calls with an unknown outcome, and the page's `next`.
async fn listed(rig: &Rig, query: &str) -> (Vec<(String, i64)>, Value) {
    let list = rig.operator("GET", &format!("/v1/usage/unknown{query}")).send().await.json();
    let call = |call: &Value| Some((call["node"].as_str()?.to_owned(), call["number"].as_i64()?));
    let calls = list["calls"].as_array().expect("calls").iter().map(|one| call(one).expect("a call")).collect();
    (calls, list["next"].clone())
}

async fn settle(rig: &Rig, calls: &Value) -> Answer {
    rig.operator("POST", "/v1/usage/unknown/settle").json(json!({ "calls": calls }).to_string()).send().await
}

fn decided((node, number): &(String, i64), outcome: &str) -> Value {
    json!({ "node": node, "number": number, "outcome": outcome, "note": "bill of November" })
}

fn named((node, number): &(String, i64)) -> Value {
    json!([{ "node": node, "number": number }])
}

/// Returns the billable calls, the unknown calls and the cost in rupiah of the route `ktp` in the ledger.
async fn books(rig: &Rig) -> [u64; 3] {
    let rows = rig.operator("GET", "/v1/usage").send().await.json();
    let rows: Vec<_> =
        rows["rows"].as_array().expect("rows").iter().filter(|row| row["route"] == "ktp").cloned().collect();
    ["billable", "unknown", "cost"].map(|name| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum())
}

async fn budget_used(rig: &Rig) -> u64 {
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await.json();
    usage["budget_used"].as_u64().expect("a number")
}

/// Starts a gateway named `a` in front of an upstream that never answers.
async fn losing(extra: impl FnOnce(RigBuilder) -> RigBuilder) -> (Held, Rig) {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).extra(PRICES).section("upstream", "timeout = \"100ms\"");
    let rig = extra(rig.tenant("lending", "budget_per_month = 100000")).start().await;
    (held, rig)
}

async fn lose(rig: &Rig) {
    rig.post("lending", KTP, "{}").send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
}

/// Waits until a node lists this number of calls with an unknown outcome, and returns them.
async fn sees(rig: &Rig, count: usize) -> Vec<(String, i64)> {
    let seen = async {
        loop {
            let calls = unknown(rig).await;
            if calls.len() == count {
                return calls;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the open calls")
}

#[tokio::test]
async fn an_operator_settles_what_nobody_else_can_once() {
    let (_held, rig) = losing(|rig| rig).await;
    for _ in 0..3 {
        lose(&rig).await;
    }
    let calls = unknown(&rig).await;
    assert_eq!((calls.len(), books(&rig).await), (3, [0, 3, 0]));
    let outcome = |outcome: &str| {
        format!("iluma_gateway_ledger_calls_total{{outcome=\"{outcome}\",route=\"ktp\",tenant=\"lending\"}}")
    };
    let unknown_now = "iluma_gateway_unknown_calls{tenant=\"lending\"}";
    assert_eq!((rig.metric(&outcome("unknown")).await, rig.metric(unknown_now).await), (3.0, 3.0));

    let answer = settle(&rig, &json!([decided(&calls[0], "billable"), decided(&calls[1], "not_billable")])).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["settled"].as_array().map(Vec::len), Some(2), "{}", answer.text());
    assert_eq!((&answer.json()["not_open"], &answer.json()["left"]), (&json!([]), &json!([])));
    assert_eq!((books(&rig).await, unknown(&rig).await), ([1, 1, 1500], vec![calls[2].clone()]));
    assert_eq!(rig.metric(&outcome("billable")).await, 1.0);
    assert_eq!(rig.metric(&outcome("not_billable")).await, 1.0);
    assert_eq!(rig.metric(&outcome("unknown")).await, 3.0, "a settlement adds, and takes nothing away");
    assert_eq!(rig.metric(unknown_now).await, 1.0);
    assert_eq!(budget_used(&rig).await, 3000, "one is charged, one may be");

    // A second settlement of a call changes nothing. A settlement of a call that was never made changes nothing either.
    let never = ("a".to_owned(), 4711);
    for call in [&calls[0], &never] {
        let answer = settle(&rig, &json!([decided(call, "not_billable")])).await;
        assert_eq!((answer.status, &answer.json()["not_open"]), (200, &named(call)), "{}", answer.text());
        assert_eq!(answer.json()["settled"], json!([]));
    }
    assert_eq!((books(&rig).await, budget_used(&rig).await), ([1, 1, 1500], 3000));
    rig.stop().await;
}

#[tokio::test]
async fn a_settlement_is_audited_with_its_note_and_without_personal_data() {
    let (_held, rig) = losing(|rig| rig).await;
    lose(&rig).await;
    let call = unknown(&rig).await.remove(0);
    let note = "Iluma's line 12, NIK 3171011708450001";
    let order = json!([{ "node": "a", "number": call.1, "outcome": "not_billable", "note": note }]);
    assert_eq!(settle(&rig, &order).await.status, 200);
    let audit = rig.operator("GET", "/v1/audit").send().await.json();
    let entry = &audit["entries"][0];
    let expected = ("settle", "admin", "done", json!({ "settled": 1, "not_open": 0 }));
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    assert_eq!((text("order"), text("token"), text("outcome"), entry["counts"].clone()), expected);
    let subject = text("subject");
    assert_eq!(subject, format!("a/{} not billable: Iluma's line 12, NIK [redacted]", call.1));
    rig.stop().await;
}

#[tokio::test]
async fn an_unclear_settlement_settles_nothing() {
    let (_held, rig) = losing(|rig| rig).await;
    lose(&rig).await;
    let call = unknown(&rig).await.remove(0);
    let with = |name: &str, value: Value| {
        let mut order = decided(&call, "billable");
        order[name] = value;
        json!([order])
    };
    let twice = json!([decided(&call, "billable"), decided(&call, "not_billable")]);
    let unclear = [
        json!([]),
        with("outcome", json!("unknown")),
        with("number", json!("one")),
        with("number", json!(0)),
        with("number", json!(-1)),
        with("note", json!("x".repeat(201))),
        with("note", json!("two\nlines")),
        with("node", json!("")),
        with("extra", json!(1)),
        json!([{ "number": call.1 }]),
        twice,
    ];
    for calls in unclear {
        let answer = settle(&rig, &calls).await;
        answer.is_rejection(400, "API_VALIDATION_ERROR");
        assert!(answer.text().contains("not_billable"), "{}", answer.text());
    }
    // The node of one call does not exist, so the other call is not settled either.
    let answer = settle(&rig, &json!([decided(&call, "billable"), decided(&("b".to_owned(), 1), "billable")])).await;
    answer.is_rejection(404, "DATA_NOT_FOUND");
    assert_eq!(answer.header("x-gateway-error"), "unknown_node");
    assert_eq!(books(&rig).await, [0, 1, 0]);
    assert_eq!(ask("POST", rig.admin_url("/v1/usage/unknown/settle")).json("{}").send().await.status, 401);
    rig.stop().await;
}

#[tokio::test]
async fn a_call_in_flight_is_not_settled_by_hand() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).extra(PRICES).start().await;
    let under_way = tokio::spawn(rig.post("lending", KTP, "{}").send());
    held.holds(1).await;
    let call = sees(&rig, 1).await.remove(0);
    let answer = settle(&rig, &json!([decided(&call, "not_billable")])).await;
    assert_eq!((answer.status, &answer.json()["not_open"]), (200, &named(&call)), "{}", answer.text());
    held.release(1);
    under_way.await.expect("an answer");
    assert_eq!(books(&rig).await, [1, 0, 1500], "its own answer says what it costs");
    rig.stop().await;
}

#[tokio::test]
async fn a_call_of_another_node_is_seen_and_settled_from_here() {
    let redis = Redis::start().await;
    let (_held, rig) = losing(|rig| rig.redis(&redis)).await;
    let other = rig.another_with(|text| text.replace("name = \"a\"", "name = \"b\"")).await;
    lose(&rig).await;
    lose(&other).await;
    lose(&other).await;
    let calls = sees(&rig, 3).await;
    let nodes: Vec<_> = calls.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(nodes, ["a", "b", "b"], "this node's come first");
    // The pages lead through all nodes.
    let (mut paged, mut after) = (Vec::new(), String::new());
    for _ in 0..3 {
        let (page, next) = listed(&rig, &format!("?limit=1{after}")).await;
        paged.extend(page);
        after = format!("&after={}", next.as_str().map_or_else(|| next.to_string(), str::to_owned));
    }
    assert_eq!(paged, calls);
    assert_eq!(listed(&rig, &format!("?limit=1{after}")).await.0, []);

    let all = [decided(&calls[0], "billable"), decided(&calls[1], "billable"), decided(&calls[2], "not_billable")];
    let answer = settle(&rig, &json!(all)).await;
    assert_eq!((answer.status, answer.json()["settled"].as_array().map(Vec::len)), (200, Some(3)), "{}", answer.text());
    assert_eq!(books(&other).await[0], 2, "the other node has booked it, and sees both");
    sees(&rig, 0).await;
    assert_eq!(other.metric("iluma_gateway_unknown_calls{tenant=\"lending\"}").await, 0.0);

    // A settled call is not settled again, and no unknown call is left.
    let again = settle(&rig, &json!([decided(&calls[1], "not_billable")])).await;
    assert_eq!((again.status, &again.json()["not_open"]), (200, &named(&calls[1])), "{}", again.text());
    let answer = settle(&rig, &json!([decided(&("c".to_owned(), 1), "billable")])).await;
    answer.is_rejection(404, "DATA_NOT_FOUND");
    other.stop().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_is_down_is_left_and_settles_once_it_is_back() {
    let redis = Redis::start().await;
    let (_held, rig) = losing(|rig| rig.redis(&redis)).await;
    let other = rig.another_with(|text| text.replace("name = \"a\"", "name = \"b\"")).await;
    lose(&other).await;
    let call = sees(&rig, 1).await.remove(0);
    let down = async |_: &std::path::Path| {
        let answer = settle(&rig, &json!([decided(&call, "billable")])).await;
        assert_eq!((answer.status, &answer.json()["left"]), (503, &json!(["b"])), "{}", answer.text());
        assert_eq!(answer.header("x-gateway-error"), "incomplete");
    };
    let other = other.restart_after(down).await;
    sees(&rig, 0).await;
    assert_eq!(books(&other).await, [1, 0, 1500]);
    let audit = rig.operator("GET", "/v1/audit").send().await.json();
    assert_eq!(audit["entries"][0]["outcome"], "incomplete");
    other.stop().await;
    rig.stop().await;
}

/// Makes one KTP call and two bank calls through a running gateway. Returns the day under which the ledger has them.
async fn with_calls(folder: &Folder, program: &Program) -> String {
    let (server, admin) = program.listening().await;
    let post = |path: &str, body: &str| ask("POST", format!("http://{server}{path}")).key(Folder::KEY).json(body);
    assert_eq!(post(KTP, r#"{"nik":"3171011708450001","name":"X"}"#).send().await.status, 200);
    for number in [1_234_567_855, 1_234_567_800] {
        let body = format!(r#"{{"bank_account_number":"{number}","bank_code":"BCA"}}"#);
        assert_eq!(post(BANK, &body).send().await.status, 200);
    }
    let usage = ask("GET", format!("http://{admin}/v1/usage")).header("authorization", "Bearer a-token-of-operators");
    let usage = usage.send().await.json();
    let billable = |route: &str| {
        let row = usage["rows"].as_array().and_then(|rows| rows.iter().find(|row| row["route"] == route)).cloned();
        row.and_then(|row| row["billable"].as_u64()).unwrap_or_default()
    };
    assert_eq!((billable("ktp"), billable("bank")), (1, 2));
    folder.write("empty.csv", "");
    usage["rows"][0]["day"].as_str().expect("a day").to_owned()
}

#[tokio::test]
async fn a_bill_with_one_call_more_and_one_less_names_both() {
    let simulator =
        Simulator::start(([127, 0, 0, 1], 0).into(), Options { pending_first: false, ..Options::default() });
    let simulator = simulator.await.expect("a simulator");
    let folder = Folder::new(&simulator.url());
    let program = folder.run();
    let day = with_calls(&folder, &program).await;
    let (_, admin) = program.listening().await;
    let bill = folder.path("bill.csv").display().to_string();
    let reconcile = async |text: &str, more: &[&str]| {
        folder.write("bill.csv", text);
        let more: Vec<_> = ["--bill", &bill].iter().chain(more).copied().collect();
        folder.order("usage reconcile", &more, "").await
    };
    let said = reconcile(&format!("day,route,count\n{day},ktp,1\n{day},bank,2\n"), &[]).await;
    assert_eq!((said.code, said.stdout.contains("agree")), (Some(0), true), "{said:?}");
    let columns = ["--day", "Tanggal", "--route", "Layanan", "--count", "Jumlah"];
    let said = reconcile(&format!("Layanan,Jumlah,Tanggal\nktp,2,{day}\nbank,1,{day}\n"), &columns).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    let line = |route: &str| said.stdout.lines().find(|line| line.contains(route)).unwrap_or_default().to_owned();
    assert!(line("ktp").contains("+1") && line("bank").contains("-1"), "{}", said.stdout);
    assert!(said.stdout.contains("Nothing was settled"), "{}", said.stdout);

    // A bill that can't be read is an error.
    for (text, fault) in [
        ("", "no column \"day\""),
        ("day,route,count\n", "no line"),
        ("day;route;count\n", "the head line, which has \"day;route;count\""),
        ("day,route,count\n30/11/2026,ktp,1\n", "line 2: the day must be such as"),
        ("day,route,count\n2026-11-30,KTP check,1\n", "line 2: the route must be a name of"),
        ("day,route,count\n2026-11-30,ktp,-1\n", "line 2: the count must be a whole number"),
        ("day,route,count\n2026-11-30,ktp\n", "2 fields"),
        ("day,route,count\n2006-11-30,ktp,1\n2026-11-30,ktp,1\n", "correct --from and --to"),
    ] {
        let said = reconcile(text, &[]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(fault) && said.stdout.is_empty(), "{text:?}: {said:?}");
    }
    let said = folder.order("usage reconcile", &["--bill", "/nowhere/bill.csv"], "").await;
    assert!(said.code == Some(1) && said.stderr.contains("--bill"), "{said:?}");

    let audit = ask("GET", format!("http://{admin}/v1/audit")).header("authorization", "Bearer a-token-of-operators");
    let audit = audit.send().await.json();
    let entries = audit["entries"].as_array().expect("entries").iter();
    let entries: Vec<_> =
        entries.map(|entry| (entry["order"].clone(), entry["counts"]["differences"].clone())).collect();
    assert_eq!(entries, [(json!("reconcile"), json!(0)), (json!("reconcile"), json!(2))]);
    program.signal("TERM").await;
    let mut program = program;
    program.ended().await;
    simulator.stop().await;
}
