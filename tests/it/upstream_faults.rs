//! Tests of faults of upstream: the client's answer, and the number of upstream calls.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::h2::{speak, whole};
use crate::support::{Held, Rig, Upstream, Wire, answer, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const CODES: &str = "/bank/available_bank_codes";
const NAME: &str = "/v1/identity/ktp_name/validations";
/// A GET that is free, so the gateway may repeat it.
const LOOK: &str = "/v1/identity/id_card_images/1";
const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";
/// The body of a request about a bank account.
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;
const FOUND: &str = r#"{"id":"1","status":"COMPLETED","result":{"is_found":true}}"#;

/// The longest time that a timeout of 300 ms may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A counter that tasks share.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn is(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// The numbers of connections, of requests' heads and of whole requests that an upstream saw.
#[derive(Clone, Default)]
struct Seen {
    connections: Count,
    heads: Count,
    whole: Count,
}

/// Starts an upstream whose connections, counted from one, `serve` handles.
async fn treating<F, T>(serve: F) -> (Upstream, Seen)
where
    F: Fn(Wire, Seen, usize) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let seen = Seen::default();
    let shared = seen.clone();
    let upstream = Upstream::on_connection(move |stream| {
        let number = shared.connections.up();
        serve(Wire::over(stream), shared.clone(), number)
    })
    .await;
    (upstream, seen)
}

/// Answers every request of a connection.
async fn agree(mut wire: Wire, seen: Seen) {
    while let Some(head) = wire.head().await {
        seen.heads.up();
        if wire.body(&head).await.is_none() {
            return;
        }
        seen.whole.up();
        wire.send(answer(200, FOUND)).await;
    }
}

async fn before(upstream: &Upstream, settings: &str) -> Rig {
    Rig::builder().upstream(upstream.url()).section("upstream", settings).start().await
}

