//! The fair queue of an account, with one rate and a lane for each tenant.
//!
//! Invariants: no request waits longer than `max_wait`; a granted slot is used, or returned when its guard is dropped,
//! wherever the request is cancelled.

use super::queue::{Pace, Queue, Ticket};
use super::shared::{Given, Nodes};
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The fair queue of one account, which grants slots for calls. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct FairQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the task that grants slots before its timer ends.
    moved: Notify,
    clock: Clock,
    tasks: Tasks,
    /// The other nodes, if several share the account.
    far: Option<Far>,
}

/// The connection to the other nodes, for an account whose rate all nodes share.
#[derive(Debug)]
struct Far {
    nodes: Nodes,
    account: AccountName,
    /// True if this node granted the last slots without the other nodes.
    alone: AtomicBool,
}

/// A granted slot. If it is dropped before it was [used](Self::used), the next waiting request gets it.
#[derive(Debug)]
pub(super) struct Slot(Option<Arc<Shared>>);

impl FairQueue {
    /// Makes the queue of an account. If there are `nodes`, all nodes share the account's rate.
    pub(super) fn new(account: &AccountName, pace: Pace, nodes: Option<&Nodes>, clock: &Clock, tasks: &Tasks) -> Self {
        let far = |nodes: &Nodes| Far { nodes: nodes.clone(), account: account.clone(), alone: AtomicBool::new(false) };
        let far = nodes.map(far);
        let mut queue = Queue::new(pace, clock.now());
        queue.is_far = far.is_some() && pace.per_second.is_some();
        let (clock, tasks) = (clock.clone(), tasks.clone());
        Self(Arc::new(Shared { queue: Mutex::new(queue), moved: Notify::new(), clock, tasks, far }))
    }

    /// Applies another rate and longest wait. Waiting requests go on waiting.
    pub(super) fn reshape(&self, pace: Pace) {
        let mut queue = self.0.queue.lock();
        queue.reshape(pace, self.0.clock.now());
        queue.is_far = self.0.far.is_some() && pace.per_second.is_some();
        drop(queue);
        self.0.moved.notify_one();
    }

    /// Waits for a slot of the account, for its `max_wait` at most. `weight` is the weight of the tenant.
    ///
    /// # Errors
    /// Returns the time after which to try again if the slot would not come in time, or did not come.
    pub(super) async fn slot(&self, tenant: &TenantName, weight: u32) -> Result<Slot, Duration> {
        let (entry, max_wait) = {
            let now = self.0.clock.now();
            let mut queue = self.0.queue.lock();
            if queue.take(now) {
                return Ok(Slot(Some(Arc::clone(&self.0))));
            }
            let ticket = queue.enter(now, tenant, weight)?;
            if !std::mem::replace(&mut queue.is_served, true) {
                let shared = Arc::clone(&self.0);
                self.0.tasks.spawn(async move { shared.serve().await });
            }
            (QueueEntry { shared: &self.0, tenant, weight, ticket }, queue.max_wait)
        };
        entry.wait(max_wait).await
    }

    /// Returns the slots per second, and the burst. Returns `None` if the account has no rate.
    pub(super) fn shape(&self) -> Option<(u32, u32)> {
        self.0.queue.lock().shape()
    }

    /// Returns the number of waiting requests.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.0.queue.lock().waiting
    }
}

impl Slot {
    /// Marks the slot as used, because its call is being sent.
    pub(super) fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.give_back();
        }
    }
}

/// A request's entry in the queue. Dropping the entry removes it from the queue.
struct QueueEntry<'a> {
    shared: &'a Arc<Shared>,
    tenant: &'a TenantName,
    weight: u32,
    ticket: Ticket,
}

impl QueueEntry<'_> {
    async fn wait(mut self, most: Duration) -> Result<Slot, Duration> {
        match tokio::time::timeout(most, &mut self.ticket.slot).await {
            Ok(Ok(())) => Ok(Slot(Some(Arc::clone(self.shared)))),
            _ => Err(self.shared.queue.lock().estimate(self.shared.clock.now(), self.tenant, self.weight)),
        }
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.shared.queue.lock().leave(self.tenant, self.ticket.number);
        // The slot may have been granted at the moment of the cancellation.
        if self.ticket.slot.try_recv().is_ok() {
            self.shared.give_back();
        }
    }
}

impl Shared {
    fn give_back(&self) {
        if self.far.as_ref().is_some_and(|far| !far.alone.load(Ordering::Relaxed)) {
            return self.correct(1);
        }
        if let Some(rate) = &mut self.queue.lock().rate {
            rate.give_back();
        }
        self.moved.notify_one();
    }

