//! Tests of the operators' and the teams' orders about callbacks: lists with attempts, pauses, replays, tests of
//! endpoints.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::process::Folder;
use crate::support::{Answer, PATIENCE, Rig, RigBuilder, Upstream, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

const KIND: &str = "NAME_VALIDATOR_REQUEST";

/// Starts an endpoint that answers with a status. The test may change the status, which is returned too.
async fn endpoint(status: u16) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let answered = Arc::clone(&status);
    let upstream = Upstream::answering(move |_| {
        let response = Response::builder().status(answered.load(Ordering::SeqCst)).header("location", "/elsewhere");
        response.body(Full::new(Bytes::new())).expect("a response")
    });
    (upstream.await, status)
}

fn url(url: &str) -> String {
    format!("callback_urls = {{ {KIND} = \"{url}\" }}")
}

async fn deliver(rig: &Rig, id: &str, team: &str) {
    let body = format!(r#"{{"id":"{id}","reference_id":"{team}:a"}}"#);
    assert_eq!(rig.callback(KIND, body).send().await.status, 200);
}

async fn order(rig: &Rig, order: &str, body: Value) -> Answer {
    rig.operator("POST", &format!("/v1/callbacks/{order}")).json(body.to_string()).send().await
}

/// Waits until the operators' list for `query` has `count` callbacks, and returns them.
async fn lists(rig: &Rig, query: &str, count: usize) -> Vec<Value> {
    let look = async {
        loop {
            let answer = rig.operator("GET", &format!("/v1/callbacks?{query}")).send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let entries = answer.json()["callbacks"].as_array().expect("a list").clone();
            if entries.len() == count {
                return entries;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("never {count} of {query}"))
}

/// Waits until the only queued callback of a team was attempted, and returns the callback as the list shows it.
async fn attempted(rig: &Rig, team: &str) -> Value {
    let look = async {
        loop {
            let entry = lists(rig, &format!("state=queued&tenant={team}"), 1).await.remove(0);
            if entry["attempts"] != 0 {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("never an attempt at {team}"))
}

/// Returns the URL of a peer that accepts connections and never answers. It resets them if `breaks` is true, else it
/// keeps them open.
async fn silent(breaks: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = [0; 16];
            let _ = connection.read_exact(&mut head).await;
            if breaks {
                connection.set_zero_linger().expect("a socket");
            } else {
                open.push(connection);
            }
        }
    });
    format!("http://{address}/")
}

/// Returns the URL of a port at which nobody listens.
async fn refused() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    format!("http://{}/", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn operators_see_what_became_of_each_attempt() {
    let (unavailable, _status) = endpoint(503).await;
    let (gone, _status) = endpoint(410).await;
    let (elsewhere, _status) = endpoint(302).await;
    let plain = elsewhere.url().replace("http://", "https://");
    let cases = [
        ("unavailable", unavailable.url(), json!(503), Value::Null, Value::Null),
        ("gone", gone.url(), json!(410), Value::Null, json!("gone")),
        ("elsewhere", elsewhere.url(), Value::Null, json!("redirect"), Value::Null),
        ("slow", silent(false).await, Value::Null, json!("timeout"), Value::Null),
        ("broken", silent(true).await, Value::Null, json!("reset"), Value::Null),
        ("refused", refused().await, Value::Null, json!("refused"), Value::Null),
        ("plain", plain, Value::Null, json!("tls"), Value::Null),
    ];
    let begin = Rig::builder().section("callbacks", "retry = [\"1h\"]\ntimeout = \"1s\"");
    let rig = cases.iter().fold(begin, |rig, (team, at, ..)| rig.tenant(team, &url(at))).start().await;
    for (team, ..) in &cases {
        deliver(&rig, team, team).await;
    }
    for (team, _, status, error, paused) in &cases {
        let entry = attempted(&rig, team).await;
        assert_eq!((&entry["last_status"], &entry["last_error"]), (status, error), "{team}");
        assert_eq!(
            (&entry["state"], &entry["attempts"], &entry["paused"]),
            (&json!("queued"), &json!(1), paused),
            "{team}"
        );
        assert_eq!(entry["next_attempt"].is_string(), paused.is_null(), "{team}: a pause stops attempts");
        let shown =
            rig.operator("GET", &format!("/v1/callbacks/{}", entry["id"].as_str().expect("an id"))).send().await;
        let attempts = shown.json()["attempts"].clone();
        assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{team}: {attempts}");
        let (known, other) = if status.is_null() { ("error", error) } else { ("status", status) };
        assert_eq!(&attempts[0][known], other, "{team}");
        assert!(attempts[0]["duration_ms"].is_u64() && attempts[0]["time"].is_string(), "{team}: {attempts}");
    }
    for unknown in ["x", "msg_000102030405060708090a0b0c0d0e0f"] {
        let answer = rig.operator("GET", &format!("/v1/callbacks/{unknown}")).send().await;
        answer.is_rejection(404, "DATA_NOT_FOUND");
    }
    rig.stop().await;
}

/// Starts a gateway with the teams `lending` and `payments`, each with an endpoint that answers 503. Returns it with
/// the status that lending's endpoint answers, and with this endpoint.
async fn failing(change: impl FnOnce(RigBuilder) -> RigBuilder) -> (Rig, Arc<AtomicU16>, Upstream) {
    let (lending, status) = endpoint(503).await;
    let (payments, _status) = endpoint(503).await;
    let rig = Rig::builder().tenant("lending", &url(&lending.url())).tenant("payments", &url(&payments.url()));
    (change(rig).start().await, status, lending)
}

#[tokio::test]
async fn operators_pause_resume_and_test_an_endpoint_and_delete_its_dead_letters() {
    let (rig, status, lending) = failing(|rig| rig.section("callbacks", "retry = [\"1s\"]")).await;
    let paused = order(&rig, "pause", json!({ "tenant": "lending", "type": KIND })).await;
    assert_eq!((paused.status, paused.json()), (200, json!({ "paused": 1 })));
    deliver(&rig, "1", "lending").await;
    let entry = lists(&rig, "state=queued&tenant=lending", 1).await.remove(0);
    assert_eq!(
        (&entry["paused"], &entry["attempts"], &entry["next_attempt"]),
        (&json!("operator"), &json!(0), &Value::Null)
    );

    // A test is sent although the endpoint is paused. It is signed.
    for (answered, delivered) in [(503, false), (204, true)] {
        status.store(answered, Ordering::SeqCst);
        let test = order(&rig, "test", json!({ "tenant": "lending", "type": KIND })).await;
        let shown = test.json();
        let told = (&shown["type"], &shown["status"], &shown["delivered"]);
        assert_eq!((test.status, told), (200, (&json!(KIND), &json!(answered), &json!(delivered))), "{shown}");
    }
    let heard = lending.heard();
    assert_eq!(heard.len(), 2, "the callback waits");
    assert!(heard.iter().all(|heard| heard.headers.contains_key("webhook-signature")));
    let none = order(&rig, "test", json!({ "tenant": "lending", "type": "ID_IMAGE_OCR_REQUEST" })).await;
    none.is_rejection(404, "DATA_NOT_FOUND");
    for (body, code) in
        [(json!({ "tenant": "nobody" }), 404), (json!({}), 400), (json!({ "tenant": "lending", "type": "x" }), 400)]
    {
        for name in ["pause", "resume", "test"] {
            assert_eq!(order(&rig, name, body.clone()).await.status, code, "{name} {body}");
        }
    }

    // A callback that waits longer than the schedule becomes a dead letter, paused or not.
    rig.clock.advance(Duration::from_secs(5));
    let dead = lists(&rig, "state=dead&tenant=lending&type=NAME_VALIDATOR_REQUEST", 1).await.remove(0);
    assert_eq!((&dead["paused"], &dead["last_status"]), (&json!("operator"), &Value::Null));
    let delete = |id: Value| rig.operator("DELETE", &format!("/v1/callbacks/{}", id.as_str().expect("an id"))).send();
    assert_eq!(delete(dead["id"].clone()).await.json(), json!({ "deleted": 1 }));
    delete(dead["id"].clone()).await.is_rejection(404, "DATA_NOT_FOUND");
    lists(&rig, "state=dead", 0).await;
    let resumed = order(&rig, "resume", json!({ "tenant": "lending" })).await;
    assert_eq!((resumed.status, resumed.json()), (200, json!({ "resumed": 1 })));
    deliver(&rig, "2", "lending").await;
    let delivered = lists(&rig, "state=delivered&tenant=lending", 1).await.remove(0);
    assert_eq!((&delivered["last_status"], &delivered["paused"]), (&json!(204), &Value::Null));
    let conflict = delete(delivered["id"].clone()).await;
    assert_eq!((conflict.status, conflict.header("x-gateway-error")), (409, "not_a_dead_letter"));
    rig.stop().await;
}

#[tokio::test]
async fn a_team_understands_and_mends_its_own_callbacks() {
    let (rig, status, lending) = failing(|rig| rig.section("callbacks", "retry = [\"0s\"]")).await;
    for team in ["lending", "payments"] {
        deliver(&rig, "1", team).await;
    }
    lists(&rig, "state=dead", 2).await;
    let get = |team: &'static str, path: String| rig.ask(team, "GET", &format!("/_gateway/callbacks{path}")).send();
    let own = get("lending", String::new()).await;
    let listed = own.json();
    assert_eq!((own.status, listed["callbacks"].as_array().map(Vec::len)), (200, Some(1)), "{listed}");
    let entry = &listed["callbacks"][0];
    assert_eq!((&entry["state"], &entry["last_status"], &entry["attempts"]), (&json!("dead"), &json!(503), &json!(2)));
    let id = entry["id"].as_str().expect("an id");
    let shown = get("lending", format!("/{id}")).await.json();
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(2), "{shown}");
    get("payments", format!("/{id}")).await.is_rejection(404, "DATA_NOT_FOUND");
    get("lending", "/x".to_owned()).await.is_rejection(404, "DATA_NOT_FOUND");
    get("lending", "?state=unowned".to_owned()).await.is_rejection(400, "API_VALIDATION_ERROR");
    get("lending", "?tenant=payments".to_owned()).await.is_rejection(400, "API_VALIDATION_ERROR");

    let post = |team: &'static str, order: &'static str, body: Value| {
        rig.post(team, &format!("/_gateway/callbacks/{order}"), body.to_string()).send()
    };
    // For a team, another team's callback does not exist.
    assert_eq!(post("payments", "replay", json!({ "id": id })).await.json(), json!({ "replayed": 0 }));
    post("lending", "replay", json!({ "tenant": "payments", "since": "1970-01-01T00:00:00Z" }))
        .await
        .is_rejection(400, "API_VALIDATION_ERROR");
    post("lending", "pause", json!({ "tenant": "payments" })).await.is_rejection(400, "API_VALIDATION_ERROR");
    post("lending", "test", json!({ "type": "ID_IMAGE_OCR_REQUEST" })).await.is_rejection(404, "DATA_NOT_FOUND");

    let before = lending.heard().len();
    let failed = post("lending", "test", json!({ "type": KIND })).await.json();
    assert_eq!((&failed["delivered"], &failed["status"]), (&json!(false), &json!(503)));
    status.store(200, Ordering::SeqCst);
    let passed = post("lending", "test", json!({ "type": KIND })).await.json();
    assert_eq!((&passed["delivered"], &passed["status"]), (&json!(true), &json!(200)));
    assert!(lending.heard()[before + 1].headers.contains_key("webhook-signature"));
    assert_eq!(post("lending", "pause", json!({ "type": KIND })).await.json(), json!({ "paused": 1 }));
    assert_eq!(get("lending", String::new()).await.json()["paused"][0]["reason"], "team");
    assert_eq!(get("payments", String::new()).await.json()["paused"], json!([]));
    assert_eq!(post("lending", "replay", json!({ "all": true })).await.json(), json!({ "replayed": 1 }));
    assert_eq!(post("lending", "resume", json!({})).await.json(), json!({ "resumed": 1 }));
    until("the replay is delivered", || lending.heard().len() == before + 3).await;
    lists(&rig, "state=delivered&tenant=lending", 1).await;
    lists(&rig, "state=dead&tenant=payments", 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn operators_steer_callbacks_by_command() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let admin = format!("http://{admin}");
    for (action, more, code, said) in [
        ("list", &["--state", "queued"][..], 0, r#"{"callbacks":[],"next":null,"paused":[]}"#),
        ("replay", &["--all"], 0, r#"{"replayed":0}"#),
        ("pause", &["--tenant", "lending"], 0, r#"{"paused":5}"#),
        ("resume", &["--tenant", "lending", "--type", KIND], 0, r#"{"resumed":1}"#),
        ("pause", &["--tenant", "nobody"], 1, ""),
        ("test", &["--tenant", "lending"], 1, ""),
        ("replay", &[], 2, ""),
    ] {
        let done = folder.order(&format!("callbacks {action}"), &[&["--admin", &admin], more].concat(), "").await;
        assert_eq!((done.code, done.stdout.trim()), (Some(code), said), "{action}: {}", done.stderr);
    }
}
