//! Tests of the admin listener: the shape of answers, and orders that go on without their client.

use crate::support::process::{Folder, Program};
use crate::support::{Redis, RedisProxy, Rig, Upstream, ask};
use std::io::Read as _;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const TOKEN: &str = "Bearer a-token-of-operators";

#[tokio::test]
async fn every_refusal_has_one_shape() {
    let rig = Rig::start().await;
    let id = "6a0e1c9e-6f1c-4d2c-9d3c-0d8a4f9b7c11";
    let unknown = rig.operator("GET", "/v1/nothing").header("x-request-id", id).send().await;
    unknown.is_rejection(404, "DATA_NOT_FOUND");
    assert_eq!(unknown.header("x-request-id"), id);
    let outside = ask("GET", rig.admin_url("/nothing")).send().await;
    outside.is_rejection(401, "INVALID_API_KEY");
    let method = rig.operator("PUT", "/v1/erase").send().await;
    method.is_rejection(405, "METHOD_NOT_ALLOWED");
    assert_eq!(method.header("allow"), "POST");
    let open = ask("POST", rig.admin_url("/healthz")).send().await;
    open.is_rejection(405, "METHOD_NOT_ALLOWED");
    assert_eq!(open.header("allow"), "GET,HEAD");
    let large = rig.operator("POST", "/v1/erase").body(vec![b' '; (64 << 10) + 1]).send().await;
    large.is_rejection(413, "FILE_TOO_LARGE");
    rig.operator("POST", "/v1/erase").json("{}").send().await.is_rejection(400, "API_VALIDATION_ERROR");
    rig.operator("GET", "/v1/callbacks").send().await.is_rejection(400, "API_VALIDATION_ERROR");
    ask("GET", rig.admin_url("/v1/usage")).send().await.is_rejection(401, "INVALID_API_KEY");
    let head = ask("HEAD", rig.admin_url("/healthz")).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    rig.stop().await;
}

#[tokio::test]
async fn metrics_are_compressed_for_a_client_that_accepts_it() {
    let rig = Rig::start().await;
    let plain = ask("GET", rig.admin_url("/metrics")).send().await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = ask("GET", rig.admin_url("/metrics")).header("accept-encoding", "gzip").send().await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut text).expect("gzip");
    assert!(text.contains("iluma_gateway_connections"), "{text}");
    assert!(packed.body.len() * 2 < text.len());
    rig.stop().await;
}

/// Starts a gateway in a process of its own. Returns its folder, its process and the address of its admin listener.
async fn running() -> (Folder, Program, std::net::SocketAddr) {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (_, admin) = program.listening().await;
    (folder, program, admin)
}

#[tokio::test]
async fn an_order_runs_to_its_end_when_its_client_hangs_up() {
    const ORDERS: u64 = 24;
    let (_folder, program, admin) = running().await;
    let body = r#"{"nik":"3171234567890123"}"#;
    let head = format!(
        "POST /v1/erase HTTP/1.1\r\nhost: x\r\nauthorization: {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for order in 0..ORDERS {
        let mut client = tokio::net::TcpStream::connect(admin).await.expect("a connection");
        client.write_all(head.as_bytes()).await.expect("an order");
        // The wait is from zero to 2 ms: the client leaves before the order is read, during it, or after it.
        tokio::time::sleep(Duration::from_micros(2000 * order / ORDERS)).await;
        if order % 2 == 0 {
            client.set_zero_linger().expect("a socket");
        }
        drop(client);
    }
    let last = ask("POST", format!("http://{admin}/v1/erase")).header("authorization", TOKEN);
    assert_eq!(last.json(r#"{"nik":"3171234567890124"}"#).send().await.status, 200);
    program.signal("TERM").await;
    let said = program.said().await;
    let phase = |phase: &str| {
        let phase = format!(r#""phase":"{phase}""#);
        said.stderr.lines().filter(|line| line.contains(r#""audit":"erase""#) && line.contains(&phase)).count()
    };
    let begun = phase("intent");
    assert!(begun > 1, "an order of a client that hung up is begun: {}", said.stderr);
    assert_eq!(phase("result"), begun, "{}", said.stderr);
    assert!(!said.stderr.contains("317123456789012"), "{}", said.stderr);
}

/// Kills the process while a proxy delays the order's command to Redis. The audit log must then show the order as
/// interrupted.
#[tokio::test]
async fn an_order_that_a_kill_interrupts_is_in_the_audit_log_as_such() {
    let (upstream, redis) = (Upstream::agreeing().await, Redis::start().await);
    let proxy = RedisProxy::to(redis.addr()).await;
    let folder = Folder::new(&upstream.url()).env("REDIS", &proxy.url());
    let text = Folder::text(&upstream.url());
    let state = "[state]\nredis = { url = { env = \"REDIS\" } }\nredis_timeout = \"1s\"\n";
    folder.write("config.toml", &text.replace("[state]\n", state));
    let mut program = folder.run();
    let (_, admin) = program.listening().await;
    proxy.hold(b":tag:");
    let order = ask("POST", format!("http://{admin}/v1/erase")).header("authorization", TOKEN);
    let mut orders = tokio::task::JoinSet::new();
    orders.spawn(order.json(r#"{"nik":"3171234567890123"}"#).try_send());
    program.stderr_line(r#""audit":"erase","message""#).await;
    program.signal_at_once("KILL");
    program.ended().await;
    assert!(orders.join_next().await.expect("a task").expect("a result").is_err(), "the order was answered");
    drop(proxy);

    let text = folder.path("config.toml");
    let direct = std::fs::read_to_string(&text).expect("a file").replace("REDIS", "DIRECT");
    folder.write("config.toml", &direct);
    let folder = folder.env("DIRECT", &redis.url());
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let get = |path: &str| ask("GET", format!("http://{admin}{path}")).header("authorization", TOKEN).send();
    let entries = get("/v1/audit").await.json()["entries"].clone();
    let entry = entries.as_array().and_then(|entries| entries.first()).expect("an entry").clone();
    assert_eq!(
        (&entry["order"], &entry["token"], &entry["outcome"]),
        (&"erase".into(), &"admin".into(), &"interrupted".into()),
        "{entries}"
    );
    assert!(!entries.to_string().contains("317123456789"), "{entries}");
    assert_eq!(get("/v1/erasures").await.json()["erasures"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_replay_is_in_the_audit_log_as_purges_and_erasures_are() {
    let (_folder, program, admin) = running().await;
    let order = async |path: &str, body: &str| {
        let order = ask("POST", format!("http://{admin}{path}")).header("authorization", TOKEN);
        assert_eq!(order.json(body).send().await.status, 200);
    };
    order("/v1/callbacks/replay", r#"{"all":true}"#).await;
    order("/v1/cache/purge", r#"{"all":true}"#).await;
    for (name, counts) in [("replay", r#"{\"replayed\":0}"#), ("purge", r#"{\"disk\":0,\"memory\":0,\"redis\":0}"#)] {
        let intent = program.stderr_line(&format!(r#""audit":"{name}","message""#)).await;
        assert!(intent.contains(r#""phase":"intent","token":"admin""#), "{intent}");
        let line = program.stderr_line(&format!(r#""audit":"{name}","done""#)).await;
        assert!(line.contains(r#""phase":"result""#), "{line}");
        assert!(line.contains(counts) && line.contains(r#""done":true"#), "{line}");
    }
}
