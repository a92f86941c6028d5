//! The events of callbacks, for metrics and for the cache.

use super::admission::Admission;
use crate::base::auth_failures::AuthFailures;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Persons;
use crate::state::{AttemptRecord, Queues, StateError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::time::SystemTime;

/// The parts of the gateway that callbacks use, and the functions by which callbacks report to other parts.
pub struct Hooks {
    /// Finds the persons that a callback's body names.
    pub persons: Persons,
    /// Counts the wrong tokens of each client, and limits them.
    pub failures: AuthFailures,
    /// Returns true if a team is suspended. Its deliveries wait until an operator resumes the team.
    pub is_suspended: Box<dyn Fn(&TenantName) -> bool + Send + Sync>,
    /// Counts an event.
    pub note: Box<dyn Fn(Note<'_>) + Send + Sync>,
    /// Passes a callback to the ledger, before the callback's fan-out is stored. The flag is true if no answer of Iluma
    /// has named the callback's record. After an error or a crash the callback is passed again.
    pub called_back: Box<dyn Fn(Arrived, bool) -> Taken + Send + Sync>,
}

/// The future of [`Hooks::called_back`], which ends once the ledger has the callback.
pub(super) type Taken = BoxFuture<'static, Result<(), StateError>>;

/// An event that is counted. The names in it come from the configuration, never from a request.
#[derive(Debug, Clone, Copy)]
pub enum Note<'a> {
    /// A callback arrived, with its account and type if they are known, and with the gateway's answer to it.
    Received(Option<&'a AccountName>, Option<CallbackType>, Admission),
    /// An attempt at a delivery to this team, of this callback type, was made. The record has its result.
    Sent(&'a TenantName, CallbackType, &'a AttemptRecord),
    /// An attempt at a delivery to this team had this outcome; or the delivery became a dead letter without an attempt.
    Attempted(&'a TenantName, Attempt),
    /// No delivery to this team was made, for this reason.
    Skipped(&'a TenantName, Skipped),
    /// The queues were counted, at this time.
    Queues(&'a Queues, SystemTime),
}

/// The outcome of an attempt, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The endpoint answered 2xx.
    Delivered,
    /// The delivery will be tried again.
    Failed,
    /// The delivery is a dead letter: no attempt follows.
    Dead,
}

/// The reason why a delivery was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The team has no URL for this type.
    NoUrl,
    /// Too many callbacks of cache hits waited to be stored, so this one was dropped.
    Overflow,
    /// A callback of a cache hit was dropped, because the team's outbox was full.
    Dropped,
    /// A callback of a cache hit could not be stored.
    NotStored,
}

impl Attempt {
    /// Returns the metrics label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }
}

impl Skipped {
    /// Returns the metrics label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoUrl => "no_url",
            Self::Dropped => "dropped",
            Self::Overflow | Self::NotStored => "lost",
        }
    }
}

/// A callback that was received and stored. The cache and the ledger learn the record's result from it. After a crash
/// it may be announced again.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The account that the callback's path names.
    pub account: AccountName,
    /// The callback's type, if the path named it.
    pub kind: Option<CallbackType>,
    /// Iluma's id of the record.
    pub id: String,
    /// The body as Iluma sent it, so its reference may have a prefix.
    pub body: Bytes,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks(…)")
    }
}
