//! Tests of clients whose requests are malformed, oversized, ambiguous, truncated or slow. The gateway forwards no such
//! request as a whole one, and keeps nothing of it.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::h2::{CONTINUATION, HEADERS, PING, PREFACE, RST, SETTINGS, block, frame, speak};
use crate::support::{Held, Rig, Upstream, Wire, endless, until};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const NAME: &str = "/v1/identity/ktp_name/validations";
const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";
const MEBIBYTE: usize = 1 << 20;

/// The longest time that a configured timeout of 300 ms may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Checks that the gateway serves, and holds nothing of earlier requests.
async fn still_serves(rig: &Rig) {
    rig.is_idle().await;
    let answer = rig.post("payments", NAME, r#"{"nik":"1"}"#).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    rig.is_idle().await;
}

/// Sends bytes, closes the sending side, and returns the answer up to the gateway's close.
async fn spoken(rig: &Rig, bytes: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(bytes).await;
    let _ = wire.stream.shutdown().await;
    String::from_utf8_lossy(&wire.rest().await).into_owned()
}

#[tokio::test]
async fn what_is_not_http_gets_no_further() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).section("server", "header_timeout = \"500ms\"").start().await;
    let key = format!("authorization: {}\r\n", rig.basic("lending"));
    let garbage: Vec<Vec<u8>> = vec![
        b"\x00\xff\xfe\x01\x02".repeat(100),
        b"HELLO\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"PRI * HTTP/1.1\r\n\r\n".to_vec(),
        b"PR".to_vec(),
        format!("GET /health HTTP/9.9\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTX/1.1\r\n{key}\r\n").into_bytes(),
        format!("GET /he alth HTTP/1.1\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\nno colon here\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\nhost : x\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\n: x\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\na: b\r\n c: folded\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\na: b\0c\r\n{key}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\na: b\rc: d\r\n{key}\r\n").into_bytes(),
        format!("G\0T /health HTTP/1.1\r\n{key}\r\n").into_bytes(),
        format!("GET /\x01health HTTP/1.1\r\n{key}\r\n").into_bytes(),
    ];
    for bytes in garbage {
        let answer = spoken(&rig, &bytes).await;
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let http1 =
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4") || answer.starts_with("HTTP/1.1 505");
        // An h2 peer ends with frames: its settings come first.
        let http2 = bytes.starts_with(b"PRI") && answer.contains('\u{4}');
        assert!(answer.is_empty() || http1 || http2, "{shown:?} was answered {answer:?}");
    }
    assert!(upstream.heard().is_empty(), "{:?}", upstream.heard());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_head_beyond_the_bounds_is_refused() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let large = format!("{}x-large: {}\r\n\r\n", rig.head("lending", "GET", PHONE), "x".repeat(64 << 10));
    let long =
        format!("{}\r\n", rig.head("lending", "GET", &format!("/v1/fraud/phone_numbers/{}/age", "1".repeat(70_000))));
    let many: String = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = format!("{}{many}\r\n", rig.head("lending", "GET", PHONE));
    let endless = format!("{}x-large: {}", rig.head("lending", "GET", PHONE), "x".repeat(300 << 10));
    for head in [large, long, many, endless] {
        let answer = spoken(&rig, head).await;
        let refused = ["HTTP/1.1 400", "HTTP/1.1 414", "HTTP/1.1 431"].iter().any(|start| answer.starts_with(start));
        assert!(refused || answer.is_empty(), "{answer}");
    }
    assert!(upstream.heard().is_empty());
    // These requests are just within the bounds.
    let many: String = (0..90).map(|n| format!("x-{n}: {}\r\n", "y".repeat(250))).collect();
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}{many}\r\n", rig.head("lending", "GET", PHONE))).await;
    assert_eq!(wire.answer().await.status, 200);
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn an_announced_body_that_is_too_large_is_refused_unread() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for length in ["1048577", "104857600", "9223372036854775807"] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let head = rig.head("lending", "POST", BANK);
        // No byte of the body is ever sent.
        wire.send(format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n")).await;
        wire.answer().await.is_rejection(413, "FILE_TOO_LARGE");
    }
    assert!(upstream.heard().is_empty());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let head = rig.head("lending", "POST", BANK);
    let head = format!("{head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(&head).await;
    for _ in 0..16 {
        wire.send(format!("10000\r\n{}\r\n", " ".repeat(0x10000))).await;
    }
    wire.send("1\r\n \r\n").await;
    wire.answer().await.is_rejection(413, "FILE_TOO_LARGE");

    // A client that goes on sending is not read for ever.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(&head).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let sending = async { while wire.stream.write_all(chunk.as_bytes()).await.is_ok() {} };
    assert!(tokio::time::timeout(SOON, sending).await.is_ok(), "the gateway reads on and on");
    assert!(upstream.heard().is_empty());

    // A mebibyte is not too large.
    let mut json = br#"{"bank_account_number":"1","bank_code":"BCA"}"#.to_vec();
    json.resize(MEBIBYTE, b' ');
    let answer = rig.post("lending", BANK, String::from_utf8(json).expect("text")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_length_that_is_none_is_refused() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let refused = async |request: String| {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(&request).await;
        if let Some(head) = wire.head().await {
            assert_eq!(head.status(), 400, "{request:?}");
        }
    };
    for target in [BANK, NAME] {
        let head = format!("{}content-type: application/json\r\n", rig.head("lending", "POST", target));
        for length in ["-1", "+2", "0x2", "2 2", "99999999999999999999999999", "two", "", "2,3"] {
            refused(format!("{head}content-length: {length}\r\n\r\n{{}}")).await;
        }
        for size in ["fffffffffffffffff", "-1", "g", "", "0x2"] {
            refused(format!("{head}transfer-encoding: chunked\r\n\r\n{size}\r\n{{}}\r\n0\r\n\r\n")).await;
        }
    }
    rig.is_idle().await;
    let whole: Vec<_> = upstream.heard().into_iter().filter(|heard| !heard.body.is_empty()).collect();
    assert!(whole.is_empty(), "{whole:?}");
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn no_request_is_smuggled_inside_another() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .section("server", "header_timeout = \"300ms\"\nkeep_alive_timeout = \"300ms\"")
        .start()
        .await;
    // The inner request has no key: if upstream receives it, it was smuggled.
    let inner = "POST /v9/smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let framings = [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 6",
        "content-length: 0\r\ncontent-length: 5",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding:\tchunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: gzip, chunked\r\ncontent-length: 5",
        "transfer-encoding : chunked\r\ncontent-length: 5",
        "content-length: 5\r\n transfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked\r\ncontent-length: 5",
    ];
    let mut clients = tokio::task::JoinSet::new();
    for target in [NAME, BANK] {
        for framing in framings {
            let head = rig.head("lending", "POST", target);
            let request = format!("{head}content-type: application/json\r\n{framing}\r\n\r\n0\r\n\r\n{inner}");
            let mut wire = Wire::connect(rig.app.server_address()).await;
            clients.spawn(async move {
                wire.send(request).await;
                wire.rest().await;
            });
        }
    }
    clients.join_all().await;
    for heard in upstream.heard() {
        assert!(!heard.target.contains("smuggled"), "{heard:?}");
        assert!(!String::from_utf8_lossy(&heard.body).contains("smuggled"), "{heard:?}");
        let both = heard.headers.contains_key("content-length") && heard.headers.contains_key("transfer-encoding");
        assert!(!both, "{heard:?}");
    }
    assert!(upstream.heard().len() <= 2 * framings.len(), "{:?}", upstream.heard());
    // HTTP/1.0 has no chunks.
    let head = rig.head("lending", "POST", NAME).replace("HTTP/1.1", "HTTP/1.0");
    spoken(&rig, format!("{head}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}")).await;
    assert!(!upstream.heard().iter().any(|heard| heard.target.contains("smuggled")));
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn two_different_keys_are_no_key() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let (good, other) = (rig.basic("lending"), rig.basic("payments"));
    for (first, second) in [
        (good.as_str(), "Basic eA=="),
        ("Basic eA==", good.as_str()),
        (good.as_str(), other.as_str()),
        ("Bearer x", &good),
    ] {
        for target in [BANK, NAME] {
            let head =
                format!("POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: {first}\r\nauthorization: {second}\r\n");
            let mut wire = Wire::connect(rig.app.server_address()).await;
            wire.send(format!("{head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")).await;
            wire.answer().await.is_rejection(401, "INVALID_API_KEY");
        }
    }
    assert!(upstream.heard().is_empty());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_malformed_credential_is_an_unknown_one() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let (key, good) = (rig.key("lending").to_owned(), rig.basic("lending"));
    let with_password = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{key}:secret"))
    };
    let credentials = [
        String::new(),
        "Basic".into(),
        "Basic ".into(),
        "Basic ====".into(),
        "Basic OjpAOg==".into(),
        "Basic Og==".into(),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Bearer {key}x"),
        format!("Bearer {}", &key[..key.len() - 1]),
        format!("Digest {key}"),
        key.clone(),
        format!("{good}, {good}"),
        format!("Basic {with_password}"),
        format!("Bearer {}", "x".repeat(20_000)),
    ];
    for credential in credentials {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let head = format!("POST {NAME} HTTP/1.1\r\nhost: x\r\nauthorization: {credential}\r\n");
        wire.send(format!("{head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 401, "{credential:?}");
        answer.is_rejection(401, "INVALID_API_KEY");
        assert!(!answer.text().contains(&key), "{}", answer.text());
    }
    assert!(upstream.heard().is_empty());
    // These two forms are accepted.
    for credential in
        [good, format!("Bearer {key}"), format!("bearer {key}"), rig.basic("lending").replace("Basic", "bASIC")]
    {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let head = format!("POST {NAME} HTTP/1.1\r\nhost: x\r\nauthorization: {credential}\r\n");
        wire.send(format!("{head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")).await;
        assert_eq!(wire.answer().await.status, 200, "{credential}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_body_of_two_types_is_never_remembered() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let body = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;
    for _ in 0..2 {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let head = rig.head("lending", "POST", BANK);
        let types = "content-type: application/json\r\ncontent-type: application/x-www-form-urlencoded\r\n";
        wire.send(format!("{head}{types}content-length: {}\r\n\r\n{body}", body.len())).await;
        let answer = wire.answer().await;
        let status = answer.header("cache-status");
        assert!(answer.status == 400 || answer.status == 200, "{}", answer.status);
        assert!(!status.contains("stored") && !status.contains("hit"), "{:?}", answer.headers);
    }
    let plain = rig.post("lending", BANK, body).send().await;
    assert_eq!(plain.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_passed_on_as_whole() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for (target, framing, body) in [
        (BANK, "content-length: 100", r#"{"bank_account_number":"1"}"#),
        (NAME, "content-length: 100", r#"{"nik":"1"}"#),
        (BANK, "transfer-encoding: chunked", "2\r\n{}\r\n"),
        (NAME, "transfer-encoding: chunked", "2\r\n{}\r\n"),
        (NAME, "transfer-encoding: chunked", "20\r\n{}"),
    ] {
        let request =
            format!("{}content-type: application/json\r\n{framing}\r\n\r\n{body}", rig.head("lending", "POST", target));
        // The request ends once by closing the sending side, and once by a reset.
        let answer = spoken(&rig, &request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{target} {framing}: {answer}");
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(&request).await;
        wire.reset();
    }
    let lines = rig.logged(10).await;
    assert!(lines.iter().all(|line| line["status"] == 499 || line["status"] == 400), "{lines:#?}");
    rig.is_idle().await;
    // The upstream of this test records a broken body as an empty one.
    assert!(upstream.heard().iter().all(|heard| heard.body.is_empty()), "{:?}", upstream.heard());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_head_that_never_comes_whole_is_not_waited_for() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .section("server", "header_timeout = \"300ms\"\nkeep_alive_timeout = \"300ms\"")
        .start()
        .await;
    for start in ["", "G", "GET /health HTTP/1.1\r\n", "GET /health HTTP/1.1\r\nhost: x\r\nx: "] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(start).await;
        let began = Instant::now();
        wire.rest().await;
        assert!(began.elapsed() < SOON, "{start:?}: {:?}", began.elapsed());
    }
    // A byte now and then does not extend the timeout.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    wire.send("GET /health HTTP/1.1\r\nx: ").await;
    while wire.stream.write_all(b"x").await.is_ok() {
        pace.tick().await;
        assert!(began.elapsed() < SOON, "fed for {:?}", began.elapsed());
    }
    // A connection may not stay silent after its first request either.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
    let began = Instant::now();
    wire.rest().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() {
    // Only complete requests are answered.
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    let upstream = Upstream::on_connection(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut wire = Wire::over(stream);
            while wire.request().await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                wire.send(crate::support::answer(200, "{}")).await;
            }
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).section("upstream", "idle_timeout = \"300ms\"").start().await;
    for target in [BANK, NAME, "/v9/new"] {
        for (framing, body) in
            [("content-length: 100", "{"), ("content-length: 100", ""), ("transfer-encoding: chunked", "1\r\n{\r\n")]
        {
            let mut wire = Wire::connect(rig.app.server_address()).await;
            let head = rig.head("lending", "POST", target);
            wire.send(format!("{head}content-type: application/json\r\n{framing}\r\n\r\n{body}")).await;
            let began = Instant::now();
            wire.answer().await.is_rejection(408, "REQUEST_TIMEOUT");
            assert!(began.elapsed() < SOON, "{target}: {:?}", began.elapsed());
        }
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0, "a body that was not whole reached upstream as if it were");
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn an_h2_body_that_stops_coming_is_not_waited_for() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).section("upstream", "idle_timeout = \"300ms\"").start().await;
    let mut sender = speak(TcpStream::connect(rig.app.server_address()).await.expect("a connection")).await;
    for path in [BANK, NAME] {
        let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
        let body = StreamBody::new(first.chain(futures_util::stream::pending())).boxed_unsync();
        let request = Request::post(rig.url(path)).header("authorization", rig.basic("lending"));
        let request = request.header("content-type", "application/json").body(body).expect("a request");
        let began = Instant::now();
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), response.headers()["x-gateway-error"].is_empty()),
            (408, false),
            "{path}"
        );
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    drop(sender);
    assert!(upstream.heard().iter().all(|heard| heard.body.is_empty()), "{:?}", upstream.heard());
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_h2_does_not_allow_is_an_error_of_the_stream() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).section("upstream", "unknown_routes = \"forward\"").start().await;
    let key = rig.basic("lending");
    let paths = [
        "",
        "*",
        "businesses",
        "/businesses",
        "//businesses",
        "/v1/../businesses",
        "/a b",
        "/a#b",
        "http://x/businesses",
    ];
    for path in paths {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0b101, 1, &block(path, &key))].concat()).await;
        // An answered ping shows that the stream was handled; so does the end of the connection.
        wire.send(frame(PING, 0, 0, b"answered")).await;
        let mut got = Vec::new();
        while let Some(byte) = wire.exactly(1).await {
            got.extend_from_slice(&byte);
            if got.ends_with(b"answered") {
                break;
            }
        }
    }
    rig.is_idle().await;
    let heard: Vec<_> = upstream.heard().into_iter().filter(|heard| heard.target.contains("businesses")).collect();
    assert!(heard.is_empty(), "{heard:?}");
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_answer_is_cut_off() {
    let (upstream, gone) = endless().await;
    let rig = Rig::builder().upstream(upstream.url()).section("upstream", "idle_timeout = \"300ms\"").start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}\r\n", rig.head("lending", "GET", PHONE))).await;
    assert_eq!(wire.head().await.expect("a head").status(), 200);
    // From here on the client reads nothing, and does not close.
    rig.is_idle().await;
    until("upstream is let go", || gone.load(Ordering::SeqCst)).await;
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_downloads_is_noticed() {
    let (upstream, gone) = endless().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}\r\n", rig.head("lending", "GET", PHONE))).await;
    assert_eq!(wire.head().await.expect("a head").status(), 200);
    wire.exactly(100_000).await.expect("a part of the body");
    drop(wire);
    until("upstream is let go", || gone.load(Ordering::SeqCst)).await;
    rig.logged_line(|line| line["status"] == 499).await;
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).section("server", "max_connections = 2").start().await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
        open.push(wire);
    }
    let mut third = Wire::connect(rig.app.server_address()).await;
    third.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(300), third.head()).await;
    assert!(early.is_err(), "served beyond the bound: {early:?}");
    // The first two connections are still served.
    open[0].send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(open[0].answer().await.status, 200);
    // Operators are still served.
    assert!(rig.metric("iluma_gateway_in_flight").await < 1.0);
    open.pop();
    assert_eq!(third.answer().await.status, 200);
    drop((open, third));
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_logged_as_499() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let mut arrived = 0;
    for (method, target) in [("GET", PHONE), ("POST", NAME), ("POST", BANK)] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let body = r#"{"bank_account_number":"1","bank_code":"BCA"}"#;
        let framing = if method == "GET" {
            "\r\n".to_owned()
        } else {
            format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        wire.send(format!("{}{framing}", rig.head("lending", method, target))).await;
        arrived += 1;
        held.holds(arrived).await;
        wire.reset();
        until("its line", || rig.log.lines().len() == arrived).await;
    }
    for line in rig.logged(3).await {
        assert_eq!(line["status"], 499, "{line}");
        assert_eq!(line["tenant"], "lending", "{line}");
    }
    held.release(10);
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn an_h2_request_that_is_reset_is_logged_as_499() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    let connection = tokio::spawn(connection);
    let request = || {
        let request = Request::get(rig.url(PHONE)).header("authorization", rig.basic("lending"));
        request.body(Empty::<Bytes>::new()).expect("a request")
    };
    let first = tokio::spawn(sender.send_request(request()));
    held.holds(1).await;
    first.abort();
    rig.logged_line(|line| line["status"] == 499).await;
    // The connection stays usable.
    held.release(10);
    let answer = sender.send_request(request()).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.expect("a body");
    connection.abort();
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn rapid_resets_leave_nothing_behind() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for n in 0..2000 {
        let stream = 2 * n + 1;
        bytes.extend(frame(HEADERS, 0b101, stream, &block(PHONE, &rig.basic("lending"))));
        bytes.extend(frame(RST, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let _ = wire.stream.write_all(&bytes).await;
    held.release(10_000);
    rig.is_idle().await;
    drop(wire);
    still_serves(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn floods_of_empty_frames_end_with_the_connection() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    // The head is continued for ever, and never ends.
    let mut continued = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    continued.extend(frame(HEADERS, 0, 1, &block(PHONE, &rig.basic("lending"))));
    let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    for _ in 0..20_000 {
        continued.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let sent = wire.stream.write_all(&continued);
    let sent = tokio::time::timeout(SOON, sent).await.expect("neither taken nor refused");
    if sent.is_ok() {
        // The gateway ends the connection, or at least does not wait for the end of the head.
        let goodbye = tokio::time::timeout(SOON, async { while wire.exactly(1).await.is_some() {} }).await;
        assert!(goodbye.is_ok(), "two megabytes of a head, and the connection is still open");
    }
    // The client never reads the answers to its pings.
    let mut pings = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for _ in 0..20_000 {
        pings.extend(frame(PING, 0, 0, &[0; 8]));
    }
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), wire.stream.write_all(&pings)).await;
    drop(wire);
    still_serves(&rig).await;
    assert!(upstream.heard().iter().all(|heard| heard.target == NAME), "{:?}", upstream.heard());
    rig.stop().await;
}

#[tokio::test]
async fn trailers_without_end_are_refused() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for target in [BANK, NAME] {
        let head = rig.head("lending", "POST", target);
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(format!(
            "{head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n"
        ))
        .await;
        let field = format!("x-trailer: {}\r\n", "y".repeat(1000));
        let feeding = async { while wire.stream.write_all(field.as_bytes()).await.is_ok() {} };
        assert!(tokio::time::timeout(SOON, feeding).await.is_ok(), "{target}: the gateway reads on and on");
        rig.is_idle().await;
    }
    still_serves(&rig).await;
    rig.stop().await;
}

/// Checks that a client that sends its whole body before it reads gets the refusal, and not a broken connection.
#[tokio::test]
async fn who_is_refused_in_the_middle_of_sending_can_read_why() {
    let rig = Rig::start().await;
    let body = vec![b'x'; 4 * MEBIBYTE];
    for (key, refused) in [(rig.basic("lending"), "413"), ("Basic eDo=".to_owned(), "401")] {
        let head = format!(
            "POST {BANK} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        stream.write_all(&body).await.expect("the body is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer and its end");
        assert!(answer.starts_with(&format!("HTTP/1.1 {refused} ")), "{answer}");
    }
    rig.stop().await;
}
