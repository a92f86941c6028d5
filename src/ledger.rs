//! Who called Iluma, what it charged for, and what the gateway saved.
//!
//! Invariants: no call that may be charged leaves before its intent is on disk; until its outcome is, it counts as
//! unknown, so at any moment, after any crash, `billable <= what Iluma counted <= billable + unknown`; what is booked
//! has no id and nothing of a person in it, only names that tell nothing; a hit pays one addition in memory.

mod charge;
mod journal;
mod shared;

pub use charge::{Outcome, Verdict, told, verdict};
pub use journal::MIGRATIONS;

use crate::base::calendar::{Calendar, Day, Month};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring::Pseudonymizer;
use crate::base::name::{AccountName, TenantName};
use crate::base::saved::Saved;
use crate::config::Settings;
use crate::iluma::route_name::RouteName;
use crate::redis::RedisClient;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use secrecy::ExposeSecret as _;
use shared::{Books, Word};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// How long what is counted in memory may wait for the disk.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How often what is too old is deleted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Words about calls that have not been answered yet: as many as may come while their POSTs are on their way back.
const MOST_EARLY: usize = 4096;

const ROUTES: usize = RouteName::ALL.len();

/// The books. Clones share them.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    database: Database,
    clock: Clock,
    namer: Pseudonymizer,
    live: ArcSwap<LedgerConfig>,
    tallies: Mutex<BTreeMap<TenantName, Arc<Tally>>>,
    closings: Mutex<Closings>,
    /// Closings that are on disk, of all that came.
    written: AtomicU64,
    /// Words that came before what they are about.
    early: Mutex<VecDeque<Word>>,
    /// Words about calls that are not in this journal, for other nodes.
    unheard: Mutex<Vec<Word>>,
    /// Days that the other nodes don't know as they stand here.
    unpublished: Mutex<BTreeSet<String>>,
    books: Option<Books>,
    /// Held by who writes; who waits for it finds its own written.
    writer: tokio::sync::Mutex<()>,
    closed: Notify,
    spent: Vec<Spent>,
    node: String,
}

/// What the configuration says.
#[derive(Debug)]
struct LedgerConfig {
    calendar: Calendar,
    prices: [u64; ROUTES],
    retention: Duration,
}

/// What a team has called that may be charged, as the books had it at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The team.
    pub tenant: TenantName,
    /// The day.
    pub day: Day,
    /// Calls on it.
    pub today: u64,
    /// Calls in its month so far.
    pub this_month: u64,
}

/// One line of the books.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// The day, as `2026-11-25`.
    pub day: String,
    /// The team.
    pub tenant: String,
    /// The row of the route table.
    pub route: String,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What is counted of a team, on a route, on a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Requests of the team, however they ended.
    pub requests: u64,
    /// Calls to Iluma.
    pub upstream_calls: u64,
    /// Of those, what Iluma charges for.
    pub billable: u64,
    /// Of those, what it may have charged for: under way, pending, or without an answer.
    pub unknown: u64,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests answered by another's call that was under way.
    pub collapsed: u64,
    /// Requests answered by another's call that is pending at Iluma.
    pub shared: u64,
    /// What the billable calls cost, in rupiah, at the price of their time.
    pub cost: u64,
    /// What hits, collapsed and shared requests would have cost.
    pub saved: u64,
}

