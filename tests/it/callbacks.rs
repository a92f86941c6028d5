//! Tests of callbacks over real sockets: Iluma's posts, their owners, each team's deliveries, and failures.

use crate::support::{Answer, Heard, PATIENCE, Rig, RigBuilder, Upstream, ask, raw, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Response;
use http_body_util::Full;
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::database::Database;
use iluma_gateway::iluma::callback_type::CallbackType;
use iluma_gateway::state::{MIGRATIONS, Owning, Sqlite, State};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const KIND: &str = "NAME_VALIDATOR_REQUEST";

/// A team's endpoint, which answers with the status that the test sets.
struct Endpoint {
    upstream: Upstream,
    status: Arc<AtomicU16>,
}

impl Endpoint {
    async fn new() -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let answered = Arc::clone(&status);
        let upstream = Upstream::answering(move |_| {
            let response = Response::builder().status(answered.load(Ordering::SeqCst));
            response
                .header("location", "/elsewhere")
                .body(Full::new(Bytes::from_static(b"thanks")))
                .expect("a response")
        })
        .await;
        Self { upstream, status }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Returns the configuration lines of a tenant with this endpoint as its URL.
    fn lines(&self) -> String {
        format!("callback_urls = {{ {KIND} = \"{}/kyc\" }}", self.upstream.url())
    }

    fn heard(&self) -> Vec<Heard> {
        self.upstream.heard()
    }

    fn bodies(&self) -> Vec<String> {
        self.heard().iter().map(|heard| String::from_utf8_lossy(&heard.body).into_owned()).collect()
    }

    async fn hears(&self, count: usize) -> Vec<Heard> {
        until(&format!("{count} deliveries"), || self.heard().len() >= count).await;
        self.heard()
    }
}

/// Starts a gateway with the teams `lending` and `payments`, each with an endpoint.
async fn rig(change: impl FnOnce(RigBuilder) -> RigBuilder) -> (Rig, Endpoint, Endpoint) {
    let (lending, payments) = (Endpoint::new().await, Endpoint::new().await);
    let builder = Rig::builder().tenant("lending", &lending.lines()).tenant("payments", &payments.lines());
    (change(builder).start().await, lending, payments)
}

fn received(outcome: &str) -> String {
    format!(r#"iluma_gateway_callbacks_received_total{{account="live",outcome="{outcome}",type="{KIND}"}}"#)
}

fn refused(answer: &Answer, status: u16, code: &str) {
    answer.is_rejection(status, code);
}

async fn listed(rig: &Rig, state: &str) -> Vec<Value> {
    let answer = rig.operator("GET", &format!("/v1/callbacks?state={state}")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["callbacks"].as_array().expect("a list").clone()
}

async fn lists(rig: &Rig, state: &str, count: usize) -> Vec<Value> {
    let look = async {
        loop {
            let entries = listed(rig, state).await;
            if entries.len() == count {
                return entries;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("never {count} {state}"))
}

#[tokio::test]
async fn what_is_no_callback_of_ilumas_is_refused() {
    let (rig, lending, _payments) = rig(|rig| rig).await;
    let body = r#"{"id":"1","reference_id":"lending:a"}"#;
    let url = |path: &str| rig.callbacks_url(path);
    let path = format!("/callbacks/live/{KIND}");
    let token = rig.secret("CALLBACK");
    let post = |path: &str| ask("POST", url(path)).header("x-callback-token", token).json(body);
    for unknown in
        ["/", "/callbacks", "/callbacks/", "/callbacks/nobody", "/callbacks/live/OTHER", "/callbacks/live/x/y"]
    {
        refused(&post(unknown).send().await, 404, "DATA_NOT_FOUND");
    }
    let get = ask("GET", url(&path)).send().await;
    refused(&get, 405, "METHOD_NOT_ALLOWED");
    assert_eq!(get.header("allow"), "POST");
    refused(&ask("POST", url(&path)).json(body).send().await, 401, "INVALID_API_KEY");
    for wrong in ["", "x", &token[1..], &format!("{token}x")] {
        let answer = ask("POST", url(&path)).header("x-callback-token", wrong).json(body).send().await;
        refused(&answer, 401, "INVALID_API_KEY");
    }
    refused(&post(&path).header("x-callback-token", token).send().await, 401, "INVALID_API_KEY");
    for malformed in ["", "x", "[]", r#"{"id":1}"#, r#"{"id":"1","id":"2"}"#, "{\"id\":\"\u{1}\"}"] {
        let answer = ask("POST", url(&path)).header("x-callback-token", token).json(malformed).send().await;
        refused(&answer, 400, "API_VALIDATION_ERROR");
    }
    let large = format!(r#"{{"id":"1","x":"{}"}}"#, "y".repeat(2 << 20));
    let declared =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-callback-token: {token}\r\ncontent-length: 2097152\r\n\r\n");
    assert!(
        String::from_utf8_lossy(&raw(rig.app.callbacks_address(), declared.as_bytes()).await)
            .starts_with("HTTP/1.1 413")
    );
    let chunked = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-callback-token: {token}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    let answer = raw(rig.app.callbacks_address(), chunked.as_bytes()).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    // Iluma's test of the URL has no id.
    let test = rig.callback(KIND, r#"{"type":"NAME_VALIDATOR_REQUEST","test":true}"#).send().await;
    assert_eq!(test.status, 200);
    assert_eq!(rig.metric(&received("unauthorized")).await, 6.0);
    assert_eq!(rig.metric(&received("malformed_body")).await, 6.0);
    assert_eq!(rig.metric(&received("test")).await, 1.0);
    assert_eq!(lending.heard().len(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn an_account_without_a_token_takes_nothing() {
    let rig = Rig::builder().extra("[accounts.other]\napi_key = { env = \"ACCOUNT\" }\n").start().await;
    for token in ["", "x", rig.secret("CALLBACK")] {
        let url = rig.callbacks_url("/callbacks/other");
        let answer = ask("POST", url).header("x-callback-token", token).json(r#"{"id":"1"}"#).send().await;
        refused(&answer, 401, "INVALID_API_KEY");
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_seal_finds_the_team_and_the_team_its_own_reference() {
    let (rig, lending, payments) = rig(|rig| rig).await;
    let body = r#"{"status":"COMPLETED", "reference_id":"lending:loan-17","id":"1"}"#;
    for _ in 0..5 {
        assert_eq!(rig.callback(KIND, body).send().await.status, 200);
    }
    assert_eq!(rig.callback(KIND, r#"{"id":"2","reference_id":"payments:"}"#).send().await.status, 200);
    let heard = lending.hears(1).await.remove(0);
    assert_eq!((heard.method.as_str(), heard.target.as_str()), ("POST", "/kyc"));
    assert_eq!(heard.body, body.replace("lending:", ""));
    payments.hears(1).await;
    assert_eq!(payments.bodies(), [r#"{"id":"2"}"#]);
    lists(&rig, "delivered", 2).await;
    assert_eq!(listed(&rig, "queued").await.len(), 0);
    assert_eq!(lending.heard().len(), 1, "repeats are recognised");
    assert_eq!((rig.metric(&received("stored")).await, rig.metric(&received("repeat")).await), (2.0, 4.0));

    // Another result for the same id is not a repeat.
    rig.callback(KIND, body.replace("COMPLETED", "COMPLETED_REVIEW_REQUIRED")).send().await;
    lending.hears(2).await;
    rig.stop().await;
}

/// Verifies a delivery as the specification of Standard Webhooks prescribes for receivers.
fn verified(heard: &Heard, secret: &str) -> bool {
    let header = |name: &str| heard.headers[name].to_str().expect("text").to_owned();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&heard.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    header("webhook-signature").split(' ').any(|signature| signature == expected)
}

#[tokio::test]
async fn a_delivery_is_signed_and_carries_the_teams_token() {
    let (old, new) = (format!("whsec_{}", "A".repeat(32)), format!("whsec_{}", "B".repeat(32)));
    let (rig, lending, payments) = rig(|rig| {
        rig.secret("OLD", &old).secret("NEW", &new).secret("TOKEN", "the-tokens-text").tenant(
            "payments",
            "webhook_secret = [{ env = \"NEW\" }, { env = \"OLD\" }]\ncallback_token = { env = \"TOKEN\" }",
        )
    })
    .await;
    let read = async |team: &str, path: &str| {
        let answer = rig.ask(team, "GET", path).send().await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        answer.json()
    };
    let secret =
        read("lending", "/_gateway/webhook_secret").await["webhook_secret"].as_str().expect("a secret").to_owned();
    let tokens = read("lending", "/v1/callback/authentication_tokens").await;
    let token = tokens["callback_authentication_token"].as_str().expect("a token").to_owned();
    assert_eq!(read("payments", "/_gateway/webhook_secret").await["webhook_secrets"], json!([new, old]));
    let theirs = read("payments", "/v1/callback/authentication_tokens").await;
    assert_eq!(theirs["callback_authentication_token"], "the-tokens-text");

    for (id, team) in [("1", "lending"), ("2", "payments")] {
        rig.callback(KIND, format!(r#"{{"id":"{id}","reference_id":"{team}:a"}}"#)).send().await;
    }
    lending.answers(500);
    let first = lending.hears(1).await.remove(0);
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(first.headers["x-callback-token"], token);
    assert!(verified(&first, &secret));
    let heard = payments.hears(1).await.remove(0);
    assert_eq!(heard.headers["x-callback-token"], "the-tokens-text");
    assert!(verified(&heard, &old) && verified(&heard, &new) && !verified(&heard, &secret));
    rig.stop().await;
}

#[tokio::test]
async fn a_failed_delivery_is_tried_again_and_then_is_a_dead_letter() {
    let (rig, lending, _payments) = rig(|rig| rig.section("callbacks", "retry = [\"10s\", \"1m\"]")).await;
    // A redirect is no success, and is not followed.
    lending.answers(302);
    rig.callback(KIND, r#"{"id":"1","reference_id":"lending:a"}"#).send().await;
    let delivered =
        |outcome| format!(r#"iluma_gateway_callback_deliveries_total{{outcome="{outcome}",tenant="lending"}}"#);
    for (attempt, wait) in [(1, 12), (2, 72)] {
        lending.hears(attempt).await;
        rig.metric_becomes(&delivered("failed"), |count| count == attempt as f64).await;
        rig.clock.advance(Duration::from_secs(wait));
    }
    rig.metric_becomes(&delivered("dead"), |count| count == 1.0).await;
    let heard = lending.heard();
    assert!(heard.iter().all(|heard| heard.target == "/kyc"), "no redirect is followed");
    let headers: BTreeSet<_> = heard.iter().map(|heard| heard.headers["webhook-id"].to_str().expect("text")).collect();
    assert_eq!((heard.len(), headers.len()), (3, 1));
    let dead = lists(&rig, "dead", 1).await.remove(0);
    assert_eq!((&dead["tenant"], &dead["upstream_id"], &dead["attempts"]), (&json!("lending"), &json!("1"), &json!(3)));
    rig.clock.advance(Duration::from_secs(86400));
    rig.metric_becomes(r#"iluma_gateway_callback_queue{state="dead",tenant="lending"}"#, |count| count == 1.0).await;

    // An operator replays it.
    lending.answers(204);
    let replay =
        rig.operator("POST", "/v1/callbacks/replay").json(json!({ "id": dead["id"] }).to_string()).send().await;
    assert_eq!((replay.status, replay.json()), (200, json!({ "replayed": 1 })));
    assert_eq!(lending.hears(4).await[3].headers["webhook-id"], dead["id"].as_str().expect("an id"));
    assert_eq!(lists(&rig, "delivered", 1).await[0]["id"], dead["id"]);
    rig.stop().await;
}

#[tokio::test]
async fn an_outbox_that_is_full_makes_dead_letters_at_once_and_delays_no_other_team() {
    let (rig, lending, payments) =
        rig(|rig| rig.section("callbacks", "retry = [\"1h\"]\nmax_queued = 2\nmax_queued_bytes = \"2MiB\"")).await;
    lending.answers(503);
    for id in 0..4 {
        rig.callback(KIND, format!(r#"{{"id":"{id}","reference_id":"lending:a"}}"#)).send().await;
    }
    assert_eq!(lists(&rig, "queued", 2).await.len(), 2);
    assert_eq!(lists(&rig, "dead", 2).await.len(), 2);
    rig.callback(KIND, r#"{"id":"p","reference_id":"payments:a"}"#).send().await;
    payments.hears(1).await;
    rig.metric_becomes(r#"iluma_gateway_outbox_bytes{tenant="lending"}"#, |bytes| bytes > 0.0).await;
    assert_eq!(rig.metric(r#"iluma_gateway_callback_deliveries_total{outcome="dropped",tenant="lending"}"#).await, 0.0);
    rig.stop().await;
}

#[tokio::test]
async fn what_an_outage_lost_is_replayed() {
    let (rig, lending, payments) = rig(|rig| rig.section("callbacks", "retry = [\"0s\"]")).await;
    let since = humantime::format_rfc3339_seconds(rig.clock.wall()).to_string();
    lending.answers(503);
    for id in 0..5 {
        rig.callback(KIND, format!(r#"{{"id":"{id}","reference_id":"lending:a"}}"#)).send().await;
        rig.callback(KIND, format!(r#"{{"id":"{id}","reference_id":"payments:a"}}"#)).send().await;
    }
    lists(&rig, "dead", 5).await;
    lists(&rig, "delivered", 5).await;
    lending.answers(200);
    let before = lending.heard().len();
    let replay = |body: Value| rig.operator("POST", "/v1/callbacks/replay").json(body.to_string()).send();
    assert_eq!(replay(json!({ "tenant": "lending", "since": since })).await.json()["replayed"], 5);
    lending.hears(before + 5).await;
    lists(&rig, "delivered", 10).await;
    assert_eq!(replay(json!({ "all": true })).await.json()["replayed"], 0);
    assert_eq!(payments.heard().len(), 5);
    assert_eq!(replay(json!({ "tenant": "lending" })).await.status, 400);
    assert_eq!(rig.operator("GET", "/v1/callbacks/replay").send().await.status, 405);
    assert_eq!(ask("GET", rig.admin_url("/v1/callbacks?state=dead")).send().await.status, 401);
    rig.stop().await;
}

#[tokio::test]
async fn one_that_nobody_owns_waits_and_is_then_kept_apart() {
    let (rig, lending, payments) = rig(|rig| rig).await;
    for (kind, body) in [
        (KIND, r#"{"id":"1","reference_id":"loan-17"}"#),
        (KIND, r#"{"id":"2","reference_id":"nobody:loan-17"}"#),
        // The reference is prefixed, but the callback's type is unknown.
        ("", r#"{"id":"3","reference_id":"lending:loan-17"}"#),
    ] {
        assert_eq!(rig.callback(kind, body).send().await.status, 200);
    }
    rig.metric_becomes(r#"iluma_gateway_callback_queue{state="waiting",tenant="none"}"#, |count| count == 3.0).await;
    assert_eq!(listed(&rig, "unowned").await.len(), 0);
    rig.clock.advance(Duration::from_secs(6));
    let unowned = lists(&rig, "unowned", 3).await;
    let ids: BTreeSet<_> = unowned.iter().filter_map(|entry| entry["upstream_id"].as_str()).collect();
    assert_eq!(ids, ["1", "2", "3"].into());
    assert!(unowned.iter().all(|entry| entry["tenant"].is_null() && entry["account"] == "live"), "{unowned:?}");
    rig.metric_becomes(r#"iluma_gateway_callback_queue{state="unowned",tenant="none"}"#, |count| count == 3.0).await;
    assert_eq!(lending.heard().len() + payments.heard().len(), 0, "never broadcast");
    rig.stop().await;
}

#[tokio::test]
async fn the_heir_gets_what_was_asked_before_the_gateway() {
    let (rig, lending, payments) = rig(|rig| rig.tenant("payments", "owns_unprefixed = true")).await;
    rig.callback(KIND, r#"{"id":"1","reference_id":"old"}"#).send().await;
    payments.hears(1).await;
    assert_eq!(payments.bodies(), [r#"{"id":"1","reference_id":"old"}"#]);
    assert_eq!(lending.heard().len(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn owners_of_one_id_get_one_each_and_the_type_is_known_by_them() {
    let (rig, lending, payments) = rig(|rig| rig).await;
    // The test makes the teams owners in the state, as the request path does after an answer.
    let folder = Arc::clone(&rig.folder);
    let settings = rig.settings(|text| text).expect("settings");
    let secrets: Vec<_> = ["ROOT", "ENCRYPTION", "CALLBACK"].map(|name| rig.secret(name).to_owned()).into();
    rig.stop().await;
    let database = Database::open(&folder.path().join("iluma-gateway.db"), &[MIGRATIONS]).expect("a database");
    let state = State::Sqlite(Arc::new(Sqlite::new(database, &settings.state, Clock::system())));
    for (team, reference) in [("lending", "loan-17"), ("payments", "payout-9")] {
        let owning = Owning {
            account: "live".parse().expect("a name"),
            id: "1".into(),
            tenant: team.parse().expect("a name"),
            reference: Some(format!("{reference:?}").into()),
            kind: Some(CallbackType::NameValidatorRequest),
            awaits: true,
            tags: Vec::new(),
            asked: SystemTime::UNIX_EPOCH,
        };
        state.own(owning).await.expect("an owner");
    }
    state.close().await;
    let builder = Rig::builder().tenant("lending", &lending.lines()).tenant("payments", &payments.lines());
    let rig = builder.in_folder(&folder).secret("ROOT", &secrets[0]).secret("ENCRYPTION", &secrets[1]).start().await;
    let url = rig.callbacks_url("/callbacks/live");
    let body = r#"{"id":"1","reference_id":"lending:loan-17"}"#;
    let answer = ask("POST", url).header("x-callback-token", rig.secret("CALLBACK")).json(body).send().await;
    assert_eq!(answer.status, 200);
    lending.hears(1).await;
    payments.hears(1).await;
    lists(&rig, "delivered", 2).await;
    assert_eq!(lending.bodies(), [r#"{"id":"1","reference_id":"loan-17"}"#]);
    assert_eq!(payments.bodies(), [r#"{"id":"1","reference_id":"payout-9"}"#]);
    rig.stop().await;
}

#[tokio::test]
async fn a_team_sets_its_own_urls_once_they_answer() {
    let endpoint = Endpoint::new().await;
    let elsewhere = Endpoint::new().await;
    let lines = format!(
        "{}\ncallback_hosts = [\"127.0.0.1\", \"localhost\", \"169.254.169.254.nip.invalid\"]",
        endpoint.lines()
    );
    let rig = Rig::builder().tenant("lending", &lines).start().await;
    let path = "/v1/callback/urls";
    let urls = async |team: &str| rig.ask(team, "GET", path).send().await.json();
    let configured = json!([{ "type": KIND, "url": format!("{}/kyc", endpoint.upstream.url()) }]);
    assert_eq!(urls("lending").await, configured);
    assert_eq!(urls("payments").await, json!([]));
    let own = format!("{}/own?token=x", elsewhere.upstream.url());
    let setting = json!({ "type": KIND, "url": own });

    // The URL must answer 2xx first.
    for status in [500, 302, 404] {
        elsewhere.answers(status);
        refused(&rig.post("lending", path, setting.to_string()).send().await, 400, "API_VALIDATION_ERROR");
    }
    assert_eq!(urls("lending").await, configured);
    elsewhere.answers(200);
    let set = rig.post("lending", "/v2/callback/urls/", setting.to_string()).send().await;
    assert_eq!((set.status, set.json()), (200, setting.clone()));
    assert_eq!(urls("lending").await, json!([setting]));
    let test = elsewhere.heard().pop().expect("a test payload");
    let payload: Value = serde_json::from_slice(&test.body).expect("JSON");
    assert!(payload.get("id").is_none() && payload["type"] == KIND, "{payload}");
    let secret = rig.ask("lending", "GET", "/_gateway/webhook_secret").send().await.json();
    assert!(verified(&test, secret["webhook_secret"].as_str().expect("a secret")));

    // A form works too, as does PATCH, and other types are unchanged.
    let form =
        format!("type=ID_IMAGE_OCR_REQUEST&url={}", own.replace(':', "%3A").replace('?', "%3F").replace('=', "%3D"));
    let set = rig.ask("lending", "PATCH", path).form(form).send().await;
    assert_eq!((set.status, set.json()), (200, json!({ "type": "ID_IMAGE_OCR_REQUEST", "url": own })));
    assert_eq!(urls("lending").await.as_array().expect("a list").len(), 2);
    rig.callback(KIND, r#"{"id":"1","reference_id":"lending:a"}"#).send().await;
    until("a delivery to the own URL", || elsewhere.heard().iter().any(|heard| heard.body.starts_with(b"{\"id\"")))
        .await;
    assert_eq!(endpoint.heard().len(), 0);

    let before = elsewhere.heard().len();
    for (team, body) in [
        ("lending", json!({ "type": "OTHER", "url": own })),
        ("lending", json!({ "type": KIND })),
        ("lending", json!({ "type": KIND, "url": "/kyc" })),
        ("lending", json!({ "type": KIND, "url": "http://payments.internal/" })),
        ("lending", json!({ "type": KIND, "url": "http://169.254.169.254/latest" })),
        ("lending", json!({ "type": KIND, "url": "http://[::ffff:169.254.169.254]/" })),
        ("lending", json!({ "type": KIND, "url": "http://127.0.0.1:9/" })),
        // The team may use no URL.
        ("payments", setting.clone()),
    ] {
        refused(&rig.post(team, path, body.to_string()).send().await, 400, "API_VALIDATION_ERROR");
    }
    assert_eq!(elsewhere.heard().len(), before);
    assert!(rig.sim().stats().requests == 0, "nothing of it reached Iluma");
    rig.stop().await;
}

#[tokio::test]
async fn hosts_are_looked_at_again_when_it_is_sent() {
    let endpoint = Endpoint::new().await;
    let rig = Rig::builder().tenant("lending", "callback_hosts = [\"127.0.0.1\"]").start().await;
    let setting = json!({ "type": KIND, "url": endpoint.upstream.url() });
    assert_eq!(rig.post("lending", "/v1/callback/urls", setting.to_string()).send().await.status, 200);
    let changed = rig.settings(|text| text.replace("[\"127.0.0.1\"]", "[\"lending.internal\"]")).expect("settings");
    rig.app.reload(&changed).expect("a reload");
    rig.callback(KIND, r#"{"id":"1","reference_id":"lending:a"}"#).send().await;
    rig.metric_becomes(r#"iluma_gateway_callback_deliveries_total{outcome="failed",tenant="lending"}"#, |n| n == 1.0)
        .await;
    assert_eq!(endpoint.heard().len(), 1, "the test payload alone");
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_acknowledged_and_needs_no_hand() {
    let (rig, lending, _payments) = rig(|rig| rig).await;
    let callback = |id: usize| rig.callback(KIND, format!(r#"{{"id":"{id}","reference_id":"lending:a"}}"#)).send();
    assert_eq!(callback(0).await.status, 200);
    lending.hears(1).await;
    lists(&rig, "delivered", 1).await;
    // Another connection holds the file's write lock: the database can't be written meanwhile.
    let path = rig.folder.path().join("iluma-gateway.db");
    let intruder = rusqlite::Connection::open(&path).expect("the file");
    intruder.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let answer = callback(1).await;
    refused(&answer, 503, "SERVICE_UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), "1");
    intruder.execute_batch("ROLLBACK").expect("the lock's end");
    drop(intruder);
    // Iluma sends it again.
    assert_eq!(callback(1).await.status, 200);
    lending.hears(2).await;
    rig.stop().await;
}

#[tokio::test]
async fn with_all_state_gone_the_seal_still_finds_the_team() {
    let (lending, payments) = (Endpoint::new().await, Endpoint::new().await);
    let start =
        async || Rig::builder().tenant("lending", &lending.lines()).tenant("payments", &payments.lines()).start().await;
    // The second gateway has another folder and other keys: no data of the first is used.
    start().await.stop().await;
    let rig = start().await;
    rig.callback(KIND, r#"{"id":"1","reference_id":"lending:loan-17"}"#).send().await;
    lending.hears(1).await;
    assert_eq!(lending.bodies(), [r#"{"id":"1","reference_id":"loan-17"}"#]);
    assert_eq!(payments.heard().len(), 0);
    rig.stop().await;
}

/// The number of deliveries a second. [`p99`] makes them for [`SECONDS`] seconds.
const RATE: u64 = 200;
const SECONDS: u64 = 5;
const TEAMS: usize = 20;

/// Returns the 99th percentile of delivery times in a gateway with [`TEAMS`] teams. If `dead` is true, one team's
/// endpoint accepts connections and never answers; then only the other teams' deliveries count.
async fn p99(dead: bool) -> Duration {
    let clock = Clock::system();
    let arrived: Arc<Mutex<Vec<(u64, Duration)>>> = Arc::default();
    let start = clock.now();
    let (noted, now) = (Arc::clone(&arrived), clock.clone());
    let good = Upstream::answering(move |heard| {
        let value: Value = serde_json::from_slice(&heard.body).expect("JSON");
        let id = value["id"].as_str().expect("an id").parse().expect("a number");
        noted.lock().expect("a record").push((id, now.now() - start));
        Response::new(Full::default())
    })
    .await;
    let silent = Upstream::on_connection(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut builder = Rig::builder();
    for team in 0..TEAMS {
        let url = if dead && team == 0 { silent.url() } else { good.url() };
        builder = builder.tenant(&format!("team-{team}"), &format!("callback_urls = {{ {KIND} = \"{url}/\" }}"));
    }
    let rig = builder.start().await;
    let client: hyper_util::client::legacy::Client<_, Full<Bytes>> =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let mut sent = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    let mut posts = tokio::task::JoinSet::new();
    for id in 0..RATE * SECONDS {
        ticks.tick().await;
        let team = usize::try_from(id).expect("few") % TEAMS;
        let body = format!(r#"{{"id":"{id}","reference_id":"team-{team}:a"}}"#);
        let request = http::Request::post(rig.callbacks_url(&format!("/callbacks/live/{KIND}")))
            .header("x-callback-token", rig.secret("CALLBACK"))
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        sent.push(clock.now() - start);
        let client = client.clone();
        posts.spawn(async move { assert_eq!(client.request(request).await.expect("an answer").status(), 200) });
    }
    while let Some(ended) = posts.join_next().await {
        ended.expect("an answer");
    }
    let expected = if dead { sent.len() - sent.len() / TEAMS } else { sent.len() };
    until("all deliveries", || arrived.lock().expect("a record").len() >= expected).await;
    let mut took: Vec<_> = arrived.lock().expect("a record").iter().map(|(id, at)| *at - sent[*id as usize]).collect();
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    drop(rig);
    p99
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_delays_nobody_else() {
    let (without, with) = (p99(false).await, p99(true).await);
    // The machine is shared: the test only shows that no delivery waits for a timeout of 10 s, or a large part of it.
    let bound = without.mul_f64(3.0).max(Duration::from_secs(3));
    assert!(with <= bound, "{with:?} with a dead endpoint, {without:?} without");
}

#[tokio::test]
async fn tls_is_verified_with_the_own_authority_of_the_company_too() {
    use crate::support::tls::{Authority, secure_upstream};
    let (folder, ours, others) = (tempfile::TempDir::new().expect("a folder"), Authority::new(), Authority::new());
    let (good, _) = secure_upstream(&ours.leaf("localhost"), &["h2", "http/1.1"]).await;
    let (bad, _) = secure_upstream(&others.leaf("localhost"), &["http/1.1"]).await;
    let ca = ours.write(folder.path(), "internal-ca.pem");
    let rig = Rig::builder()
        .section("callbacks", &format!("extra_ca = {ca:?}"))
        .tenant("lending", "callback_hosts = [\"localhost\", \"127.0.0.1\"]")
        .start()
        .await;
    let set = |host: &str, port: u16| {
        let setting = json!({ "type": KIND, "url": format!("https://{host}:{port}/") });
        rig.post("lending", "/v1/callback/urls", setting.to_string()).send()
    };
    assert_eq!(set("localhost", good.addr().port()).await.status, 200);
    refused(&set("127.0.0.1", good.addr().port()).await, 400, "API_VALIDATION_ERROR");
    refused(&set("localhost", bad.addr().port()).await, 400, "API_VALIDATION_ERROR");
    rig.stop().await;
}

#[tokio::test]
async fn a_taken_address_is_told_by_its_key() {
    let folder = crate::support::process::Folder::new("http://127.0.0.1:9");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let text = crate::support::process::Folder::text("http://127.0.0.1:9");
    let text = text.replace("[callbacks]\nlisten = \"127.0.0.1:0\"", &format!("[callbacks]\nlisten = \"{address}\""));
    folder.write("config.toml", &text);
    let said = folder.once("run").await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("callbacks.listen: can't listen"), "{said:?}");
}

#[tokio::test]
async fn a_second_process_is_refused_the_state() {
    let folder = crate::support::process::Folder::new("http://127.0.0.1:9");
    let first = folder.run();
    first.listening().await;
    let said = folder.once("run").await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("state.path") && said.stderr.contains("another process"), "{said:?}");
}

#[tokio::test]
async fn secrets_that_are_derived_are_in_no_list() {
    let rig = Rig::start().await;
    let secret = rig.ask("lending", "GET", "/_gateway/webhook_secret").send().await.json();
    let secret = secret["webhook_secret"].as_str().expect("a secret").to_owned();
    let other = rig.ask("payments", "GET", "/_gateway/webhook_secret").send().await.text();
    assert!(!other.contains(&secret));
    assert!(!rig.log.lines().iter().any(|line| line.contains(&secret)));
    rig.stop().await;
}

#[tokio::test]
async fn ilumas_urls_are_pointed_at_the_gateway() {
    use crate::support::process::Folder;
    const TOKEN: &str = "the-token-of-the-account";
    let token = |options: &mut iluma_simulator::Options| options.callback_token = Some(TOKEN.into());
    let rig = Rig::builder().simulator(token).secret("CALLBACK", TOKEN).start().await;
    let folder = Folder::new(&rig.sim().url()).env("ACCOUNT", &rig.account_key).env("CALLBACK", TOKEN);
    let write = |public: &str, token: &str| {
        let text = Folder::text(&rig.sim().url());
        let text = text.replace("[callbacks]\n", &format!("[callbacks]\n{public}\n"));
        folder.write("config.toml", &text.replace("[tenants.lending]", &format!("{token}\n[tenants.lending]")));
    };
    let configured = "callback_token = { env = \"CALLBACK\" }";
    let public = format!("public_url = \"{}\"", rig.callbacks_url(""));
    let urls =
        async || ask("GET", format!("{}/v1/callback/urls", rig.sim().url())).key(&rig.account_key).send().await.json();

    write("", configured);
    let said = folder.once("register-callbacks").await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("callbacks.public_url: missing"), "{said:?}");
    write("public_url = \"http://127.0.0.1:9\"", configured);
    let said = folder.once("register-callbacks").await;
    assert_eq!((said.code, said.stderr.matches("FAILED: Iluma answered 400").count()), (Some(1), 5), "{said:?}");
    assert_eq!(urls().await, json!([]));

    write(&public, configured);
    let said = folder.once("register-callbacks").await;
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 5), "{said:?}");
    let wanted = rig.callbacks_url(&format!("/callbacks/live/{KIND}"));
    assert!(said.stdout.contains(&format!("live {KIND} set: {wanted}")), "{said:?}");
    assert_eq!(urls().await.as_array().map(Vec::len), Some(5));
    assert!(urls().await.as_array().expect("a list").contains(&json!({ "type": KIND, "url": wanted })));
    assert_eq!(rig.metric(&received("test")).await, 1.0);
    let again = folder.once("register-callbacks").await;
    assert_eq!((again.code, again.stdout.matches(" unchanged: ").count()), (Some(0), 5), "{again:?}");
    assert_eq!(rig.metric(&received("test")).await, 1.0);

    write(&public, "");
    let said = folder.once("register-callbacks").await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("accounts.live.callback_token is missing"), "{said:?}");
    rig.stop().await;
}

#[tokio::test]
async fn an_erased_persons_callbacks_are_gone_and_later_ones_are_not_kept() {
    let (rig, lending, _payments) = rig(|rig| rig.section("callbacks", "retry = [\"0s\"]")).await;
    lending.answers(500);
    let body = |id: &str, status: &str| {
        format!(
            r#"{{"id":"{id}","status":"{status}","bank_code":"BCA","bank_account_number":"1234567855","reference_id":"lending:a"}}"#
        )
    };
    assert_eq!(rig.callback(KIND, body("1", "COMPLETED")).send().await.status, 200);
    lists(&rig, "dead", 1).await;
    let order = json!({ "bank_code": "BCA", "bank_account_number": "1234567855" }).to_string();
    let erased = rig.operator("POST", "/v1/erase").json(order).send().await;
    assert_eq!((erased.status, &erased.json()["removed"]["deliveries"]), (200, &json!(1)), "{}", erased.text());
    lists(&rig, "dead", 0).await;
    lending.answers(200);
    assert_eq!(rig.operator("POST", "/v1/callbacks/replay").json(r#"{"all":true}"#).send().await.json()["replayed"], 0);
    let before = lending.heard().len();
    assert_eq!(rig.callback(KIND, body("1", "FAILED")).send().await.status, 200);
    lending.hears(before + 1).await;
    let delivered = r#"iluma_gateway_callback_deliveries_total{outcome="delivered",tenant="lending"}"#;
    rig.metric_becomes(delivered, |count| count == 1.0).await;
    assert_eq!(listed(&rig, "delivered").await.len(), 0);
    rig.stop().await;
}
