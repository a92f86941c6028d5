//! The fair queue of an account as plain data: its caller passes the time, and calls it when a slot is due.
//!
//! Invariants:
//! - While several tenants wait, each gets its share of the rate by weight. Unused shares go to the other waiting
//!   tenants, by their weights (self-clocked fair queueing).
//! - An entry that would wait longer than `max_wait` is refused at once.

use super::gcra::Gcra;
use super::shared::Want;
use crate::base::name::TenantName;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The number by which the slots per second are divided to get the burst after an idle time. A tenth evens out the
/// jitter of timers and networks, and is too small to look like a burst to upstream.
const BURST_PART: u32 = 10;
/// The largest number of entries in a tenant's lane. It bounds memory if the rate or the longest wait is large: each
/// entry is a request that holds memory.
const MOST_WAITING: usize = 1024;
/// The cost of a slot for a tenant of weight 1. It is large, so that dividing it by a weight of up to 1000 rounds
/// little.
const COST: u128 = 1 << 32;

/// The rate of an account, and the longest wait for one of its slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Slots per second; `None` means no limit.
    pub(super) per_second: Option<u32>,
    pub(super) max_wait: Duration,
}

/// The ticket of a waiting entry: its number, and the receiver of its slot.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) number: u64,
    pub(super) slot: oneshot::Receiver<()>,
}

/// The queue of one account: the tenants that wait for its slots.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) rate: Option<Gcra>,
    pub(super) max_wait: Duration,
    /// The lanes of the tenants that have a waiting entry.
    lanes: BTreeMap<TenantName, Lane>,
    pub(super) waiting: usize,
    /// The virtual finish time of the last served entry.
    virtual_time: u128,
    last_ticket: u64,
    /// True while a task grants slots.
    pub(super) is_served: bool,
    /// True if all nodes grant slots together.
    pub(super) is_far: bool,
    /// The estimated time of the next slot, if several nodes share the rate.
    pub(super) next_far: Option<Instant>,
    /// The demand of all nodes, as a multiple of this node's demand.
    pub(super) crowd: f64,
    /// This node's part of the rate, for the time in which the other nodes can't be reached.
    alone: Option<Gcra>,
}

