//! The ledger as CSV.

use super::counts::{Counts, Row};
use super::selection::Columns;

/// Formats lines as CSV (RFC 4180), each with the columns of its name and its numbers. Names need no quotes.
#[must_use]
pub fn csv(columns: Columns, rows: &[Row]) -> String {
    let head: Vec<&str> = columns.names().chain(Counts::NAMES).collect();
    let mut text = head.join(",") + "\r\n";
    for row in rows {
        let numbers = row.counts.numbers().map(|number| number.to_string());
        text.push_str(&format!("{},{}\r\n", columns.name(row.parts()), numbers.join(",")));
    }
    text
}
