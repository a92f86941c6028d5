//! Tests of references and secrets on the wire: in the requests that Iluma receives, and in the answers that a team
//! receives.

use crate::support::{Rig, Upstream};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::io::Write as _;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_data_requests";
const FACE: &str = "/v2/identity/face_comparisons";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";
const QUESTION: &str = r#"{"bank_code":"BCA","bank_account_number":"1234567811"}"#;

fn last(upstream: &Upstream) -> (String, Value) {
    let heard = upstream.heard();
    let last = heard.last().expect("a request");
    (last.target.clone(), serde_json::from_slice(&last.body).unwrap_or_default())
}

/// Checks references in the query of a bank request, because Iluma may read them there too. Without the prefix none
/// passes in the query or in the body. A request with both is refused.
#[tokio::test]
async fn a_reference_in_the_query_of_a_bank_question_has_the_prefix() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let asked = rig.post("lending", &format!("{BANK}?x=1&reference_id=loan%201"), QUESTION).send().await;
    assert_eq!(asked.status, 200, "{}", asked.text());
    let (target, body) = last(&upstream);
    assert_eq!(target, format!("{BANK}?x=1&reference_id=lending%3Aloan%201"));
    assert_eq!(body["reference_id"], "lending:");
    let both = rig.post("lending", &format!("{BANK}?reference_id=a"), r#"{"reference_id":"a"}"#).send().await;
    both.is_rejection(400, "API_VALIDATION_ERROR");
    assert_eq!(both.header("x-gateway-error"), "malformed_reference");
    assert_eq!(upstream.heard().len(), 1, "nothing was sent");
    rig.stop().await;
}

const FOREIGN: &str = r#"{"reference_id":"payments:x"}"#;
/// A body with two references. The first one is no text, and the gateway must still check the second one.
const TWICE: &str = r#"{"reference_id":[],"reference_id":"payments:x"}"#;

fn zipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

const FOREIGN_PART: &str =
    "--b\r\nContent-Disposition: form-data; name=\"reference_id\"\r\n\r\npayments:x\r\n--b--\r\n";

