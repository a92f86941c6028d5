//! The failures of a database: the error for the caller, and the fault of the disk or the file for operators.

/// The reason why the work of a caller was not done. The work then changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The disk is full or fails, or another program holds the file.
    #[error("the database can't be written")]
    Unwritable,
    /// The work violates a constraint, or has a programming error.
    #[error("the database refused the operation: see the log, and report it")]
    Refused,
    /// The file is damaged, or is not a database.
    #[error("the database file is damaged: restore a backup")]
    Damaged,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

/// The reason why the last write to the disk failed, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteFault {
    /// No space is left.
    #[error("disk full")]
    DiskFull,
    /// The file, its folder or the whole disk can't be written.
    #[error("the file is read-only, or its permissions forbid writing")]
    ReadOnly,
    /// Another program has locked the file.
    #[error("another program has locked the file")]
    Locked,
    /// The disk reports an error.
    #[error("the disk fails: I/O error")]
    Io,
}

impl From<&rusqlite::Error> for DatabaseError {
    /// Returns the error for the caller, without SQLite's own text, which may quote the data of the write.
    fn from(error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged,
            Some(_) | None if write_fault(error).is_some() => Self::Unwritable,
            Some(_) | None => Self::Refused,
        }
    }
}

/// Returns the fault of the disk or the file that caused an error; `None` if the error has another cause.
pub(super) fn write_fault(error: &rusqlite::Error) -> Option<WriteFault> {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DiskFull, FileLockingProtocolFailed, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code()? {
        DiskFull => Some(WriteFault::DiskFull),
        SystemIoFailure => Some(WriteFault::Io),
        ReadOnly | CannotOpen | PermissionDenied => Some(WriteFault::ReadOnly),
        DatabaseBusy | FileLockingProtocolFailed => Some(WriteFault::Locked),
        // Newer versions of SQLite may have further codes.
        _ => None,
    }
}
