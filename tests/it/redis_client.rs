//! Tests of the Redis client with a real Redis: the client is down while the server fails, and connects again
//! afterwards.

use crate::support::{PATIENCE, Redis};
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::RedisTarget;
use iluma_gateway::redis::{Budget, KeySpace, RedisClient, RedisFailure};
use redis::cmd;
use tokio_util::sync::CancellationToken;

fn names() -> KeySpace {
    KeySpace::new(&[1; 32])
}

/// A Redis client whose background tasks keep its connections. They end when this is dropped.
struct Kept {
    link: RedisClient,
    stop: CancellationToken,
}

impl Kept {
    fn new(redis: &Redis) -> Self {
        let target = RedisTarget::of_url("state.redis.url", redis.url().into(), None);
        let link = RedisClient::new(&target, names(), &[names().changes_channel()]).expect("a URL");
        let stop = CancellationToken::new();
        link.keep(&Tasks::new(), stop.clone());
        Self { link, stop }
    }

    async fn becomes(&self, up: bool) {
        let mut watch = self.link.watch();
        let seen = tokio::time::timeout(PATIENCE, watch.wait_for(|now| *now == up)).await;
        assert!(seen.is_ok(), "the link never became {}", if up { "up" } else { "down" });
    }

    async fn get(&self, key: &str) -> Result<Option<String>, RedisFailure> {
        // A request's budget does not matter here, and the machine may be busy.
        self.link.command(&Budget::of(PATIENCE), cmd("GET").arg(key)).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_link_finds_back_to_a_server_that_was_killed_or_hung() {
    let mut redis = Redis::start().await;
    let kept = Kept::new(&redis);
    kept.becomes(true).await;
    let mut news = kept.link.listen(&names().changes_channel());
    redis.ask::<()>(cmd("SET").arg("a").arg("1"));
    assert_eq!(kept.get("a").await, Ok(Some("1".to_owned())));

    redis.kill();
    kept.becomes(false).await;
    assert_eq!(kept.get("a").await, Err(RedisFailure::Out));
    redis.run().await;
    kept.becomes(true).await;
    assert_eq!(kept.get("a").await, Ok(None));

    redis.pause();
    kept.becomes(false).await;
    redis.resume();
    kept.becomes(true).await;
    assert_eq!(kept.get("a").await, Ok(None));
    redis.ask::<i64>(cmd("PUBLISH").arg(names().changes_channel()).arg("still heard"));
    assert_eq!(news.recv().await.expect("a message"), b"still heard");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_out_and_another_type_is_not() {
    let redis = Redis::start().await;
    let kept = Kept::new(&redis);
    kept.becomes(true).await;
    redis.ask::<i64>(cmd("LPUSH").arg("list").arg("1"));
    assert_eq!(kept.get("list").await, Err(RedisFailure::Unexpected));
    assert!(kept.link.is_up());
    for (break_it, mend_it) in [
        (["REPLICAOF", "127.0.0.1", "1"].as_slice(), ["REPLICAOF", "NO", "ONE"].as_slice()),
        (&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
    ] {
        redis.ask::<()>(cmd(break_it[0]).arg(&break_it[1..]));
        kept.becomes(false).await;
        redis.ask::<()>(cmd(mend_it[0]).arg(&mend_it[1..]));
        kept.becomes(true).await;
    }
}
