//! Tests of HTTP/1.1 and HTTP/2, TLS, proxies and streams, on both sides of the gateway.

use crate::support::h2::{AnyBody, frames, speak, whole};
use crate::support::tls::{Authority, connect, secure_upstream};
use crate::support::{Proxy, Rig, Upstream, Wire, answer, until};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CODES: &str = "/bank/available_bank_codes";
const FACE: &str = "/v2/identity/face_comparisons";
const NAME: &str = "/v1/identity/ktp_name/validations";
const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;
const FOUND: &str = r#"{"status":"COMPLETED","result":{"is_found":true}}"#;
const MEBIBYTE: usize = 1 << 20;

/// Returns an HTTP/2 request of the team `lending`.
fn h2_request(rig: &Rig, method: &str, path: &str, body: AnyBody) -> Request<AnyBody> {
    let request = Request::builder().method(method).uri(rig.url(path)).header("authorization", rig.basic("lending"));
    request.header("content-type", "application/json").body(body).expect("a request")
}

#[tokio::test]
async fn h2_with_prior_knowledge_is_spoken_in_clear() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut sender = speak(TcpStream::connect(rig.app.server_address()).await.expect("a connection")).await;
    for (method, path, body) in [
        ("GET", CODES, ""),
        ("POST", NAME, "{}"),
        ("POST", BANK, QUESTION),
        ("POST", BANK, QUESTION),
        ("GET", "/health", ""),
    ] {
        let response = sender.send_request(h2_request(&rig, method, path, whole(body))).await.expect("an answer");
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2), "{method} {path}");
        assert!(response.headers().contains_key("x-request-id"));
        for hop in ["connection", "transfer-encoding", "keep-alive"] {
            assert!(!response.headers().contains_key(hop), "{hop}");
        }
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), FOUND);
    }
    assert_eq!(upstream.heard().len(), 4, "the second question of a bank account was a hit");
    let mut foreign = h2_request(&rig, "POST", NAME, whole("{}"));
    foreign.headers_mut().insert("authorization", HeaderValue::from_static("Bearer nobody"));
    assert_eq!(sender.send_request(foreign).await.expect("an answer").status(), 401);
    let forbidden = h2_request(&rig, "GET", "/v1/%62usinesses/1", whole(""));
    assert_eq!(sender.send_request(forbidden).await.expect("an answer").status(), 403);
    drop(sender);
    rig.stop().await;
}

