//! The cache: the stored answers, their lifetimes, their scope, and the answers that hits give.

use crate::support::{Answer, Heard, Rig, RigBuilder, Upstream, ask};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BANK_V1: &str = "/v1/identity/bank_account_data_requests";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const DETAILS: &str = "/v1.2/identity/bank_account_validation_details";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const CODES: &str = "/bank/available_bank_codes";
const ACCOUNT: &str = r#"{"bank_account_number":"1234567890","bank_code":"BCA"}"#;

/// Lifetimes that all differ, so that a test sees which of them an answer got.
const LIFETIMES: &str = "bank = { found = \"3h\", not_found = \"30m\" }\ncft = { clear = \"20m\", match = \"40m\" }";

/// The tolerance for ages: the rig's clock also moves by itself, but no test takes that long.
const MARGIN: Duration = Duration::from_secs(20);

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn answered(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header("content-type", "application/json; charset=utf-8");
    answer.body(Full::new(body.into())).expect("an answer")
}

/// Returns an answer about a found account. It has the request's reference, and `call` is the number in its id.
fn found(heard: &Heard, call: usize) -> Value {
    let mut answer = json!({
        "status": "COMPLETED",
        "bank_account_number": "1234567890",
        "id": format!("bknv_{call}"),
        "result": { "is_found": true, "account_holder_name": "FIRA DIYANKA", "is_virtual_account": false },
    });
    let sent: Value = serde_json::from_slice(&heard.body).unwrap_or_default();
    if let Some(reference) = sent.get("reference_id").filter(|reference| reference.is_string()) {
        answer["reference_id"] = reference.clone();
    }
    answer
}

/// Starts an upstream that finds every bank account. Returns it with the builder of a gateway in front of it.
async fn counting() -> (Upstream, RigBuilder) {
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let upstream = Upstream::answering(move |heard| {
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        answered(200, found(heard, call).to_string())
    })
    .await;
    let builder = Rig::builder().upstream(upstream.url());
    (upstream, builder)
}

/// Starts an upstream that always gives this answer, and a gateway with [`LIFETIMES`] in front of it.
async fn fixed(status: u16, body: &str) -> (Upstream, Rig) {
    let body = body.to_owned();
    let upstream = Upstream::answering(move |_| answered(status, body.clone())).await;
    let rig = Rig::builder().upstream(upstream.url()).section("cache", LIFETIMES).start().await;
    (upstream, rig)
}

#[track_caller]
fn is_hit(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("cache-status").starts_with("iluma-gateway; hit; ttl="), "{:?}", answer.headers);
}

#[track_caller]
fn is_fresh(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.header("cache-status").contains("hit"), "{:?}", answer.headers);
    assert_eq!(answer.header("age"), "", "only a hit has an age");
}

