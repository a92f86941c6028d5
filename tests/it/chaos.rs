//! The ledger stays true through crashes: processes are killed and restarted, connections are reset, clients hang up.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

mod open_calls;

use crate::support::process::{Folder, Program};
use crate::support::{Answer, Redis, Upstream, ask, until};
use futures_util::StreamExt as _;
use iluma_gateway::base::keyring;
use iluma_simulator::{Options, Simulator};
use open_calls::Arrivals;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const KTP: &str = "/v1/identity/ktp_name/validations";
const TOKEN: &str = "the-token-of-both-accounts";
const NODES: usize = 2;
const CLIENTS: u64 = 12;

/// A team with an account of its own, so that Iluma's count by key is the team's.
struct Team {
    name: &'static str,
    key: &'static str,
    /// The prefix of the simulator's name for the account's key.
    counted_as: &'static str,
    /// The number of complete answers with status 200 that clients got. Iluma charges for each of these calls.
    seen: AtomicU64,
    /// The ids in the answers to bank requests.
    ids: Mutex<Vec<String>>,
}

/// The running parts of the test.
struct Stage {
    teams: [Team; 2],
    nodes: Mutex<[Option<Addresses>; NODES]>,
    over: AtomicBool,
    next: AtomicU64,
    arrivals: Arrivals,
}

#[derive(Clone, Copy)]
struct Addresses {
    /// The node's number.
    number: usize,
    server: SocketAddr,
    callbacks: SocketAddr,
    admin: SocketAddr,
}

impl Stage {
    fn new() -> Self {
        let team =
            |name, key, counted_as| Team { name, key, counted_as, seen: AtomicU64::new(0), ids: Mutex::default() };
        Self {
            teams: [team("lending", Folder::KEY, "live-"), team("payments", "a-key-of-payments", "other-")],
            nodes: Mutex::default(),
            over: AtomicBool::new(false),
            next: AtomicU64::new(0),
            arrivals: Arrivals::default(),
        }
    }

    /// Returns a random node of those that serve, as a load balancer would; `None` if no node serves.
    fn node(&self) -> Option<Addresses> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let alive: Vec<_> = nodes.iter().flatten().copied().collect();
        alive.get(below(alive.len() as u64) as usize).copied()
    }

    fn set(&self, node: usize, addresses: Option<Addresses>) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)[node] = addresses;
    }

    /// Runs one client until the test is over. It sends new requests one after the other, some with a random fault.
    async fn client(self: Arc<Self>, number: u64) {
        let team = &self.teams[number as usize % self.teams.len()];
        while !self.over.load(Ordering::SeqCst) {
            let Some(node) = self.node() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            let bank = below(2) == 0;
            let (path, body) = if bank {
                (
                    BANK,
                    format!(
                        r#"{{"bank_account_number":"{}11","bank_code":"BCA","reference_id":"r{n}"}}"#,
                        10_000_000 + n
                    ),
                )
            } else {
                (KTP, format!(r#"{{"nik":"31{n:012}02","name":"X"}}"#))
            };
            let mut request = ask("POST", format!("http://{}{path}", node.server)).key(team.key).json(body);
            let faults = ["reset", "truncate", "hang", "latency=20ms", "status=503", "garbage"];
            if let Some(fault) = faults.get(below(30) as usize) {
                request = request.header("x-sim-fault", fault);
            }
            // An impatient client hangs up.
            let patience = Duration::from_millis(if below(10) == 0 { below(20) } else { 10_000 });
            if let Ok(Ok(answer)) = tokio::time::timeout(patience, request.try_send()).await {
                team.sees(&answer, bank);
            }
            let id = team.ids.lock().expect("ids").last().cloned();
            if let (Some(id), 0) = (id, below(5)) {
                // Possibly no node serves at this moment.
                let _ = ask("GET", format!("http://{}{BANK}/{id}", node.server)).key(team.key).try_send().await;
            }
        }
    }

    /// Returns a team's billable and unknown calls on all nodes, as `node` reports them; `None` if it does not answer.
    async fn books(&self, node: Addresses, team: &Team) -> Option<(u64, u64)> {
        let usage = ask("GET", format!("http://{}/v1/usage?tenant={}", node.admin, team.name));
        let answer = usage.header("authorization", "Bearer a-token-of-operators").try_send().await.ok()?;
        let rows = answer.json();
        let sum = |name: &str| {
            rows["rows"].as_array().expect("rows").iter().map(|row| row[name].as_u64().expect("a number")).sum()
        };
        Some((sum("billable"), sum("unknown")))
    }
}

impl Team {
    fn sees(&self, answer: &Answer, bank: bool) {
        if answer.status != 200 {
            return;
        }
        // A cut-off answer does not count: it did not reach the client.
        let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return };
        self.seen.fetch_add(1, Ordering::SeqCst);
        if bank && let Some(id) = body["id"].as_str() {
            self.ids.lock().expect("ids").push(id.to_owned());
        }
    }

    /// Returns the charged calls of a team in the simulator's statistics.
    fn charged(&self, simulator: &Simulator) -> u64 {
        let keys = simulator.stats().keys;
        keys.iter().filter(|(name, _)| name.starts_with(self.counted_as)).map(|(_, stats)| stats.charged).sum()
    }
}

