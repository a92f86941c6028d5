//! Tests of the paths that reach upstream, and of the form in which they do.

use crate::support::{Answer, Rig, RigBuilder, Upstream, Wire};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const CODES: &str = "/bank/available_bank_codes";
const NAME: &str = "/v1/identity/ktp_name/validations";
const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";
const QUESTION: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;

/// Starts an upstream whose answers are records without a reference. A list request gets a list of records.
async fn with_records() -> Upstream {
    Upstream::answering(|heard| {
        let list = heard.method == "GET" && heard.target.contains('?');
        let body = if list {
            r#"{"data":[{"id":"5abc"}]}"#
        } else if heard.target.ends_with("Ab-c_1.~x") {
            r#"{"status":"COMPLETED","id":"Ab-c_1.~x"}"#
        } else {
            r#"{"status":"COMPLETED","id":"5abc","result":{"is_found":true}}"#
        };
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a response")
    })
    .await
}

const OWNS: &str = "owns_unprefixed = true";

async fn before(upstream: &Upstream, change: impl FnOnce(RigBuilder) -> RigBuilder) -> Rig {
    change(Rig::builder().upstream(upstream.url())).start().await
}

/// Sends a request with exactly this target over a new connection. `fields` are further header lines, each with its
/// line end.
async fn sent(rig: &Rig, team: &str, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    let mut wire = Wire::connect(rig.app.server_address()).await;
    let head = rig.head(team, method, target);
    let length = body.len();
    let fields = format!("{fields}connection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
    wire.send(format!("{head}{fields}\r\n{body}")).await;
    let head = wire.head().await.unwrap_or_else(|| panic!("no answer to {method} {target}"));
    let body = wire.rest().await.into();
    Answer { status: head.status(), headers: head.headers, body }
}

async fn asked(rig: &Rig, method: &str, target: &str) -> Answer {
    sent(rig, "lending", method, target, "", "").await
}

/// Checks that each of these targets is refused with each of these methods, and that nothing reaches upstream.
async fn are_refused(unknown_routes: &str, methods: &[&str], targets: &[&str]) {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", &format!("unknown_routes = \"{unknown_routes}\""))).await;
    let mut passed = Vec::new();
    for target in targets {
        for method in methods {
            let answer = asked(&rig, method, target).await;
            if !matches!(answer.status, 400 | 403) || !upstream.heard().is_empty() {
                passed.push(format!("{method} {target}: {}, {} calls", answer.status, upstream.heard().len()));
            }
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
    rig.stop().await;
}

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "PURGE"];

#[tokio::test]
async fn forbidden_paths_are_refused_with_the_contracts_error() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"")).await;
    for target in ["/businesses/5abc/api_keys?token=1", "/businesses", "/v1/api_keys", "/v7/x/callback/y"] {
        for method in ["GET", "POST"] {
            asked(&rig, method, target).await.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
        }
    }
    for target in ["/v1/../businesses/1", "//businesses", "/v1/identity//x", "/v1%2Fidentity/x", "/v1/identity/./x"] {
        asked(&rig, "POST", target).await.is_rejection(400, "API_VALIDATION_ERROR");
    }
    assert!(upstream.heard().is_empty(), "{:?}", upstream.heard());
    rig.stop().await;
}

#[tokio::test]
async fn a_forbidden_segment_is_found_wherever_it_stands() {
    let targets = [
        "/businesses",
        "/businesses/",
        "/businesses/5abc",
        "/businesses/5abc/api_keys?token=1",
        "/businesses?x=1",
        "/v1/businesses",
        "/v1/identity/businesses/x",
        "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/businesses",
        "/api_keys",
        "/v1/x/api_keys/1",
        "/callback",
        "/v1/callback",
        "/v1/callback/urls/1",
        "/v1/x/callback/urls",
        "/v1/callback/tokens",
        "/callback/urls",
    ];
    are_refused("forward", &METHODS, &targets).await;
}

