//! Tests of the built program from an operator's view: exit codes, messages, signals, files.

use crate::support::process::{Folder, once, started};
use crate::support::tls::Authority;
use crate::support::{Answer, Ask, Held, PATIENCE, Upstream, Wire, answer, ask};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "/v1/identity/ktp_name/validations";
const NOWHERE: &str = "http://127.0.0.1:9";

async fn agreeing() -> Upstream {
    Upstream::answering(|_| {
        let response = Response::builder().header("content-type", "application/json");
        response.body(Full::new(Bytes::from_static(b"{}"))).expect("a response")
    })
    .await
}

fn post(server: SocketAddr, key: &str) -> Ask {
    ask("POST", format!("http://{server}{NAME}")).key(key).json("{}")
}

async fn admin(at: SocketAddr, path: &str) -> Answer {
    ask("GET", format!("http://{at}{path}")).send().await
}

/// Returns the number of reloads with an outcome, from the metrics.
async fn reloads(at: SocketAddr, outcome: &str) -> f64 {
    let text = admin(at, "/metrics").await.text();
    let series = format!("iluma_gateway_config_reloads_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0.0)
}

/// Waits until `times` reloads with this outcome were counted.
async fn reloaded(at: SocketAddr, outcome: &str, times: f64) {
    let look = async {
        while reloads(at, outcome).await < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "never reloaded: {outcome}");
}

#[tokio::test]
async fn check_prints_the_settings_and_no_secret() {
    let folder = Folder::new("https://api.iluma.ai").env("ACCOUNT", "iluma_live_must-not-be-seen");
    folder.write("token", "must-not-be-seen-either\n");
    let text = Folder::text("https://api.iluma.ai");
    folder.write("config.toml", &text.replace("{ env = \"ADMIN\" }", "{ file = \"token\" }"));
    let said = folder.once("check").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for shown in ["lending", "live", "https://api.iluma.ai", "127.0.0.1:0"] {
        assert!(said.stdout.contains(shown), "{shown}: {}", said.stdout);
    }
    // The output contains defaults too: it shows the effective settings.
    for default in ["connect_timeout", "bank_codes", "max_header_bytes", "unknown_routes"] {
        assert!(said.stdout.contains(default), "{default}: {}", said.stdout);
    }
    for secret in ["must-not-be-seen", &"1a".repeat(32), &"2b".repeat(32), "a-token-of-operators"] {
        assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret), "{secret} in {said:?}");
    }
}

#[tokio::test]
async fn check_names_every_fault_with_its_key() {
    let folder = Folder::new(NOWHERE).env("ROOT", "my-root-key-is-a-secret").without("ENCRYPTION");
    let text = Folder::text("ftp://127.0.0.1/path").replace("account = \"live\"", "account = \"liv\"\nwieght = 2");
    folder.write("config.toml", &format!("{text}[upstreams]\nx = 1\n[cache]\nbank_codes = \"soon\"\nmemory = 3\n"));
    let said = folder.once("check").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let faults = format!("{}\n{}", said.stdout, said.stderr);
    assert!(faults.contains("tenants.lending.account: no such account \"liv\""), "{faults}");
    for key in [
        "tenants.lending.wieght: ",
        "state.root_key",
        "state.encryption_keys",
        "upstream.base_url: ",
        "upstreams",
        "cache.bank_codes: ",
        "cache.memory: ",
    ] {
        assert!(faults.lines().any(|line| line.starts_with(key)), "{key}: {faults}");
    }
    assert!(!faults.contains("my-root-key-is-a-secret"), "{faults}");
    // The command `run` refuses the same file.
    let said = folder.once("run").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("tenants.lending.account: no such account \"liv\""), "{said:?}");
}

#[tokio::test]
async fn a_file_that_is_not_toml_or_not_there_is_a_fault() {
    let folder = Folder::new(NOWHERE);
    folder.write("config.toml", "[server\nlisten = ");
    for command in ["check", "run"] {
        let said = folder.once(command).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(!said.stderr.is_empty() && !said.stderr.contains("panicked"), "{said:?}");
    }
    std::fs::remove_file(folder.path("config.toml")).expect("gone");
    for command in ["check", "run"] {
        let said = folder.once(command).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("config.toml"), "{said:?}");
    }
}

