//! Tests with load balancers in front of the gateway. The gateway takes the client's address from trusted ones only,
//! and forwards nothing about them to Iluma.

use crate::support::{Held, Rig, Upstream, ask, raw};
use serde_json::Value;

const BANKS: &str = "/bank/available_bank_codes";
const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";

async fn client(rig: &Rig, count: usize) -> Value {
    rig.logged(count).await.last().expect("a line")["client"].clone()
}

#[tokio::test]
async fn the_access_log_has_the_client_that_a_trusted_load_balancer_names() {
    let rig = Rig::builder().section("server", TRUSTED).start().await;
    for (place, (field, expected)) in [
        (Some("203.0.113.7"), "203.0.113.7"),
        (Some("1.1.1.1, 203.0.113.7, 10.1.2.3"), "203.0.113.7"),
        (Some("2001:db8::7"), "2001:db8::7"),
        (Some("nonsense"), "127.0.0.1"),
        (None, "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut question = rig.ask("lending", "GET", BANKS);
        if let Some(field) = field {
            question = question.header("x-forwarded-for", field);
        }
        assert_eq!(question.send().await.status, 200);
        assert_eq!(client(&rig, place + 1).await, expected, "{field:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn without_trust_the_connection_counts_and_a_reload_gives_trust() {
    let rig = Rig::start().await;
    let question = || rig.ask("lending", "GET", BANKS).header("x-forwarded-for", "203.0.113.7");
    question().send().await;
    assert_eq!(client(&rig, 1).await, "127.0.0.1");
    let changed = rig.settings(|text| text.replacen("[server]\n", &format!("[server]\n{TRUSTED}\n"), 1));
    rig.app.reload(&changed.expect("settings")).expect("a reload");
    question().send().await;
    assert_eq!(client(&rig, 2).await, "203.0.113.7");
    rig.stop().await;
}

#[tokio::test]
async fn nothing_about_load_balancers_reaches_upstream() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).section("server", TRUSTED).start().await;
    for path in ["/v1/identity/ktp_name/validations", "/v9/new"] {
        let question = rig.post("lending", path, "{}").header("x-forwarded-for", "203.0.113.7");
        let question = question.header("x-forwarded-proto", "https").header("x-forwarded-host", "canary.example");
        question.header("x-real-ip", "203.0.113.7").header("forwarded", "for=203.0.113.7").send().await;
    }
    let heard = upstream.heard();
    assert_eq!(heard.len(), 2);
    for heard in heard {
        let head = format!("{:?}", heard.headers).to_ascii_lowercase();
        for canary in ["forwarded", "x-real-ip", "203.0.113.7", "canary"] {
            assert!(!head.contains(canary), "{canary} in {head}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_in_both_versions() {
    let rig = Rig::builder().section("server", "proxy_protocol = true").start().await;
    let rest = [203, 0, 113, 8, 127, 0, 0, 1, 0x12, 0x34, 0x00, 0x50];
    let second = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &rest].concat();
    for (place, (header, expected)) in [
        (b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n".to_vec(), "203.0.113.7"),
        (second, "203.0.113.8"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let head = rig.head("lending", "GET", BANKS);
        let bytes = [&header[..], head.as_bytes(), b"connection: close\r\n\r\n"].concat();
        let got = String::from_utf8_lossy(&raw(rig.app.server_address(), &bytes).await).into_owned();
        assert!(got.starts_with("HTTP/1.1 200"), "{got}");
        assert_eq!(client(&rig, place + 1).await, expected);
    }
    let bytes = format!("{}connection: close\r\n\r\n", rig.head("lending", "GET", BANKS));
    assert_eq!(raw(rig.app.server_address(), bytes.as_bytes()).await, b"", "a connection without the header is closed");
    rig.stop().await;
}

#[tokio::test]
async fn only_trusted_load_balancers_are_believed_where_some_are_named() {
    for (trusted, expected) in [("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "203.0.113.7")] {
        let lines = format!("proxy_protocol = true\ntrusted_proxies = [{trusted:?}]");
        let rig = Rig::builder().section("server", &lines).start().await;
        let head = rig.head("lending", "GET", BANKS);
        let bytes = format!("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n{head}connection: close\r\n\r\n");
        raw(rig.app.server_address(), bytes.as_bytes()).await;
        assert_eq!(client(&rig, 1).await, expected, "{trusted}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_connection_that_sends_no_header_of_the_proxy_protocol_does_not_hold_up_a_drain() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).section("server", "proxy_protocol = true").start().await;
    let silent = tokio::net::TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    rig.metric_becomes(r#"iluma_gateway_connections{listener="server"}"#, |count| count == 1.0).await;
    rig.stop().await;
    drop(silent);
}

#[tokio::test]
async fn callbacks_come_from_allowed_networks_alone() {
    let body = r#"{"id":"1","reference_id":"lending:x"}"#;
    for (allow, field, status) in [
        ("[\"127.0.0.0/8\"]", None, 200),
        ("[\"203.0.113.0/24\"]", None, 403),
        ("[\"203.0.113.0/24\"]", Some("203.0.113.7"), 200),
        ("[\"127.0.0.0/8\"]", Some("203.0.113.7"), 403),
        ("[]", None, 403),
    ] {
        let lines = format!("allow = {allow}\n{}", field.map_or("", |_| "trusted_proxies = [\"127.0.0.1\"]"));
        let rig = Rig::builder().section("callbacks", &lines).start().await;
        let mut callback = rig.callback("NAME_VALIDATOR_REQUEST", body);
        if let Some(field) = field {
            callback = callback.header("x-forwarded-for", field);
        }
        let answer = callback.send().await;
        assert_eq!(answer.status, status, "{allow} {field:?}: {}", answer.text());
        if status == 403 {
            assert_eq!(answer.header("x-gateway-error"), "address_not_allowed");
            let unknown = ask("POST", rig.callbacks_url("/callbacks/live/UNKNOWN"));
            let unknown = unknown.header("x-forwarded-for", field.unwrap_or("203.0.113.7")).send().await;
            assert_eq!(unknown.status, 403, "nothing of the configuration is told");
        }
        rig.stop().await;
    }
}
