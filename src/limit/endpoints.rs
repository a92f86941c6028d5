//! The endpoints of one account that refuse calls, each with its back-off.
//!
//! Iluma limits each method and path pattern separately.
//!
//! Invariants:
//! - A call to an endpoint that accepts calls costs one look-up in a map that is usually empty.
//! - A pass becomes invalid when its endpoint begins to refuse calls.
//! - If the probe's pass is dropped without a result, the next call may probe.

use super::backoff::{Backoff, BackoffDecision, Refused};
use super::shared::{Nodes, Probe, Seen};
use crate::base::clock::Clock;
use crate::base::keyring;
use crate::base::name::AccountName;
use crate::base::tasks::Tasks;
use crate::redis::Budget;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The interval at which a node checks if another node's probe has ended. A call takes about as long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The `retry-after` of a refusal while another call probes. The end of the probe is unknown, and a second is the
/// smallest value of the header.
const SOON: Duration = Duration::from_secs(1);

/// The method and the path pattern of an endpoint. All API versions of a path are one endpoint.
pub type Endpoint = Arc<str>;

/// The endpoints of one account. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Endpoints(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    account: AccountName,
    /// The endpoints that refuse calls. They come from the route table, so there are at most as many as its rows.
    refusing: Mutex<BTreeMap<Endpoint, Backoff>>,
    /// Wakes the waiting calls, because the state of an endpoint has changed.
    changed: Notify,
    passes: AtomicU64,
    nodes: Option<Nodes>,
    clock: Clock,
    tasks: Tasks,
}

/// The permission to send one call to an endpoint.
#[derive(Debug)]
pub(super) struct Pass {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    number: u64,
    is_probe: bool,
}

impl Endpoints {
    pub(super) fn new(account: &AccountName, nodes: Option<&Nodes>, clock: &Clock, tasks: &Tasks) -> Self {
        Self(Arc::new(Shared {
            account: account.clone(),
            refusing: Mutex::default(),
            changed: Notify::new(),
            passes: AtomicU64::new(0),
            nodes: nodes.cloned(),
            clock: clock.clone(),
            tasks: tasks.clone(),
        }))
    }

    /// Waits until an endpoint accepts calls, but not beyond `deadline`. Returns the permission for one call. `redis`
    /// bounds the waits for Redis.
    ///
    /// # Errors
    /// Returns the time after which to try again, if the endpoint would still back off at the deadline.
    pub(super) async fn pass(&self, endpoint: &Endpoint, deadline: Instant, redis: &Budget) -> Result<Pass, Duration> {
        let shared = &self.0;
        let number = shared.passes.fetch_add(1, Ordering::Relaxed);
        let pass = Pass { shared: Arc::clone(shared), endpoint: Arc::clone(endpoint), number, is_probe: false };
        let is_refusing = shared.refusing.lock().contains_key(endpoint);
        // Most calls do not wait. The future of a wait is on the heap, so that it costs other calls nothing.
        if is_refusing { Box::pin(shared.wait(pass, deadline, redis)).await } else { Ok(pass) }
    }

    /// Returns the endpoints that refuse calls now, each with the time until the next probe.
    pub(super) fn refusing(&self) -> Vec<(Endpoint, Duration)> {
        let now = self.0.clock.now();
        self.0.refusing.lock().iter().map(|(endpoint, backoff)| (Arc::clone(endpoint), backoff.left(now))).collect()
    }

    /// Asks Redis which endpoints of the account refuse calls, and applies the answer to this node.
    pub(super) async fn hear(&self, nodes: &Nodes) {
        let Some(seen) = nodes.refusing(&self.0.account).await else { return };
        let now = self.0.clock.now();
        let mut refusing = self.0.refusing.lock();
        for Seen { endpoint, step, left } in &seen {
            let known = refusing.entry(endpoint.as_str().into());
            known.or_insert_with(|| Backoff::elsewhere(now, *step, *left)).follow(now, *step, *left);
        }
        // A refusal that the other nodes do not know yet is kept: no probe can succeed before its wait is over.
        let is_seen = |endpoint: &Endpoint| seen.iter().any(|seen| *seen.endpoint == **endpoint);
        refusing.retain(|endpoint, backoff| !backoff.is_over(now) || is_seen(endpoint));
        drop(refusing);
        self.0.changed.notify_waiters();
    }
}

