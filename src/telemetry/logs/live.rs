//! Subscriptions to the access log: the lines as they are written, for operators who watch live.
//!
//! Invariants: a subscriber costs requests nothing, because the log's own thread passes on the scrubbed lines; without
//! a subscriber, a batch of lines costs one read of a number; a subscriber gets a bounded number of lines a second;
//! lines that it loses by this bound, or because it is slow, are counted; no subscriber delays another.

use crate::base::clock::Clock;
use crate::base::name::TenantName;
use crate::iluma::route_name::RouteName;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

/// The largest number of subscribers of a node. It suffices for every operator of a large company, with several windows
/// each.
pub const MOST_SUBSCRIBERS: usize = 64;
/// The largest number of lines that wait for a subscriber. A busy node writes this number in half a second. The lines
/// have some 200 KiB.
const WAITING: usize = 512;
/// The average number of lines a second that a subscriber gets after its first [`WAITING`] lines. It is more than a
/// person reads, and bounds the cost of subscribers for a busy node.
const PACE: u32 = 200;

/// The source of an access log's lines for subscribers. Clones share the subscribers.
#[derive(Debug, Clone, Default)]
pub struct LiveLines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    clock: Clock,
    /// The number of subscribers.
    listening: AtomicUsize,
    next: AtomicU64,
    subscribers: Mutex<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    id: u64,
    filter: LineFilter,
    lines: mpsc::Sender<Bytes>,
    dropped: Arc<AtomicU64>,
    allowance: Allowance,
}

/// The number of lines that a subscriber may still get: at first [`WAITING`], then [`PACE`] more each second, up to
/// [`WAITING`].
#[derive(Debug)]
struct Allowance {
    lines: u32,
    /// The time up to which the allowance has grown.
    at: Instant,
}

impl Allowance {
    const MOST: u32 = WAITING as u32;

    const fn new(now: Instant) -> Self {
        Self { lines: Self::MOST, at: now }
    }

    fn grow(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        let earned = u32::try_from(since.as_millis() * u128::from(PACE) / 1000).unwrap_or(Self::MOST);
        if earned > 0 {
            (self.lines, self.at) = (self.lines.saturating_add(earned).min(Self::MOST), now);
        }
    }

    /// Takes one line from the allowance; returns false if none is left.
    fn take(&mut self) -> bool {
        let left = self.lines.checked_sub(1);
        self.lines = left.unwrap_or(0);
        left.is_some()
    }
}

impl Subscriber {
    /// Returns true if further lines must be offered to the subscriber one by one: it has allowance left, or its filter
    /// decides which of the lines count as lost.
    fn looks_on(&self) -> bool {
        self.allowance.lines > 0 || !self.filter.is_empty()
    }

    /// Sends a line to the subscriber, or counts it as dropped. The subscriber's filter was applied before.
    fn pass(&mut self, line: Bytes) {
        if !self.allowance.take() || self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The lines that a subscriber wants. A field that is `None` accepts every line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineFilter {
    /// Only lines of this team.
    pub tenant: Option<TenantName>,
    /// Only lines of this row of the route table.
    pub route: Option<RouteName>,
    /// Only lines with these statuses.
    pub status: Option<Statuses>,
}

/// One status, or a class of statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// Exactly this status.
    One(u16),
    /// All statuses of a class, given by its first digit.
    Class(u16),
}

impl std::str::FromStr for Statuses {
    type Err = ();

    /// Reads `404` or `4xx`.
    fn from_str(text: &str) -> Result<Self, ()> {
        match (text.len(), text.strip_suffix("xx")) {
            (3, Some(class)) => class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::Class),
            (3, None) => text.parse().ok().filter(|status| (100..600).contains(status)).map(Self::One),
            _ => None,
        }
        .ok_or(())
    }
}

/// The fields of a line that filters compare.
#[derive(Deserialize)]
struct Fields<'a> {
    tenant: Option<&'a str>,
    route: &'a str,
    status: u16,
}

