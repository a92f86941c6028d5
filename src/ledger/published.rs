//! The ledgers of all nodes, published in Redis.
//!
//! Invariants: a node publishes the current lines of its journal, never a difference, so a line that is published twice
//! counts once and a line that Redis lost is published again; only names and numbers are published, no data of a
//! person.

use super::charge::Outcome;
use super::counts::{Counts, Row, Sums};
use super::references::{self, Lost, Report};
use super::selection::Selection;
use super::settlement::{ByHand, CallName, CallNumber, OpenCall};
use crate::base::calendar::Day;
use crate::redis::scripts::ledger as scripts;
use crate::redis::{Budget, RedisClient, RedisFailure};
use futures_util::{StreamExt as _, stream};
use hex::FromHex as _;
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::{Duration, SystemTime};

/// The number of lines that one script publishes.
const LINES_TOGETHER: usize = 500;
/// The number of days that are read at once. Redis runs the scripts of a connection without a pause, so more of them
/// would delay other requests: a script that has to make the text of a day takes about 2 ms in a large company.
const DAYS_TOGETHER: usize = 2;
/// The time for which Redis keeps the text of a day that a reader had to make, for the other reads of the same view of
/// the console. A text that was made by publishing is kept as long as the lines.
const READ_TEXT_LIFETIME: Duration = Duration::from_secs(60);
/// The largest text of a day that Redis keeps, in bytes: a thousand teams on four nodes. For a year that is 183 MiB at
/// most.
const LARGEST_TEXT: usize = 512 << 10;

/// The time that an order to settle a call by hand waits for its node. It is far longer than a weekend, for which a
/// node may be down.
const ORDER_LIFETIME: Duration = Duration::from_secs(30 * 86400);
/// The time that a reply waits for the node that gave the order.
const REPLY_LIFETIME: Duration = Duration::from_secs(60);

/// An order to settle one call by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandOrder {
    pub(super) outcome: Outcome,
    /// The time of the call's booking; `None` if this node itself gives the order. Another node must name the time,
    /// because a restored journal may give a number to a second call.
    pub(super) booked: Option<SystemTime>,
}

/// The form of an order in Redis.
#[derive(serde::Serialize, serde::Deserialize)]
struct WrittenOrder {
    billable: bool,
    booked: Option<SystemTime>,
    reply: String,
}

impl HandOrder {
    fn written(&self, reply: &str) -> String {
        let billable = self.outcome == Outcome::Billable;
        let order = WrittenOrder { billable, booked: self.booked, reply: reply.to_owned() };
        serde_json::to_string(&order).unwrap_or_default()
    }

    fn read(text: &str) -> Option<(Self, String)> {
        let WrittenOrder { billable, booked, reply } = serde_json::from_str(text).ok()?;
        let outcome = if billable { Outcome::Billable } else { Outcome::NotBillable };
        Some((Self { outcome, booked }, reply))
    }
}

/// The open calls of a node, as it shows them to the others.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ShownCalls {
    /// The node's name.
    pub(super) name: String,
    pub(super) at: SystemTime,
    /// Calls that are not in flight, the oldest first.
    pub(super) calls: Vec<OpenCall>,
}

/// Reads and writes the ledgers that nodes publish in Redis.
#[derive(Clone, Debug)]
pub(super) struct PublishedLedgers {
    redis: RedisClient,
    node: String,
}

/// A reported outcome that was given to a lost call: the record's name, the outcome, and the call's number and booking
/// time if the call is this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paired(pub(super) CallName, pub(super) Outcome, pub(super) Option<(i64, i64)>);

impl PublishedLedgers {
    /// The largest number of settlements by reference that Redis keeps for the nodes. A node that missed a settlement
    /// receives it when it offers its lost call again.
    pub(super) const MOST_SETTLEMENTS: usize = 10_000;
    /// The largest number of reported outcomes that wait in Redis for the nodes of their calls, about 20 MB. Many of
    /// these calls are already settled, because any node may read a record.
    const MOST_REPORTS: usize = 100_000;
    /// The time that a reported outcome waits in Redis. If the call's node is down for longer, an operator has to
    /// settle the call.
    const REPORT_LIFETIME: Duration = Duration::from_secs(7 * 86400);

    pub(super) fn new(redis: RedisClient, node: &str) -> Self {
        Self { redis, node: node.to_owned() }
    }

    pub(super) const fn redis(&self) -> &RedisClient {
        &self.redis
    }

    /// Returns the name of this node's lost call among the lost calls of all nodes.
    pub(super) fn member(&self, call: Lost) -> String {
        format!("{}|{}|{}", self.node, call.number, call.booked)
    }

    pub(super) fn is_up(&self) -> bool {
        self.redis.is_up()
    }

