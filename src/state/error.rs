//! Failures of state.

use crate::base::database::DatabaseError;

/// The reason why state could not be read or changed. In Redis a change that failed as
/// [`Unavailable`](Self::Unavailable) may still have been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// State can't be reached or written now, or an entry can't be decrypted now. A later try may succeed.
    #[error("state can't be reached or written; try again later")]
    Unavailable,
    /// State refuses the operation permanently, because of a damaged entry or a programming error.
    #[error("state refused the operation: an entry is damaged, or the gateway has a fault; see the log")]
    Refused,
}

impl From<DatabaseError> for StateError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unwritable | DatabaseError::Closed => Self::Unavailable,
            DatabaseError::Refused | DatabaseError::Damaged => Self::Refused,
        }
    }
}
