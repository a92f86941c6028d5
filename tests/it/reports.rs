//! Tests of reported outcomes: an outcome that one node gets settles the call of another node, even if this node or
//! Redis is down meanwhile.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use crate::support::{PATIENCE, Redis};
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::database::Database;
use iluma_gateway::base::name::{AccountName, TenantName};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::{RedisTarget, Settings};
use iluma_gateway::iluma::route_name::RouteName;
use iluma_gateway::ledger::{self, ChargeOutcome, Ledger, Outcome, Selection};
use iluma_gateway::redis::{KeySpace, RedisClient};
use redis::cmd;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn names() -> KeySpace {
    KeySpace::new(&[1; 32])
}

fn account() -> AccountName {
    "live".parse().expect("a name")
}

fn team() -> TenantName {
    "lending".parse().expect("a name")
}

fn settings(name: &str) -> Settings {
    let text = format!(
        "[node]\nname = \"{name}\"\n[state]\nroot_key = {{ env = \"cd\" }}\n\
         encryption_keys = [{{ id = \"a\", key = {{ env = \"ab\" }} }}]\n[accounts.live]\napi_key = {{ env = \"ef\" }}\n"
    );
    Settings::parse(&text, Path::new("/nowhere"), &|name| Some(name.repeat(32))).expect("settings")
}

/// The ledger of a node that runs.
struct Node {
    ledger: Ledger,
    database: Database,
    keeper: JoinHandle<()>,
    stop: CancellationToken,
}

impl Node {
    async fn start(folder: &TempDir, name: &str, redis: &Redis) -> Self {
        let target = RedisTarget::of_url("state.redis.url", redis.url().into(), None);
        let link = RedisClient::new(&target, names(), &[]).expect("a URL");
        let stop = CancellationToken::new();
        link.keep(&Tasks::new(), stop.clone());
        let database = Database::open(&folder.path().join("x.db"), &[("ledger", ledger::MIGRATIONS)]).expect("a file");
        let clock = Clock::adjustable();
        let ledger = Ledger::open(database.clone(), &settings(name), clock, Some(link)).await.expect("a ledger");
        let kept = ledger.clone();
        let keeper = tokio::spawn(async move { kept.keep(None).await });
        Self { ledger, database, keeper, stop }
    }

    /// Ends the node as a kill does, after its last write is on disk.
    async fn stop(self) {
        self.keeper.abort();
        self.stop.cancel();
        self.database.close().await;
    }

    /// Books a bank call with an unknown outcome. `id` is the record in its answer; `None` means that the answer was
    /// lost.
    async fn calls(&self, id: Option<&str>, reference: Option<&str>) {
        let account = account();
        let reference = reference.map(|text| (&account, text));
        let booking = self.ledger.book(&team(), RouteName::Bank, None, reference).await.expect("a booking");
        booking.settle(&account, &ChargeOutcome { outcome: Outcome::Unknown, id: id.map(str::to_owned) });
        self.ledger.settled().await.expect("a write");
    }

    async fn is_told(&self, id: &str) {
        self.ledger.settle(&account(), id, Outcome::Billable);
        self.ledger.settled().await.expect("a write");
    }

    /// Returns the billable and the unknown calls of all nodes.
    async fn books(&self) -> (u64, u64) {
        let days = Selection::days("2000-01-01".parse().expect("a day"), "2999-12-31".parse().expect("a day"));
        let rows = self.ledger.statement(days).await.expect("books").rows;
        rows.iter()
            .fold((0, 0), |(billable, unknown), row| (billable + row.counts.billable, unknown + row.counts.unknown))
    }

    async fn becomes(&self, expected: (u64, u64)) {
        let mut last = (0, 0);
        let waits = async {
            while last != expected {
                last = self.books().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waits).await;
        assert!(in_time.is_ok(), "{last:?} instead of {expected:?}");
    }
}

/// Waits until Redis has exactly this number of reported outcomes.
async fn has_reports(redis: &Redis, expected: u64) {
    let (keys, mut last) = (names(), 0);
    let waits = async {
        while last != expected {
            last = redis.ask(cmd("ZCARD").arg(keys.ledger_report_times()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waits).await;
    assert!(in_time.is_ok(), "{last} reports instead of {expected}");
}

/// Waits until Redis has a key of this pattern.
async fn has_key(redis: &Redis, pattern: &str) {
    let waits = async {
        while redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg(pattern)).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waits).await.is_ok(), "no key {pattern}");
}

/// The number of reported outcomes of a busy hour. No list of messages between nodes keeps that many.
const MANY: u64 = 10_500;

#[tokio::test]
async fn a_report_waits_for_the_node_of_its_call_however_many_others_arrive_meanwhile() {
    let (redis, [first, second]) = (Redis::start().await, [(); 2].map(|()| tempfile::tempdir().expect("a folder")));
    let down = Node::start(&first, "a", &redis).await;
    down.calls(Some("x"), Some("r")).await;
    down.stop().await;
    let other = Node::start(&second, "b", &redis).await;
    other.is_told("x").await;
    has_reports(&redis, 1).await;
    for number in 1..MANY {
        other.ledger.settle(&account(), &format!("another-{number}"), Outcome::Billable);
    }
    has_reports(&redis, MANY).await;
    let back = Node::start(&first, "a", &redis).await;
    back.becomes((1, 0)).await;
    // Redis deletes the reported outcome that has settled its call.
    has_reports(&redis, MANY - 1).await;
    back.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_report_outlives_a_redis_that_loses_its_newest_writes() {
    let (mut redis, [first, second]) = (Redis::start().await, [(); 2].map(|()| tempfile::tempdir().expect("a folder")));
    let down = Node::start(&first, "a", &redis).await;
    down.calls(Some("x"), Some("r")).await;
    down.calls(None, Some("s")).await;
    down.stop().await;
    let other = Node::start(&second, "b", &redis).await;
    other.is_told("x").await;
    other.ledger.settle_by_reference(&account(), "y", (RouteName::Bank, "s"), Outcome::Billable);
    has_reports(&redis, 2).await;
    // This Redis loses its data at a restart.
    redis.kill();
    redis.run().await;
    let back = Node::start(&first, "a", &redis).await;
    back.becomes((2, 0)).await;
    has_reports(&redis, 0).await;
    back.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_report_settles_one_call_though_another_one_with_the_reference_is_lost() {
    let (redis, [first, second]) = (Redis::start().await, [(); 2].map(|()| tempfile::tempdir().expect("a folder")));
    let down = Node::start(&first, "a", &redis).await;
    down.calls(Some("x"), Some("r")).await;
    down.stop().await;
    let other = Node::start(&second, "b", &redis).await;
    other.ledger.settle_by_reference(&account(), "x", (RouteName::Bank, "r"), Outcome::Billable);
    // After a while the report may also settle a lost call with the reference.
    has_key(&redis, "*ledger:said:*").await;
    // The record's own call uses the report. A lost call that comes later finds none.
    let back = Node::start(&first, "a", &redis).await;
    back.becomes((1, 0)).await;
    has_reports(&redis, 0).await;
    other.calls(None, Some("r")).await;
    has_key(&redis, "*ledger:lost:*").await;
    assert_eq!(redis.ask::<u64>(cmd("XLEN").arg(names().ledger_settlements())), 0, "nothing was given to it");
    other.becomes((1, 1)).await;
    back.stop().await;
    other.stop().await;
}