/// Returns a random number below `most`.
fn below(most: u64) -> u64 {
    u64::from_be_bytes(keyring::random()).checked_rem(most).unwrap_or(0)
}

/// Returns the folders of nodes with the same configuration, each with a journal of its own.
fn folders(simulator: &Simulator, redis: &Redis, door: &str) -> Vec<Folder> {
    let text = Folder::text(&simulator.url())
        .replace("[state]", "[state]\nredis = { url = { env = \"REDIS\" } }")
        .replace("[callbacks]", &format!("[callbacks]\npublic_url = \"{door}\""))
        .replace("[state]", "connect_timeout = \"1s\"\ntimeout = \"400ms\"\n[state]")
        .replace("[accounts.live]", "[accounts.live]\ncallback_token = { env = \"CALLBACK\" }")
        + &format!(
            "[accounts.other]\napi_key = {{ env = \"OTHER\" }}\ncallback_token = {{ env = \"CALLBACK\" }}\n\
             [tenants.payments]\naccount = \"other\"\nkey_sha256 = [\"{}\"]\n",
            Folder::hash("a-key-of-payments")
        );
    let folder = || {
        let folder = Folder::new(&simulator.url())
            .env("REDIS", &redis.url())
            .env("CALLBACK", TOKEN)
            .env("OTHER", "the-key-of-another-account");
        folder.write("config.toml", &text);
        folder
    };
    (0..NODES).map(|_| folder()).collect()
}

async fn started(number: usize, folder: &Folder) -> (Program, Addresses) {
    let program = folder.run();
    let (server, admin) = program.listening().await;
    let callbacks = program.address("callbacks").await;
    (program, Addresses { number, server, callbacks, admin })
}

