//! Tests of the start and the end of a process. Once it says that it listens, it reacts to signals and changed files.
//! No idle connection delays its drain.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time")]

use crate::support::process::{Folder, once, started};
use crate::support::tls::Authority;
use crate::support::{Rig, ask};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// The longest drain with nothing in flight.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_connection_that_said_nothing_does_not_hold_up_a_drain() {
    let rig = Rig::start().await;
    let silent = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    // A request that is served shows that the earlier connection was accepted.
    assert_eq!(rig.ask("lending", "GET", "/bank/available_bank_codes").send().await.status, 200);
    let began = Instant::now();
    let stopped = tokio::time::timeout(Duration::from_secs(10), rig.stop()).await;
    assert!(stopped.is_ok() && began.elapsed() < AT_ONCE, "nothing was in flight, but it took {:?}", began.elapsed());
    drop(silent);
}

#[tokio::test]
async fn an_unfinished_handshake_does_not_hold_up_a_drain() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().section("server", &tls).start().await;
    let silent = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    let other = crate::support::tls::connect(rig.app.server_address(), &authority, None, &[]).await;
    drop(other.expect("a handshake"));
    let began = Instant::now();
    let stopped = tokio::time::timeout(Duration::from_secs(10), rig.stop()).await;
    assert!(stopped.is_ok() && began.elapsed() < AT_ONCE, "nothing was in flight, but it took {:?}", began.elapsed());
    drop(silent);
}

/// The number of repetitions, in which a rare race would show.
const TIMES: usize = 15;

#[tokio::test]
async fn a_signal_right_after_it_listens_is_a_drain() {
    for _ in 0..TIMES {
        let folder = Folder::new("http://127.0.0.1:9");
        let mut program = folder.run();
        program.listening().await;
        program.signal_at_once("TERM");
        assert_eq!(program.ended().await.code(), Some(0), "ended by the signal itself");
    }
}

#[tokio::test]
async fn a_change_right_after_it_listens_is_not_missed() {
    let mut running = Vec::new();
    for _ in 0..TIMES {
        let folder = Folder::new("http://127.0.0.1:9");
        let program = folder.run();
        let (_, ops) = program.listening().await;
        let renewed =
            Folder::text("http://127.0.0.1:9").replace(&Folder::hash(Folder::KEY), &Folder::hash("another-key"));
        folder.write("config.toml", &renewed);
        running.push((folder, program, ops));
    }
    for (n, (_folder, _program, ops)) in running.iter().enumerate() {
        let series = r#"iluma_gateway_config_reloads_total{outcome="applied"} 0"#;
        let look = async {
            while ask("GET", format!("http://{ops}/metrics")).send().await.text().contains(series) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(5), look).await;
        assert!(seen.is_ok(), "process {n} of {TIMES} never noticed the change");
    }
}

#[tokio::test]
async fn the_demo_shows_its_tour_and_ends_well() {
    let said = once(&["demo", "--exit"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.to_lowercase().contains("saved"), "says what it saved: {}", said.stdout);
}

#[tokio::test]
async fn the_demo_serves_until_it_is_interrupted() {
    let mut program = started(&["demo"]);
    program.stdout_line("Ctrl-C").await;
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(0));
}
