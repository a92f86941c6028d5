//! Limits that several nodes enforce together, in Redis.
//!
//! Invariants: each decision is one script, on Redis' own time, so the nodes' clocks do not matter; a node's demand and
//! counts expire or are replaced by its next message, so a dead node holds nothing for long and a repeated message
//! counts once; while Redis is out a node takes its part of each limit, by the last known number of nodes, and reports
//! it afterwards.

use crate::base::calendar::Day;
use crate::base::name::{AccountName, TenantName};
use crate::redis::{Budget, RedisClient, RedisKey, scripts::limit as scripts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest query for slots: all waiting requests wait for it together.
const ASKING: Duration = Duration::from_millis(50);
/// The longest report to other nodes; no request waits for it.
pub(super) const TELLING: Duration = Duration::from_millis(500);

/// The other nodes. Clones share them.
#[derive(Clone, Debug)]
pub struct Nodes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: RedisClient,
    /// The identity of this node, for as long as its database lives.
    node: String,
    /// The nodes that were alive at the last heartbeat, including this one.
    alive: AtomicU32,
}

/// A team's demand for an account's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) tenant: TenantName,
    pub(super) weight: u32,
    pub(super) count: usize,
}

/// The answer of Redis to a demand.
#[derive(Debug)]
pub(super) struct Given {
    /// The slots to be used now.
    pub(super) turns: Vec<(TenantName, u32)>,
    /// The time after which to ask again.
    pub(super) wait: Duration,
    /// The demand of all nodes relative to this one's.
    pub(super) crowd: f64,
}

/// A node's counts in a quota's periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mine {
    /// A number that grows with every change, so that a message that was overtaken changes nothing.
    pub(super) version: u64,
    pub(super) today: u64,
    pub(super) this_month: u64,
}

/// A reservation of one call: this node's counts with it, and the quotas of all nodes together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) day: Day,
    pub(super) mine: Mine,
    /// The quotas of a day and a month; `None` is no limit.
    pub(super) bounds: (Option<u64>, Option<u64>),
}

/// The counts of the other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) today: u64,
    pub(super) this_month: u64,
}

impl Nodes {
    /// Makes the nodes that share `link`; `node` is this one's identity.
    #[must_use]
    pub fn new(link: RedisClient, node: &str) -> Self {
        Self(Arc::new(Shared { link, node: node.to_owned(), alive: AtomicU32::new(1) }))
    }

    /// Returns the number of live nodes, including this one, as far as it is known.
    pub(super) fn alive(&self) -> u32 {
        self.0.alive.load(Ordering::Relaxed).max(1)
    }

    /// Asks for slots of an account. Returns `None` while Redis is out. `resumed` means that the last slots were
    /// granted without Redis.
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

    /// Returns true if Redis answers.
    pub(super) fn is_up(&self) -> bool {
        self.0.link.is_up()
    }

    /// Returns unused slots, or delays all nodes for `pause`.
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
        // While Redis is out there is nothing to correct.
        let _ = self.0.link.script::<i64>(&Budget::of(TELLING), &script).await;
    }

    /// Counts a call toward a team's quotas, unless all nodes together have reached one: then it returns `Err(true)`
    /// for the month's and `Err(false)` for the day's. Returns `None` while Redis is out.
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

    /// Reports that this node is alive, with its teams' requests since the last heartbeat. Returns the sums over all
    /// nodes; `None` while Redis is out.
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

    /// Reports that this node leaves.
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
