//! State in a Redis that several gateways share.
//!
//! Each method is a script, which Redis runs as one step; where one would touch more than it may at once, it goes on in
//! further steps, each of which leaves what is there whole: a callback counts as fanned out with the last of its deliveries,
//! and a step that was done already is not done twice. `src/redis/scripts/state/prelude.lua` names the keys and the moves. What nobody
//! answered for (`Unavailable`) may have been done all the same; every method but [`enqueue`](super::State::enqueue) may
//! be repeated.
//!
//! A team's queue is a sorted set by the time at which deliveries are due. A stream with a consumer group would hand them
//! out in the order in which they came, to whoever asks; retries in hours, a share for each team, replays and erasures
//! would all need a second structure beside it. The inbox is a sorted set for the same reason: early callbacks wait.
//!
//! Times: leases, due times and retention are all by Redis' own clock. What callers say by theirs is translated by what the
//! last answers told of the difference ([`Skew`]), so a node whose clock is wrong gets nothing early and holds nothing
//! longer. After a failover the clock is another machine's: a lease is longer or shorter by how these two differ. Times in
//! lists are Redis'.
//!
//! Nodes: a claim is numbered, and who holds an older number changes nothing any more but "the team has it". Waiters are
//! woken by what happens at their own node; what happens at others they find at their next look.
//!
//! Durability is what the Redis is configured to: [`concerns`](super::State::concerns) says what is amiss. Replicas get
//! what was acknowledged a moment later: a failover in that moment loses it. The file of appended commands holds what was
//! erased, encrypted, until Redis rewrites it. A script touches keys that it finds by
//! others: all of them have one hash tag.

mod skew;

use self::skew::Skew;
use super::envelopes::{CallbackName, DeliveryId, Record, Secrecy};
use super::{
    Awaiting, Callback, Copy, Cursor, Delivery, DeliveryOutcome, EARLY, Erased, LATE, Listed, MOST_AWAITING,
    MOST_LISTED, Made, Owner, Owning, Page, Queues, Receipt, Replay, Standing, StateError, Verdict, Waiting,
};
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::config::{self, Retention};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use crate::redis::diagnosis::Cause;
use crate::redis::{Budget, RedisClient, RedisFailure, RedisKey, scripts::state as scripts};
use redis::{FromRedisValue, Script, ScriptInvocation};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What one step may take. Far above what it does take, so that a busy Redis is not given up; far below Iluma's patience.
const PATIENCE: Duration = Duration::from_secs(2);

/// Entries that one step touches at the most, about a millisecond's worth: others wait for Redis meanwhile.
const MOST_TOUCHED: usize = 200;

/// Bytes after which a step carries no more entries, either way: they pass within its time on a slow network too.
const MOST_BYTES: usize = 4 << 20;

/// The fields of an entry.
type Fields = Vec<Vec<u8>>;

/// The engine of gateways that share a Redis.
#[derive(Debug)]
pub struct Redis {
    link: RedisClient,
    secrecy: Secrecy,
    retention: Retention,
    clock: Clock,
    skew: Skew,
    closed: AtomicBool,
    arrived: Notify,
    due: Notify,
}

impl Redis {
    /// State in the Redis that `link` leads to, which others keep.
    #[must_use]
    pub fn new(link: RedisClient, settings: &config::State, clock: Clock) -> Self {
        Self {
            link,
            secrecy: Secrecy::new(settings),
            retention: settings.retention,
            clock,
            skew: Skew::default(),
            closed: AtomicBool::new(false),
            arrived: Notify::new(),
            due: Notify::new(),
        }
    }

    pub(super) async fn concerns(&self) -> Result<Vec<Cause>, StateError> {
        Ok(self.link.durability_warnings().await?)
    }

