//! The public interface of the ledger.

use super::booking::Booking;
use super::charge::Outcome;
use super::counts::Statement;
use super::inner::{Inner, LedgerConfig};
use super::journal::Changes;
use super::published::PublishedLedgers;
use super::selection::Selection;
use super::settlement::{Call, CallNumber, ClaimLink, End, HandError, OpenCall, Refund, Rules, SettledByHand, Spent};
use super::tally::Tally;
use super::totals::{RouteTotals, Totals};
use super::{batch, by_hand, inner, journal, keeper, references, restore};
use crate::base::calendar::Day;
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring::Pseudonymizer;
use crate::base::name::{AccountName, TenantName};
use crate::config::Settings;
use crate::iluma::route_name::RouteName;
use crate::redis::RedisClient;
use crate::state::Membership;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Notify;

/// The record of every call that may be charged, with its outcome. Clones share the same record.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

impl Ledger {
    /// Opens the ledger in `database`, whose migrations have run; `redis` gives access to the ledgers of other nodes.
    /// Calls that a crash interrupted keep an unknown outcome.
    ///
    /// # Errors
    /// Returns an error if the database can't be used.
    pub async fn open(
        database: Database,
        settings: &Settings,
        clock: Clock,
        redis: Option<RedisClient>,
    ) -> Result<Self, DatabaseError> {
        let live = LedgerConfig::new(settings);
        let today = live.calendar.day(clock.wall());
        let (now, is_alone) = (journal::millis(clock.wall()), redis.is_none());
        let (spent, open, node, first_new, restored, unknown, changes) = database
            .write(move |connection| {
                let (node, first_new) = (journal::node(connection)?, journal::first_new(connection)?);
                let mut changes = Changes::default();
                if is_alone {
                    // Calls that were in flight in the earlier run are lost. An outcome that waits for their reference
                    // settles them now.
                    let rules = Rules { first_new, is_alone, now, day: today };
                    references::pair_all(connection, rules, &mut changes)?;
                }
                let (spent, open) = (journal::spent(connection, today)?, journal::open(connection)?);
                let unknown = journal::unknown(connection)?;
                Ok((spent, open, node, first_new, journal::restored(connection)?, unknown, changes))
            })
            .await?;
        if open > 0 {
            tracing::info!(
                calls = open,
                "calls from an earlier run have an unknown outcome; GET /v1/usage/unknown lists them"
            );
        }
        let totals = Totals::default();
        totals.ended(changes.ended);
        totals.recount(unknown);
        let root = settings.state.root_key.expose_secret();
        Ok(Self(Arc::new(Inner {
            database,
            clock,
            refunds: Mutex::default(),
            freed: Mutex::new(changes.freed),
            freeing: Notify::new(),
            unpublished: Mutex::default(),
            published: redis.map(|redis| PublishedLedgers::new(redis, &node)),
            namer: Pseudonymizer::new(root, "ledger"),
            live: ArcSwap::from_pointee(live),
            tallies: Mutex::default(),
            closings: Mutex::default(),
            written: AtomicU64::new(0),
            early: Mutex::default(),
            writer: Arc::default(),
            closed: Notify::new(),
            unready: Mutex::default(),
            spent,
            first_new,
            restored: Mutex::new(restored),
            node,
            totals,
            name: settings.node.clone(),
        })))
    }

    /// Applies the prices, the calendar and the retention of new settings. Calls that are already booked keep their
    /// price and their day.
    pub fn reload(&self, settings: &Settings) {
        self.0.live.store(Arc::new(LedgerConfig::new(settings)));
    }

    /// Returns the charged calls of each team today and this month, as they were when the ledger was opened.
    #[must_use]
    pub fn spent(&self) -> &[Spent] {
        &self.0.spent
    }

    /// Returns the price of a call on a route, in rupiah.
    #[must_use]
    pub fn price(&self, route: RouteName) -> u64 {
        self.0.live.load().prices[route as usize]
    }

    /// Takes the prices of calls that turned out not to be billable. Each price is returned only once.
    #[must_use]
    pub fn take_refunds(&self) -> Vec<Refund> {
        std::mem::take(&mut *self.0.refunds.lock())
    }

