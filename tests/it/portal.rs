//! Tests of the team portal: its sessions, the requests that a session may make, and the content of its pages.

use crate::support::{Answer, Rig, ask};
use serde_json::Value;
use std::time::Duration;

const PAGE: &str = "/_gateway/";
const USAGE: &str = "/_gateway/usage";
const TEST: &str = "/_gateway/callbacks/test";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const QUESTION: &str = r#"{"bank_code":"BCA","bank_account_number":"7263001","reference_id":"canary-reference"}"#;

/// A browser with a session: its cookie, and the CSRF token of its page, which orders must send.
struct Browser {
    cookie: String,
    csrf: String,
}

async fn try_key(rig: &Rig, key: &str) -> Answer {
    ask("POST", rig.url("/_gateway/login")).form(format!("key={key}")).send().await
}

async fn log_in(rig: &Rig, key: &str) -> Browser {
    let answer = try_key(rig, key).await;
    assert_eq!((answer.status, answer.header("location")), (303, PAGE), "{}", answer.text());
    let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    let page = page(rig, &cookie).await.text();
    let (_, after) = page.split_once("name=\"csrf-token\" content=\"").expect("a value");
    Browser { csrf: after.split('"').next().expect("a value").to_owned(), cookie }
}

async fn page(rig: &Rig, cookie: &str) -> Answer {
    ask("GET", rig.url(PAGE)).header("cookie", cookie).send().await
}

async fn usage(rig: &Rig, browser: &Browser) -> Answer {
    ask("GET", rig.url(USAGE)).header("cookie", &browser.cookie).send().await
}

fn is_login(answer: &Answer) -> bool {
    answer.text().contains("type=\"password\"") && !answer.text().contains("csrf-token")
}

/// Creates a key of the team `lending`. Returns the key's id and the key.
async fn new_key(rig: &Rig) -> (String, String) {
    let made = rig.operator("POST", "/v1/tenants/lending/keys").json("{}").send().await.json();
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    (text("id"), text("key"))
}

#[tokio::test]
async fn a_team_logs_in_reads_its_own_api_and_logs_out() {
    let rig = Rig::start().await;
    let form = ask("GET", rig.url(PAGE)).send().await;
    assert_eq!(form.status, 200);
    assert!(is_login(&form) && form.text().contains(">Key<input"), "{}", form.text());
    let answer = try_key(&rig, rig.key("lending")).await;
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.starts_with("iluma_gateway_portal="), "{cookie}");
    assert!(cookie.ends_with("; Path=/_gateway/; HttpOnly; SameSite=Strict"), "{cookie}");
    let browser = log_in(&rig, rig.key("lending")).await;
    let page = page(&rig, &browser.cookie).await;
    for heading in ["Usage", "Limits", "Callbacks", "Secret", "Examples"] {
        assert!(page.text().contains(&format!("-heading\">{heading}</h2>")), "{heading} in {}", page.text());
    }
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("referrer-policy"), "same-origin");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(usage(&rig, &browser).await.json()["tenant"], "lending");
    let secret = ask("GET", rig.url("/_gateway/webhook_secret")).header("cookie", &browser.cookie).send().await;
    assert!(secret.json()["webhook_secret"].is_string());
    // A session may not use Iluma's routes. A request without session and key is refused everywhere.
    let iluma = ask("POST", rig.url(BANK)).header("cookie", &browser.cookie).header("x-csrf-token", &browser.csrf);
    iluma.json(QUESTION).send().await.is_rejection(401, "INVALID_API_KEY");
    ask("GET", rig.url(USAGE)).send().await.is_rejection(401, "INVALID_API_KEY");
    // A log-out needs the CSRF token of the page.
    let log_out = async |csrf: &str| {
        let order = ask("POST", rig.url("/_gateway/logout")).header("cookie", &browser.cookie);
        order.form(format!("csrf={csrf}")).send().await
    };
    log_out("another").await;
    assert_eq!(usage(&rig, &browser).await.status, 200);
    let ended = log_out(&browser.csrf).await;
    assert!(ended.header("set-cookie").ends_with("; Max-Age=0"), "{}", ended.header("set-cookie"));
    assert_eq!(usage(&rig, &browser).await.status, 401);
    rig.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_on_the_page_and_limited_like_any_other() {
    let rig = Rig::start().await;
    let nothing = try_key(&rig, "").await;
    assert_eq!((nothing.status, nothing.header("x-gateway-error")), (401, "missing_key"));
    for _ in 0..20 {
        let refused = try_key(&rig, "igw_lending_wrong").await;
        assert_eq!((refused.status, refused.header("x-gateway-error")), (401, "unknown_key"));
        assert!(refused.text().contains("<div role=\"alert\">the API key is invalid</div>"), "{}", refused.text());
        assert!(!refused.text().contains("igw_"));
        assert!(!refused.headers.contains_key("www-authenticate") && !refused.headers.contains_key("set-cookie"));
        assert_eq!(refused.header("content-type"), "text/html; charset=utf-8");
    }
    let limited = try_key(&rig, "igw_lending_wrong").await;
    assert_eq!((limited.status, limited.header("x-gateway-error")), (429, "too_many_failures"));
    assert!((1..=3).contains(&limited.header("retry-after").parse::<u64>().expect("seconds")));
    assert!(is_login(&limited) && limited.text().contains("too many wrong API keys"), "{}", limited.text());
    assert_eq!(rig.metric("iluma_gateway_auth_failures_total{listener=\"server\"}").await, 21.0);
    log_in(&rig, rig.key("lending")).await;
    let long = try_key(&rig, &"x".repeat(5000)).await;
    assert_eq!((long.status, long.header("x-gateway-error")), (413, "body_too_large"));
    rig.stop().await;
}

