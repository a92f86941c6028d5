//! The ledger as CSV.

use super::counts::{Counts, Row};

/// Formats lines as CSV (RFC 4180). Names need no quotes.
#[must_use]
pub fn csv(rows: &[Row]) -> String {
    let mut text = format!("day,tenant,route,{}\r\n", Counts::NAMES.join(","));
    for Row { day, tenant, route, counts } in rows {
        let numbers = counts.numbers().map(|number| number.to_string());
        text.push_str(&format!("{day},{tenant},{route},{}\r\n", numbers.join(",")));
    }
    text
}
