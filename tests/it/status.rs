//! Tests of the listener for probes and Prometheus, and of the command `healthcheck`, which asks it.

use crate::support::process::{Folder, Program};
use crate::support::tls::{Authority, connect};
use crate::support::{Held, PATIENCE, Rig, ask};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;

const STATUS: &str = "[status]\nlisten = \"127.0.0.1:0\"\n";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const FOUND: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;

fn url(rig: &Rig, path: &str) -> String {
    format!("http://{}{path}", rig.app.status_address().expect("a status listener"))
}

#[tokio::test]
async fn status_has_health_readiness_and_metrics_and_nothing_else() {
    let rig = Rig::builder().extra(STATUS).start().await;
    for (path, status, text) in [
        ("/healthz", 200, "ok"),
        ("/readyz", 200, "ready"),
        ("/metrics", 200, r#"iluma_gateway_connections{listener="status"} 1"#),
        ("/v1/tenants", 404, "there is no such path"),
        ("/", 404, "there is no such path"),
        ("/callbacks/live/NAME_VALIDATOR_REQUEST", 404, "there is no such path"),
    ] {
        let bearer = format!("Bearer {}", rig.secret("ADMIN"));
        for answer in [
            ask("GET", url(&rig, path)).send().await,
            ask("GET", url(&rig, path)).header("authorization", bearer).send().await,
        ] {
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            assert!(answer.text().contains(text), "{path}: {}", answer.text());
        }
    }
    assert_eq!(ask("POST", url(&rig, "/healthz")).send().await.status, 405);
    for listener in ["server", "callbacks", "admin"] {
        let series = format!(r#"iluma_gateway_connections{{listener="{listener}"}} "#);
        let text = ask("GET", url(&rig, "/metrics")).send().await.text();
        assert!(text.contains(&series), "{series}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn while_it_drains_it_is_alive_and_not_ready() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.url()).extra(STATUS).start().await;
    let (alive, ready) = (url(&rig, "/healthz"), url(&rig, "/readyz"));
    let question = rig.post("lending", BANK, FOUND);
    let app = rig.app;
    let watched = async {
        held.holds(1).await;
        let end = app.shutdown();
        let seen = async {
            let unready = async { while ask("GET", &ready).send().await.status != 503 {} };
            tokio::time::timeout(PATIENCE, unready).await.expect("it is not ready");
            assert_eq!(ask("GET", &ready).send().await.header("x-gateway-error"), "draining");
            assert_eq!(ask("GET", &alive).send().await.status, 200);
            held.release(1);
        };
        tokio::join!(end, seen);
    };
    let (answer, ()) = tokio::join!(question.send(), watched);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(ask("GET", &alive).try_send().await.is_err(), "the listener is closed at the end");
}

/// Starts a gateway whose section has these further lines. Then writes the port that it got into its configuration.
async fn serving(folder: &Folder, section: &str, lines: &str) -> Program {
    let text = Folder::text("http://127.0.0.1:9");
    let with = |port: u16| match section {
        "admin" => text
            .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n{lines}")),
        _ => format!("{text}[{section}]\nlisten = \"127.0.0.1:{port}\"\n{lines}\n"),
    };
    folder.write("config.toml", &with(0));
    let program = folder.run();
    let port = program.address(section).await.port();
    folder.write("config.toml", &with(port));
    program
}

#[tokio::test]
async fn a_health_check_asks_status_or_admin_in_clear_and_over_tls() {
    let authority = Authority::new();
    for (section, tls, client_ca, proxy) in [
        ("status", false, false, false),
        ("status", true, false, false),
        ("status", true, true, true),
        ("admin", false, false, true),
        ("admin", true, true, false),
    ] {
        let folder = Folder::new("http://127.0.0.1:9");
        let certificates = TempDir::new().expect("a folder");
        let ca = authority.write(certificates.path(), "ca.pem");
        // The health check connects to an address that the certificate does not name.
        let leaf = authority.leaf("gateway.internal");
        let tls = if tls { leaf.write(certificates.path(), client_ca.then_some(&*ca)) } else { String::new() };
        let mut program = serving(&folder, section, &format!("{tls}\nproxy_protocol = {proxy}")).await;
        let said = folder.once("healthcheck").await;
        assert_eq!((said.code, &*said.stdout, &*said.stderr), (Some(0), "", ""), "{section} {tls} {proxy}");
        program.signal("TERM").await;
        assert_eq!(program.ended().await.code(), Some(0));
        let said = folder.once("healthcheck").await;
        assert_eq!(said.code, Some(1), "{section}");
        assert!(said.stderr.contains("is the gateway running?"), "{}", said.stderr);
    }
}

#[tokio::test]
async fn a_health_check_needs_no_secret_and_says_what_it_misses() {
    let folder = Folder::new("http://127.0.0.1:9");
    let program = serving(&folder, "status", "").await;
    let said = folder.bare("healthcheck", &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    folder.write("config.toml", &format!("{}{STATUS}", Folder::text("http://127.0.0.1:9")));
    let said = folder.once("healthcheck").await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("status.listen has port 0"), "{}", said.stderr);
    folder.write("config.toml", "[status]\nlisten = 1\n");
    let said = folder.once("healthcheck").await;
    assert_eq!((said.code, &*said.stderr), (Some(1), "status.listen: must be a string, is a whole number"));
    drop(program);
}

#[tokio::test]
async fn another_process_at_the_port_is_not_that_gateway() {
    let folder = Folder::new("http://127.0.0.1:9");
    let (certificates, others) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let authority = Authority::new();
    let tls = authority.leaf("127.0.0.1").write(certificates.path(), None);
    let program = serving(&folder, "status", &tls).await;
    let other = authority.leaf("127.0.0.1").write(others.path(), None);
    let text = std::fs::read_to_string(folder.path("config.toml")).expect("a file").replace(&tls, &other);
    std::fs::write(folder.path("other.toml"), text).expect("a file");
    let said = folder.with("healthcheck", "other.toml").await;
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    drop(program);
}

#[tokio::test]
async fn status_speaks_tls_with_a_certificate_of_its_own() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(folder.path(), None);
    let rig = Rig::builder().extra(&format!("{STATUS}{tls}\n")).start().await;
    let stream = connect(rig.app.status_address().expect("an address"), &authority, None, &["http/1.1"]).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream.expect("TLS"))).await.expect("HTTP");
    let request = http::Request::get("/readyz").header("host", "gateway.test").body(Empty::<Bytes>::new());
    let asked = async {
        let response = sender.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.expect("a body");
        drop(sender);
    };
    let (_, ended) = tokio::join!(asked, connection);
    ended.expect("a clean end");
}