#[tokio::test]
async fn letter_case_and_percent_encoding_hide_no_forbidden_path() {
    let targets = [
        "/Businesses/5abc/api_keys",
        "/BUSINESSES/5ABC/API_KEYS",
        "/bUsInEsSeS",
        "/%62usinesses/x",
        "/%42USINESSES/x",
        "/%62%75%73%69%6e%65%73%73%65%73/5abc/%61pi%5fkeys",
        "/businesse%73",
        "/v1/API%5FKEYS",
        "/v1/api%5fkeys/",
        "/v1/call%62ack/x",
        "/v1/CALLBACK/X",
        "/v1/%43allbac%4B/",
    ];
    are_refused("forward", &METHODS, &targets).await;
    are_refused("post", &["POST"], &targets).await;
}

#[tokio::test]
async fn double_encoding_hides_no_forbidden_path() {
    let targets = [
        "/%2562usinesses/x",
        "/%25%36%32usinesses/5abc/api_keys",
        "/%2562%2575%2573%2569%256e%2565%2573%2573%2565%2573/5abc",
        "/v1/%2561pi_keys",
        "/v1/%2563allback/x",
        "/v1/x%252fbusinesses",
        "/v1/%252e%252e/businesses",
    ];
    are_refused("forward", &["GET", "POST"], &targets).await;
}

#[tokio::test]
async fn dots_and_slashes_hide_no_forbidden_path() {
    let targets = [
        "/./businesses/x",
        "/v1/../businesses/x",
        "/v1/..%2fbusinesses/x",
        "/v1/%2e%2e/businesses/x",
        "/v1/.%2E/businesses/x",
        "/v1/%2E./%62usinesses/x",
        "/v1/identity/../../businesses",
        "/x/%2e/businesses",
        "//businesses/x",
        "///businesses",
        "/v1//businesses",
        "/businesses//",
        "/businesses//x",
        "/businesses/x//api_keys",
        "/v1/callback//urls",
        "/v1/callback/urls//",
        "/v1/callback/./urls",
        "/v1/callback/x/../urls",
        "/businesses%2Fx",
        "/businesses%2fx%2fapi_keys",
        "/v1%2Fbusinesses",
        "/v1%2fcallback%2furls",
        "/v1/x%5Cbusinesses",
        "/v1/x%5cbusinesses/api_keys",
        "/%5cbusinesses",
        "/..",
        "/../businesses",
        "/%2e%2e",
    ];
    are_refused("forward", &["GET", "POST", "DELETE"], &targets).await;
    are_refused("post", &["POST"], &targets).await;
}

#[tokio::test]
async fn path_parameters_and_control_characters_hide_no_forbidden_path() {
    let targets = [
        "/businesses;a=b/x",
        "/businesses;/x",
        "/businesses;jsessionid=1",
        "/v1;x=y/callback/z",
        "/v1/callback;x/urls",
        "/v1/api_keys;v=1",
        "/businesses%3Ba=b/x",
        "/businesses%00",
        "/businesses%00/x",
        "/businesses%0a",
        "/businesses%0d%0ax",
        "/v1/x/..;/businesses",
        "/v1/..;a=b/businesses",
        "/%",
        "/v1/%zz/x",
        "/v1/x%2",
    ];
    are_refused("forward", &["GET", "POST"], &targets).await;
}

