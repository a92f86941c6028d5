//! Tests of idempotency keys while processes are killed: one node alone, and two nodes on one Redis.

use super::{KEY, KTP, NIK};
use crate::support::process::{Folder, Program};
use crate::support::{Answer, Held, PATIENCE, Redis, Upstream, ask};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use iluma_gateway::base::keyring;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

async fn sent(to: SocketAddr, key: &str) -> Result<Answer, String> {
    ask("POST", format!("http://{to}{KTP}")).key(Folder::KEY).header(KEY, key).json(NIK).try_send().await
}

#[tokio::test]
async fn a_kill_between_intent_and_answer_leaves_an_unknown_outcome() {
    let held = Held::start().await;
    let folder = Folder::new(&held.url());
    let mut program = folder.run();
    let to = program.address("server").await;
    let client = tokio::spawn(async move { sent(to, "k").await });
    held.holds(1).await;
    program.signal_at_once("KILL");
    program.ended().await;
    assert!(client.await.expect("a client").is_err());
    let program = folder.run();
    let to = program.address("server").await;
    for _ in 0..2 {
        let answer = sent(to, "k").await.expect("an answer");
        assert_eq!((answer.status, answer.header("x-gateway-error")), (409, "idempotency_outcome_unknown"));
    }
    assert_eq!(held.arrived(), 1, "never a second call");
}

/// Settles the oldest call with an unknown outcome by hand.
async fn settle(admin: SocketAddr, outcome: &str) {
    let order = |method: &str, path: &str| {
        ask(method, format!("http://{admin}{path}")).header("authorization", "Bearer a-token-of-operators")
    };
    let list = order("GET", "/v1/usage/unknown").send().await.json();
    let call = &list["calls"][0];
    let body =
        json!({ "calls": [{ "node": call["node"], "number": call["number"], "outcome": outcome, "note": "bill" }] });
    let settled = order("POST", "/v1/usage/unknown/settle").json(body.to_string()).send().await;
    assert_eq!(settled.status, 200, "{}", settled.text());
}

#[tokio::test]
async fn a_settlement_by_hand_after_a_kill_frees_the_key_only_if_the_call_was_free() {
    let held = Held::start().await;
    let folder = Folder::new(&held.url());
    for (round, (outcome, is_free)) in [("not_billable", true), ("billable", false)].into_iter().enumerate() {
        let mut program = folder.run();
        let to = program.address("server").await;
        let client = tokio::spawn(async move { sent(to, outcome).await });
        held.holds(2 * round + 1).await;
        program.signal_at_once("KILL");
        program.ended().await;
        assert!(client.await.expect("a client").is_err());
        let mut program = folder.run();
        let (to, admin) = program.listening().await;
        let asked = async || sent(to, outcome).await.expect("an answer");
        assert_eq!(asked().await.header("x-gateway-error"), "idempotency_outcome_unknown", "{outcome}");
        settle(admin, outcome).await;
        if is_free {
            // The first answer is for a client that is gone.
            held.release(2);
            let freed = async {
                while asked().await.status != 200 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, freed).await.expect("the settlement frees the key");
            assert_eq!(held.arrived(), 2);
        } else {
            for _ in 0..3 {
                assert_eq!(asked().await.header("x-gateway-error"), "idempotency_outcome_unknown", "{outcome}");
            }
            assert_eq!(held.arrived(), 3);
        }
        program.signal_at_once("KILL");
        program.ended().await;
    }
}

/// Two nodes on one Redis. The test kills one of them at a time.
struct Nodes {
    folders: [Folder; 2],
    running: Mutex<[Option<SocketAddr>; 2]>,
}

impl Nodes {
    fn new(upstream: &str, redis: &Redis) -> Self {
        let folder = || {
            let folder = Folder::new(upstream).env("REDIS", &redis.url());
            let text = Folder::text(upstream).replace("[state]", "[state]\nredis = { url = { env = \"REDIS\" } }");
            folder.write("config.toml", &text);
            folder
        };
        Self { folders: [folder(), folder()], running: Mutex::default() }
    }