    /// Returns this node's identity, which stays the same as long as the node keeps its database.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Returns `None` if this node is ready, else the reason why it should get no requests: the database could not be
    /// written for 10 s, or another process holds this node's identity. The database holds the ledger and, without
    /// Redis, the inbox.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        self.0.unready.lock().clone()
    }

    /// Returns the counters of a team.
    #[must_use]
    pub fn tally(&self, tenant: &TenantName) -> Arc<Tally> {
        Arc::clone(self.0.tallies.lock().entry(tenant.clone()).or_insert_with(|| Arc::new(Tally::new())))
    }

    /// Returns the outcomes of calls since the start of the process, by team and route. Every team and charged route of
    /// the configuration is included, with zero if it had no call.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<(String, String), RouteTotals> {
        self.0.totals.routes(self.teams().into_iter())
    }

    /// Returns the number of calls whose outcome is not known now, by team.
    #[must_use]
    pub fn unknown_calls(&self) -> BTreeMap<String, u64> {
        self.0.totals.unknown(self.teams().into_iter())
    }

    fn teams(&self) -> Vec<TenantName> {
        self.0.tallies.lock().keys().cloned().collect()
    }

    /// Books a call that may be charged. Once this returns, the intent is on disk and the call may be sent. The intent
    /// is withdrawn if the future is dropped earlier, or if the booking is dropped without an outcome. `claim` is the
    /// claim of the request's idempotency key, if it has one. `reference` is the account, and the reference in the form
    /// that Iluma receives. The reference can settle the call if the answer is lost.
    ///
    /// # Errors
    /// Returns an error if the intent was not written; the call must not be made then.
    pub async fn book(
        &self,
        tenant: &TenantName,
        route: RouteName,
        claim: Option<ClaimLink>,
        reference: Option<(&AccountName, &str)>,
    ) -> Result<Booking, DatabaseError> {
        let reference = reference.map(|(account, text)| self.0.reference(account, route, text));
        Booking::take(&self.0, tenant, route, claim, reference).await
    }

    /// Waits until calls with claims were settled as not billable, by a callback, a GET or an operator. Returns these
    /// claims, whose idempotency keys may be used again. Only one task may wait.
    pub async fn freed(&self) -> Vec<ClaimLink> {
        loop {
            let freed = std::mem::take(&mut *self.0.freed.lock());
            if !freed.is_empty() {
                return freed;
            }
            self.0.freeing.notified().await;
        }
    }

    /// Settles the pending call whose answer named `id`, Iluma's id of a record. The outcome is from a callback or a
    /// GET.
    pub fn settle(&self, account: &AccountName, id: &str, outcome: Outcome) {
        let name = self.0.name(account, id);
        self.0.close(Call::Named(name), End::Outcome(outcome, Some(name)));
    }

    /// Settles the call whose answer named `id`, Iluma's id of a record. If no answer named it, settles the oldest lost
    /// call with the same account, route and reference. `reference` is in the form that Iluma receives. An unknown
    /// outcome means that Iluma still processes the record: the lost call is bound to the id, and a later outcome
    /// settles the call.
    pub fn settle_by_reference(
        &self,
        account: &AccountName,
        id: &str,
        (route, reference): (RouteName, &str),
        outcome: Outcome,
    ) {
        let (name, reference) = (self.0.name(account, id), self.0.reference(account, route, reference));
        self.0.close(Call::Referenced(name, reference), End::Outcome(outcome, None));
    }

    /// Returns false if too many outcomes wait for the disk. An outcome that will be reported again need not be
    /// recorded then.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.closings.lock().waiting.len() < inner::MOST_EARLY
    }

    /// Returns once every recorded outcome is on disk.
    ///
    /// # Errors
    /// Returns an error if the outcomes can't be written now; they are kept, and tried again.
    pub async fn settled(&self) -> Result<(), DatabaseError> {
        batch::settled(&self.0).await
    }

    /// Writes all counts and outcomes so far, and returns once they are on disk.
    ///
    /// # Errors
    /// Returns an error if they can't be written now; they are kept, and tried again.
    pub async fn flush(&self) -> Result<(), DatabaseError> {
        batch::flush(&self.0).await
    }

    /// Writes the remaining data at the end of the process. Waits first for the queued intents, so that the withdrawals
    /// of cancelled callers are written too.
    ///
    /// # Errors
    /// Returns an error if something could not be written and is lost.
    pub async fn finish(&self) -> Result<(), DatabaseError> {
        // This write runs after every intent in the writer's queue. Intents of cancelled callers are then withdrawn,
        // and the flush writes that.
        self.0.database.write(|_| Ok(())).await?;
        self.flush().await
    }

    /// Returns the selected lines: of all nodes if Redis answers, else of this node.
    ///
    /// # Errors
    /// Returns an error if the ledger can't be read.
    pub async fn statement(&self, selection: Selection) -> Result<Statement, DatabaseError> {
        self.flush().await?;
        let wanted = selection.clone();
        let own = self.0.database.read(move |connection| journal::rows(connection, &wanted));
        let others = async {
            match &self.0.published {
                Some(published) => published.others(&self.kept(&selection)).await.ok(),
                None => Some(Vec::new()),
            }
        };
        let (own, others) = tokio::join!(own, others);
        let restored = restore::restored(&self.0, selection.from, selection.to);
        Ok(Statement::of(&selection, own?, others, restored))
    }

    /// Returns true if the ledger of any node has a line of the team, or if the ledgers of other nodes can't be read.
    ///
    /// # Errors
    /// Returns an error if the ledger can't be read.
    pub async fn has_lines(&self, tenant: &TenantName) -> Result<bool, DatabaseError> {
        let whole = self.kept(&Selection::days(Day::MIN, Day::MAX));
        // With all columns the search ends at the first lines that are found.
        let selection = Selection { tenant: Some(tenant.clone()), most: 1, ..whole };
        let Statement { rows, is_complete, .. } = self.statement(selection).await?;
        Ok(!rows.is_empty() || !is_complete)
    }

    /// Limits a selection to the days that nodes keep, because each day costs a query to Redis.
    fn kept(&self, selection: &Selection) -> Selection {
        let (today, retention) = (self.today(), self.0.live.load().retention);
        let (from, to) = (selection.from.max(today.before(retention)), selection.to.min(today.next()));
        Selection { from, to, ..selection.clone() }
    }

    /// Returns at most `most` calls of this node's journal with an unknown outcome, calls in flight included. The
    /// oldest call comes first, and each has a number above `after`. `tenant` is their team, or `None` for all teams.
    ///
    /// # Errors
    /// Returns an error if the ledger can't be read.
    pub async fn open_calls(
        &self,
        tenant: Option<&TenantName>,
        after: i64,
        most: usize,
    ) -> Result<Vec<OpenCall>, DatabaseError> {
        self.flush().await?;
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        let look = move |connection: &Connection| journal::open_calls(connection, tenant.as_deref(), after, most);
        self.0.database.read(look).await
    }

    /// Returns the calls with an unknown outcome that the other nodes show, each with the name of its node. They are
    /// ordered by this name and their number. Returns `None` while Redis is out.
    pub async fn open_elsewhere(&self) -> Option<Vec<(String, OpenCall)>> {
        by_hand::elsewhere(&self.0).await
    }

    /// Settles calls of this node and of other nodes, with the outcomes that an operator gives.
    ///
    /// # Errors
    /// Returns an error if a call names an unknown node, or if the ledger can't be written; then nothing was settled.
    pub async fn settle_by_hand(&self, calls: BTreeMap<CallNumber, Outcome>) -> Result<SettledByHand, HandError> {
        by_hand::settle(&self.0, calls).await
    }

    /// Returns the name of the time zone in which the ledger's days begin.
    #[must_use]
    pub fn time_zone(&self) -> String {
        self.0.time_zone()
    }

    /// Returns the current day of the ledger's calendar.
    #[must_use]
    pub fn today(&self) -> Day {
        self.0.today()
    }

    /// Runs the ledger's background work until the future is dropped. It writes counts to the disk, exchanges lines and
    /// outcomes with other nodes, and deletes old days. With a `membership`, it publishes only while this process is
    /// known to hold the node's identity.
    pub async fn keep(&self, membership: Option<Membership>) {
        keeper::keep(Arc::clone(&self.0), membership).await;
    }
}