    /// Gives `back` unused slots back to Redis, for all nodes.
    fn correct(&self, back: u32) {
        let (Some(far), Some(shape)) = (&self.far, self.queue.lock().shape()) else { return };
        let (nodes, account) = (far.nodes.clone(), far.account.clone());
        self.tasks.spawn(async move { nodes.correct_turns(&account, shape, back).await });
    }

    /// Grants slots to the waiting requests, until no request waits.
    async fn serve(&self) {
        loop {
            let wait = match &self.far {
                Some(far) => self.serve_far(far).await,
                None => self.queue.lock().serve(self.clock.now()),
            };
            let Some(wait) = wait else { return };
            // The timer rounds up to whole milliseconds, so it never wakes this task too early.
            let _ = tokio::time::timeout(wait, self.moved.notified()).await;
        }
    }

    /// Asks Redis for slots and grants them to this node's requests. While Redis is out, grants this node's part of the
    /// slots. Returns the time until the next slot, or `None` if no request waits.
    async fn serve_far(&self, far: &Far) -> Option<Duration> {
        let (shape, wants) = {
            let mut queue = self.queue.lock();
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
            // Some requests may have been cancelled during the query to Redis.
            unused += (0..count).map(|_| u32::from(!queue.give_to(&tenant))).sum::<u32>();
        }
        (queue.crowd, queue.next_far) = (crowd, Some(now + wait));
        let left = (queue.waiting > 0).then_some(wait);
        if left.is_none() {
            queue.end();
        }
        drop(queue);
        if unused > 0 {
            self.correct(unused);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TenantName {
        text.parse().unwrap()
    }

    fn queue(per_second: u32, max_wait: u64) -> (FairQueue, Tasks) {
        let tasks = Tasks::new();
        let pace = Pace { per_second: Some(per_second), max_wait: Duration::from_millis(max_wait) };
        (FairQueue::new(&"live".parse().unwrap(), pace, None, &Clock::system(), &tasks), tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_would_wait_too_long_is_refused_at_once_and_told_when_to_come() {
        let (queue, tasks) = queue(10, 250);
        let lending = name("lending");
        queue.slot(&lending, 1).await.unwrap().used();
        let waiting = [(); 2].map(|()| queue.slot(&lending, 1));
        let late = queue.slot(&lending, 1);
        let started = Clock::system().now();
        let [first, second] = waiting;
        let used = |slot: Result<Slot, Duration>| slot.map(Slot::used);
        let (first, second, late) =
            tokio::join!(async { used(first.await) }, async { used(second.await) }, async { used(late.await) },);
        assert_eq!((first, second), (Ok(()), Ok(())));
        let wait = late.unwrap_err();
        assert!(wait <= Duration::from_millis(100) && !wait.is_zero(), "{wait:?}");
        let took = Clock::system().now() - started;
        assert!((190..=210).contains(&took.as_millis()), "{took:?}");
        assert!(tasks.drain(Duration::from_secs(1)).await, "nothing is left to serve");
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_request_leaves_its_slot_to_the_next() {
        let (queue, _tasks) = queue(10, 1000);
        let (lending, payments) = (name("lending"), name("payments"));
        queue.slot(&lending, 1).await.unwrap().used();
        let started = Clock::system().now();
        {
            let mut gone = Box::pin(queue.slot(&lending, 1));
            assert!(futures_util::poll!(&mut gone).is_pending());
        }
        drop(queue.slot(&payments, 1).await.unwrap());
        queue.slot(&payments, 1).await.unwrap().used();
        let took = Clock::system().now() - started;
        assert!((95..=110).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_dropped_at_any_await_point_takes_no_slot() {
        let lending = name("lending");
        // The future is dropped after `polls` polls, `steps` of 10 ms apart: before its entry, while it waits, and at
        // the moment of its slot.
        for (polls, steps) in (0..4).flat_map(|polls| (0..15).map(move |steps| (polls, steps))) {
            let (queue, _tasks) = queue(10, 1000);
            queue.slot(&lending, 1).await.unwrap().used();
            let started = Clock::system().now();
            let mut gone = Box::pin(queue.slot(&lending, 1));
            let mut is_over = false;
            for _ in 0..polls {
                is_over = is_over || futures_util::poll!(&mut gone).is_ready();
                tokio::time::sleep(Duration::from_millis(10) * steps).await;
            }
            drop(gone);
            let case = format!("{polls} polls, {steps} steps apart");
            assert_eq!(queue.waiting(), 0, "{case}");
            let sooner = Clock::system().now() - started;
            queue.slot(&lending, 1).await.unwrap().used();
            let took = Clock::system().now() - started;
            // This request gets the cancelled request's slot: at 100 ms, or at once if that is over.
            let expected = sooner.max(Duration::from_millis(100));
            assert!(took <= expected + Duration::from_millis(2), "{case}: {took:?}, expected {expected:?}");
        }
    }
}
