//! Tests of the command `check`: it finds the same faults and warnings as `run`, and prints "ok" if there is no fault.

use crate::support::Redis;
use crate::support::process::{Folder, Said};
use crate::support::tls::Authority;
use redis::Cmd;

const NOWHERE: &str = "http://127.0.0.1:9";

fn with_redis(url: &str) -> Folder {
    let folder = Folder::new(NOWHERE).env("REDIS", url);
    let text = Folder::text(NOWHERE).replace("[state]\n", "[state]\nredis = { url = { env = \"REDIS\" } }\n");
    folder.write("config.toml", &text);
    folder
}

fn order(redis: &Redis, command: &mut Cmd) {
    let client = redis::Client::open(redis.url()).expect("a URL");
    command.exec(&mut client.get_connection().expect("a connection")).expect("it does so");
}

fn line<'a>(said: &'a Said, with: &str) -> &'a str {
    said.stderr.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("no line with {with}: {said:?}"))
}

#[tokio::test]
async fn a_good_configuration_ends_with_ok_and_warnings_are_no_faults() {
    let folder = Folder::new(NOWHERE);
    let said = folder.once("check").await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert_eq!(said.stdout.lines().last(), Some("ok"), "{said:?}");

    let folder = Folder::new("http://kyc.example");
    let said = folder.once("check").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(line(&said, "warning: upstream.base_url: ").contains("kyc.example"), "{said:?}");
    assert_eq!(said.stdout.lines().last(), Some("ok"), "{said:?}");
    assert!(!folder.path("state.db").exists(), "check makes no database");
}

#[tokio::test]
async fn an_expired_certificate_is_a_warning_with_its_age() {
    let (authority, folder) = (Authority::new(), Folder::new(NOWHERE));
    let tls = authority.expired_leaf("127.0.0.1", 3).write(&folder.path(""), None);
    let text = Folder::text(NOWHERE).replace("[server]\n", &format!("[server]\n{tls}\n"));
    assert!(text.contains(&tls), "{text}");
    folder.write("config.toml", &text);
    let said = folder.once("check").await;
    assert_eq!((said.code, said.stdout.lines().last()), (Some(0), Some("ok")), "{said:?}");
    let told = line(&said, "warning: server.tls.cert: ");
    assert!(told.contains("expired 3 days ago"), "{told}");
}

