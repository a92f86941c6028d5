//! Failures of state.

use crate::base::database::DatabaseError;

/// Reason why state could not be asked or changed. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It can't be reached or written just now.
    #[error("state can't be reached or written")]
    Unavailable,
    /// It refuses this, now and later: a damaged entry, or a mistake of ours.
    #[error("state refused the work")]
    Refused,
}

impl From<DatabaseError> for StateError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unwritable | DatabaseError::Closed => Self::Unavailable,
            DatabaseError::Refused => Self::Refused,
        }
    }
}
