//! Client connections by the rules of HTTP: half-closed, idle, slow to begin, without a host, too many (RFC 9112,
//! sections 3.2 and 9).

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::h2::{HEADERS, PREFACE, SETTINGS, block, frame};
use crate::support::process::Folder;
use crate::support::tls::{Authority, connect};
use crate::support::{Held, Rig, Upstream, Wire, ask, until};
use bytes::BytesMut;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CODES: &str = "/bank/available_bank_codes";
const NAME: &str = "/v1/identity/ktp_name/validations";
const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;

/// The longest time that a configured second may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn post(rig: &Rig, path: &str) -> String {
    let head = rig.head("lending", "POST", path);
    format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}", QUESTION.len())
}

/// Checks that a request is answered after the client closed its sending side.
async fn is_answered_half_closed<S: AsyncRead + AsyncWrite + Unpin>(held: &Held, mut wire: Wire<S>, request: &str) {
    let before = held.arrived();
    wire.send(request).await;
    wire.stream.shutdown().await.expect("a half-closed connection");
    held.holds(before + 1).await;
    held.release(1);
    let answer = wire.try_answer().await;
    assert_eq!(answer.map(|answer| answer.status), Some(200), "{request}");
    assert!(wire.rest().await.is_empty(), "the connection ends after the answer");
}

