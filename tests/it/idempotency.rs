//! Idempotency keys: however often a request with a key is sent, Iluma gets one call, and the team pays once.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

mod crashes;

use crate::cancellation::answered_within;
use crate::support::{Answer, Ask, Held, PATIENCE, Part, Rig, RigBuilder, Upstream, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KTP: &str = "/v1/identity/ktp_name/validations";
const IMAGES: &str = "/v1/identity/id_card_images";
const DOCUMENTS: &str = "/v1/identity/document_ocr_requests";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";
const NIK: &str = r#"{"nik":"3171234567890123","name":"Contoh Demo"}"#;
const KEY: &str = "idempotency-key";

/// Starts an Iluma whose answers are numbered, so that the answer to a second call differs. The answer to a GET of a
/// capture has the capture's id.
async fn counting() -> Upstream {
    let next = Arc::new(AtomicUsize::new(0));
    Upstream::answering(move |heard| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let of_capture = heard.target.strip_prefix(&format!("{CAPTURES}/")).filter(|id| !id.contains('/'));
        let id = of_capture.map_or_else(|| format!("r{number}"), str::to_owned);
        // The reference follows its prefix, up to a quotation mark in JSON or a line end in multipart.
        let text = String::from_utf8_lossy(&heard.body);
        let reference = text.split("lending:").nth(1).map(|rest| rest.split(['"', '\r']).next().unwrap_or_default());
        let mut body = json!({ "id": id, "status": "COMPLETED", "number": number });
        if let Some(reference) = reference {
            body["reference_id"] = format!("lending:{reference}").into();
        } else if of_capture.is_some() {
            body["reference_id"] = "lending:".into();
        }
        answer(200, &body.to_string())
    })
    .await
}

fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a response")
}

/// Starts an Iluma that answers every request with the status and the body in `said`.
async fn saying(said: &Arc<Mutex<(u16, String)>>) -> Upstream {
    let said = Arc::clone(said);
    Upstream::answering(move |_| {
        let (status, body) = said.lock().expect("an answer").clone();
        answer(status, &body)
    })
    .await
}

fn rig(upstream: &Upstream) -> RigBuilder {
    Rig::builder().upstream(upstream.url())
}

fn ktp(rig: &Rig, key: &str, body: &str) -> Ask {
    rig.post("lending", KTP, body).header(KEY, key)
}

fn is_replay(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == "true"
}

/// Checks that an answer refuses a request because of its idempotency key, with this status and reason.
#[track_caller]
fn refused(answer: &Answer, status: u16, reason: &str) {
    let code = match status {
        409 => "REQUEST_CONFLICT",
        503 => "SERVICE_UNAVAILABLE",
        _ => "API_VALIDATION_ERROR",
    };
    answer.is_rejection(status, code);
    assert_eq!(answer.header("x-gateway-error"), reason, "{}", answer.text());
    assert!(!is_replay(answer));
}

const PHOTO: Part<'_> = Part::Text("type", "indonesia_ktp");

fn image() -> Part<'static> {
    Part::File("image", "a.png", "image/png", vec![7; 300_000])
}

