//! Limits that several nodes enforce together, in Redis.
//!
//! Invariants:
//! - Each decision is one script, on Redis' own time, so the nodes' clocks do not matter.
//! - A node's demand and counts expire, or the node's next message replaces them. So a dead node holds nothing for
//!   long, and a repeated message counts once.
//! - While Redis is out, a node takes its part of each limit, by the last known number of nodes, and reports its use
//!   afterwards.

use super::backoff::{JITTER, Refused};
use super::meter::{Amounts, Bounds, Meter};
use crate::base::calendar::Day;
use crate::base::name::{AccountName, TenantName};
use crate::redis::{Budget, Channel, KeySpace, RedisClient, RedisKey, scripts::limit as scripts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;

/// The timeout of a query for slots. All waiting requests wait together for the query.
const QUERY_TIMEOUT: Duration = Duration::from_millis(50);
/// The timeout of a report to other nodes. No request waits for a report.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest time that a node may hold a probe. After this time another node may probe. It is as long as the default
/// of `upstream.timeout`.
const LONGEST_PROBE: Duration = Duration::from_secs(30);

/// The nodes that enforce limits together. Clones share the connection to Redis.
#[derive(Clone, Debug)]
pub struct Nodes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    redis: RedisClient,
    /// The identity of this node, which stays the same while its database exists.
    node: String,
    /// The number of nodes, including this one, that were alive at the last heartbeat.
    alive: AtomicU32,
}

/// News of endpoints that begin to refuse calls, or to accept them again.
#[derive(Debug)]
pub struct BackoffNews(broadcast::Receiver<Vec<u8>>);

/// The accounts whose endpoints began to refuse calls or to accept them again: one account by its name, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    One(Vec<u8>),
    /// News was missed: it may be about any account.
    Any,
}

impl BackoffNews {
    /// Returns the next news; `None` once no more news can come.
    pub(super) async fn next(&mut self) -> Option<Changed> {
        match self.0.recv().await {
            Ok(account) => Some(Changed::One(account)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Changed::Any),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// A team's demand for an account's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) tenant: TenantName,
    pub(super) weight: u32,
    pub(super) count: usize,
}

/// The answer of Redis to a node's demand for slots.
#[derive(Debug)]
pub(super) struct Given {
    /// The tenants that get slots now, each with the number of its slots.
    pub(super) turns: Vec<(TenantName, u32)>,
    /// The time after which to ask again.
    pub(super) wait: Duration,
    /// The demand of all nodes, as a multiple of this node's demand.
    pub(super) crowd: f64,
}

/// The amounts that one node has counted for a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mine {
    /// A number that grows with every change. Redis ignores a message with an older number.
    pub(super) version: u64,
    pub(super) amounts: Amounts,
}

/// A report of this node's amounts on a day, and the bounds for all nodes together. If it reserves a call, the amounts
/// include the call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) day: Day,
    pub(super) mine: Mine,
    pub(super) bounds: Bounds,
}

/// An endpoint that refuses calls, with the back-off that all nodes share: its step, and the time that is left of its
/// wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) endpoint: String,
    pub(super) step: u32,
    pub(super) left: Duration,
}