#[tokio::test]
async fn the_examples_in_the_repository_are_good() {
    let mut folder = Folder::new(NOWHERE)
        .env("ILUMA_GATEWAY_ROOT_KEY", &"1a".repeat(32))
        .env("ILUMA_GATEWAY_KEY_2026_11", &"2b".repeat(32));
    for name in [
        "ILUMA_GATEWAY_ADMIN_TOKEN",
        "ILUMA_LIVE_API_KEY",
        "ILUMA_LIVE_CALLBACK_TOKEN",
        "ILUMA_DEV_API_KEY",
        "ILUMA_DEV_CALLBACK_TOKEN",
    ] {
        folder = folder.env(name, "iluma_live_0123456789");
    }
    // No server listens at these addresses. This is a warning, not a fault.
    for name in ["ILUMA_GATEWAY_REDIS_URL", "ILUMA_GATEWAY_REDIS_CACHE_URL"] {
        folder = folder.env(name, "redis://gateway:secret@127.0.0.1:1/0");
    }
    // The operator who installs the gateway makes the folder of its database.
    let text = include_str!("../../config/example.toml").replace("/var/lib/iluma-gateway/", "");
    folder.write("config.toml", &text);
    let said = folder.once("check").await;
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[tokio::test]
async fn it_does_not_start_without_its_secrets() {
    for (missing, key) in [
        ("ROOT", "state.root_key"),
        ("ENCRYPTION", "state.encryption_keys"),
        ("ACCOUNT", "accounts.live.api_key"),
        ("ADMIN", "admin.token"),
    ] {
        let said = Folder::new(NOWHERE).without(missing).once("run").await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(key) && said.stderr.contains(missing), "{missing}: {said:?}");
    }
    for (line, key) in [
        ("root_key = { env = \"ROOT\" }\n", "state.root_key"),
        ("encryption_keys = [{ id = \"one\", key = { env = \"ENCRYPTION\" } }]\n", "state.encryption_keys"),
        ("api_key = { env = \"ACCOUNT\" }\n", "accounts.live.api_key"),
    ] {
        let folder = Folder::new(NOWHERE);
        folder.write("config.toml", &Folder::text(NOWHERE).replace(line, ""));
        let said = folder.once("run").await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(key), "{key}: {said:?}");
    }
    // The values are too short, not hexadecimal, or in the file itself.
    for bad in ["1a1a", &"zz".repeat(32), ""] {
        let said = Folder::new(NOWHERE).env("ROOT", bad).once("run").await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("state.root_key"), "{said:?}");
        assert!(bad.is_empty() || !said.stderr.contains(bad), "{said:?}");
    }
    let folder = Folder::new(NOWHERE);
    let text = Folder::text(NOWHERE).replace("{ env = \"ACCOUNT\" }", "\"iluma_live_inline\"");
    folder.write("config.toml", &text);
    let said = folder.once("run").await;
    assert_eq!(said.code, Some(1), "secrets are never inline: {said:?}");
    assert!(said.stderr.contains("accounts.live.api_key") && !said.stderr.contains("iluma_live_inline"), "{said:?}");
}

#[tokio::test]
async fn it_does_not_start_on_an_address_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for section in ["server", "admin"] {
        let folder = Folder::new(NOWHERE);
        let (free, used) =
            (format!("[{section}]\nlisten = \"127.0.0.1:0\""), format!("[{section}]\nlisten = \"{address}\""));
        folder.write("config.toml", &Folder::text(NOWHERE).replace(&free, &used));
        let said = folder.once("run").await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(&format!("{section}.listen")) && said.stderr.contains(&address), "{said:?}");
        assert!(!said.stderr.contains("panicked"), "{said:?}");
    }
}