/// Returns the lines from the day `from` to the day `to`, both included. They come from this node's journal and from
/// the ledgers that other nodes have published. Another process may write the journal meanwhile.
///
/// # Errors
/// Returns an error if the file is no journal, or damaged. A missing journal counts as empty.
pub async fn report(
    settings: &Settings,
    (from, to): (Day, Day),
    redis: Option<RedisClient>,
) -> Result<Statement, rusqlite::Error> {
    let selection = Selection::days(from, to);
    let (mut own, mut name, mut restored) = (Vec::new(), String::new(), Vec::new());
    if settings.state.path.exists() {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&settings.state.path, flags)?;
        own = journal::rows(&database, &selection)?;
        let days = journal::restored(&database).unwrap_or_default().into_iter();
        restored = days.filter(|day| (from.to_string()..=to.to_string()).contains(day)).collect();
        let node = database.query_row("SELECT id FROM ledger_node", [], |row| row.get(0));
        name = node.or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(String::new()),
            error => Err(error),
        })?;
    }
    let others = match redis {
        Some(redis) => PublishedLedgers::new(redis, &name).others(&selection).await.ok(),
        None => Some(Vec::new()),
    };
    Ok(Statement::of(&selection, own, others, restored))
}

#[cfg(test)]
mod tests {
    use super::super::charge::ChargeOutcome;
    use super::super::counts::{Counts, Row};
    use super::*;
    use crate::base::database::OpenError;
    use crate::base::saved::Saved;
    use std::path::Path;
    use std::time::Duration;

