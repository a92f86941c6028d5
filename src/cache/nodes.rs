//! Purges and erasures, told to every node that shares the cache.
//!
//! A change gets a number and a place in a list in Redis. Nodes hear of it at once, and look for themselves every second,
//! so that a lost message costs nothing but that second. A node says on the roll which changes it has taken, and has a lease
//! of 5 s from then on. When that is over by Redis' clock, the node's own has ended too, and by then it serves no watchlist
//! answer from memory until it has caught up.
//!
//! Numbers only grow, even if Redis loses what it holds, or a part of it: they begin with its clock. So a node that sees
//! fewer changes than numbers knows that it has missed some.
//!
//! Nothing of that expires, and all of it is used every second: it is the last that a Redis evicts.
//!
//! Invariants: a node's own lease ends before the one on the roll does; a change that was answered as done was taken by every
//! node, or by the end of its lease; a node that missed what the list does not hold empties its memory.

use super::epoch::{Change, Epoch, Epochs, Table};
use super::memory::Memory;
use super::redis::{Names, RedisCache};
use super::wire;
use crate::base::clock::Clock;
use crate::base::keyring;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use crate::redis::client::{Budget, LinkError, RedisClient};
use redis::Script;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a node may go on without having looked (section 4 of the design).
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// How often a node looks: several looks may fail within a lease.
const LOOK: Duration = Duration::from_secs(1);
/// Changes in the list. Purges and erasures are rare; a node that was away for more of them starts anew.
const MOST_CHANGES: usize = 10_000;
/// How long a tombstone keeps answers of calls that began before from being stored: no call lasts as long.
const TOMBSTONE: Duration = Duration::from_secs(3600);
/// After so long without a word a node is taken to be gone for good.
const GONE: Duration = Duration::from_secs(600);
/// What one question of an operator's order may take.
const ORDER: Duration = Duration::from_secs(2);

/// What is not ours among what all nodes share is taken away, and counts as lost: epochs, number, list. The number begins
/// with the time, in milliseconds; nobody gives as many orders.
macro_rules! shared {
    ($script:literal) => {
        concat!(
            r"
            local kinds = {'hash', 'string', 'zset'}
            for at, kind in ipairs(kinds) do
              local is = redis.call('TYPE', KEYS[at]).ok
              if is ~= kind and is ~= 'none' then redis.call('DEL', KEYS[at]) end
            end
            if not tonumber(redis.call('GET', KEYS[2]) or '') then
              local now = redis.call('TIME')
              redis.call('SET', KEYS[2], now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
            end
            ",
            $script
        )
    };
}

/// Looks: makes what epochs are missing, and tells all of them and every change since the last look.
/// KEYS: epochs, number, list.
static LOOK_UP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(shared!(
        r"
        for at = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[at + 1]) end
        return {
          tonumber(redis.call('GET', KEYS[2])),
          redis.call('HGETALL', KEYS[1]),
          redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'WITHSCORES'),
        }"
    ))
});

/// Says that this node has taken every change up to a number, and what it removed.
/// KEYS: roll, then counts. ARGV: node, number, then what to add to each count.
static CONFIRM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local is = redis.call('TYPE', KEYS[1]).ok
        if is ~= 'hash' and is ~= 'none' then redis.call('DEL', KEYS[1]) end
        local now = redis.call('TIME')
        redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %d%03d', ARGV[2], now[1], math.floor(now[2] / 1000)))
        for at = 2, #KEYS do
          redis.call('INCRBY', KEYS[at], ARGV[at + 1])
          redis.call('EXPIRE', KEYS[at], 60)
        end
        return 1",
    )
});

/// The nodes, up to which number each has taken every change, and how many milliseconds ago it said so. Who has said nothing for
/// long is struck off.
static ROLL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local roll, found, now = {}, redis.call('HGETALL', KEYS[1]), redis.call('TIME')
        for at = 1, #found, 2 do
          local number, time = string.match(found[at + 1], '^(%d+) (%d+)$')
          local ago = time and now[1] * 1000 + math.floor(now[2] / 1000) - time
          if not ago or ago > tonumber(ARGV[1]) then
            redis.call('HDEL', KEYS[1], found[at])
          else
            roll[#roll + 1] = {found[at], tonumber(number), math.max(ago, 0)}
          end
        end
        return roll",
    )
});