    async fn run(&self, number: usize) -> Program {
        let program = self.folders[number].run();
        let address = program.address("server").await;
        self.running.lock().expect("addresses")[number] = Some(address);
        program
    }

    /// Sends a request to the two nodes in turn until an answer is final, at most 200 times. Returns the final answer,
    /// else the last 409; `None` if there was neither.
    async fn ask(&self, first: usize, key: &str) -> Option<Answer> {
        let mut last = None;
        for attempt in 0..200 {
            let to = self.running.lock().expect("addresses")[(first + attempt) % 2];
            let answer = match to {
                Some(to) => sent(to, key).await.ok(),
                None => None,
            };
            // On a busy machine Redis may answer a node too late. The node then answers 503 and sends nothing.
            let is_final = |answer: &Answer| {
                !["idempotency_in_flight", "idempotency_unavailable"].contains(&answer.header("x-gateway-error"))
            };
            if answer.as_ref().is_some_and(is_final) {
                return answer;
            }
            last = answer.filter(|answer| answer.status == 409).or(last);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        last
    }
}

/// Starts an Iluma that answers slowly, and counts its calls.
async fn slow(calls: &Arc<AtomicUsize>) -> Upstream {
    let calls = Arc::clone(calls);
    Upstream::on_connection(move |stream| {
        let calls = Arc::clone(&calls);
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let calls = Arc::clone(&calls);
            async move {
                let _ = http_body_util::BodyExt::collect(request.into_body()).await;
                let number = calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(150)).await;
                let body = format!("{{\"status\":\"FOUND\",\"number\":{number}}}");
                let response = Response::builder().header("content-type", "application/json");
                Ok::<_, std::convert::Infallible>(response.body(Full::new(Bytes::from(body))).expect("an answer"))
            }
        });
        async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
    })
    .await
}

/// Sends 200 requests with one key to two nodes, and kills the node `killed` meanwhile. Returns the answers.
async fn round(nodes: &Arc<Nodes>, key: &str, killed: Option<(usize, Program)>) -> Vec<Answer> {
    let mut clients = JoinSet::new();
    for number in 0..200 {
        let (nodes, key) = (Arc::clone(nodes), key.to_owned());
        clients.spawn(async move { nodes.ask(number, &key).await });
    }
    if let Some((number, mut program)) = killed {
        // The sleep waits for nothing: it makes the moment of the kill random.
        let [moment] = keyring::random::<1>();
        tokio::time::sleep(Duration::from_millis(u64::from(moment))).await;
        nodes.running.lock().expect("addresses")[number] = None;
        program.signal_at_once("KILL");
        program.ended().await;
    }
    clients.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_retries_over_two_nodes_make_one_call_although_nodes_are_killed() {
    let (redis, calls) = (Redis::start().await, Arc::new(AtomicUsize::new(0)));
    let upstream = slow(&calls).await;
    let nodes = Arc::new(Nodes::new(&upstream.url(), &redis));
    let mut programs = [Some(nodes.run(0).await), Some(nodes.run(1).await)];
    let answers = round(&nodes, "calm", None).await;
    assert_eq!((answers.len(), calls.load(Ordering::SeqCst)), (200, 1));
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body), "equal answers");
    for kill in 0..4 {
        let (before, number) = (calls.load(Ordering::SeqCst), kill % 2);
        let program = programs[number].take().expect("a running node");
        let answers = round(&nodes, &format!("kill-{kill}"), Some((number, program))).await;
        let made = calls.load(Ordering::SeqCst) - before;
        assert!(made <= 1, "{made} calls for one key");
        let good: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        let conflicts = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!(good.len() + conflicts, answers.len(), "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
        assert!(good.iter().all(|answer| answer.body == good[0].body), "equal answers");
        println!("kill {kill}: {made} call, {} equal answers, {conflicts} conflicts", good.len());
        programs[number] = Some(nodes.run(number).await);
    }
}
