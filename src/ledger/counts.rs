//! The numbers of the ledger, with their lines and statements.

use super::selection::Selection;
use std::collections::BTreeMap;

/// A line of the ledger: the numbers of a day, a team and a route. If lines were summed, the columns that were not
/// selected are empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// The day, as `2026-11-25`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub day: String,
    /// The team.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The route's name in the route table.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The numbers.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Row {
    /// Returns the line's day, team and route.
    #[must_use]
    pub fn parts(&self) -> [&str; 3] {
        [&self.day, &self.tenant, &self.route]
    }
}

/// The figures of the ledger: requests, calls by outcome, requests without a call of their own, and rupiah. They are of
/// one team, route and day, or a sum of such figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Requests of the team, whatever their result.
    pub requests: u64,
    /// Calls to Iluma.
    pub upstream_calls: u64,
    /// Calls that Iluma charges for.
    pub billable: u64,
    /// Calls for which Iluma may have charged: in flight, pending, or without an answer.
    pub unknown: u64,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests answered by another request's call in flight.
    pub collapsed: u64,
    /// Requests answered by another request's call that is pending at Iluma.
    pub shared: u64,
    /// The cost of the billable calls in rupiah, at the price when each call was booked.
    pub cost: u64,
    /// The cost in rupiah that hits, collapsed and shared requests would have had.
    pub saved: u64,
}

impl Counts {
    /// The names of the numbers, in the order of [`Counts::numbers`].
    pub const NAMES: [&'static str; 9] =
        ["requests", "upstream_calls", "billable", "unknown", "hits", "collapsed", "shared", "cost", "saved"];

    /// Returns the numbers, in the order in which they are declared.
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

    pub(super) const fn of(numbers: [u64; 9]) -> Self {
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

/// The lines of a selection, and notes about missing or changed lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The lines, by day, team and route.
    pub rows: Vec<Row>,
    /// True if the selection has more lines after this page.
    pub has_more: bool,
    /// True if the lines of all nodes are included, which is not the case while Redis is out.
    pub is_complete: bool,
    /// Days of this node's journal that were raised to its published figures, because the journal is a restored copy.
    pub restored: Vec<String>,
}

impl Statement {
    /// The text for readers of an incomplete statement.
    pub const PARTIAL: &'static str = "Redis is out: these are the figures of this node only";

    /// Makes the statement from the lines of this node and of the other nodes; `others` is `None` if their lines can't
    /// be read. Each list has the first selected lines: all of them, or at least one more than fit on the page.
    pub(super) fn of(selection: &Selection, own: Vec<Row>, others: Option<Vec<Row>>, restored: Vec<String>) -> Self {
        let is_complete = others.is_some();
        let mut rows = match others {
            Some(others) if !others.is_empty() => summed(own.into_iter().chain(others)),
            Some(_) | None => own,
        };
        let has_more = rows.len() > selection.most;
        rows.truncate(selection.most);
        Self { rows, has_more, is_complete, restored }
    }
}

/// The sums of lines, by day, team and route.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<[String; 3], Counts>);

impl Sums {
    pub(super) fn add(&mut self, name: [String; 3], counts: Counts) {
        *self.0.entry(name).or_default() += counts;
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns a line for each sum, in the order of day, team and route.
    pub(super) fn rows(self) -> Vec<Row> {
        self.0.into_iter().map(|([day, tenant, route], counts)| Row { day, tenant, route, counts }).collect()
    }
}

/// Adds up lines with the same day, team and route.
fn summed(rows: impl Iterator<Item = Row>) -> Vec<Row> {
    let mut sums = Sums::default();
    for Row { day, tenant, route, counts } in rows {
        sums.add([day, tenant, route], counts);
    }
    sums.rows()
}