/// Begins a change: a number, new epochs, tombstones, the list, and a word to everybody.
/// KEYS: epochs, number, list, then tombstones. ARGV: entry of the list, most, tombstone's time, channel, then fields.
static BEGIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(shared!(
        r"
        local number = redis.call('INCR', KEYS[2])
        for at = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
        for at = 4, #KEYS do redis.call('SET', KEYS[at], number, 'PX', ARGV[3]) end
        redis.call('ZADD', KEYS[3], number, number .. ':' .. ARGV[1])
        redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[2])
        redis.call('PUBLISH', ARGV[4], number)
        return number"
    ))
});

/// This node among the others.
#[derive(Debug)]
pub(super) struct Nodes {
    level2: Arc<RedisCache>,
    memory: Arc<Memory>,
    epochs: Arc<Epochs>,
    clock: Clock,
    /// The same after a restart, so that nobody waits for the process that was killed.
    id: String,
    /// Nanoseconds from `origin` to the last look that was confirmed; 0 for none.
    confirmed: AtomicU64,
    origin: Instant,
    looking: tokio::sync::Mutex<()>,
}

/// What an order came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Entries in the memory of nodes.
    pub memory: u64,
    /// Entries in Redis.
    pub redis: u64,
    /// What could not be reached, and is left to do; nothing if the order is done.
    pub left: Vec<String>,
}

impl Removed {
    /// What two orders came to.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.memory += other.memory;
        self.redis += other.redis;
        self.left.extend(other.left);
        self.left.sort_unstable();
        self.left.dedup();
        self
    }
}

type Look = (u64, BTreeMap<String, Vec<u8>>, Vec<(Vec<u8>, u64)>);

