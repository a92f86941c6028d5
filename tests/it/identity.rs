//! Tests of a node's identity, of wrong keys, of a restored journal, and of clients that hang up.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{PATIENCE, Redis, Rig, ask, folder};
use iluma_gateway::app::{App, Environment, StartError};
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::keyring::{EncryptionKey, Keyring};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::{RedisTarget, Settings};
use iluma_gateway::redis::{KeySpace, RedisClient};
use iluma_gateway::state::{IDENTITY_LEASE, IdentityClaim, IdentityTaken, Membership};
use secrecy::SecretBox;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
/// The name of the database file in the folder of a rig.
const JOURNAL: &str = "iluma-gateway.db";
const PRICES: &str = "[prices]\nbank = 500\nktp = 1500\n";

fn question(number: u32) -> String {
    format!(r#"{{"bank_account_number":"{number}","bank_code":"BCA"}}"#)
}

async fn admin(rig: &Rig, path: &str) -> Value {
    let answer = rig.operator("GET", path).send().await;
    assert_eq!(answer.status, 200, "{path}");
    answer.json()
}

/// Returns three numbers of the ledger: billable calls, unknown calls, and days whose figures were raised to the
/// published ones.
async fn calls(rig: &Rig) -> (u64, u64, usize) {
    let usage = admin(rig, "/v1/usage").await;
    let sum = |name: &str| usage["rows"].as_array().expect("rows").iter().filter_map(|row| row[name].as_u64()).sum();
    (sum("billable"), sum("unknown"), usage["restored"].as_array().expect("days").len())
}

async fn says(rig: &Rig, expected: (u64, u64, usize)) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while calls(rig).await != expected {
        assert!(tokio::time::Instant::now() < end, "{:?} is not {expected:?}", calls(rig).await);
        tokio::task::yield_now().await;
    }
}

