//! Tests of HTTP/2 peers that stall: they hold a connection or a slot no longer than HTTP/1.1 peers.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::h2::{HEADERS, PREFACE, SETTINGS, block, frame, speak, whole};
use crate::support::tls::{Authority, secure_upstream};
use crate::support::{Rig, Wire, endless, until};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;

const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";

/// The longest time that a configured 300 ms may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_preface_that_never_comes_whole_is_not_waited_for() {
    let rig = Rig::builder().section("server", "header_timeout = \"300ms\"").start().await;
    for start in ["PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(start).await;
        let closed = tokio::time::timeout(SOON, wire.rest()).await;
        assert!(closed.is_ok(), "{start:?} holds a connection for as long as it likes");
    }
    rig.is_idle().await;
    rig.stop().await;
}

/// Sends these frames after the preface, and nothing more. Returns true if the gateway closes within [`SOON`].
async fn is_given_up(frames: impl FnOnce(&Rig) -> Vec<u8>) -> bool {
    let rig = Rig::builder().section("server", "header_timeout = \"300ms\"").start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames(&rig)].concat()).await;
    let closed = tokio::time::timeout(SOON, async { while wire.exactly(1).await.is_some() {} }).await;
    drop(wire);
    rig.is_idle().await;
    closed.is_ok()
}

#[tokio::test]
async fn an_h2_connection_without_a_request_is_not_kept_for_ever() {
    assert!(is_given_up(|_| Vec::new()).await, "header_timeout bounds the silence between requests too");
}

#[tokio::test]
async fn an_h2_head_that_never_comes_whole_is_not_waited_for() {
    let begun = |rig: &Rig| frame(HEADERS, 0, 1, &block(PHONE, &rig.basic("lending")));
    assert!(is_given_up(begun).await, "half a head holds a connection for as long as it likes");
}

#[tokio::test]
async fn an_h2_client_that_never_reads_its_answer_is_cut_off() {
    let (upstream, gone) = endless().await;
    let rig = Rig::builder().upstream(upstream.url()).section("upstream", "idle_timeout = \"300ms\"").start().await;
    let stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    let connection = tokio::spawn(connection);
    let request = Request::get(rig.url(PHONE)).header("authorization", rig.basic("lending"));
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).expect("a request")).await.expect("a head");
    assert_eq!(answer.status(), 200);
    rig.is_idle().await;
    until("upstream is let go", || gone.load(Ordering::SeqCst)).await;
    drop(answer);
    connection.abort();
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn an_idle_h2_client_does_not_hold_up_a_drain() {
    let rig = Rig::start().await;
    let mut sender = speak(TcpStream::connect(rig.app.server_address()).await.expect("a connection")).await;
    let request = Request::get(rig.url("/bank/available_bank_codes")).header("authorization", rig.basic("lending"));
    let response = sender.send_request(request.body(whole("")).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), 200);
    drop(response);
    let began = Instant::now();
    rig.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_idle_h2_connection_to_upstream_does_not_hold_up_a_drain() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let (upstream, _) = secure_upstream(&authority.leaf("127.0.0.1"), &["h2"]).await;
    let extra_ca = format!("extra_ca = {:?}", authority.write(folder.path(), "ca.pem"));
    let url = upstream.url().replace("http:", "https:");
    let rig = Rig::builder().upstream(url).section("upstream", &extra_ca).start().await;
    assert_eq!(rig.ask("lending", "GET", PHONE).send().await.status, 200);
    rig.is_idle().await;
    let began = Instant::now();
    rig.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "nothing was in flight, but it took {:?}", began.elapsed());
}
