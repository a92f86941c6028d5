//! Whose turn it is to call Iluma: one rate for an account, and a queue in which every team has a lane of its own.
//!
//! Invariants: while several teams wait, each gets its share of the rate by weight, and what one does not use goes to
//! the others by theirs (self-clocked fair queueing); nobody waits longer than `max_wait`, and who would have to is
//! refused at once; a turn that was given is used, or given back.

use super::gcra::Gcra;
use super::shared::{Given, Nodes, Want};
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// What leaves at once after a quiet time is this part of a second's worth: enough to even out the jitter of timers and
/// networks, and too little to look like a burst to upstream.
const BURST_PART: u32 = 10;
/// A bound for a team where rate or patience are large; each waits with a request that holds memory.
const MOST_WAITING: usize = 1024;
/// The cost of a turn to a team of weight 1, in units that every weight up to 1000 divides finely.
const COST: u128 = 1 << 32;
/// For a longer one upstream is more likely to have sent nonsense.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The turns of one account.
#[derive(Debug)]
pub(super) struct FairQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something other than the time has moved: look again.
    moved: Notify,
    clock: Clock,
    tasks: Tasks,
    /// Where several nodes share the account.
    far: Option<Far>,
}

/// The account's turns at all nodes.
#[derive(Debug)]
struct Far {
    nodes: Nodes,
    account: AccountName,
    /// Whether the last turns were given without the others.
    alone: AtomicBool,
}

/// A turn that was given.
#[derive(Debug)]
pub(super) struct Turn(Arc<Shared>);

impl FairQueue {
    pub(super) fn new(per_second: Option<u32>, max_wait: Duration, clock: &Clock, tasks: &Tasks) -> Self {
        Self::over(None, per_second, max_wait, clock, tasks)
    }

    /// Those of an account that other nodes share.
    pub(super) fn shared(
        nodes: &Nodes,
        account: &AccountName,
        per_second: Option<u32>,
        max_wait: Duration,
        clock: &Clock,
        tasks: &Tasks,
    ) -> Self {
        let far = Far { nodes: nodes.clone(), account: account.clone(), alone: AtomicBool::new(false) };
        Self::over(Some(far), per_second, max_wait, clock, tasks)
    }

    fn over(far: Option<Far>, per_second: Option<u32>, max_wait: Duration, clock: &Clock, tasks: &Tasks) -> Self {
        let mut queue = Queue::new(per_second, max_wait, clock.now());
        queue.is_far = far.is_some() && per_second.is_some();
        let (clock, tasks) = (clock.clone(), tasks.clone());
        Self(Arc::new(Shared { queue: Mutex::new(queue), moved: Notify::new(), clock, tasks, far }))
    }

    /// Another rate and patience from now on. Who waits goes on waiting.
    pub(super) fn reshape(&self, per_second: Option<u32>, max_wait: Duration) {
        let mut queue = self.0.queue.lock();
        queue.reshape(per_second, max_wait, self.0.clock.now());
        queue.is_far = self.0.far.is_some() && per_second.is_some();
        drop(queue);
        self.0.moved.notify_one();
    }

    /// Waits for the team's turn.
    ///
    /// # Errors
    /// It would not come in time, or did not: how long it may take.
    pub(super) async fn turn(&self, tenant: &TenantName, weight: u32) -> Result<Turn, Duration> {
        let (place, max_wait) = {
            let now = self.0.clock.now();
            let mut queue = self.0.queue.lock();
            if queue.take(now) {
                return Ok(Turn(Arc::clone(&self.0)));
            }
            let (ticket, turn) = queue.enter(now, tenant, weight)?;
            if !std::mem::replace(&mut queue.is_served, true) {
                let shared = Arc::clone(&self.0);
                self.0.tasks.spawn(async move { shared.serve().await });
            }
            let place = QueueEntry { shared: &self.0, tenant: tenant.clone(), ticket, turn };
            (place, queue.max_wait)
        };
        place.wait(max_wait).await
    }

    /// Upstream said that the account asks too much: nothing is sent for so long.
    pub(super) fn pause(&self, time: Duration) {
        let time = time.min(LONGEST_PAUSE);
        self.0.queue.lock().pause(self.0.clock.now() + time);
        self.0.correct(0, time);
    }

    /// The rate, and what may leave at once.
    pub(super) fn shape(&self) -> Option<(u32, u32)> {
        self.0.queue.lock().shape()
    }
}