impl LineFilter {
    fn takes(&self, line: &Fields<'_>) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| line.tenant == Some(tenant.as_str()))
            && self.route.is_none_or(|route| line.route == route.as_str())
            && self.status.is_none_or(|statuses| match statuses {
                Statuses::One(status) => line.status == status,
                Statuses::Class(class) => line.status / 100 == class,
            })
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A subscription to the lines of an access log. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    lines: mpsc::Receiver<Bytes>,
    dropped: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Subscription {
    /// Waits for the next line, and returns it without its newline. The end of the log does not end the wait.
    pub async fn line(&mut self) -> Bytes {
        match self.lines.recv().await {
            Some(line) => line,
            // The subscription shares the sender, so the channel never closes.
            None => std::future::pending().await,
        }
    }

    /// Returns the number of lines that were lost since the last call of this method.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.shared.subscribers.lock();
        subscribers.retain(|subscriber| subscriber.id != self.id);
        self.shared.listening.store(subscribers.len(), Ordering::Relaxed);
    }
}

impl LiveLines {
    /// Subscribes to the lines that a filter accepts; `None` if the node has [`MOST_SUBSCRIBERS`] subscribers already.
    #[must_use]
    pub fn subscribe(&self, filter: LineFilter) -> Option<Subscription> {
        let mut subscribers = self.0.subscribers.lock();
        if subscribers.len() >= MOST_SUBSCRIBERS {
            return None;
        }
        let (id, dropped) = (self.0.next.fetch_add(1, Ordering::Relaxed), Arc::default());
        let (sender, lines) = mpsc::channel(WAITING);
        let allowance = Allowance::new(self.0.clock.now());
        subscribers.push(Subscriber { id, filter, lines: sender, dropped: Arc::clone(&dropped), allowance });
        self.0.listening.store(subscribers.len(), Ordering::Relaxed);
        Some(Subscription { id, lines, dropped, shared: Arc::clone(&self.0) })
    }

    /// Passes whole lines on to the subscribers.
    fn offer(&self, lines: &[u8]) {
        if self.0.listening.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = self.0.clock.now();
        let mut subscribers = self.0.subscribers.lock();
        subscribers.iter_mut().for_each(|subscriber| subscriber.allowance.grow(now));
        let is_filtered = subscribers.iter().any(|subscriber| !subscriber.filter.is_empty());
        let mut lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        while subscribers.iter().any(Subscriber::looks_on) {
            let Some(line) = lines.next() else { return };
            let fields = if is_filtered { serde_json::from_slice::<Fields<'_>>(line).ok() } else { None };
            let is_wanted =
                |filter: &LineFilter| filter.is_empty() || fields.as_ref().is_some_and(|line| filter.takes(line));
            let mut copy = None;
            for subscriber in subscribers.iter_mut().filter(|subscriber| is_wanted(&subscriber.filter)) {
                subscriber.pass(copy.get_or_insert_with(|| Bytes::copy_from_slice(line)).clone());
            }
        }
        // No subscriber has a filter or any allowance left, so the remaining lines are dropped for all of them.
        let rest = lines.count() as u64;
        for subscriber in subscribers.iter() {
            subscriber.dropped.fetch_add(rest, Ordering::Relaxed);
        }
    }
}

/// The sink of an access log, which also passes the written lines on to subscribers.
pub(super) struct Shown {
    pub(super) out: Box<dyn Write + Send>,
    pub(super) live: LiveLines,
}

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    // The log writes whole lines, and only with this method.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.live.offer(bytes);
        self.out.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LINES: &[u8] = br#"{"tenant":"lending","route":"bank","status":200}
{"tenant":"lending","route":"cft","status":404}
{"tenant":null,"route":"bank","status":401}
"#;

