//! Tests of the operators' views: the nodes, the alarms, and the access log as it is written.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::process::Folder;
use crate::support::tls::Authority;
use crate::support::{Answer, PATIENCE, Redis, RedisProxy, Rig, Spoil, Upstream, ask, folder, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const KTP: &str = "/v1/identity/ktp_name/validations";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const KIND: &str = "NAME_VALIDATOR_REQUEST";
const VIEWER: &str = "a-token-of-a-viewer";
const TOKENS: &str = "tokens = { view = { token = { env = \"VIEWER\" }, role = \"viewer\" } }";

async fn view(rig: &Rig, path: &str) -> Answer {
    ask("GET", rig.admin_url(path)).header("authorization", format!("Bearer {VIEWER}")).send().await
}

async fn nodes(rig: &Rig) -> Vec<Value> {
    let answer = view(rig, "/v1/nodes").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["nodes"].as_array().expect("a list").clone()
}

async fn alarms(rig: &Rig) -> Vec<Value> {
    let answer = view(rig, "/v1/alarms").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["alarms"].as_array().expect("a list").clone()
}

fn names(alarms: &[Value]) -> Vec<&str> {
    alarms.iter().map(|alarm| alarm["name"].as_str().expect("a name")).collect()
}

/// Waits until the alarms have these names, and returns them.
async fn alarms_become(rig: &Rig, expected: &[&str]) -> Vec<Value> {
    let mut last = Vec::new();
    let look = async {
        loop {
            last = alarms(rig).await;
            if names(&last) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "never {expected:?}: {last:?}");
    last
}

fn time(value: &Value) -> std::time::SystemTime {
    humantime::parse_rfc3339(value.as_str().unwrap_or_default()).unwrap_or_else(|_| panic!("no time: {value}"))
}

#[tokio::test]
async fn a_gateway_alone_is_one_node_without_alarms() {
    let rig = Rig::builder().section("admin", TOKENS).secret("VIEWER", VIEWER).extra("[node]\nname = \"gateway-a\"\n");
    let rig = rig.start().await;
    let all = nodes(&rig).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let node = &all[0];
    let mut members: Vec<_> = node.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    let expected = [
        "backing_off",
        "certificates",
        "configuration",
        "last_reload",
        "name",
        "redis",
        "revision",
        "seen",
        "started",
        "state",
        "uptime_seconds",
        "version",
    ];
    assert_eq!(members, expected);
    assert_eq!((&node["name"], &node["state"]), (&json!("gateway-a"), &json!("live")));
    assert_eq!((&node["version"], &node["redis"]), (&json!(env!("CARGO_PKG_VERSION")), &json!([])));
    assert_eq!((&node["last_reload"]["success"], &node["last_reload"]["fault"]), (&json!(true), &Value::Null));
    assert_eq!(node["configuration"].as_str().map(str::len), Some(16), "{node}");
    assert_eq!(alarms(&rig).await, Vec::<Value>::new());
    rig.clock.advance(Duration::from_secs(3600));
    assert!(nodes(&rig).await[0]["uptime_seconds"].as_u64() >= Some(3600));
    // Another configuration has another hash.
    let changed = rig.settings(|text| format!("{text}\n[help]\ncontact = \"#kyc\"\n")).expect("settings");
    rig.app.reload(&changed).expect("a reload");
    assert_ne!(nodes(&rig).await[0]["configuration"], node["configuration"]);
    view(&rig, "/v1/nodes?x=1").await.is_rejection(400, "API_VALIDATION_ERROR");
    ask("GET", rig.admin_url("/v1/alarms")).send().await.is_rejection(401, "INVALID_API_KEY");
    rig.stop().await;
}

#[tokio::test]
async fn what_needs_an_operator_is_an_alarm_until_it_is_over() {
    let refusing = || {
        let body = Bytes::from_static(br#"{"error_code":"RATE_LIMIT_EXCEEDED","message":"x"}"#);
        let response = Response::builder().status(429).header("retry-after", "3600");
        response.header("content-type", "application/json").body(Full::new(body)).expect("a response")
    };
    let upstream = Upstream::answering(move |heard| {
        if heard.target.contains("ktp") {
            return refusing();
        }
        let body = Bytes::from_static(br#"{"status":"COMPLETED","id":"1","result":{"is_found":true}}"#);
        Response::builder().header("content-type", "application/json").body(Full::new(body)).expect("a response")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).section("admin", TOKENS).secret("VIEWER", VIEWER);
    let rig = rig.tenant("payments", "upstream_calls_per_day = 5").start().await;
    let bank = |number: u32| json!({"bank_code": "BCA", "bank_account_number": format!("{number}")}).to_string();

    assert_eq!(rig.post("lending", KTP, "{}").send().await.status, 429);
    let backing_off = nodes(&rig).await[0]["backing_off"].clone();
    assert_eq!(
        (&backing_off[0]["account"], &backing_off[0]["method"], &backing_off[0]["path"]),
        (&json!("live"), &json!("POST"), &json!("/v*/identity/ktp_name/validations"))
    );
    assert!(time(&backing_off[0]["until"]) > rig.clock.wall() + Duration::from_secs(3500), "{backing_off}");
    let raised = alarms_become(&rig, &["endpoint_backing_off"]).await;
    let mut members: Vec<_> = raised[0].as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["action", "message", "name", "nodes", "severity", "since", "subject"]);
    assert_eq!(raised[0]["severity"], "warning");

    for number in 0..4 {
        assert_eq!(rig.post("payments", BANK, bank(number)).send().await.status, 200);
    }
    let raised = alarms_become(&rig, &["endpoint_backing_off", "quota_nearly_spent"]).await;
    assert_eq!(raised[1]["subject"], "payments: quota_day");
    assert_eq!(rig.post("payments", BANK, bank(9)).send().await.status, 200);
    alarms_become(&rig, &["endpoint_backing_off", "quota_spent"]).await;

    // A key that ends soon is an alarm. Its successor ends at the same time, so only the revocation ends the alarm.
    let made = rig.operator("POST", "/v1/tenants/lending/keys").json(r#"{"expires_in":"10d"}"#).send().await.json();
    let raised = alarms_become(&rig, &["key_expires", "endpoint_backing_off", "quota_spent"]).await;
    assert_eq!(raised[0]["subject"], format!("lending/{}", made["id"].as_str().expect("an id")));
    let id = made["id"].as_str().expect("an id");
    let rotated = rig.operator("POST", &format!("/v1/tenants/lending/keys/{id}/rotate")).send().await.json();
    let raised = alarms(&rig).await;
    let successor = rotated["id"].as_str().expect("an id");
    assert_eq!(raised[0]["subject"], format!("lending/{successor}"), "the successor is to live as long");
    rig.operator("DELETE", &format!("/v1/tenants/lending/keys/{successor}")).send().await;
    alarms_become(&rig, &["endpoint_backing_off", "quota_spent"]).await;
    rig.stop().await;
}

#[tokio::test]
async fn callbacks_that_were_given_up_and_paused_endpoints_are_alarms() {
    let gone =
        Upstream::answering(|_| Response::builder().status(410).body(Full::default()).expect("a response")).await;
    let rig = Rig::builder().section("admin", TOKENS).secret("VIEWER", VIEWER);
    let urls = format!("callback_hosts = [\"127.0.0.1\"]\ncallback_urls = {{ {KIND} = \"{}\" }}", gone.url());
    let rig = rig.tenant("lending", &urls).start().await;
    let body = r#"{"id":"one","reference_id":"lending:a"}"#;
    assert_eq!(rig.callback(KIND, body).send().await.status, 200);
    let raised = alarms_become(&rig, &["endpoint_paused"]).await;
    assert_eq!(raised[0]["subject"], format!("lending: {KIND}"));
    assert!(raised[0]["message"].as_str().is_some_and(|message| message.contains("gone")), "{raised:?}");
    // After the schedule's time the callback is a dead letter.
    rig.clock.advance(Duration::from_secs(4 * 86400));
    let raised = alarms_become(&rig, &["endpoint_paused", "dead_letters"]).await;
    assert_eq!(raised[1]["subject"], "lending");
    let dead = rig.operator("GET", "/v1/callbacks?state=dead").send().await.json();
    let id = dead["callbacks"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(rig.operator("DELETE", &format!("/v1/callbacks/{id}")).send().await.status, 200);
    alarms_become(&rig, &["endpoint_paused"]).await;
    let resume = json!({"tenant": "lending"}).to_string();
    assert_eq!(rig.operator("POST", "/v1/callbacks/resume").json(resume).send().await.status, 200);
    alarms_become(&rig, &[]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_an_alarm_and_shown_with_its_listener() {
    let (authority, files) = (Authority::new(), folder());
    let server = authority.leaf_until("127.0.0.1", 10).write(files.path(), None);
    let rig = Rig::builder().section("server", &server).section("admin", TOKENS).secret("VIEWER", VIEWER).start().await;
    let certificates = nodes(&rig).await[0]["certificates"].clone();
    assert_eq!((certificates.as_array().map(Vec::len), &certificates[0]["listener"]), (Some(1), &json!("server")));
    let days = time(&certificates[0]["expires"]).duration_since(rig.clock.wall()).expect("later").as_secs() / 86400;
    assert!((8..=10).contains(&days), "{certificates}");
    let raised = alarms_become(&rig, &["certificate_expires"]).await;
    assert_eq!(raised[0]["subject"], "server");
    rig.clock.advance(Duration::from_secs(11 * 86400));
    let raised = alarms_become(&rig, &["certificate_expires"]).await;
    assert!(raised[0]["message"].as_str().is_some_and(|message| message.contains("expired")), "{raised:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_reload_that_failed_is_told_with_its_fault_until_one_succeeds() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let get = async |path: &str| {
        let ask = ask("GET", format!("http://{admin}{path}")).header("authorization", "Bearer a-token-of-operators");
        ask.send().await.json()
    };
    let before = get("/v1/nodes").await["nodes"][0].clone();
    let text = Folder::text(&upstream.url());
    folder.write("config.toml", &format!("{text}\n[cache]\nmemry = \"1MiB\"\n"));
    program.signal("HUP").await;
    program.stderr_line("the changed configuration has faults").await;
    let failed = get("/v1/nodes").await["nodes"][0].clone();
    assert_eq!(
        (&failed["last_reload"]["success"], &failed["configuration"]),
        (&json!(false), &before["configuration"])
    );
    assert!(failed["last_reload"]["fault"].as_str().is_some_and(|fault| fault.contains("memry")), "{failed}");
    let alarms = get("/v1/alarms").await["alarms"].clone();
    assert_eq!(alarms[0]["name"], "reload_failed", "{alarms}");
    folder.write("config.toml", &format!("{text}\n[cache]\nmemory = \"1MiB\"\n"));
    program.signal("HUP").await;
    program.stderr_line("the configuration was reloaded").await;
    let after = get("/v1/nodes").await["nodes"][0].clone();
    assert_eq!(after["last_reload"]["success"], true, "{after}");
    assert_ne!(after["configuration"], before["configuration"]);
    assert_eq!(get("/v1/alarms").await["alarms"], json!([]));
}

#[tokio::test]
async fn each_node_shows_all_nodes_and_all_alarms() {
    let mut redis = Redis::start().await;
    let proxy = RedisProxy::to(redis.addr()).await;
    let named = |name: &'static str| move |text: String| format!("{text}\n[node]\nname = \"{name}\"\n");
    let a = Rig::builder().secret("OTHER", &proxy.url()).section("admin", TOKENS).secret("VIEWER", VIEWER);
    let a = a.redis(&redis).start().await;
    let b = a.another_with(named("gateway-b")).await;
    let through_proxy =
        |text: String| named("gateway-c")(text.replace(r#"url = { env = "REDIS" }"#, r#"url = { env = "OTHER" }"#));
    let c = a.another_with(through_proxy).await;
    let seen = async |rig: &Rig, name: &str| nodes(rig).await.into_iter().find(|node| node["name"] == name);
    let reported = async |rig: &Rig, name: &str| {
        let look = async {
            loop {
                match seen(rig, name).await {
                    Some(node) if node["version"].is_string() => return node,
                    Some(_) | None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{name} never reports"))
    };
    for (node, other) in [(&a, "gateway-b"), (&a, "gateway-c"), (&b, "gateway-c"), (&c, "gateway-b")] {
        let other = reported(node, other).await;
        assert_eq!((&other["state"], &other["redis"][0]["up"]), (&json!("live"), &json!(true)));
        assert_eq!(other["redis"][0]["topology"], "single");
        assert!(time(&other["redis"][0]["since"]) <= node.clock.wall());
    }
    assert_eq!(nodes(&a).await.len(), 3);
    assert_eq!(alarms(&a).await, Vec::<Value>::new());

    // A node that is cut off is silent for the others. It shows the cause itself.
    proxy.spoil(Spoil::Swallow);
    let raised = alarms_become(&a, &["node_silent"]).await;
    assert_eq!((&raised[0]["subject"], &raised[0]["severity"]), (&json!("gateway-c"), &json!("critical")));
    assert_eq!(seen(&a, "gateway-c").await.expect("a node")["state"], "silent");
    let raised = alarms_become(&c, &["redis_down"]).await;
    assert_eq!(raised[0]["nodes"], json!(["gateway-c"]));
    let own = view(&c, "/v1/nodes").await;
    assert_eq!(own.header("x-gateway-partial"), "other nodes are missing");
    assert_eq!(
        (own.json()["nodes"].as_array().map(Vec::len), &own.json()["nodes"][0]["redis"][0]["up"]),
        (Some(1), &json!(false))
    );
    proxy.spoil(Spoil::Pass);
    alarms_become(&a, &[]).await;
    // A node that ends in good order is gone from the list at once.
    c.stop().await;
    assert_eq!(nodes(&a).await.len(), 2);
    // The same alarm of several nodes is listed once.
    redis.kill();
    alarms_become(&b, &["redis_down"]).await;
    redis.run().await;
    alarms_become(&b, &[]).await;
    b.stop().await;
    a.stop().await;
}

/// A client of `/v1/live`, which reads until its stream ends.
struct Live {
    text: Arc<Mutex<String>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Live {
    async fn follow(rig: &Rig, token: &str, query: &str) -> Self {
        let mut stream = TcpStream::connect(rig.app.admin_address()).await.expect("a connection");
        let head = format!(
            "GET /v1/live{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a request");
        let text = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&text);
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                written.lock().expect("text").push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let live = Self { text, reader };
        until("an answer", || live.text().contains("\r\n\r\n")).await;
        live
    }

    fn text(&self) -> String {
        self.text.lock().expect("text").clone()
    }

    /// Returns the lines of the access log that came so far.
    fn lines(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    async fn sees(&self, count: usize) -> Vec<String> {
        until(&format!("{count} lines"), || self.lines().len() >= count).await;
        self.lines()
    }

    async fn ends(self) {
        assert!(tokio::time::timeout(PATIENCE, self.reader).await.is_ok(), "the stream goes on");
    }
}

#[tokio::test]
async fn lines_of_the_access_log_are_followed_as_they_are_written() {
    let rig = Rig::builder().section("admin", TOKENS).secret("VIEWER", VIEWER).start().await;
    let all = Live::follow(&rig, VIEWER, "").await;
    assert!(all.text().starts_with("HTTP/1.1 200"), "{}", all.text());
    assert!(all.text().to_ascii_lowercase().contains("content-type: text/event-stream"), "{}", all.text());
    let team = Live::follow(&rig, VIEWER, "?tenant=payments").await;
    let failed = Live::follow(&rig, VIEWER, "?status=4xx&route=bank").await;
    let bank = r#"{"bank_code":"BCA","bank_account_number":"1234567855","reference_id":"081234567890"}"#;
    assert_eq!(rig.post("lending", BANK, bank).send().await.status, 200);
    assert_eq!(rig.post("payments", BANK, bank).send().await.status, 200);
    assert_eq!(rig.post("payments", BANK, "{").send().await.status, 400);
    let lines = all.sees(3).await;
    assert_eq!(lines, rig.log.lines(), "as they are in the log");
    assert_eq!(team.sees(2).await, lines[1..]);
    assert_eq!(failed.sees(1).await, lines[2..]);
    assert!(!all.text().contains("1234567855") && !all.text().contains("081234567890"));
    for (query, status) in [("?tenant=nobody", 404), ("?route=nothing", 400), ("?status=9xx", 400), ("?path=x", 400)] {
        assert_eq!(view(&rig, &format!("/v1/live{query}")).await.status, status, "{query}");
    }
    ask("GET", rig.admin_url("/v1/live")).send().await.is_rejection(401, "INVALID_API_KEY");

    // The stream ends with its token, and at the drain.
    let settings = rig.settings(|text| text.replace(TOKENS, "")).expect("settings");
    let other = Live::follow(&rig, rig.secret("ADMIN"), "").await;
    rig.app.reload(&settings).expect("a reload");
    for ended in [all, team, failed] {
        ended.ends().await;
    }
    rig.post("lending", BANK, bank).send().await;
    other.sees(1).await;
    rig.stop().await;
    other.ends().await;
}

#[tokio::test]
async fn the_number_of_those_who_follow_is_bounded_and_a_place_is_free_again() {
    let rig = Rig::builder().section("admin", TOKENS).secret("VIEWER", VIEWER).start().await;
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(Live::follow(&rig, VIEWER, "").await);
    }
    let full = view(&rig, "/v1/live?status=200").await;
    full.is_rejection(503, "SERVICE_UNAVAILABLE");
    assert_eq!(full.header("x-gateway-error"), "too_many_followers");
    followers.pop().expect("one").reader.abort();
    let look = async {
        loop {
            let again = Live::follow(&rig, VIEWER, "").await;
            if again.text().starts_with("HTTP/1.1 200") {
                return;
            }
            // The gateway notices that a client is gone when it writes a line to the client.
            rig.ask("lending", "GET", "/_gateway/usage").send().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "the place is not given back");
    drop(followers);
    rig.stop().await;
}
