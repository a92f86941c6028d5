//! Limits that several nodes hold together, in Redis.
//!
//! Invariants: each decision is one script, on Redis' own time, so clocks of nodes do not matter; what a node wants or
//! has counted expires or is replaced by what it says next, so a node that died holds nothing for long and a message
//! that came twice counts once; while Redis is out a node takes its part of what there is, by the number of nodes that
//! it knew last, and says so afterwards.

use crate::base::calendar::Day;
use crate::base::name::{AccountName, TenantName};
use crate::redis::{Budget, RedisClient, RedisKey, scripts::limit as scripts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What asking for turns may take: those who wait for theirs wait for it together.
const ASKING: Duration = Duration::from_millis(50);
/// What telling may take, for which nobody waits.
pub(super) const TELLING: Duration = Duration::from_millis(500);

/// The other nodes, as one of them sees them. Clones share it.
#[derive(Clone, Debug)]
pub struct Nodes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: RedisClient,
    /// This node, for as long as its database lives.
    node: String,
    /// Nodes that were alive at the last beat, this one among them.
    alive: AtomicU32,
}

/// What a team wants of an account's turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) tenant: TenantName,
    pub(super) weight: u32,
    pub(super) count: usize,
}

/// What Redis said to that.
#[derive(Debug)]
pub(super) struct Given {
    /// Turns to be taken now.
    pub(super) turns: Vec<(TenantName, u32)>,
    /// When to ask again.
    pub(super) wait: Duration,
    /// How many times as much as this node all nodes want.
    pub(super) crowd: f64,
}

/// What a node has counted of a quota's period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mine {
    /// Grows with every change, so that a message that was overtaken changes nothing.
    pub(super) version: u64,
    pub(super) today: u64,
    pub(super) this_month: u64,
}

/// A reservation of one call: what this node has counted with it, and what all nodes together may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) day: Day,
    pub(super) mine: Mine,
    /// Calls a day and a month; none is no limit.
    pub(super) bounds: (Option<u64>, Option<u64>),
}

/// What the other nodes have counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) today: u64,
    pub(super) this_month: u64,
}

impl Nodes {
    /// Nodes that share `link`; `node` is this one's name among them.
    #[must_use]
    pub fn new(link: RedisClient, node: &str) -> Self {
        Self(Arc::new(Shared { link, node: node.to_owned(), alive: AtomicU32::new(1) }))
    }

    /// How many there are, this one among them, as far as is known.
    pub(super) fn alive(&self) -> u32 {
        self.0.alive.load(Ordering::Relaxed).max(1)
    }

    /// Asks for turns of an account. None while Redis is out. `resumed`: the last ones were given without it.
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
        let given: (u64, u64, u64, Vec<String>) = self.0.link.script(&Budget::of(ASKING), &script).await.ok()?;
        let (wait, all, mine, turns) = given;
        let turns = turns.chunks_exact(2).filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].parse().ok()?)));
        #[allow(clippy::cast_precision_loss, reason = "numbers of waiters are far below 2^52")]
        let crowd = all as f64 / mine.max(1) as f64;
        Some(Given { turns: turns.collect(), wait: Duration::from_micros(wait), crowd: crowd.max(1.0) })
    }

    /// Whether they can be asked.
    pub(super) fn is_up(&self) -> bool {
        self.0.link.is_up()
    }

    /// Gives back turns that were not used, or holds everybody back for `pause`.
    pub(super) async fn correct_turns(
        &self,
        account: &AccountName,
        (per_second, burst): (u32, u32),
        back: u32,
        pause: Duration,
    ) {
        let mut script = scripts::CORRECT.key(self.turns_key(account));
        let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        script.arg(per_second).arg(burst).arg(back).arg(pause);
        // While Redis is out there is nothing there to correct.
        let _ = self.0.link.script::<i64>(&Budget::of(TELLING), &script).await;
    }

    /// Counts a call toward a team's quotas, unless all nodes together have reached one: then `Err(true)` for the month's
    /// and `Err(false)` for the day's. None while Redis is out.
    pub(super) async fn reserve(&self, tenant: &TenantName, ask: Ask, redis: &Budget) -> Option<Result<Others, bool>> {
        let Ask { day, mine, bounds: (per_day, per_month) } = ask;
        let keys = [day.to_string(), day.month().to_string()].map(|period| self.quota_key(tenant, &period));
        let mut script = scripts::RESERVE.key(&keys[0]);
        script.key(&keys[1]).arg(&self.0.node).arg(mine.version);
        for (count, quota) in [(mine.today, per_day), (mine.this_month, per_month)] {
            script.arg(count).arg(quota.map_or(-1, |quota| i64::try_from(quota).unwrap_or(i64::MAX)));
        }
        let (refused, today, this_month): (u8, u64, u64) = self.0.link.script(redis, &script).await.ok()?;
        Some(match refused {
            0 => Ok(Others { today, this_month }),
            refused => Err(refused == 2),
        })
    }

    /// Tells that this node is alive, and what its teams asked for since the last beat. Gives for each the same of all
    /// nodes together; none while Redis is out.
    pub(super) async fn beat(&self, asked: &[(TenantName, u64)]) -> Option<Vec<u64>> {
        let mut script = scripts::HEARTBEAT.key(self.0.link.keys().limit_nodes());
        script.key(self.0.link.keys().limit_asked()).arg(&self.0.node);
        for (tenant, count) in asked {
            script.arg(tenant.as_str()).arg(*count);
        }
        let (alive, totals): (u32, Vec<u64>) = self.0.link.script(&Budget::of(TELLING), &script).await.ok()?;
        self.0.alive.store(alive, Ordering::Relaxed);
        (totals.len() == asked.len()).then_some(totals)
    }

    /// This node is leaving.
    pub(super) async fn leave(&self) {
        let mut command = redis::cmd("ZREM");
        command.arg(self.0.link.keys().limit_nodes()).arg(&self.0.node);
        let _ = self.0.link.command::<i64>(&Budget::of(TELLING), &command).await;
    }

    fn turns_key(&self, account: &AccountName) -> RedisKey {
        self.0.link.keys().limit_queue(account)
    }

    fn quota_key(&self, tenant: &TenantName, period: &str) -> RedisKey {
        self.0.link.keys().limit_quota(tenant, period)
    }
}