    /// Publishes lines of this node's journal, and then the number of this publication. `today` is the current day.
    /// The lines and their days are kept for the time `kept`.
    pub(super) async fn publish(
        &self,
        rows: &[Row],
        today: Day,
        kept: Duration,
        generation: i64,
    ) -> Result<(), RedisFailure> {
        let today = today.to_string();
        for day in rows.chunk_by(|one, next| one.day == next.day) {
            let mut chunks = day.chunks(LINES_TOGETHER).peekable();
            while let Some(lines) = chunks.next() {
                // The text is made after the last lines of the day.
                let is_over = chunks.peek().is_none() && lines[0].day != today;
                self.publish_lines(lines, is_over, kept).await?;
            }
        }
        let mut note = redis::cmd("HSET");
        note.arg(self.redis.keys().ledger_generations()).arg(&self.node).arg(generation);
        let _: i64 = self.redis.command(&Budget::background(), &note).await?;
        Ok(())
    }

    /// Publishes lines of one day, at least one. Makes the text of the day if the day is over.
    async fn publish_lines(&self, lines: &[Row], is_over: bool, kept: Duration) -> Result<(), RedisFailure> {
        let Some(Row { day, .. }) = lines.first() else { return Ok(()) };
        let mut script = scripts::PUBLISH.key(self.redis.keys().ledger_day(day));
        script.key(self.redis.keys().ledger_day_text(day));
        script.arg(kept.as_secs()).arg(if is_over { "over" } else { "current" }).arg(LARGEST_TEXT);
        for Row { tenant, route, counts, .. } in lines {
            let numbers = counts.numbers().map(|number| number.to_string()).join(",");
            script.arg(format!("{}|{tenant}|{route}", self.node)).arg(numbers);
        }
        self.redis.script::<i64>(&Budget::background(), &script).await.map(|_| ())
    }

    /// Returns the number of this node's last publication, 0 before the first.
    pub(super) async fn generation(&self) -> Result<i64, RedisFailure> {
        let mut command = redis::cmd("HGET");
        command.arg(self.redis.keys().ledger_generations()).arg(&self.node);
        let generation: Option<i64> = self.redis.command(&Budget::background(), &command).await?;
        Ok(generation.unwrap_or(0))
    }

    /// Returns the selected lines that this node has published.
    pub(super) async fn own(&self, selection: &Selection) -> Result<Vec<Row>, RedisFailure> {
        self.rows(selection, Whose::Own).await
    }

    /// Returns the selected lines that the other nodes have published.
    pub(super) async fn others(&self, selection: &Selection) -> Result<Vec<Row>, RedisFailure> {
        self.rows(selection, Whose::Others).await
    }

    /// Returns the first selected lines. If there are more than the selection wants, returns at least one more.
    async fn rows(&self, selection: &Selection, whose: Whose) -> Result<Vec<Row>, RedisFailure> {
        let mut sums = Sums::default();
        // Each day is a script of its own, so that Redis serves requests in between. The next day arrives while this
        // one is summed.
        let days = stream::iter(selection.span()).map(|day| self.lines(day, whose));
        let mut days = pin!(days.buffered(DAYS_TOGETHER).ready_chunks(DAYS_TOGETHER));
        while let Some(days) = days.next().await {
            let days = days.into_iter().collect::<Result<Vec<_>, _>>()?;
            // Names are copied once for each sum, not for each line.
            let mut some: HashMap<[&str; 3], Counts> = HashMap::new();
            for (day, text) in &days {
                let mut given = text.split('\n');
                while let (Some(name), Some(numbers)) = (given.next(), given.next()) {
                    if self.is_selected(name, whose)
                        && let Some((name, counts)) = line(selection, (day, name), numbers)
                    {
                        *some.entry(name).or_default() += counts;
                    }
                }
                tokio::task::yield_now().await;
            }
            for (name, counts) in some {
                sums.add(name.map(str::to_owned), counts);
            }
            if selection.is_full(sums.len()) || sums.len() >= MOST_ROWS {
                break;
            }
        }
        Ok(sums.rows())
    }

    /// Returns true if the line with this name belongs to a node whose lines are read.
    fn is_selected(&self, name: &str, whose: Whose) -> bool {
        let is_own = name.strip_prefix(self.node.as_str()).is_some_and(|rest| rest.starts_with('|'));
        match whose {
            Whose::Own => is_own,
            Whose::Others => !is_own,
        }
    }

