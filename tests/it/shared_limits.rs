//! Tests of limits that several nodes enforce together through one Redis.

#![allow(clippy::disallowed_methods, reason = "rates are about real time, and a test's tasks end with it")]

use crate::support::{PATIENCE, Redis, until};
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::Limit;
use iluma_gateway::config::{RedisTarget, Settings};
use iluma_gateway::limit::{Call, Endpoint, Limits, Nodes, Refusal};
use iluma_gateway::redis::{Budget, KeySpace, RedisClient};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn endpoint() -> Endpoint {
    "POST /x".into()
}

const fn charged(endpoint: &Endpoint) -> Call<'_> {
    Call { endpoint, price: Some(500) }
}

/// A node's limits, and the tasks that keep them.
struct Node {
    limits: Arc<Limits>,
    link: RedisClient,
    clock: Clock,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn settings(account: &str, teams: &[(&str, &str)]) -> Settings {
    let mut text = format!(
        "[state]\nroot_key = {{ env = \"ROOT\" }}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"K\" }} }}]\n\
         [accounts.live]\napi_key = {{ env = \"K\" }}\n{account}\n"
    );
    for (at, (name, lines)) in teams.iter().enumerate() {
        text.push_str(&format!("[tenants.{name}]\naccount = \"live\"\nkey_sha256 = [\"{at:064x}\"]\n{lines}\n"));
    }
    Settings::parse(&text, Path::new("."), &|name| Some(if name == "ROOT" { "cd" } else { "ab" }.repeat(32)))
        .expect("settings")
}

async fn node(redis: &Redis, name: &str, settings: &Settings) -> Node {
    let (clock, tasks, stop) = (Clock::adjustable(), Tasks::new(), CancellationToken::new());
    let target = RedisTarget::of_url("state.redis.url", SecretString::from(redis.url()), None);
    let keys = KeySpace::new(&[7; 32]);
    let link = RedisClient::new(&target, keys.clone(), &Nodes::channels(&keys)).expect("a URL");
    link.keep(&tasks, stop.clone());
    until("Redis", || link.is_up()).await;
    let nodes = Nodes::new(link.clone(), name);
    let limits = Arc::new(Limits::new(settings, None, &clock, &tasks, Some(&nodes)));
    limits.heartbeat().await;
    Node { limits, link, clock, stop }
}

async fn three(redis: &Redis, settings: &Settings) -> [Node; 3] {
    let nodes = [node(redis, "a", settings).await, node(redis, "b", settings).await, node(redis, "c", settings).await];
    for node in &nodes {
        node.limits.heartbeat().await;
    }
    nodes
}

/// Makes calls until `time` has passed. Each item of `load` is a node, the index of a team, and the number of the
/// team's concurrent calls at the node. Returns the times at which each team's calls were admitted.
async fn overload(load: &[(&Node, usize, usize)], time: Duration) -> BTreeMap<usize, Vec<Instant>> {
    let admitted: Arc<Mutex<BTreeMap<usize, Vec<Instant>>>> = Arc::default();
    let end = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for (node, team, at_once) in load {
        for _ in 0..*at_once {
            let (limits, admitted, team) = (Arc::clone(&node.limits), Arc::clone(&admitted), *team);
            tasks.spawn(async move {
                while Instant::now() < end {
                    match limits.admit_call(team, charged(&endpoint()), &Budget::of(PATIENCE)).await {
                        Ok(mut permit) => {
                            permit.sent();
                            admitted.lock().expect("a list").entry(team).or_default().push(Instant::now());
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            });
        }
    }
    while tasks.join_next().await.is_some() {}
    let admitted = std::mem::take(&mut *admitted.lock().expect("a list"));
    admitted.into_iter().map(|(team, at)| (team, at.into_iter().filter(|at| *at <= end).collect())).collect()
}

fn count(admitted: &BTreeMap<usize, Vec<Instant>>) -> usize {
    admitted.values().map(Vec::len).sum()
}

/// Returns the largest number of admissions within any time span of this length.
fn most_in(admitted: &BTreeMap<usize, Vec<Instant>>, span: Duration) -> usize {
    let mut all: Vec<_> = admitted.values().flatten().copied().collect();
    all.sort();
    let within = |from: Instant| all.iter().filter(|at| **at >= from && **at < from + span).count();
    all.iter().map(|from| within(*from)).max().unwrap_or(0)
}

async fn three_nodes_send_what_one_may(seconds: u64) {
    let redis = Redis::start().await;
    let settings = settings("requests_per_second = 50\nmax_wait = \"500ms\"", &[("lending", ""), ("payments", "")]);
    let nodes = three(&redis, &settings).await;
    // The clocks of nodes do not matter.
    nodes[1].clock.advance(Duration::from_secs(30));
    nodes[2].clock.advance(Duration::from_secs(60));
    let load = [(&nodes[0], 0, 30), (&nodes[1], 0, 20), (&nodes[1], 1, 20), (&nodes[2], 1, 30)];
    let admitted = overload(&load, Duration::from_secs(seconds)).await;
    let (sent, allowed) = (count(&admitted) as f64, 50.0 * seconds as f64);
    println!("{sent} of {allowed}; at most {} in a second", most_in(&admitted, Duration::from_secs(1)));
    // The initial content of the bucket is added.
    assert!(sent <= allowed * 1.02 + 5.0 && sent >= allowed * 0.98, "{sent} of {allowed}");
    // A busy machine may delay a few calls for a moment, and admit them together.
    assert!(most_in(&admitted, Duration::from_secs(1)) <= 50 + 5 + 8);
    for team in [0, 1] {
        let share = admitted[&team].len() as f64 / sent;
        assert!((share - 0.5).abs() <= 0.05, "{share}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_send_what_one_may_for_some_seconds() {
    three_nodes_send_what_one_may(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn three_nodes_send_what_one_may_for_a_minute() {
    three_nodes_send_what_one_may(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_team_at_one_node_takes_nothing_of_another_teams_share_at_another_node() {
    let redis = Redis::start().await;
    let settings = settings(
        "requests_per_second = 40\nmax_wait = \"2s\"",
        &[("greedy", ""), ("small", ""), ("weighty", "weight = 2")],
    );
    let nodes = three(&redis, &settings).await;
    let load = [(&nodes[0], 0, 60), (&nodes[1], 1, 12), (&nodes[2], 2, 24)];
    // The nodes learn within a second which team makes calls at which node.
    overload(&load, Duration::from_secs(1)).await;
    let admitted = overload(&load, Duration::from_secs(4)).await;
    let sent = count(&admitted) as f64;
    assert!((140.0..=170.0).contains(&sent), "{sent}");
    for (team, share) in [(0, 0.25), (1, 0.25), (2, 0.5)] {
        let got = admitted[&team].len() as f64 / sent;
        assert!((got - share).abs() <= 0.05, "{team} got {got}, not {share}");
    }
    // The greedy team gets the whole rate if the other teams are idle.
    let admitted = overload(&[(&nodes[0], 0, 60)], Duration::from_secs(2)).await;
    assert!((70..=90).contains(&count(&admitted)), "{}", count(&admitted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_out_each_node_takes_its_part_and_afterwards_none_more() {
    let redis = Redis::start().await;
    let settings = settings("requests_per_second = 60\nmax_wait = \"500ms\"", &[("lending", "")]);
    let nodes = three(&redis, &settings).await;
    let load = [(&nodes[0], 0, 30), (&nodes[1], 0, 30), (&nodes[2], 0, 30)];
    redis.pause();
    // The first call makes the node notice that Redis is out.
    for node in &nodes {
        let _ = node.limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await;
        assert!(!node.link.is_up());
    }
    let admitted = overload(&load, Duration::from_secs(3)).await;
    let sent = count(&admitted);
    assert!((160..=198).contains(&sent), "{sent} of 180");
    redis.resume();
    for node in &nodes {
        until("Redis again", || node.link.is_up()).await;
    }
    let admitted = overload(&load, Duration::from_secs(2)).await;
    let sent = count(&admitted);
    assert!((110..=130).contains(&sent), "{sent} of 120");
    assert!(most_in(&admitted, Duration::from_millis(500)) <= 30 + 6 + 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_exact_over_nodes_and_restarts_of_redis() {
    let mut redis = Redis::start().await;
    let settings = settings("", &[("lending", "upstream_calls_per_day = 100")]);
    let nodes = three(&redis, &settings).await;
    let ask = |node: &Node, count: usize| {
        let limits = Arc::clone(&node.limits);
        async move {
            let one = || async {
                match limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await {
                    Ok(mut permit) => {
                        permit.sent();
                        true
                    }
                    Err(Refusal::Exceeded { limit: Limit::QuotaDay, quota: 100, .. }) => false,
                    Err(other) => panic!("{other:?}"),
                }
            };
            let all = futures_util::future::join_all((0..count).map(|_| one())).await;
            all.into_iter().filter(|passed| *passed).count()
        }
    };
    let (a, b, c) = tokio::join!(ask(&nodes[0], 20), ask(&nodes[1], 10), ask(&nodes[2], 10));
    assert_eq!((a, b, c), (20, 10, 10));
    // A permit that is dropped unused is given back to the quota, on every node.
    drop(nodes[0].limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await.expect("a permit"));
    // A Redis that lost its data gets the figures from the nodes again.
    redis.kill();
    redis.run().await;
    for node in &nodes {
        let _ = node.limits.admit_call(0, Call { price: None, ..charged(&endpoint()) }, &Budget::of(PATIENCE)).await;
        until("Redis again", || node.link.is_up()).await;
        node.limits.heartbeat().await;
    }
    let (a, b, c) = tokio::join!(ask(&nodes[0], 70), ask(&nodes[1], 70), ask(&nodes[2], 60));
    assert_eq!(a + b + c, 60);
    for node in &nodes {
        node.limits.heartbeat().await;
        assert_eq!(node.limits.quotas(0).expect("a team")[0].used, 100);
    }
}

/// Polls `future` this number of times, and then drops it. Returns its output if it was ready before; else `None`.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left == 0 => Poll::Ready(None),
            poll => poll.map(Some),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_at_any_await_point_counts_at_no_node() {
    let redis = Redis::start().await;
    let settings =
        settings("requests_per_second = 200\nmax_wait = \"5s\"", &[("lending", "upstream_calls_per_day = 3")]);
    let nodes = three(&redis, &settings).await;
    let mut polls = 0;
    loop {
        let budget = Budget::of(PATIENCE);
        let endpoint = endpoint();
        let call = nodes[0].limits.admit_call(0, charged(&endpoint), &budget);
        let over = dropped_after(polls, call).await;
        let used = nodes[0].limits.quotas(0).expect("a team")[0].used;
        match over {
            // The future ended with a permit, which still counts for the quota.
            Some(permit) => {
                permit.expect("a permit");
                break;
            }
            None => assert_eq!(used, 0, "dropped after {polls} polls"),
        }
        polls += 1;
    }
    assert!(polls >= 2, "the call waits for the count and for its slot");
    for node in &nodes {
        node.limits.heartbeat().await;
        assert_eq!(node.limits.quotas(0).expect("a team")[0].used, 0, "whatever Redis was told meanwhile");
    }
    for node in &nodes {
        node.limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await.expect("one of three").sent();
    }
    let refused = nodes[0]
        .limits
        .admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE))
        .await
        .map(drop)
        .expect_err("no fourth");
    assert!(matches!(refused, Refusal::Exceeded { limit: Limit::QuotaDay, quota: 3, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_out_a_quota_is_divided_and_never_exceeded() {
    let redis = Redis::start().await;
    let settings = settings("", &[("lending", "upstream_calls_per_day = 100")]);
    let nodes = three(&redis, &settings).await;
    for _ in 0..10 {
        nodes[0].limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await.expect("a permit").sent();
    }
    for node in &nodes {
        node.limits.heartbeat().await;
    }
    redis.pause();
    let mut passed = 0;
    for node in &nodes {
        for _ in 0..50 {
            if let Ok(mut permit) = node.limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await {
                permit.sent();
                passed += 1;
            }
        }
    }
    assert_eq!(passed, 90, "thirty each");
    redis.resume();
    for node in &nodes {
        until("Redis again", || node.link.is_up()).await;
        node.limits.heartbeat().await;
    }
    for node in &nodes {
        assert!(node.limits.admit_call(0, charged(&endpoint()), &Budget::of(PATIENCE)).await.is_err());
    }
}

#[tokio::test]
async fn a_teams_requests_are_shared_out_by_what_the_nodes_see() {
    let redis = Redis::start().await;
    let settings = settings("", &[("lending", "requests_per_second = 60\nburst = 6")]);
    let nodes = three(&redis, &settings).await;
    // The test moves the time. One node has a high demand, one a lower demand, and one none.
    let mut passed = [0_u32; 3];
    for second in 0..10 {
        for _ in 0..100 {
            for (node, (asks, passed)) in nodes.iter().zip([3, 1].into_iter().chain([0]).zip(&mut passed)) {
                node.clock.advance(Duration::from_millis(10));
                for _ in 0..asks {
                    let admitted = node.limits.admit(0).is_ok();
                    *passed += u32::from(admitted && second >= 2);
                }
            }
        }
        for node in &nodes {
            node.limits.heartbeat().await;
        }
    }
    let all: u32 = passed.iter().sum();
    assert!((432..=528).contains(&all), "{passed:?} of 480");
    assert!(passed[0] > 2 * passed[1], "{passed:?}");
}

#[tokio::test]
async fn an_endpoint_that_refuses_calls_does_so_on_every_node_at_once() {
    let redis = Redis::start().await;
    let settings = settings("max_wait = \"0s\"", &[("lending", "")]);
    let here = node(&redis, "a", &settings).await;
    let there = node(&redis, "b", &settings).await;
    // The other node must learn it from a message, without a heartbeat.
    let mut news = Nodes::new(there.link.clone(), "b").news();
    let endpoint = endpoint();
    let asked = Some(Duration::from_secs(30));
    let mut permit = here.limits.admit_call(0, charged(&endpoint), &Budget::of(PATIENCE)).await.expect("a permit");
    permit.refused(asked);
    permit.sent();
    let heard = tokio::time::timeout(PATIENCE, there.limits.hear(&mut news)).await;
    assert!(heard.expect("news"));
    let refusing = |node: &Node| -> Vec<Endpoint> {
        node.limits.backing_off(0).into_iter().map(|(endpoint, _)| endpoint).collect()
    };
    assert_eq!(refusing(&there), std::slice::from_ref(&endpoint));
    let refused = there.limits.admit_call(0, charged(&endpoint), &Budget::of(PATIENCE)).await;
    assert!(matches!(refused, Err(Refusal::BackingOff { .. })), "{refused:?}");
    // The end of a back-off is sent as a message too.
    let soon = Endpoint::from("POST /soon");
    let mut permit = here.limits.admit_call(0, charged(&soon), &Budget::of(PATIENCE)).await.expect("a permit");
    permit.refused(Some(Duration::ZERO));
    assert!(tokio::time::timeout(PATIENCE, there.limits.hear(&mut news)).await.expect("news"));
    assert!(refusing(&there).contains(&soon));
    let mut probe = here.limits.admit_call(0, charged(&soon), &Budget::of(PATIENCE)).await.expect("a probe");
    probe.succeeded();
    assert!(tokio::time::timeout(PATIENCE, there.limits.hear(&mut news)).await.expect("news"));
    assert_eq!(refusing(&there), [endpoint]);
}