impl Pass {
    /// Returns false if the endpoint has begun to refuse calls since the pass was given.
    pub(super) fn is_valid(&self) -> bool {
        let refusing = self.shared.refusing.lock();
        let backoff = refusing.get(&self.endpoint);
        backoff.is_none_or(|backoff| self.is_probe && backoff.is_probe(self.number))
    }

    /// Records that upstream refused the call, because the rate of calls was too high. The endpoint backs off.
    pub(super) fn refused(mut self, retry_after: Option<Duration>) {
        let [random] = keyring::random::<1>();
        let probe = self.is_probe.then_some(self.number);
        let refused = Refused::new(probe, retry_after, f64::from(random) / 255.0);
        let now = self.shared.clock.now();
        let mut is_new = false;
        {
            let mut refusing = self.shared.refusing.lock();
            match refusing.get_mut(&self.endpoint) {
                Some(backoff) => backoff.refuse(now, refused),
                None => {
                    is_new = true;
                    refusing.insert(Arc::clone(&self.endpoint), Backoff::begin(now, refused));
                }
            }
        }
        if is_new {
            tracing::warn!(
                account = %self.shared.account,
                endpoint = &*self.endpoint,
                "Iluma refuses calls to this endpoint for their rate: backing off until one succeeds"
            );
        }
        self.is_probe = false;
        self.shared.changed.notify_waiters();
        self.tell(move |nodes, account, endpoint| async move {
            nodes.endpoint_refused(&account, &endpoint, refused).await;
        });
    }

    /// Records that upstream accepted the call. If the call was the probe, the back-off ends.
    pub(super) fn succeeded(mut self) {
        if !std::mem::take(&mut self.is_probe) {
            return;
        }
        self.shared.refusing.lock().remove(&self.endpoint);
        tracing::info!(
            account = %self.shared.account,
            endpoint = &*self.endpoint,
            "Iluma accepts calls to this endpoint again"
        );
        self.shared.changed.notify_waiters();
        self.tell(|nodes, account, endpoint| async move { nodes.endpoint_succeeded(&account, &endpoint).await });
    }

    /// Starts a task that reports to the other nodes, if there are any.
    fn tell<F: Future<Output = ()> + Send + 'static>(&self, say: impl FnOnce(Nodes, AccountName, Endpoint) -> F) {
        if let Some(nodes) = &self.shared.nodes {
            let said = say(nodes.clone(), self.shared.account.clone(), Arc::clone(&self.endpoint));
            self.shared.tasks.spawn(said);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe {
            if let Some(backoff) = self.shared.refusing.lock().get_mut(&self.endpoint) {
                backoff.release(self.number);
            }
            self.shared.changed.notify_waiters();
            self.tell(|nodes, account, endpoint| async move { nodes.release_probe(&account, &endpoint).await });
        }
    }
}

