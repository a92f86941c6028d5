//! The reasons to refuse a request because of its `Idempotency-Key`.

use crate::reference::MalformedKey;

/// The reason why a request with an `Idempotency-Key` is not sent, and gets no stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyConflict {
    /// The key is malformed, or given twice.
    #[error(transparent)]
    Malformed(#[from] MalformedKey),
    /// An earlier request with the key had another body, path or content type.
    #[error(
        "this Idempotency-Key was used in the last 24 h for a request with another body, path or content type; give this \
         request a key of its own; nothing was sent"
    )]
    Reused,
    /// Another request with the key is in flight.
    #[error("a request with this Idempotency-Key is in flight; try again later; nothing was sent")]
    InFlight,
    /// An earlier request with the key was sent, and its outcome is unknown.
    #[error(
        "the request with this Idempotency-Key was sent and its outcome is unknown: it may have been charged; nothing \
         was sent again; to make a second call, use another key"
    )]
    OutcomeUnknown,
    /// An earlier request with the key was answered, but the answer is not stored.
    #[error(
        "the request with this Idempotency-Key was answered, and its answer was not kept, because it or the \
         request's body was too large, or the body was encoded; nothing was sent again; to make a second call, use \
         another key"
    )]
    NotKept,
    /// The answer was erased with the data of a person.
    #[error("the answer to the request with this Idempotency-Key was erased; nothing was sent again")]
    Erased,
    /// The key can't be stored or read.
    #[error("the Idempotency-Key can't be stored right now; try again later; nothing was sent")]
    Unavailable,
}