impl Nodes {
    pub(super) fn new(
        level2: Arc<RedisCache>,
        memory: Arc<Memory>,
        epochs: Arc<Epochs>,
        id: String,
        clock: Clock,
    ) -> Self {
        let origin = clock.now();
        Self {
            level2,
            memory,
            epochs,
            clock,
            id,
            confirmed: AtomicU64::new(0),
            origin,
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Whether this node knows all changes but those of the last 5 s.
    pub(super) fn is_current(&self) -> bool {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let now = self.clock.now().saturating_duration_since(self.origin);
        confirmed != 0 && now.saturating_sub(Duration::from_nanos(confirmed)) < LEASE
    }

    /// Looks every second, at every word, and as soon as Redis is back.
    pub(super) fn keep(self: &Arc<Self>, tasks: &Tasks, stop: CancellationToken) {
        let (nodes, ending) = (Arc::clone(self), stop.clone());
        let mut changed = self.link().listen(&self.names().changed_channel());
        let mut landed = self.link().listen(&self.names().landed_channel());
        let mut up = self.link().watch();
        tasks.spawn(async move {
            let work = async {
                loop {
                    // Without Redis there is nothing to be seen, and its return is told.
                    if nodes.link().is_up() {
                        let _: Result<(), LinkError> = nodes.look(&Budget::of(LOOK)).await;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        _ = changed.recv() => {}
                        _ = up.changed() => nodes.level2.wake_all(),
                    }
                }
            };
            let _: Option<()> = ending.run_until_cancelled(work).await;
            nodes.leave().await;
        });
        let nodes = Arc::clone(self);
        tasks.spawn(async move {
            let work = async {
                use tokio::sync::broadcast::error::RecvError;
                loop {
                    match landed.recv().await {
                        Ok(message) => {
                            if let Some(key) = nodes.level2.landed(&message) {
                                nodes.memory.end_pending(&key);
                            }
                        }
                        Err(RecvError::Lagged(_)) => nodes.level2.wake_all(),
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            let _: Option<()> = stop.run_until_cancelled(work).await;
        });
    }

    /// Catches up, before an answer from memory is given by a node whose lease has ended.
    pub(super) async fn confirm(&self, budget: &Budget) {
        if !self.is_current() {
            let _: Result<(), LinkError> = self.look(budget).await;
        }
    }

    async fn look(&self, budget: &Budget) -> Result<(), LinkError> {
        // Another look may be under way, and take longer than this one has.
        let Some(_turn) = budget.wait(self.looking.lock()).await else { return Err(LinkError::Out) };
        let began = self.clock.now().saturating_duration_since(self.origin);
        let (known, era) = (self.epochs.last(), self.epochs.table().era);
        let mut script = LOOK_UP.key(self.names().one("epochs"));
        script.key(self.names().one("number")).key(self.names().one("changes"));
        script.arg(known);
        for name in Subject::ALL.map(Subject::as_str).into_iter().chain([ERA]) {
            script.arg(name).arg(&keyring::random::<16>());
        }
        let (number, fields, changes): Look = self.link().script(budget, &script).await?;
        let Some(table) = table(&fields) else { return Err(LinkError::Unexpected) };
        let mut removed = Vec::new();
        if table.era != era || number.checked_sub(known) != Some(changes.len() as u64) {
            // The first look; or Redis has lost some of what it knew; or we have missed more than it keeps.
            self.memory.clear();
            self.epochs.forget(unknown_to(number, &changes));
        }
        for (entry, number) in &changes {
            let Some(change) = parse(entry) else { continue };
            if let Change::Erased(tags) = &change {
                self.epochs.erase(*number, tags);
            }
            let count = self.memory.remove(&change);
            if count > 0 {
                removed.push((*number, count));
            }
        }
        self.epochs.set(table);
        self.epochs.know(number);

        let mut script = CONFIRM.key(self.names().one("roll"));
        script.arg(&self.id).arg(number);
        for (number, count) in removed {
            script.key(self.names().one(&format!("removed:{number}"))).arg(count);
        }
        let _: i64 = self.link().script(budget, &script).await?;
        // From before the question was sent: our lease ends before the one on the roll.
        self.confirmed.store(u64::try_from(began.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Release);
        Ok(())
    }

    /// Carries a change out on every node and in Redis.
    ///
    /// # Errors
    /// Redis is out: the change was not begun, or it is not known whether it was.
    pub(super) async fn change(&self, change: &Change) -> Result<Removed, LinkError> {
        let number = self.begin(change).await?;
        self.look(&Budget::of(ORDER)).await?;
        let redis = match change {
            Change::Erased(tags) => self.erase(tags).await?,
            Change::Subject(subject) => self.sweep(subject.as_str(), "*").await?,
            Change::Tenant(tenant) => self.sweep("*", tenant.as_str()).await?,
            Change::All => self.sweep("*", "*").await?,
        };
        let left = self.taken(number, matches!(change, Change::Erased(_))).await?;
        let mut command = redis::cmd("GET");
        let command = command.arg(self.names().one(&format!("removed:{number}")));
        let memory: Option<u64> = self.link().command(&Budget::of(ORDER), command).await?;
        Ok(Removed { memory: memory.unwrap_or(0), redis, left })
    }

    async fn begin(&self, change: &Change) -> Result<u64, LinkError> {
        let names = self.names();
        let mut script = BEGIN.key(names.one("epochs"));
        script.key(names.one("number")).key(names.one("changes"));
        if let Change::Erased(tags) = change {
            for tag in tags {
                script.key(names.tombstone(tag));
            }
        }
        script.arg(write(change)).arg(MOST_CHANGES).arg(wire::millis(TOMBSTONE));
        script.arg(names.changed_channel());
        let field = |name: String| (name, keyring::random::<16>());
        let fields: Vec<(String, Epoch)> = match change {
            Change::Subject(subject) => vec![field(subject.as_str().to_owned())],
            Change::Tenant(tenant) => vec![field(format!("{TENANT}{tenant}"))],
            Change::All => Subject::ALL.map(|subject| field(subject.as_str().to_owned())).to_vec(),
            Change::Erased(_) => Vec::new(),
        };
        for (name, epoch) in &fields {
            script.arg(name).arg(epoch);
        }
        self.link().script(&Budget::of(ORDER), &script).await
    }

    /// Waits until every node has taken a change, or its lease has ended; names the nodes of which a strict caller can't
    /// be sure then.
    async fn taken(&self, number: u64, strictly: bool) -> Result<Vec<String>, LinkError> {
        // What a node has confirmed without the change was confirmed before it began: by then its lease has ended.
        let end = tokio::time::Instant::now() + LEASE;
        loop {
            let mut script = ROLL.key(self.names().one("roll"));
            let roll: Vec<(String, u64, u64)> =
                self.link().script(&Budget::of(ORDER), script.arg(wire::millis(GONE))).await?;
            let behind = roll.into_iter().filter(|(_, taken, _)| *taken < number);
            let (leased, ended): (Vec<_>, Vec<_>) = behind.partition(|(_, _, ago)| *ago < wire::millis(LEASE));
            if leased.is_empty() || tokio::time::Instant::now() >= end {
                // A lease that has ended keeps watchlist answers back, but a node that is only cut off from Redis still has
                // the rest in its memory.
                let left = if strictly { [leased, ended].concat() } else { leased };
                return Ok(left.into_iter().map(|(id, ..)| format!("node {}", &id[..8.min(id.len())])).collect());
            }
            // An operator's order, a few times a year: looking again is good enough.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes away the entries that are filed under a tag.
    async fn erase(&self, tags: &BTreeSet<Tag>) -> Result<u64, LinkError> {
        static TAKE: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                r"
                for _, key in ipairs(KEYS) do
                  local is = redis.call('TYPE', key).ok
                  if is == 'set' then
                    local entries = redis.call('SPOP', key, 500)
                    return {#entries, redis.call('UNLINK', unpack(entries))}
                  elseif is ~= 'none' then
                    redis.call('DEL', key)
                    return {-1, 0}
                  end
                end
                return {0, 0}",
            )
        });
        let mut removed = 0;
        let mut script = TAKE.prepare_invoke();
        for tag in tags {
            script.key(self.names().tag(tag));
        }
        loop {
            let (taken, unlinked): (i64, u64) = self.link().script(&Budget::of(ORDER), &script).await?;
            removed += unlinked;
            match taken {
                0 => return Ok(removed),
                // Somebody else's value stood in the place of the list. What was filed there is not known any more, and one
                // of it is somebody who is to be forgotten: all go.
                ..0 => removed += self.sweep("*", "*").await?,
                _ => {}
            }
        }
    }

    /// Takes away the entries whose names fit. They are unfindable already: their epoch has ended.
    async fn sweep(&self, subject: &str, private: &str) -> Result<u64, LinkError> {
        let pattern = self.names().entries(subject, private);
        let (mut cursor, mut removed) = (0_u64, 0_u64);
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.link().command(&Budget::of(ORDER), &command).await?;
            if !keys.is_empty() {
                let mut command = redis::cmd("UNLINK");
                let unlinked: u64 = self.link().command(&Budget::of(ORDER), command.arg(keys)).await?;
                removed += unlinked;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    /// Nobody has to wait for this node any more.
    async fn leave(&self) {
        let mut command = redis::cmd("HDEL");
        let command = command.arg(self.names().one("roll")).arg(&self.id);
        let _: Result<u64, LinkError> = self.link().command(&Budget::of(LOOK), command).await;
    }

    fn link(&self) -> &RedisClient {
        &self.level2.link
    }

    fn names(&self) -> &Names {
        &self.level2.names
    }
}

/// What a team's field among the epochs begins with; no subject has a colon.
const TENANT: &str = "tenant:";
/// The field that is new whenever Redis has lost everything.
const ERA: &str = "era";

/// The number from which on a list up to `number` has every change: what is before may be lost.
fn unknown_to(number: u64, changes: &[(Vec<u8>, u64)]) -> u64 {
    changes.iter().rev().fold(number, |first, (_, at)| if *at == first { at.saturating_sub(1) } else { first })
}

fn table(fields: &BTreeMap<String, Vec<u8>>) -> Option<Table> {
    let mut table = Table::random();
    table.era = fields.get(ERA)?.as_slice().try_into().ok()?;
    for subject in Subject::ALL {
        table.subjects[subject as usize] = fields.get(subject.as_str())?.as_slice().try_into().ok()?;
    }
    for (name, epoch) in fields {
        if let Some(tenant) = name.strip_prefix(TENANT) {
            table.tenants.insert(tenant.parse().ok()?, epoch.as_slice().try_into().ok()?);
        }
    }
    Some(table)
}

/// A change as the list has it, behind its number.
fn write(change: &Change) -> Vec<u8> {
    match change {
        Change::Subject(subject) => format!("s{}", subject.as_str()).into_bytes(),
        Change::Tenant(tenant) => format!("t{tenant}").into_bytes(),
        Change::All => b"a".to_vec(),
        Change::Erased(tags) => {
            let mut entry = b"e".to_vec();
            tags.iter().for_each(|tag| entry.extend_from_slice(tag.bytes()));
            entry
        }
    }
}

fn parse(entry: &[u8]) -> Option<Change> {
    let colon = entry.iter().position(|b| *b == b':')?;
    let (kind, rest) = entry.get(colon + 1..)?.split_first()?;
    let text = || std::str::from_utf8(rest).ok();
    match kind {
        b's' => Subject::ALL.into_iter().find(|subject| Some(subject.as_str()) == text()).map(Change::Subject),
        b't' => text()?.parse::<TenantName>().ok().map(Change::Tenant),
        b'a' => Some(Change::All),
        b'e' => rest.chunks(16).map(Tag::from_bytes).collect::<Option<_>>().map(Change::Erased),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::byte_size::ByteSize;
    use crate::base::keyring::Keyring;
    use crate::config::RedisTarget;

    /// Another look may take its time; a request that needs one has its own.
    #[tokio::test]
    async fn a_request_waits_its_turn_to_look_within_its_budget() {
        let target = RedisTarget { url: "redis://127.0.0.1:1/".into(), extra_ca: None };
        let link = RedisClient::new(&target, &[]).unwrap();
        let epochs = Arc::new(Epochs::new());
        let level2 = RedisCache::new(link, &[1; 32], Keyring::of_bytes(&[]), Arc::clone(&epochs), Clock::system());
        let nodes =
            Nodes::new(Arc::new(level2), Arc::new(Memory::new(ByteSize::mib(1))), epochs, "a".into(), Clock::system());
        let _other = nodes.looking.lock().await;
        tokio::time::pause();
        let (budget, began) = (Budget::of(Duration::from_millis(50)), tokio::time::Instant::now());
        nodes.confirm(&budget).await;
        nodes.confirm(&budget).await;
        assert!(began.elapsed() <= Duration::from_millis(52), "{:?}", began.elapsed());
        assert_eq!(budget.left(), Duration::ZERO);
    }

    #[test]
    fn what_a_list_does_not_hold_is_not_known() {
        let list = |numbers: &[u64]| numbers.iter().map(|number| (Vec::new(), *number)).collect::<Vec<_>>();
        // Nothing has changed since the number began, or the list is lost: what began with it is good.
        assert_eq!(unknown_to(9, &list(&[])), 9);
        assert_eq!(unknown_to(9, &list(&[7, 8, 9])), 6);
        assert_eq!(unknown_to(9, &list(&[3, 4, 8, 9])), 7, "a gap");
        assert_eq!(unknown_to(9, &list(&[7, 8])), 9, "the last is missing");
        assert_eq!(unknown_to(1, &list(&[1])), 0);
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let tag = |seed| Tag::from_bytes(&[seed; 16]).unwrap();
        for change in [
            Change::Subject(Subject::Cft),
            Change::Tenant("lending".parse().unwrap()),
            Change::All,
            Change::Erased(BTreeSet::from([tag(b':'), tag(2)])),
        ] {
            let entry = [&b"17:"[..], &write(&change)].concat();
            assert_eq!(parse(&entry), Some(change));
        }
        for bad in [&b""[..], b"17", b"17:", b"17:x", b"17:snothing", b"17:eshort"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
