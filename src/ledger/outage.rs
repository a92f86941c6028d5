//! Times in which the database can't be written: they make the node unready.
//!
//! A disk that is almost full takes small writes and refuses large ones. Therefore a single successful write does not
//! end an outage.

use crate::base::database::{Database, RefusedWrites, WriteFault};
use std::time::{Duration, Instant};

/// The time after which a database that can't be written makes the node unready. A checkpoint or a backup blocks writes
/// for a shorter time.
const UNWRITABLE: Duration = Duration::from_secs(10);
/// The time without a refused write after which the database can be written again.
const RECOVERED: Duration = Duration::from_secs(3);
/// The number of bytes that a probe writes. It is more than the size of a usual callback, and less than the free space
/// that a disk keeps in reserve for the ledger and the inbox.
const PROBE: u32 = 64 << 10;

/// The current outage of the database, during which writes are refused, if there is one.
#[derive(Debug, Default)]
pub(super) struct Outage {
    open: Option<Open>,
    /// The number of refused writes since the start of the process, at the last call of `note`.
    seen: u64,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// The time of the last refused write.
    last: Instant,
    fault: WriteFault,
}

impl Outage {
    /// Returns true during an outage.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Begins, continues or ends the outage. `refused` describes the refused writes since the start of the process.
    pub(super) fn note(&mut self, now: Instant, refused: RefusedWrites) {
        let fault = refused.last.filter(|_| refused.count > self.seen);
        self.seen = refused.count;
        match (&self.open, fault) {
            (open, Some(fault)) => {
                let since = open.as_ref().map_or(now, |open| open.since);
                self.open = Some(Open { since, last: now, fault });
            }
            (Some(open), None) if now.saturating_duration_since(open.last) >= RECOVERED => self.open = None,
            (Some(_) | None, None) => {}
        }
    }

    /// Returns the fault of the outage if it is long enough to make the node unready, else `None`.
    pub(super) fn long(&self, now: Instant) -> Option<WriteFault> {
        let long = |open: &&Open| now.saturating_duration_since(open.since) >= UNWRITABLE;
        self.open.as_ref().filter(long).map(|open| open.fault)
    }
}

/// Writes [`PROBE`] bytes to the database, and deletes them again. If the write is refused, the database counts it.
pub(super) async fn probe(database: &Database) {
    let fill = format!(
        "CREATE TABLE IF NOT EXISTS ledger_probe (content BLOB);
         DELETE FROM ledger_probe;
         INSERT INTO ledger_probe VALUES (zeroblob({PROBE}));"
    );
    if database.write(move |connection| connection.execute_batch(&fill)).await.is_ok() {
        let _ = database.write(|connection| connection.execute_batch("DROP TABLE ledger_probe")).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn an_outage_ends_when_no_write_is_refused_any_more() {
        let (mut outage, start) = (Outage::default(), Clock::system().now());
        // At each second: the refused writes so far, and whether the node is unready.
        for (second, count, is_long) in [
            (0, 0, false),
            (1, 1, false),
            // Small writes succeed in between.
            (3, 1, false),
            (4, 3, false),
            (6, 4, false),
            (8, 4, false),
            (10, 5, false),
            (11, 6, true),
            (13, 6, true),
            (14, 6, false),
            (20, 6, false),
            (21, 7, false),
            (23, 8, false),
            (31, 9, true),
        ] {
            let now = start + Duration::from_secs(second);
            outage.note(now, RefusedWrites { count, last: Some(WriteFault::DiskFull).filter(|_| count > 0) });
            assert_eq!(outage.long(now).is_some(), is_long, "second {second}");
        }
    }

    #[tokio::test]
    async fn a_probe_leaves_nothing_behind() {
        let database = Database::in_memory(&[]).unwrap();
        probe(&database).await;
        probe(&database).await;
        let tables = database.read(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'ledger_probe%'", [], |row| {
                row.get::<_, i64>(0)
            })
        });
        assert_eq!(tables.await, Ok(0));
        assert_eq!(database.refused_writes(), RefusedWrites::default());
    }
}