/// Starts the address at which Iluma's callbacks arrive; it forwards them to a node that serves.
async fn door(stage: &Arc<Stage>) -> Upstream {
    let stage = Arc::clone(stage);
    Upstream::on_connection(move |mut stream| {
        let stage = Arc::clone(&stage);
        async move {
            let Some(node) = stage.node() else { return };
            let Ok(mut target) = TcpStream::connect(node.callbacks).await else { return };
            let ((mut from, mut to), (mut answers, mut callbacks)) = (stream.split(), target.split());
            let there = async {
                let (mut piece, mut seen) = ([0; 8192], Vec::new());
                while let Ok(read @ 1..) = from.read(&mut piece).await {
                    seen.extend_from_slice(&piece[..read]);
                    stage.arrivals.note(node, &mut seen);
                    if callbacks.write_all(&piece[..read]).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = there => {}
                _ = tokio::io::copy(&mut answers, &mut to) => {}
            }
        }
    })
    .await
}

/// Waits until the ledger has every bank call that Iluma counted as charged. Its answer or its callback reports such a
/// call, by the record's id or by the reference. So only calls that never reached Iluma stay unknown.
async fn is_exact(stage: &Stage, simulator: &Simulator, folders: &[Folder], redis: &Redis) {
    let node = stage.node().expect("a node");
    let charged = simulator.stats().routes["bank"].charged;
    let mut last = 0;
    let exact = async {
        while last != charged {
            let usage = ask("GET", format!("http://{}/v1/usage", node.admin));
            let usage = usage.header("authorization", "Bearer a-token-of-operators").send().await.json();
            let bank = usage["rows"].as_array().expect("rows").iter().filter(|row| row["route"] == "bank");
            last = bank.map(|row| row["billable"].as_u64().expect("a number")).sum();
            assert!(last <= charged, "bank: {last} billable, Iluma counted {charged}");
        }
    };
    // Another node takes over the callbacks of a killed node after 30 s.
    let in_time = tokio::time::timeout(Duration::from_secs(60), exact).await;
    let open = || stage.arrivals.open_calls(folders, redis);
    assert!(in_time.is_ok(), "bank: {last} billable, Iluma counted {charged}; open calls:\n{}", open());
}

/// Kills one node after the other, while clients send requests and callbacks arrive.
async fn chaos(time: Duration) {
    let options = Options {
        keys: vec!["iluma_live_0123456789".into(), "the-key-of-another-account".into()],
        callback_delay: Duration::from_millis(50),
        callback_retry: Duration::from_millis(50),
        callback_retry_max: Duration::from_secs(1),
        // No callback is lost, however long nodes and Redis are away.
        callback_attempts: 1000,
        callback_token: Some(TOKEN.into()),
        latency: Duration::from_millis(2),
        ..Options::default()
    };
    let simulator = Simulator::start(([127, 0, 0, 1], 0).into(), options).await.expect("a simulator");
    let mut redis = Redis::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await;
    let stage = Arc::new(Stage::new());
    let door = door(&stage).await;
    let folders = folders(&simulator, &redis, &door.url());
    let mut programs = Vec::new();
    for (node, folder) in folders.iter().enumerate() {
        let (program, addresses) = started(node, folder).await;
        stage.set(node, Some(addresses));
        programs.push(program);
    }
    let registered = folders[0].once("register-callbacks").await;
    assert_eq!(registered.code, Some(0), "{registered:?}");
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(Arc::clone(&stage).client(number));
    }

    let end = tokio::time::Instant::now() + time;
    let mut kills = [0; NODES + 1];
    while tokio::time::Instant::now() < end || kills.contains(&0) {
        // The sleep waits for nothing: it makes the moment of the kill random.
        tokio::time::sleep(Duration::from_millis(200 + below(800))).await;
        // Each node and Redis is killed once; after that chance decides.
        let missed = kills.iter().position(|kills| *kills == 0);
        let kind = missed.unwrap_or_else(|| below(NODES as u64 + 1) as usize);
        kills[kind] += 1;
        match kind {
            node @ ..NODES => {
                stage.set(node, None);
                programs[node].signal_at_once("KILL");
                programs[node].ended().await;
                let (program, addresses) = started(node, &folders[node]).await;
                programs[node] = program;
                stage.set(node, Some(addresses));
            }
            _ => {
                redis.kill();
                tokio::time::sleep(Duration::from_millis(below(700))).await;
                redis.run().await;
            }
        }
        // Iluma counts a call before the ledger counts it as billable.
        let node = stage.node().expect("a node");
        for team in &stage.teams {
            if let Some((billable, _)) = stage.books(node, team).await {
                let charged = team.charged(&simulator);
                assert!(billable <= charged, "{}: {billable} <= {charged}", team.name);
            }
        }
    }

    stage.over.store(true, Ordering::SeqCst);
    while clients.join_next().await.is_some() {}
    until("Iluma has nothing in hand", || simulator.stats().in_flight == 0).await;
    for team in &stage.teams {
        let ids = std::mem::take(&mut *team.ids.lock().expect("ids"));
        let look = async |id: String| {
            let node = stage.node().expect("a node");
            let answer = ask("GET", format!("http://{}{BANK}/{id}", node.server)).key(team.key).send().await;
            assert_eq!(answer.status, 200, "{}: {}", team.name, answer.text());
        };
        futures_util::stream::iter(ids).for_each_concurrent(CLIENTS as usize, look).await;
        let (seen, charged) = (team.seen.load(Ordering::SeqCst), team.charged(&simulator));
        let mut last = (0, 0);
        let settled = async {
            loop {
                let mut books = Vec::new();
                for node in 0..NODES {
                    let addresses = stage.nodes.lock().expect("nodes")[node].expect("a node");
                    books.push(stage.books(addresses, team).await.expect("an answer"));
                }
                last = books[0];
                // Both nodes report the same figures, and every call with a seen answer is settled.
                if books.iter().all(|books| *books == last) && last.0 >= seen {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), settled).await;
        let (billable, unknown) = last;
        let figures = format!("{}: {seen} seen, {billable} billable, {unknown} unknown; Iluma: {charged}", team.name);
        println!("{figures}; kills of each node and of Redis: {kills:?}");
        assert!(in_time.is_ok(), "{figures}");
        assert!(billable <= charged && charged <= billable + unknown, "{figures}");
        assert!(seen > 0 && unknown > 0, "{figures}");
    }
    is_exact(&stage, &simulator, &folders, &redis).await;
    drop(programs);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_resets_and_hang_ups_the_books_hold_what_iluma_counted() {
    chaos(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: tests/run --long runs it"]
async fn after_five_minutes_of_kills_the_books_still_do() {
    chaos(Duration::from_secs(300)).await;
}