    const PARTS: &[(&str, &[&str])] = &[("ledger", journal::MIGRATIONS)];

    fn settings(text: &str) -> Settings {
        let text = format!(
            "[state]\nroot_key = {{ env = \"ROOT\" }}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"K\" }} }}]\n\
             [prices]\nbank = 500\n[accounts.live]\napi_key = {{ env = \"K\" }}\n{text}"
        );
        Settings::parse(&text, Path::new("/nowhere"), &|name| Some(if name == "ROOT" { "cd" } else { "ab" }.repeat(32)))
            .unwrap()
    }

    fn open_file(folder: &Path) -> Result<Database, OpenError> {
        Database::open(&folder.join("x.db"), PARTS)
    }

    async fn ledger(folder: &Path, clock: &Clock) -> Ledger {
        Ledger::open(open_file(folder).unwrap(), &settings(""), clock.clone(), None).await.unwrap()
    }

    async fn lines(ledger: &Ledger, selection: Selection) -> Vec<Row> {
        ledger.statement(selection).await.unwrap().rows
    }

    async fn all(ledger: &Ledger) -> BTreeMap<(String, String), Counts> {
        let rows = lines(ledger, Selection::days("2000-01-01".parse().unwrap(), "2999-12-31".parse().unwrap())).await;
        let mut all = BTreeMap::<_, Counts>::new();
        for row in rows {
            *all.entry((row.tenant, row.route)).or_default() += row.counts;
        }
        all
    }

    async fn bank(ledger: &Ledger) -> Counts {
        all(ledger).await.get(&("lending".into(), "bank".into())).copied().unwrap_or_default()
    }

    fn name() -> TenantName {
        "lending".parse().unwrap()
    }

    fn account() -> AccountName {
        "live".parse().unwrap()
    }

    fn billable() -> ChargeOutcome {
        ChargeOutcome { outcome: Outcome::Billable, id: None }
    }

