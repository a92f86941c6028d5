//! Tests that no team sees another team's record, however the path of the request is spelled, and that no team's headers
//! change an answer that other teams get.

use crate::support::{Rig, RigBuilder, Upstream, ask};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const IMAGES: &str = "/v1/identity/id_card_images";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";
const QUESTION: &str = r#"{"bank_account_number":"1234567812","bank_code":"BCA"}"#;
const PERSON: &str = r#"{"given_name":"Contoh","surname":"Demo"}"#;

/// Starts an Iluma that reads paths loosely: at every path it shows the record with this id and reference. Returns it
/// with the builder of a gateway that forwards unknown routes.
async fn loose(id: &'static str, reference: &'static str) -> (Upstream, RigBuilder) {
    let upstream = Upstream::answering(move |_| {
        let body =
            json!({ "status": "COMPLETED", "id": id, "reference_id": reference, "result": { "is_found": true } });
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).section("upstream", "unknown_routes = \"forward\"");
    (upstream, rig)
}

#[tokio::test]
async fn a_collection_of_records_is_closed_to_every_spelling() {
    let (upstream, rig) = loose("a", "payments:x").await;
    let rig = rig.start().await;
    for (method, path) in [
        ("POST", "/v1/identity/id_card_images/a"),
        ("PUT", "/v1/identity/id_card_images/a"),
        ("DELETE", "/v1/identity/id_card_images/a"),
        ("GET", "/v1/identity/id_card_images/a/x"),
        ("GET", "/v1/identity/id_card_images/a.json/x"),
        ("GET", "/v1/identity/document_ocr_capture/a"),
        ("POST", "/v1/identity/captures/a/results/x/download"),
        ("GET", "/v2/identity/captures/a/results"),
        ("GET", "/v1/x/y/BANK_account_data_requests;v=1/a"),
        ("PATCH", "/v1/identity/bank_account_validation_details/a"),
        ("GET", "/v1/document_ocr_requests/a"),
    ] {
        let answer = rig.ask("lending", method, path).send().await;
        answer.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
        assert_eq!(answer.header("x-gateway-error"), "unknown_route", "{method} {path}");
    }
    assert_eq!(upstream.heard().len(), 0, "nothing was sent");
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_by_id_has_the_id_that_was_asked_for() {
    // Iluma answers with a record of the team's own, which is not the requested one.
    let (_upstream, rig) = loose("b", "lending:x").await;
    let rig = rig.start().await;
    rig.post("lending", BANK, QUESTION).send().await;
    for path in [
        format!("{BANK}/a"),
        format!("{IMAGES}/a"),
        format!("{CAPTURES}/a"),
        format!("{CAPTURES}/a/recapture"),
        "/v1/identity/captures/a/results/x/download".into(),
    ] {
        for _ in 0..2 {
            let answer = rig.ask("lending", "GET", &path).send().await;
            answer.is_rejection(404, "DATA_NOT_FOUND");
        }
    }
    for path in [format!("{BANK}/b"), format!("{IMAGES}/b"), "/v1/identity/captures/b/results/x/download".into()] {
        assert_eq!(rig.ask("lending", "GET", &path).send().await.status, 200, "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_teams_own_prefix_is_in_no_answer_to_it() {
    let upstream = Upstream::answering(|heard| {
        let is_get = heard.method == "GET";
        let body = if is_get {
            json!({ "error_code": "REQUEST_NOT_READY", "message": "lending:mine is not ready" })
        } else {
            json!({ "status": "PROCESSING", "id": "a", "reference_id": "lending:mine" })
        };
        let response = Response::builder().status(if is_get { 409 } else { 200 });
        let response = response.header("content-type", "application/json").header("x-note", "about lending:mine");
        response.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let made = rig.post("lending", CAPTURES, r#"{"types":["SELFIE"],"reference_id":"mine"}"#).send().await;
    assert_eq!((made.status, made.header("x-note")), (200, "about mine"));
    assert_eq!(made.json()["reference_id"], "mine");
    let got = rig.ask("lending", "GET", &format!("{CAPTURES}/a")).send().await;
    assert_eq!((got.status, got.header("x-note")), (409, "about mine"));
    assert_eq!(got.json()["message"], "mine is not ready");
    rig.stop().await;
}

#[tokio::test]
async fn a_file_and_a_recapture_are_preceded_by_a_get_of_their_record() {
    let (upstream, rig) = loose("a", "lending:x").await;
    let rig = rig.start().await;
    let capture = r#"{"types":["SELFIE"],"reference_id":"x"}"#;
    assert_eq!(rig.post("lending", CAPTURES, capture).send().await.status, 200);
    let file = "/v1/identity/captures/a/results/x/download";
    let anew = format!("{CAPTURES}/a/recapture");
    for path in [file, &anew] {
        let before = upstream.heard().len();
        assert_eq!(rig.ask("lending", "GET", path).send().await.status, 200, "{path}");
        let heard: Vec<_> = upstream.heard().split_off(before).into_iter().map(|heard| heard.target).collect();
        assert_eq!(heard, [format!("{CAPTURES}/a"), path.to_owned()]);
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_undocumented_routes_answer_is_withheld_if_it_shows_another_teams_record() {
    let upstream = Upstream::answering(|heard| {
        let body = match (heard.method.as_str(), heard.target.as_str()) {
            ("POST", IMAGES) => json!({ "id": "taken", "status": "PENDING", "reference_id": "payments:x" }),
            (_, "/v1/new/reference") => json!({ "data": [{ "reference_id": "payments:x" }] }),
            (_, "/v1/new/id") => json!({ "data": { "image_id": "taken" } }),
            (_, "/v1/new/own") => json!({ "id": "own", "reference_id": "lending:y", "about": "payments:x" }),
            _ => json!({ "id": "free" }),
        };
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let image = r#"{"image":"x","reference_id":"x"}"#;
    assert_eq!(rig.post("payments", IMAGES, image).send().await.status, 200);
    for (path, is_shown) in
        [("/v1/new/reference", false), ("/v1/new/id", false), ("/v1/new/own", true), ("/v1/new/free", true)]
    {
        let answer = rig.post("lending", path, "{}").header("accept-encoding", "gzip").send().await;
        if is_shown {
            assert_eq!((answer.status, answer.header("x-gateway-error")), (200, ""), "{path}: {}", answer.text());
        } else {
            answer.is_rejection(404, "DATA_NOT_FOUND");
        }
    }
    assert_eq!(rig.post("payments", "/v1/new/id", "{}").send().await.status, 200, "its owner sees it");
    assert_eq!(rig.metric(r#"iluma_gateway_answers_withheld_total{account="live"}"#).await, 2.0);
    let asked: Vec<_> = upstream.heard().into_iter().filter(|heard| heard.target.starts_with("/v1/new")).collect();
    assert!(asked.iter().all(|heard| heard.headers["accept-encoding"] == "identity"), "{asked:?}");
    // The calls were made, so the ledger has them.
    let usage = rig.ask("lending", "GET", "/_gateway/usage").send().await.json();
    assert_eq!(usage["today"]["routes"]["other"]["upstream_calls"], 4, "{usage}");
    rig.stop().await;
}

#[tokio::test]
async fn no_teams_headers_shape_an_answer_that_others_get() {
    let upstream = Upstream::answering(|_| {
        let body = r#"{"status":"COMPLETED","result":{"is_found":true},"results":[]}"#;
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("an answer")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let shape = |ask: crate::support::Ask| {
        ask.header("accept-language", "id")
            .header("accept", "text/html")
            .header("x-anything", "1")
            .header("user-agent", "t")
    };
    shape(rig.post("lending", BANK, QUESTION)).send().await;
    shape(rig.post("lending", CFT, PERSON)).send().await;
    shape(rig.ask("lending", "GET", "/bank/available_bank_codes")).send().await;
    for heard in upstream.heard() {
        let mut names: Vec<_> = heard.headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.retain(|name| !["authorization", "host", "content-length", "content-type"].contains(&name.as_str()));
        names.sort();
        assert_eq!(names, ["accept", "accept-encoding", "user-agent"], "{}", heard.target);
        assert_eq!(heard.headers["accept"], "application/json", "{}", heard.target);
        assert!(heard.headers["user-agent"].to_str().is_ok_and(|agent| agent.starts_with("iluma-gateway/")));
    }
    // A request with a header that may change the answer neither uses nor fills the cache.
    let before = upstream.heard().len();
    for kind in [
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset*=utf-8''utf-16",
    ] {
        let other = PERSON.replace("Contoh", "Lain");
        for _ in 0..2 {
            let answer = rig.ask("lending", "POST", CFT).header("content-type", kind).body(other.clone()).send().await;
            assert!(answer.header("cache-status").contains("bypass") || answer.status == 200, "{kind}: {answer:?}");
        }
    }
    assert_eq!(upstream.heard().len() - before, 6, "each was sent");
    rig.stop().await;
}

#[tokio::test]
async fn an_error_of_the_gateways_says_how_to_go_on() {
    let rig = Rig::builder().extra("[help]\ncontact = \"#kyc on Slack\"\n").start().await;
    let unknown_key = ask("POST", rig.url(BANK)).key("nobody").json(QUESTION).send().await;
    unknown_key.is_rejection(401, "INVALID_API_KEY");
    assert!(unknown_key.header("www-authenticate").starts_with("Basic "), "{:?}", unknown_key.headers);
    let forbidden = rig.ask("lending", "PUT", "/v1/callback/urls").send().await;
    forbidden.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    assert!(forbidden.text().contains("PATCH /v*/callback/urls"), "{}", forbidden.text());
    for answer in [&unknown_key, &forbidden] {
        assert!(answer.text().contains("#kyc on Slack"), "{}", answer.text());
    }
    let absent = rig.ask("lending", "GET", "/_gateway/usages").send().await;
    absent.is_rejection(404, "DATA_NOT_FOUND");
    assert!(absent.text().contains("GET /_gateway/usage"), "{}", absent.text());
    assert!(!absent.text().contains("#kyc"), "{}", absent.text());
    let malformed = rig.ask("lending", "GET", "/v1/callbac%E2%84%AA/urls").send().await;
    malformed.is_rejection(400, "API_VALIDATION_ERROR");
    assert_eq!(malformed.json()["errors"], json!([malformed.json()["message"]]));
    rig.stop().await;
}
