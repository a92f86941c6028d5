//! Tests of the lease by which one node of several makes a call: a caller that is cancelled at any point leaves no
//! lease.

use crate::support::{PATIENCE, Redis, until};
use iluma_gateway::base::byte_size::ByteSize;
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::keyring::{EncryptionKey, Keyring};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::cache::{
    Cache, CacheSlot, L2Choice, Lease, LeaseDecision, NodeIdentity, Scope, SharedResult, Subject,
};
use iluma_gateway::config;
use iluma_gateway::redis::{Budget, KeySpace, RedisClient};
use redis::cmd;
use secrecy::SecretBox;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const ROOT: [u8; 32] = [1; 32];

/// The cache of a node on Redis. Its background tasks end when it is dropped.
struct Node {
    cache: Cache,
    stop: CancellationToken,
}

impl Node {
    async fn on(redis: &Redis, name: &str) -> Self {
        let hour = Duration::from_secs(3600);
        let settings = config::Cache {
            memory: ByteSize::mib(1),
            disk: ByteSize::kib(0),
            bank_found: hour,
            bank_need_review: hour,
            bank_not_found: hour,
            bank_stale_if_error: Duration::ZERO,
            cft_clear: hour,
            cft_match: hour,
            bank_codes: hour,
        };
        let target = config::RedisTarget::of_url("state.redis.url", redis.url().into(), None);
        let keys = KeySpace::new(&ROOT);
        let link = RedisClient::new(&target, keys.clone(), &Cache::channels(&keys)).expect("a URL");
        let key = EncryptionKey { id: "a".to_owned(), key: SecretBox::new(Box::new([2; 32])) };
        let origin = http::Uri::from_static("http://127.0.0.1:9");
        let shared = L2Choice::Redis(link.clone(), Keyring::new(&[key]), NodeIdentity { name, id: name });
        let cache = Cache::new(&settings, &origin, &ROOT, shared, Clock::system());
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        link.keep(&tasks, stop.clone());
        cache.keep(&tasks, stop.clone());
        assert_eq!(link.ready(PATIENCE).await, Ok(true));
        cache.confirm(&Budget::of(PATIENCE)).await;
        Self { cache, stop }
    }

    fn slot(&self, question: u32) -> CacheSlot {
        let account = "live".parse().expect("a name");
        self.cache.place(&Scope::shared(&account), Subject::Bank, "/v1/x", &question.to_be_bytes())
    }

    async fn claim(&self, slot: &CacheSlot) -> LeaseDecision {
        self.cache.claim(slot, None, &Budget::of(PATIENCE), PATIENCE).await
    }

    async fn lead(&self, slot: &CacheSlot) -> Lease {
        match self.claim(slot).await {
            LeaseDecision::Lead(lease) => lease,
            other => panic!("another node leads: {other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn leases(redis: &Redis) -> usize {
    redis.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg("*:lease:*")).len()
}

/// Polls a future `polls` times, and then drops it. After each poll Redis gets time to answer. Returns the future's
/// output if it was ready before; else `None`.
async fn cancelled_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        // The connection's own tasks make progress; the loop waits for nothing.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    None
}

#[tokio::test]
async fn a_claim_that_is_dropped_at_any_await_leaves_the_call_to_the_next() {
    let redis = Redis::start().await;
    let (one, other) = (Node::on(&redis, "one").await, Node::on(&redis, "other").await);
    let mut cancelled = 0;
    for polls in 0..40_usize {
        let slot = one.slot(u32::try_from(polls).expect("few"));
        match cancelled_after(polls % 20, one.claim(&slot)).await {
            Some(LeaseDecision::Lead(lease)) => drop(lease),
            Some(decision) => panic!("nobody else asked: {decision:?}"),
            None => cancelled += 1,
        }
        // The next caller leads at once, without waiting for the end of a lease.
        let began = tokio::time::Instant::now();
        drop(other.lead(&slot).await);
        assert!(began.elapsed() < Duration::from_secs(2), "after {polls} polls: {:?}", began.elapsed());
    }
    assert!(cancelled > 0, "no claim was cancelled");
    until("every lease is given back", || leases(&redis) == 0).await;
}

#[tokio::test]
async fn landing_that_is_dropped_at_any_await_ends_the_lease() {
    let redis = Redis::start().await;
    let one = Node::on(&redis, "one").await;
    let mut cancelled = 0;
    for polls in 0..20_usize {
        let slot = one.slot(1000 + u32::try_from(polls).expect("few"));
        let lease = one.lead(&slot).await;
        let result = SharedResult::Failed(1);
        cancelled += usize::from(cancelled_after(polls, lease.land(&result)).await.is_none());
    }
    assert!(cancelled > 0, "no landing was cancelled");
    until("every lease is given back", || leases(&redis) == 0).await;
}

#[tokio::test]
async fn a_lease_that_redis_gave_while_it_was_cut_off_is_given_back_once_it_answers() {
    let redis = Redis::start().await;
    let one = Node::on(&redis, "one").await;
    let slot = one.slot(2000);
    let lease = one.lead(&slot).await;
    redis.pause();
    drop(lease);
    redis.resume();
    until("the lease is given back", || leases(&redis) == 0).await;
}