    /// Returns a day, and its published lines as one text. The text has the name and then the numbers of each line;
    /// line feeds separate them.
    async fn lines(&self, day: Day, whose: Whose) -> Result<(String, String), RedisFailure> {
        let day = day.to_string();
        let mut script = scripts::DAY.key(self.redis.keys().ledger_day(&day));
        script.key(self.redis.keys().ledger_day_text(&day));
        // A node reads its own lines to find out what it has published, so they must be the newest.
        script.arg(match whose {
            Whose::Own => "new",
            Whose::Others => "recent",
        });
        script.arg(READ_TEXT_LIFETIME.as_secs()).arg(LARGEST_TEXT);
        let text = self.redis.script(&Budget::background(), &script).await?;
        Ok((day, text))
    }

    /// Stores reported outcomes of records in Redis, for the nodes whose calls made these records.
    pub(super) async fn send_reports(&self, reports: &[Report]) -> Result<(), RedisFailure> {
        let keys = self.redis.keys();
        let mut script = scripts::REPORT.key(keys.ledger_reports());
        script.key(keys.ledger_report_times()).arg(Self::REPORT_LIFETIME.as_secs()).arg(Self::MOST_REPORTS);
        for report in reports {
            script.arg(&report.name[..]).arg(written(report));
        }
        self.redis.script::<i64>(&Budget::background(), &script).await.map(|_| ())
    }

    /// Returns the outcomes of these records that were reported at any node.
    pub(super) async fn reports(&self, names: &[CallName]) -> Result<Vec<Report>, RedisFailure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("HMGET");
        command.arg(self.redis.keys().ledger_reports());
        names.iter().for_each(|name| {
            command.arg(&name[..]);
        });
        let reports: Vec<Option<Vec<u8>>> = self.redis.command(&Budget::background(), &command).await?;
        Ok(names.iter().zip(reports).filter_map(|(name, report)| read(*name, &report?)).collect())
    }

    /// Deletes the reported outcome of a record, because its call is settled.
    pub(super) async fn forget_report(&self, name: CallName) -> Result<(), RedisFailure> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HDEL").arg(self.redis.keys().ledger_reports()).arg(&name[..]).ignore();
        pipeline.cmd("ZREM").arg(self.redis.keys().ledger_report_times()).arg(&name[..]).ignore();
        self.redis.pipeline::<()>(&Budget::background(), &pipeline).await
    }

    /// Stores orders to settle calls for `node`, which booked the calls. That node writes its replies under `reply`.
    pub(super) async fn order(
        &self,
        node: &str,
        reply: &str,
        orders: &BTreeMap<CallNumber, HandOrder>,
    ) -> Result<(), RedisFailure> {
        let key = self.redis.keys().ledger_orders(node);
        let mut pipeline = redis::pipe();
        for (CallNumber { number, .. }, order) in orders {
            pipeline.cmd("HSET").arg(&key).arg(number).arg(order.written(reply)).ignore();
        }
        pipeline.cmd("EXPIRE").arg(&key).arg(ORDER_LIFETIME.as_secs()).ignore();
        self.redis.pipeline(&Budget::background(), &pipeline).await
    }

    /// Returns the orders for this node that it has not taken yet, by the number of the call, each with the name for
    /// its reply.
    pub(super) async fn orders(&self) -> Result<BTreeMap<i64, (HandOrder, String)>, RedisFailure> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.redis.keys().ledger_orders(&self.node));
        let fields: Vec<(i64, String)> = self.redis.command(&Budget::background(), &command).await?;
        Ok(fields.into_iter().filter_map(|(number, text)| Some((number, HandOrder::read(&text)?))).collect())
    }

    /// Replies to orders that were taken, and removes them.
    pub(super) async fn reply(
        &self,
        orders: &BTreeMap<i64, (HandOrder, String)>,
        results: &BTreeMap<i64, ByHand>,
    ) -> Result<(), RedisFailure> {
        let mut pipeline = redis::pipe();
        for (number, (_, reply)) in orders {
            let key = self.redis.keys().ledger_reply(reply);
            let is_settled = results.get(number) == Some(&ByHand::Settled);
            // The first reply is kept: an order that is taken again finds nothing to settle.
            let field = format!("{}|{number}", self.node);
            pipeline.cmd("HSETNX").arg(&key).arg(field).arg(u8::from(is_settled)).ignore();
            pipeline.cmd("EXPIRE").arg(&key).arg(REPLY_LIFETIME.as_secs()).ignore();
            pipeline.cmd("HDEL").arg(self.redis.keys().ledger_orders(&self.node)).arg(number).ignore();
        }
        self.redis.pipeline(&Budget::background(), &pipeline).await
    }

    /// Returns the replies under a name, by the identity of the node and the number of the call.
    pub(super) async fn replies(&self, reply: &str) -> Result<BTreeMap<(String, i64), ByHand>, RedisFailure> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.redis.keys().ledger_reply(reply));
        let fields: Vec<(String, u8)> = self.redis.command(&Budget::background(), &command).await?;
        let read = |(field, is_settled): (String, u8)| {
            let (node, number) = field.rsplit_once('|')?;
            let result = if is_settled == 1 { ByHand::Settled } else { ByHand::NotOpen };
            Some(((node.to_owned(), number.parse().ok()?), result))
        };
        Ok(fields.into_iter().filter_map(read).collect())
    }

    /// Shows the other nodes the open calls of this one.
    pub(super) async fn show_open(&self, shown: &ShownCalls) -> Result<(), RedisFailure> {
        let text = serde_json::to_string(shown).unwrap_or_default();
        let mut command = redis::cmd("HSET");
        command.arg(self.redis.keys().ledger_open()).arg(&self.node).arg(text);
        self.redis.command::<i64>(&Budget::background(), &command).await.map(|_| ())
    }

    /// Returns the open calls that the other nodes show, by the node's identity.
    pub(super) async fn open(&self) -> Result<BTreeMap<String, ShownCalls>, RedisFailure> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.redis.keys().ledger_open());
        let nodes: Vec<(String, String)> = self.redis.command(&Budget::background(), &command).await?;
        let others = nodes.into_iter().filter(|(node, _)| *node != self.node);
        Ok(others.filter_map(|(node, text)| Some((node, serde_json::from_str(&text).ok()?))).collect())
    }

    /// Deletes the open calls that nodes showed before `oldest`: these nodes do not run any more.
    pub(super) async fn forget_open(&self, oldest: SystemTime) -> Result<(), RedisFailure> {
        let gone: Vec<_> =
            self.open().await?.into_iter().filter(|(_, shown)| shown.at < oldest).map(|(node, _)| node).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("HDEL");
        command.arg(self.redis.keys().ledger_open()).arg(gone);
        self.redis.command::<i64>(&Budget::background(), &command).await.map(|_| ())
    }

    /// Returns the settlements by reference after `last`, and sets `last` to the newest of them.
    pub(super) async fn hear(&self, last: &mut String) -> Result<Vec<Paired>, RedisFailure> {
        type Entry = (String, Vec<String>);
        let mut command = redis::cmd("XRANGE");
        command.arg(self.redis.keys().ledger_settlements()).arg(format!("({last}")).arg("+").arg("COUNT").arg(1000);
        let entries: Vec<Entry> = self.redis.command(&Budget::background(), &command).await?;
        let mut heard = Vec::new();
        for (id, fields) in entries {
            *last = id;
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            heard.extend(match fields.as_slice() {
                ["paired", name, "outcome", outcome, "call", call, ..] => self.paired(name, outcome, call),
                _ => None,
            });
        }
        Ok(heard)
    }

    fn paired(&self, name: &str, outcome: &str, call: &str) -> Option<Paired> {
        let (outcome, mut parts) = (references::outcome(outcome.parse().ok()?), call.split('|'));
        let (node, number, booked) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Paired(unhex(name)?, outcome, (node == self.node).then_some((number, booked))))
    }
}