#[derive(Debug)]
struct Lane {
    weight: u32,
    /// The virtual finish time of the first entry. The lane with the smallest tag is served first.
    tag: u128,
    waiters: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Lane {
    fn cost(&self) -> u128 {
        COST / u128::from(self.weight.max(1))
    }
}

impl Queue {
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            rate: pace.per_second.map(|rate| Gcra::new(rate, burst(rate), now)),
            max_wait: pace.max_wait,
            lanes: BTreeMap::new(),
            waiting: 0,
            virtual_time: 0,
            last_ticket: 0,
            is_served: false,
            is_far: false,
            next_far: None,
            crowd: 1.0,
            alone: None,
        }
    }

    /// Returns the slots per second, and the burst. Returns `None` without a rate.
    pub(super) fn shape(&self) -> Option<(u32, u32)> {
        self.rate.as_ref().map(Gcra::shape)
    }

    /// Applies another rate and longest wait. Waiting entries go on waiting.
    pub(super) fn reshape(&mut self, pace: Pace, now: Instant) {
        self.max_wait = pace.max_wait;
        match (&mut self.rate, pace.per_second) {
            (Some(rate), Some(new)) if rate.per_second() != new => rate.reshape(new, burst(new), now),
            (Some(_), Some(_)) => {}
            (rate, new) => *rate = new.map(|new| Gcra::new(new, burst(new), now)),
        }
    }

    /// Takes a slot if a slot is due now and no entry waits. Returns true if it took the slot. If all nodes grant slots
    /// together, it takes no slot and returns false.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        !self.is_far
            && self.waiting == 0
            && self.next(now).is_zero()
            && self.rate.as_mut().is_none_or(|rate| rate.take(now).is_ok())
    }

    /// Returns the time until the next slot.
    fn next(&self, now: Instant) -> Duration {
        if self.is_far {
            return self.next_far.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        }
        self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.wait(now))
    }

    /// Adds an entry to the tenant's lane. If the slot would come too late, or if the lane is full, returns the time
    /// after which to try again.
    pub(super) fn enter(&mut self, now: Instant, tenant: &TenantName, weight: u32) -> Result<Ticket, Duration> {
        let wait = self.estimate(now, tenant, weight);
        let ahead = self.lanes.get(tenant).map_or(0, |lane| lane.waiters.len());
        if wait > self.max_wait || ahead >= MOST_WAITING {
            return Err(wait.saturating_sub(self.max_wait));
        }
        let (give, slot) = oneshot::channel();
        self.last_ticket += 1;
        self.waiting += 1;
        let virtual_time = self.virtual_time;
        let lane = self.lanes.entry(tenant.clone()).or_insert_with(|| {
            let mut lane = Lane { weight, tag: virtual_time, waiters: VecDeque::new() };
            lane.tag += lane.cost();
            lane
        });
        lane.weight = weight;
        lane.waiters.push_back((self.last_ticket, give));
        Ok(Ticket { number: self.last_ticket, slot })
    }

    /// Estimates the wait of one more entry in the tenant's lane, if every waiting tenant goes on sending requests.
    pub(super) fn estimate(&self, now: Instant, tenant: &TenantName, weight: u32) -> Duration {
        let first = self.next(now);
        let Some(rate) = &self.rate else { return first };
        let others = self.lanes.iter().filter(|(name, _)| *name != tenant);
        let weights: u64 = others.map(|(_, lane)| u64::from(lane.weight)).sum::<u64>() + u64::from(weight);
        let ahead = self.lanes.get(tenant).map_or(0, |lane| lane.waiters.len()) as u64;
        let slots = ((ahead + 1) * weights).div_ceil(u64::from(weight.max(1))).min(self.waiting as u64 + 1);
        first + (rate.interval() * u32::try_from(slots - 1).unwrap_or(u32::MAX)).mul_f64(self.crowd)
    }

    /// Grants the slots that are due. Returns the time until the next slot, or `None` if no entry waits.
    pub(super) fn serve(&mut self, now: Instant) -> Option<Duration> {
        while self.waiting > 0 {
            let wait = self.next(now);
            if !wait.is_zero() {
                return Some(wait);
            }
            if let Some(Err(wait)) = self.rate.as_mut().map(|rate| rate.take(now)) {
                return Some(wait);
            }
            self.give();
        }
        self.end();
        None
    }

    /// Grants this node's part of the slots while Redis is out. `nodes` is the number of nodes that share the rate.
    /// `was_alone` is true if the previous slots were granted this way too. Returns the time until the next slot, or
    /// `None` if no entry waits.
    pub(super) fn serve_alone(&mut self, now: Instant, nodes: u32, was_alone: bool) -> Option<Duration> {
        let (rate, _) = self.shape()?;
        let part = (rate / nodes).max(1);
        let alone = self.alone.get_or_insert_with(|| Gcra::new(part, burst(part), now));
        if alone.per_second() != part {
            alone.reshape(part, burst(part), now);
        }
        if !was_alone {
            // Slots that all nodes granted together just before are not granted again.
            alone.empty_until(now + alone.interval());
        }
        self.crowd = f64::from(rate) / f64::from(part);
        while self.waiting > 0 {
            let alone = self.alone.as_mut()?;
            if let Err(wait) = alone.take(now) {
                self.next_far = Some(now + wait);
                return Some(wait);
            }
            self.give();
        }
        self.end();
        None
    }

    /// Ends the serving, and resets the queue's virtual time. It is called when no entry waits.
    pub(super) fn end(&mut self) {
        self.is_served = false;
        self.virtual_time = 0;
        self.crowd = 1.0;
    }

    /// Returns the demand of this node's tenants for the shared slots.
    pub(super) fn wants(&self) -> Vec<Want> {
        let want = |(tenant, lane): (&TenantName, &Lane)| Want {
            tenant: tenant.clone(),
            weight: lane.weight,
            count: lane.waiters.len(),
        };
        self.lanes.iter().map(want).collect()
    }

    /// Grants a slot to the first entry of the lane with the smallest tag.
    fn give(&mut self) {
        let due = self.lanes.iter().min_by_key(|(_, lane)| lane.tag).map(|(name, _)| name.clone());
        if let Some(due) = due {
            self.give_to(&due);
        }
    }

    /// Grants a slot to the first entry of the tenant's lane. Returns false if no entry waits there.
    pub(super) fn give_to(&mut self, tenant: &TenantName) -> bool {
        let Some(lane) = self.lanes.get_mut(tenant) else { return false };
        self.virtual_time = lane.tag;
        lane.tag += lane.cost();
        let first = lane.waiters.pop_front();
        if lane.waiters.is_empty() {
            self.lanes.remove(tenant);
        }
        self.waiting -= usize::from(first.is_some());
        // An entry leaves under the queue's lock, so each entry in the queue still waits.
        first.is_some_and(|(_, give)| give.send(()).is_ok())
    }

    /// Removes an entry that does not wait any more.
    pub(super) fn leave(&mut self, tenant: &TenantName, ticket: u64) {
        let Some(lane) = self.lanes.get_mut(tenant) else { return };
        let before = lane.waiters.len();
        lane.waiters.retain(|(theirs, _)| *theirs != ticket);
        self.waiting -= before - lane.waiters.len();
        if lane.waiters.is_empty() {
            self.lanes.remove(tenant);
        }
    }
}