/// The answer to a node that asks for an endpoint's probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// The endpoint accepts calls again.
    Free,
    /// The node may send the probe.
    Granted,
    /// The endpoint still backs off, or another node probes. `left` is the time after which to ask again.
    Wait { step: u32, left: Duration },
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Nodes {
    /// Makes the group of nodes that share this Redis; `node` is this node's identity.
    #[must_use]
    pub fn new(redis: RedisClient, node: &str) -> Self {
        Self(Arc::new(Shared { redis, node: node.to_owned(), alive: AtomicU32::new(1) }))
    }

    /// Returns the channels to which the Redis client of the nodes must listen.
    #[must_use]
    pub fn channels(keys: &KeySpace) -> Vec<Channel> {
        vec![keys.backoff_channel()]
    }

    /// Returns a receiver of news, from now on, about endpoints that begin to refuse calls or to accept them again.
    ///
    /// # Panics
    /// Panics if the client does not listen to the [channels](Self::channels): a programming error.
    #[must_use]
    pub fn news(&self) -> BackoffNews {
        BackoffNews(self.0.redis.listen(&self.0.redis.keys().backoff_channel()))
    }

    /// Returns the number of live nodes that this node knows, including itself.
    pub(super) fn alive(&self) -> u32 {
        self.0.alive.load(Ordering::Relaxed).max(1)
    }

    /// Asks Redis for slots of an account, whose rate has this number of slots per second and this burst. `resumed` is
    /// true if the last slots were granted without Redis. Returns `None` while Redis is out.
    pub(super) async fn turns(
        &self,
        account: &AccountName,
        (per_second, burst): (u32, u32),
        wants: &[Want],
        resumed: bool,
    ) -> Option<Given> {
        let mut script = scripts::FAIR_QUEUE.key(self.turns_key(account));
        script.arg(&self.0.node).arg(per_second).arg(burst).arg(u8::from(resumed));
        for want in wants {
            script.arg(want.tenant.as_str()).arg(want.weight).arg(want.count);
        }
        let given: (u64, u64, u64, Vec<String>) =
            self.0.redis.script(&Budget::of(QUERY_TIMEOUT), &script).await.ok()?;
        let (wait, all, mine, turns) = given;
        let turns = turns.chunks_exact(2).filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].parse().ok()?)));
        #[allow(clippy::cast_precision_loss, reason = "numbers of waiters are far below 2^52")]
        let crowd = all as f64 / mine.max(1) as f64;
        Some(Given { turns: turns.collect(), wait: Duration::from_micros(wait), crowd: crowd.max(1.0) })
    }

    /// Returns true if Redis answers.
    pub(super) fn is_up(&self) -> bool {
        self.0.redis.is_up()
    }

    /// Gives `back` unused slots of an account back to Redis.
    pub(super) async fn correct_turns(&self, account: &AccountName, (per_second, burst): (u32, u32), back: u32) {
        let mut script = scripts::CORRECT.key(self.turns_key(account));
        script.arg(per_second).arg(burst).arg(back);
        // While Redis is out there is nothing to correct.
        let _ = self.0.redis.script::<i64>(&Budget::of(MESSAGE_TIMEOUT), &script).await;
    }

    /// Asks Redis for the right to probe an endpoint that refuses calls. Returns `None` while Redis is out.
    pub(super) async fn probe(&self, account: &AccountName, endpoint: &str, redis: &Budget) -> Option<Probe> {
        let mut script = scripts::BACKOFF.key(self.0.redis.keys().limit_backoff(account));
        script.arg("probe").arg(endpoint).arg(micros(LONGEST_PROBE));
        let (way, step, left): (u8, u32, u64) = self.0.redis.script(redis, &script).await.ok()?;
        Some(match way {
            0 => Probe::Free,
            1 => Probe::Granted,
            _ => Probe::Wait { step, left: Duration::from_micros(left) },
        })
    }

    /// Reports to the other nodes that upstream refused a call to an endpoint.
    pub(super) async fn endpoint_refused(&self, account: &AccountName, endpoint: &str, refused: Refused) {
        let mut script = scripts::BACKOFF.key(self.0.redis.keys().limit_backoff(account));
        let asked = refused.retry_after().map_or(-1, |asked| i64::try_from(micros(asked)).unwrap_or(i64::MAX));
        script.arg("refused").arg(endpoint).arg(u8::from(refused.probe.is_some())).arg(asked);
        script.arg(format!("{:.3}", 1.0 + JITTER * refused.random));
        script.arg(self.0.redis.keys().backoff_channel()).arg(account.as_str());
        let _ = self.0.redis.script::<(u8, u32, u64)>(&Budget::of(MESSAGE_TIMEOUT), &script).await;
    }

    /// Reports to the other nodes that an endpoint's probe succeeded.
    pub(super) async fn endpoint_succeeded(&self, account: &AccountName, endpoint: &str) {
        self.say(account, "succeeded", endpoint).await;
    }

    /// Gives back a probe that ended without a result.
    pub(super) async fn release_probe(&self, account: &AccountName, endpoint: &str) {
        self.say(account, "released", endpoint).await;
    }

    async fn say(&self, account: &AccountName, order: &str, endpoint: &str) {
        let mut script = scripts::BACKOFF.key(self.0.redis.keys().limit_backoff(account));
        script.arg(order).arg(endpoint).arg(self.0.redis.keys().backoff_channel()).arg(account.as_str());
        let _ = self.0.redis.script::<(u8, u32, u64)>(&Budget::of(MESSAGE_TIMEOUT), &script).await;
    }

    /// Returns the endpoints of an account that refuse calls, as all nodes know them; `None` while Redis is out.
    pub(super) async fn refusing(&self, account: &AccountName) -> Option<Vec<Seen>> {
        let script = scripts::REFUSING.key(self.0.redis.keys().limit_backoff(account));
        let list: Vec<String> = self.0.redis.script(&Budget::of(MESSAGE_TIMEOUT), &script).await.ok()?;
        let seen = |of: &[String]| {
            let (step, left) = (of[1].parse().ok()?, Duration::from_micros(of[2].parse().ok()?));
            Some(Seen { endpoint: of[0].clone(), step, left })
        };
        Some(list.chunks_exact(3).filter_map(seen).collect())
    }

    /// Reserves a call in a tenant's quotas. Returns the amounts of the other nodes; or the meter whose bound all nodes
    /// together would exceed, as an error. Returns `None` while Redis is out.
    pub(super) async fn reserve(
        &self,
        tenant: &TenantName,
        ask: Ask,
        redis: &Budget,
    ) -> Option<Result<Amounts, Meter>> {
        let Ask { day, mine, bounds } = ask;
        let (today, month) = (day.to_string(), day.month().to_string());
        let keys = self.0.redis.keys();
        let mut script = scripts::RESERVE.key(keys.limit_quota(tenant, &today));
        script.key(keys.limit_quota(tenant, &month)).key(keys.limit_budget(tenant, &month));
        script.arg(&self.0.node).arg(mine.version);
        for (count, bound) in mine.amounts.into_iter().zip(bounds) {
            script.arg(count).arg(bound.map_or(-1, |bound| i64::try_from(bound).unwrap_or(i64::MAX)));
        }
        let (refused, others): (usize, Vec<u64>) = self.0.redis.script(redis, &script).await.ok()?;
        let refused = refused.checked_sub(1).and_then(|at| Meter::ALL.get(at).copied());
        Some(refused.map_or_else(|| Ok(others.try_into().unwrap_or_default()), Err))
    }

    /// Reports that this node is alive, with the number of each team's requests since the last heartbeat. Returns the
    /// sum of these numbers over all nodes for each team, in the same order; `None` while Redis is out.
    pub(super) async fn heartbeat(&self, asked: &[(TenantName, u64)]) -> Option<Vec<u64>> {
        let mut script = scripts::HEARTBEAT.key(self.0.redis.keys().limit_nodes());
        script.key(self.0.redis.keys().limit_asked()).arg(&self.0.node);
        for (tenant, count) in asked {
            script.arg(tenant.as_str()).arg(*count);
        }
        let (alive, totals): (u32, Vec<u64>) = self.0.redis.script(&Budget::of(MESSAGE_TIMEOUT), &script).await.ok()?;
        self.0.alive.store(alive, Ordering::Relaxed);
        (totals.len() == asked.len()).then_some(totals)
    }

    /// Removes this node from the group of live nodes.
    pub(super) async fn leave(&self) {
        let mut command = redis::cmd("ZREM");
        command.arg(self.0.redis.keys().limit_nodes()).arg(&self.0.node);
        let _ = self.0.redis.command::<i64>(&Budget::of(MESSAGE_TIMEOUT), &command).await;
    }

    fn turns_key(&self, account: &AccountName) -> RedisKey {
        self.0.redis.keys().limit_queue(account)
    }
}