#[tokio::test]
async fn one_h2_connection_carries_many_requests_at_once() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let sender = speak(TcpStream::connect(rig.app.server_address()).await.expect("a connection")).await;
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..300 {
        let (mut sender, request) = (sender.clone(), h2_request(&rig, "POST", NAME, whole(format!("{{\"n\":{n}}}"))));
        requests.spawn(async move {
            sender.ready().await.expect("room for a stream");
            sender.send_request(request).await.expect("an answer").status().as_u16()
        });
    }
    assert_eq!(requests.join_all().await, vec![200; 300]);
    assert_eq!(upstream.heard().len(), 300);
    drop(sender);
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn tls_offers_h2_and_h1() {
    let (upstream, folder, authority) =
        (Upstream::agreeing().await, TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().upstream(upstream.url()).section("server", &tls).start().await;
    let at = rig.app.server_address();
    let stream = connect(at, &authority, None, &["h2", "http/1.1"]).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = speak(stream).await;
    let response = sender.send_request(h2_request(&rig, "POST", NAME, whole("{}"))).await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    drop((sender, response));
    for protocols in [&["http/1.1"][..], &[]] {
        let stream = connect(at, &authority, None, protocols).await.expect("a handshake");
        let mut wire = Wire::over(stream);
        for _ in 0..2 {
            wire.send(format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", NAME))).await;
            assert_eq!(wire.answer().await.status, 200, "{protocols:?}");
        }
    }
    // A request in clear gets no answer, and does not reach upstream.
    let mut wire = Wire::connect(at).await;
    wire.send(format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", NAME))).await;
    assert!(!String::from_utf8_lossy(&wire.rest().await).contains("HTTP/"));
    assert_eq!(upstream.heard().len(), 5);
    rig.stop().await;
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_is_not_waited_for() {
    let (upstream, folder, authority) =
        (Upstream::agreeing().await, TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let server = format!("header_timeout = \"300ms\"\n{tls}");
    let rig = Rig::builder().upstream(upstream.url()).section("server", &server).start().await;
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(start).await;
        let closed = tokio::time::timeout(Duration::from_secs(10), wire.rest()).await;
        assert!(closed.is_ok(), "{start:?} holds a connection for as long as it likes");
    }
    rig.stop().await;
}

/// Returns true if a request over this connection is answered 200; false if the connection or the handshake failed.
async fn is_served(rig: &Rig, stream: std::io::Result<tokio_rustls::client::TlsStream<TcpStream>>) -> bool {
    // With TLS 1.3 a client learns only from the first read that its certificate was refused.
    let Ok(stream) = stream else { return false };
    let mut wire = Wire::over(stream);
    wire.send(format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", NAME))).await;
    wire.try_answer().await.is_some_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn mutual_tls_lets_in_who_has_a_certificate_of_the_teams_authority() {
    let (upstream, folder) = (Upstream::agreeing().await, TempDir::new().expect("a folder"));
    let (authority, teams, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let client_ca = teams.write(folder.path(), "teams-ca.pem");
    let tls = authority.leaf("127.0.0.1").write(folder.path(), Some(&client_ca));
    let rig = Rig::builder().upstream(upstream.url()).section("server", &tls).start().await;
    let at = rig.app.server_address();
    let (good, bad, own) = (teams.leaf("team"), strangers.leaf("team"), authority.leaf("team"));
    for stranger in [None, Some(&bad), Some(&own)] {
        assert!(!is_served(&rig, connect(at, &authority, stranger, &[]).await).await);
    }
    assert!(upstream.heard().is_empty());
    assert!(is_served(&rig, connect(at, &authority, Some(&good), &[]).await).await);
    // A client certificate does not replace a key.
    let mut wire = Wire::over(connect(at, &authority, Some(&good), &[]).await.expect("a handshake"));
    wire.send(format!("POST {NAME} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}")).await;
    wire.answer().await.is_rejection(401, "INVALID_API_KEY");
    rig.stop().await;
}

#[tokio::test]
async fn the_admin_listener_has_tls_too() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().section("admin", &tls).start().await;
    let mut wire = Wire::over(connect(rig.app.admin_address(), &authority, None, &[]).await.expect("a handshake"));
    wire.send("GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_reload_takes_a_new_certificate_and_breaks_no_connection() {
    let (upstream, folder) = (Upstream::agreeing().await, TempDir::new().expect("a folder"));
    let (before, after) = (Authority::new(), Authority::new());
    let tls = before.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().upstream(upstream.url()).section("server", &tls).start().await;
    let at = rig.app.server_address();
    let mut old = Wire::over(connect(at, &before, None, &[]).await.expect("a handshake"));
    let ask = format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", NAME));
    old.send(&ask).await;
    assert_eq!(old.answer().await.status, 200);
    after.leaf("127.0.0.1").write(folder.path(), None);
    rig.app.reload(&rig.settings(|text| text).expect("settings")).expect("a reload");
    assert!(connect(at, &before, None, &[]).await.is_err(), "the old certificate is still shown");
    assert!(is_served(&rig, connect(at, &after, None, &[]).await).await);
    old.send(&ask).await;
    assert_eq!(old.answer().await.status, 200, "an open connection goes on");
    // A file without a certificate is a fault, reported with its configuration key.
    std::fs::write(folder.path().join("cert.pem"), "nonsense").expect("a file");
    let faults = rig.settings(|text| text).expect_err("a fault").to_string();
    assert!(faults.contains("server.tls.cert"), "{faults}");
    rig.stop().await;
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_its_request_is_admitted() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).tenant("payments", "routes = [\"cft\"]").start().await;
    let expect = "content-type: application/json\r\nexpect: 100-continue\r\n";
    // The request is refused before any byte of the body, and without a 100.
    let nobody = format!(
        "POST {NAME} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer nobody\r\n{expect}content-length: 50\r\n\r\n"
    );
    let team = rig.head("lending", "POST", BANK);
    let refused = [
        (nobody, 401),
        (format!("{}{expect}content-length: 50\r\n\r\n", rig.head("lending", "POST", "/businesses/1")), 403),
        (format!("{}{expect}content-length: 50\r\n\r\n", rig.head("payments", "POST", NAME)), 403),
        (format!("{}{expect}content-length: 50\r\n\r\n", rig.head("lending", "POST", "/v1//x")), 400),
        (format!("{team}{expect}content-length: 104857600\r\n\r\n"), 413),
    ];
    for (head, status) in refused {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(&head).await;
        assert_eq!(wire.head().await.expect("a head").status(), status, "{head}");
    }
    assert!(upstream.heard().is_empty());
    for path in [NAME, BANK, "/v9/new"] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let head = rig.head("lending", "POST", path);
        wire.send(format!("{head}{expect}content-length: {}\r\n\r\n", QUESTION.len())).await;
        assert_eq!(wire.head().await.expect("a head").status(), 100, "{path}");
        wire.send(QUESTION).await;
        assert_eq!(wire.answer().await.status, 200, "{path}");
        let sealed = QUESTION.replace('}', r#","reference_id":"lending:"}"#);
        let expected = if path == BANK { sealed.as_str() } else { QUESTION };
        assert_eq!(upstream.heard().pop().expect("a call").body, expected, "{path}");
    }
    rig.stop().await;
}

type Trailers = Arc<Mutex<HeaderMap>>;

/// Starts an upstream that records a request's trailers, and answers with trailers of its own.
async fn trailing() -> (Upstream, Trailers) {
    let noted = Trailers::default();
    let note = Arc::clone(&noted);
    let upstream = Upstream::on_connection(move |stream| {
        let note = Arc::clone(&note);
        async move {
            let mut wire = Wire::over(stream);
            while let Some(head) = wire.head().await {
                let Some((_, trailers)) = wire.body(&head).await else { return };
                *note.lock().expect("a record") = trailers;
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n").await;
                wire.send("2\r\n{}\r\n0\r\nx-checksum: of the answer\r\n\r\n").await;
            }
        }
    })
    .await;
    (upstream, noted)
}

#[tokio::test]
async fn trailers_of_h1_pass_both_ways() {
    let (upstream, noted) = trailing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let fields = "transfer-encoding: chunked\r\ntrailer: x-digest\r\nte: trailers\r\n\r\n";
    wire.send(format!(
        "{}{fields}2\r\n{{}}\r\n0\r\nx-digest: of the request\r\n\r\n",
        rig.head("lending", "POST", FACE)
    ))
    .await;
    let head = wire.head().await.expect("a head");
    let (body, trailers) = wire.body(&head).await.expect("a body");
    assert_eq!((head.status(), &body[..]), (200, &b"{}"[..]));
    assert_eq!(trailers.get("x-checksum").map(HeaderValue::as_bytes), Some(&b"of the answer"[..]), "{head:?}");
    let got = noted.lock().expect("a record").clone();
    assert_eq!(got.get("x-digest").map(HeaderValue::as_bytes), Some(&b"of the request"[..]), "{got:?}");
    rig.stop().await;
}

#[tokio::test]
async fn trailers_of_h2_pass_both_ways() {
    let (upstream, noted) = trailing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut sender = speak(TcpStream::connect(rig.app.server_address()).await.expect("a connection")).await;
    let own = HeaderMap::from_iter([("x-digest".parse().expect("a name"), HeaderValue::from_static("of the request"))]);
    let body = frames(vec![Frame::data(Bytes::from_static(b"{}")), Frame::trailers(own)]);
    let mut request = h2_request(&rig, "POST", FACE, body);
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request.headers_mut().insert("trailer", HeaderValue::from_static("x-digest"));
    let response = sender.send_request(request).await.expect("an answer");
    let whole = response.into_body().collect().await.expect("a body");
    let trailers = whole.trailers().cloned().unwrap_or_default();
    assert_eq!(trailers.get("x-checksum").map(HeaderValue::as_bytes), Some(&b"of the answer"[..]));
    let got = noted.lock().expect("a record").clone();
    assert_eq!(got.get("x-digest").map(HeaderValue::as_bytes), Some(&b"of the request"[..]), "{got:?}");
    drop(sender);
    rig.stop().await;
}

#[tokio::test]
async fn uploads_with_and_without_a_length_pass() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for path in [FACE, "/v9/new"] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let head = rig.head("lending", "POST", path);
        wire.send(format!("{head}content-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n3;name=x\r\nabc\r\n"))
            .await;
        wire.send("10\r\n0123456789abcdef\r\n0\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
        let heard = upstream.heard().pop().expect("a call");
        assert_eq!(
            (&heard.body[..], &heard.headers["content-type"]),
            (&b"abc0123456789abcdef"[..], &HeaderValue::from_static("image/png"))
        );
        assert!(!heard.headers.contains_key("content-length"));
        wire.send(format!("{head}content-type: image/png\r\ncontent-length: 4\r\n\r\n\0\r\n\x7f")).await;
        assert_eq!(wire.answer().await.status, 200);
        let heard = upstream.heard().pop().expect("a call");
        assert_eq!((&heard.body[..], heard.headers["content-length"].as_bytes()), (&b"\0\r\n\x7f"[..], &b"4"[..]));
        // A request without a body stays one.
        wire.send(format!("{head}\r\n")).await;
        assert_eq!(wire.answer().await.status, 200);
        assert!(upstream.heard().pop().expect("a call").body.is_empty());
    }
    rig.stop().await;
}

fn zipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("compression");
    encoder.finish().expect("compression")
}

/// Starts an upstream that compresses every answer.
async fn compressing() -> Upstream {
    Upstream::answering(|_| {
        let response = Response::builder().header("content-type", "application/json").header("etag", "\"x\"");
        let response = response.header("content-encoding", "gzip").header("content-digest", "sha-256=:eA==:");
        response.body(Full::new(Bytes::from(zipped(FOUND)))).expect("a response")
    })
    .await
}

#[tokio::test]
async fn encodings_pass_untouched_where_nothing_is_read() {
    let upstream = compressing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    // The answer to an unknown route may contain a reference, which can't be found in an encoded body.
    let unknown = rig.ask("lending", "POST", "/v9/new").header("content-type", "application/json");
    let unknown = unknown.header("content-encoding", "gzip").body(zipped("{}")).send().await;
    unknown.is_rejection(400, "API_VALIDATION_ERROR");
    assert_eq!(unknown.header("x-gateway-error"), "encoded_body");
    assert!(upstream.heard().is_empty());
    for (method, path) in [("POST", FACE), ("POST", NAME), ("GET", PHONE)] {
        let ask =
            rig.ask("lending", method, path).header("accept-encoding", "gzip, br").header("content-encoding", "gzip");
        let answer = ask.body(if method == "GET" { Vec::new() } else { zipped("{}") }).send().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &zipped(FOUND)[..]), "{method} {path}");
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert_eq!((answer.header("etag"), answer.header("content-digest")), ("\"x\"", "sha-256=:eA==:"));
        let heard = upstream.heard().pop().expect("a call");
        assert_eq!(heard.headers["accept-encoding"], "gzip, br", "{method} {path}");
        if method == "POST" {
            assert_eq!(
                (&heard.body[..], heard.headers["content-encoding"].as_bytes()),
                (&zipped("{}")[..], &b"gzip"[..])
            );
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_encoded_answer_is_decoded_where_it_is_read() {
    let upstream = compressing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for n in 0..2 {
        let answer = rig.post("lending", BANK, QUESTION).header("accept-encoding", "gzip, br").send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND), "request {n}");
        for gone in ["content-encoding", "etag", "content-digest"] {
            assert_eq!(answer.header(gone), "", "{gone} no longer holds");
        }
    }
    assert_eq!(upstream.heard().len(), 1);
    assert_eq!(upstream.heard()[0].headers["accept-encoding"], "identity");
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_of_h1_is_kept_and_may_be_pipelined() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let name = |n| format!("{}content-length: 7\r\n\r\n{{\"n\":{n}}}", rig.head("lending", "POST", NAME));
    let bank = format!(
        "{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}",
        rig.head("lending", "POST", BANK),
        QUESTION.len()
    );
    let refused = format!("{}\r\n", rig.head("lending", "GET", "/businesses"));
    wire.send([name(1), bank.clone(), refused, bank, name(2)].concat()).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(wire.answer().await.status);
    }
    assert_eq!(statuses, [200, 200, 403, 200, 200]);
    let targets: Vec<_> = upstream.heard().into_iter().map(|heard| heard.target).collect();
    assert_eq!(targets, [NAME, BANK, NAME]);
    wire.send(name(3).replace("content-length", "connection: close\r\ncontent-length")).await;
    assert_eq!(wire.answer().await.status, 200);
    assert!(wire.rest().await.is_empty(), "closed, as the client asked");
    // An HTTP/1.0 connection is not kept.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(name(4).replace("HTTP/1.1", "HTTP/1.0")).await;
    assert_eq!(wire.answer().await.status, 200);
    assert!(wire.rest().await.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_with_tls_is_trusted_by_the_extra_authority() {
    for (protocols, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
        let (upstream, versions) = secure_upstream(&authority.leaf("127.0.0.1"), protocols).await;
        let extra_ca = format!("extra_ca = {:?}", authority.write(folder.path(), "ca.pem"));
        let url = upstream.url().replace("http:", "https:");
        let rig = Rig::builder().upstream(url).section("upstream", &extra_ca).start().await;
        for (method, path) in [("POST", FACE), ("POST", BANK), ("GET", PHONE), ("GET", CODES)] {
            let ask = rig.ask("lending", method, path);
            let ask = if method == "POST" { ask.json(QUESTION) } else { ask };
            let answer = ask.send().await;
            assert_eq!(answer.status, 200, "{method} {path} over {protocols:?}: {}", answer.text());
            assert_eq!(answer.json()["path"], path);
        }
        let large = rig.ask("lending", "POST", FACE).body(vec![b'x'; 3 * MEBIBYTE]).send().await;
        assert_eq!(large.json()["bytes"], 3 * MEBIBYTE);
        assert_eq!(*versions.lock().expect("a record"), [version; 5]);
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_trusted_gets_nothing() {
    let (folder, authority, others) = (TempDir::new().expect("a folder"), Authority::new(), Authority::new());
    let extra_ca = format!("extra_ca = {:?}", authority.write(folder.path(), "ca.pem"));
    // One certificate has an unknown issuer; the other is trusted, but has another host name.
    for leaf in [others.leaf("127.0.0.1"), authority.leaf("elsewhere.test")] {
        let (upstream, versions) = secure_upstream(&leaf, &["h2", "http/1.1"]).await;
        let url = upstream.url().replace("http:", "https:");
        let rig = Rig::builder().upstream(url).section("upstream", &extra_ca).start().await;
        for path in [FACE, BANK] {
            rig.post("lending", path, QUESTION).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
        }
        rig.ask("lending", "GET", PHONE).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
        assert!(versions.lock().expect("a record").is_empty());
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_post_is_sent_again_if_the_handshake_broke() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let acceptor = authority.leaf("127.0.0.1").acceptor(&["http/1.1"]);
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let shared = (Arc::clone(&connections), Arc::clone(&requests));
    let upstream = Upstream::on_connection(move |stream| {
        let (acceptor, first) = (acceptor.clone(), shared.0.fetch_add(1, Ordering::SeqCst) == 0);
        let requests = Arc::clone(&shared.1);
        async move {
            if first {
                // No part of the request can have been sent at this point.
                Wire::over(stream).exactly(5).await;
                return;
            }
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let mut wire = Wire::over(stream);
            while wire.request().await.is_some() {
                requests.fetch_add(1, Ordering::SeqCst);
                wire.send(answer(200, FOUND)).await;
            }
        }
    })
    .await;
    let extra_ca = format!("extra_ca = {:?}", authority.write(folder.path(), "ca.pem"));
    let url = upstream.url().replace("http:", "https:");
    let rig = Rig::builder().upstream(url).section("upstream", &extra_ca).start().await;
    let answer = rig.post("lending", NAME, "{}").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((connections.load(Ordering::SeqCst), requests.load(Ordering::SeqCst)), (2, 1));
    rig.stop().await;
}

#[tokio::test]
async fn an_h2_upstream_that_says_goodbye_costs_no_post_a_second_call() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let acceptor = authority.leaf("127.0.0.1").acceptor(&["h2"]);
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    // Each connection announces its end with its first answer.
    let upstream = Upstream::on_connection(move |stream| {
        let (acceptor, posts) = (acceptor.clone(), Arc::clone(&counted));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let enough = Arc::new(tokio::sync::Notify::new());
            let done = Arc::clone(&enough);
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let (posts, done) = (Arc::clone(&posts), Arc::clone(&done));
                async move {
                    if request.method() == "POST" {
                        posts.fetch_add(1, Ordering::SeqCst);
                    }
                    let _ = request.into_body().collect().await;
                    done.notify_one();
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let mut connection = std::pin::pin!(server.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
            tokio::select! {
                _ = connection.as_mut() => return,
                () = enough.notified() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    })
    .await;
    let extra_ca = format!("extra_ca = {:?}", authority.write(folder.path(), "ca.pem"));
    let url = upstream.url().replace("http:", "https:");
    let rig = Rig::builder().upstream(url).section("upstream", &extra_ca).start().await;
    for _ in 0..15 {
        assert_eq!(rig.ask("lending", "GET", PHONE).send().await.status, 200);
        let before = posts.load(Ordering::SeqCst);
        let answer = rig.post("lending", NAME, "{}").send().await;
        // A 503 says that nothing was sent, which must be true.
        let most = if answer.status == 503 { before } else { before + 1 };
        assert!(matches!(answer.status, 200 | 503 | 504), "{} {}", answer.status, answer.text());
        assert!(posts.load(Ordering::SeqCst) <= most, "{}: upstream was asked too often", answer.status);
    }
}

#[tokio::test]
async fn a_proxy_leads_to_an_upstream_in_clear() {
    let upstream = Upstream::agreeing().await;
    let proxy = Proxy::to(upstream.addr(), 200).await;
    // The proxy resolves the name.
    let settings = format!("proxy = \"{}\"", proxy.url());
    let rig = Rig::builder().upstream("http://iluma.invalid:8080").section("upstream", &settings).start().await;
    for (method, path) in [("POST", FACE), ("POST", BANK), ("GET", PHONE)] {
        let ask = rig.ask("lending", method, path);
        let answer = if method == "POST" { ask.json(QUESTION) } else { ask }.send().await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    }
    assert_eq!(upstream.heard().len(), 3);
    assert_eq!(upstream.heard()[0].headers["host"], "iluma.invalid:8080");
    assert_eq!(upstream.heard()[0].target, FACE);
    let asked = proxy.asked();
    assert!(asked.iter().all(|head| head.line == "CONNECT iluma.invalid:8080 HTTP/1.1"), "{asked:?}");
    assert!(asked.iter().all(|head| !head.headers.contains_key("authorization")), "{asked:?}");
    assert!(asked.len() <= 2, "tunnels are kept: {asked:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_proxy_leads_to_an_upstream_with_tls() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let (upstream, versions) = secure_upstream(&authority.leaf("iluma.invalid"), &["h2", "http/1.1"]).await;
    let proxy = Proxy::to(upstream.addr(), 200).await;
    let ca = authority.write(folder.path(), "ca.pem");
    let settings = format!("proxy = \"{}\"\nextra_ca = {ca:?}", proxy.url());
    let rig = Rig::builder().upstream("https://iluma.invalid").section("upstream", &settings).start().await;
    for path in [FACE, BANK] {
        let answer = rig.post("lending", path, QUESTION).send().await;
        assert_eq!((answer.status, &answer.json()["path"]), (200, &path.into()), "{}", answer.text());
    }
    assert_eq!(*versions.lock().expect("a record"), [Version::HTTP_2; 2]);
    assert!(proxy.asked().iter().all(|head| head.line == "CONNECT iluma.invalid:443 HTTP/1.1"), "{:?}", proxy.asked());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_a_503() {
    let upstream = Upstream::agreeing().await;
    for status in [403, 407, 502] {
        let proxy = Proxy::to(upstream.addr(), status).await;
        let settings = format!("proxy = \"{}\"", proxy.url());
        let rig = Rig::builder().upstream("http://iluma.invalid:8080").section("upstream", &settings).start().await;
        rig.post("lending", FACE, "{}").send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
        assert!(!proxy.asked().is_empty());
        rig.stop().await;
    }
    let nowhere = "proxy = \"http://127.0.0.1:9\"";
    let rig = Rig::builder().upstream("http://iluma.invalid:8080").section("upstream", nowhere).start().await;
    rig.post("lending", FACE, "{}").send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert!(upstream.heard().is_empty());
    rig.stop().await;
}

/// Checks that the connect timeout bounds the wait for a proxy that never answers its CONNECT.
#[tokio::test]
async fn a_proxy_that_says_nothing_is_a_503() {
    let silent = Upstream::on_connection(|stream| async move {
        Wire::over(stream).rest().await;
    })
    .await;
    let settings = format!("connect_timeout = \"300ms\"\nproxy = \"{}\"", silent.url());
    let rig = Rig::builder().upstream("http://iluma.invalid:8080").section("upstream", &settings).start().await;
    rig.post("lending", FACE, "{}").send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    rig.stop().await;
}

const LARGE: usize = 64 * MEBIBYTE;

/// The largest number of bytes in the kernel buffers of two loopback connections with the system's usual settings, plus
/// a margin.
const IN_BETWEEN: usize = 32 * MEBIBYTE;

/// The time without progress after which a stream counts as stopped.
const STANDSTILL: Duration = Duration::from_millis(400);

/// Returns 64 KiB for the part with the number `n` of a large body. Each part is different.
fn part(n: usize) -> Vec<u8> {
    let mut part = vec![b'.'; 64 << 10];
    part[..8].copy_from_slice(&n.to_be_bytes());
    part
}

#[tokio::test]
async fn an_upload_is_streamed_at_the_pace_of_upstream() {
    let (open, taken, digest) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let shared = (Arc::clone(&open), Arc::clone(&taken), Arc::clone(&digest));
    let upstream = Upstream::on_connection(move |stream| {
        let (open, taken, digest) = (Arc::clone(&shared.0), Arc::clone(&shared.1), Arc::clone(&shared.2));
        async move {
            let mut wire = Wire::over(stream);
            let head = wire.head().await.expect("a head");
            let length: usize = head.header("content-length").parse().expect("a length");
            // Upstream reads nothing of the body until the test allows it.
            open.notified().await;
            let mut hash = Sha256::new();
            while taken.load(Ordering::SeqCst) < length {
                let Some(part) = wire.exactly((length - taken.load(Ordering::SeqCst)).min(64 << 10)).await else {
                    return;
                };
                hash.update(&part);
                taken.fetch_add(part.len(), Ordering::SeqCst);
            }
            *digest.lock().expect("a digest") = hash.finalize().to_vec();
            wire.send(answer(200, "{}")).await;
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let (start, end) =
        ("--b\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n", "\r\n--b--\r\n");
    let length = start.len() + LARGE + end.len();
    let mut stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    let head = rig.head("lending", "POST", FACE);
    let head =
        format!("{head}content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n{start}");
    stream.write_all(head.as_bytes()).await.expect("a head");
    let mut expected = Sha256::new();
    expected.update(start);
    let (mut sent, mut stood) = (0, false);
    for n in 0..LARGE / (64 << 10) {
        let part = part(n);
        expected.update(&part);
        let mut rest = &part[..];
        while !rest.is_empty() {
            match tokio::time::timeout(STANDSTILL, stream.write(rest)).await {
                Ok(count) => {
                    let count = count.expect("an open connection");
                    sent += count;
                    rest = &rest[count..];
                }
                Err(_) => {
                    assert!(sent < IN_BETWEEN, "{sent} bytes were taken while upstream took none");
                    stood = true;
                    open.notify_one();
                }
            }
        }
    }
    assert!(stood, "{sent} bytes were taken while upstream took none");
    stream.write_all(end.as_bytes()).await.expect("the end");
    expected.update(end);
    assert_eq!(Wire::over(stream).answer().await.status, 200);
    assert_eq!(taken.load(Ordering::SeqCst), length);
    assert_eq!(*digest.lock().expect("a digest"), expected.finalize().to_vec(), "not the bytes that were sent");
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_download_is_streamed_at_the_pace_of_the_client() {
    let (sent, standing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let shared = (Arc::clone(&sent), Arc::clone(&standing));
    let upstream = Upstream::on_connection(move |stream| {
        let (sent, standing) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
        async move {
            let mut wire = Wire::over(stream);
            let Some(mut heard) = wire.request().await else { return };
            // This GET finds the owner of the file.
            while heard.target == "/v1/identity/document_ocr_captures/1" {
                wire.send(answer(200, r#"{"id":"1"}"#)).await;
                let Some(next) = wire.request().await else { return };
                heard = next;
            }
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {LARGE}\r\n\r\n")).await;
            for n in 0..LARGE / (64 << 10) {
                let part = part(n);
                let mut rest = &part[..];
                while !rest.is_empty() {
                    match tokio::time::timeout(STANDSTILL, wire.stream.write(rest)).await {
                        Ok(Ok(count)) => {
                            sent.fetch_add(count, Ordering::SeqCst);
                            rest = &rest[count..];
                        }
                        Ok(Err(_)) => return,
                        Err(_) => standing.store(true, Ordering::SeqCst),
                    }
                }
            }
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).tenant("lending", "owns_unprefixed = true").start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}\r\n", rig.head("lending", "GET", "/v1/identity/captures/1/results/a/download"))).await;
    let head = wire.head().await.expect("a head");
    assert_eq!((head.status(), head.header("content-length")), (200, LARGE.to_string().as_str()));
    // The client reads nothing until upstream makes no progress.
    until("upstream stands still", || standing.load(Ordering::SeqCst)).await;
    assert!(sent.load(Ordering::SeqCst) < IN_BETWEEN, "{} bytes were taken", sent.load(Ordering::SeqCst));
    let (mut got, mut expected) = (Sha256::new(), Sha256::new());
    for n in 0..LARGE / (64 << 10) {
        expected.update(part(n));
        got.update(wire.exactly(64 << 10).await.expect("the whole body"));
    }
    assert_eq!(got.finalize(), expected.finalize(), "not the bytes that were sent");
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_is_passed_on_as_it_comes() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    let upstream = Upstream::on_connection(move |stream| {
        let gate = Arc::clone(&gate);
        async move {
            let mut wire = Wire::over(stream);
            if wire.request().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                // No secret begins with a full stop: other ends could be held back as the beginning of one.
                for word in ["6\r\nfirst.\r\n", "7\r\nsecond.\r\n", "0\r\n\r\n"] {
                    gate.acquire().await.expect("a gate").forget();
                    wire.send(word).await;
                }
            }
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    stream.write_all(format!("{}\r\n", rig.head("lending", "GET", PHONE)).as_bytes()).await.expect("sent");
    let mut got = String::new();
    for expected in ["\r\n\r\n", "first.", "second.", "0\r\n\r\n"] {
        while !got.contains(expected) {
            let mut bytes = [0; 4096];
            let count = tokio::time::timeout(crate::support::PATIENCE, stream.read(&mut bytes)).await;
            let count = count.unwrap_or_else(|_| panic!("{expected:?} is held back: {got:?}")).expect("open");
            assert!(count > 0, "{got:?}");
            got.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        go.add_permits(1);
    }
    rig.stop().await;
}