fn burst(per_second: u32) -> u32 {
    (per_second / BURST_PART).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use proptest::prelude::*;

    fn name(text: &str) -> TenantName {
        text.parse().unwrap()
    }

    fn pace(per_second: u32, max_wait: u64) -> Pace {
        Pace { per_second: Some(per_second), max_wait: Duration::from_secs(max_wait) }
    }

    /// A team that sends requests at a constant rate, in virtual time.
    struct Team {
        name: TenantName,
        weight: u32,
        every: Duration,
        next: Instant,
        waiting: VecDeque<(Instant, Ticket)>,
        waits: Vec<Duration>,
        refused: u64,
    }

    fn team(text: &str, weight: u32, per_second: f64, start: Instant) -> Team {
        let every = Duration::from_secs_f64(1.0 / per_second);
        Team { name: name(text), weight, every, next: start, waiting: VecDeque::new(), waits: Vec::new(), refused: 0 }
    }

    /// Lets every team send requests for `seconds`, in steps of a millisecond; returns the moments at which slots were
    /// granted.
    fn run(queue: &mut Queue, teams: &mut [Team], start: Instant, seconds: u64) -> Vec<Instant> {
        let mut given = Vec::new();
        for millisecond in 0..seconds * 1000 {
            let now = start + Duration::from_millis(millisecond);
            for team in &mut *teams {
                while team.next <= now {
                    team.next += team.every;
                    if queue.take(now) {
                        team.waits.push(Duration::ZERO);
                        given.push(now);
                        continue;
                    }
                    match queue.enter(now, &team.name, team.weight) {
                        Ok(ticket) => team.waiting.push_back((now, ticket)),
                        Err(_) => team.refused += 1,
                    }
                }
            }
            queue.serve(now);
            for team in &mut *teams {
                let (waits, refused) = (&mut team.waits, &mut team.refused);
                let (name, most) = (&team.name, queue.max_wait);
                team.waiting.retain_mut(|(since, ticket)| {
                    if ticket.slot.try_recv().is_ok() {
                        waits.push(now - *since);
                        given.push(now);
                        return false;
                    }
                    let over = now - *since >= most;
                    if over {
                        queue.leave(name, ticket.number);
                        *refused += 1;
                    }
                    !over
                });
            }
        }
        given
    }

    fn p99(waits: &[Duration]) -> Duration {
        let mut waits = waits.to_vec();
        waits.sort();
        waits[waits.len() * 99 / 100]
    }

    /// The bound in the documentation: one round of all weights and one slot.
    fn bound(rate: u32, weight: u32, weights: u32) -> Duration {
        Duration::from_secs(1) * (weights / weight + 2) / rate
    }

    #[test]
    fn a_minute_of_overload_sends_the_rate_and_never_a_burst_above() {
        let start = Clock::system().now();
        let mut queue = Queue::new(pace(50, 2), start);
        let mut teams = [team("a", 1, 300.0, start), team("b", 1, 200.0, start)];
        let given = run(&mut queue, &mut teams, start, 60);
        assert!((2940..=3060).contains(&given.len()), "{}", given.len());
        for window in given.windows(11) {
            // Eleven slots take at least six intervals: five came at once.
            assert!(*window.last().unwrap() - window[0] >= Duration::from_millis(6 * 20 - 1));
        }
        assert!(teams.iter().all(|team| team.refused > 1000));
    }

    #[test]
    fn a_greedy_team_takes_nothing_of_the_others_shares_and_all_that_they_leave() {
        let start = Clock::system().now();
        let mut queue = Queue::new(pace(50, 2), start);
        // Nine teams ask for exactly their share, a tenth of the rate. The tenth team asks for fifty times its share.
        let mut teams: Vec<_> = (0..9).map(|n| team(&format!("t{n}"), 1, 5.0, start)).collect();
        teams.push(team("greedy", 1, 250.0, start));
        run(&mut queue, &mut teams, start, 60);
        for team in &teams[..9] {
            let served = team.waits.len();
            assert!((285..=315).contains(&served), "{} got {served} of 300", team.name);
            assert!(p99(&team.waits) <= bound(50, 1, 10), "{:?}", p99(&team.waits));
        }
        assert!((285..=320).contains(&teams[9].waits.len()), "{}", teams[9].waits.len());
        // A team that waits alone gets everything, and no share is reserved for others.
        let mut queue = Queue::new(pace(50, 2), start);
        let mut alone = [team("greedy", 1, 250.0, start)];
        run(&mut queue, &mut alone, start, 60);
        assert!((2940..=3010).contains(&alone[0].waits.len()), "{}", alone[0].waits.len());
    }

    #[test]
    fn who_asks_for_half_its_share_leaves_the_rest_to_the_others_by_weight() {
        let start = Clock::system().now();
        let mut queue = Queue::new(pace(100, 2), start);
        let mut teams = [team("small", 1, 10.0, start), team("one", 1, 500.0, start), team("three", 3, 500.0, start)];
        run(&mut queue, &mut teams, start, 60);
        let served: Vec<_> = teams.iter().map(|team| team.waits.len()).collect();
        assert!((590..=610).contains(&served[0]), "{served:?}");
        assert!((1300..=1400).contains(&served[1]), "{served:?}");
        assert!((4000..=4150).contains(&served[2]), "{served:?}");
    }

    proptest! {
        /// A team that always waits gets its share, whatever the weights.
        #[test]
        fn shares_are_as_the_weights(weights in prop::collection::vec(1_u32..20, 2..8)) {
            let start = Clock::system().now();
            let mut queue = Queue::new(pace(100, 60), start);
            let named = |n: usize| name(&format!("t{n}"));
            let mut places = Vec::new();
            for (n, weight) in weights.iter().enumerate() {
                for _ in 0..1000 {
                    places.push((n, queue.enter(start, &named(n), *weight)));
                }
            }
            let mut served = vec![0_u32; weights.len()];
            for step in 0..600 {
                queue.serve(start + Duration::from_millis(10 * step));
            }
            for (n, place) in &mut places {
                if let Ok(ticket) = place && ticket.slot.try_recv().is_ok() {
                    served[*n] += 1;
                }
            }
            // Two lanes never differ by more than a slot of each.
            let lanes: Vec<_> = served.iter().map(|n| f64::from(*n)).zip(weights.iter().map(|n| f64::from(*n))).collect();
            for (one, weight) in &lanes {
                for (other, others) in &lanes {
                    let apart = (one / weight - other / others).abs();
                    prop_assert!(apart <= 1.0 / weight + 1.0 / others + 1e-6, "{served:?} of {weights:?}");
                }
            }
        }
    }
}