impl Turn {
    /// It was not used: the next one may.
    pub(super) fn give_back(self) {
        self.0.give_back();
    }
}

impl Shared {
    fn give_back(&self) {
        if self.far.as_ref().is_some_and(|far| !far.alone.load(Ordering::Relaxed)) {
            return self.correct(1, Duration::ZERO);
        }
        if let Some(rate) = &mut self.queue.lock().rate {
            rate.give_back();
        }
        self.moved.notify_one();
    }

    /// Tells the other nodes of turns that were not used, or of a pause.
    fn correct(&self, back: u32, pause: Duration) {
        let (Some(far), Some(shape)) = (&self.far, self.queue.lock().shape()) else { return };
        let (nodes, account) = (far.nodes.clone(), far.account.clone());
        self.tasks.spawn(async move { nodes.correct_turns(&account, shape, back, pause).await });
    }

    /// Gives turns until nobody waits.
    async fn serve(&self) {
        loop {
            let wait = match &self.far {
                Some(far) => self.serve_far(far).await,
                None => self.queue.lock().serve(self.clock.now()),
            };
            let Some(wait) = wait else { return };
            // Not before its time: a timer's millisecond is rounded up.
            let _ = tokio::time::timeout(wait, self.moved.notified()).await;
        }
    }
}

impl Shared {
    /// The same where all nodes share the turns.
    async fn serve_far(&self, far: &Far) -> Option<Duration> {
        let (shape, wants) = {
            let mut queue = self.queue.lock();
            let pause = queue.pause_left(self.clock.now());
            if !pause.is_zero() && queue.waiting > 0 {
                return Some(pause);
            }
            match queue.shape() {
                Some(shape) if queue.is_far && queue.waiting > 0 => (shape, queue.wants()),
                _ => return queue.serve(self.clock.now()),
            }
        };
        let given = far.nodes.turns(&far.account, shape, &wants, far.alone.load(Ordering::Relaxed)).await;
        let now = self.clock.now();
        let Some(Given { turns, wait, crowd }) = given else {
            let was_alone = far.alone.swap(true, Ordering::Relaxed);
            return self.queue.lock().serve_alone(now, far.nodes.alive(), was_alone);
        };
        far.alone.store(false, Ordering::Relaxed);
        let (mut unused, mut queue) = (0, self.queue.lock());
        for (tenant, count) in turns {
            // Some may have gone while Redis was asked.
            unused += (0..count).map(|_| u32::from(!queue.give_to(&tenant))).sum::<u32>();
        }
        (queue.crowd, queue.next_far) = (crowd, Some(now + wait));
        let left = (queue.waiting > 0).then_some(wait);
        if left.is_none() {
            queue.end();
        }
        drop(queue);
        if unused > 0 {
            self.correct(unused, Duration::ZERO);
        }
        left
    }
}

/// A place in the queue, left when it is dropped.
struct QueueEntry<'a> {
    shared: &'a Arc<Shared>,
    tenant: TenantName,
    ticket: u64,
    turn: oneshot::Receiver<()>,
}

impl QueueEntry<'_> {
    async fn wait(mut self, most: Duration) -> Result<Turn, Duration> {
        match tokio::time::timeout(most, &mut self.turn).await {
            Ok(Ok(())) => Ok(Turn(Arc::clone(self.shared))),
            _ => Err(self.shared.queue.lock().estimate(self.shared.clock.now(), &self.tenant, 1)),
        }
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.shared.queue.lock().leave(&self.tenant, self.ticket);
        // Given in the very moment in which nobody wanted it any more.
        if self.turn.try_recv().is_ok() {
            self.shared.give_back();
        }
    }
}

/// The queue itself, which knows no time but what it is told.
#[derive(Debug)]
struct Queue {
    rate: Option<Gcra>,
    not_before: Option<Instant>,
    max_wait: Duration,
    /// Those in which somebody waits.
    lanes: BTreeMap<TenantName, Lane>,
    waiting: usize,
    /// The tag of who was served last.
    virtual_time: u128,
    last_ticket: u64,
    /// Whether a task gives turns.
    is_served: bool,
    /// Whether turns are given by all nodes together.
    is_far: bool,
    /// Of those: when the next may come, as far as is known, and how many times as much as this node all want.
    next_far: Option<Instant>,
    crowd: f64,
    /// While the others can't be asked: the own part of the rate.
    alone: Option<Gcra>,
}

