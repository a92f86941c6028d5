//! Tests of the callbacks listener and of deliveries with peers that misbehave.

use crate::support::{Answer, Rig, Upstream, ask, raw, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const KIND: &str = "NAME_VALIDATOR_REQUEST";

fn lines(endpoint: &Upstream) -> String {
    format!("callback_urls = {{ {KIND} = \"{}/kyc\" }}", endpoint.url())
}

fn deliveries(outcome: &str) -> String {
    format!(r#"iluma_gateway_callback_deliveries_total{{outcome="{outcome}",tenant="lending"}}"#)
}

async fn entries(rig: &Rig, state: &str) -> Vec<Value> {
    let answer = rig.operator("GET", &format!("/v1/callbacks?state={state}")).send().await;
    answer.json()["callbacks"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn only_a_payload_without_any_id_is_a_test() {
    let endpoint = Upstream::agreeing().await;
    let rig = Rig::builder().tenant("lending", &lines(&endpoint)).start().await;
    let kept = [
        (r#"{"id":"","status":"COMPLETED"}"#, ""),
        (r#"{"id":null,"status":"COMPLETED"}"#, ""),
        (r#"{"type":"NAME_VALIDATOR_REQUEST","data":{"id":"abc"}}"#, "abc"),
        (r#"{"type":"NAME_VALIDATOR_REQUEST","items":[{"id":"def"}]}"#, "def"),
        (r#"{"ID":"ghi"}"#, "ghi"),
    ];
    for (body, _) in kept {
        assert_eq!(rig.callback(KIND, body).send().await.status, 200, "{body}");
    }
    for test in [r#"{"type":"NAME_VALIDATOR_REQUEST","test":true}"#, "{}"] {
        assert_eq!(rig.callback(KIND, test).send().await.status, 200, "{test}");
    }
    let received = |outcome| {
        format!(r#"iluma_gateway_callbacks_received_total{{account="live",outcome="{outcome}",type="{KIND}"}}"#)
    };
    assert_eq!(rig.metric(&received("stored")).await, 5.0);
    assert_eq!(rig.metric(&received("test")).await, 2.0);
    rig.clock.advance(Duration::from_secs(6));
    let unowned = r#"iluma_gateway_callback_queue{state="unowned",tenant="none"}"#;
    rig.metric_becomes(unowned, |count| count == 5.0).await;
    let mut shown: Vec<_> = entries(&rig, "unowned").await;
    shown.sort_by_key(|entry| entry["upstream_id"].to_string());
    let mut ids: Vec<_> = shown.iter().map(|entry| entry["upstream_id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["", "", "abc", "def", "ghi"]);
    assert_eq!(endpoint.heard().len(), 0);
    // The prefix of a reference still identifies the owner.
    rig.callback(KIND, r#"{"id":"","reference_id":"lending:a"}"#).send().await;
    until("a delivery", || endpoint.heard().len() == 1).await;
    assert_eq!(endpoint.heard()[0].body, r#"{"id":"","reference_id":"a"}"#);
    rig.stop().await;
}

#[tokio::test]
async fn a_status_of_2xx_is_a_success_however_the_body_goes_on() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    // One body never ends, one stops after its head, one is cut off.
    let endpoint = Upstream::on_connection(move |mut stream| {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n").await;
            match attempt {
                0 => {
                    while stream.write_all(b"400\r\n").await.is_ok() && stream.write_all(&[b'x'; 1026]).await.is_ok() {}
                }
                1 => std::future::pending().await,
                _ => {}
            }
        }
    })
    .await;
    let rig = Rig::builder().tenant("lending", &lines(&endpoint)).start().await;
    for id in 0..3 {
        rig.callback(KIND, format!(r#"{{"id":"{id}","reference_id":"lending:a"}}"#)).send().await;
    }
    rig.metric_becomes(&deliveries("delivered"), |count| count == 3.0).await;
    assert_eq!(rig.metric(&deliveries("failed")).await, 0.0);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    rig.stop().await;
}

/// Starts a gateway and the endpoint of its team, and sends it a callback. The endpoint answers 503 once for each of
/// `waits`, which is its `retry-after`, and then 200. Waits until the first attempt has failed.
async fn asking(waits: Vec<String>) -> (Rig, Arc<Upstream>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let endpoint = Upstream::answering(move |_| {
        let at = asked.fetch_add(1, Ordering::SeqCst);
        let answer = Response::builder();
        let answer = match waits.get(at) {
            Some(wait) => answer.status(503).header("retry-after", wait),
            None => answer.status(200),
        };
        answer.body(Full::new(Bytes::new())).expect("a response")
    })
    .await;
    let rig = Rig::builder()
        .section("callbacks", "retry = [\"10s\", \"10s\", \"2h\"]")
        .tenant("lending", &lines(&endpoint))
        .start()
        .await;
    rig.callback(KIND, r#"{"id":"1","reference_id":"lending:a"}"#).send().await;
    rig.metric_becomes(&deliveries("failed"), |count| count == 1.0).await;
    (rig, Arc::new(endpoint))
}

/// Returns the seconds until the only queued delivery is due.
async fn due_in(rig: &Rig) -> i64 {
    let queued = entries(rig, "queued").await;
    let due = queued[0]["due"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok()).expect("a time");
    let now = rig.clock.wall();
    due.duration_since(now).map_or(-1, |wait| i64::try_from(wait.as_secs()).expect("soon"))
}

#[tokio::test]
async fn an_endpoint_is_left_alone_for_as_long_as_it_asks() {
    let (rig, endpoint) = asking(vec!["600".into()]).await;
    let wait = due_in(&rig).await;
    assert!((595..=600).contains(&wait), "{wait} s instead of the schedule's 10 s");
    rig.clock.advance(Duration::from_secs(601));
    rig.metric_becomes(&deliveries("delivered"), |count| count == 1.0).await;
    assert_eq!(endpoint.heard().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_date_is_understood_and_no_wait_is_longer_than_the_schedules_longest() {
    let (rig, endpoint) = asking(vec!["Sat, 06 Nov 2094 08:49:37 GMT".into()]).await;
    let wait = due_in(&rig).await;
    assert!((7195..=7200).contains(&wait), "{wait} s instead of two hours");
    rig.clock.advance(Duration::from_secs(7201));
    rig.metric_becomes(&deliveries("delivered"), |count| count == 1.0).await;
    assert_eq!(endpoint.heard().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_test_that_failed_tells_a_team_nothing_of_the_network() {
    let answers = |status: u16| {
        Upstream::answering(move |_| {
            Response::builder().status(status).body(Full::new(Bytes::from("inside"))).expect("a response")
        })
    };
    let broken = Upstream::on_connection(|stream| async move { drop(stream) }).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (missing, unauthorized, redirect) = (answers(404).await, answers(401).await, answers(302).await);
    let rig = Rig::builder().tenant("lending", "callback_hosts = [\"127.0.0.1\", \"nowhere.invalid\"]").start().await;
    let mut said = Vec::new();
    for url in [
        format!("http://{closed}/"),
        missing.url(),
        unauthorized.url(),
        redirect.url(),
        broken.url(),
        "http://nowhere.invalid/".to_owned(),
        format!("https://{}/", missing.addr()),
    ] {
        let answer =
            rig.post("lending", "/v1/callback/urls", json!({ "type": KIND, "url": url }).to_string()).send().await;
        answer.is_rejection(400, "API_VALIDATION_ERROR");
        assert_eq!(answer.header("x-gateway-error"), "callback_url_failed");
        said.push(answer.json()["message"].clone());
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_url_has_one_form_and_leads_to_no_address_that_is_forbidden() {
    let endpoint = Upstream::agreeing().await;
    let lines = r#"callback_hosts = ["127.0.0.1", "localhost"]"#;
    let rig = Rig::builder().tenant("lending", lines).start().await;
    let set = async |url: String| {
        rig.post("lending", "/v1/callback/urls", json!({ "type": KIND, "url": url }).to_string()).send().await
    };
    let port = endpoint.addr().port();
    let answer = set(format!("HTTP://LocalHost.:{port}")).await;
    assert_eq!(answer.json(), json!({ "type": KIND, "url": format!("http://localhost:{port}/") }));
    for forbidden in [
        "0.0.0.0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "224.0.0.1",
        "2130706433",
        "127.1",
    ] {
        set(format!("http://{forbidden}:{port}/")).await.is_rejection(400, "API_VALIDATION_ERROR");
    }
    assert_eq!(endpoint.heard().len(), 1, "the first test alone");
    for host in ["0.0.0.0", "::", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.1.1", "239.1.1.1"] {
        let faults = rig.settings(|text| text.replace("\"localhost\"", &format!("\"{host}\""))).expect_err("a fault");
        assert!(faults.to_string().contains("callbacks are never sent"), "{faults}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_callbacks_listener_has_one_shape_for_every_refusal() {
    let rig = Rig::start().await;
    let id = "6a0e1c9e-6f1c-4d2c-9d3c-0d8a4f9b7c11";
    let refused: [(Answer, u16, &str, &str); 3] = [
        (ask("GET", rig.callbacks_url("/")).send().await, 404, "DATA_NOT_FOUND", "unknown_path"),
        (
            ask("PUT", rig.callbacks_url("/callbacks/live")).header("x-request-id", id).send().await,
            405,
            "METHOD_NOT_ALLOWED",
            "method_not_allowed",
        ),
        (
            ask("POST", rig.callbacks_url("/callbacks/live")).body(vec![b' '; (1 << 20) + 1]).send().await,
            413,
            "FILE_TOO_LARGE",
            "body_too_large",
        ),
    ];
    for (answer, status, code, reason) in &refused {
        answer.is_rejection(*status, code);
        assert_eq!(answer.header("x-gateway-error"), *reason);
    }
    assert_eq!(refused[1].0.header("x-request-id"), id);
    let cut = format!(
        "POST /callbacks/live HTTP/1.1\r\nhost: x\r\nx-callback-token: {}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        rig.secret("CALLBACK")
    );
    let answer = raw(rig.app.callbacks_address(), cut.as_bytes()).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    rig.stop().await;
}

#[tokio::test]
async fn a_callback_waits_while_its_teams_url_cannot_be_opened() {
    let endpoint = Upstream::agreeing().await;
    let hosts = r#"callback_hosts = ["127.0.0.1"]"#;
    let rig = Rig::builder().tenant("lending", hosts).start().await;
    let url = format!(r#"{{"type":"{KIND}","url":"{}/kyc"}}"#, endpoint.url());
    assert!(rig.post("lending", "/v1/callback/urls", url).send().await.status < 300);

    // Damages the stored URL, so that no key of this node decrypts it. A second run restores it. In production, another
    // node may have encrypted a URL with a newer key.
    let turn = async |folder: &std::path::Path| {
        let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("the database");
        let mut url: Vec<u8> = database.query_row("SELECT url FROM urls", [], |row| row.get(0)).expect("a URL");
        let last = url.len() - 1;
        url[last] ^= 1;
        assert_eq!(database.execute("UPDATE urls SET url = ?1", [url]).expect("a change"), 1);
    };
    let rig = rig.restart_after(turn).await;
    let body = r#"{"id":"abc","status":"COMPLETED","reference_id":"lending:a"}"#;
    let status = rig.callback(KIND, body).send().await.status;
    assert!(matches!(status, 200 | 503), "it is stored, or Iluma sends it again: {status}");
    rig.metric_becomes("iluma_gateway_state_unreadable_total", |count| count >= 1.0).await;
    rig.clock.advance(Duration::from_secs(6));
    assert_eq!(entries(&rig, "delivered").await.len(), 0);
    assert_eq!((entries(&rig, "dead").await.len(), entries(&rig, "unowned").await.len()), (0, 0));

    let rig = rig.restart_after(turn).await;
    if status == 503 {
        assert_eq!(rig.callback(KIND, body).send().await.status, 200);
    }
    rig.clock.advance(Duration::from_secs(120));
    let delivered = r#"{"id":"abc","status":"COMPLETED","reference_id":"a"}"#;
    until("the delivery", || endpoint.heard().iter().any(|heard| heard.body == delivered)).await;
    rig.stop().await;
}
