//! Tests with real Redis servers that can't be used: each is reported with its cause and the configuration key.

use crate::support::process::Folder;
use crate::support::tls::Authority;
use crate::support::{PATIENCE, Redis, folder, until};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::RedisTarget;
use iluma_gateway::redis::diagnosis::{Cause, Unreachable};
use iluma_gateway::redis::{KeySpace, RedisClient};
use redis::cmd;
use std::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn names() -> KeySpace {
    KeySpace::new(&[1; 32])
}

/// Tries to use a Redis. Returns true if it answers, false if it can't be reached in time, and an error with the cause
/// if it can't be used.
async fn used(url: &str, extra_ca: Option<Vec<u8>>) -> Result<bool, Cause> {
    let target = RedisTarget::of_url("state.redis.url", url.into(), extra_ca);
    let client = RedisClient::new(&target, names(), &[names().changes_channel()]).expect("a URL");
    let stop = CancellationToken::new();
    client.keep(&Tasks::new(), stop.clone());
    let ready = client.ready(PATIENCE).await;
    stop.cancel();
    ready
}

#[tokio::test]
async fn a_password_that_is_missing_or_wrong_is_named() {
    let redis = Redis::start().await;
    redis.ask::<()>(cmd("CONFIG").arg("SET").arg("requirepass").arg("right"));
    let addr = redis.addr();
    assert_eq!(used(&redis.url(), None).await, Err(Cause::PasswordMissing));
    assert_eq!(used(&format!("redis://:wrong@{addr}/"), None).await, Err(Cause::WrongPassword));
    assert_eq!(used(&format!("redis://nobody:right@{addr}/"), None).await, Err(Cause::WrongPassword));
    assert_eq!(used(&format!("redis://:right@{addr}/"), None).await, Ok(true));
}

#[tokio::test]
async fn a_replica_is_named() {
    let redis = Redis::with(&["--replicaof", "127.0.0.1", "1"]).await;
    assert_eq!(used(&redis.url(), None).await, Err(Cause::Replica));
}

#[tokio::test]
async fn a_node_of_a_cluster_is_named() {
    let redis = Redis::with(&["--cluster-enabled", "yes"]).await;
    assert_eq!(used(&redis.url(), None).await, Err(Cause::Cluster));
}

