//! The durability of a database, and the outcome of its writes for operators.

use super::error::WriteFault;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};

/// Writes that a database may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// None, even if the machine loses power: a commit waits for the disk.
    Power,
    /// The newest writes, and only if the machine loses power. Space that is free can be given back to the disk.
    Process {
        /// Bytes of the write-ahead log from which on it is written back into the file.
        log: u32,
    },
}

impl Durability {
    /// Bytes of a page of SQLite's.
    const PAGE: u32 = 4096;

    /// Returns the statements that prepare the writer, before there are tables.
    pub(super) fn pragmas(self) -> String {
        match self {
            // Names are random, so every row is on a page of its own: 16 MiB of pages are remembered, and as many go back at
            // once.
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

/// Outcome of the last write, shared with the writer's thread.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) path: PathBuf,
    durability: Durability,
    fault: Mutex<Option<WriteFault>>,
    refused: Mutex<RefusedWrites>,
}

/// The transactions that the disk refused since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedWrites {
    /// Their number.
    pub count: u64,
    /// The reason of the last one; `None` if there was none.
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

    /// Returns the transactions that the disk refused since the start.
    pub(super) fn refused(&self) -> RefusedWrites {
        *self.refused.lock()
    }

    /// Records the outcome of a commit. It logs one line for each change of state, not for each commit.
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
