//! The background task of the ledger: it writes to disk, exchanges with other nodes, and deletes old days.

use super::batch;
use super::by_hand;
use super::inner::Inner;
use super::journal;
use super::outage::{self, Outage};
use super::published::{Paired, PublishedLedgers};
use super::rendezvous;
use super::reports;
use super::restore;
use super::selection::Selection;
use super::settlement::{Call, End};
use crate::base::calendar::Day;
use crate::state::{IdentityClaim, Membership};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest time that counts in memory wait for the disk, and the interval of exchanges with other nodes.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// The interval between deletions of old days.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// The state of the ledger's background task.
#[derive(Debug)]
struct Keeper {
    ledger: Arc<Inner>,
    /// Changes each time that the connection to Redis is made or lost; `None` without Redis.
    news: Option<watch::Receiver<bool>>,
    pruned: Option<Instant>,
    exchanged: Instant,
    /// The day of the last exchange.
    day: Day,
    was_up: bool,
    outage: Outage,
    /// True once the journal was compared with this node's published lines.
    compared: bool,
    membership: Option<Membership>,
    /// The id of the newest settlement by reference that was read from Redis.
    last: String,
    /// The open calls that the other nodes see.
    shown: by_hand::Shown,
    offered: rendezvous::Offered,
    /// The position up to which this node has asked Redis for the outcomes of its older open calls.
    place: reports::Place,
}

/// Runs the ledger's background work until the future is dropped. With a `membership`, it publishes only while this
/// process is known to hold the node's identity.
pub(super) async fn keep(ledger: Arc<Inner>, membership: Option<Membership>) {
    let exchanged = ledger.clock.now();
    let last = "0-0".to_owned();
    let news = ledger.published.as_ref().map(|published| published.redis().watch());
    let day = ledger.today();
    let mut keeper = Keeper {
        ledger,
        news,
        pruned: None,
        exchanged,
        day,
        was_up: false,
        outage: Outage::default(),
        compared: false,
        membership,
        last,
        shown: by_hand::Shown::default(),
        offered: rendezvous::Offered::default(),
        place: reports::Place::default(),
    };
    loop {
        let _ = tokio::time::timeout(FLUSH_INTERVAL, keeper.ledger.closed.notified()).await;
        if batch::flush(&keeper.ledger).await.is_err() {
            // The database has logged the reason; more frequent attempts do not help on a full disk.
            tokio::time::sleep(FLUSH_INTERVAL).await;
        }
        keeper.note_readiness().await;
        keeper.exchange_if_due().await;
        keeper.prune_if_due().await;
    }
}

impl Keeper {
    async fn exchange_if_due(&mut self) {
        let ledger = Arc::clone(&self.ledger);
        let Some(published) = &ledger.published else { return };
        let (up, now) = (published.is_up() && self.may_publish(), ledger.clock.now());
        if up && !self.compared {
            self.compared = restore::recover(&ledger, published).await;
            if let Ok(unknown) = ledger.database.read(journal::unknown).await {
                ledger.totals.recount(unknown);
            }
        }
        if let Some(news) = self.news.as_mut().filter(|news| news.has_changed().unwrap_or(false)) {
            // The connection to Redis was lost for some time.
            news.mark_unchanged();
            self.was_up = false;
        }
        let up = up && self.compared;
        if up && !self.was_up {
            publish_anew(&ledger).await;
            reports::send_again(&ledger).await;
            self.last = "0-0".to_owned();
            self.shown = by_hand::Shown::default();
            self.offered = rendezvous::Offered::default();
        }
        self.was_up = up;
        if up && now.saturating_duration_since(self.exchanged) >= FLUSH_INTERVAL {
            self.exchanged = now;
            let day = ledger.today();
            if day != self.day {
                // The day that is over is published again, so that Redis has its text.
                ledger.changed([std::mem::replace(&mut self.day, day).to_string()]);
            }
            exchange(&ledger, published, &mut self.last).await;
            reports::send(&ledger, published).await;
            reports::take(&ledger, published, &mut self.place).await;
            reports::withdraw(&ledger, published).await;
            by_hand::exchange(&ledger, published, &mut self.shown).await;
            rendezvous::exchange(&ledger, published, &mut self.offered).await;
            reports::forget_secured(&ledger).await;
        }
    }