    pub(super) async fn own(&self, owning: Owning) -> Result<(), StateError> {
        let Owning { account, id, tenant, reference, kind, awaits, tags, asked } = owning;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.reference(&record, &tenant, reference.as_ref());
        let hidden = reference.map(|text| self.secrecy.hide_reference(&record, &tenant, &text)).unwrap_or_default();
        let asked = self.theirs(asked).await?;
        let mut released: usize = self
            .run(&scripts::OWN, |call| {
                call.arg(&record).arg(tenant.as_str()).arg(&name).arg(hidden).arg(text_of(kind));
                call.arg(u8::from(awaits)).arg(asked).arg(MOST_AWAITING).arg(MOST_TOUCHED);
                self.persons(call, &tags);
            })
            .await?;
        if released > 0 {
            self.arrived.notify_one();
        }
        while released >= MOST_TOUCHED {
            released = self
                .run(&scripts::RELEASE, |call| {
                    call.arg(&record).arg(MOST_TOUCHED);
                })
                .await?;
        }
        Ok(())
    }

    pub(super) async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        let record = self.secrecy.record(account, id);
        let rows: Vec<Fields> = self
            .run(&scripts::OWNERS, |call| {
                call.arg(&record);
            })
            .await?;
        let owner = |row: Fields| {
            let [tenant, hidden, since] = row.try_into().ok()?;
            let tenant = parsed(&tenant)?;
            let reference = self.reference(&record, &tenant, &hidden);
            Some(Owner { tenant, reference, since: time(parsed(&since)?) })
        };
        Ok(rows.into_iter().filter_map(owner).collect())
    }

    pub(super) async fn receive(&self, callback: Callback) -> Result<Receipt, StateError> {
        let Callback { account, kind, id, body, tags } = callback;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.callback(&record, &body);
        let (content, id) = (self.secrecy.hide_callback(&name, &id, &body), self.secrecy.hide_id(&name.0, &id));
        let new: bool = self
            .run(&scripts::RECEIVE, |call| {
                call.arg(&name.0).arg(&record).arg(account.as_str()).arg(text_of(kind)).arg(content).arg(id);
                self.persons(call, &tags);
            })
            .await?;
        if !new {
            return Ok(Receipt::Repeat);
        }
        self.arrived.notify_one();
        Ok(Receipt::New)
    }

    pub(super) async fn waiting(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        let (turn, rows): (i64, Vec<Fields>) = self
            .run(&scripts::WAITING, |call| {
                call.arg(most).arg(length(lease)).arg(MOST_BYTES).arg(MOST_TOUCHED);
            })
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            match self.shown(&row, turn) {
                Some(waiting) => found.push(waiting),
                // Kept for an operator who may find the key again; it does not hold up the others.
                None => {
                    let name = row.first().and_then(|name| name.as_slice().try_into().ok());
                    let name = CallbackName(name.ok_or(StateError::Refused)?);
                    self.settled(&name, turn, "unowned", self.retention.dead_letters, 0, &[]).await?;
                }
            }
        }
        Ok(found)
    }

    fn shown(&self, row: &[Vec<u8>], turn: i64) -> Option<Waiting> {
        let ([name, record, account, kind, content, received], owners) = row.split_first_chunk()?;
        let (name, record) = (CallbackName(name.as_slice().try_into().ok()?), record.as_slice().try_into().ok()?);
        let (id, body) = self.secrecy.show_callback(&name, content)?;
        let mut kind = parsed(kind);
        let mut awaiting = Vec::with_capacity(owners.len() / 4);
        for [tenant, hidden, owners_kind, erased] in owners.as_chunks().0 {
            let Some(tenant) = parsed(tenant) else { continue };
            kind = kind.or_else(|| parsed(owners_kind));
            let reference = self.reference(&record, &tenant, hidden);
            awaiting.push(Awaiting { tenant, reference, erased: !erased.is_empty() });
        }
        let received = self.ours(parsed(received)?);
        Some(Waiting { name, account: parsed(account)?, kind, id, body, received, awaiting, turn })
    }

    pub(super) async fn settle(&self, waiting: &Waiting, verdict: Verdict) -> Result<(), StateError> {
        let Waiting { name, account, id, turn, .. } = waiting;
        match verdict {
            Verdict::Wait(until) => {
                let until = self.theirs(until).await?;
                self.settled(name, *turn, "wait", Duration::ZERO, until, &[]).await?;
            }
            Verdict::Unowned => {
                self.settled(name, *turn, "unowned", self.retention.dead_letters, 0, &[]).await?;
            }
            Verdict::Deliver(kind, copies) => {
                let record = self.secrecy.record(account, id);
                let prepared = |copy: Copy| {
                    let reference = self.secrecy.reference(&record, &copy.tenant, copy.reference.as_ref());
                    self.prepared(self.secrecy.delivery(name, &reference), account, id, kind, copy)
                };
                let deliveries: Vec<_> = copies.into_iter().map(prepared).collect();
                let mut rest = deliveries.as_slice();
                loop {
                    let (step, after) = rest.split_at(step(rest, |delivery| delivery.content.len()));
                    rest = after;
                    let verdict = if rest.is_empty() { "deliver" } else { "more" };
                    let made = self.settled(name, *turn, verdict, LATE, 0, step).await?;
                    if made > 0 {
                        self.due.notify_one();
                    }
                    // In other hands by now, or erased: then there is nothing to deliver.
                    if made < 0 || rest.is_empty() {
                        break;
                    }
                }
            }
        }
        // An owner may have come meanwhile.
        self.arrived.notify_one();
        Ok(())
    }

    /// How many deliveries it made; less than none if the callback is not in these hands.
    async fn settled(
        &self,
        name: &CallbackName,
        turn: i64,
        verdict: &str,
        keep: Duration,
        until: i64,
        deliveries: &[NewDelivery],
    ) -> Result<i64, StateError> {
        let settle = |call: &mut ScriptInvocation<'_>| {
            call.arg(&name.0).arg(turn).arg(verdict).arg(length(keep)).arg(until);
            deliveries.iter().for_each(|delivery| delivery.write(call));
        };
        self.run(&scripts::SETTLE, settle).await
    }

    pub(super) async fn enqueue(&self, made: Vec<Made>) -> Result<(), StateError> {
        let prepared = |made: Made| {
            let Made { account, id, kind, copy, tags } = made;
            let record = self.secrecy.record(&account, &id);
            (record, self.prepared(DeliveryId::fresh(), &account, &id, kind, copy), tags)
        };
        let made: Vec<_> = made.into_iter().map(prepared).collect();
        let mut rest = made.as_slice();
        while !rest.is_empty() {
            let (step, after) = rest.split_at(step(rest, |(_, delivery, _)| delivery.content.len()));
            rest = after;
            let enqueue = |call: &mut ScriptInvocation<'_>| {
                for (record, delivery, tags) in step {
                    call.arg(record).arg(tags.len());
                    delivery.write(call);
                    self.persons(call, tags);
                }
            };
            let _: u64 = self.run(&scripts::ENQUEUE, enqueue).await?;
            self.due.notify_one();
        }
        Ok(())
    }

    fn prepared(
        &self,
        id: DeliveryId,
        account: &AccountName,
        upstream_id: &str,
        kind: CallbackType,
        copy: Copy,
    ) -> NewDelivery {
        let content = self.secrecy.hide_delivery(&id, upstream_id, &copy.body);
        let upstream_id = self.secrecy.hide_id(&id.0, upstream_id);
        NewDelivery { id, tenant: copy.tenant, account: account.clone(), kind, content, upstream_id }
    }

    pub(super) async fn claim(
        &self,
        wanted: &[(TenantName, usize)],
        lease: Duration,
    ) -> Result<Vec<Delivery>, StateError> {
        let mut wanted = wanted.to_vec();
        let mut claimed = Vec::new();
        while !wanted.is_empty() {
            let claim = |call: &mut ScriptInvocation<'_>| {
                call.arg(length(lease)).arg(MOST_BYTES).arg(MOST_TOUCHED);
                for (tenant, most) in &wanted {
                    call.arg(tenant.as_str()).arg(*most);
                }
            };
            let answer: Result<(i64, i64, Vec<Fields>), StateError> = self.run(&scripts::CLAIM, claim).await;
            let (turn, enough, rows) = match answer {
                Ok(answer) => answer,
                // What is in hand already is not to wait for the end of its lease.
                Err(_) if !claimed.is_empty() => break,
                Err(error) => return Err(error),
            };
            // Where it was enough it goes on: at that team, which has some of what it wants.
            let place = usize::try_from(enough).unwrap_or(wanted.len());
            wanted.drain(..place.min(wanted.len()));
            for row in rows {
                if let Some((tenant, left)) = wanted.first_mut()
                    && row.get(1).is_some_and(|field| field == tenant.as_str().as_bytes())
                {
                    *left = left.saturating_sub(1);
                }
                match self.delivery(&row, turn) {
                    Some(delivery) => claimed.push(delivery),
                    None => {
                        let id = row.first().and_then(|id| id.as_slice().try_into().ok());
                        let attempts = row.get(5).and_then(|attempts| parsed(attempts)).unwrap_or(0);
                        let id = DeliveryId(id.ok_or(StateError::Refused)?);
                        self.concluded(&id, turn, "dead", attempts, 0).await?;
                    }
                }
            }
        }
        Ok(claimed)
    }

    fn delivery(&self, row: &[Vec<u8>], turn: i64) -> Option<Delivery> {
        let [id, tenant, account, kind, content, attempts, received]: &[_; 7] = row.try_into().ok()?;
        let id = DeliveryId(id.as_slice().try_into().ok()?);
        let (_, body) = self.secrecy.show_delivery(&id, content)?;
        Some(Delivery {
            id,
            tenant: parsed(tenant)?,
            account: parsed(account)?,
            kind: parsed(kind)?,
            body,
            attempts: parsed(attempts)?,
            received: self.ours(parsed(received)?),
            turn,
        })
    }

    pub(super) async fn conclude(&self, delivery: &Delivery, fate: DeliveryOutcome) -> Result<(), StateError> {
        let failed = delivery.attempts.saturating_add(1);
        let (fate, attempts, at) = match fate {
            DeliveryOutcome::Delivered => ("delivered", delivery.attempts, 0),
            DeliveryOutcome::Dead => ("dead", failed, 0),
            DeliveryOutcome::Retry(at) => ("retry", failed, self.theirs(at).await?),
            DeliveryOutcome::Untried => ("untried", delivery.attempts, 0),
        };
        self.concluded(&delivery.id, delivery.turn, fate, attempts, at).await
    }

    async fn concluded(
        &self,
        id: &DeliveryId,
        turn: i64,
        fate: &str,
        attempts: u32,
        at: i64,
    ) -> Result<(), StateError> {
        let _: bool = self
            .run(&scripts::CONCLUDE, |call| {
                call.arg(&id.0).arg(turn).arg(fate).arg(attempts).arg(at);
            })
            .await?;
        Ok(())
    }

    pub(super) async fn list(&self, standing: Standing, page: &Page) -> Result<Vec<Listed>, StateError> {
        let list = match standing {
            Standing::Queued => "deliveries:queued",
            Standing::Dead => "deliveries:dead",
            Standing::Delivered => "deliveries:delivered",
            Standing::Unowned => "callbacks:unowned",
        };
        let most = page.most.min(MOST_LISTED);
        if most == 0 || standing == Standing::Unowned && page.tenant.is_some() {
            return Ok(Vec::new());
        }
        let rows: Vec<Fields> = self
            .run(&scripts::LIST, |call| {
                call.arg(list).arg(page.tenant.as_ref().map_or("", TenantName::as_str));
                match page.after {
                    Some(Cursor { at, id }) => call.arg(at).arg(&id.0),
                    None => call.arg("").arg(""),
                };
                call.arg(most);
            })
            .await?;
        Ok(rows.iter().filter_map(|row| self.listed(row)).collect())
    }

    fn listed(&self, row: &[Vec<u8>]) -> Option<Listed> {
        let [due, name, tenant, account, kind, upstream_id, attempts, received]: &[_; 8] = row.try_into().ok()?;
        Some(Listed {
            cursor: Cursor { at: parsed(due)?, id: DeliveryId(*name.first_chunk()?) },
            tenant: parsed(tenant),
            account: parsed(account)?,
            kind: parsed(kind),
            upstream_id: self.secrecy.show_id(name, upstream_id),
            attempts: parsed(attempts).unwrap_or(0),
            received: time(parsed(received)?),
        })
    }

    pub(super) async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        let mut replayed = 0;
        // What is concluded from now on is no part of it, however many steps it takes.
        let mut until = String::new();
        loop {
            let replay = |call: &mut ScriptInvocation<'_>| {
                match &what {
                    Replay::One(id) => call.arg("one").arg(&id.0).arg(MOST_TOUCHED).arg(0),
                    Replay::Since(tenant, since) => {
                        call.arg("since").arg(tenant.as_str()).arg(MOST_TOUCHED).arg(millis(*since))
                    }
                    Replay::AllDead => call.arg("dead").arg("").arg(MOST_TOUCHED).arg(0),
                };
                call.arg(&until);
            };
            let (now, count): (String, usize) = self.run(&scripts::REPLAY, replay).await?;
            replayed += count as u64;
            self.arrived.notify_one();
            self.due.notify_one();
            if count < MOST_TOUCHED {
                return Ok(replayed);
            }
            if until.is_empty() {
                until = now;
            }
        }
    }

    pub(super) async fn queues(&self) -> Result<Queues, StateError> {
        let (waiting, unowned, oldest, rows): (u64, u64, String, Vec<Fields>) =
            self.run(&scripts::QUEUES, |_| {}).await?;
        let counts = |row: Fields| {
            let [tenant, queued, dead] = row.try_into().ok()?;
            Some((parsed(&tenant)?, parsed(&queued)?, parsed(&dead)?))
        };
        let mut tenants: Vec<_> = rows.into_iter().filter_map(counts).collect();
        tenants.sort();
        Ok(Queues { tenants, waiting, unowned, oldest: oldest.parse().ok().map(|oldest| self.ours(oldest)) })
    }

    pub(super) async fn set_url(&self, tenant: &TenantName, kind: CallbackType, url: &str) -> Result<(), StateError> {
        let mut set = redis::cmd("HSET");
        set.arg(self.urls_of(tenant)).arg(kind.as_str()).arg(self.secrecy.hide_url(tenant, kind, url));
        let _: i64 = self.ask(&set).await?;
        Ok(())
    }

    pub(super) async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
        // At most as many as there are types.
        let rows: Vec<(String, Vec<u8>)> = self.ask(redis::cmd("HGETALL").arg(self.urls_of(tenant))).await?;
        let mut urls = Vec::new();
        for (kind, hidden) in rows {
            let Ok(kind) = kind.parse() else { continue };
            let Some(url) = self.secrecy.show_url(tenant, kind, &hidden) else { continue };
            urls.push((kind, url));
            if let Some(renewed) = self.secrecy.renewed_url(tenant, kind, &hidden) {
                let mut renew = scripts::RENEW_URL.key(self.urls_of(tenant));
                renew.arg(kind.as_str()).arg(hidden).arg(renewed);
                let _: i64 = self.link.script(&Budget::of(PATIENCE), &renew).await?;
            }
        }
        urls.sort();
        Ok(urls)
    }

    fn urls_of(&self, tenant: &TenantName) -> RedisKey {
        self.link.keys().callback_urls(tenant)
    }

    pub(super) async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        let mut erased = Erased::default();
        for tag in tags {
            let person = self.secrecy.person(tag);
            let (mut first, mut more) = (true, true);
            while more {
                let erase = |call: &mut ScriptInvocation<'_>| {
                    call.arg(&person).arg(u8::from(first)).arg(MOST_TOUCHED);
                };
                let (owners, callbacks, deliveries, rest): (u64, u64, u64, bool) =
                    self.run(&scripts::ERASE, erase).await?;
                erased.owners += owners;
                erased.callbacks += callbacks;
                erased.deliveries += deliveries;
                (first, more) = (false, rest);
            }
        }
        Ok(erased)
    }

    pub(super) async fn sweep(&self) -> Result<u64, StateError> {
        let Retention { owners, delivered_callbacks: delivered, dead_letters: dead, .. } = self.retention;
        // As long as anything that they lead to.
        let persons = owners.max(delivered).max(dead) + EARLY + LATE;
        let mut swept = 0;
        for (list, age) in [
            ("deliveries:delivered", delivered),
            ("deliveries:known", delivered),
            ("deliveries:dead", dead),
            // Of a team that is in no configuration any more.
            ("deliveries:queued", dead),
            ("callbacks:kept", Duration::ZERO),
            ("callbacks:known", delivered),
            ("callbacks:unowned", Duration::ZERO),
            ("owners", owners),
            ("persons", persons),
            ("erased", persons),
        ] {
            let sweep = |call: &mut ScriptInvocation<'_>| {
                call.arg(list).arg(length(age)).arg(MOST_TOUCHED);
            };
            swept += self.run::<u64>(&scripts::SWEEP, sweep).await?;
        }
        Ok(swept)
    }

    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    pub(super) async fn work(&self) {
        self.due.notified().await;
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn reference(&self, record: &Record, tenant: &TenantName, hidden: &[u8]) -> Option<bytes::Bytes> {
        if hidden.is_empty() {
            return None;
        }
        self.secrecy.show_reference(record, tenant, hidden)
    }

    fn persons(&self, call: &mut ScriptInvocation<'_>, tags: &[Tag]) {
        for tag in tags {
            call.arg(&self.secrecy.person(tag));
        }
    }

    /// A time of ours by Redis' clock, in milliseconds.
    async fn theirs(&self, time: SystemTime) -> Result<i64, StateError> {
        if self.skew.ahead().is_none() {
            let _: i64 = self.run(&scripts::TIME, |_| {}).await?;
        }
        Ok(millis(time).saturating_add(self.skew.ahead().unwrap_or(0)))
    }

    /// A time by Redis' clock as ours shows it.
    fn ours(&self, millis: i64) -> SystemTime {
        time(millis.saturating_sub(self.skew.ahead().unwrap_or(0)))
    }

    /// Runs a script with the arguments that `fill` adds.
    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, StateError> {
        self.open()?;
        let mut call = script.key(self.link.keys().state());
        call.arg(length(self.clock.added()));
        fill(&mut call);
        let (now, answer): (i64, T) = self.link.script(&Budget::of(PATIENCE), &call).await?;
        self.skew.note(now, millis(self.clock.wall()), self.clock.now());
        Ok(answer)
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StateError> {
        self.open()?;
        Ok(self.link.command(&Budget::of(PATIENCE), command).await?)
    }

    fn open(&self) -> Result<(), StateError> {
        if self.closed.load(Ordering::Relaxed) { Err(StateError::Unavailable) } else { Ok(()) }
    }
}

impl From<RedisFailure> for StateError {
    fn from(error: RedisFailure) -> Self {
        match error {
            RedisFailure::Out => Self::Unavailable,
            RedisFailure::Unexpected => Self::Refused,
        }
    }
}

/// A delivery that is to be stored.
struct NewDelivery {
    id: DeliveryId,
    tenant: TenantName,
    account: AccountName,
    kind: CallbackType,
    content: Vec<u8>,
    upstream_id: Vec<u8>,
}

impl NewDelivery {
    /// As `insert_delivery` reads it.
    fn write(&self, call: &mut ScriptInvocation<'_>) {
        call.arg(&self.id.0).arg(self.tenant.as_str()).arg(self.account.as_str()).arg(self.kind.as_str());
        call.arg(&self.content).arg(&self.upstream_id);
    }
}

/// How many of these one step takes.
fn step<T>(entries: &[T], bytes: impl Fn(&T) -> usize) -> usize {
    let mut sum = 0;
    let fits = entries.iter().take(MOST_TOUCHED / 2).take_while(|entry| {
        sum += bytes(entry);
        sum <= MOST_BYTES
    });
    // One at least, however large.
    fits.count().max(1).min(entries.len())
}

fn text_of(kind: Option<CallbackType>) -> &'static str {
    kind.map_or("", CallbackType::as_str)
}

fn parsed<T: FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn millis(time: SystemTime) -> i64 {
    length(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn length(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bounded_by_number_and_by_bytes_and_never_empty() {
        let take = |sizes: &[usize]| step(sizes, |size| *size);
        assert_eq!(take(&[]), 0);
        assert_eq!(take(&[1; 1000]), MOST_TOUCHED / 2);
        assert_eq!(take(&[MOST_BYTES / 2, MOST_BYTES / 2, 1]), 2);
        assert_eq!(take(&[MOST_BYTES + 1, 1]), 1);
    }
}