#[tokio::test]
async fn another_form_of_target_hides_no_forbidden_path() {
    let targets = [
        "http://gateway.test/businesses/x",
        "http://api.iluma.ai/businesses/5abc/api_keys?token=1",
        "https://api.iluma.ai/%62usinesses",
        "HTTP://api.iluma.ai:443/v1/callback/x",
        "http://api.iluma.ai//businesses",
        "http://user:pass@api.iluma.ai/businesses",
    ];
    are_refused("forward", &["GET", "POST"], &targets).await;
    // These are no valid targets, and the parser decides the shape of the refusal.
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"")).await;
    for line in [
        "GET businesses/x HTTP/1.1",
        "CONNECT api.iluma.ai:443 HTTP/1.1",
        "GET \\businesses HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ] {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        let authorization = rig.basic("lending");
        wire.send(format!("{line}\r\nhost: x\r\nauthorization: {authorization}\r\nconnection: close\r\n\r\n")).await;
        let head = wire.head().await.expect("an answer");
        assert!(matches!(head.status(), 400..=499 | 204), "{line}: {head:?}");
        assert_ne!(head.status(), 404, "{line}: there is no such answer of the gateway's");
    }
    assert!(upstream.heard().is_empty(), "{:?}", upstream.heard());
    rig.stop().await;
}

#[tokio::test]
async fn an_absolute_target_is_a_path_and_names_no_other_host() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig).await;
    let answer = asked(&rig, "GET", "http://elsewhere.test/bank/available_bank_codes?a=1").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let heard = &upstream.heard()[0];
    assert_eq!(heard.target, "/bank/available_bank_codes?a=1");
    assert_eq!(heard.headers["host"], upstream.addr().to_string());
    rig.stop().await;
}

#[tokio::test]
async fn override_fields_change_no_route_and_are_not_passed_on() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"")).await;
    let overrides = [
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X-Original-URL", "/businesses/5abc/api_keys"),
        ("X-Rewrite-URL", "/businesses/5abc/api_keys"),
    ];
    let fields: String = overrides.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for (method, target) in [("POST", NAME), ("POST", BANK), ("POST", "/v9/new"), ("GET", PHONE), ("GET", CODES)] {
        let count = upstream.heard().len();
        let answer = sent(&rig, "lending", method, target, &fields, if method == "GET" { "" } else { QUESTION }).await;
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
        let heard = upstream.heard().pop().expect("a call");
        assert_eq!(upstream.heard().len(), count + 1);
        assert_eq!((heard.method.as_str(), heard.target.as_str()), (method, target));
        for (name, _) in overrides {
            assert!(!heard.headers.contains_key(name), "{name} reached upstream on {target}");
        }
    }
    // The headers do not open a forbidden path either.
    let refused = sent(&rig, "lending", "GET", "/businesses", "X-Original-URL: /health\r\n", "").await;
    refused.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    rig.stop().await;
}

#[tokio::test]
async fn credentials_hop_by_hop_fields_cookies_and_traces_stay_here() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig).await;
    let fields = "Cookie: session=1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                  tracestate: a=b\r\nProxy-Authorization: Basic eA==\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\n\
                  Upgrade: websocket\r\nConnection: X-Private, upgrade\r\nX-Private: 1\r\nX-Magic-Reply: PENDING\r\n";
    for target in [NAME, BANK, "/v9/new"] {
        let answer = sent(&rig, "lending", "POST", target, fields, QUESTION).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let heard = upstream.heard().pop().expect("a call");
        for name in
            ["cookie", "traceparent", "tracestate", "proxy-authorization", "keep-alive", "upgrade", "x-private", "te"]
        {
            assert!(!heard.headers.contains_key(name), "{name} reached upstream on {target}: {heard:?}");
        }
        assert_eq!(heard.headers["x-magic-reply"], "PENDING", "what Iluma knows is passed on");
        let all: Vec<_> = heard.headers.get_all("authorization").iter().collect();
        assert_eq!(all.len(), 1, "{heard:?}");
        assert_ne!(all[0], rig.basic("lending").as_str(), "the team's key left the gateway");
    }
    rig.stop().await;
}