#[derive(Debug)]
struct Lane {
    weight: u32,
    /// When the first in it is through, in virtual time: the smallest goes first.
    tag: u128,
    waiters: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Lane {
    fn cost(&self) -> u128 {
        COST / u128::from(self.weight.max(1))
    }
}

impl Queue {
    fn new(per_second: Option<u32>, max_wait: Duration, now: Instant) -> Self {
        Self {
            rate: per_second.map(|rate| Gcra::new(rate, burst(rate), now)),
            not_before: None,
            max_wait,
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

    fn shape(&self) -> Option<(u32, u32)> {
        self.rate.as_ref().map(Gcra::shape)
    }

    fn pause_left(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn wants(&self) -> Vec<Want> {
        let want = |(tenant, lane): (&TenantName, &Lane)| Want {
            tenant: tenant.clone(),
            weight: lane.weight,
            count: lane.waiters.len(),
        };
        self.lanes.iter().map(want).collect()
    }

    /// Gives what is this node's part if there are so many of them.
    fn serve_alone(&mut self, now: Instant, nodes: u32, was_alone: bool) -> Option<Duration> {
        let (rate, _) = self.shape()?;
        let part = (rate / nodes).max(1);
        let alone = self.alone.get_or_insert_with(|| Gcra::new(part, burst(part), now));
        if alone.per_second() != part {
            alone.reshape(part, burst(part), now);
        }
        if !was_alone {
            // What was given together just now is not given again.
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

    /// Nobody waits any more.
    fn end(&mut self) {
        self.is_served = false;
        self.virtual_time = 0;
        self.crowd = 1.0;
    }

    fn reshape(&mut self, per_second: Option<u32>, max_wait: Duration, now: Instant) {
        self.max_wait = max_wait;
        match (&mut self.rate, per_second) {
            (Some(rate), Some(new)) if rate.per_second() != new => rate.reshape(new, burst(new), now),
            (Some(_), Some(_)) => {}
            (rate, new) => *rate = new.map(|new| Gcra::new(new, burst(new), now)),
        }
    }

    fn pause(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
        if let Some(rate) = &mut self.rate {
            rate.empty_until(until);
        }
    }

    /// A turn without waiting, if nobody else waits for one.
    fn take(&mut self, now: Instant) -> bool {
        !self.is_far
            && self.waiting == 0
            && self.next(now).is_zero()
            && self.rate.as_mut().is_none_or(|rate| rate.take(now).is_ok())
    }

    /// How long until the next turn.
    fn next(&self, now: Instant) -> Duration {
        let pause = self.pause_left(now);
        if self.is_far {
            return self.next_far.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)).max(pause);
        }
        self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.wait(now)).max(pause)
    }

    /// A place in the team's lane.
    fn enter(
        &mut self,
        now: Instant,
        tenant: &TenantName,
        weight: u32,
    ) -> Result<(u64, oneshot::Receiver<()>), Duration> {
        let wait = self.estimate(now, tenant, weight);
        let ahead = self.lanes.get(tenant).map_or(0, |lane| lane.waiters.len());
        if wait > self.max_wait || ahead >= MOST_WAITING {
            return Err(wait.saturating_sub(self.max_wait));
        }
        let (give, turn) = oneshot::channel();
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
        Ok((self.last_ticket, turn))
    }

    /// How long one more in the team's lane would wait if everybody who waits now went on asking.
    fn estimate(&self, now: Instant, tenant: &TenantName, weight: u32) -> Duration {
        let first = self.next(now);
        let Some(rate) = &self.rate else { return first };
        let others = self.lanes.iter().filter(|(name, _)| *name != tenant);
        let weights: u64 = others.map(|(_, lane)| u64::from(lane.weight)).sum::<u64>() + u64::from(weight);
        let ahead = self.lanes.get(tenant).map_or(0, |lane| lane.waiters.len()) as u64;
        let turns = ((ahead + 1) * weights).div_ceil(u64::from(weight.max(1))).min(self.waiting as u64 + 1);
        first + (rate.interval() * u32::try_from(turns - 1).unwrap_or(u32::MAX)).mul_f64(self.crowd)
    }

    /// Gives the turns whose time has come, and says how long until the next; none if nobody waits.
    fn serve(&mut self, now: Instant) -> Option<Duration> {
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

    /// Gives a turn to the first of the lane that is due.
    fn give(&mut self) {
        let due = self.lanes.iter().min_by_key(|(_, lane)| lane.tag).map(|(name, _)| name.clone());
        if let Some(due) = due {
            self.give_to(&due);
        }
    }

    /// Whether somebody waited for it.
    fn give_to(&mut self, tenant: &TenantName) -> bool {
        let Some(lane) = self.lanes.get_mut(tenant) else { return false };
        self.virtual_time = lane.tag;
        lane.tag += lane.cost();
        let first = lane.waiters.pop_front();
        if lane.waiters.is_empty() {
            self.lanes.remove(tenant);
        }
        self.waiting -= usize::from(first.is_some());
        // Whoever goes leaves under the queue's lock, so whoever stands in it still waits.
        first.is_some_and(|(_, give)| give.send(()).is_ok())
    }

    fn leave(&mut self, tenant: &TenantName, ticket: u64) {
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
    use proptest::prelude::*;

    fn name(text: &str) -> TenantName {
        text.parse().unwrap()
    }

    /// A team that asks so often a second, in virtual time.
    struct Team {
        name: TenantName,
        weight: u32,
        every: Duration,
        next: Instant,
        waiting: VecDeque<(Instant, u64, oneshot::Receiver<()>)>,
        waits: Vec<Duration>,
        refused: u64,
    }

    fn team(text: &str, weight: u32, per_second: f64, start: Instant) -> Team {
        let every = Duration::from_secs_f64(1.0 / per_second);
        Team { name: name(text), weight, every, next: start, waiting: VecDeque::new(), waits: Vec::new(), refused: 0 }
    }

    /// Everybody asks for `seconds`, a millisecond a step; gives the moments at which turns were given.
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
                        Ok((ticket, turn)) => team.waiting.push_back((now, ticket, turn)),
                        Err(_) => team.refused += 1,
                    }
                }
            }
            queue.serve(now);
            for team in &mut *teams {
                let (waits, refused) = (&mut team.waits, &mut team.refused);
                let (name, most) = (&team.name, queue.max_wait);
                team.waiting.retain_mut(|(since, ticket, turn)| {
                    if turn.try_recv().is_ok() {
                        waits.push(now - *since);
                        given.push(now);
                        return false;
                    }
                    let over = now - *since >= most;
                    if over {
                        queue.leave(name, *ticket);
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

    /// The figure of the documentation: a round of everybody's weights and one turn.
    fn bound(rate: u32, weight: u32, weights: u32) -> Duration {
        Duration::from_secs(1) * (weights / weight + 2) / rate
    }

    #[test]
    fn a_minute_of_overload_sends_the_rate_and_never_a_burst_above() {
        let start = Clock::system().now();
        let mut queue = Queue::new(Some(50), Duration::from_secs(2), start);
        let mut teams = [team("a", 1, 300.0, start), team("b", 1, 200.0, start)];
        let given = run(&mut queue, &mut teams, start, 60);
        assert!((2940..=3060).contains(&given.len()), "{}", given.len());
        for window in given.windows(11) {
            // Eleven turns are at least six intervals apart: five came at once.
            assert!(*window.last().unwrap() - window[0] >= Duration::from_millis(6 * 20 - 1));
        }
        assert!(teams.iter().all(|team| team.refused > 1000));
    }

    #[test]
    fn a_greedy_team_takes_nothing_of_the_others_shares_and_all_that_they_leave() {
        let start = Clock::system().now();
        let mut queue = Queue::new(Some(50), Duration::from_secs(2), start);
        // Nine ask for exactly their fifth of a hundred, the tenth for fifty times its own.
        let mut teams: Vec<_> = (0..9).map(|n| team(&format!("t{n}"), 1, 5.0, start)).collect();
        teams.push(team("greedy", 1, 250.0, start));
        run(&mut queue, &mut teams, start, 60);
        for team in &teams[..9] {
            let served = team.waits.len();
            assert!((285..=315).contains(&served), "{} got {served} of 300", team.name);
            assert!(p99(&team.waits) <= bound(50, 1, 10), "{:?}", p99(&team.waits));
        }
        assert!((285..=320).contains(&teams[9].waits.len()), "{}", teams[9].waits.len());
        // Alone it gets everything, and nobody's share is kept for them.
        let mut queue = Queue::new(Some(50), Duration::from_secs(2), start);
        let mut alone = [team("greedy", 1, 250.0, start)];
        run(&mut queue, &mut alone, start, 60);
        assert!((2940..=3010).contains(&alone[0].waits.len()), "{}", alone[0].waits.len());
    }

    #[test]
    fn who_asks_for_half_its_share_leaves_the_rest_to_the_others_by_weight() {
        let start = Clock::system().now();
        let mut queue = Queue::new(Some(100), Duration::from_secs(2), start);
        let mut teams = [team("small", 1, 10.0, start), team("one", 1, 500.0, start), team("three", 3, 500.0, start)];
        run(&mut queue, &mut teams, start, 60);
        let served: Vec<_> = teams.iter().map(|team| team.waits.len()).collect();
        assert!((590..=610).contains(&served[0]), "{served:?}");
        assert!((1300..=1400).contains(&served[1]), "{served:?}");
        assert!((4000..=4150).contains(&served[2]), "{served:?}");
    }

    proptest! {
        /// Whatever the weights: who always waits gets its share.
        #[test]
        fn shares_are_as_the_weights(weights in prop::collection::vec(1_u32..20, 2..8)) {
            let start = Clock::system().now();
            let mut queue = Queue::new(Some(100), Duration::from_secs(60), start);
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
                if let Ok((_, turn)) = place && turn.try_recv().is_ok() {
                    served[*n] += 1;
                }
            }
            // Two lanes are never further apart than a turn of each.
            let lanes: Vec<_> = served.iter().map(|n| f64::from(*n)).zip(weights.iter().map(|n| f64::from(*n))).collect();
            for (one, weight) in &lanes {
                for (other, others) in &lanes {
                    let apart = (one / weight - other / others).abs();
                    prop_assert!(apart <= 1.0 / weight + 1.0 / others + 1e-6, "{served:?} of {weights:?}");
                }
            }
        }
    }

    fn turns(per_second: u32, max_wait: u64) -> (FairQueue, Tasks) {
        let tasks = Tasks::new();
        (FairQueue::new(Some(per_second), Duration::from_millis(max_wait), &Clock::system(), &tasks), tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_refused_at_once_and_told_when_to_come() {
        let (turns, tasks) = turns(10, 250);
        let lending = name("lending");
        assert!(turns.turn(&lending, 1).await.is_ok());
        let waiting = [(); 2].map(|()| turns.turn(&lending, 1));
        let late = turns.turn(&lending, 1);
        let started = Clock::system().now();
        let [first, second] = waiting;
        let (first, second, late) = tokio::join!(first, second, late);
        assert!(first.is_ok() && second.is_ok());
        let wait = late.unwrap_err();
        assert!(wait <= Duration::from_millis(100) && !wait.is_zero(), "{wait:?}");
        let took = Clock::system().now() - started;
        assert!((190..=210).contains(&took.as_millis()), "{took:?}");
        assert!(tasks.drain(Duration::from_secs(1)).await, "nobody is left to serve");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_leaves_its_turn_to_the_next() {
        let (turns, _tasks) = turns(10, 1000);
        let (lending, payments) = (name("lending"), name("payments"));
        assert!(turns.turn(&lending, 1).await.is_ok());
        let started = Clock::system().now();
        {
            let mut gone = Box::pin(turns.turn(&lending, 1));
            assert!(futures_util::poll!(&mut gone).is_pending());
        }
        turns.turn(&payments, 1).await.unwrap().give_back();
        assert!(turns.turn(&payments, 1).await.is_ok());
        let took = Clock::system().now() - started;
        assert!((95..=110).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_back_and_ends_without_a_burst() {
        let (turns, _tasks) = turns(50, 2000);
        let lending = name("lending");
        turns.pause(Duration::from_secs(1));
        let started = Clock::system().now();
        let all = (0..10).map(|_| turns.turn(&lending, 1));
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
        let took = Clock::system().now() - started;
        assert!((1175..=1200).contains(&took.as_millis()), "{took:?}");
        turns.pause(Duration::from_secs(3600));
        let wait = turns.turn(&lending, 1).await.unwrap_err();
        assert_eq!(wait, LONGEST_PAUSE.saturating_sub(Duration::from_secs(2)));
    }
}