/// Checks the rule on all routes on which a reference passes unchanged, and for accounts without prefixes.
#[tokio::test]
async fn no_reference_passes_with_another_teams_prefix() {
    let upstream = Upstream::agreeing().await;
    for account in ["", "prefix_references = false"] {
        let rig = Rig::builder().upstream(upstream.url()).account(account).start().await;
        let paths: &[&str] =
            if account.is_empty() { &[KTP, CFT, FACE, "/v9/new"] } else { &[KTP, CFT, "/v9/new", BANK, CAPTURES] };
        for path in paths {
            let before = upstream.heard().len();
            let body = json!({ "bank_code": "BCA", "reference_id": "payments:x" }).to_string();
            let refused = rig.post("lending", path, body).send().await;
            assert_eq!(refused.header("x-gateway-error"), "foreign_reference", "{path}: {}", refused.text());
            let refused = rig.post("lending", &format!("{path}?reference_id=payments:x"), "{}").send().await;
            assert_eq!(refused.header("x-gateway-error"), "foreign_reference", "{path}: {}", refused.text());
            assert_eq!(upstream.heard().len(), before, "{path}: nothing was sent");
            // The reference is the second of two, escaped, in a form, or in a multipart body.
            for (kind, body) in [
                ("application/json", r#"{"reference_id":"a","reference_id":"payments:x"}"#),
                ("application/json", r#"{"reference\u005fid":"\u0070ayments\u003ax"}"#),
                ("application/x-www-form-urlencoded", "bank_code=BCA&reference%5Fid=%70ayments%3Ax"),
                ("multipart/form-data; boundary=b", FOREIGN_PART),
            ] {
                let refused = rig.ask("lending", "POST", path).header("content-type", kind).body(body).send().await;
                assert_eq!(refused.status, 400, "{path}: {body}: {}", refused.text());
            }
            assert_eq!(upstream.heard().len(), before, "{path}: nothing was sent");
            let own = json!({ "bank_code": "BCA", "reference_id": "lending:x" }).to_string();
            let own = rig.post("lending", path, own).send().await;
            assert_eq!(own.header("x-gateway-error"), "", "{path}: {}", own.text());
            assert_eq!(last(&upstream).1["reference_id"], "lending:x", "{path}");
        }
        rig.stop().await;
    }
}

/// Checks that a synchronous route forwards every body in which no reference can hide, and refuses the others.
#[tokio::test]
async fn a_synchronous_row_refuses_bodies_in_which_a_reference_can_hide() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let multipart = "multipart/form-data; boundary=b";
    let part = |head: &str| format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\nx\r\n--b--\r\n");
    for (kind, encoding, body) in [
        ("application/json", "identity", "{\"name\":".to_owned()),
        ("application/json", "gzip", "\u{1f}no gzip".to_owned()),
        ("application/octet-stream", "identity", "\u{1f}no JSON".to_owned()),
        ("application/json; charset=iso-8859-1", "identity", r#"{"name":"x"}"#.to_owned()),
        (multipart, "identity", part("name=\"image\"; filename=\"a.jpg\"")),
        // Some clients end with an empty line.
        (multipart, "identity", part("name=\"image\"") + "\r\n"),
        ("application/x-www-form-urlencoded", "identity", "x".repeat(5000)),
    ] {
        let asked = rig.ask("lending", "POST", KTP).header("content-type", kind).header("content-encoding", encoding);
        let asked = asked.body(body.clone()).send().await;
        assert_eq!(asked.header("x-gateway-error"), "", "{kind} {encoding} {body:.60}: {}", asked.text());
        assert_eq!(upstream.heard().last().expect("a request").body, body.as_bytes(), "it passes as it came");
    }
    let before = upstream.heard().len();
    let wide: Vec<u8> = FOREIGN.bytes().flat_map(|byte| [byte, 0]).collect();
    let image = part("name=\"image\"");
    for path in [KTP, FACE, CFT] {
        for (kind, encoding, body, reason) in [
            ("application/json", "gzip", zipped(FOREIGN), "foreign_reference"),
            // A server that ignores the encoding reads the body in clear.
            ("application/json", "gzip", FOREIGN.as_bytes().to_vec(), "foreign_reference"),
            ("application/json", "gzip", TWICE.as_bytes().to_vec(), "malformed_reference"),
            ("application/json", "zstd", zipped(FOREIGN), "encoded_body"),
            ("multipart/mixed; boundary=b", "identity", FOREIGN_PART.as_bytes().to_vec(), "unknown_content_type"),
            (
                multipart,
                "identity",
                FOREIGN_PART.replace("payments:x", "\"payments:x\"").into_bytes(),
                "foreign_reference",
            ),
            (multipart, "gzip", zipped(&image), "encoded_body"),
            ("application/json", "identity", wide.clone(), "unknown_content_type"),
            (multipart, "identity", (image.clone() + "epilogue").into_bytes(), "malformed_body"),
            (multipart, "identity", ("preamble\r\n".to_owned() + &image).into_bytes(), "malformed_body"),
            (multipart, "identity", part("filename=\"a\"; name=\"image\"").into_bytes(), "malformed_body"),
            (multipart, "identity", part("name*=utf-8''reference_id").into_bytes(), "malformed_body"),
            ("multipart/form-data", "identity", image.clone().into_bytes(), "malformed_body"),
            ("multipart/form-data; boundary=\"b c\"", "identity", image.clone().into_bytes(), "malformed_body"),
            (multipart, "identity", FOREIGN_PART.replace("\r\n", "\n").into_bytes(), "malformed_body"),
        ] {
            let refused = rig.ask("lending", "POST", path).header("content-type", kind);
            let refused = refused.header("content-encoding", encoding).body(body).send().await;
            assert_eq!((refused.status, refused.header("x-gateway-error")), (400, reason), "{path} {kind} {encoding}");
        }
    }
    let odd = rig.ask("lending", "POST", KTP).header("content-type", "application/json; charset=utf-16");
    assert_eq!(odd.body("{}").send().await.header("x-gateway-error"), "unknown_content_type");
    assert_eq!(upstream.heard().len(), before, "nothing was sent");
    rig.stop().await;
}

/// Checks that Iluma gets a body without a content type as JSON, as the gateway has read it. Other teams may share the
/// answer.
#[tokio::test]
async fn a_shared_question_without_a_type_is_sent_as_json() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for path in [BANK, CFT] {
        let asked = rig.ask("lending", "POST", path).body(r#"{"bank_code":"BCA","name":"X"}"#).send().await;
        assert_eq!(asked.status, 200, "{path}: {}", asked.text());
        let heard = upstream.heard();
        assert_eq!(heard.last().expect("a request").headers["content-type"], "application/json", "{path}");
    }
    rig.stop().await;
}

/// Checks that a request that can be read in two ways is refused before anything is sent. A request with a single
/// reading is accepted.
#[tokio::test]
async fn a_question_has_one_reading_or_is_refused() {
    let upstream = Upstream::agreeing().await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let long = "x".repeat(4097);
    for (kind, body, reason) in [
        ("application/x-www-form-urlencoded", r#"{"bank_code":"BCA"}"#.to_owned(), "mistyped_body"),
        ("application/json", r#"{" reference_id":"x"}"#.to_owned(), "malformed_reference"),
        ("application/json", r#"{"reference_id[]":"x"}"#.to_owned(), "malformed_reference"),
        ("application/json", r#"{"referenceId":"x"}"#.to_owned(), "malformed_reference"),
        ("application/json", format!(r#"{{"reference_id":"{long}"}}"#), "malformed_reference"),
        ("application/x-www-form-urlencoded", format!("reference_id={long}"), "malformed_reference"),
        ("application/json", r#"{"reference_id":"\ud800"}"#.to_owned(), "malformed_reference"),
    ] {
        let refused = rig.ask("lending", "POST", BANK).header("content-type", kind).body(body.clone()).send().await;
        assert_eq!((refused.status, refused.header("x-gateway-error")), (400, reason), "{kind} {body:.60}");
    }
    let latin = b"{\"bank_code\":\"\xe9\"}".to_vec();
    let ask = |path: &str| rig.ask("lending", "POST", path).header("content-type", "application/json");
    assert_eq!(ask(BANK).body(latin.clone()).send().await.status, 400);
    assert!(upstream.heard().is_empty(), "nothing was sent");
    for _ in 0..2 {
        assert_eq!(ask(CFT).body(latin.clone()).send().await.header("x-gateway-error"), "");
    }
    assert_eq!(upstream.heard().len(), 2, "Iluma judges it, and nobody shares it");

    // A body that the gateway reads as UTF-8 must not be read in another charset by Iluma.
    let odd = "application/json; charset=utf-7";
    let ask = || rig.ask("lending", "POST", BANK).header("content-type", odd).body(r#"{"bank_code":"BCC"}"#);
    for _ in 0..2 {
        let before = upstream.heard().len();
        assert_eq!(ask().send().await.status, 200);
        let heard = upstream.heard();
        assert_eq!(heard.len(), before + 1, "it is neither cached nor shared");
        assert_eq!(heard[before].headers["content-type"], "application/json");
    }

    for (kind, body) in [
        ("application/json", "\u{feff}{\"bank_code\":\"BCA\"}".to_owned()),
        ("application/json; charset=us-ascii", r#"{"bank_code":"BCB"}"#.to_owned()),
        ("application/json", r#"{"bank_code":"\ud800"}"#.to_owned()),
    ] {
        let taken = rig.ask("lending", "POST", BANK).header("content-type", kind).body(body.clone()).send().await;
        assert_eq!(taken.status, 200, "{kind} {body:?}: {}", taken.text());
        assert!(last(&upstream).1.is_object() || body.contains("ud800"), "{body:?}");
    }
    rig.stop().await;
}

/// Checks that no answer of Iluma shows a team a secret of any account, in any spelling.
#[tokio::test]
async fn no_answer_shows_a_key_or_a_token() {
    const KEY: &str = "iluma_development_KEYTESTONLY";
    const OTHER: &str = "iluma_development_OTHERTESTONLY";
    const TOKEN: &str = "callback-token-of-the-account";
    let escaped: String = KEY.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let encoded: String = OTHER.bytes().map(|b| format!("%{b:02X}")).collect();
    let body = format!(r#"{{"message":"{KEY} {OTHER} {TOKEN} {escaped} {encoded}"}}"#);
    let (length, answer) = (body.len(), body.clone());
    let upstream = Upstream::answering(move |heard| {
        let status = if heard.target.contains("fails") { 400 } else { 200 };
        let encoding = if heard.target.contains("plain") { "identity" } else { "aws-chunked" };
        let body = Full::new(Bytes::from(answer.clone()));
        let head = Response::builder().status(status).header("content-type", "text/plain");
        let head = head.header("content-encoding", encoding).header(OTHER.to_ascii_lowercase(), "1");
        head.header("x-token", TOKEN).body(body).expect("a response")
    })
    .await;
    let rig = Rig::builder()
        .upstream(upstream.url())
        .account_key(KEY)
        .secret("CALLBACK", TOKEN)
        .secret("OTHER_KEY", OTHER)
        .extra("[accounts.second]\napi_key = { env = \"OTHER_KEY\" }\n")
        .start()
        .await;
    for query in ["plain", "odd", "plain-fails", "odd-fails"] {
        let answer = rig.post("lending", &format!("{KTP}?{query}"), "{}").header("range", "bytes=0-9").send().await;
        let shown = format!("{:?} {}", answer.headers, answer.text()).to_ascii_lowercase();
        for secret in [KEY, OTHER, TOKEN, &escaped, &encoded] {
            assert!(!shown.contains(&secret.to_ascii_lowercase()), "{query} shows {secret}: {shown}");
        }
        assert!(query == "odd-fails" || answer.text().len() == length, "{query}: {shown}");
        let heard = upstream.heard();
        assert!(!heard.last().expect("a request").headers.contains_key("range"), "a secret could be cut in two");
    }
    rig.stop().await;
}