#[tokio::test]
async fn unknown_routes_by_default_pass_if_they_are_posts() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig).await;
    let answer = sent(&rig, "lending", "POST", "/v9/identity/new_things?x=1", "", QUESTION).await;
    assert_eq!(answer.status, 200);
    let heard = upstream.heard().pop().expect("a call");
    assert_eq!((heard.target.as_str(), &heard.body[..]), ("/v9/identity/new_things?x=1", QUESTION.as_bytes()));
    for method in ["GET", "PUT", "PATCH", "DELETE", "HEAD", "PURGE"] {
        let answer = asked(&rig, method, "/v9/identity/new_things").await;
        assert_eq!(answer.status, 403, "{method}");
        assert!(!answer.header("x-gateway-error").is_empty());
    }
    let refused = asked(&rig, "GET", "/v9/identity/new_things").await;
    refused.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    let message = refused.json()["message"].to_string();
    assert!(message.contains("unknown_routes") && message.contains("routes"), "says how ops can allow it: {message}");
    assert_eq!(upstream.heard().len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn unknown_routes_forward_passes_every_method() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"")).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(asked(&rig, method, "/v9/identity/new_things/1?q=1").await.status, 200, "{method}");
        let heard = upstream.heard().pop().expect("a call");
        assert_eq!((heard.method.as_str(), heard.target.as_str()), (method, "/v9/identity/new_things/1?q=1"));
    }
    // The answer is not cached.
    assert_eq!(asked(&rig, "GET", "/v9/identity/new_things/1?q=1").await.status, 200);
    assert_eq!(upstream.heard().len(), 6);
    rig.stop().await;
}

#[tokio::test]
async fn unknown_routes_deny_passes_nothing_but_what_a_row_knows() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"deny\"")).await;
    for method in ["GET", "POST", "PUT", "DELETE"] {
        asked(&rig, method, "/v9/identity/new_things").await.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    }
    assert!(upstream.heard().is_empty());
    for (method, target) in [("POST", BANK), ("POST", NAME), ("GET", PHONE), ("GET", CODES), ("GET", "/health")] {
        let body = if method == "GET" { "" } else { QUESTION };
        let answer = sent(&rig, "lending", method, target, "", body).await;
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
    }
    rig.stop().await;
}