/// The largest number of lines in a summary: a thousand teams for a month, with a margin.
const MOST_ROWS: usize = 1_000_000;

/// The nodes whose lines are read.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Own,
    Others,
}

/// Parses a published line. Returns its day, team and route (empty if the selection sums over that column), and its
/// numbers. Returns `None` if the line is malformed, not selected, or before the page.
fn line<'a>(selection: &Selection, (day, name): (&'a str, &'a str), numbers: &str) -> Option<([&'a str; 3], Counts)> {
    let mut parts = name.split('|');
    let (_node, tenant, route) = (parts.next()?, parts.next()?, parts.next()?);
    let name = selection.columns.keep([day, tenant, route]);
    if !selection.takes(tenant) || selection.is_before(&name) {
        return None;
    }
    let mut list = [0; 9];
    let mut given = numbers.split(',');
    for number in &mut list {
        *number = given.next()?.parse().ok()?;
    }
    Some((name, Counts::of(list)))
}

/// Returns the form of a reported outcome in Redis: the outcome's code, and the reference if there is one.
fn written(Report { reference, outcome, .. }: &Report) -> Vec<u8> {
    let mut report = references::code(*outcome).to_string().into_bytes();
    report.extend(reference.iter().flatten());
    report
}

/// Reads the reported outcome of a record, in the form that Redis has.
fn read(name: CallName, report: &[u8]) -> Option<Report> {
    let (code, reference) = report.split_first()?;
    let outcome = references::outcome(char::from(*code).to_digit(10)?.into());
    Some(Report { name, reference: reference.try_into().ok(), outcome })
}

fn unhex(text: &str) -> Option<CallName> {
    CallName::from_hex(text).ok()
}
