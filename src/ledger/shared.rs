//! The books of several nodes, summed in Redis.
//!
//! Invariants: a node publishes what its journal holds as it stands there, never a difference, so what is published
//! twice counts once and what Redis lost comes back; names and numbers alone, nothing of a person.

use super::{Counts, Outcome, Row};
use crate::base::calendar::Day;
use crate::redis::{Budget, RedisClient, RedisFailure};
use std::time::Duration;

/// What publishing and summing may take; no request of a tenant waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rows in one round trip.
const TOGETHER: usize = 500;
/// Words about calls of other nodes that are kept for them, so that one that was away hears of them: at a thousand
/// calls an hour that are settled by another node than made them, a night.
const MOST_WORDS: usize = 10_000;

/// What nodes share.
#[derive(Clone, Debug)]
pub(super) struct Books {
    link: RedisClient,
    node: String,
}

/// What another node heard of a call that may be ours.
pub(super) type Word = ([u8; 32], Outcome);

impl Books {
    pub(super) fn new(link: RedisClient, node: &str) -> Self {
        Self { link, node: node.to_owned() }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Says what this node's journal holds.
    pub(super) async fn publish(&self, rows: &[Row], kept: Duration) -> Result<(), RedisFailure> {
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
        Ok(())
    }

    /// What the other nodes have published of these days.
    pub(super) async fn others(&self, from: Day, to: Day) -> Result<Vec<Row>, RedisFailure> {
        let mut rows = Vec::new();
        let mut day = from;
        while day <= to && rows.len() < MOST_ROWS {
            let name = day.to_string();
            let mut command = redis::cmd("HGETALL");
            command.arg(self.link.keys().ledger_day(&name));
            let fields: Vec<(String, String)> = self.link.command(&Budget::of(PATIENCE), &command).await?;
            rows.extend(fields.iter().filter_map(|(field, numbers)| self.row(&name, field, numbers)));
            day = day.next();
        }
        Ok(rows)
    }

    /// None if it is this node's, or nobody's.
    fn row(&self, day: &str, field: &str, numbers: &str) -> Option<Row> {
        let mut names = field.split('|');
        let (node, tenant, route) = (names.next()?, names.next()?, names.next()?);
        let mut list = [0; 9];
        let mut given = numbers.split(',');
        for number in &mut list {
            *number = given.next()?.parse().ok()?;
        }
        let [day, tenant, route] = [day, tenant, route].map(str::to_owned);
        (node != self.node).then(|| Row { day, tenant, route, counts: Counts::of(list) })
    }

    /// Tells the other nodes of calls that are not this one's.
    pub(super) async fn tell(&self, words: &[Word]) -> Result<(), RedisFailure> {
        let mut pipeline = redis::pipe();
        for (name, outcome) in words {
            let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
            let said = if *outcome == Outcome::Billable { "1" } else { "0" };
            let add =
                pipeline.cmd("XADD").arg(self.link.keys().ledger_settlements()).arg("MAXLEN").arg("~").arg(MOST_WORDS);
            add.arg("*").arg("node").arg(&self.node).arg("name").arg(name).arg("billable").arg(said).ignore();
        }
        self.link.pipeline::<()>(&Budget::of(PATIENCE), &pipeline).await
    }

    /// What the others told since `last`, which moves on.
    pub(super) async fn hear(&self, last: &mut String) -> Result<Vec<Word>, RedisFailure> {
        type Entry = (String, Vec<String>);
        let mut command = redis::cmd("XRANGE");
        command.arg(self.link.keys().ledger_settlements()).arg(format!("({last}")).arg("+").arg("COUNT").arg(1000);
        let entries: Vec<Entry> = self.link.command(&Budget::of(PATIENCE), &command).await?;
        let mut words = Vec::new();
        for (id, fields) in entries {
            *last = id;
            let [_, node, _, name, _, billable] = fields.as_slice() else { continue };
            let outcome = if billable == "1" { Outcome::Billable } else { Outcome::NotBillable };
            if *node != self.node
                && let Some(name) = unhex(name)
            {
                words.push((name, outcome));
            }
        }
        Ok(words)
    }
}

/// What a summary may hold in memory: a thousand teams for a month, and then some.
const MOST_ROWS: usize = 1_000_000;

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
