//! Limits that several nodes hold together, in Redis.
//!
//! Invariants: each decision is one script, on Redis' own time, so clocks of nodes do not matter; what a node wants or
//! has counted expires or is replaced by what it says next, so a node that died holds nothing for long and a message
//! that came twice counts once; while Redis is out a node takes its part of what there is, by the number of nodes that
//! it knew last, and says so afterwards.

use crate::base::calendar::Day;
use crate::base::keyring;
use crate::base::name::{AccountName, TenantName};
use crate::redis::client::{Budget, RedisClient};
use redis::Script;
use std::sync::Arc;
use std::sync::LazyLock;
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
    prefix: String,
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
    /// Nodes that share `link`; `root` is their common root key, and `node` this one's name among them.
    #[must_use]
    pub fn new(link: RedisClient, root: &[u8; 32], node: &str) -> Self {
        let prefix = format!("{}limit:", keyring::namespace(root));
        Self(Arc::new(Shared { link, prefix, node: node.to_owned(), alive: AtomicU32::new(1) }))
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
        let mut script = TURNS.key(self.turns_key(account));
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
        let mut script = CORRECT.key(self.turns_key(account));
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
        let mut script = RESERVE.key(&keys[0]);
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
        let mut script = BEAT_SCRIPT.key(format!("{}nodes", self.0.prefix));
        script.key(format!("{}asked", self.0.prefix)).arg(&self.0.node);
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
        command.arg(format!("{}nodes", self.0.prefix)).arg(&self.0.node);
        let _ = self.0.link.command::<i64>(&Budget::of(TELLING), &command).await;
    }

    fn turns_key(&self, account: &AccountName) -> String {
        format!("{}turns:{account}", self.0.prefix)
    }

    fn quota_key(&self, tenant: &TenantName, period: &str) -> String {
        format!("{}quota:{tenant}:{period}", self.0.prefix)
    }
}

// Times in the scripts are microseconds, which a Lua number holds exactly for longer than anyone will run this.

/// A hash an account: `full`, when its bucket is full again; `v`, the virtual time; `t:TENANT`, when the
/// first of a team is through, for as long as any node has one that waits; `w:NODE`, what a node wants and until when that holds. FairQueue go to the team that is due among
/// all that any node wants; a node whose team is not due comes back later, unless a turn has been there for half the time that a bucket takes.
static TURNS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local node, interval, burst = ARGV[1], 1000000 / ARGV[2], tonumber(ARGV[3])
        local flat, state = redis.call('HGETALL', KEYS[1]), {}
        for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
        local full = tonumber(state.full or 0) or 0
        if ARGV[4] == '1' then full = math.max(full, now + interval * (burst - 1)) end
        local v = tonumber(state.v or 0) or 0
        local weights, mine, others, all, own = {}, {}, {}, 0, 0
        for field, value in pairs(state) do
          if string.sub(field, 1, 2) == 'w:' and field ~= 'w:' .. node then
            local ok, want = pcall(cjson.decode, value)
            if not ok or want[1] < now then
              redis.call('HDEL', KEYS[1], field)
            else
              for i = 2, #want, 3 do
                weights[want[i]] = want[i + 1]
                others[want[i]] = (others[want[i]] or 0) + want[i + 2]
                all = all + want[i + 2]
              end
            end
          end
        end
        for i = 5, #ARGV, 3 do
          weights[ARGV[i]] = tonumber(ARGV[i + 1])
          mine[ARGV[i]] = tonumber(ARGV[i + 2])
          own = own + mine[ARGV[i]]
        end
        all = all + own
        local tags = {}
        for tenant, weight in pairs(weights) do
          tags[tenant] = tonumber(state['t:' .. tenant] or '') or v + 1 / weight
        end
        local function due(of)
          local best, first
          for tenant, tag in pairs(tags) do
            if (of[tenant] or 0) > 0 then
              if not first or tag < first or (tag == first and tenant < best) then best, first = tenant, tag end
            end
          end
          return best, first
        end
        local given, wait, turns = {}, interval, {}
        while true do
          local tenant, tag = due(mine)
          if not tenant then break end
          local short = full - now - interval * (burst - 1)
          if short > 0 then wait = short break end
          local other, before = due(others)
          if other and before < tag and -short < interval * burst / 2 then break end
          mine[tenant] = mine[tenant] - 1
          v = tag
          tags[tenant] = tag + 1 / weights[tenant]
          full = math.max(full, now) + interval
          given[tenant] = (given[tenant] or 0) + 1
        end
        for tenant, tag in pairs(tags) do
          if (mine[tenant] or 0) + (others[tenant] or 0) > 0 then
            redis.call('HSET', KEYS[1], 't:' .. tenant, string.format('%.9f', tag))
          end
        end
        for field in pairs(state) do
          if string.sub(field, 1, 2) == 't:' then
            local tenant = string.sub(field, 3)
            if (mine[tenant] or 0) + (others[tenant] or 0) == 0 then redis.call('HDEL', KEYS[1], field) end
          end
        end
        local want = {now + wait + 2 * interval + 250000}
        for tenant, count in pairs(mine) do
          if count > 0 then
            want[#want + 1] = tenant want[#want + 1] = weights[tenant] want[#want + 1] = count
          end
        end
        if #want > 1 then
          redis.call('HSET', KEYS[1], 'w:' .. node, cjson.encode(want))
        else
          redis.call('HDEL', KEYS[1], 'w:' .. node)
        end
        redis.call('HSET', KEYS[1], 'full', string.format('%.0f', full), 'v', string.format('%.9f', v))
        redis.call('PEXPIRE', KEYS[1], 120000)
        for tenant, count in pairs(given) do
          turns[#turns + 1] = tenant turns[#turns + 1] = tostring(count)
        end
        return {math.ceil(wait), all, own, turns}",
    )
});