impl Counts {
    /// Names of the numbers, in the order of [`Counts::numbers`].
    pub const NAMES: [&'static str; 9] =
        ["requests", "upstream_calls", "billable", "unknown", "hits", "collapsed", "shared", "cost", "saved"];

    /// The numbers, in the order in which they are declared.
    #[must_use]
    pub const fn numbers(&self) -> [u64; 9] {
        [
            self.requests,
            self.upstream_calls,
            self.billable,
            self.unknown,
            self.hits,
            self.collapsed,
            self.shared,
            self.cost,
            self.saved,
        ]
    }

    const fn of(numbers: [u64; 9]) -> Self {
        let [requests, upstream_calls, billable, unknown, hits, collapsed, shared, cost, saved] = numbers;
        Self { requests, upstream_calls, billable, unknown, hits, collapsed, shared, cost, saved }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let (mut sum, others) = (self.numbers(), other.numbers());
        for (number, other) in sum.iter_mut().zip(others) {
            *number = number.saturating_add(other);
        }
        *self = Self::of(sum);
    }
}

/// Lines of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// By day, team and route.
    pub rows: Vec<Row>,
    /// Whether those of all nodes are in it: not while Redis is out.
    pub is_complete: bool,
}

impl Statement {
    /// What is to be said of one that is not complete.
    pub const PARTIAL: &'static str = "Redis is out: these are the books of this node alone";
}

/// A call whose outcome is not known, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCall {
    /// Its number in this journal; later ones have larger ones.
    pub id: i64,
    /// When it was booked; 1970 if an earlier version has done that.
    pub booked: SystemTime,
    /// The day in whose books it is.
    pub day: String,
    /// The team.
    pub tenant: String,
    /// The row of the route table.
    pub route: String,
    /// What is not known of it.
    pub why: Why,
}

/// Why the outcome of a call is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Iluma was at it still: a callback or a look will tell.
    Pending,
    /// Nobody saw an answer, or one that says it: nothing will tell.
    Lost,
    /// It is under way, or the process ended meanwhile.
    Open,
}

impl Why {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Lost => "lost",
            Self::Open => "open",
        }
    }
}

/// What is counted of one team in memory, by route.
#[derive(Debug)]
pub struct Tally {
    requests: [AtomicU64; ROUTES],
    calls: [AtomicU64; ROUTES],
    saved: [[AtomicU64; ROUTES]; Saved::ALL.len()],
}

impl Tally {
    fn new() -> Self {
        let zeros = || [const { AtomicU64::new(0) }; ROUTES];
        Self { requests: zeros(), calls: zeros(), saved: [zeros(), zeros(), zeros()] }
    }

