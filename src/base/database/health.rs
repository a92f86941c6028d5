//! The durability of a database, and the outcomes of its writes, which operators see.

use super::error::WriteFault;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};

/// The durability of a database: the writes that it may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No write is lost, even if the machine loses power: a commit waits for the disk.
    Power,
    /// The newest writes may be lost if the machine loses power. No write is lost if only the process ends. Free space
    /// in the file can be given back to the disk.
    Process {
        /// The size of the write-ahead log, in bytes, at which its pages are written back into the file.
        log: u32,
    },
}

impl Durability {
    /// The size of a page of the database, in bytes.
    const PAGE: u32 = 4096;

    /// Returns the SQL statements that prepare the writer's connection. They must run before tables are created.
    pub(super) fn pragmas(self) -> String {
        match self {
            // The keys of rows are random, so nearly every changed row is on another page. SQLite keeps 16 MiB of pages
            // in memory. It writes the log back into the file when the log has 4096 pages, also 16 MiB.
            Self::Power => {
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096;".to_owned()
            }
            Self::Process { log } => format!(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                 PRAGMA wal_autocheckpoint = {}; PRAGMA journal_size_limit = {log};",
                (log / Self::PAGE).max(1)
            ),
        }
    }
}

/// The outcomes of writes, which the writer's thread records and operators read.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) path: PathBuf,
    durability: Durability,
    fault: Mutex<Option<WriteFault>>,
    refused: Mutex<RefusedWrites>,
}

/// The transactions that have failed with a write fault since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedWrites {
    /// The number of transactions that failed.
    pub count: u64,
    /// The fault of the last failed transaction; `None` if no transaction failed.
    pub last: Option<WriteFault>,
}

impl Health {
    pub(super) fn new(path: &Path, durability: Durability) -> Self {
        Self { path: path.to_owned(), durability, fault: Mutex::default(), refused: Mutex::default() }
    }

    /// Returns the reason why the last write failed, or `None` while writes succeed.
    pub(super) fn fault(&self) -> Option<WriteFault> {
        *self.fault.lock()
    }

    /// Returns the number of transactions that failed with a write fault since the start, and the last fault.
    pub(super) fn refused(&self) -> RefusedWrites {
        *self.refused.lock()
    }

    /// Records the outcome of a commit: its fault, or `None` if it succeeded. Logs a line only if the outcome differs
    /// from that of the commit before.
    pub(super) fn note(&self, fault: Option<WriteFault>) {
        if fault.is_some() {
            let mut refused = self.refused.lock();
            *refused = RefusedWrites { count: refused.count + 1, last: fault };
        }
        let before = std::mem::replace(&mut *self.fault.lock(), fault);
        let path = self.path.display();
        match (fault, self.durability) {
            (Some(fault), Durability::Power) if before != Some(fault) => {
                tracing::error!(%path, %fault, "the database can't be written: free space or repair the disk; will retry");
            }
            (Some(fault), Durability::Process { .. }) if before != Some(fault) => {
                tracing::warn!(%path, %fault, "this file can't be written: free space or repair the disk; will retry");
            }
            (None, _) if before.is_some() => tracing::info!(%path, "the file can be written again"),
            (Some(_) | None, Durability::Power | Durability::Process { .. }) => {}
        }
    }
}