    fn seen(subscription: &mut Subscription) -> Vec<u16> {
        let lines = std::iter::from_fn(|| subscription.lines.try_recv().ok());
        lines.map(|line| serde_json::from_slice::<Fields<'_>>(&line).unwrap().status).collect()
    }

    #[test]
    fn a_subscriber_gets_the_lines_that_its_filter_takes() {
        let live = LiveLines::default();
        let tenant = Some("lending".parse().unwrap());
        for (filter, expected) in [
            (LineFilter::default(), vec![200, 404, 401]),
            (LineFilter { tenant: tenant.clone(), ..LineFilter::default() }, vec![200, 404]),
            (LineFilter { route: Some(RouteName::Bank), ..LineFilter::default() }, vec![200, 401]),
            (LineFilter { status: Some(Statuses::Class(4)), ..LineFilter::default() }, vec![404, 401]),
            (LineFilter { tenant, route: Some(RouteName::Cft), status: Some(Statuses::One(404)) }, vec![404]),
            (LineFilter { status: Some(Statuses::One(500)), ..LineFilter::default() }, vec![]),
        ] {
            let mut subscription = live.subscribe(filter.clone()).unwrap();
            live.offer(LINES);
            assert_eq!(seen(&mut subscription), expected, "{filter:?}");
        }
        assert_eq!(live.0.listening.load(Ordering::Relaxed), 0, "those that ended are gone");
    }

    #[test]
    fn a_status_is_one_or_a_class() {
        for (text, expected) in [
            ("404", Some(Statuses::One(404))),
            ("4xx", Some(Statuses::Class(4))),
            ("9xx", None),
            ("xx", None),
            ("4xxx", None),
            ("42", None),
            ("600", None),
            ("-12", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_slow_subscriber_loses_lines_which_are_counted_and_the_number_of_subscribers_is_bounded() {
        let live = LiveLines::default();
        let mut slow = live.subscribe(LineFilter::default()).unwrap();
        for _ in 0..WAITING {
            live.offer(LINES);
        }
        assert_eq!(seen(&mut slow).len(), WAITING);
        assert_eq!((slow.dropped(), slow.dropped()), (2 * WAITING as u64, 0));
        let all: Vec<_> = (1..MOST_SUBSCRIBERS).map(|_| live.subscribe(LineFilter::default()).unwrap()).collect();
        assert!(live.subscribe(LineFilter::default()).is_none());
        drop(all);
        assert!(live.subscribe(LineFilter::default()).is_some());
    }

    #[test]
    fn a_busy_node_shows_each_subscriber_its_pace_and_counts_the_rest() {
        let clock = Clock::adjustable();
        let live = LiveLines(Arc::new(Shared { clock: clock.clone(), ..Shared::default() }));
        let bank = LineFilter { route: Some(RouteName::Bank), ..LineFilter::default() };
        let filters = (0..49).map(|_| LineFilter::default()).chain([bank]);
        let mut subscriptions: Vec<_> = filters.map(|filter| live.subscribe(filter).unwrap()).collect();
        let (mut seen_by, mut dropped) = (vec![0; 50], vec![0; 50]);
        let (batch, started) = (LINES.repeat(300), clock.now());
        for _ in 0..100 {
            clock.advance(Duration::from_millis(20));
            live.offer(&batch);
            for (at, subscription) in subscriptions.iter_mut().enumerate() {
                seen_by[at] += seen(subscription).len();
                dropped[at] += usize::try_from(subscription.dropped()).unwrap();
            }
        }
        // Two seconds passed, and the time of the test itself.
        let passed = usize::try_from(clock.now().duration_since(started).as_secs()).unwrap() + 1;
        let (least, most) = (WAITING + 2 * PACE as usize, WAITING + (passed + 1) * PACE as usize);
        for at in 0..50 {
            let offered = if at == 49 { 2 * 300 * 100 } else { 3 * 300 * 100 };
            assert!((least - 1..most).contains(&seen_by[at]), "{at}: {}", seen_by[at]);
            assert_eq!(seen_by[at] + dropped[at], offered, "{at}");
        }
    }

    #[test]
    fn an_allowance_grows_with_time_up_to_what_may_wait() {
        let start = Clock::system().now();
        let mut allowance = Allowance::new(start);
        while allowance.take() {}
        for (millis, expected) in [(4, 0), (5, 1), (9, 1), (1005, 201), (60_000, Allowance::MOST)] {
            allowance.grow(start + Duration::from_millis(millis));
            assert_eq!(allowance.lines, expected, "after {millis} ms");
        }
    }
}
