//! The ledgers of all nodes, published in Redis.
//!
//! Invariants: a node publishes the current lines of its journal, never a difference, so a line that is published twice
//! counts once and a line that Redis lost is published again; only names and numbers are published, no data of a
//! person.

use super::charge::Outcome;
use super::counts::{Counts, Row};
use super::settlement::Settlement;
use crate::base::calendar::Day;
use crate::redis::{Budget, RedisClient, RedisFailure};
use std::time::Duration;

/// The longest time for publishing and summing; no tenant's request waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of rows in one round trip.
const TOGETHER: usize = 500;
/// The largest number of settlements that are kept for other nodes, so that a node that was away receives them: a
/// night's number, if a thousand calls an hour are settled by another node than their own.
const MOST_SETTLEMENTS: usize = 10_000;

/// The access to the published ledgers.
#[derive(Clone, Debug)]
pub(super) struct PublishedLedgers {
    link: RedisClient,
    node: String,
}

impl PublishedLedgers {
    pub(super) fn new(link: RedisClient, node: &str) -> Self {
        Self { link, node: node.to_owned() }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Publishes lines of this node's journal, and then the number of this publication.
    pub(super) async fn publish(&self, rows: &[Row], kept: Duration, generation: i64) -> Result<(), RedisFailure> {
        for some in rows.chunks(TOGETHER) {
            let mut pipeline = redis::pipe();
            for Row { day, tenant, route, counts } in some {
                let key = self.link.keys().ledger_day(day);
                let field = format!("{}|{tenant}|{route}", self.node);
                let numbers = counts.numbers().map(|number| number.to_string()).join(",");
                pipeline.cmd("HSET").arg(&key).arg(field).arg(numbers).ignore();
                pipeline.cmd("EXPIRE").arg(&key).arg(kept.as_secs()).ignore();
            }
            self.link.pipeline::<()>(&Budget::of(PATIENCE), &pipeline).await?;
        }
        let mut note = redis::cmd("HSET");
        note.arg(self.link.keys().ledger_generations()).arg(&self.node).arg(generation);
        let _: i64 = self.link.command(&Budget::of(PATIENCE), &note).await?;
        Ok(())
    }

    /// Returns the number of this node's last publication, 0 before the first.
    pub(super) async fn generation(&self) -> Result<i64, RedisFailure> {
        let mut command = redis::cmd("HGET");
        command.arg(self.link.keys().ledger_generations()).arg(&self.node);
        let generation: Option<i64> = self.link.command(&Budget::of(PATIENCE), &command).await?;
        Ok(generation.unwrap_or(0))
    }

    /// Returns the lines of these days that this node has published.
    pub(super) async fn own(&self, from: Day, to: Day) -> Result<Vec<Row>, RedisFailure> {
        self.rows(from, to, |node| node == self.node).await
    }

    /// Returns the lines of these days that the other nodes have published.
    pub(super) async fn others(&self, from: Day, to: Day) -> Result<Vec<Row>, RedisFailure> {
        self.rows(from, to, |node| node != self.node).await
    }

    async fn rows(&self, from: Day, to: Day, of: impl Fn(&str) -> bool) -> Result<Vec<Row>, RedisFailure> {
        let mut rows = Vec::new();
        let mut day = from;
        while day <= to && rows.len() < MOST_ROWS {
            let name = day.to_string();
            let mut command = redis::cmd("HGETALL");
            command.arg(self.link.keys().ledger_day(&name));
            let fields: Vec<(String, String)> = self.link.command(&Budget::of(PATIENCE), &command).await?;
            rows.extend(fields.iter().filter_map(|(field, numbers)| row(&name, field, numbers, &of)));
            day = day.next();
        }
        Ok(rows)
    }

    /// Sends the outcomes of calls of other nodes to them.
    pub(super) async fn tell(&self, settlements: &[Settlement]) -> Result<(), RedisFailure> {
        if settlements.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for (name, outcome) in settlements {
            let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
            let said = if *outcome == Outcome::Billable { "1" } else { "0" };
            let add = pipeline
                .cmd("XADD")
                .arg(self.link.keys().ledger_settlements())
                .arg("MAXLEN")
                .arg("~")
                .arg(MOST_SETTLEMENTS);
            add.arg("*").arg("node").arg(&self.node).arg("name").arg(name).arg("billable").arg(said).ignore();
        }
        self.link.pipeline::<()>(&Budget::of(PATIENCE), &pipeline).await
    }

    /// Returns the settlements of other nodes after `last`, which is moved to the end.
    pub(super) async fn hear(&self, last: &mut String) -> Result<Vec<Settlement>, RedisFailure> {
        type Entry = (String, Vec<String>);
        let mut command = redis::cmd("XRANGE");
        command.arg(self.link.keys().ledger_settlements()).arg(format!("({last}")).arg("+").arg("COUNT").arg(1000);
        let entries: Vec<Entry> = self.link.command(&Budget::of(PATIENCE), &command).await?;
        let mut settlements = Vec::new();
        for (id, fields) in entries {
            *last = id;
            let [_, node, _, name, _, billable] = fields.as_slice() else { continue };
            let outcome = if billable == "1" { Outcome::Billable } else { Outcome::NotBillable };
            if *node != self.node
                && let Some(name) = unhex(name)
            {
                settlements.push((name, outcome));
            }
        }
        Ok(settlements)
    }
}

/// The largest number of lines in a summary: a thousand teams for a month, with a margin.
const MOST_ROWS: usize = 1_000_000;

/// Reads a published line; `None` if it belongs to another node than `of` selects, or is malformed.
fn row(day: &str, field: &str, numbers: &str, of: impl Fn(&str) -> bool) -> Option<Row> {
    let mut names = field.split('|');
    let (node, tenant, route) = (names.next()?, names.next()?, names.next()?);
    let mut list = [0; 9];
    let mut given = numbers.split(',');
    for number in &mut list {
        *number = given.next()?.parse().ok()?;
    }
    let [day, tenant, route] = [day, tenant, route].map(str::to_owned);
    of(node).then(|| Row { day, tenant, route, counts: Counts::of(list) })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