#[tokio::test]
async fn an_order_needs_the_pages_value_or_the_hosts_own_origin() {
    let rig = Rig::start().await;
    let browser = log_in(&rig, rig.key("lending")).await;
    let own = format!("http://{}", rig.app.server_address());
    for (field, value, accepted) in [
        ("accept", "application/json", false),
        ("origin", "http://127.0.0.1:1", false),
        ("origin", "null", false),
        ("x-csrf-token", "another", false),
        ("origin", own.as_str(), true),
        ("x-csrf-token", browser.csrf.as_str(), true),
    ] {
        let order = ask("POST", rig.url(TEST)).header("cookie", &browser.cookie).header(field, value);
        let answer = order.json(r#"{"type":"NAME_VALIDATOR_REQUEST"}"#).send().await;
        // The team has no callback URL, so an accepted order is answered 404.
        assert_eq!(answer.status, if accepted { 404 } else { 401 }, "{field}: {value}");
        let reason = if accepted { "no_callback_url" } else { "missing_key" };
        assert_eq!(answer.header("x-gateway-error"), reason, "{field}: {value}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_session_ends_with_its_key_its_team_and_its_time() {
    let rig = Rig::start().await;
    let (id, key) = new_key(&rig).await;
    let (browser, other) = (log_in(&rig, &key).await, log_in(&rig, rig.key("lending")).await);
    assert_eq!(rig.operator("DELETE", &format!("/v1/tenants/lending/keys/{id}")).send().await.status, 200);
    assert_eq!(usage(&rig, &browser).await.status, 401);
    assert!(is_login(&page(&rig, &browser.cookie).await));
    assert_eq!(try_key(&rig, &key).await.status, 401);
    assert_eq!(usage(&rig, &other).await.status, 200, "the session of another key");

    assert_eq!(rig.operator("POST", "/v1/tenants/lending/suspend").send().await.status, 200);
    let suspended = page(&rig, &other.cookie).await;
    assert_eq!((suspended.status, suspended.header("x-gateway-error")), (403, "tenant_suspended"));
    assert!(is_login(&suspended) && suspended.text().contains("this team is suspended"));
    assert_eq!(try_key(&rig, rig.key("lending")).await.status, 403);
    assert_eq!(rig.operator("POST", "/v1/tenants/lending/resume").send().await.status, 200);
    assert_eq!(usage(&rig, &other).await.status, 200);

    rig.clock.advance(Duration::from_secs(31 * 60));
    assert_eq!(usage(&rig, &other).await.status, 401, "idle for half an hour");
    rig.stop().await;
}

#[tokio::test]
async fn a_team_rotates_the_key_of_its_session() {
    let rig = Rig::start().await;
    let (_, key) = new_key(&rig).await;
    let browser = log_in(&rig, &key).await;
    let rotate = |browser: &Browser| {
        let order = ask("POST", rig.url("/_gateway/keys/rotate")).header("cookie", &browser.cookie);
        order.header("x-csrf-token", &browser.csrf).json(r#"{"grace":"1h"}"#).send()
    };
    let made = rotate(&browser).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let new = made.json()["key"].as_str().expect("a key").to_owned();
    assert_eq!(ask("GET", rig.url(USAGE)).key(&new).send().await.status, 200);
    assert_eq!(usage(&rig, &browser).await.status, 200, "the old key still works");
    let of_file = log_in(&rig, rig.key("lending")).await;
    rotate(&of_file).await.is_rejection(409, "REQUEST_CONFLICT");
    rig.stop().await;
}

#[tokio::test]
async fn the_page_has_no_secret_and_an_example_for_each_route_of_the_team() {
    let server = "trusted_proxies = [\"127.0.0.0/8\"]";
    let rig = Rig::builder().section("server", server).tenant("narrow", "routes = [\"bank\"]").start().await;
    assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 200);
    let callback = r#"{"id":"canary-id","reference_id":"lending:canary-reference","bank_account_number":"7263001"}"#;
    assert_eq!(rig.callback("NAME_VALIDATOR_REQUEST", callback).send().await.status, 200);
    let browser = log_in(&rig, rig.key("lending")).await;
    let page = ask("GET", rig.url(PAGE)).header("cookie", &browser.cookie);
    let page = page.header("x-forwarded-proto", "https").header("host", "gateway.example.com").send().await.text();
    for path in ["v1.1/identity/bank_account_data_requests", "v1/identity/document_ocr_captures/ID", "_gateway/usage"] {
        assert!(page.contains(&format!("https://gateway.example.com/{path}")), "{path}");
    }
    let listed = ask("GET", rig.url("/_gateway/callbacks")).header("cookie", &browser.cookie).send().await.text();
    let shown = page.clone() + &listed;
    for canary in ["7263001", "canary-reference", rig.key("lending"), rig.key("payments"), rig.account_key.as_str()] {
        assert!(!shown.contains(canary), "{canary}");
    }
    let narrow = log_in(&rig, rig.key("narrow")).await;
    let narrow = ask("GET", rig.url(PAGE)).header("cookie", &narrow.cookie).send().await.text();
    assert!(narrow.contains("bank_account_data_requests") && !narrow.contains("individual_watchlist"));
    let secure = ask("POST", rig.url("/_gateway/login")).header("x-forwarded-proto", "https");
    let secure = secure.form(format!("key={}", rig.key("lending"))).send().await;
    assert!(secure.header("set-cookie").ends_with("; SameSite=Strict; Secure"), "{}", secure.header("set-cookie"));
    let lines = rig.logged(8).await;
    assert!(lines.iter().any(|line| line["route"] == "gateway" && line["tenant"] == "lending"));
    assert!(!lines.iter().map(Value::to_string).any(|line| line.contains(rig.key("lending"))));
    rig.stop().await;
}

#[tokio::test]
async fn the_portals_paths_are_known_and_nothing_else_is() {
    let rig = Rig::start().await;
    let bare = ask("GET", rig.url("/_gateway")).send().await;
    assert_eq!((bare.status, bare.header("location")), (303, PAGE));
    let form = ask("GET", rig.url(PAGE)).send().await.text();
    let style = form.split("href=\"").nth(1).and_then(|after| after.split('"').next()).expect("a style sheet");
    let style = ask("GET", rig.url(style)).send().await;
    assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
    assert_eq!(style.header("cache-control"), "public, max-age=31536000, immutable");
    ask("GET", rig.url("/_gateway/assets/none.js")).send().await.is_rejection(404, "DATA_NOT_FOUND");
    ask("GET", rig.url("/_gateway/login")).send().await.is_rejection(401, "INVALID_API_KEY");
    rig.ask("lending", "GET", "/_gateway/login").send().await.is_rejection(404, "DATA_NOT_FOUND");
    rig.ask("lending", "GET", "/_gateway/pages").send().await.is_rejection(404, "DATA_NOT_FOUND");
    let head = ask("HEAD", rig.url(PAGE)).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    rig.stop().await;
}