    async fn note_readiness(&mut self) {
        let (ledger, database) = (&self.ledger, &self.ledger.database);
        if database.write_fault().is_some() || self.outage.is_open() {
            outage::probe(database).await;
        }
        self.outage.note(ledger.clock.now(), database.refused_writes());
        let unwritable = self.outage.long(ledger.clock.now()).map(|fault| {
            format!("the database of ledger and inbox can't be written: {fault} ({})", database.path().display())
        });
        let cloned = self.membership.as_ref().and_then(|membership| match membership.identity_claim() {
            IdentityClaim::Cloned { other } => Some(format!("node {other:?} runs with this node's identity")),
            IdentityClaim::Held | IdentityClaim::Unverified => None,
        });
        *ledger.unready.lock() = unwritable.or(cloned);
    }

    fn may_publish(&self) -> bool {
        self.membership.as_ref().is_none_or(|membership| match membership.identity_claim() {
            IdentityClaim::Held => true,
            IdentityClaim::Unverified | IdentityClaim::Cloned { .. } => false,
        })
    }

    async fn prune_if_due(&mut self) {
        let now = self.ledger.clock.now();
        if self.pruned.is_some_and(|at| now.saturating_duration_since(at) < PRUNE_INTERVAL) {
            return;
        }
        self.pruned = Some(now);
        let retention = self.ledger.live.load().retention;
        if let Some(published) = self.ledger.published.as_ref().filter(|_| self.was_up)
            && let Some(oldest) = self.ledger.clock.wall().checked_sub(retention)
        {
            let _ = published.forget_open(oldest).await;
        }
        let oldest = self.ledger.today().before(retention).to_string();
        // A failed deletion is tried again in an hour.
        let _ = self.ledger.database.write(move |connection| journal::prune(connection, &oldest)).await;
    }
}

/// Changed days that were taken from memory for Redis. If they are dropped before Redis has them, they are put back.
struct Outgoing<'a> {
    ledger: &'a Inner,
    days: BTreeSet<String>,
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        self.ledger.changed(std::mem::take(&mut self.days));
    }
}

/// Publishes changed days, and receives settlements by reference.
async fn exchange(ledger: &Arc<Inner>, published: &PublishedLedgers, last: &mut String) {
    let mut outgoing = Outgoing { ledger, days: std::mem::take(&mut *ledger.unpublished.lock()) };
    if publish(ledger, published, &outgoing.days).await.is_some() {
        outgoing.days.clear();
    }
    drop(outgoing);
    for Paired(name, outcome, call) in published.hear(last).await.unwrap_or_default() {
        ledger.close(Call::Paired(name, call), End::Outcome(outcome, None));
    }
}

/// Publishes the lines of these days. Returns `None` if they could not be read or published.
async fn publish(ledger: &Inner, published: &PublishedLedgers, days: &BTreeSet<String>) -> Option<()> {
    let day = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    let (Some(first), Some(last)) = (day(days.first()), day(days.last())) else { return Some(()) };
    let read = move |connection: &Connection| journal::rows(connection, &Selection::days(first, last));
    let mut rows = ledger.database.read(read).await.ok()?;
    rows.retain(|row| days.contains(&row.day));
    let retention = ledger.live.load().retention;
    // The journal records the publication before Redis does. In the other order, a crash between the two would make the
    // journal look like an older copy.
    let generation = ledger.database.write(journal::next_generation).await.ok()?;
    published.publish(&rows, ledger.today(), retention, generation).await.ok()
}

/// Schedules every day to be published again, because Redis may have lost its lines.
async fn publish_anew(ledger: &Inner) {
    if let Ok(days) = ledger.database.read(journal::days).await {
        ledger.changed(days);
    }
}