#[tokio::test]
async fn it_is_ready_with_iluma_down() {
    let address = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let folder = Folder::new(&format!("http://{address}"));
    let mut program = folder.run();
    let (server, ops) = program.listening().await;
    assert_eq!(admin(ops, "/healthz").await.status, 200);
    assert_eq!(admin(ops, "/readyz").await.status, 200);
    post(server, Folder::KEY).send().await.is_rejection(503, "SERVICE_UNAVAILABLE");
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_access_log_goes_to_standard_output_and_nothing_else_does() {
    let upstream = agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (server, _) = program.listening().await;
    assert_eq!(post(server, Folder::KEY).send().await.status, 200);
    let line = program.stdout_line("ktp").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
    assert_eq!((&line["tenant"], &line["route"], &line["status"]), (&"lending".into(), &"ktp".into(), &200.into()));
    assert_eq!((&line["client"], &line["level"]), (&"127.0.0.1".into(), &"INFO".into()));
    program.signal("TERM").await;
    let said = program.said().await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in said.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        assert!(line["status"].is_number(), "{line}");
    }
    for line in said.stderr.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

/// Sends a request that upstream holds, on a connection of its own.
async fn in_flight(server: SocketAddr, held: &Held) -> Wire {
    let mut wire = Wire::connect(server).await;
    let before = held.arrived();
    wire.send(format!(
        "POST {NAME} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 2\r\n\r\n{{}}",
        Folder::KEY
    ))
    .await;
    held.holds(before + 1).await;
    wire
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    for signal in ["TERM", "INT"] {
        let held = Held::start().await;
        let folder = Folder::new(&held.url());
        let mut program = folder.run();
        let (server, ops) = program.listening().await;
        assert_eq!(admin(ops, "/readyz").await.status, 200);
        // One connection waits for its answer, and the other one is idle.
        let mut busy = in_flight(server, &held).await;
        let mut idle = Wire::connect(server).await;
        idle.send("GET /businesses HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(matches!(idle.answer().await.status, 401 | 403));
        program.signal(signal).await;
        program.stderr_line("draining").await;
        let refused = async {
            while TcpStream::connect(server).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, refused).await.expect("new connections are refused");
        assert_eq!(admin(ops, "/readyz").await.status, 503);
        assert_eq!(admin(ops, "/healthz").await.status, 200, "it lives");
        assert!(idle.rest().await.is_empty(), "a connection that does nothing is closed");
        held.release(1);
        let answer = busy.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(program.ended().await.code(), Some(0), "{signal}");
        assert_eq!(held.answered(), 1);
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let held = Held::start().await;
    let folder = Folder::new(&held.url());
    let text = Folder::text(&held.url()).replace("[callbacks]", "drain_timeout = \"300ms\"\n[callbacks]");
    folder.write("config.toml", &text.replace("[state]", "timeout = \"1s\"\n[state]"));
    let mut program = folder.run();
    let (server, _) = program.listening().await;
    let mut busy = in_flight(server, &held).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(busy.try_answer().await.is_none_or(|answer| answer.status >= 500), "no answer was to be had");
}

#[tokio::test]
async fn a_hang_up_signal_reloads() {
    let upstream = agreeing().await;
    let folder = Folder::new(&upstream.url());
    let mut program = folder.run();
    let (server, ops) = program.listening().await;
    assert_eq!(post(server, "a-second-key-of-lending").send().await.status, 401);
    // The file is written in place and a signal is sent: this is the way of deployments that do not rely on file
    // events.
    let both = format!("[\"{}\", \"{}\"]", Folder::hash(Folder::KEY), Folder::hash("a-second-key-of-lending"));
    let text = Folder::text(&upstream.url()).replace(&format!("[\"{}\"]", Folder::hash(Folder::KEY)), &both);
    std::fs::write(folder.path("config.toml"), text).expect("a file");
    program.signal("HUP").await;
    reloaded(ops, "applied", 1.0).await;
    for key in [Folder::KEY, "a-second-key-of-lending"] {
        assert_eq!(post(server, key).send().await.status, 200, "{key}");
    }
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_changed_file_reloads_without_a_signal() {
    let upstream = agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (server, ops) = program.listening().await;
    let renewed = Folder::text(&upstream.url()).replace(&Folder::hash(Folder::KEY), &Folder::hash("another-key"));
    folder.write("config.toml", &renewed);
    reloaded(ops, "applied", 1.0).await;
    assert_eq!(post(server, "another-key").send().await.status, 200);
    assert_eq!(post(server, Folder::KEY).send().await.status, 401, "the old key is gone");
    // The reload is repeated, by writing into the file.
    std::fs::write(folder.path("config.toml"), Folder::text(&upstream.url())).expect("a file");
    let look = async {
        while post(server, Folder::KEY).send().await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the second change too");
}

#[tokio::test]
async fn a_changed_secret_file_reloads() {
    let upstream = agreeing().await;
    let folder = Folder::new(&upstream.url());
    folder.write("account", "iluma_live_before\n");
    let text = Folder::text(&upstream.url()).replace("{ env = \"ACCOUNT\" }", "{ file = \"account\" }");
    folder.write("config.toml", &text);
    let program = folder.run();
    let (server, ops) = program.listening().await;
    assert_eq!(post(server, Folder::KEY).send().await.status, 200);
    folder.write("account", "iluma_live_after\n");
    reloaded(ops, "applied", 1.0).await;
    assert_eq!(post(server, Folder::KEY).send().await.status, 200);
    let heard = upstream.heard();
    let sent: Vec<_> = heard.iter().map(|heard| heard.headers["authorization"].to_str().expect("text")).collect();
    assert_eq!(sent, ["Basic aWx1bWFfbGl2ZV9iZWZvcmU6", "Basic aWx1bWFfbGl2ZV9hZnRlcjo="]);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_counted() {
    let upstream = agreeing().await;
    let folder = Folder::new(&upstream.url());
    let mut program = folder.run();
    let (server, ops) = program.listening().await;
    let good = Folder::text(&upstream.url());
    for (n, bad) in ["[server\n".to_owned(), good.replace("account = \"live\"", "account = \"liv\""), String::new()]
        .into_iter()
        .enumerate()
    {
        let before = reloads(ops, "refused").await;
        folder.write("config.toml", &bad);
        program.signal("HUP").await;
        reloaded(ops, "refused", before + 1.0).await;
        assert_eq!(post(server, Folder::KEY).send().await.status, 200, "bad file {n}");
    }
    let line = program.stderr_line("no such account").await;
    assert!(line.contains("tenants.lending.account") && line.contains("ERROR"), "{line}");
    assert!(reloads(ops, "applied").await < 1.0);
    // The file is removed, and returns.
    std::fs::remove_file(folder.path("config.toml")).expect("gone");
    let before = reloads(ops, "refused").await;
    program.signal("HUP").await;
    reloaded(ops, "refused", before + 1.0).await;
    folder.write("config.toml", &good.replace(&Folder::hash(Folder::KEY), &Folder::hash("another-key")));
    program.signal("HUP").await;
    reloaded(ops, "applied", 1.0).await;
    assert_eq!(post(server, "another-key").send().await.status, 200);
    // The whole folder is removed.
    std::fs::remove_dir_all(folder.path("")).expect("gone");
    let before = reloads(ops, "refused").await;
    program.signal("HUP").await;
    reloaded(ops, "refused", before + 1.0).await;
    assert_eq!(post(server, "another-key").send().await.status, 200);
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_reload_keeps_what_was_remembered() {
    let upstream = Upstream::answering(|_| {
        let body = Full::new(Bytes::from_static(br#"{"status":"COMPLETED","result":{"is_found":true}}"#));
        Response::builder().header("content-type", "application/json").body(body).expect("a response")
    })
    .await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (server, ops) = program.listening().await;
    let bank = || {
        ask("POST", format!("http://{server}/v1.1/identity/bank_account_data_requests"))
            .key(Folder::KEY)
            .json(r#"{"bank_account_number":"1","bank_code":"BCA"}"#)
    };
    assert_eq!(bank().send().await.status, 200);
    program.signal("HUP").await;
    reloaded(ops, "applied", 1.0).await;
    assert!(bank().send().await.header("cache-status").starts_with("iluma-gateway; hit"));
    assert_eq!(upstream.heard().len(), 1);
}

#[tokio::test]
async fn what_keygen_prints_works_in_a_configuration() {
    let upstream = agreeing().await;
    let made = once(&["keygen", "--tenant", "lending"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let lines = || made.stdout.lines().filter(|line| !line.starts_with('#'));
    let setting = lines().find(|line| line.starts_with("key_sha256 = ")).expect("a line for the configuration");
    let key = lines().find(|line| !line.contains('=') && !line.is_empty()).expect("a key");
    assert!(setting.contains(&Folder::hash(key)), "{made:?}");
    let secrets = [once(&["keygen", "--secret"]).await, once(&["keygen", "--secret"]).await];
    let [root, encryption] = secrets.map(|said| said.stdout.trim().to_owned());
    for secret in [&root, &encryption] {
        assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
    }
    assert_ne!(root, encryption);
    let folder = Folder::new(&upstream.url()).env("ROOT", &root).env("ENCRYPTION", &encryption);
    let known = format!("key_sha256 = [\"{}\"]", Folder::hash(Folder::KEY));
    folder.write("config.toml", &Folder::text(&upstream.url()).replace(&known, setting));
    let program = folder.run();
    let (server, _) = program.listening().await;
    assert_eq!(post(server, key).send().await.status, 200);
    assert_eq!(post(server, Folder::KEY).send().await.status, 401);
}

#[tokio::test]
async fn every_help_has_an_example() {
    let said = once(&["--help"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let list = said.stdout.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The description of a command continues on further lines, indented far to the right.
    let commands: Vec<_> = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let commands: Vec<_> = commands.into_iter().filter(|name| !["", "help"].contains(name)).collect();
    assert!(["run", "erase", "usage"].iter().all(|known| commands.contains(known)), "{commands:?}");
    for command in commands {
        let said = once(&[command, "--help"]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let (_, example) = said.stdout.split_once("\nExample").unwrap_or_else(|| panic!("{command}: {}", said.stdout));
        assert!(example.contains(&format!("iluma-gateway {command}")), "{command}: {}", said.stdout);
    }
    assert_eq!(once(&["--version"]).await.code, Some(0));
}

#[tokio::test]
async fn wrong_usage_exits_with_two() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["serve"],
        &["run"],
        &["check"],
        &["run", "--config"],
        &["run", "--config", "x", "--port", "1"],
        &["keygen"],
        &["keygen", "--tenant", "Not A Name!"],
        &["simulate", "--listen", "nowhere"],
    ];
    for args in wrong {
        let said = once(args).await;
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(!said.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn simulate_serves_a_small_iluma() {
    let program = started(&["simulate", "--listen", "127.0.0.1:0"]);
    let line = program.stdout_line("http://127.0.0.1:").await;
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL").to_owned();
    let codes = ask("GET", format!("{url}/bank/available_bank_codes")).key("iluma_development_me").send().await;
    assert_eq!(codes.status, 200, "{}", codes.text());
    assert_eq!(ask("GET", format!("{url}/_sim/stats")).send().await.status, 200);
    // A gateway stands before the simulator, both as processes.
    let folder = Folder::new(&url);
    let gateway = folder.run();
    let (server, _) = gateway.listening().await;
    let bank = ask("POST", format!("http://{server}/v1.1/identity/bank_account_data_requests"));
    let answer = bank.key(Folder::KEY).json(r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn an_upstream_that_answers_in_parts_is_no_reason_to_drop_a_request_in_a_drain() {
    // Upstream sends the head and later the body of the answer. Meanwhile the request is in flight.
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = std::sync::Arc::clone(&go);
    let upstream = Upstream::on_connection(move |stream| {
        let gate = std::sync::Arc::clone(&gate);
        async move {
            let mut wire = Wire::over(stream);
            if wire.request().await.is_some() {
                let whole = answer(200, r#"{"status":"COMPLETED"}"#);
                wire.send(&whole[..whole.len() - 5]).await;
                gate.acquire().await.expect("a gate").forget();
                wire.send(&whole[whole.len() - 5..]).await;
            }
        }
    })
    .await;
    let folder = Folder::new(&upstream.url());
    let mut program = folder.run();
    let (server, _) = program.listening().await;
    let mut wire = Wire::connect(server).await;
    wire.send(format!(
        "POST {NAME} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 2\r\n\r\n{{}}",
        Folder::KEY
    ))
    .await;
    let head = wire.head().await.expect("a head");
    program.signal("TERM").await;
    program.stderr_line("draining").await;
    go.add_permits(1);
    let (body, _) = wire.body(&head).await.expect("the whole body");
    assert_eq!(&body[..], br#"{"status":"COMPLETED"}"#);
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn operators_purge_and_erase_by_command() {
    let found = r#"{"status":"COMPLETED","id":"1","result":{"is_found":true}}"#;
    let upstream = Upstream::answering(move |_| Response::new(Full::new(Bytes::from_static(found.as_bytes())))).await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (server, admin) = program.listening().await;
    let admin = format!("http://{admin}");
    let bank = format!("http://{server}/v1.1/identity/bank_account_data_requests");
    let fill = || ask("POST", &bank).key(Folder::KEY).json(r#"{"bank_account_number":"12","bank_code":"BCA"}"#).send();
    fill().await;
    let purged = folder.order("purge", &["--admin", &admin, "--route", "bank"], "").await;
    assert_eq!(
        (purged.code, purged.stdout.as_str()),
        (Some(0), r#"{"removed":{"disk":1,"memory":1,"redis":0}}"#),
        "{}",
        purged.stderr
    );
    fill().await;
    let person = r#"{"bank_code":"BCA","bank_account_number":"12"}"#;
    let erased = folder.order("erase", &["--admin", &admin], person).await;
    assert_eq!(erased.code, Some(0), "{}", erased.stderr);
    assert!(erased.stdout.contains(r#""memory":1"#), "{}", erased.stdout);
    let nobody = folder.order("erase", &["--admin", &admin], "{}").await;
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("API_VALIDATION_ERROR"), "{}", nobody.stderr);
    let unclear = folder.order("purge", &["--admin", &admin], "").await;
    assert_eq!(unclear.code, Some(2), "{}", unclear.stderr);
    assert_eq!(upstream.heard().len(), 2);
    // The audit line names no person.
    let line = program.stderr_line(r#""audit":"erase","done":true"#).await;
    assert!(line.contains(r#""phase":"result""#), "{line}");
    assert!(!line.contains("BCA") && line.contains("memory"), "{line}");
}

/// Checks that the gateway's own commands send the header of the PROXY protocol to an admin listener that requires it.
#[tokio::test]
async fn orders_reach_an_admin_listener_that_wants_the_proxy_protocol() {
    let folder = Folder::new("http://127.0.0.1:9");
    let text = |port: u16| {
        let listener = format!("[admin]\nproxy_protocol = true\nlisten = \"127.0.0.1:{port}\"");
        Folder::text("http://127.0.0.1:9").replace("[admin]\nlisten = \"127.0.0.1:0\"", &listener)
    };
    folder.write("config.toml", &text(0));
    let program = folder.run();
    let (_, admin) = program.listening().await;
    folder.write("config.toml", &text(admin.port()));
    for (command, more) in [("purge", &["--all"][..]), ("keys list", &["--tenant", "lending"])] {
        let said = folder.order(command, more, "").await;
        assert_eq!(said.code, Some(0), "{command}: {}", said.stderr);
    }
}

#[tokio::test]
async fn orders_reach_a_private_admin_listener_that_asks_for_a_certificate() {
    let folder = Folder::new("http://127.0.0.1:1");
    let (authority, operators) = (Authority::new(), Authority::new());
    let at = folder.path("");
    let (ca, client_ca) = (authority.write(&at, "ca.pem"), operators.write(&at, "ops-ca.pem"));
    let tls = authority.leaf("127.0.0.1").write(&at, Some(&client_ca));
    let own = folder.path("own");
    std::fs::create_dir(&own).expect("a folder");
    operators.leaf("operator").write(&own, None);
    let text = Folder::text("http://127.0.0.1:1").replace("[admin]\n", &format!("[admin]\n{tls}\n"));
    folder.write("config.toml", &text);
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let (admin, ca) = (format!("https://{admin}"), ca.display().to_string());
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| own.join(name).display().to_string());
    let purge = async |more: &[&str]| {
        let said = folder.order("purge", &[&["--admin", &admin, "--all"], more].concat(), "").await;
        (said.code, said.stdout + &said.stderr)
    };
    let trusted = ["--ca", &ca, "--cert", &cert, "--key", &key];
    assert_eq!(purge(&trusted).await, (Some(0), "{\"removed\":{\"disk\":0,\"memory\":0,\"redis\":0}}".to_owned()));
    for (refused, why) in [
        (&trusted[..0], "is not trusted"),
        (&trusted[2..], "is not trusted"),
        (&trusted[..2], "wants a client certificate"),
        (&["--ca", &key], "it is not a list of PEM certificates"),
        (&["--cert", &cert, "--key", &cert], "it has no PEM private key"),
    ] {
        let (code, said) = purge(refused).await;
        assert!(code == Some(1) && said.contains(why), "{refused:?} {said}");
    }
    assert_eq!(purge(&trusted[..4]).await.0, Some(2), "a certificate without its key");
    let clear = admin.replace("https://", "http://");
    let nobody = "http://127.0.0.1:1".to_owned();
    for (target, why) in [(&clear, "does not speak HTTP in clear"), (&nobody, "nothing listens at")] {
        let said = folder.order("purge", &["--admin", target, "--all"], "").await;
        assert!(said.code == Some(1) && said.stderr.contains(why), "{target}: {said:?}");
    }
}

#[tokio::test]
async fn what_takes_a_restart_is_told_by_its_key() {
    let upstream = agreeing().await;
    let folder = Folder::new(&upstream.url()).env("ANOTHER", &"3c".repeat(32));
    let program = folder.run();
    program.listening().await;
    let text = Folder::text(&upstream.url());
    let key = "{ id = \"one\", key = { env = \"ENCRYPTION\" } }";
    assert!(text.contains(key));
    let another = format!("{key}, {{ id = \"two\", key = {{ env = \"ANOTHER\" }} }}");
    folder.write("config.toml", &text.replace(key, &another));
    let warning = program.stderr_line("takes effect at the next start").await;
    assert!(warning.contains("state.encryption_keys") && !warning.contains("3c3c"), "{warning}");
}