#[tokio::test]
async fn each_redis_fault_is_told_by_its_cause_and_place_and_the_start_refuses() {
    let redis = Redis::start().await;
    let primary = Redis::start().await;
    let place = redis.addr().to_string();
    let (_, user) = redis.url().split_once("//").map(|(_, rest)| ((), rest.to_owned())).expect("a URL");
    let wrong = format!("redis://:5ec5e7-wrong@{user}");

    let said = with_redis(&redis.url()).once("check").await;
    assert_eq!((said.code, said.stdout.lines().last()), (Some(0), Some("ok")), "{said:?}");

    order(&redis, redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.addr().port()));
    for command in ["check", "run"] {
        let said = with_redis(&redis.url()).once(command).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        let told = line(&said, "state.redis.url: ");
        assert!(told.contains(&place) && told.contains("it is a replica"), "{told}");
    }
    order(&redis, redis::cmd("REPLICAOF").arg("NO").arg("ONE"));

    order(&redis, redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("right"));
    for (url, code) in [(redis.url(), "NOAUTH"), (wrong, "WRONGPASS")] {
        for command in ["check", "run"] {
            let said = with_redis(&url).once(command).await;
            assert_eq!(said.code, Some(1), "{said:?}");
            let told = line(&said, "state.redis.url: ");
            assert!(told.contains(&place) && told.contains(code), "{told}");
            assert!(!said.stderr.contains("5ec5e7") && !said.stdout.contains("5ec5e7"), "{said:?}");
        }
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_a_warning_with_its_place() {
    let said = with_redis("redis://:5ec5e7@127.0.0.1:1/0").once("check").await;
    assert_eq!((said.code, said.stdout.lines().last()), (Some(0), Some("ok")), "{said:?}");
    let told = line(&said, "warning: state.redis.url: ");
    assert!(told.contains("127.0.0.1:1") && told.contains("can't be reached"), "{told}");
}

#[tokio::test]
async fn a_place_where_no_database_can_be_is_a_fault_of_both() {
    for (path, why) in
        [("none/state.db", "does not exist"), ("config.toml/state.db", "is not a folder"), (".", "is a folder")]
    {
        let folder = Folder::new(NOWHERE);
        folder.write("config.toml", &Folder::text(NOWHERE).replace("\"state.db\"", &format!("{path:?}")));
        for command in ["check", "run"] {
            let said = folder.once(command).await;
            assert_eq!(said.code, Some(1), "{said:?}");
            let told = line(&said, "state.path: ");
            let place = folder.path("").display().to_string();
            assert!(told.contains(why) && told.contains(place.trim_end_matches('/')), "{told}");
        }
    }
}

#[tokio::test]
async fn usage_without_a_journal_is_an_error() {
    let folder = Folder::new(NOWHERE);
    let said = folder.order("usage", &["--month", "2026-11"], "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let path = folder.path("state.db").display().to_string();
    assert!(said.stderr.contains(&format!("there is no journal at {path}")), "{said:?}");
}

#[tokio::test]
async fn without_secrets_the_file_alone_is_checked() {
    let folder = Folder::new(NOWHERE);
    let tls = "tls = { cert = \"none.pem\", key = \"none.key\" }";
    let text = Folder::text(NOWHERE).replace("[server]\n", &format!("[server]\n{tls}\n"));
    let text = text.replace("[callbacks]\n", "[callbacks]\nextra_ca = \"none.pem\"\n");
    let redis = "[state.redis]\nurl = { env = \"NONE\" }\n";
    let text = text.replace("[accounts.live]", &format!("{redis}[accounts.live]"));
    let text = format!("{text}webhook_secret = {{ file = \"none\" }}\ncallback_token = {{ env = \"NONE\" }}\n");
    folder.write("config.toml", &text);
    let said = folder.bare("check", &["--without-secrets"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert_eq!(said.stdout.lines().last(), Some("ok"), "{said:?}");
    assert_eq!(folder.bare("check", &[]).await.code, Some(1), "with secrets it is not fine");
    for (before, after, expected) in [
        ("{ env = \"NONE\" }", "\"inline\"", "state.redis.url: a secret must not stand in the file"),
        (", key = \"none.key\"", "", "server.tls.key: missing; give the PEM file of the private key"),
        ("account = \"live\"", "account = \"other\"", "tenants.lending.account"),
    ] {
        folder.write("config.toml", &text.replacen(before, after, 1));
        let said = folder.bare("check", &["--without-secrets"]).await;
        assert_eq!(said.code, Some(1), "{before}: {said:?}");
        assert!(said.stderr.contains(expected), "{before}: {said:?}");
        assert!(!said.stderr.contains("inline"), "{said:?}");
    }
}

#[tokio::test]
async fn faults_and_warnings_can_be_read_as_json() {
    let folder = Folder::new("http://kyc.example");
    let json = async |more: &[&str]| {
        let said = folder.order("check", &[&["--format", "json"], more].concat(), "").await;
        (said.code, serde_json::from_str::<serde_json::Value>(&said.stdout).expect("JSON"))
    };
    let (code, told) = json(&[]).await;
    assert_eq!((code, &told["ok"], &told["faults"]), (Some(0), &true.into(), &serde_json::json!([])), "{told}");
    assert_eq!(told["warnings"][0]["key"], "upstream.base_url", "{told}");
    let text = Folder::text(NOWHERE);
    folder.write("config.toml", &text.replace("[server]\n", "[server]\nmax_conections = 1\n"));
    for more in [&[][..], &["--without-secrets"]] {
        let (code, told) = json(more).await;
        assert_eq!((code, &told["ok"]), (Some(1), &false.into()), "{told}");
        assert_eq!(told["faults"][0]["key"], "server.max_conections", "{told}");
        assert!(told["faults"][0]["problem"].as_str().is_some_and(|problem| problem.contains("unknown key")), "{told}");
    }
    folder.write("config.toml", &text.replace("\"state.db\"", "\"none/state.db\""));
    let (code, told) = json(&[]).await;
    assert_eq!((code, &told["faults"][0]["key"]), (Some(1), &"state.path".into()), "{told}");
}

#[tokio::test]
async fn completions_and_the_manual_know_every_command() {
    use crate::support::process::once;
    let commands = ["run", "check", "healthcheck", "keygen", "purge", "erase", "usage", "completions", "man"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = once(&["completions", shell]).await;
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{shell}");
        commands.iter().for_each(|command| assert!(said.stdout.contains(command), "{shell}: {command}"));
    }
    let said = once(&["man"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.contains(".TH iluma-gateway 1"), "{}", said.stdout);
    for command in commands {
        assert!(said.stdout.contains(&format!("ILUMA-GATEWAY {}", command.to_uppercase())), "{command}");
    }
    assert_eq!(once(&["completions", "none"]).await.code, Some(2));
}