    #[tokio::test]
    async fn a_call_is_unknown_from_its_intent_to_its_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let booking = ledger.book(&name(), RouteName::Bank, None, None).await.unwrap();
        let expected = Counts { upstream_calls: 1, unknown: 1, ..Counts::default() };
        assert_eq!(bank(&ledger).await, expected);
        booking.settle(&account(), &billable());
        let expected = Counts { upstream_calls: 1, billable: 1, cost: 500, ..Counts::default() };
        assert_eq!(bank(&ledger).await, expected);
        let free = ChargeOutcome { outcome: Outcome::NotBillable, id: None };
        ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &free);
        ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().withdraw();
        let expected = Counts { upstream_calls: 2, billable: 1, cost: 500, ..Counts::default() };
        assert_eq!(bank(&ledger).await, expected);
    }

    #[tokio::test]
    async fn a_claim_is_freed_if_a_later_report_says_that_its_call_was_not_billable() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let book = async |seed: u8| ledger.book(&name(), RouteName::Ocr, Some([seed; 48]), None).await.unwrap();
        let pending = |id: &str| ChargeOutcome { outcome: Outcome::Unknown, id: Some(id.to_owned()) };
        let free = ChargeOutcome { outcome: Outcome::NotBillable, id: None };
        // A call's own answer decides the claim directly, so nothing is freed here.
        book(1).await.settle(&account(), &free);
        book(2).await.settle(&account(), &billable());
        book(3).await.settle(&account(), &pending("settled"));
        book(4).await.settle(&account(), &pending("charged"));
        ledger.settled().await.unwrap();
        ledger.settle(&account(), "settled", Outcome::NotBillable);
        ledger.settle(&account(), "charged", Outcome::Billable);
        ledger.settle(&account(), "early", Outcome::NotBillable);
        ledger.settled().await.unwrap();
        book(5).await.settle(&account(), &pending("early"));
        ledger.settled().await.unwrap();
        assert_eq!(ledger.freed().await, [[3; 48], [5; 48]]);
        assert!(futures_util::poll!(Box::pin(ledger.freed())).is_pending());
    }

    /// Polls a future at most `polls` times, and drops it. Returns true if the future ended.
    async fn dropped_after<F: Future>(polls: usize, future: F) -> bool {
        let mut future = Box::pin(future);
        for _ in 0..polls {
            if futures_util::poll!(&mut future).is_ready() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// Keeps the database's writer busy until the sender is dropped.
    fn busy(ledger: &Ledger) -> std::sync::mpsc::SyncSender<()> {
        let (go, wait) = std::sync::mpsc::sync_channel(1);
        let (database, (began, begun)) = (ledger.0.database.clone(), std::sync::mpsc::sync_channel(1));
        let work = move |_: &Connection| {
            let _ = (began.send(()), wait.recv());
            Ok(())
        };
        let mut work = Box::pin(async move { database.write(work).await });
        let waker = std::task::Waker::noop();
        assert!(work.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        begun.recv().unwrap();
        go
    }

    #[tokio::test]
    async fn a_booking_whose_caller_goes_away_at_any_point_is_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let (mut polls, mut ended) = (0, false);
        while !ended {
            // The future is dropped while it waits for the writer, or when the writer may have committed the intent.
            let gate = (polls % 2 == 0).then(|| busy(&ledger));
            ended = dropped_after(polls, ledger.book(&name(), RouteName::Bank, None, None)).await && gate.is_none();
            drop(gate);
            polls += 1;
            assert!(polls < 100_000, "it never ends");
        }
        // The intent is committed, and its caller is dropped before it polls again.
        let tenant = name();
        let mut unseen = Box::pin(ledger.book(&tenant, RouteName::Bank, None, None));
        assert!(futures_util::poll!(&mut unseen).is_pending());
        ledger.0.database.write(|_| Ok(())).await.unwrap();
        drop(unseen);
        drop(ledger.book(&name(), RouteName::Bank, None, None).await.unwrap());
        ledger.finish().await.unwrap();
        assert_eq!(bank(&ledger).await, Counts::default());
        assert_eq!(ledger.open_calls(None, 0, 10).await.unwrap(), []);
        ledger.0.database.close().await;
        let after = self::ledger(folder.path(), &Clock::system()).await;
        assert_eq!(after.spent().iter().map(|spent| spent.today).sum::<u64>(), 0, "no quota is used");
    }

    #[tokio::test]
    async fn outcomes_and_counts_are_written_once_though_each_writer_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let refuse =
            |trigger: &'static str| ledger.0.database.write(move |connection| connection.execute_batch(trigger));
        let mut expected = Counts::default();
        for polls in 0..40 {
            ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &billable());
            ledger.tally(&name()).request(RouteName::Bank, None);
            expected += Counts { requests: 1, upstream_calls: 1, billable: 1, cost: 500, ..Counts::default() };
            let fails = polls % 3 == 0;
            if fails {
                refuse("CREATE TRIGGER t BEFORE UPDATE ON ledger_days BEGIN SELECT raise(ABORT, 'no'); END")
                    .await
                    .unwrap();
            }
            let gate = (polls % 2 == 0).then(|| busy(&ledger));
            if polls % 5 == 0 {
                dropped_after(polls, ledger.settled()).await;
            } else {
                dropped_after(polls, ledger.flush()).await;
            }
            drop(gate);
            if fails {
                refuse("DROP TRIGGER t").await.unwrap();
            }
        }
        assert_eq!(bank(&ledger).await, expected);
        assert_eq!(ledger.0.closings.lock().waiting.len(), 0);
    }

    #[tokio::test]
    async fn a_pending_call_is_settled_once_by_a_later_or_an_earlier_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let pending = |id: &str| ChargeOutcome { outcome: Outcome::Unknown, id: Some(id.into()) };
        ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &pending("later"));
        assert_eq!(bank(&ledger).await.unknown, 1);
        ledger.settle(&"other".parse().unwrap(), "later", Outcome::Billable);
        assert_eq!(bank(&ledger).await.unknown, 1, "another account's id is another");
        for _ in 0..3 {
            ledger.settle(&account(), "later", Outcome::Billable);
        }
        assert_eq!(bank(&ledger).await, Counts { upstream_calls: 1, billable: 1, cost: 500, ..Counts::default() });
        // The callback comes before the answer, in an earlier round and in the same one.
        ledger.settle(&account(), "early", Outcome::NotBillable);
        ledger.flush().await.unwrap();
        ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &pending("early"));
        let booking = ledger.book(&name(), RouteName::Bank, None, None).await.unwrap();
        ledger.settle(&account(), "same", Outcome::Billable);
        booking.settle(&account(), &pending("same"));
        let counts = bank(&ledger).await;
        assert_eq!((counts.upstream_calls, counts.billable, counts.unknown), (3, 2, 0));
        let file = std::fs::read(folder.path().join("x.db-wal")).unwrap();
        assert!(!file.windows(5).any(|window| window == b"later"), "no id in the clear");
    }

    #[tokio::test]
    async fn what_a_crash_leaves_open_stays_unknown_and_counts_toward_quotas() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::adjustable();
        let before = ledger(folder.path(), &clock).await;
        let kept = before.book(&name(), RouteName::Bank, None, None).await.unwrap();
        before.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &billable());
        before.tally(&name()).call(RouteName::BankGet);
        before.flush().await.unwrap();
        // The last settlement did not reach the disk.
        kept.settle(&account(), &billable());
        before.0.database.close().await;
        let after = ledger(folder.path(), &clock).await;
        let expected = Counts { upstream_calls: 2, billable: 1, unknown: 1, cost: 500, ..Counts::default() };
        assert_eq!(bank(&after).await, expected);
        let spent = after.spent();
        assert_eq!((spent.len(), spent[0].today, spent[0].this_month), (1, 2, 2), "looks do not count");
    }

    #[tokio::test]
    async fn what_is_counted_in_memory_is_written_once_even_if_the_disk_was_full() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let tally = ledger.tally(&name());
        tally.request(RouteName::Bank, Some(Saved::Hit));
        tally.request(RouteName::Bank, Some(Saved::Collapsed));
        tally.request(RouteName::Bank, None);
        tally.call(RouteName::BankGet);
        let booking = ledger.book(&name(), RouteName::Bank, None, None).await.unwrap();
        let lock = |trigger: &'static str| ledger.0.database.write(move |connection| connection.execute_batch(trigger));
        lock("CREATE TRIGGER t BEFORE UPDATE ON ledger_days BEGIN SELECT raise(ABORT, 'no'); END").await.unwrap();
        booking.settle(&account(), &billable());
        assert!(ledger.flush().await.is_err());
        lock("DROP TRIGGER t").await.unwrap();
        let counts = bank(&ledger).await;
        let expected = Counts {
            requests: 3,
            upstream_calls: 1,
            billable: 1,
            hits: 1,
            collapsed: 1,
            cost: 500,
            saved: 1000,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
        assert_eq!(bank(&ledger).await, expected);
        assert_eq!(all(&ledger).await[&("lending".to_owned(), "bank_get".to_owned())].upstream_calls, 1);
    }

    #[tokio::test]
    async fn days_are_apart_and_old_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::adjustable();
        let ledger = ledger(folder.path(), &clock).await;
        let first = ledger.today();
        ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &billable());
        ledger.flush().await.unwrap();
        clock.advance(Duration::from_secs(86400));
        ledger.book(&name(), RouteName::Bank, None, None).await.unwrap().settle(&account(), &billable());
        let of = |tenant: &str| Selection { tenant: tenant.parse().ok(), ..Selection::days(first, first.next()) };
        let rows = lines(&ledger, Selection { to: first, ..of("lending") }).await;
        assert_eq!((rows.len(), rows[0].day.as_str()), (1, first.to_string().as_str()));
        assert_eq!(lines(&ledger, Selection::days(first, first.next())).await.len(), 2);
        assert_eq!(lines(&ledger, of("other")).await, []);
        let oldest = first.next().to_string();
        ledger.0.database.write(move |connection| journal::prune(connection, &oldest)).await.unwrap();
        assert_eq!(lines(&ledger, Selection::days(first, first.next())).await.len(), 1);
    }
}
