//! The ledger as CSV.

use super::counts::{Counts, Row};
use super::selection::Columns;

/// Formats a header and the ledger's lines as CSV (RFC 4180). Each line has the selected columns and all numbers. No
/// value needs quotes.
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