#[tokio::test]
async fn every_documented_route_passes() {
    let upstream = with_records().await;
    let rig =
        before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"deny\"").tenant("lending", OWNS)).await;
    let targets = [
        "POST /v1/identity/bank_account_data_requests",
        "POST /v2.2/identity/bank_account_data_requests",
        "POST /v1.2/identity/bank_account_validation_details",
        "GET /v1/identity/bank_account_data_requests/5abc",
        "GET /v1.2/identity/bank_account_validation_details/5abc",
        "GET /bank/available_bank_codes",
        "POST /v1/identity/cft/individual_watchlist",
        "POST /v1/identity/ktp_name/validations",
        "POST /v2/identity/ktp_data_requests",
        "POST /v0/identity/npwp_data_requests",
        "GET /v1/fraud/phone_numbers/0811/age",
        "POST /v2/identity/phone_numbers/validate",
        "POST /v1/credit/drawdowns",
        "POST /v2/identity/face_comparisons",
        "POST /v1/identity/id_card_verifications",
        "POST /v1/identity/id_card_images",
        "GET /v1/identity/id_card_images/5abc",
        "GET /v1/identity/id_card_images?reference_id=a&limit=2",
        "POST /v1/identity/document_ocr_requests",
        "GET /v1/identity/document_ocr_requests/5abc",
        "GET /v1/identity/document_ocr_requests?reference_id=a",
        "POST /v1/identity/document_ocr_captures",
        "GET /v1/identity/document_ocr_captures/5abc",
        "GET /v1/identity/document_ocr_capture?reference_id=a",
        "POST /v1/identity/document_ocr_captures/5abc/recapture",
        "GET /v1/identity/document_ocr_captures/5abc/recapture",
        "GET /v1/identity/captures/5abc/results/link1/download",
        "GET /health",
    ];
    for line in targets {
        let (method, target) = line.split_once(' ').expect("two words");
        let question = format!(r#"{{"bank_account_number":"{line}","bank_code":"BCA"}}"#);
        let body = if method == "GET" { "" } else { &question };
        let answer = sent(&rig, "lending", method, target, "", body).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
        let heard = upstream.heard().pop().expect("a call");
        // References have the team's prefix; the rest is the requested target.
        let sealed = line.replace("reference_id=", "reference_id=lending%3A");
        assert_eq!(format!("{} {}", heard.method, heard.target), sealed);
    }
    // A GET of the record precedes each recapture and the file.
    assert_eq!(upstream.heard().len(), targets.len() + 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_custom_route_is_treated_like_the_row_it_names() {
    let upstream = Upstream::agreeing().await;
    let routes = "[[routes]]\nmethod = \"POST\"\npath = \"/v3/identity/bank_checks\"\nlike = \"bank\"\n\
                  [[routes]]\nmethod = \"GET\"\npath = \"/v*/fraud/mails/:mail/age\"\nlike = \"phone\"\n";
    let rig = before(&upstream, |rig| {
        rig.section("upstream", "unknown_routes = \"deny\"").tenant("payments", "routes = [\"bank\"]").extra(routes)
    })
    .await;
    for team in ["lending", "payments"] {
        let answer = sent(&rig, team, "POST", "/V3/identity/bank%5Fchecks/", "", QUESTION).await;
        assert_eq!(answer.status, 200, "{team}: {}", answer.text());
        let hit = answer.header("cache-status").starts_with("iluma-gateway; hit");
        assert_eq!(hit, team == "payments", "{team}: {:?}", answer.headers);
    }
    assert_eq!(upstream.heard().len(), 1, "the second was a hit");
    assert_eq!(upstream.heard()[0].target, "/v3/identity/bank_checks");
    assert_eq!(asked(&rig, "GET", "/v7/fraud/mails/a@b.test/age").await.status, 200);
    sent(&rig, "payments", "GET", "/v7/fraud/mails/x/age", "", "").await.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    asked(&rig, "GET", "/v3/identity/bank_checks").await.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    rig.stop().await;
}

#[tokio::test]
async fn a_team_reaches_only_the_routes_it_was_given() {
    let upstream = with_records().await;
    let rig = before(&upstream, |rig| {
        rig.section("upstream", "unknown_routes = \"forward\"")
            .tenant("lending", "routes = [\"bank\"]")
            .tenant("payments", "routes = [\"ocr\", \"capture\"]")
    })
    .await;
    let check = async |team: &str, line: &str, allowed: bool| {
        let (method, target) = line.split_once(' ').expect("two words");
        let calls = upstream.heard().len();
        let answer = sent(&rig, team, method, target, "", if method == "GET" { "" } else { QUESTION }).await;
        if allowed {
            assert_eq!(answer.status, 200, "{team} {line}: {}", answer.text());
        } else {
            answer.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
            assert_eq!(upstream.heard().len(), calls, "{team} {line}");
        }
    };
    let bank_only =
        ["POST /v1.1/identity/bank_account_data_requests", "GET /v1/identity/bank_account_data_requests/5abc"];
    let ocr_only = [
        "POST /v1/identity/id_card_images",
        "GET /v1/identity/id_card_images/5abc",
        "GET /v1/identity/id_card_images?limit=1",
    ];
    let capture = [
        "POST /v1/identity/document_ocr_captures",
        "GET /v1/identity/document_ocr_captures/5abc",
        "GET /v1/identity/document_ocr_capture?limit=1",
        "GET /v1/identity/document_ocr_captures/5abc/recapture",
    ];
    for line in bank_only {
        check("lending", line, true).await;
        check("payments", line, false).await;
    }
    for line in ocr_only.iter().chain(&capture) {
        check("lending", line, false).await;
        check("payments", line, true).await;
    }
    for team in ["lending", "payments"] {
        check(team, "GET /bank/available_bank_codes", true).await;
        check(team, "GET /health", true).await;
        for line in [format!("POST {CFT}"), format!("POST {NAME}"), "POST /v9/new".into(), "GET /v9/new".into()] {
            check(team, &line, false).await;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn health_needs_no_key_and_everything_else_does() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig).await;
    let plain = async |method: &str, target: &str| {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")).await;
        wire.answer().await
    };
    assert_eq!(plain("GET", "/health").await.status, 200);
    assert!(!upstream.heard()[0].headers.contains_key("authorization"), "health carries no credential");
    for (method, target) in [("POST", BANK), ("GET", CODES), ("POST", NAME), ("POST", "/v9/new"), ("OPTIONS", BANK)] {
        plain(method, target).await.is_rejection(401, "INVALID_API_KEY");
    }
    // The answer is kept for five seconds.
    for _ in 0..3 {
        assert_eq!(plain("GET", "/health").await.status, 200);
    }
    assert_eq!(upstream.heard().len(), 1);
    rig.clock.advance(std::time::Duration::from_secs(6));
    assert_eq!(plain("GET", "/health").await.status, 200);
    assert_eq!(upstream.heard().len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn callback_settings_never_reach_the_shared_account() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"")).await;
    let body = r#"{"type":"NAME_VALIDATOR_REQUEST","url":"https://lending.internal/kyc"}"#;
    for target in ["/v1/callback/urls", "/v2/callback/urls/", "/v1/Callback/URLs"] {
        for (method, status) in [("GET", 200), ("POST", 400), ("PATCH", 400), ("DELETE", 200), ("PUT", 403)] {
            let answer = sent(&rig, "lending", method, target, "", body).await;
            match status {
                200 => assert_eq!((answer.status, answer.text().as_str()), (200, "[]"), "{target}"),
                400 => answer.is_rejection(400, "API_VALIDATION_ERROR"),
                _ => answer.is_rejection(403, "REQUEST_FORBIDDEN_ERROR"),
            }
        }
        assert_eq!(sent(&rig, "lending", "HEAD", target, "", "").await.status, 200);
    }
    for method in ["POST", "PATCH", "DELETE", "PUT"] {
        let answer = sent(&rig, "lending", method, "/v1/callback/authentication_tokens", "", body).await;
        answer.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    }
    assert_eq!(asked(&rig, "GET", "/_gateway/webhook_secret").await.status, 200);
    asked(&rig, "GET", "/_gateway/other").await.is_rejection(404, "DATA_NOT_FOUND");
    assert!(upstream.heard().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn head_is_a_get_without_the_body() {
    let upstream = with_records().await;
    let rig = before(&upstream, |rig| rig.tenant("lending", OWNS)).await;
    for target in [CODES, "/health", PHONE, "/v1/identity/id_card_images/5abc"] {
        let answer = asked(&rig, "HEAD", target).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "HEAD {target}: {:?}", answer.headers);
    }
    // A row for POST does not serve HEAD.
    let answer = asked(&rig, "HEAD", BANK).await;
    assert_eq!((answer.status, answer.body.len()), (403, 0));
    assert!(upstream.heard().iter().all(|heard| matches!(heard.method.as_str(), "HEAD" | "GET")));
    // The connection stays usable after a HEAD.
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}\r\n", rig.head("lending", "HEAD", CODES))).await;
    assert_eq!(wire.head().await.expect("a head").status(), 200);
    wire.send(format!("{}\r\n", rig.head("lending", "GET", CODES))).await;
    assert!(!wire.answer().await.body.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn options_of_a_known_path_are_answered_here() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig).await;
    for (target, methods) in [(BANK, "POST"), (CODES, "GET"), (PHONE, "GET"), (NAME, "POST")] {
        let answer = asked(&rig, "OPTIONS", target).await;
        assert!(matches!(answer.status, 200 | 204), "{target}: {}", answer.status);
        let allowed: Vec<_> = answer.header("allow").split(", ").collect();
        assert!(allowed.contains(&methods) && allowed.contains(&"OPTIONS"), "{target}: {allowed:?}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    for target in ["/businesses/1", "/v9/new", "/v1/x/api_keys"] {
        asked(&rig, "OPTIONS", target).await.is_rejection(403, "REQUEST_FORBIDDEN_ERROR");
    }
    assert!(upstream.heard().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn every_spelling_of_a_path_is_forwarded_in_one_normal_form() {
    let upstream = with_records().await;
    let rig =
        before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"").tenant("lending", OWNS)).await;
    let forms: [(&str, &str, &[&str]); 5] = [
        (
            "POST",
            NAME,
            &[
                "/v1/identity/ktp_name/validations/",
                "/V1/Identity/KTP_Name/VALIDATIONS",
                "/%76%31/identity/ktp%5Fname/%76alidations",
                "/v1/identity/ktp%5fname/validations/",
            ],
        ),
        (
            "GET",
            "/v1/identity/document_ocr_requests/Ab-c_1.~x",
            &[
                "/v1/identity/document_ocr_requests/Ab-c_1.~x/",
                "/v1/identity/Document_OCR_Requests/%41b%2Dc%5f1%2e%7Ex",
                "/V1/IDENTITY/document_ocr_requests/Ab-c_1.~x",
            ],
        ),
        (
            "GET",
            "/v1/fraud/phone_numbers/%2B62811/age",
            &["/v1/fraud/phone_numbers/%2b62811/age", "/v1/Fraud/phone%5fnumbers/%2B62811/age"],
        ),
        ("POST", "/v9/new_thing/x", &["/v9/new%5Fthing/x", "/v9/%6eew_thing/%78"]),
        ("GET", "/v9/caf%3Ae", &["/v9/caf%3ae", "/v9/%63af%3Ae"]),
    ];
    for (method, normal, spellings) in forms {
        for spelling in std::iter::once(&normal).chain(spellings) {
            let answer = asked(&rig, method, spelling).await;
            assert_eq!(answer.status, 200, "{method} {spelling}: {}", answer.text());
            assert_eq!(upstream.heard().pop().expect("a call").target, normal, "{method} {spelling}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn every_spelling_of_a_path_shares_one_cache_entry() {
    let upstream = Upstream::agreeing().await;
    let rig = before(&upstream, |rig| rig).await;
    for path in [BANK, "/v1.1/Identity/bank_account_data_requests/", "/v1%2E1/identity/bank%5faccount_data_requests"] {
        assert_eq!(sent(&rig, "lending", "POST", path, "", QUESTION).await.status, 200, "{path}");
    }
    assert_eq!(upstream.heard().len(), 1);
    assert_eq!(upstream.heard()[0].target, BANK);
    rig.stop().await;
}

#[tokio::test]
async fn a_query_is_kept_as_it_is() {
    let upstream = with_records().await;
    let rig = before(&upstream, |rig| rig.section("upstream", "unknown_routes = \"forward\"")).await;
    let queries = [
        "a=1&b=2",
        "a=%41&b=c+d&&x=%2F..%2f",
        "x=%zz",
        "reference_id=A%20b%5f&after_id=",
        "?x=/businesses/../y",
        "next=http://x/businesses//api_keys;a=b",
        "a=b=c;d",
    ];
    for query in queries {
        for (method, path) in
            [("GET", "/v1/identity/id_card_images"), ("POST", NAME), ("POST", "/v9/new"), ("POST", BANK)]
        {
            let target = format!("{path}?{query}");
            let answer = sent(&rig, "lending", method, &target, "", if method == "GET" { "" } else { QUESTION }).await;
            assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
            // On routes that take a reference, the reference gets the team's prefix. Nothing else changes.
            let takes_one = method == "GET" || path == BANK;
            let expected = if takes_one { target.replace("reference_id=", "reference_id=lending%3A") } else { target };
            assert_eq!(upstream.heard().pop().expect("a call").target, expected);
        }
    }
    rig.stop().await;
}