static CORRECT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local interval, burst = 1000000 / ARGV[1], tonumber(ARGV[2])
        local full = math.max(tonumber(redis.call('HGET', KEYS[1], 'full') or 0) or 0, now)
        full = full - interval * ARGV[3]
        if tonumber(ARGV[4]) > 0 then full = math.max(full, now + ARGV[4] + interval * (burst - 1)) end
        redis.call('HSET', KEYS[1], 'full', string.format('%.0f', full))
        redis.call('PEXPIRE', KEYS[1], 120000)
        return 1",
    )
});

/// A hash a team and period: `NODE` → `version:count`. Who asks is the one that its own count says, so each of many that
/// ask at once has a place of its own.
static RESERVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local node, version = ARGV[1], tonumber(ARGV[2])
        local sums, refused = {}, 0
        for k = 1, 2 do
          local flat, sum = redis.call('HGETALL', KEYS[k]), 0
          for i = 1, #flat, 2 do
            if flat[i] ~= node then sum = sum + (tonumber(string.match(flat[i + 1], ':(%d+)$')) or 0) end
          end
          sums[k] = sum
          local count, quota = tonumber(ARGV[1 + 2 * k]), tonumber(ARGV[2 + 2 * k])
          if quota >= 0 and sum + count > quota then refused = k end
        end
        if refused == 0 then
          for k = 1, 2 do
            local known = redis.call('HGET', KEYS[k], node)
            if not known or (tonumber(string.match(known, '^(%d+):')) or 0) < version then
              redis.call('HSET', KEYS[k], node, ARGV[2] .. ':' .. ARGV[1 + 2 * k])
              redis.call('EXPIRE', KEYS[k], k == 1 and 172800 or 3456000)
            end
          end
        end
        return {refused, sums[1], sums[2]}",
    )
});

/// Nodes that were heard of in the last three beats, and what teams asked of each in its last one.
static BEAT_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        redis.call('ZADD', KEYS[1], now, ARGV[1])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - 3000)
        redis.call('PEXPIRE', KEYS[1], 10000)
        local alive, totals = {}, {}
        for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do alive[node] = true end
        for i = 2, #ARGV, 2 do
          redis.call('HSET', KEYS[2], ARGV[i] .. '|' .. ARGV[1], ARGV[i + 1])
          totals[ARGV[i]] = 0
        end
        local flat = redis.call('HGETALL', KEYS[2])
        for i = 1, #flat, 2 do
          local tenant, node = string.match(flat[i], '^([^|]+)|(.+)$')
          if not node or not alive[node] then
            redis.call('HDEL', KEYS[2], flat[i])
          elseif totals[tenant] then
            totals[tenant] = totals[tenant] + (tonumber(flat[i + 1]) or 0)
          end
        end
        redis.call('PEXPIRE', KEYS[2], 10000)
        local list = {}
        for i = 2, #ARGV, 2 do list[#list + 1] = totals[ARGV[i]] end
        return {redis.call('ZCARD', KEYS[1]), list}",
    )
});