    /// A request was answered, and what spared it a call, if something did.
    pub fn request(&self, route: RouteName, saved: Option<Saved>) {
        self.requests[route as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(how) = saved {
            self.saved[how as usize][route as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call was made that Iluma never charges for.
    pub fn call(&self, route: RouteName) {
        self.calls[route as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes out what was counted on a route.
    fn take(&self, route: RouteName, price: u64) -> Counts {
        let take = |counts: &[AtomicU64; ROUTES]| counts[route as usize].swap(0, Ordering::Relaxed);
        let [hits, collapsed, shared] = [take(&self.saved[0]), take(&self.saved[1]), take(&self.saved[2])];
        Counts {
            requests: take(&self.requests),
            upstream_calls: take(&self.calls),
            hits,
            collapsed,
            shared,
            saved: (hits + collapsed + shared).saturating_mul(price),
            ..Counts::default()
        }
    }
}

/// What was counted of a team on a route since it was written last.
type Counted = (TenantName, RouteName, Counts);

/// A call whose intent is on disk. Dropped without a word, its outcome stays unknown.
#[derive(Debug)]
pub struct Booking {
    ledger: Ledger,
    id: i64,
}

/// The end of a booking, which is on its way to the disk.
#[derive(Debug)]
struct Closing {
    /// 0: known by its name alone.
    id: i64,
    end: End,
    /// Another node told of it.
    told: bool,
}

/// Ends of bookings that wait for the disk.
#[derive(Debug, Default)]
struct Closings {
    waiting: Vec<Closing>,
    /// How many came so far.
    came: u64,
}

impl Closings {
    fn push(&mut self, closing: Closing) {
        self.waiting.push(closing);
        self.came += 1;
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// It was never sent.
    Withdrawn,
    Outcome(Outcome, Option<[u8; 32]>),
}

impl Booking {
    /// The call was never sent: as if it had not been booked.
    pub fn withdraw(self) {
        self.close(End::Withdrawn);
    }

    /// What became of the call.
    pub fn settle(self, account: &AccountName, verdict: &Verdict) {
        let name = verdict.id.as_deref().map(|id| self.ledger.0.name(account, id));
        self.close(End::Outcome(verdict.outcome, name));
    }

    fn close(&self, end: End) {
        self.ledger.0.closings.lock().push(Closing { id: self.id, end, told: false });
        self.ledger.0.closed.notify_one();
    }
}

impl Ledger {
    /// The books in `database`, whose migrations were run; `link` leads to those of other nodes. Calls that a crash left open stay unknown.
    ///
    /// # Errors
    /// The database can't be used.
    pub async fn open(
        database: Database,
        settings: &Settings,
        clock: Clock,
        link: Option<RedisClient>,
    ) -> Result<Self, DatabaseError> {
        let live = LedgerConfig::new(settings);
        let today = live.calendar.day(clock.wall());
        let (spent, open, node) = database
            .write(move |connection| {
                Ok((journal::spent(connection, today)?, journal::open(connection)?, journal::node(connection)?))
            })
            .await?;
        if open > 0 {
            tracing::info!(calls = open, "calls of before whose outcome is not known");
        }
        let root = settings.state.root_key.expose_secret();
        Ok(Self(Arc::new(Shared {
            database,
            clock,
            unheard: Mutex::default(),
            unpublished: Mutex::default(),
            books: link.map(|link| Books::new(link, &node)),
            namer: Pseudonymizer::new(root, "ledger"),
            live: ArcSwap::from_pointee(live),
            tallies: Mutex::default(),
            closings: Mutex::default(),
            written: AtomicU64::new(0),
            early: Mutex::default(),
            writer: tokio::sync::Mutex::default(),
            closed: Notify::new(),
            spent,
            node,
        })))
    }

    /// Goes over to other prices, days and times. What was booked stays as it was.
    pub fn reload(&self, settings: &Settings) {
        self.0.live.store(Arc::new(LedgerConfig::new(settings)));
    }

    /// What teams had spent when the books were opened.
    #[must_use]
    pub fn spent(&self) -> &[Spent] {
        &self.0.spent
    }

    /// This node's name among others: as long as its database lives, it is the same.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// What is counted of a team.
    #[must_use]
    pub fn tally(&self, tenant: &TenantName) -> Arc<Tally> {
        Arc::clone(self.0.tallies.lock().entry(tenant.clone()).or_insert_with(|| Arc::new(Tally::new())))
    }

    /// Books a call that may be charged. On disk when this returns: now it may be sent.
    ///
    /// # Errors
    /// It could not be written; the call must not be made.
    pub async fn book(&self, tenant: &TenantName, route: RouteName) -> Result<Booking, DatabaseError> {
        let live = self.0.live.load();
        let day = live.calendar.day(self.0.clock.wall()).to_string();
        let (tenant, price, now) = (tenant.clone(), live.prices[route as usize], self.0.clock.wall());
        let on = day.clone();
        let book = move |connection: &Connection| {
            journal::book(connection, (&on, tenant.as_str(), route.as_str()), price, now)
        };
        let id = self.0.database.write(book).await?;
        self.0.changed([day]);
        Ok(Booking { ledger: self.clone(), id })
    }

    /// What a callback or a GET told of a call that was pending: its outcome, by upstream's id.
    pub fn settle(&self, account: &AccountName, id: &str, outcome: Outcome) {
        let name = self.0.name(account, id);
        let shared = Arc::clone(&self.0);
        shared.closings.lock().push(Closing { id: 0, end: End::Outcome(outcome, Some(name)), told: false });
        shared.closed.notify_one();
    }

    /// Returns once every outcome that was told so far is on disk. Of those who wait together one writes for all.
    ///
    /// # Errors
    /// It can't be written now; it is kept, and tried again.
    pub async fn settled(&self) -> Result<(), DatabaseError> {
        let came = self.0.closings.lock().came;
        let turn = self.0.writer.lock().await;
        if self.0.written.load(Ordering::Relaxed) >= came {
            return Ok(());
        }
        self.write(Vec::new(), &turn).await
    }

    /// Writes what was counted and settled so far; returns once it is on disk.
    ///
    /// # Errors
    /// It can't be written now; it is kept, and tried again.
    pub async fn flush(&self) -> Result<(), DatabaseError> {
        let turn = self.0.writer.lock().await;
        self.write(self.0.take_tallies(), &turn).await
    }

    async fn write(&self, counted: Vec<Counted>, _turn: &tokio::sync::MutexGuard<'_, ()>) -> Result<(), DatabaseError> {
        let (mut closings, came) = {
            let mut closings = self.0.closings.lock();
            (std::mem::take(&mut closings.waiting), closings.came)
        };
        // A word about a call may have come before the call's own answer, in this round or in one before.
        closings.sort_by_key(|closing| closing.id == 0);
        closings.iter_mut().for_each(|closing| self.0.hear_early(closing));
        if closings.is_empty() && counted.is_empty() {
            return Ok(());
        }
        let work = Arc::new((closings, counted));
        let (to_write, day) = (Arc::clone(&work), self.0.today().to_string());
        let write = move |connection: &Connection| {
            let (closings, counted) = &*to_write;
            let (mut early, mut days) = (Vec::new(), BTreeSet::new());
            for closing in closings {
                if !journal::close(connection, closing, &mut days)?
                    && let End::Outcome(outcome, Some(name)) = closing.end
                {
                    early.push((name, outcome, closing.told));
                }
            }
            if !counted.is_empty() {
                days.insert(day.clone());
            }
            for (tenant, route, counts) in counted {
                journal::add(connection, &day, tenant.as_str(), route.as_str(), counts)?;
            }
            Ok((early, days))
        };
        match self.0.database.write(write).await {
            Ok((early, days)) => {
                self.0.written.store(came, Ordering::Relaxed);
                self.0.changed(days);
                self.0.keep_early(early);
                Ok(())
            }
            Err(error) => {
                let (closings, counted) = Arc::into_inner(work).unwrap_or_default();
                self.0.closings.lock().waiting.splice(0..0, closings);
                self.0.put_back(counted);
                Err(error)
            }
        }
    }

    /// The lines of these days, both included, of one team or of all; of all nodes, where there are several and Redis
    /// answers.
    ///
    /// # Errors
    /// The books can't be read.
    pub async fn statement(&self, from: Day, to: Day, tenant: Option<&TenantName>) -> Result<Statement, DatabaseError> {
        let own = self.own_rows(from, to, tenant).await?;
        let Some(books) = &self.0.books else { return Ok(Statement { rows: own, is_complete: true }) };
        let others = books.others(from, to).await;
        let is_complete = others.is_ok();
        let others = others.unwrap_or_default().into_iter();
        let others = others.filter(|row| tenant.is_none_or(|tenant| row.tenant == tenant.as_str()));
        Ok(Statement { rows: summed(own.into_iter().chain(others)), is_complete })
    }

    /// Calls in this node's journal whose outcome is not known, the oldest first, from behind the number `after` on.
    ///
    /// # Errors
    /// The books can't be read.
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

    async fn own_rows(&self, from: Day, to: Day, tenant: Option<&TenantName>) -> Result<Vec<Row>, DatabaseError> {
        self.flush().await?;
        let (from, to, tenant) = (from.to_string(), to.to_string(), tenant.map(|tenant| tenant.as_str().to_owned()));
        self.0.database.read(move |connection| journal::rows(connection, &from, &to, tenant.as_deref())).await
    }

    /// Publishes what has changed, tells and hears what became of calls of other nodes.
    async fn exchange(&self, books: &Books, last: &mut String) {
        let days = std::mem::take(&mut *self.0.unpublished.lock());
        if let (Some(first), Some(last)) = (days.first().cloned(), days.last().cloned()) {
            let published = async {
                let read = move |connection: &Connection| journal::rows(connection, &first, &last, None);
                let mut rows = self.0.database.read(read).await.ok()?;
                rows.retain(|row| days.contains(&row.day));
                books.publish(&rows, self.0.live.load().retention).await.ok()
            };
            if published.await.is_none() {
                self.0.changed(days);
            }
        }
        let words = std::mem::take(&mut *self.0.unheard.lock());
        if !words.is_empty() && books.tell(&words).await.is_err() {
            self.0.keep_unheard(words);
        }
        if let Ok(words) = books.hear(last).await {
            let mut closings = self.0.closings.lock();
            for (name, outcome) in words {
                closings.push(Closing { id: 0, end: End::Outcome(outcome, Some(name)), told: true });
            }
        }
    }

    /// Everything has to be published again: Redis may have lost it.
    async fn publish_anew(&self) {
        let days = |connection: &Connection| {
            let mut select = connection.prepare_cached("SELECT DISTINCT day FROM ledger_days")?;
            let days = select.query_map([], |row| row.get::<_, String>(0))?;
            days.collect::<rusqlite::Result<Vec<_>>>()
        };
        if let Ok(days) = self.0.database.read(days).await {
            self.0.changed(days);
        }
    }

    /// The day of now, as the books count.
    #[must_use]
    pub fn today(&self) -> Day {
        self.0.today()
    }

    /// Keeps the books until it is dropped: writes, and deletes what is too old.
    pub async fn keep(&self) {
        let mut pruned: Option<std::time::Instant> = None;
        let (mut exchanged, mut was_up, mut last) = (self.0.clock.now(), false, "0-0".to_owned());
        loop {
            let _ = tokio::time::timeout(FLUSH_INTERVAL, self.0.closed.notified()).await;
            if self.flush().await.is_err() {
                // The database has said why; a full disk is not emptied by trying faster.
                tokio::time::sleep(FLUSH_INTERVAL).await;
            }
            let now = self.0.clock.now();
            if let Some(books) = &self.0.books {
                let up = books.is_up();
                if up && !std::mem::replace(&mut was_up, up) {
                    self.publish_anew().await;
                    last = "0-0".to_owned();
                }
                if up && now.saturating_duration_since(exchanged) >= FLUSH_INTERVAL {
                    exchanged = now;
                    self.exchange(books, &mut last).await;
                }
                was_up = up;
            }
            if pruned.is_none_or(|at| now.saturating_duration_since(at) >= PRUNE_INTERVAL) {
                pruned = Some(now);
                let oldest = self.today().before(self.0.live.load().retention).to_string();
                // Tried again in an hour.
                let _ = self.0.database.write(move |connection| journal::prune(connection, &oldest)).await;
            }
        }
    }
}

/// A month as the journal has it, read beside whoever writes there, with what other nodes have published; and whether
/// those could be asked.
///
/// # Errors
/// The journal is not one, or damaged. One that is not there yet has nothing in it.
pub async fn report(
    settings: &Settings,
    month: Month,
    link: Option<RedisClient>,
) -> Result<Statement, rusqlite::Error> {
    let (from, to) = (month.first(), month.last());
    let (mut own, mut name) = (Vec::new(), String::new());
    if settings.state.path.exists() {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&settings.state.path, flags)?;
        own = journal::rows(&database, &from.to_string(), &to.to_string(), None)?;
        let node = database.query_row("SELECT id FROM ledger_node", [], |row| row.get(0));
        name = node.or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(String::new()),
            error => Err(error),
        })?;
    }
    let Some(link) = link else { return Ok(Statement { rows: own, is_complete: true }) };
    let others = Books::new(link, &name).others(from, to).await;
    let is_complete = others.is_ok();
    Ok(Statement { rows: summed(own.into_iter().chain(others.unwrap_or_default())), is_complete })
}

impl LedgerConfig {
    fn new(settings: &Settings) -> Self {
        let price = |route: RouteName| settings.prices.get(&route).copied().unwrap_or_default();
        Self {
            calendar: settings.quotas.calendar.clone(),
            prices: RouteName::ALL.map(price),
            retention: settings.state.retention.ledger,
        }
    }
}

impl Shared {
    fn today(&self) -> Day {
        self.live.load().calendar.day(self.clock.wall())
    }

    fn name(&self, account: &AccountName, id: &str) -> [u8; 32] {
        self.namer.name([account.as_str().as_bytes(), id.as_bytes()])
    }

    fn changed(&self, days: impl IntoIterator<Item = String>) {
        if self.books.is_some() {
            self.unpublished.lock().extend(days);
        }
    }

    /// Words about nothing that is in the journal: the call they are about may not be answered yet, or be another node's.
    fn keep_early(&self, words: Vec<([u8; 32], Outcome, bool)>) {
        let own = words.iter().filter(|(_, _, told)| !told).map(|(name, outcome, _)| (*name, *outcome));
        if self.books.is_some() {
            self.keep_unheard(own.collect());
        }
        let mut early = self.early.lock();
        early.extend(words.iter().map(|(name, outcome, _)| (*name, *outcome)));
        let surplus = early.len().saturating_sub(MOST_EARLY);
        early.drain(..surplus);
    }

    fn keep_unheard(&self, words: Vec<Word>) {
        let mut unheard = self.unheard.lock();
        unheard.extend(words);
        let surplus = unheard.len().saturating_sub(MOST_EARLY);
        unheard.drain(..surplus);
    }

    /// Replaces an outcome that is not known by what was said of it before.
    fn hear_early(&self, closing: &mut Closing) {
        let End::Outcome(outcome @ Outcome::Unknown, Some(name)) = &mut closing.end else { return };
        let mut early = self.early.lock();
        let at = early.iter().position(|(known, _)| known == name);
        if let Some((_, told)) = at.and_then(|at| early.remove(at)) {
            *outcome = told;
        }
    }

    fn take_tallies(&self) -> Vec<Counted> {
        let live = self.live.load();
        let tallies = self.tallies.lock();
        let all = tallies.iter().flat_map(|(tenant, tally)| RouteName::ALL.map(|route| (tenant, tally, route)));
        let counts = all.map(|(tenant, tally, route)| (tenant, route, tally.take(route, live.prices[route as usize])));
        let counted = counts.filter(|(_, _, counts)| *counts != Counts::default());
        counted.map(|(tenant, route, counts)| (tenant.clone(), route, counts)).collect()
    }

    fn put_back(&self, counted: Vec<Counted>) {
        let tallies = self.tallies.lock();
        for (tenant, route, counts) in counted {
            let Some(tally) = tallies.get(&tenant) else { continue };
            let add = |to: &[AtomicU64; ROUTES], count| to[route as usize].fetch_add(count, Ordering::Relaxed);
            add(&tally.requests, counts.requests);
            add(&tally.calls, counts.upstream_calls);
            for (to, count) in tally.saved.iter().zip([counts.hits, counts.collapsed, counts.shared]) {
                add(to, count);
            }
        }
    }
}

/// Lines of the same day, team and route as one.
fn summed(rows: impl Iterator<Item = Row>) -> Vec<Row> {
    let mut sums = BTreeMap::<_, Counts>::new();
    for Row { day, tenant, route, counts } in rows {
        *sums.entry((day, tenant, route)).or_default() += counts;
    }
    sums.into_iter().map(|((day, tenant, route), counts)| Row { day, tenant, route, counts }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::database::OpenError;
    use std::path::Path;

    const PARTS: &[(&str, &[&str])] = &[("ledger", MIGRATIONS)];

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

    async fn all(ledger: &Ledger) -> BTreeMap<(String, String), Counts> {
        let rows =
            ledger.statement("2000-01-01".parse().unwrap(), "2999-12-31".parse().unwrap(), None).await.unwrap().rows;
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

    fn billable() -> Verdict {
        Verdict { outcome: Outcome::Billable, id: None }
    }

    #[tokio::test]
    async fn a_call_is_unknown_from_its_intent_to_its_outcome() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let booking = ledger.book(&name(), RouteName::Bank).await.unwrap();
        let expected = Counts { upstream_calls: 1, unknown: 1, ..Counts::default() };
        assert_eq!(bank(&ledger).await, expected);
        booking.settle(&account(), &billable());
        let expected = Counts { upstream_calls: 1, billable: 1, cost: 500, ..Counts::default() };
        assert_eq!(bank(&ledger).await, expected);
        let free = Verdict { outcome: Outcome::NotBillable, id: None };
        ledger.book(&name(), RouteName::Bank).await.unwrap().settle(&account(), &free);
        ledger.book(&name(), RouteName::Bank).await.unwrap().withdraw();
        let expected = Counts { upstream_calls: 2, billable: 1, cost: 500, ..Counts::default() };
        assert_eq!(bank(&ledger).await, expected);
    }

    #[tokio::test]
    async fn a_pending_call_is_settled_by_a_later_word_or_an_earlier_one_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), &Clock::system()).await;
        let pending = |id: &str| Verdict { outcome: Outcome::Unknown, id: Some(id.into()) };
        ledger.book(&name(), RouteName::Bank).await.unwrap().settle(&account(), &pending("later"));
        assert_eq!(bank(&ledger).await.unknown, 1);
        ledger.settle(&"other".parse().unwrap(), "later", Outcome::Billable);
        assert_eq!(bank(&ledger).await.unknown, 1, "another account's id is another");
        for _ in 0..3 {
            ledger.settle(&account(), "later", Outcome::Billable);
        }
        assert_eq!(bank(&ledger).await, Counts { upstream_calls: 1, billable: 1, cost: 500, ..Counts::default() });
        // The callback comes first, in an earlier round and in the same one.
        ledger.settle(&account(), "early", Outcome::NotBillable);
        ledger.flush().await.unwrap();
        ledger.book(&name(), RouteName::Bank).await.unwrap().settle(&account(), &pending("early"));
        let booking = ledger.book(&name(), RouteName::Bank).await.unwrap();
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
        let kept = before.book(&name(), RouteName::Bank).await.unwrap();
        before.book(&name(), RouteName::Bank).await.unwrap().settle(&account(), &billable());
        before.tally(&name()).call(RouteName::BankGet);
        before.flush().await.unwrap();
        // What was settled last did not reach the disk.
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
        let booking = ledger.book(&name(), RouteName::Bank).await.unwrap();
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
        ledger.book(&name(), RouteName::Bank).await.unwrap().settle(&account(), &billable());
        ledger.flush().await.unwrap();
        clock.advance(Duration::from_secs(86400));
        ledger.book(&name(), RouteName::Bank).await.unwrap().settle(&account(), &billable());
        let rows = ledger.statement(first, first, Some(&name())).await.unwrap().rows;
        assert_eq!((rows.len(), rows[0].day.as_str()), (1, first.to_string().as_str()));
        assert_eq!(ledger.statement(first, first.next(), None).await.unwrap().rows.len(), 2);
        assert_eq!(ledger.statement(first, first.next(), Some(&"other".parse().unwrap())).await.unwrap().rows, []);
        let oldest = first.next().to_string();
        ledger.0.database.write(move |connection| journal::prune(connection, &oldest)).await.unwrap();
        assert_eq!(ledger.statement(first, first.next(), None).await.unwrap().rows.len(), 1);
    }
}
