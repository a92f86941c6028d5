//! The books through crashes: whatever is killed, reset or hung up, what they say is true (design, section 6).

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::process::Folder;
use crate::support::{ask, until};
use iluma_gateway::simulator::{Options, Simulator};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const KTP: &str = "/v1/identity/ktp_name/validations";

/// What clients saw.
#[derive(Default)]
struct Seen {
    /// The round that goes on.
    round: AtomicU64,
    /// Answers to bank questions that Iluma charges for.
    charged: AtomicU64,
}

/// One client: asks something new each time, as things go wrong. It ends with its round.
async fn client(server: SocketAddr, number: u64, round: u64, seen: Arc<Seen>) {
    for n in 0_u64.. {
        if seen.round.load(Ordering::SeqCst) != round {
            return;
        }
        let id = (round * 100 + number) * 100_000 + n;
        let bank = n % 2 == 0;
        let (path, body) = if bank {
            (BANK, format!(r#"{{"bank_account_number":"{}55","bank_code":"BCA"}}"#, 10_000_000 + id))
        } else {
            (KTP, format!(r#"{{"nik":"31{id:012}01","name":"X"}}"#))
        };
        let request = ask("POST", format!("http://{server}{path}")).key(Folder::KEY).json(body);
        let fault = match n % 9 {
            3 => "reset",
            5 => "truncate",
            7 => "latency=20ms",
            _ => "",
        };
        let request = if fault.is_empty() { request } else { request.header("x-sim-fault", fault) };
        // A client that has no patience hangs up.
        let patience = Duration::from_millis(if n % 11 == 4 { 5 } else { 5000 });
        let answer = tokio::spawn(async move { tokio::time::timeout(patience, request.send()).await });
        match answer.await {
            Ok(Ok(answer)) if answer.status == 200 && bank => {
                seen.charged.fetch_add(1, Ordering::SeqCst);
            }
            // A broken connection among them, which is what a truncated answer is to a client.
            _ => {}
        }
    }
}

async fn chaos(rounds: u64, calls: u64) {
    let simulator = Simulator::start(
        ([127, 0, 0, 1], 0).into(),
        Options { pending_first: false, latency: Duration::from_millis(2), ..Options::default() },
    )
    .await
    .expect("a simulator");
    let folder = Folder::new(&simulator.url());
    let seen = Arc::new(Seen::default());
    for round in 0..rounds {
        let program = folder.run();
        let (server, _) = program.listening().await;
        let mut clients = JoinSet::new();
        for number in 0..12 {
            clients.spawn(client(server, number, round, Arc::clone(&seen)));
        }
        let enough = simulator.stats().requests + calls;
        until("calls", || simulator.stats().requests >= enough).await;
        // kill -9, with calls on their way.
        drop(program);
        seen.round.fetch_add(1, Ordering::SeqCst);
        while clients.join_next().await.is_some() {}
    }
    until("Iluma has nothing in hand", || simulator.stats().in_flight == 0).await;
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let usage = ask("GET", format!("http://{admin}/v1/usage?tenant=lending"));
    let rows = usage.header("authorization", "Bearer operators-only").send().await.json();
    let sum = |name: &str, route: &str| -> u64 {
        let rows =
            rows["rows"].as_array().expect("rows").iter().filter(|row| route.is_empty() || row["route"] == route);
        rows.map(|row| row[name].as_u64().expect("a number")).sum()
    };
    let (billable, unknown, charged) = (sum("billable", ""), sum("unknown", ""), simulator.stats().charged);
    assert!(billable <= charged && charged <= billable + unknown, "{billable} <= {charged} <= {billable} + {unknown}");
    assert!(sum("billable", "bank") >= seen.charged.load(Ordering::SeqCst), "whoever saw an answer finds it booked");
    assert!(billable > 0 && unknown > 0 && charged > rounds * calls / 2, "{billable} {unknown} {charged}");
    // The command sees the same beside the running gateway.
    let month = rows["rows"][0]["day"].as_str().expect("a day")[..7].to_owned();
    let said = folder.order("usage", &["--month", &month], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = said.stdout.lines().find(|line| line.starts_with("lending") && line.contains(" all ")).expect("a sum");
    assert_eq!(line.split_whitespace().nth(4), Some(billable.to_string().as_str()), "{}", said.stdout);
    drop(program);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_resets_and_hang_ups_the_books_hold_what_iluma_counted() {
    chaos(4, 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn after_many_kills_the_books_still_do() {
    chaos(60, 2000).await;
}
