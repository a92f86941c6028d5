//! Tests of cancelled requests. A request that is dropped before its call was sent leaves no trace. A call that was
//! sent is settled.

use crate::support::{PATIENCE, Rig, Upstream, Wire};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use iluma_gateway::base::peer::Client;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_data_requests";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";
/// More polls than any request takes.
const MOST_POLLS: usize = 200;

/// A function that makes a request from a number. It returns method, path and body.
type Making<'a> = &'a dyn Fn(usize) -> (&'static str, String, String);

/// A future that is dropped after a number of polls, which is the second field. The output is `None` if it was dropped.
struct DropAfter<F>(Option<Pin<Box<F>>>, usize);

impl<F: Future> Future for DropAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else { return Poll::Ready(None) };
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        self.1 -= 1;
        if self.1 == 0 {
            self.0 = None;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// Starts an Iluma that answers at once. Each answer has a new id, unless the path names the id of a capture.
async fn prompt() -> Upstream {
    let next = std::sync::Arc::new(AtomicUsize::new(0));
    Upstream::answering(move |heard| {
        let id = match heard.target.strip_prefix(&format!("{CAPTURES}/")) {
            Some(id) => id.to_owned(),
            None => format!("r{}", next.fetch_add(1, Ordering::Relaxed)),
        };
        let body = json!({ "id": id, "status": "COMPLETED", "result": { "is_found": true }, "results": [] });
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
    })
    .await
}

async fn rig(upstream: &Upstream) -> Rig {
    let limits = "max_in_flight = 1\nupstream_calls_per_day = 100000";
    Rig::builder().upstream(upstream.url()).tenant("lending", limits).start().await
}

/// Returns a whole request of the team `lending`.
fn request(rig: &Rig, (method, path, body): &(&str, String, String)) -> String {
    let head = rig.head("lending", method, path);
    format!("{head}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Sends the gateway a request, and drops the request's future after `polls` polls. Returns true if an answer came
/// before.
pub async fn answered_within(rig: &Rig, request: &str, polls: usize) -> bool {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let gateway = std::sync::Arc::clone(rig.app.gateway());
    let peer = Client { address: Ipv4Addr::LOCALHOST.into(), secure: false };
    let service = service_fn(move |request| {
        let handled = DropAfter(Some(Box::pin(gateway.clone().handle((request, peer)))), polls);
        async move {
            match handled.await {
                Some(Ok(response)) => Ok(response),
                _ => Err("dropped"),
            }
        }
    });
    client.write_all(request.as_bytes()).await.expect("room");
    let served = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(served, client.read_to_end(&mut answer));
    read.expect("an end");
    !answer.is_empty()
}

/// Returns three numbers of the team `lending`: today's billable calls, today's unknown calls, and the calls that the
/// day's quota counts. Returns `None` while a call without its request still counts for `max_in_flight`, which is 1.
async fn books(rig: &Rig) -> Option<(u64, u64, u64)> {
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await;
    if usage.status == 429 {
        return None;
    }
    let usage = usage.json();
    let of = |value: &Value| value.as_u64().expect("a number");
    let quota = usage["quotas"].as_array().expect("quotas").iter().find(|quota| quota["name"] == "quota_day");
    Some((of(&usage["today"]["billable"]), of(&usage["today"]["unknown"]), of(&quota.expect("a quota")["used"])))
}

/// Waits until the books contain exactly the calls that Iluma received, and all of them are settled.
async fn books_are_true(rig: &Rig, upstream: &Upstream, what: &str) {
    rig.is_idle().await;
    let made = || upstream.heard().iter().filter(|heard| heard.method == "POST").count() as u64;
    let mut last = None;
    let looked = async {
        loop {
            last = books(rig).await;
            if last == Some((made(), 0, made())) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let became_true = tokio::time::timeout(PATIENCE, looked).await.is_ok();
    assert!(became_true, "{what}: {} calls were made, the books say {last:?}", made());
}

#[tokio::test]
async fn a_request_that_is_dropped_at_any_point_leaves_nothing_or_a_settled_call() {
    let upstream = prompt().await;
    let rig = rig(&upstream).await;
    let bank =
        |n: usize| ("POST", BANK.to_owned(), json!({ "bank_code": "BCA", "bank_account_number": n }).to_string());
    let stages: [(&str, Making<'_>); 6] = [
        ("bank, miss", &bank),
        ("bank, hit", &|_| bank(0)),
        ("cft", &|n| ("POST", CFT.to_owned(), json!({ "given_name": n.to_string() }).to_string())),
        ("ktp", &|n| ("POST", KTP.to_owned(), json!({ "nik": n.to_string() }).to_string())),
        ("capture", &|n| {
            ("POST", CAPTURES.to_owned(), json!({ "types": ["SELFIE"], "reference_id": n.to_string() }).to_string())
        }),
        ("recapture", &|_| ("POST", format!("{CAPTURES}/r1/recapture"), r#"{"types":["SELFIE"]}"#.to_owned())),
    ];
    for (stage, question) in stages {
        let mut ended = 0;
        for polls in 1..MOST_POLLS {
            let is_answered = answered_within(&rig, &request(&rig, &question(polls)), polls).await;
            books_are_true(&rig, &upstream, &format!("{stage}, dropped after {polls} polls")).await;
            // A request's number of polls varies, so the loop ends only after three answered requests.
            ended += usize::from(is_answered);
            if ended == 3 {
                break;
            }
        }
        assert_eq!(ended, 3, "{stage} ends within {MOST_POLLS} polls");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_at_once_leaves_no_unknown_call() {
    let upstream = prompt().await;
    let rig = rig(&upstream).await;
    for round in 0..20 {
        for (path, name) in
            [(BANK, "bank_account_number"), (CFT, "given_name"), (KTP, "nik"), (CAPTURES, "reference_id")]
        {
            let body = json!({ name: format!("{path}{round}"), "bank_code": "BCA", "types": ["SELFIE"] }).to_string();
            let mut wire = Wire::connect(rig.app.server_address()).await;
            wire.send(request(&rig, &("POST", path.to_owned(), body))).await;
            if round % 2 == 0 { wire.reset() } else { drop(wire) }
        }
    }
    books_are_true(&rig, &upstream, "after 80 clients that hung up").await;
    let rig = rig.restart().await;
    books_are_true(&rig, &upstream, "after a restart").await;
    rig.stop().await;
}