#[tokio::test]
async fn head_and_body_of_a_small_streamed_answer_leave_in_one_write() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    for round in 1..=3 {
        wire.send(post(&rig, NAME)).await;
        held.holds(round).await;
        held.release(1);
        let mut read = BytesMut::with_capacity(64 << 10);
        wire.stream.read_buf(&mut read).await.expect("bytes");
        let text = String::from_utf8_lossy(&read).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let length = head.to_ascii_lowercase().split("content-length: ").nth(1).expect("a length").to_owned();
        assert!(length.starts_with(&format!("{}", body.len())) && !body.is_empty(), "{text}");
    }
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_gets_its_answer() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    for request in [post(&rig, BANK), post(&rig, NAME), format!("{}\r\n", rig.head("lending", "GET", PHONE))] {
        is_answered_half_closed(&held, Wire::connect(rig.app.server_address()).await, &request).await;
    }
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_gets_its_answer_over_tls() {
    let (folder, authority, held) = (TempDir::new().expect("a folder"), Authority::new(), Held::start().await);
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().upstream(held.url()).section("server", &tls).start().await;
    let stream = connect(rig.app.server_address(), &authority, None, &[]).await.expect("a handshake");
    is_answered_half_closed(&held, Wire::over(stream), &post(&rig, NAME)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_within_its_body_ends_the_call() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    for path in [NAME, BANK] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let request = post(&rig, path);
        wire.send(&request[..request.len() - 5]).await;
        wire.stream.shutdown().await.expect("a half-closed connection");
        if let Some(answer) = wire.try_answer().await {
            assert_eq!((answer.status, answer.header("x-gateway-error")), (400, "body_cut_off"), "{path}");
        }
        rig.is_idle().await;
    }
    assert_eq!(held.arrived(), 0, "upstream took a part for the whole");
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_may_be_silent_between_requests_for_longer_than_within_one() {
    let upstream = Upstream::agreeing().await;
    let settings = "header_timeout = \"300ms\"\nkeep_alive_timeout = \"2s\"";
    let rig = Rig::builder().upstream(upstream.url()).section("server", settings).start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(post(&rig, NAME)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.header("keep-alive"), answer.header("connection")), ("timeout=2", "keep-alive"));
    let closed = tokio::time::timeout(Duration::from_millis(900), wire.exactly(1)).await;
    assert!(closed.is_err(), "closed after the time for a head");
    wire.send(post(&rig, NAME)).await;
    assert_eq!(wire.answer().await.status, 200);
    // A head has its own timeout from its first byte.
    let began = std::time::Instant::now();
    wire.send("POST /").await;
    let closed = tokio::time::timeout(SOON, wire.rest()).await;
    assert!(closed.is_ok() && began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    // A silent connection is closed too.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(post(&rig, NAME)).await;
    assert_eq!(wire.answer().await.status, 200);
    assert!(tokio::time::timeout(SOON, wire.rest()).await.is_ok(), "an idle connection is kept for ever");
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn how_long_a_connection_is_kept_is_announced_where_it_is_kept() {
    let rig = Rig::start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let get = format!("{}\r\n", rig.head("lending", "GET", CODES));
    wire.send(&get).await;
    assert_eq!(wire.answer().await.header("keep-alive"), "timeout=75");
    wire.send(get.replace("\r\n\r\n", "\r\nconnection: te, Close\r\nte: trailers\r\n\r\n")).await;
    assert_eq!(wire.answer().await.header("keep-alive"), "");
    assert!(wire.rest().await.is_empty());
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(get.replace("HTTP/1.1", "HTTP/1.0")).await;
    assert_eq!(wire.answer().await.header("keep-alive"), "");
    rig.stop().await;
}

#[tokio::test]
async fn the_first_bytes_may_arrive_one_by_one() {
    let rig = Rig::start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.stream.set_nodelay(true).expect("a socket");
    for byte in PREFACE {
        wire.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let request = frame(HEADERS, 5, 1, &block(CODES, &rig.basic("lending")));
    wire.send([frame(SETTINGS, 0, 0, &[]), request].concat()).await;
    let settings = wire.exactly(9).await.expect("a frame of HTTP/2");
    assert_eq!(settings[3], SETTINGS, "{settings:?}");
    // The bytes begin like the preface, and are HTTP/1.1.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    for byte in post(&rig, BANK).bytes() {
        wire.send([byte]).await;
        if byte == b'P' {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(wire.answer().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_request_without_one_valid_host_is_a_400_on_every_listener() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let team = format!("POST {NAME} HTTP/1.1\r\nauthorization: {}\r\ncontent-length: 2\r\n", rig.basic("lending"));
    let callback = "POST /callbacks/live/NAME_VALIDATOR_REQUEST HTTP/1.1\r\ncontent-length: 2\r\n".to_owned();
    let admin = "POST /healthz HTTP/1.1\r\ncontent-length: 2\r\n".to_owned();
    let listeners =
        [(rig.app.server_address(), team), (rig.app.callbacks_address(), callback), (rig.app.admin_address(), admin)];
    for (address, head) in listeners {
        for host in
            ["", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host:\r\n", "host: a b\r\n", "host: u@a\r\n"]
        {
            let mut wire = Wire::connect(address).await;
            wire.send(format!("{head}{host}\r\n{{}}")).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, 400, "{host:?} at {head}: {}", answer.text());
            assert_eq!(answer.json()["error_code"], "API_VALIDATION_ERROR", "{host:?} at {head}");
        }
        for host in ["host: a\r\n", "host: [::1]:80\r\n"] {
            let mut wire = Wire::connect(address).await;
            wire.send(format!("{head}{host}\r\n{{}}")).await;
            assert_ne!(wire.answer().await.status, 400, "{host:?} at {head}");
        }
        // HTTP/1.0 needs no `Host`.
        let mut wire = Wire::connect(address).await;
        wire.send(format!("{}\r\n{{}}", head.replace("HTTP/1.1", "HTTP/1.0"))).await;
        assert_ne!(wire.answer().await.status, 400, "{head}");
    }
    assert_eq!(upstream.heard().len(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn failed_handshakes_are_counted() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().section("server", &tls).start().await;
    for _ in 0..5 {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        wire.rest().await;
    }
    // A successful handshake is not counted.
    drop(connect(rig.app.server_address(), &authority, None, &[]).await.expect("a handshake"));
    let series = r#"iluma_gateway_tls_handshake_failures_total{listener="server"}"#;
    rig.metric_becomes(series, |failures| failures == 5.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_reported() {
    let folder = Folder::new("http://127.0.0.1:9");
    let program = folder.run_with_files("-Sn 256");
    let line = program.stderr_line("raised the limit of open files").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
    assert_eq!(line["fields"]["before"], 256, "{line}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.id())).expect("limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let mut files = files.split_whitespace().skip(3);
    assert_eq!(files.next(), files.next(), "the soft limit is the hard one");
}

#[tokio::test]
async fn a_gateway_out_of_files_says_so_once_a_second_and_goes_on() {
    let folder = Folder::new("http://127.0.0.1:9");
    let program = folder.run_with_files("-n 90");
    let low = program.stderr_line("the limit of open files is lower than").await;
    assert!(low.contains(r#""limit":90"#), "{low}");
    let (server, admin) = program.listening().await;
    let mut connections = Vec::new();
    for _ in 0..120 {
        connections.push(TcpStream::connect(server).await.expect("a connection"));
    }
    let said = || program.stderr_lines("cannot accept connections");
    until("a second line", || said().len() >= 2).await;
    let second: serde_json::Value = serde_json::from_str(&said()[1]).expect("a JSON line");
    assert!(second["fields"]["failures"].as_u64().is_some_and(|failures| failures > 3), "{second}");
    drop(connections);
    assert_eq!(ask("GET", format!("http://{admin}/healthz")).send().await.status, 200);
    let answer = ask("GET", format!("http://{server}{CODES}")).send().await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_has_one_line_with_host_and_cause_and_so_has_its_circuit() {
    let folder = Folder::new("http://127.0.0.1:9");
    let program = folder.run();
    let (server, _) = program.listening().await;
    for _ in 0..25 {
        let answer = ask("POST", format!("http://{server}{NAME}")).key(Folder::KEY).json("{}").send().await;
        assert_eq!(answer.status, 503);
    }
    let open = program.stderr_line("circuit open").await;
    let open: serde_json::Value = serde_json::from_str(&open).expect("a JSON line");
    assert_eq!(open["fields"]["account"], "live", "{open}");
    assert_eq!(open["fields"]["host"], "127.0.0.1:9", "{open}");
    assert!(open["fields"]["cause"].as_str().is_some_and(|cause| cause.contains("cannot be reached")), "{open}");
    let lines = program.stderr_lines("cannot connect to Iluma");
    assert_eq!((lines.len(), program.stderr_lines("circuit").len()), (1, 1), "{lines:?}");
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("a JSON line");
    assert_eq!(line["fields"]["host"], "127.0.0.1:9", "{line}");
    assert!(line["fields"]["cause"].as_str().is_some_and(|cause| cause.contains("refused")), "{line}");
}
