//! Tests of the access to records: only an owner sees a record. For every other team it does not exist.

use crate::support::{Answer, Ask, PATIENCE, Part, Redis, Rig, RigBuilder, Upstream};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const IMAGES: &str = "/v1/identity/id_card_images";
const DOCUMENTS: &str = "/v1/identity/document_ocr_requests";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";
const QUESTION: &str = r#"{"bank_account_number":"1234567812","bank_code":"BCA","reference_id":"foo123"}"#;

/// A GET of a record by its id, or a recapture of it.
struct Look {
    row: &'static str,
    method: &'static str,
    /// The path, with `{id}` for the id.
    path: String,
    id: String,
}

impl Look {
    fn ask(&self, rig: &Rig, team: &str, id: &str) -> Ask {
        let ask = rig.ask(team, self.method, &self.path.replace("{id}", id));
        if self.method == "POST" { ask.json(r#"{"types":["SELFIE"]}"#) } else { ask }
    }

    /// Returns a similar id without a record.
    fn missing(&self) -> String {
        let last = if self.id.ends_with('0') { "1" } else { "0" };
        format!("{}{last}", &self.id[..self.id.len() - 1])
    }
}

/// Makes a record of each kind for `team`, and waits until each is final. Returns every request about such a record
/// that only its owner may make.
async fn records(rig: &Rig, team: &str) -> Vec<Look> {
    let image = [
        Part::Text("type", "indonesia_ktp"),
        Part::Text("reference_id", "foo123"),
        Part::File("image", "a.png", "image/png", vec![1; 64]),
    ];
    let document = [
        Part::File("image", "a.pdf", "application/pdf", vec![1; 64]),
        Part::Text("reference_id", "foo123"),
        Part::Text("type", "BUSINESS_REGISTRATION"),
        Part::Text("country", "ID"),
        Part::Text("document_name", "SK_MENKEH"),
    ];
    let capture = r#"{"types":["IDENTITY_CARD","SELFIE"],"reference_id":"foo123"}"#;
    let mut looks = Vec::new();
    for (row, path, ask) in [
        ("bank_get", BANK, rig.post(team, BANK, QUESTION)),
        ("ocr_get", IMAGES, rig.ask(team, "POST", IMAGES).multipart(&image)),
        ("document_get", DOCUMENTS, rig.ask(team, "POST", DOCUMENTS).multipart(&document)),
        ("capture_get", CAPTURES, rig.post(team, CAPTURES, capture)),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 200, "{row}: {}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let done = finished(rig, team, &format!("{path}/{id}")).await;
        assert_eq!(done["reference_id"], "foo123", "{row}");
        looks.push(Look { row, method: "GET", path: format!("{path}/{{id}}"), id: id.clone() });
        if row == "capture_get" {
            let link = done["result"]["selfie"]["link"].as_str().expect("a link");
            let file = format!("/v1/identity/captures/{{id}}/results/{link}/download");
            looks.push(Look { row: "capture_file", method: "GET", path: file, id: id.clone() });
            // These come last: after them the record is pending again.
            for method in ["POST", "GET"] {
                let path = format!("{CAPTURES}/{{id}}/recapture");
                looks.push(Look { row: "recapture", method, path, id: id.clone() });
            }
        }
    }
    looks
}

async fn finished(rig: &Rig, team: &str, path: &str) -> Value {
    let done = async {
        loop {
            let record = rig.ask(team, "GET", path).send().await.json();
            if !["PENDING", "IN_PROGRESS"].contains(&record["status"].as_str().expect("a status")) {
                return record;
            }
            // A pending bank request is polled upstream at most once a second.
            rig.clock.advance(Duration::from_secs(1));
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("a result in time")
}

/// Returns everything by which a team can distinguish two answers.
fn told(answer: &Answer) -> (u16, Bytes, HeaderMap) {
    let mut headers = answer.headers.clone();
    headers.remove("x-request-id").expect("a request id");
    headers.remove("date").expect("a date");
    (answer.status, answer.body.clone(), headers)
}

fn quick() -> RigBuilder {
    Rig::builder().simulator(|options| {
        options.pending_first = false;
        options.callback_delay = Duration::from_millis(5);
    })
}

#[tokio::test]
async fn another_teams_id_is_answered_like_one_that_does_not_exist() {
    let unsealed = "prefix_references = false";
    for (settings, builder) in [
        ("sealed", quick()),
        ("prefixed, fallback owner", quick().tenant("lending", "owns_unprefixed = true")),
        ("unsealed", quick().account(unsealed)),
        ("not prefixed, fallback owner", quick().account(unsealed).tenant("lending", "owns_unprefixed = true")),
    ] {
        let rig = builder.start().await;
        let looks = records(&rig, "payments").await;
        let rows: Vec<_> = looks.iter().map(|look| look.row).collect();
        let expected = ["bank_get", "ocr_get", "document_get", "capture_get", "capture_file", "recapture", "recapture"];
        assert_eq!(rows, expected);
        for look in &looks {
            let what = format!("{settings}: {} {}", look.method, look.path);
            let missing_id = look.missing();
            for head in [false, true] {
                if head && look.method != "GET" {
                    continue;
                }
                let mut answers = Vec::new();
                for id in [&look.id, &missing_id] {
                    let before = rig.sim().stats().requests;
                    let answer = if head {
                        rig.ask("lending", "HEAD", &look.path.replace("{id}", id)).send().await
                    } else {
                        look.ask(&rig, "lending", id).send().await
                    };
                    let calls = rig.sim().stats().requests - before;
                    assert_eq!(calls, 1, "{what} {id}: the time reveals nothing either");
                    if !head {
                        answer.is_rejection(404, "DATA_NOT_FOUND");
                        assert_eq!(answer.header("x-gateway-error"), "not_found", "{what} {id}");
                    }
                    answers.push(told(&answer));
                }
                assert_eq!(answers[0], answers[1], "{what}, HEAD: {head}");
            }
        }
        // The records exist unchanged: their owner sees each of them.
        for look in &looks {
            let answer = look.ask(&rig, "payments", &look.id).send().await;
            assert_eq!(answer.status, 200, "{settings}: {} {}: {}", look.method, look.path, answer.text());
            // A recapture makes the record pending. The next recapture needs a finished one.
            if look.row == "recapture" {
                finished(&rig, "payments", &format!("{CAPTURES}/{}", look.id)).await;
            }
        }
        rig.stop().await;
    }
}

/// Checks that a team can't distinguish another team's id from a missing id by the answer, whatever headers or body the
/// team sends. A header may change both answers in the same way.
#[tokio::test]
async fn no_directive_and_no_body_tells_another_teams_id_from_a_missing_one() {
    let rig = quick().start().await;
    for look in records(&rig, "payments").await {
        let missing = look.missing();
        for (name, value) in [
            ("cache-control", "only-if-cached"),
            ("cache-control", "no-cache"),
            ("cache-control", "max-age=600"),
            ("x-magic-reply", "COMPLETED_FOUND"),
            ("if-none-match", "*"),
            ("range", "bytes=0-1"),
            ("content-encoding", "gzip"),
            ("accept-encoding", "gzip"),
        ] {
            let ask = async |id: &str| told(&look.ask(&rig, "lending", id).header(name, value).send().await);
            let (foreign, none) = (ask(&look.id).await, ask(&missing).await);
            assert_eq!(foreign, none, "{} {} {name}: {value}", look.method, look.path);
            assert!(matches!(foreign.0, 404 | 504), "{} {} {name}: {value}: {foreign:?}", look.method, look.path);
        }
        if look.method == "POST" {
            for body in ["", "{", r#"{"types":[]}"#, r#"{"types":["SELFIE"],"reference_id":"a","reference_id":"b"}"#] {
                let path = |id: &str| look.path.replace("{id}", id);
                let ask = async |id: &str| told(&rig.post("lending", &path(id), body).send().await);
                assert_eq!(ask(&look.id).await, ask(&missing).await, "{body}");
            }
        }
    }
    rig.stop().await;
}

/// Checks that a team whose request was a hit owns the answer's record too, with the reference of its own request.
#[tokio::test]
async fn who_shares_an_answer_reads_its_id_too() {
    let rig = quick().start().await;
    let id = rig.post("payments", BANK, QUESTION).send().await.json()["id"].as_str().expect("an id").to_owned();
    let one = format!("{BANK}/{id}");
    rig.ask("lending", "GET", &one).send().await.is_rejection(404, "DATA_NOT_FOUND");
    for reference in ["bar", "baz"] {
        let hit = rig.post("lending", BANK, QUESTION.replace("foo123", reference)).send().await;
        assert!(hit.header("cache-status").starts_with("iluma-gateway; hit; "), "{:?}", hit.headers);
        assert_eq!((&hit.json()["id"], &hit.json()["reference_id"]), (&json!(id), &json!(reference)));
        let look = rig.ask("lending", "GET", &one).send().await;
        assert_eq!((look.status, &look.json()["reference_id"]), (200, &json!(reference)), "the newest");
    }
    let look = rig.ask("payments", "GET", &one).send().await;
    assert_eq!((look.status, &look.json()["reference_id"]), (200, &json!("foo123")));
    rig.stop().await;
}

/// Checks that a team that got a hit while state could not be written becomes an owner once state can be written.
#[tokio::test]
async fn an_owner_that_cannot_be_written_is_written_later() {
    let redis = Redis::start().await;
    let rig = quick().redis(&redis).start().await;
    let id = rig.post("payments", BANK, QUESTION).send().await.json()["id"].as_str().expect("an id").to_owned();
    redis.pause();
    rig.metric_becomes("iluma_gateway_redis_up", |up| up == 0.0).await;
    let hit = rig.post("lending", BANK, QUESTION.replace("foo123", "bar")).send().await;
    assert!(hit.header("cache-status").starts_with("iluma-gateway; hit; "), "{:?}", hit.headers);
    redis.resume();
    let look = async {
        loop {
            let look = rig.ask("lending", "GET", &format!("{BANK}/{id}")).send().await;
            if look.status == 200 {
                return look.json()["reference_id"].clone();
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, look).await.expect("an owner"), json!("bar"));
    rig.stop().await;
}

/// Checks that a failure about a record that is not known to be the team's keeps its status and loses its text. The
/// text may be about another team's record.
#[tokio::test]
async fn a_failure_on_a_record_that_is_not_known_to_be_the_teams_keeps_its_status_and_loses_its_text() {
    for status in [401, 429, 500, 503] {
        let upstream = Upstream::answering(move |_| {
            let body = r#"{"error_code":"SOME_ERROR","message":"of another team's record"}"#;
            let response = Response::builder().status(status).header("content-type", "application/json");
            response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("an answer")
        })
        .await;
        for (method, path) in [
            ("GET", format!("{BANK}/a")),
            ("GET", format!("{IMAGES}/a")),
            ("GET", format!("{DOCUMENTS}/a")),
            ("GET", format!("{CAPTURES}/a")),
            ("GET", "/v1/identity/captures/a/results/b/download".into()),
            ("GET", format!("{CAPTURES}/a/recapture")),
            ("POST", format!("{CAPTURES}/a/recapture")),
        ] {
            // A 429 slows a gateway down, so each case has its own gateway.
            let rig = Rig::builder().upstream(upstream.url()).start().await;
            let answer = rig.ask("lending", method, &path).json(r#"{"types":["SELFIE"]}"#).send().await;
            let what = format!("{status} {method} {path}: {}", answer.text());
            assert_eq!((answer.status, answer.header("x-gateway-error")), (status, "upstream_error"), "{what}");
            assert!(!answer.text().contains("SOME_ERROR") && !answer.text().contains("another"), "{what}");
            rig.stop().await;
        }
        let made: Vec<_> = upstream.heard().into_iter().filter(|heard| heard.method != "GET").collect();
        assert!(made.is_empty(), "{made:?}");
    }
}

/// Checks a failure about the team's own record. It may quote the reference, which is shown without the prefix. Another
/// team's reference is removed.
#[tokio::test]
async fn a_failed_get_of_an_own_record_shows_nobodys_prefix() {
    for (given, shown) in [("lending:a", Some("a")), ("lending:", None), ("payments:a", None)] {
        let failure = json!({ "error_code": "SERVER_ERROR", "message": "m", "reference_id": given }).to_string();
        let upstream = Upstream::answering(move |heard| {
            let made = json!({ "id": "a", "status": "PENDING", "reference_id": "lending:a" }).to_string();
            let (status, body) = if heard.method == "POST" { (200, made) } else { (500, failure.clone()) };
            let response = Response::builder().status(status).header("content-type", "application/json");
            response.header("x-about", "reference_id=lending%3Aa").body(Full::from(body)).expect("an answer")
        })
        .await;
        let rig = Rig::builder().upstream(upstream.url()).start().await;
        for path in [BANK, IMAGES, DOCUMENTS, CAPTURES] {
            let made = rig.post("lending", path, QUESTION.replace("foo123", "a")).send().await;
            assert_eq!(made.status, 200, "{path}: {}", made.text());
            let answer = rig.ask("lending", "GET", &format!("{path}/a")).send().await;
            assert_eq!((answer.status, answer.header("x-gateway-error")), (500, ""), "{path}: {}", answer.text());
            let json = answer.json();
            assert_eq!(json.get("reference_id").and_then(Value::as_str), shown, "{path}: {json}");
            assert_eq!(answer.header("x-about"), "reference_id=a", "{path}");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{path}");
        }
        rig.stop().await;
    }
}

/// Checks that an answer to a list request that is no list is shown to no team, because its owner is unknown.
#[tokio::test]
async fn what_is_no_list_on_a_list_row_is_shown_to_nobody() {
    let upstream = Upstream::answering(|_| {
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(br#"{"id":"a","reference_id":"lending:x"}"#))).expect("an answer")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for path in [IMAGES, DOCUMENTS, CAPTURES] {
        let answer = rig.ask("lending", "GET", &format!("{path}?reference_id=x")).send().await;
        answer.is_rejection(504, "UPSTREAM_TIMEOUT");
        assert_eq!(answer.header("x-gateway-error"), "upstream_garbled", "{path}");
    }
    rig.stop().await;
}