#[tokio::test]
async fn a_refused_connection_is_a_503() {
    let address = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let rig = Rig::builder().upstream(format!("http://{address}")).start().await;
    for path in [BANK, CFT, NAME, "/v9/new"] {
        rig.post("lending", path, QUESTION).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    }
    for path in [CODES, PHONE, "/health"] {
        rig.ask("lending", "GET", path).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    }
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_is_a_503() {
    // Upstream accepts connections, and never answers.
    let (upstream, seen) = treating(|mut wire, _, _| async move {
        wire.rest().await;
    })
    .await;
    let url = upstream.url().replace("http:", "https:");
    let rig = Rig::builder().upstream(url).section("upstream", "connect_timeout = \"300ms\"").start().await;
    for (method, path) in [("POST", NAME), ("POST", BANK), ("GET", PHONE)] {
        let began = Instant::now();
        let ask = rig.ask("lending", method, path);
        let ask = if method == "POST" { ask.json(QUESTION) } else { ask };
        ask.send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    }
    assert!((3..=12).contains(&seen.connections.is()), "{} connections", seen.connections.is());
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_never_taken_is_a_503() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    // The loop fills the backlog. After that the kernel drops new connections.
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream);
        assert!(waiting.len() < 100, "this backlog has no end");
    }
    let rig = Rig::builder()
        .upstream(format!("http://{address}"))
        .section("upstream", "connect_timeout = \"300ms\"")
        .start()
        .await;
    let began = Instant::now();
    rig.post("lending", NAME, "{}").send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn no_answer_is_a_504_and_is_asked_for_once() {
    let held = Held::start().await;
    let rig = before(&held.upstream, "timeout = \"300ms\"").await;
    for (n, path) in [NAME, BANK, CFT, "/v9/new"].into_iter().enumerate() {
        let began = Instant::now();
        rig.post("lending", path, QUESTION).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
        assert!((Duration::from_millis(290)..SOON).contains(&began.elapsed()), "{path}: {:?}", began.elapsed());
        assert_eq!(held.arrived(), n + 1, "{path}");
    }
    let began = Instant::now();
    rig.ask("lending", "GET", PHONE).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn the_timeout_starts_when_the_request_was_wholly_sent() {
    let (upstream, _) = treating(|wire, seen, _| agree(wire, seen)).await;
    let rig = before(&upstream, "timeout = \"400ms\"").await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!(
        "{}content-type: application/json\r\ncontent-length: 10\r\n\r\n",
        rig.head("lending", "POST", NAME)
    ))
    .await;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 {
        pace.tick().await;
        wire.send("1").await;
    }
    assert_eq!(wire.answer().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_post_whose_answer_breaks_is_a_504_and_is_never_sent_twice() {
    type Ending = fn(Wire) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let endings: [(&str, Ending); 7] = [
        ("closed", |wire| Box::pin(async move { drop(wire) })),
        ("reset", |wire| Box::pin(async move { wire.reset() })),
        ("garbage", |mut wire| Box::pin(async move { wire.send("\0\u{1}garbage\r\n\r\n").await })),
        ("half a head", |mut wire| Box::pin(async move { wire.send("HTTP/1.1 200 OK\r\nconten").await })),
        ("a status of none", |mut wire| Box::pin(async move { wire.send("HTTP/1.1 999999 OK\r\n\r\n").await })),
        ("two lengths", |mut wire| {
            Box::pin(async move {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}").await;
            })
        }),
        ("a head without end", |mut wire| {
            Box::pin(async move { wire.send(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2 << 20))).await })
        }),
    ];
    for (what, ending) in endings {
        let (upstream, seen) = treating(move |mut wire, seen, _| async move {
            if wire.request().await.is_some() {
                seen.whole.up();
                ending(wire).await;
            }
        })
        .await;
        let rig = before(&upstream, "").await;
        for (n, path) in [NAME, BANK, CFT, "/v9/new"].into_iter().enumerate() {
            let answer = rig.post("lending", path, QUESTION).send().await;
            assert_eq!(answer.status, 504, "{what} on {path}: {}", answer.text());
            answer.is_rejection(504, "UPSTREAM_TIMEOUT");
            assert_eq!(seen.whole.is(), n + 1, "{what} on {path}");
        }
        rig.is_idle().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_reset_while_the_body_is_sent_is_a_504_and_is_never_sent_twice() {
    let (upstream, seen) = treating(|mut wire, seen, _| async move {
        if wire.head().await.is_some() {
            seen.heads.up();
            wire.reset();
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!(
        "{}content-type: application/json\r\ncontent-length: 10\r\n\r\n12345",
        rig.head("lending", "POST", NAME)
    ))
    .await;
    until("a head at upstream", || seen.heads.is() == 1).await;
    wire.send("67890").await;
    wire.answer().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    assert_eq!(seen.heads.is(), 1);
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_get_on_a_connection_that_upstream_gave_up_is_sent_again() {
    // The first connection answers one request. After the second request it closes without an answer.
    let (upstream, seen) = treating(|mut wire, seen, number| async move {
        if number > 1 {
            return agree(wire, seen).await;
        }
        for _ in 0..2 {
            if wire.request().await.is_none() {
                return;
            }
            if seen.heads.up() == 1 {
                wire.send(answer(200, FOUND)).await;
            }
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).tenant("lending", "owns_unprefixed = true").start().await;
    assert_eq!(rig.ask("lending", "GET", LOOK).send().await.status, 200);
    assert_eq!(rig.ask("lending", "GET", LOOK).send().await.status, 200);
    assert_eq!((seen.connections.is(), seen.heads.is()), (2, 3));
    rig.stop().await;
}

#[tokio::test]
async fn a_post_on_a_connection_that_upstream_gave_up_is_not_sent_again() {
    let (upstream, seen) = treating(|mut wire, seen, number| async move {
        if number > 1 {
            return agree(wire, seen).await;
        }
        for _ in 0..2 {
            let Some(heard) = wire.request().await else { return };
            if heard.method == "POST" {
                seen.heads.up();
                return;
            }
            wire.send(answer(200, FOUND)).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    assert_eq!(rig.ask("lending", "GET", PHONE).send().await.status, 200);
    rig.post("lending", NAME, "{}").send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    assert_eq!(seen.heads.is(), 1, "the same payment twice");
    // The next request succeeds.
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn connections_that_upstream_closes_between_requests_cost_no_post_a_second_call() {
    // Each connection closes directly after its first answer.
    let (upstream, seen) = treating(|mut wire, seen, _| async move {
        if wire.request().await.is_some() {
            seen.whole.up();
            wire.send(answer(200, FOUND)).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    for n in 1..=30 {
        let before = seen.whole.is();
        let answer = rig.post("lending", NAME, format!("{{\"n\":{n}}}")).send().await;
        assert!(matches!(answer.status, 200 | 504), "{} {}", answer.status, answer.text());
        assert!(seen.whole.is() <= before + 1, "sent twice");
        assert_eq!(rig.ask("lending", "GET", PHONE).send().await.status, 200, "a GET is sent again");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_get_is_tried_only_so_often() {
    let (upstream, seen) = treating(|mut wire, seen, _| async move {
        if wire.request().await.is_some() {
            seen.heads.up();
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    rig.ask("lending", "GET", PHONE).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
    assert!((1..=5).contains(&seen.heads.is()), "{} times", seen.heads.is());
    // The budget and the circuit breaker protect a failing upstream from repeated GETs of every client.
    for _ in 0..50 {
        let answer = rig.ask("lending", "GET", PHONE).send().await;
        match answer.header("x-gateway-error") {
            "circuit_open" => answer.is_rejection(503, "SERVICE_UNAVAILABLE"),
            _ => answer.is_rejection(504, "UPSTREAM_TIMEOUT"),
        };
    }
    assert!(seen.heads.is() < 51 * 2, "{} times for 51 requests", seen.heads.is());
    rig.stop().await;
}

/// Starts an upstream that answers each connection's first request with `start`, and then stalls or closes.
async fn breaking_off(start: &'static str, stall: bool) -> (Upstream, Seen) {
    treating(move |mut wire, seen, _| async move {
        if wire.request().await.is_some() {
            seen.whole.up();
            wire.send(start).await;
            if stall {
                wire.rest().await;
            }
        }
    })
    .await
}

const CUT_OFF: [&str; 3] = [
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"status\":\"COMP",
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n20\r\n{}",
];

#[tokio::test]
async fn a_truncated_answer_is_a_broken_connection_and_never_a_short_success() {
    for start in CUT_OFF {
        let (upstream, _) = breaking_off(start, false).await;
        let rig = before(&upstream, "").await;
        for (method, path) in [("GET", PHONE), ("POST", NAME), ("POST", "/v9/new")] {
            let mut wire = Wire::connect(rig.app.server_address()).await;
            wire.send(format!("{}content-length: 0\r\n\r\n", rig.head("lending", method, path))).await;
            if let Some(whole) = wire.try_answer().await {
                // JSON on an unknown path is read whole before it is passed on.
                if path == "/v9/new" && whole.header("x-gateway-error") == "upstream_truncated" {
                    continue;
                }
                panic!("{method} {path} of {start:?}: {} {:?} {:?}", whole.status, whole.headers, whole.text());
            }
        }
        rig.is_idle().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_truncated_answer_is_a_broken_stream_over_h2() {
    for start in CUT_OFF {
        let (upstream, _) = breaking_off(start, false).await;
        let rig = before(&upstream, "").await;
        let mut sender = speak(TcpStream::connect(rig.app.server_address()).await.expect("a connection")).await;
        for path in [NAME, "/v9/new"] {
            let request = Request::post(rig.url(path)).header("authorization", rig.basic("lending"));
            let response = sender.send_request(request.body(whole("{}")).expect("a request")).await;
            let Ok(response) = response else { continue };
            if path == "/v9/new" && response.headers().contains_key("x-gateway-error") {
                assert_eq!(response.status(), 504);
                continue;
            }
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await;
            assert!(body.is_err(), "{path} of {start:?} ended well: {body:?}");
        }
        // The connection itself stays usable.
        let health = Request::get(rig.url("/businesses")).body(whole("")).expect("a request");
        assert!(sender.send_request(health).await.is_ok());
        drop(sender);
        rig.is_idle().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_truncated_answer_that_is_read_is_a_504() {
    for start in CUT_OFF {
        let (upstream, seen) = breaking_off(start, false).await;
        let rig = before(&upstream, "").await;
        for (n, path) in [BANK, CFT].into_iter().enumerate() {
            rig.post("lending", path, QUESTION).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
            assert_eq!(seen.whole.is(), n + 1, "{path}");
        }
        for path in [CODES, "/health"] {
            rig.ask("lending", "GET", path).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
        }
        rig.is_idle().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_stops_coming_is_given_up() {
    for start in CUT_OFF {
        let (upstream, _) = breaking_off(start, true).await;
        let rig = before(&upstream, "idle_timeout = \"300ms\"").await;
        let began = Instant::now();
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(format!("{}\r\n", rig.head("lending", "GET", PHONE))).await;
        assert!(wire.try_answer().await.is_none());
        rig.post("lending", BANK, QUESTION).send().await.is_rejection(504, "UPSTREAM_TIMEOUT");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        rig.is_idle().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_slow_but_steady_answer_is_not_given_up() {
    let (upstream, _) = treating(|mut wire, _, _| async move {
        if wire.request().await.is_some() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n").await;
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for _ in 0..20 {
                pace.tick().await;
                wire.send("x").await;
            }
        }
    })
    .await;
    let rig = before(&upstream, "idle_timeout = \"600ms\"\ntimeout = \"600ms\"").await;
    let answer = rig.ask("lending", "GET", PHONE).send().await;
    assert_eq!((answer.status, answer.body.len()), (200, 20));
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_before_the_upload_is_done_reaches_the_client() {
    let body = r#"{"error_code":"FILE_TOO_LARGE","message":"no"}"#;
    let (upstream, _) = treating(move |mut wire, _, _| async move {
        if wire.head().await.is_some() {
            wire.send(answer(413, body).replace("content-type", "connection: close\r\ncontent-type")).await;
            // Upstream reads nothing more, and does not close before the gateway does.
            let _ = wire.stream.readable().await;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let head = rig.head("lending", "POST", NAME);
    wire.send(format!("{head}content-type: image/png\r\ncontent-length: 100000000\r\n\r\n{}", "x".repeat(100_000)))
        .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, body));
    assert_eq!(answer.header("x-gateway-error"), "", "it is upstream's own");
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_uploads_aborts_the_call() {
    let (upstream, seen) = treating(|mut wire, seen, _| async move {
        let Some(head) = wire.head().await else { return };
        seen.heads.up();
        match wire.body(&head).await {
            Some(_) => seen.whole.up(),
            // An incomplete body is counted as one more connection.
            None => seen.connections.up(),
        };
    })
    .await;
    let rig = before(&upstream, "").await;
    for (n, framing) in ["content-length: 1000", "transfer-encoding: chunked"].into_iter().enumerate() {
        let start = if n == 0 { "12345" } else { "5\r\n12345\r\n" };
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(format!("{}{framing}\r\n\r\n{start}", rig.head("lending", "POST", NAME))).await;
        until("a head at upstream", || seen.heads.is() == n + 1).await;
        wire.reset();
        until("its end", || seen.connections.is() == 2 * (n + 1)).await;
    }
    assert_eq!(seen.whole.is(), 0, "upstream took a part for the whole");
    rig.is_idle().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_after_its_request_does_not_stop_the_call() {
    let held = Held::start().await;
    let rig = before(&held.upstream, "").await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let head = rig.head("lending", "POST", BANK);
    wire.send(format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}", QUESTION.len()))
        .await;
    held.holds(1).await;
    wire.reset();
    rig.logged_line(|line| line["status"] == 499).await;
    held.release(1);
    rig.metric_becomes("iluma_gateway_cache_entries", |entries| entries == 1.0).await;
    let answer = rig.post("payments", BANK, QUESTION).send().await;
    assert!(answer.header("cache-status").starts_with("iluma-gateway; hit"), "{:?}", answer.headers);
    assert_eq!(held.arrived(), 1, "paid once");
    rig.stop().await;
}

#[tokio::test]
async fn a_streamed_post_is_finished_for_a_client_that_hung_up() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    // Upstream gives no answer if the gateway closes the connection before.
    let (upstream, seen) = treating(move |mut wire, seen, _| {
        let gate = Arc::clone(&gate);
        async move {
            if wire.request().await.is_none() {
                return;
            }
            seen.heads.up();
            tokio::select! {
                _ = wire.head() => return,
                permit = gate.acquire() => permit.expect("a gate").forget(),
            }
            wire.send(answer(200, FOUND)).await;
            seen.whole.up();
            agree(wire, seen).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}content-length: 2\r\n\r\n{{}}", rig.head("lending", "POST", NAME))).await;
    until("it is at upstream", || seen.heads.is() == 1).await;
    wire.reset();
    rig.logged_line(|line| line["status"] == 499).await;
    // The gateway reads the answer, and may use the connection for the next request.
    go.add_permits(1);
    until("it was answered", || seen.whole.is() == 1).await;
    let upstream_calls = r#"iluma_gateway_upstream_requests_total{account="live",route="ktp",status="200"}"#;
    rig.metric_becomes(upstream_calls, |calls| calls == 1.0).await;
    go.add_permits(1);
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn upstream_connections_are_kept_and_used_again() {
    let (upstream, seen) = treating(|wire, seen, _| agree(wire, seen)).await;
    let rig = before(&upstream, "").await;
    for n in 0..20 {
        assert_eq!(rig.ask("lending", "GET", PHONE).send().await.status, 200);
        assert_eq!(rig.post("payments", NAME, "{}").send().await.status, 200);
        let question = QUESTION.replace("1234567855", &format!("{n}"));
        assert_eq!(rig.post("lending", BANK, question).send().await.status, 200);
    }
    assert_eq!(seen.whole.is(), 60);
    assert!(seen.connections.is() <= 2, "{} connections for 60 requests one after another", seen.connections.is());
    rig.stop().await;
}

#[tokio::test]
async fn an_upstream_that_wants_no_second_request_gets_none() {
    let (upstream, seen) = treating(|mut wire, seen, _| async move {
        while wire.request().await.is_some() {
            seen.whole.up();
            wire.send(answer(200, FOUND).replace("content-type", "connection: close\r\ncontent-type")).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    for _ in 0..5 {
        assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
    }
    assert_eq!((seen.connections.is(), seen.whole.is()), (5, 5));
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    let (upstream, _) = treating(|mut wire, _, _| async move {
        if wire.request().await.is_some() {
            wire.send(format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{FOUND}")).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    for path in [NAME, BANK] {
        let answer = rig.post("lending", path, QUESTION).send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn interim_answers_are_not_taken_for_the_answer() {
    let (upstream, _) = treating(|mut wire, _, _| async move {
        while wire.request().await.is_some() {
            wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n").await;
            wire.send(answer(200, FOUND)).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    for path in [NAME, BANK] {
        let answer = rig.post("lending", path, QUESTION).send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn upstreams_own_errors_pass_as_they_came() {
    let upstream = Upstream::answering(|heard| {
        let status: u16 = heard.headers["x-want"].to_str().expect("text").parse().expect("a status");
        let body = format!(r#"{{ "error_code":"X_{status}", "message":"as it is", "errors":[1] }}"#);
        let response = Response::builder().status(status).header("content-type", "application/json; charset=utf-8");
        response.header("x-own", "1").header("location", "/elsewhere").body(Full::new(Bytes::from(body))).expect("it")
    })
    .await;
    let rig = before(&upstream, "forward_headers = [\"x-want\"]").await;
    for status in [302, 400, 401, 403, 404, 409, 418, 429, 500, 502, 503, 504, 599] {
        for path in [NAME, BANK] {
            let answer = rig.post("lending", path, QUESTION).header("x-want", status.to_string()).send().await;
            let body = format!(r#"{{ "error_code":"X_{status}", "message":"as it is", "errors":[1] }}"#);
            assert_eq!((answer.status, answer.text()), (status, body), "{path}");
            assert_eq!(answer.header("x-gateway-error"), "", "{status} on {path} is not the gateway's");
            assert!(!answer.header("x-request-id").is_empty());
        }
    }
    assert_eq!(upstream.heard().len(), 26, "nothing was sent again, no redirect followed");
    rig.stop().await;
}

#[tokio::test]
async fn an_error_of_upstream_never_shows_the_accounts_key() {
    let upstream = Upstream::answering(|heard| {
        let sent = heard.headers["authorization"].to_str().expect("text");
        let plain = STANDARD.decode(sent.trim_start_matches("Basic ")).expect("base64");
        let key = String::from_utf8(plain).expect("text");
        let body = format!(r#"{{"error_code":"X","message":"{} and {sent} are unknown"}}"#, key.trim_end_matches(':'));
        let response = Response::builder().status(401).header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body))).expect("a response")
    })
    .await;
    let rig = before(&upstream, "").await;
    let encoded = STANDARD.encode(format!("{}:", rig.account_key));
    for path in [NAME, BANK, "/v9/new"] {
        let answer = rig.post("lending", path, QUESTION).send().await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(!answer.text().contains(&rig.account_key), "{path}: the account's key went to a team");
        assert!(!answer.text().contains(&encoded), "{path}: the account's credential went to a team");
    }
    rig.stop().await;
}

#[tokio::test]
async fn upstream_may_say_when_to_come_back_by_a_date() {
    let upstream = Upstream::answering(|_| {
        let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(30));
        let response = Response::builder().status(429).header("retry-after", date);
        response.body(Full::new(Bytes::from_static(b"{}"))).expect("a response")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).account("max_wait = \"0s\"").start().await;
    assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 429);
    let refused = rig.post("lending", NAME, "{}").send().await;
    refused.is_rejection(429, "RATE_LIMIT_EXCEEDED");
    let seconds: u64 = refused.header("retry-after").parse().expect("whole seconds");
    assert!((20..=30).contains(&seconds), "{seconds}");
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn an_early_answer_is_read_though_upstream_closed_with_the_upload_unread() {
    for (status, framing) in [(413, "content-length: 2"), (401, "connection: close\r\ncontent-length: 2")] {
        let (upstream, seen) = treating(move |mut wire, seen, _| async move {
            if wire.head().await.is_some() {
                seen.heads.up();
                wire.send(format!("HTTP/1.1 {status} X\r\n{framing}\r\n\r\n{{}}")).await;
                // Upstream closes without reading the upload, so the connection may end with a reset.
            }
        })
        .await;
        let rig = before(&upstream, "").await;
        for n in 0..25 {
            let ask = rig.ask("lending", "POST", NAME).header("content-type", "image/png");
            let answer = ask.body(vec![b'x'; 3 << 20]).send().await;
            assert_eq!((answer.status, answer.text().as_str()), (status, "{}"), "upload {n}");
        }
        assert_eq!(seen.heads.is(), 25, "nothing was sent twice");
        rig.is_idle().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_length_beside_a_transfer_encoding_says_nothing() {
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(24));
    let sent = body.clone();
    let (upstream, _) = treating(move |mut wire, _, _| {
        let body = sent.clone();
        async move {
            while wire.request().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3\r\n").await;
                wire.send(format!("transfer-encoding: chunked\r\n\r\n20\r\n{body}\r\n0\r\n\r\n")).await;
            }
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    assert_eq!(body.len(), 32);
    for path in [NAME, BANK, "/v9/new"] {
        let answer = rig.post("lending", path, QUESTION).send().await;
        assert_eq!((answer.status, answer.text()), (200, body.clone()), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_an_error() {
    let (upstream, seen) = treating(|mut wire, seen, _| async move {
        while wire.request().await.is_some() {
            seen.whole.up();
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
            wire.send(answer(200, FOUND)).await;
        }
    })
    .await;
    let rig = before(&upstream, "").await;
    for (n, path) in [NAME, BANK].into_iter().enumerate() {
        let answer = rig.post("lending", path, QUESTION).send().await;
        answer.is_rejection(504, "UPSTREAM_TIMEOUT");
        assert_eq!(answer.header("x-gateway-error"), "upstream_garbled", "{path}");
        assert_eq!(seen.whole.is(), n + 1, "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_answers_head_is_bound_by_bytes_and_not_by_fields() {
    let (upstream, _) = treating(|mut wire, _, _| async move {
        while let Some(heard) = wire.request().await {
            let count: usize = heard.headers["x-fields"].to_str().expect("text").parse().expect("a number");
            let fields: String = (0..count).map(|n| format!("x-field-{n}: {n:06}\r\n")).collect();
            wire.send(answer(200, FOUND).replace("content-type", &format!("{fields}content-type"))).await;
        }
    })
    .await;
    let rig = before(&upstream, "forward_headers = [\"x-fields\"]").await;
    for path in [NAME, BANK] {
        for (count, status) in [(98, 200), (99, 200), (101, 200), (1000, 200), (2500, 200), (5000, 504)] {
            // Each request has another bank account, so that no answer comes from the cache.
            let question = QUESTION.replace("1234567855", &format!("77{count}"));
            // A plain connection is used, because common HTTP clients accept at most 100 headers.
            let mut wire = Wire::connect(rig.app.server_address()).await;
            let head = rig.head("lending", "POST", path);
            let fields = format!("content-type: application/json\r\nx-fields: {count}\r\n");
            wire.send(format!("{head}{fields}content-length: {}\r\n\r\n{question}", question.len())).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, status, "{count} fields on {path}: {}", answer.text());
            if status == 200 && path == NAME {
                assert_eq!(answer.header(&format!("x-field-{}", count - 1)), format!("{:06}", count - 1));
            }
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_serves_no_longer_than_five_minutes() {
    let (upstream, seen) = treating(|wire, seen, _| agree(wire, seen)).await;
    let rig = before(&upstream, "").await;
    let mut opened = Vec::new();
    // Each pause is shorter than the idle timeout of a connection.
    for _ in 0..32 {
        assert_eq!(rig.post("lending", NAME, "{}").send().await.status, 200);
        opened.push(seen.connections.is());
        rig.clock.advance(Duration::from_secs(20));
    }
    assert_eq!((opened[14], opened[15], opened[29], opened[30]), (1, 2, 2, 3), "{opened:?}");
    rig.stop().await;
}