impl Shared {
    /// Waits until the endpoint accepts the call of `pass`, but not beyond `deadline`. The error is the time after
    /// which to try again.
    async fn wait(&self, mut pass: Pass, deadline: Instant, redis: &Budget) -> Result<Pass, Duration> {
        loop {
            // The listener is made before the look, so that no change between them is missed.
            let changed = self.changed.notified();
            let now = self.clock.now();
            let decision = self.refusing.lock().get_mut(&pass.endpoint).map(|backoff| backoff.decide(now, pass.number));
            let left = deadline.saturating_duration_since(now);
            let wait = match decision {
                None => return Ok(pass),
                Some(BackoffDecision::Probe) => {
                    pass.is_probe = true;
                    match self.ask(&pass, redis).await {
                        None => return Ok(pass),
                        Some(wait) => {
                            pass.is_probe = false;
                            wait
                        }
                    }
                }
                Some(BackoffDecision::Wait(wait)) => wait,
                Some(BackoffDecision::Probing) if left.is_zero() => return Err(SOON),
                Some(BackoffDecision::Probing) => left,
            };
            if wait > left {
                return Err(wait);
            }
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// Asks Redis if this node may probe. Returns `None` if the call may be sent, else the time after which to try
    /// again.
    async fn ask(&self, pass: &Pass, redis: &Budget) -> Option<Duration> {
        let nodes = self.nodes.as_ref()?;
        let probe = nodes.probe(&self.account, &pass.endpoint, redis).await;
        let (now, mut refusing) = (self.clock.now(), self.refusing.lock());
        match probe {
            // Redis is out, so this node decides alone.
            None | Some(Probe::Granted) => None,
            Some(Probe::Free) => {
                refusing.remove(&pass.endpoint);
                drop(refusing);
                self.changed.notify_waiters();
                None
            }
            Some(Probe::Wait { step, left }) => {
                let backoff = refusing.get_mut(&pass.endpoint)?;
                backoff.release(pass.number);
                backoff.follow(now, step, left.max(LOOK_AGAIN));
                Some(left.max(LOOK_AGAIN))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> (Endpoints, Clock) {
        let clock = Clock::adjustable();
        (Endpoints::new(&"live".parse().unwrap(), None, &clock, &Tasks::new()), clock)
    }

    async fn pass(endpoints: &Endpoints, clock: &Clock, endpoint: &str, wait: u64) -> Result<Pass, Duration> {
        let deadline = clock.now() + Duration::from_secs(wait);
        endpoints.pass(&endpoint.into(), deadline, &Budget::of(Duration::ZERO)).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_endpoint_backs_off_and_others_do_not() {
        let (endpoints, clock) = endpoints();
        let before = pass(&endpoints, &clock, "ktp", 0).await.unwrap();
        pass(&endpoints, &clock, "ktp", 0).await.unwrap().refused(Some(Duration::from_secs(5)));
        assert!(!before.is_valid(), "what was let through before is not sent");
        assert_eq!(pass(&endpoints, &clock, "ktp", 4).await.unwrap_err(), Duration::from_secs(5));
        assert!(pass(&endpoints, &clock, "bank", 0).await.is_ok());
        before.succeeded();
        assert_eq!(endpoints.refusing().len(), 1, "a success of a call from before ends nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_for_the_probe_go_when_it_succeeds() {
        let (endpoints, clock) = endpoints();
        pass(&endpoints, &clock, "ktp", 0).await.unwrap().refused(Some(Duration::from_secs(1)));
        let started = clock.now();
        let probe = pass(&endpoints, &clock, "ktp", 2).await.unwrap();
        assert!(probe.is_probe && probe.is_valid());
        assert!((1000..1100).contains(&(clock.now() - started).as_millis()));
        assert_eq!(pass(&endpoints, &clock, "ktp", 0).await.unwrap_err(), SOON, "one probes");
        let mut waits = Box::pin(pass(&endpoints, &clock, "ktp", 9));
        assert!(futures_util::poll!(&mut waits).is_pending());
        probe.succeeded();
        assert!(!waits.await.unwrap().is_probe);
        assert_eq!(endpoints.refusing().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_lets_the_next_probe() {
        let (endpoints, clock) = endpoints();
        pass(&endpoints, &clock, "ktp", 0).await.unwrap().refused(Some(Duration::from_secs(1)));
        let probe = pass(&endpoints, &clock, "ktp", 2).await.unwrap();
        let mut waits = Box::pin(pass(&endpoints, &clock, "ktp", 9));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(probe);
        assert!(waits.await.unwrap().is_probe);
    }
}