#[tokio::test]
async fn a_user_without_scripts_or_without_our_keys_is_named() {
    let redis = Redis::start().await;
    for (user, rules) in
        [("scriptless", ["~*", "&*", "+@all", "-@scripting"]), ("elsewhere", ["~x", "&*", "+@all", "+@all"])]
    {
        redis.ask::<()>(cmd("ACL").arg("SETUSER").arg(user).arg("on").arg(">right").arg(&rules));
    }
    let url = |user: &str| format!("redis://{user}:right@{}/", redis.addr());
    assert_eq!(used(&url("scriptless"), None).await, Err(Cause::NoScripts));
    assert_eq!(used(&url("elsewhere"), None).await, Err(Cause::NotPermitted));
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let redis = Redis::start().await;
    assert_eq!(used(&format!("{}99", redis.url()), None).await, Err(Cause::NoSuchDatabase));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_named() {
    let (dir, ours, theirs) = (folder(), Authority::new(), Authority::new());
    ours.leaf("127.0.0.1").write(dir.path(), None);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let ca = ours.write(dir.path(), "ca.pem");
    let port = free.to_string();
    let _redis = Redis::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &path("cert.pem"),
        "--tls-key-file",
        &path("key.pem"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://127.0.0.1:{port}/");
    let trusting = |path: std::path::PathBuf| std::fs::read(path).expect("a certificate");
    let other = theirs.write(dir.path(), "other.pem");
    let refused = used(&url, Some(trusting(other))).await;
    assert!(matches!(refused, Err(Cause::UntrustedCertificate(_))), "{refused:?}");
    assert_eq!(used(&url, Some(trusting(ca))).await, Ok(true));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_waited_for_and_named() {
    let target = RedisTarget::of_url("state.redis.url", "redis://127.0.0.1:1/".into(), None);
    let client = RedisClient::new(&target, names(), &[]).expect("a URL");
    let stop = CancellationToken::new();
    client.keep(&Tasks::new(), stop.clone());
    until("the cause is known", || client.cause().is_some()).await;
    assert_eq!(client.cause(), Some(Cause::Unreachable(Unreachable::Refused)));
    stop.cancel();
}

#[tokio::test]
async fn a_layout_that_this_version_does_not_know_is_refused_and_an_own_one_is_claimed() {
    let redis = Redis::start().await;
    assert_eq!(used(&redis.url(), None).await, Ok(true));
    let layout: Vec<String> = redis.ask(cmd("KEYS").arg("{iluma-gateway:*}:layout"));
    let [key] = &layout[..] else { panic!("one layout: {layout:?}") };
    assert_eq!(redis.ask::<String>(cmd("GET").arg(key)), "1");
    redis.ask::<()>(cmd("SET").arg(key).arg("2"));
    assert_eq!(used(&redis.url(), None).await, Err(Cause::UnknownLayout("2".to_owned())));
    // Another program's value under this key is no layout version.
    redis.ask::<()>(cmd("DEL").arg(key));
    redis.ask::<()>(cmd("RPUSH").arg(key).arg("x"));
    assert_eq!(used(&redis.url(), None).await, Ok(true));
    assert_eq!(redis.ask::<String>(cmd("GET").arg(key)), "1");
}

#[tokio::test]
async fn keys_from_before_layouts_had_numbers_are_refused_by_name() {
    let redis = Redis::start().await;
    assert_eq!(used(&redis.url(), None).await, Ok(true));
    let layout: Vec<String> = redis.ask(cmd("KEYS").arg("{iluma-gateway:*}:layout"));
    let old = layout[0].replace(['{', '}'], "").replace("layout", "epochs");
    redis.ask::<()>(cmd("HSET").arg(&old).arg("bank").arg("x"));
    let refused = used(&redis.url(), None).await;
    let prefix = old.trim_end_matches("epochs");
    assert_eq!(refused, Err(Cause::OldLayout(prefix.to_owned())));
    let said = refused.expect_err("refused").to_string();
    assert!(said.contains(prefix) && said.contains("FLUSHDB"), "{said}");
}

/// Returns the folder of a gateway whose configuration has the URLs of two Redis: one for state, and one for the cache.
fn sharing(state: &str, cache: &str) -> Folder {
    let folder = Folder::new("http://127.0.0.1:9").env("STATE", state).env("CACHE", cache);
    let redis = "redis = { url = { env = \"STATE\" }, cache_url = { env = \"CACHE\" } }\n[accounts.live]";
    folder.write("config.toml", &Folder::text("http://127.0.0.1:9").replace("[accounts.live]", redis));
    folder
}

#[tokio::test]
async fn check_and_run_refuse_a_wrong_password_and_name_the_url_that_has_it() {
    let (state, cache) = (Redis::start().await, Redis::start().await);
    cache.ask::<()>(cmd("CONFIG").arg("SET").arg("requirepass").arg("right"));
    let wrong = format!("redis://:a-wrong-secret@{}/", cache.addr());
    let folder = sharing(&state.url(), &wrong);
    for command in ["check", "run"] {
        let said = folder.once(command).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        let fault =
            format!("state.redis.cache_url: Redis at {}: Redis refuses user and password (WRONGPASS)", cache.addr());
        assert!(said.stderr.contains(&fault), "{said:?}");
        assert!(!said.stderr.contains("a-wrong-secret"), "{said:?}");
    }
}

#[tokio::test]
async fn the_log_names_a_password_that_was_changed_while_the_gateway_ran() {
    let redis = Redis::start().await;
    let folder = sharing(&redis.url(), &redis.url());
    let program = folder.run();
    program.listening().await;
    redis.ask::<()>(cmd("CONFIG").arg("SET").arg("requirepass").arg("right"));
    let mut connection = redis::Client::open(format!("redis://:right@{}/", redis.addr()))
        .and_then(|client| client.get_connection())
        .expect("a connection");
    // For Redis, a connection with subscriptions has the type `pubsub`.
    for kind in ["normal", "pubsub"] {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).exec(&mut connection).expect("others are cut off");
    }
    // Either of the two URLs may be reported first.
    for url in ["state.redis.url", "state.redis.cache_url"] {
        let is_named = || program.stderr_lines("NOAUTH").iter().any(|line| line.contains(&format!("\"{url}\"")));
        until(&format!("a line names NOAUTH and {url}"), is_named).await;
    }
}