/// Sends 20 whole POSTs, each on its own connection, and closes each connection at once. Waits until the ledger has
/// exactly the calls that Iluma charged, and none is unknown.
async fn hang_up(rig: &Rig) {
    let address = rig.url("").trim_start_matches("http://").to_owned();
    for number in 0..20 {
        let body = question(1_234_567_800 + number);
        let head = format!(
            "POST {BANK} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            rig.key("lending"),
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("a request");
        if number % 2 == 0 {
            let _ = stream.set_zero_linger();
        }
        drop(stream);
    }
    rig.is_idle().await;
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (billable, unknown, _) = calls(rig).await;
        if unknown == 0 && billable == rig.sim().stats().charged {
            break;
        }
        let charged = rig.sim().stats().charged;
        assert!(tokio::time::Instant::now() < end, "{billable} billable, {unknown} unknown, {charged} at Iluma");
        tokio::task::yield_now().await;
    }
    assert_eq!(admin(rig, "/v1/usage/unknown").await["calls"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_call_in_the_books_that_iluma_never_saw() {
    let rig = Rig::builder().extra(PRICES).start().await;
    hang_up(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn with_redis_a_client_that_hangs_up_leaves_no_call_either() {
    let redis = Redis::start().await;
    let rig = Rig::builder().extra(PRICES).redis(&redis).start().await;
    hang_up(&rig).await;
    rig.stop().await;
}

#[tokio::test]
async fn published_numbers_do_not_fall_when_an_older_journal_is_restored() {
    let redis = Redis::start().await;
    let rig = Rig::builder().extra(PRICES).redis(&redis).start().await;
    let another = rig.another().await;
    for number in 0..8 {
        assert_eq!(rig.post("lending", BANK, question(1_234_567_800 + number)).send().await.status, 200);
    }
    says(&another, (8, 0, 0)).await;
    // The copy is like a snapshot of a volume, while the gateway is idle.
    let mut copy = Vec::new();
    let rig = rig.restart_after(async |folder| copy = journal(folder)).await;
    for number in 8..12 {
        assert_eq!(rig.post("lending", BANK, question(1_234_567_800 + number)).send().await.status, 200);
    }
    says(&another, (12, 0, 0)).await;
    let restore = async |folder: &Path| std::fs::write(folder.join(JOURNAL), copy).expect("a restored journal");
    let rig = rig.restart_after(restore).await;
    says(&another, (12, 0, 0)).await;
    says(&rig, (12, 0, 1)).await;
    // The node counts on from these figures, and a further start raises none.
    assert_eq!(rig.post("lending", BANK, question(1_234_567_815)).send().await.status, 200);
    says(&another, (13, 0, 0)).await;
    let rig = rig.restart().await;
    says(&rig, (13, 0, 1)).await;
    says(&another, (13, 0, 0)).await;
    another.stop().await;
    rig.stop().await;
}

fn journal(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join(JOURNAL)).expect("a journal")
}

async fn refused(settings: &Settings) -> StartError {
    let surroundings =
        Environment { access_log: Box::new(std::io::sink()), clock: Clock::system(), diagnostics: false };
    match App::start(settings, surroundings).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_its_id_by_check_and_by_the_start() {
    let rig = Rig::start().await;
    let other_root = |text: String| text.replace("root_key = { env = \"ROOT\" }", "root_key = { env = \"ADMIN\" }");
    let other_key = |text: String| text.replace("env = \"ENCRYPTION\"", "env = \"CALLBACK\"");
    let (root, key) = (rig.settings(other_root).expect("settings"), rig.settings(other_key).expect("settings"));
    let rig = rig
        .restart_after(async |_| {
            let error = refused(&root).await.to_string();
            assert!(error.contains("state.root_key") && error.contains("put the former root key back"), "{error}");
            let checked = iluma_gateway::app::durability_warnings(&root).await.expect_err("a wrong key").to_string();
            assert_eq!(checked, error);
            let error = refused(&key).await.to_string();
            assert!(error.contains("state.encryption_keys: the key \""), "{error}");
        })
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn a_node_with_other_keys_is_refused_by_the_redis_of_the_others() {
    let redis = Redis::start().await;
    let rig = Rig::builder().redis(&redis).start().await;
    let elsewhere = folder();
    let path = elsewhere.path().join("x.db").display().to_string();
    for change in ["root_key = { env = \"ADMIN\" }", "env = \"CALLBACK\""] {
        let text = |text: String| {
            let text = if change.starts_with("root_key") {
                text.replace("root_key = { env = \"ROOT\" }", change)
            } else {
                text.replace("env = \"ENCRYPTION\"", change)
            };
            text.replace("[state]\n", &format!("[state]\npath = \"{path}{}\"\n", change.len()))
        };
        let error = refused(&rig.settings(text).expect("settings")).await;
        assert!(matches!(error, StartError::Keys(_)), "{error}");
        assert!(error.to_string().contains("Redis"), "{error}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_clone_of_a_running_node_does_not_start_and_names_both() {
    let redis = Redis::start().await;
    let rig = Rig::builder().redis(&redis).start().await;
    let mut copy = Vec::new();
    let rig = rig.restart_after(async |folder| copy = journal(folder)).await;
    let elsewhere = folder();
    let path = elsewhere.path().join("clone.db");
    std::fs::write(&path, copy).expect("a clone");
    let change = |text: String| {
        let text = text.replace("[state]\n", &format!("[state]\npath = \"{}\"\n", path.display()));
        format!("[node]\nname = \"the-clone\"\n{text}")
    };
    let error = refused(&rig.settings(change).expect("settings")).await;
    assert!(matches!(error, StartError::Identity(_)), "{error}");
    assert!(error.to_string().contains("\"the-clone\""), "{error}");
    assert!(error.to_string().contains(&format!("{:?}", iluma_gateway::base::host_name::host_name())), "{error}");
    rig.stop().await;
}

fn keyring(ids: &[u8]) -> Keyring {
    let key = |id: &u8| EncryptionKey { id: format!("key-{id}"), key: SecretBox::new(Box::new([*id; 32])) };
    Keyring::new(&ids.iter().map(key).collect::<Vec<_>>())
}

async fn link(redis: &Redis, stop: &CancellationToken) -> RedisClient {
    let link = RedisClient::new(
        &RedisTarget::of_url("state.redis.url", redis.url().into(), None),
        KeySpace::new(&[1; 32]),
        &[],
    )
    .expect("a link");
    link.keep(&Tasks::new(), stop.clone());
    let mut up = link.watch();
    tokio::time::timeout(PATIENCE, up.wait_for(|up| *up)).await.expect("in time").expect("a link");
    link
}

#[tokio::test]
async fn one_process_holds_an_identity_until_it_leaves_or_its_lease_ends() {
    let (redis, stop, clock) = (Redis::start().await, CancellationToken::new(), Clock::adjustable());
    let link = link(&redis, &stop).await;
    let process = |name: &str| Membership::new(link.clone(), ("id", name), keyring(&[1]), clock.clone());
    let (first, second) = (process("one"), process("two"));
    first.join().await.expect("it is the first");
    let kept = first.clone();
    let keeper = tokio::spawn(async move { kept.keep().await });
    let taken = IdentityTaken { own: "two".into(), other: "one".into() };
    assert_eq!(second.join().await, Err(taken), "it goes on being renewed");
    assert_eq!(second.identity_claim(), IdentityClaim::Cloned { other: "one".into() });
    assert_eq!((first.identity_claim(), first.members()), (IdentityClaim::Held, vec!["one".to_owned()]));
    // A process that ended in good order is not waited for; one that was killed is waited for until its lease ends.
    keeper.abort();
    first.leave().await;
    second.join().await.expect("the other one has left");
    clock.advance(IDENTITY_LEASE + Duration::from_millis(1));
    first.join().await.expect("the lease has ended");
    stop.cancel();
}

#[tokio::test]
async fn a_new_key_writes_only_once_every_node_knows_it() {
    let (redis, stop, clock) = (Redis::start().await, CancellationToken::new(), Clock::adjustable());
    let link = link(&redis, &stop).await;
    let node = |id: &str, keys: Keyring| Membership::new(link.clone(), (id, id), keys, clock.clone());
    let key = |keys: &Keyring| Keyring::key_id(&keys.encrypt(b"x", b"y")).expect("a key").to_owned();
    let (old, new) = (keyring(&[1]), keyring(&[2, 1]));
    let (first, second) = (node("a", old.clone()), node("b", new.clone()));
    first.join().await.expect("a place");
    second.join().await.expect("a place");
    assert_eq!((key(&old), key(&new)), ("key-1".into(), "key-1".into()), "the other node could not read the new one");
    // The other node is started again with both keys.
    first.leave().await;
    let both = keyring(&[2, 1]);
    let first = node("a", both.clone());
    first.join().await.expect("a place");
    second.join().await.expect("a heartbeat");
    assert_eq!((key(&both), key(&new)), ("key-2".into(), "key-2".into()));
    stop.cancel();
}

#[tokio::test]
async fn below_the_disks_reserve_calls_are_booked_and_urls_are_not_set() {
    let rig = Rig::builder().section("state", "disk_reserve = \"1000000GiB\"").start().await;
    assert_eq!(rig.post("lending", BANK, question(1_234_567_855)).send().await.status, 200);
    assert_eq!(calls(&rig).await.0, 1);
    assert!(rig.metric("iluma_gateway_disk_free_bytes").await > 0.0);
    let answer = ask("GET", rig.admin_url("/readyz")).send().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ready\n"));
    rig.stop().await;
}