/// Returns a request of each kind that takes an idempotency key, with the name of its route.
fn requests(rig: &Rig) -> Vec<(&'static str, Ask)> {
    let post = |path: &str, body: &str| rig.post("lending", path, body);
    let form = |path: &str| {
        rig.ask("lending", "POST", path).multipart(&[Part::Text("reference_id", "loan-17"), PHOTO, image()])
    };
    vec![
        ("ktp", post(KTP, NIK)),
        ("ktp", post("/v1/identity/ktp_data_requests", NIK)),
        ("npwp", post("/v1/identity/npwp_data_requests", r#"{"npwp":"1"}"#)),
        ("phone", rig.ask("lending", "GET", "/v1/fraud/phone_numbers/6281234567890/age")),
        ("phone", post("/v1/identity/phone_numbers/validate", r#"{"phone_number":"6281234567890"}"#)),
        ("drawdown", rig.ask("lending", "POST", "/v1/credit/drawdowns").form("name=Contoh+Demo&amount=1")),
        ("face", form("/v2/identity/face_comparisons")),
        ("id_card", form("/v1/identity/id_card_verifications")),
        ("ocr", form(IMAGES)),
        ("document", form(DOCUMENTS)),
        ("capture", post(CAPTURES, r#"{"types":["SELFIE"],"reference_id":"loan-17"}"#)),
        ("capture", post(&format!("{CAPTURES}/r1/recapture"), r#"{"types":["SELFIE"]}"#)),
        ("capture", rig.ask("lending", "GET", &format!("{CAPTURES}/r1/recapture"))),
    ]
}

#[tokio::test]
async fn a_repetition_gets_the_stored_answer_and_costs_nothing() {
    let upstream = counting().await;
    let prices = "[prices]\nktp = 1\nnpwp = 1\nphone = 1\ndrawdown = 1\nface = 1\nid_card = 1\nocr = 1\ndocument = 1\ncapture = 1\n";
    let rig = rig(&upstream).extra(prices).start().await;
    let charged = || upstream.heard().iter().filter(|heard| !heard.target.ends_with("/r1")).count();
    let all = requests(&rig).len();
    for (number, ((row, first), (_, again))) in requests(&rig).into_iter().zip(requests(&rig)).enumerate() {
        let key = format!("{row}-{number}");
        let first = first.header(KEY, &key).send().await;
        assert_eq!((first.status, is_replay(&first)), (200, false), "{row} {}", first.text());
        assert_eq!(charged(), number + 1, "{row}");
        let calls = upstream.heard().len();
        let again = again.header(KEY, format!("\"{key}\"")).send().await;
        assert_eq!((again.status, &again.body, is_replay(&again)), (200, &first.body, true), "{row}");
        assert_eq!(again.header("content-type"), first.header("content-type"), "{row}");
        assert_eq!(upstream.heard().len(), calls, "{row}: nothing is sent for a repetition");
        let heard = upstream.heard().pop().expect("a request");
        assert!(!heard.headers.contains_key(KEY), "{row}");
        if ["ocr", "document"].contains(&row) {
            assert_eq!(again.json()["reference_id"], "loan-17", "{row}");
        }
    }
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await.json();
    assert_eq!(usage["today"]["billable"].as_u64(), Some(all as u64), "{usage}");
    let line = rig.logged_line(|line| line["cache"] == "replayed").await;
    assert_eq!((line["status"].as_u64(), &line["upstream_status"]), (Some(200), &Value::Null), "{line}");
    let replayed = r#"iluma_gateway_requests_total{cache="replayed",route="ktp",status="200",tenant="lending"}"#;
    rig.metric_becomes(replayed, |count| (count - 2.0).abs() < f64::EPSILON).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_repeated_submission_makes_its_team_an_owner_and_no_other() {
    let upstream = counting().await;
    let rig = rig(&upstream).start().await;
    let ask =
        |team: &str| rig.post(team, CAPTURES, r#"{"types":["SELFIE"],"reference_id":"loan-17"}"#).header(KEY, "one");
    let first = ask("lending").send().await.json();
    let again = ask("lending").send().await;
    assert_eq!((again.json(), is_replay(&again)), (first.clone(), true));
    let others = ask("payments").send().await;
    assert_eq!((others.status, is_replay(&others)), (200, false), "a key is its team's own");
    let id = first["id"].as_str().expect("an id").to_owned();
    assert_eq!(rig.ask("payments", "GET", &format!("{CAPTURES}/{id}")).send().await.status, 404);
    assert_eq!(rig.ask("lending", "GET", &format!("{CAPTURES}/{id}")).send().await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_other_rows_take_no_notice() {
    let upstream = counting().await;
    let rig = rig(&upstream).start().await;
    let long = "k".repeat(256);
    for key in ["", " ", "a b", "\"a", "\"\"", "\"a\" ", "\"a\"b\"", "\u{e9}", &long] {
        let asked = ktp(&rig, key, NIK).send().await;
        if key == "\"a\" " {
            assert_eq!(asked.status, 200, "space around a field is no part of it");
        } else {
            refused(&asked, 400, "malformed_idempotency_key");
        }
    }
    refused(&ktp(&rig, "a", NIK).header(KEY, "a").send().await, 400, "malformed_idempotency_key");
    assert_eq!(upstream.heard().len(), 1);
    let errors = r#"iluma_gateway_gateway_errors_total{reason="malformed_idempotency_key"}"#;
    rig.metric_becomes(errors, |count| count > 8.0).await;
    // A bank request is answered by the cache, and the header is not forwarded.
    let bank = "/v1.1/identity/bank_account_data_requests";
    for _ in 0..2 {
        let ask = rig.post("lending", bank, r#"{"bank_account_number":"1","bank_code":"BCA"}"#);
        let answer = ask.header(KEY, "a b").header("cache-control", "no-cache").send().await;
        assert_eq!((answer.status, is_replay(&answer)), (200, false));
    }
    assert!(upstream.heard().iter().all(|heard| !heard.headers.contains_key(KEY)));
    rig.stop().await;
}

#[tokio::test]
async fn another_request_with_the_key_is_refused() {
    let upstream = counting().await;
    let rig = rig(&upstream).start().await;
    assert_eq!(ktp(&rig, "k", NIK).send().await.status, 200);
    for (what, ask) in [
        ("another body", rig.post("lending", KTP, NIK.replace('3', "4"))),
        ("another spelling", rig.post("lending", KTP, format!("{NIK} "))),
        ("a longer body", rig.post("lending", KTP, format!("{NIK}{}", " ".repeat(1 << 20)))),
        ("no body", rig.ask("lending", "POST", KTP)),
        ("another version", rig.post("lending", &KTP.replace("v1", "v2"), NIK)),
        ("a query", rig.post("lending", &format!("{KTP}?a=b"), NIK)),
        ("another row", rig.post("lending", "/v1/identity/npwp_data_requests", NIK)),
        ("another type", rig.ask("lending", "POST", KTP).form(NIK)),
    ] {
        let answer = ask.header(KEY, "k").send().await;
        assert_eq!(answer.header("x-gateway-error"), "idempotency_key_reused", "{what}: {}", answer.text());
        refused(&answer, 422, "idempotency_key_reused");
    }
    for (what, ask) in [
        ("another spelling of the path", rig.post("lending", "/V1/identity/KTP_name/validations/", NIK)),
        (
            "a charset",
            rig.ask("lending", "POST", KTP).header("content-type", "Application/JSON; charset=utf-8").body(NIK),
        ),
        ("no type", rig.ask("lending", "POST", KTP).body(NIK)),
    ] {
        assert!(is_replay(&ask.header(KEY, "k").send().await), "{what}");
    }
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_multipart_body_is_the_same_with_another_boundary() {
    let upstream = counting().await;
    let rig = rig(&upstream).start().await;
    let sent = |path: &str, boundary: &str, file: &str, first: &str| {
        let part = |head: &str, value: &str| {
            format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        let body = format!(
            "{}{}--{boundary}--\r\n",
            part("name=\"name\"", first),
            part("name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png", file)
        );
        let ask = rig.ask("lending", "POST", path).header(KEY, path);
        ask.header("content-type", format!("multipart/form-data; boundary={boundary}")).body(body)
    };
    let file = "\u{1}".repeat(200_000);
    for path in ["/v2/identity/face_comparisons", IMAGES] {
        let first = sent(path, "aaaa", &file, "x").send().await;
        assert_eq!(first.status, 200, "{path} {}", first.text());
        let again = sent(path, "----WebKitFormBoundary7MA4YWxkTrZu0gW", &file, "x").send().await;
        assert_eq!((again.status, is_replay(&again), &again.body), (200, true, &first.body), "{path}");
        refused(&sent(path, "b", &file.replacen('\u{1}', "2", 1), "x").send().await, 422, "idempotency_key_reused");
        refused(&sent(path, "b", &file, "y").send().await, 422, "idempotency_key_reused");
    }
    assert_eq!(upstream.heard().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_key() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let first = tokio::spawn(ktp(&rig, "k", NIK).send());
    held.holds(1).await;
    let meanwhile = ktp(&rig, "k", NIK).send().await;
    refused(&meanwhile, 409, "idempotency_in_flight");
    assert!(meanwhile.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    refused(
        &rig.post("lending", &format!("{KTP}?x"), NIK).header(KEY, "k").send().await,
        422,
        "idempotency_key_reused",
    );
    held.release(1);
    let first = first.await.expect("an answer");
    let again = ktp(&rig, "k", NIK).send().await;
    assert_eq!((again.status, is_replay(&again), again.body), (200, true, first.body));
    assert_eq!(held.arrived(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_left_finds_the_answer() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).start().await;
    let first = tokio::spawn(ktp(&rig, "k", NIK).send());
    held.holds(1).await;
    first.abort();
    let _ = first.await;
    held.release(1);
    until("the call has ended", || held.answered() == 1).await;
    let again = settled(|| ktp(&rig, "k", NIK)).await;
    assert_eq!((again.status, is_replay(&again)), (200, true), "{}", again.text());
    assert_eq!(held.arrived(), 1);
    rig.stop().await;
}

/// Repeats a request while another request with its key is in flight. Returns the first other answer.
async fn settled(ask: impl Fn() -> Ask) -> Answer {
    let look = async {
        loop {
            let answer = ask().send().await;
            if answer.header("x-gateway-error") != "idempotency_in_flight" {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the request with the key ends")
}

#[tokio::test]
async fn a_key_is_free_after_what_was_free_and_keeps_what_would_be_the_same() {
    let said = Arc::new(Mutex::new((200, String::new())));
    let upstream = saying(&said).await;
    let rig = rig(&upstream).start().await;
    let limited = r#"{"error_code":"RATE_LIMIT_EXCEEDED"}"#;
    let network = r#"{"id":"a","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#;
    for (status, body, is_kept) in [
        (400, r#"{"error_code":"API_VALIDATION_ERROR"}"#, true),
        (404, "{}", true),
        (422, "{}", true),
        (200, r#"{"id":"a","status":"PENDING"}"#, true),
        (401, "{}", false),
        (403, "{}", false),
        (408, "{}", false),
        (503, "{}", false),
        (200, network, false),
        (429, "{}", false),
        (400, limited, false),
    ] {
        let key = format!("{status}{}", body.len());
        *said.lock().expect("an answer") = (status, body.to_owned());
        // Another path each time: an endpoint that refuses for its rate backs off.
        let path = if status == 429 || body == limited { "/v1/credit/drawdowns" } else { DOCUMENTS };
        let path = if body == limited { "/v1/identity/npwp_data_requests" } else { path };
        let ask = || rig.post("lending", path, r#"{"a":"b"}"#).header(KEY, &key);
        let first = ask().send().await;
        assert_eq!(first.status, status, "{body}");
        let calls = upstream.heard().len();
        *said.lock().expect("an answer") = (200, r#"{"id":"b","status":"COMPLETED"}"#.to_owned());
        rig.clock.advance(Duration::from_secs(120));
        let again = ask().send().await;
        if is_kept {
            assert_eq!((again.status, is_replay(&again), &again.body), (status, true, &first.body), "{body}");
            assert_eq!(upstream.heard().len(), calls);
        } else {
            assert_eq!((again.status, is_replay(&again)), (200, false), "{status} {body} {}", again.text());
            assert_eq!(upstream.heard().len(), calls + 1);
            assert!(is_replay(&ask().send().await), "{status} {body}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn after_an_unknown_outcome_there_is_no_second_call() {
    let status = Arc::new(AtomicU16::new(500));
    let told = Arc::clone(&status);
    let upstream = Upstream::answering(move |_| answer(told.load(Ordering::SeqCst), "{}")).await;
    let rig = rig(&upstream).start().await;
    assert_eq!(ktp(&rig, "k", NIK).send().await.status, 500);
    status.store(200, Ordering::SeqCst);
    for _ in 0..2 {
        refused(&ktp(&rig, "k", NIK).send().await, 409, "idempotency_outcome_unknown");
    }
    assert_eq!(upstream.heard().len(), 1);
    let rig = rig.restart_at(Duration::from_secs(86401)).await;
    assert_eq!(ktp(&rig, "k", NIK).send().await.status, 200, "a day later");
    rig.stop().await;
}

#[tokio::test]
async fn a_call_that_was_never_sent_frees_the_key() {
    let upstream = counting().await;
    let rig = rig(&upstream).tenant("lending", "upstream_calls_per_day = 1").start().await;
    assert_eq!(ktp(&rig, "one", NIK).send().await.status, 200);
    for _ in 0..3 {
        let answer = ktp(&rig, "two", NIK).send().await;
        assert_eq!((answer.status, answer.header("x-gateway-error")), (429, "quota_exceeded"), "{}", answer.text());
    }
    rig.clock.advance(Duration::from_secs(86400));
    assert_eq!(ktp(&rig, "two", NIK).send().await.status, 200);
    // A body that the gateway refuses never reaches Iluma completely.
    for _ in 0..2 {
        let foreign = rig.post("lending", CAPTURES, r#"{"reference_id":7}"#).header(KEY, "three").send().await;
        assert_eq!((foreign.status, foreign.header("x-gateway-error")), (400, "malformed_reference"));
    }
    assert_eq!(upstream.heard().len(), 2);
    rig.stop().await;
    let gone = Rig::builder().upstream("http://127.0.0.1:9").start().await;
    for _ in 0..3 {
        let answer = ktp(&gone, "k", NIK).send().await;
        assert_eq!((answer.status, answer.header("x-gateway-error")), (503, "upstream_unreachable"));
    }
    gone.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_given_twice() {
    let upstream = Upstream::answering(|_| answer(200, &format!("{{\"x\":\"{}\"}}", "y".repeat(256 << 10)))).await;
    let rig = rig(&upstream).start().await;
    assert_eq!(ktp(&rig, "k", NIK).send().await.status, 200);
    refused(&ktp(&rig, "k", NIK).send().await, 409, "idempotency_answer_not_kept");
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_stored_answer_is_erased_with_the_person_of_its_request() {
    let upstream = Upstream::answering(|_| answer(200, r#"{"status":"FOUND","name_match":"true"}"#)).await;
    let rig = rig(&upstream).start().await;
    let name = Part::Text("name", "\"Contoh Demo\"");
    let asks = || {
        vec![
            ktp(&rig, "json", r#"{"nik":"3171234567890123","name":"Contoh Demo"}"#),
            rig.ask("lending", "POST", "/v1/credit/drawdowns").form("name=contoh+demo").header(KEY, "form"),
            rig.ask("lending", "POST", IMAGES).multipart(&[name.clone(), image()]).header(KEY, "multipart"),
            ktp(&rig, "other", r#"{"nik":"1"}"#),
            rig.ask("lending", "GET", "/v1/fraud/phone_numbers/6281234567890/age").header(KEY, "phone"),
        ]
    };
    for ask in asks() {
        assert_eq!(ask.send().await.status, 200);
    }
    let erased = rig.operator("POST", "/v1/erase").json(r#"{"name":"Contoh Demo"}"#).send().await;
    assert_eq!(erased.json()["removed"]["answers"], 3, "{}", erased.text());
    let erased = rig.operator("POST", "/v1/erase").json(r#"{"phone_number":"+62 812-3456-7890"}"#).send().await;
    assert_eq!(erased.json()["removed"]["answers"], 1, "{}", erased.text());
    for (number, ask) in asks().into_iter().enumerate() {
        let answer = ask.send().await;
        if number == 3 {
            assert!(is_replay(&answer));
        } else {
            refused(&answer, 409, "idempotency_answer_erased");
        }
    }
    assert_eq!(upstream.heard().len(), 5);
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_outlives_the_process_and_ends_after_a_day() {
    let upstream = counting().await;
    let rig = rig(&upstream).start().await;
    let first = ktp(&rig, "k", NIK).send().await;
    let rig = rig.restart_at(Duration::from_secs(86_000)).await;
    let again = ktp(&rig, "k", NIK).send().await;
    assert_eq!((is_replay(&again), &again.body), (true, &first.body));
    let rig = rig.restart_at(Duration::from_secs(86_401)).await;
    let anew = ktp(&rig, "k", NIK).send().await;
    assert_eq!((anew.status, is_replay(&anew)), (200, false));
    assert_ne!(anew.body, first.body);
    rig.stop().await;
}

#[tokio::test]
async fn a_submission_that_is_settled_as_free_frees_its_key() {
    let next = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&next);
    let upstream = Upstream::answering(move |_| {
        let id = format!("doc-{}", count.fetch_add(1, Ordering::SeqCst));
        answer(200, &json!({ "id": id, "status": "PENDING", "reference_id": "lending:" }).to_string())
    })
    .await;
    let rig = rig(&upstream).start().await;
    let ask = |key: &'static str| rig.post("lending", DOCUMENTS, r#"{"country":"ID"}"#).header(KEY, key);
    let kind = "BUSINESS_DOCUMENT_OCR_REQUEST";
    for key in ["free", "charged"] {
        assert_eq!(ask(key).send().await.status, 200);
        assert!(is_replay(&ask(key).send().await), "accepted: {key}");
    }
    let failed =
        r#"{"id":"doc-0","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR","reference_id":"lending:"}"#;
    assert_eq!(rig.callback(kind, failed).send().await.status, 200);
    assert_eq!(
        rig.callback(kind, failed.replace("doc-0", "doc-1").replace("TEMPORARY_NETWORK_ERROR", "X"))
            .send()
            .await
            .status,
        200
    );
    let freed = async {
        while is_replay(&ask("free").send().await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the settlement frees the key");
    assert_eq!(next.load(Ordering::SeqCst), 3);
    let kept = ask("charged").send().await;
    assert_eq!((is_replay(&kept), &kept.json()["id"]), (true, &json!("doc-1")));
    rig.stop().await;
}

#[tokio::test]
async fn below_the_reserve_of_the_disk_a_new_key_is_refused_and_an_old_one_is_not() {
    let upstream = counting().await;
    let rig = rig(&upstream).section("state", "disk_reserve = \"0B\"").start().await;
    assert_eq!(ktp(&rig, "old", NIK).send().await.status, 200);
    let rig =
        rig.changed(|text| text.replace("disk_reserve = \"0B\"", "disk_reserve = \"1000000GiB\"")).restart().await;
    let answer = ktp(&rig, "new", NIK).send().await;
    refused(&answer, 503, "idempotency_unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(is_replay(&ktp(&rig, "old", NIK).send().await));
    assert_eq!(upstream.heard().len(), 1, "nothing is sent");
    assert_eq!(rig.post("lending", KTP, NIK).send().await.status, 200, "without a key as ever");
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_is_dropped_at_any_point_makes_one_call_at_most() {
    let upstream = counting().await;
    let rig = rig(&upstream).start().await;
    for path in [KTP, CAPTURES] {
        let mut ended = 0;
        for polls in 1..200 {
            let key = format!("{path}{polls}");
            let body = json!({ "types": ["SELFIE"], "nik": polls.to_string() }).to_string();
            let head = rig.head("lending", "POST", path);
            let request = format!(
                "{head}{KEY}: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            ended += usize::from(answered_within(&rig, &request, polls).await);
            let answer = settled(|| rig.post("lending", path, body.as_str()).header(KEY, &key)).await;
            assert_eq!(answer.status, 200, "{path}, dropped after {polls} polls: {}", answer.text());
            let number = polls.to_string();
            let calls = upstream.heard().into_iter().filter(|heard| {
                let body: Value = serde_json::from_slice(&heard.body).unwrap_or_default();
                heard.target == path && body["nik"] == number.as_str()
            });
            assert_eq!(calls.count(), 1, "{path}, dropped after {polls} polls");
            if ended == 3 {
                break;
            }
        }
        assert_eq!(ended, 3, "{path}");
    }
    rig.stop().await;
}