#[tokio::test]
async fn final_answers_are_kept_for_their_lifetime() {
    let result = |result: &str| format!(r#"{{"status":"COMPLETED","id":"a","result":{result}}}"#);
    let rows = [
        (BANK, result(r#"{"is_found":true,"account_holder_name":"A"}"#), 180),
        (BANK, result(r#"{"is_found":"true","account_holder_name":"A","is_virtual_account":"false"}"#), 180),
        (BANK, result(r#"{"is_found":true,"account_holder_name":"A","need_review":true}"#), 180),
        (BANK, result(r#"{"is_found":false}"#), 30),
        (BANK, result(r#"{"is_found":"false"}"#), 30),
        (DETAILS, result(r#"{"is_found":true,"account_holder_name":"A"}"#), 180),
        (BANK, result(r#"{"is_found":true}"#).replace("COMPLETED", "completed"), 180),
        (BANK_V1, r#"{"status":"SUCCESS","bank_account_holder_name":"A","id":"a"}"#.into(), 180),
        (BANK_V1, r#"{"status":"success","bank_account_holder_name":"A","id":"a"}"#.into(), 180),
        (BANK_V1, r#"{"status":"FAILED","failure_reason":"BANK_ACCOUNT_NOT_FOUND_ERROR","id":"a"}"#.into(), 30),
        (CFT, r#"{"request_name":"A","results":[],"id":"a"}"#.into(), 20),
        (CFT, r#"{"request_name":"A","results":[{"pid":"dttot_1","name":"B","origin":"DTTOT"}],"id":"a"}"#.into(), 40),
    ];
    for (path, body, lifetime) in rows {
        let (upstream, rig) = fixed(200, &body).await;
        let first = rig.post("lending", path, ACCOUNT).send().await;
        assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored", "{body}");
        is_fresh(&first);
        rig.clock.advance(minutes(lifetime) - MARGIN);
        let last = rig.post("payments", path, ACCOUNT).send().await;
        is_hit(&last);
        let ttl: u64 =
            last.header("cache-status").trim_start_matches("iluma-gateway; hit; ttl=").parse().expect("seconds");
        let age: u64 = last.header("age").parse().expect("seconds");
        assert!(ttl <= MARGIN.as_secs() && age >= 60 * lifetime - MARGIN.as_secs(), "{body}: {:?}", last.headers);
        assert!((60 * lifetime - 1..=60 * lifetime).contains(&(age + ttl)), "{body}: {:?}", last.headers);
        assert_eq!((last.text(), last.header("content-type")), (body.clone(), first.header("content-type")));
        rig.clock.advance(MARGIN);
        let after = rig.post("payments", path, ACCOUNT).send().await;
        is_fresh(&after);
        assert_eq!(upstream.heard().len(), 2, "{body}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_final_or_not_understood_is_not_kept() {
    let status = |status: &str| format!(r#"{{"status":"{status}","id":"a"}}"#);
    let failed = |reason: &str| format!(r#"{{"status":"FAILED","failure_reason":"{reason}","id":"a"}}"#);
    let is_found = r#""result":{"is_found":true,"account_holder_name":"A"}"#;
    let rows = [
        (BANK, 200, status("RECAPTURE_PENDING")),
        // Without an id the result could not be fetched.
        (BANK, 200, r#"{"status":"PENDING"}"#.into()),
        (BANK, 200, format!(r#"{{"status":"SOMETHING_NEW","id":"a",{is_found}}}"#)),
        (BANK, 200, format!(r#"{{"id":"a",{is_found}}}"#)),
        (BANK, 200, format!(r#"{{"status":null,"id":"a",{is_found}}}"#)),
        (BANK, 200, format!(r#"{{"status":7,"id":"a",{is_found}}}"#)),
        (BANK, 200, status("COMPLETED")),
        (BANK, 200, r#"{"status":"COMPLETED","id":"a","result":{}}"#.into()),
        (BANK, 200, r#"{"status":"COMPLETED","id":"a","result":{"is_found":"perhaps"}}"#.into()),
        (BANK, 200, failed("TEMPORARY_NETWORK_ERROR")),
        (BANK_V1, 200, failed("TEMPORARY_NETWORK_ERROR")),
        (BANK, 200, failed("SOMETHING_NEW")),
        (BANK_V1, 200, status("FAILED")),
        // The member is repeated: parsers differ on which one counts.
        (BANK, 200, format!(r#"{{"status":"COMPLETED","status":"PENDING","id":"a",{is_found}}}"#)),
        (BANK, 200, format!(r#"{{"status":"PENDING","status":"COMPLETED","id":"a",{is_found}}}"#)),
        (BANK, 200, format!(r#"{{"status":"COMPLETED","id":"a",{is_found}}}"#) + "{"),
        (BANK, 200, format!(r#"{{"status":"COMPLETED","id":"a",{is_found}"#)),
        (BANK, 200, format!(r#"[{{"status":"COMPLETED","id":"a",{is_found}}}]"#)),
        (BANK, 200, "<html>".into()),
        (BANK, 200, "\"COMPLETED\"".into()),
        (BANK, 200, String::new()),
        (CFT, 200, r#"{"request_name":"A","id":"a"}"#.into()),
        (CFT, 200, r#"{"request_name":"A","results":null,"id":"a"}"#.into()),
        (CFT, 200, r#"{"request_name":"A","results":{},"id":"a"}"#.into()),
        (CFT, 200, r#"{"request_name":"A","results":[],"results":[{"pid":"p"}],"id":"a"}"#.into()),
        (CFT, 200, r#"{"error_code":"SERVER_ERROR","message":"m"}"#.into()),
        (CFT, 500, r#"{"request_name":"A","results":[],"id":"a"}"#.into()),
        (CODES, 200, "<html>".into()),
        (CODES, 500, "[]".into()),
    ];
    for (path, code, body) in rows {
        let (upstream, rig) = fixed(code, &body).await;
        let method = if path == CODES { "GET" } else { "POST" };
        for team in ["lending", "payments", "lending"] {
            let ask = rig.ask(team, method, path).header("content-type", "application/json");
            let answer = if path == CODES { ask } else { ask.body(ACCOUNT) }.send().await;
            assert_eq!((answer.status, answer.text()), (code, body.clone()), "{path}");
            let about = answer.header("cache-status");
            assert!(!about.contains("stored") && !about.contains("hit"), "{path} {body}: {about}");
            assert!(about.starts_with("iluma-gateway; fwd="), "{path} {body}: {about}");
        }
        assert!(upstream.heard().len() >= 3, "{path} {body}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn error_statuses_are_not_kept_whatever_they_say() {
    let body = r#"{"status":"COMPLETED","id":"a","result":{"is_found":true}}"#;
    for code in [400, 401, 403, 404, 409, 413, 429, 500, 502, 503] {
        let (upstream, rig) = fixed(code, body).await;
        for calls in 1..=2 {
            let answer = rig.post("lending", BANK, ACCOUNT).send().await;
            assert_eq!((answer.status, answer.text().as_str()), (code, body));
            assert!(!answer.header("cache-status").contains("stored"), "{code}");
            assert_eq!(upstream.heard().len(), calls, "a POST is not repeated, nor an error kept");
            // The account's pause after a 429 has ended.
            rig.clock.advance(minutes(10));
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_lifetime_of_nothing_keeps_nothing() {
    let (upstream, builder) = counting().await;
    let rig = builder.section("cache", "bank = { found = \"0s\" }").start().await;
    for calls in 1..=2 {
        is_fresh(&rig.post("lending", BANK, ACCOUNT).send().await);
        assert_eq!(upstream.heard().len(), calls);
    }
    rig.stop().await;
    let (upstream, builder) = counting().await;
    let rig = builder.section("cache", "memory = \"0B\"\ndisk = \"0B\"").start().await;
    for calls in 1..=2 {
        is_fresh(&rig.post("lending", BANK, ACCOUNT).send().await);
        assert_eq!(upstream.heard().len(), calls);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_hit_has_its_own_reference_and_nothing_else_changes() {
    let with =
        |reference: &str| format!(r#"{{"bank_code":"BCA","bank_account_number":"1","reference_id":{reference}}}"#);
    let none = r#"{"bank_code":"BCA","bank_account_number":"1"}"#.to_owned();
    let references = [
        r#""b""#,
        r#""""#,
        r#""a longer reference than the first one, with spaces""#,
        r#""quote \" backslash \\ slash \/ tab \t nul \u0000""#,
        r#""\u00e4\ud83d\ude00 äöü 日本語""#,
        r#""\"},{\"reference_id\":\"x""#,
    ];
    // The reference is first, in the middle, last, alone with odd spaces, or absent.
    let shapes = [
        r#"{"reference_id":REF,"status":"COMPLETED","id":"i","result":{"is_found":true,"score":1.00,"big":12345678901234567890}}"#,
        r#"{"status":"COMPLETED","reference_id":REF,"id":"i","result":{"is_found":true}}"#,
        r#"{"status":"COMPLETED","id":"i","result":{"is_found":true},"reference_id":REF}"#,
        "{\n  \"status\" : \"COMPLETED\" ,\n  \"reference_id\" : REF ,\r\n\t\"id\":\"i\", \"result\":{\"is_found\":true}\n}\n",
    ];
    for (sealed, shape) in [true, false].into_iter().flat_map(|sealed| shapes.map(|shape| (sealed, shape))) {
        for filler in [Some(r#""filler""#), Some(r#""\u0066iller \" \\ \ud83d\ude00""#), None] {
            let body = filler.map_or_else(
                || shape.replace("\"reference_id\":REF,", "").replace(",\"reference_id\":REF", ""),
                |filler| shape.replace("REF", filler),
            );
            if body.contains("REF") {
                continue;
            }
            // Upstream echoes the reference that it received in its own spelling: with the prefix, which the caller did
            // not send.
            let echoed = match filler {
                _ if !sealed => body.clone(),
                Some(filler) => shape.replace("REF", &filler.replacen('"', "\"lending:", 1)),
                None => shape.replace("REF", "\"lending:\""),
            };
            let upstream = Upstream::answering(move |_| answered(200, echoed.clone())).await;
            let rig = Rig::builder().upstream(upstream.url()).account(&format!("prefix_references = {sealed}"));
            let rig = rig.section("cache", LIFETIMES).start().await;
            let first = rig.post("lending", BANK, filler.map_or(none.clone(), with)).send().await;
            assert_eq!(first.text(), body, "the first answer is upstream's byte for byte, except for the prefix");
            let without: Value = serde_json::from_str(&body).expect("json");
            let without: Value =
                without.as_object().expect("an object").clone().into_iter().filter(|m| m.0 != "reference_id").collect();
            for reference in references {
                let hit = rig.post("payments", BANK, with(reference)).send().await;
                is_hit(&hit);
                let mut expected = without.clone();
                expected["reference_id"] = serde_json::from_str(reference).expect("json");
                assert_eq!(hit.json(), expected, "{body}");
                assert_eq!(hit.text().matches("filler").count(), 0);
                assert_eq!(hit.header("content-length"), hit.body.len().to_string());
                if shape.contains("1.00") {
                    assert!(hit.text().contains("\"score\":1.00,\"big\":12345678901234567890"), "{}", hit.text());
                }
                if filler.is_some() {
                    // Everything except the reference is unchanged.
                    let around: Vec<_> = shape.split("REF").collect();
                    assert!(hit.text().starts_with(around[0]) && hit.text().ends_with(around[1]), "{}", hit.text());
                }
            }
            for body in [none.clone(), with("null")] {
                let hit = rig.post("payments", BANK, body).send().await;
                is_hit(&hit);
                assert_eq!(hit.json(), without, "{}", hit.text());
            }
            let form = "bank_code=BCA&bank_account_number=1&reference_id=a+%22b%22%26%C3%A4";
            let hit = rig.ask("payments", "POST", BANK).form(form).send().await;
            is_hit(&hit);
            assert_eq!(hit.json()["reference_id"], "a \"b\"&ä");
            assert_eq!(upstream.heard().len(), 1);
            rig.stop().await;
        }
    }
}

#[tokio::test]
async fn only_status_type_and_body_are_kept() {
    let upstream = Upstream::answering(|heard| {
        let mut answer = answered(200, found(heard, 1).to_string());
        for (name, value) in [
            ("x-iluma-trace", "of-the-first"),
            ("set-cookie", "session=first"),
            ("etag", "\"first\""),
            ("last-modified", "Mon, 03 Jul 2017 10:51:44 GMT"),
            ("request-id", "first"),
        ] {
            answer.headers_mut().insert(name, value.parse().expect("a value"));
        }
        answer
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let first = rig.post("lending", BANK, ACCOUNT).send().await;
    let hit = rig.post("payments", BANK, ACCOUNT).send().await;
    is_hit(&hit);
    assert_eq!(first.header("x-iluma-trace"), "of-the-first");
    let mut names: Vec<_> = hit.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    // "connection" and "keep-alive" are the gateway's own fields about this connection.
    let expected = [
        "age",
        "cache-status",
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "ratelimit",
        "ratelimit-policy",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    assert_ne!(hit.header("x-request-id"), first.header("x-request-id"));
    rig.stop().await;
}

#[tokio::test]
async fn questions_that_are_the_same_and_those_that_are_not() {
    let json = |body: &str| ("application/json".to_owned(), body.to_owned());
    let form = |body: &str| ("application/x-www-form-urlencoded".to_owned(), body.to_owned());
    let base = json(r#"{"bank_account_number":"1234567890","bank_code":"BCA"}"#);
    let same = [
        (BANK, json(r#"{"bank_code":"BCA","bank_account_number":"1234567890"}"#)),
        (BANK, json("{ \"bank_code\" :\n\"BCA\",\t\"bank_account_number\":\"1234567890\" }\n")),
        (BANK, json(r#"{"bank_code":"\u0042CA","bank_account_number":"123456789\u0030"}"#)),
        (BANK, json(r#"{"bank_code":"BCA","reference_id":"r","bank_account_number":"1234567890"}"#)),
        (BANK, form("bank_account_number=1234567890&bank_code=BCA")),
        (BANK, form("bank_code=%42CA&bank_account_number=1234567890&reference_id=x")),
        (BANK, ("application/json; charset=utf-8".into(), base.1.clone())),
        (BANK, ("Application/JSON".into(), base.1.clone())),
        // One normal form: unreserved characters are decoded.
        ("/v1%2E1/identity/bank%5Faccount_data_requests", base.clone()),
    ];
    let other = [
        (BANK, json(r#"{"bank_account_number":1234567890,"bank_code":"BCA"}"#)),
        (BANK, json(r#"{"bank_account_number":"01234567890","bank_code":"BCA"}"#)),
        (BANK, json(r#"{"bank_account_number":" 1234567890","bank_code":"BCA"}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"bca"}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"BCA","unknown":"x"}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"BCA","given_name":null}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"BCA","given_name":""}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"BCA","given_name":{"a":1}}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"BCA","given_name":"a"}"#)),
        (BANK, json(r#"{"bank_account_number":"1234567890","bank_code":"BCA","surname":"a"}"#)),
        (BANK, json(r#"{"bank_code":"1234567890","bank_account_number":"BCA"}"#)),
        (BANK_V1, base.clone()),
        ("/v1.2/identity/bank_account_data_requests", base.clone()),
        ("/v2.2/identity/bank_account_data_requests", base.clone()),
        (DETAILS, base.clone()),
        ("/v1.1/identity/bank_account_data_requests?a=b", base.clone()),
        ("/v1.1/identity/bank_account_data_requests?a=B", base.clone()),
    ];
    let (upstream, builder) = counting().await;
    let rig = builder.start().await;
    let send = |path: &'static str, (kind, body): (String, String)| {
        rig.ask("lending", "POST", path).header("content-type", kind).body(body).send()
    };
    is_fresh(&send(BANK, base).await);
    for (path, question) in same {
        let about = format!("{path} {question:?}");
        let answer = send(path, question).await;
        assert!(answer.header("cache-status").contains("hit"), "{about}: {:?}", answer.headers);
        assert_eq!(answer.json()["id"], "bknv_1");
    }
    for (calls, (path, question)) in (2..).zip(other) {
        let about = format!("{path} {question:?}");
        let answer = send(path, question).await;
        assert!(!answer.header("cache-status").contains("hit"), "{about}: {:?}", answer.headers);
        assert_eq!(upstream.heard().len(), calls, "{about}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn case_and_a_trailing_slash_do_not_matter_for_matching() {
    for path in ["/V1.1/IDENTITY/Bank_Account_Data_Requests", "/v1.1/identity/bank_account_data_requests/"] {
        let (upstream, builder) = counting().await;
        let rig = builder.start().await;
        let first = rig.post("lending", path, ACCOUNT).send().await;
        assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored", "{path}");
        is_hit(&rig.post("payments", path, ACCOUNT).send().await);
        assert_eq!(upstream.heard().len(), 1);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_team_that_does_not_share_keeps_to_itself() {
    let (upstream, builder) = counting().await;
    let rig = builder.tenant("private", "share_cache = false").tenant("secret", "share_cache = false").start().await;
    let ids = async |team: &'static str| {
        rig.post(team, BANK, ACCOUNT).send().await.json()["id"].as_str().expect("an id").to_owned()
    };
    for (team, id) in [
        ("lending", "bknv_1"),
        ("private", "bknv_2"),
        ("payments", "bknv_1"),
        ("secret", "bknv_3"),
        ("private", "bknv_2"),
        ("secret", "bknv_3"),
        ("lending", "bknv_1"),
    ] {
        assert_eq!(ids(team).await, id, "{team}");
    }
    assert_eq!(upstream.heard().len(), 3);
    rig.stop().await;
}

/// Adds the account `other` with the team `tests`. The teams `lending` and `payments` stay on the account `live`.
fn two_accounts(builder: RigBuilder) -> RigBuilder {
    let other = "[accounts.other]\napi_key = { env = \"OTHER\" }\n";
    builder.secret("OTHER", "iluma_development_other").tenant("tests", "account = \"other\"").extra(other)
}

#[tokio::test]
async fn accounts_have_nothing_in_common() {
    let (upstream, builder) = counting().await;
    let rig = two_accounts(builder).start().await;
    for team in ["lending", "tests", "payments", "tests"] {
        rig.post(team, BANK, ACCOUNT).send().await;
    }
    let keys: Vec<_> = upstream.heard().iter().map(|heard| heard.headers["authorization"].clone()).collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1], "each with its account's key");
    rig.stop().await;
}

#[tokio::test]
async fn bank_codes_are_kept_for_all_teams_of_an_account() {
    let upstream = Upstream::answering(|_| answered(200, r#"[{"code":"BCA","name":"Bank Central Asia"}]"#)).await;
    let rig = two_accounts(Rig::builder().upstream(upstream.url()))
        .tenant("private", "share_cache = false\nroutes = [\"ktp\"]")
        .start()
        .await;
    let first = rig.ask("lending", "GET", CODES).send().await;
    assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
    for team in ["lending", "payments", "private"] {
        let hit = rig.ask(team, "GET", CODES).send().await;
        is_hit(&hit);
        assert_eq!((hit.text(), hit.header("content-type")), (first.text(), first.header("content-type")));
    }
    is_fresh(&rig.ask("tests", "GET", CODES).send().await);
    rig.clock.advance(minutes(60) - MARGIN);
    is_hit(&rig.ask("payments", "GET", CODES).send().await);
    rig.clock.advance(MARGIN);
    is_fresh(&rig.ask("payments", "GET", CODES).send().await);
    assert_eq!(upstream.heard().len(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn health_needs_no_key_and_is_kept_for_five_seconds() {
    let upstream = Upstream::answering(|_| answered(200, r#"{"status":"HEALTHY"}"#)).await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let health = async || {
        let answer = ask("GET", rig.url("/health")).send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"status":"HEALTHY"}"#));
        upstream.heard().len()
    };
    assert_eq!((health().await, health().await), (1, 1));
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(health().await, 1);
    rig.clock.advance(Duration::from_millis(4100));
    assert_eq!((health().await, health().await), (2, 2));
    let with_key = rig.ask("lending", "GET", "/health").send().await;
    assert_eq!(with_key.status, 200);
    let wrong_key = ask("GET", rig.url("/health")).key("nobody").send().await;
    assert_eq!(wrong_key.status, 200);
    assert_eq!(upstream.heard().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_magic_reply_bypasses_the_cache_even_an_empty_one() {
    for magic in ["COMPLETED_FOUND", "", " "] {
        let (upstream, builder) = counting().await;
        let rig = builder.start().await;
        let magical = || rig.post("lending", BANK, ACCOUNT).header("x-magic-reply", magic).send();
        for calls in 1..=2 {
            let answer = magical().await;
            assert_eq!(answer.header("cache-status"), "iluma-gateway; fwd=bypass; detail=magic-reply");
            assert_eq!(upstream.heard().len(), calls);
        }
        assert_eq!(upstream.heard()[0].headers["x-magic-reply"], magic.trim());
        let plain = rig.post("lending", BANK, ACCOUNT).send().await;
        is_fresh(&plain);
        assert_eq!(plain.json()["id"], "bknv_3", "nothing of it was stored");
        is_fresh(&magical().await);
        let hit = rig.post("lending", BANK, ACCOUNT).send().await;
        is_hit(&hit);
        assert_eq!(hit.json()["id"], "bknv_3", "nothing of it was stored over what was there");
        rig.stop().await;
    }
}

#[tokio::test]
async fn duplicate_members_bypass_the_cache() {
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let rows = [
        (json, r#"{"bank_account_number":"1","bank_account_number":"1234567890","bank_code":"BCA"}"#),
        (json, r#"{"bank_account_number":"1234567890","bank_code":"BCA","bank_code":"BCA"}"#),
        (json, r#"{"bank_account_number":"1234567890","bank_code":"BCA","bank\u005fcode":"BNI"}"#),
        (json, r#"{"bank_account_number":"1234567890","bank_code":"BCA","x":{"a":1,"a":2}}"#),
        (form, "bank_account_number=1234567890&bank_code=BCA&bank_code=BNI"),
        (form, "bank_account_number=1234567890&bank_code=BCA&bank%5Fcode=BNI"),
    ];
    for (kind, body) in rows {
        let (upstream, builder) = counting().await;
        let rig = builder.start().await;
        for calls in 1..=2 {
            let answer = rig.ask("lending", "POST", BANK).header("content-type", kind).body(body).send().await;
            assert_eq!(answer.status, 200);
            let about = answer.header("cache-status").to_owned();
            assert!(about.starts_with("iluma-gateway; fwd=bypass; detail="), "{body}: {about}");
            assert_eq!(upstream.heard().len(), calls, "{body}");
        }
        let sealed = match body.strip_suffix('}') {
            Some(open) => format!("{open},\"reference_id\":\"lending:\"}}"),
            None => format!("{body}&reference_id=lending%3A"),
        };
        assert_eq!(upstream.heard()[0].body, sealed, "forwarded unchanged, except for the prefix");
        is_fresh(&rig.post("lending", BANK, ACCOUNT).send().await);
        rig.stop().await;
    }
}

#[tokio::test]
async fn request_directives_are_obeyed() {
    let (upstream, builder) = counting().await;
    let rig = builder.start().await;
    let ask =
        async |directive: &str| rig.post("lending", BANK, ACCOUNT).header("cache-control", directive).send().await;
    let none = || rig.post("lending", BANK, ACCOUNT).send();

    // A route whose answers are not cached has no stored answer either.
    let streamed = rig.post("lending", "/v1/identity/ktp_name/validations", "{}");
    assert_eq!(streamed.header("cache-control", "only-if-cached").send().await.status, 504);
    for only in ["only-if-cached", "Only-If-Cached", "max-age=60, only-if-cached"] {
        let absent = ask(only).await;
        assert_eq!(absent.status, 504, "{only}");
        assert!(absent.json()["error_code"].is_string() && absent.json()["message"].is_string());
        assert_ne!(absent.header("x-gateway-error"), "");
    }
    assert_eq!(upstream.heard().len(), 0);

    is_fresh(&ask("no-store").await);
    assert_eq!(upstream.heard().len(), 1);
    let filled = none().await;
    is_fresh(&filled);
    assert_eq!(filled.json()["id"], "bknv_2", "the answer of no-store was not stored");
    is_hit(&ask("only-if-cached").await);

    is_fresh(&ask("no-cache").await);
    assert_eq!(upstream.heard().len(), 3);
    is_fresh(&ask("private, No-Cache").await);
    assert_eq!(upstream.heard().len(), 4);
    is_hit(&none().await);

    rig.clock.advance(Duration::from_secs(100));
    is_hit(&ask("max-age=120").await);
    let renewed = ask("max-age=99").await;
    is_fresh(&renewed);
    assert_eq!(upstream.heard().len(), 5);
    let hit = ask("max-age=99").await;
    is_hit(&hit);
    assert_eq!(hit.json()["id"], renewed.json()["id"], "the newer answer took its place");
    rig.clock.advance(Duration::from_secs(1));
    is_fresh(&ask("max-age=0").await);
    assert_eq!(upstream.heard().len(), 6);
    // Undefined directives change nothing.
    for odd in ["max-age=x", "stale-if-error=60", "", "x=\"no-cache\"", ","] {
        let answer = ask(odd).await;
        assert_eq!(answer.status, 200, "{odd}");
    }
    rig.stop().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("room");
    encoder.finish().expect("gzip")
}

#[tokio::test]
async fn an_encoded_answer_is_decoded_where_it_is_read() {
    let upstream = Upstream::answering(|heard| {
        let mut answer = answered(200, gzip(found(heard, 1).to_string().as_bytes()));
        for (name, value) in [
            ("content-encoding", "gzip"),
            ("etag", "\"of the gzip\""),
            ("digest", "sha-256=AAAA"),
            ("content-digest", "sha-256=:AAAA:"),
            ("content-md5", "AAAA"),
        ] {
            answer.headers_mut().insert(name, value.parse().expect("a value"));
        }
        answer
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let body = r#"{"bank_account_number":"1234567890","bank_code":"BCA","reference_id":"a"}"#;
    let first = rig.post("lending", BANK, body).header("accept-encoding", "gzip, br").send().await;
    assert_eq!(first.json()["result"]["account_holder_name"], "FIRA DIYANKA");
    for gone in ["content-encoding", "etag", "digest", "content-digest", "content-md5"] {
        assert_eq!(first.header(gone), "", "{gone}");
    }
    assert_eq!(upstream.heard()[0].headers["accept-encoding"], "identity");
    assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
    let hit = rig.post("payments", BANK, body.replace("\"a\"", "\"b\"")).send().await;
    is_hit(&hit);
    assert_eq!((hit.header("content-encoding"), &hit.json()["reference_id"]), ("", &json!("b")));
    rig.stop().await;
}

#[tokio::test]
async fn encodings_pass_untouched_where_nothing_is_read() {
    let packed = gzip(br#"{"status":"COMPLETED"}"#);
    let body = packed.clone();
    let upstream = Upstream::answering(move |_| {
        let mut answer = answered(200, body.clone());
        answer.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
        answer.headers_mut().insert("etag", "\"e\"".parse().expect("a value"));
        answer
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let ask = rig.post("lending", "/v1/identity/ktp_name/validations", "{}").header("accept-encoding", "gzip;q=0.5");
    let answer = ask.send().await;
    assert_eq!((answer.header("content-encoding"), answer.header("etag")), ("gzip", "\"e\""));
    assert_eq!(answer.body, packed);
    assert_eq!(upstream.heard()[0].headers["accept-encoding"], "gzip;q=0.5");
    rig.stop().await;
}

/// Starts an upstream that reads a request's head and body, writes these bytes and closes the connection.
async fn writes_and_closes(bytes: Vec<u8>) -> Upstream {
    Upstream::on_connection(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            let mut got = Vec::new();
            while !got.ends_with(b"}") && !got.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut got).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_truncated_answer_is_never_a_short_success() {
    let whole = r#"{"status":"COMPLETED","id":"i","result":{"is_found":true}}"#;
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let packed = gzip(whole.as_bytes());
    let mut short_gzip = format!("{json}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", packed.len() - 6);
    short_gzip.push('|');
    let mut short_gzip = short_gzip.trim_end_matches('|').as_bytes().to_vec();
    short_gzip.extend_from_slice(&packed[..packed.len() - 6]);
    let answers = [
        // The JSON is complete, but a longer length was announced.
        format!("{json}content-length: {}\r\n\r\n{whole}", whole.len() + 1).into_bytes(),
        format!("{json}content-length: {}\r\n\r\n{}", whole.len(), &whole[..20]).into_bytes(),
        format!("{json}content-length: {}\r\n\r\n", whole.len()).into_bytes(),
        // The last chunk is missing.
        format!("{json}transfer-encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n", whole.len()).into_bytes(),
        format!("{json}transfer-encoding: chunked\r\n\r\n{:x}\r\n{whole}", whole.len() + 1).into_bytes(),
        short_gzip,
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        let is_gzip = at == 5;
        let upstream = writes_and_closes(answer).await;
        let rig = Rig::builder().upstream(upstream.url()).start().await;
        for path in [BANK, CFT, "/v1/identity/ktp_name/validations"] {
            if is_gzip && path.contains("ktp") {
                continue;
            }
            for _ in 0..2 {
                if let Ok(answer) = rig.post("lending", path, ACCOUNT).try_send().await {
                    assert!(answer.status >= 500, "answer {at} on {path}: {} {}", answer.status, answer.text());
                    assert!(!answer.header("cache-status").contains("hit"));
                }
            }
        }
        let cached = rig.post("lending", BANK, ACCOUNT).header("cache-control", "only-if-cached").send().await;
        assert_eq!(cached.status, 504, "nothing of it was stored");
        for path in [CODES, "/v1/fraud/phone_numbers/081234567890/age"] {
            if is_gzip && path != CODES {
                continue;
            }
            if let Ok(answer) = rig.ask("lending", "GET", path).try_send().await {
                assert!(answer.status >= 500, "answer {at} on {path}: {} {}", answer.status, answer.text());
            }
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_large_answer_arrives_whole_or_not_at_all() {
    for (size, encoded) in [(7 << 20, false), (7 << 20, true), (9 << 20, false), (9 << 20, true)] {
        let name = "A".repeat(size);
        let body =
            json!({ "status": "COMPLETED", "id": "i", "result": { "is_found": true, "account_holder_name": name } });
        let body = body.to_string();
        let answer = if encoded { gzip(body.as_bytes()) } else { body.clone().into_bytes() };
        let upstream = Upstream::answering(move |heard| {
            // This GET finds the owner of the file.
            if heard.target.ends_with("/document_ocr_captures/a") {
                return answered(200, r#"{"id":"a"}"#);
            }
            let mut answer = answered(200, answer.clone());
            if encoded {
                answer.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
            }
            answer
        })
        .await;
        let rig = Rig::builder().upstream(upstream.url()).tenant("lending", "owns_unprefixed = true").start().await;
        for _ in 0..2 {
            let Ok(answer) = rig.post("lending", BANK, ACCOUNT).try_send().await else { continue };
            // The reading of answers is bounded: above the bound the answer is an error of the gateway, never a part.
            if size > 8 << 20 && answer.status >= 500 {
                assert_ne!(answer.header("x-gateway-error"), "");
                continue;
            }
            assert_eq!((answer.status, answer.header("content-encoding")), (200, ""), "{size} {encoded}");
            assert!(answer.body == body.as_bytes(), "{size} {encoded}: {} bytes of {}", answer.body.len(), body.len());
        }
        if !encoded {
            for (method, path) in [
                ("GET", "/v1/fraud/phone_numbers/081234567890/age"),
                ("POST", "/v1/identity/ktp_name/validations"),
                ("GET", "/v1/identity/captures/a/results/b/download"),
            ] {
                let answer = rig.ask("lending", method, path).send().await;
                assert!(answer.body == body.as_bytes(), "what is not read has no bound: {method} {path}");
            }
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_request_body_has_a_limit_where_it_is_read() {
    let (upstream, builder) = counting().await;
    let rig = builder.start().await;
    let of_size = |size: usize| {
        let frame = r#"{"bank_account_number":"1234567890","bank_code":"BCA","given_name":""}"#;
        let padding = "a".repeat(size - frame.len());
        frame.replace(r#"name":""#, &format!(r#"name":"{padding}"#))
    };
    let answer = rig.post("lending", BANK, of_size(1 << 20)).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = rig.post("lending", BANK, of_size((1 << 20) + 1)).send().await;
    assert_eq!((answer.status, &answer.json()["error_code"]), (413, &json!("FILE_TOO_LARGE")));
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}
