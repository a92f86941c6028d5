//! What happens to callbacks, for the parts that count it or learn from it.

use super::admission::Admission;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Persons;
use crate::state::Queues;
use bytes::Bytes;
use std::time::SystemTime;

/// What callbacks need of the rest of the gateway.
pub struct Hooks {
    /// Finds the persons that a callback's body is about.
    pub persons: Persons,
    /// Counts what happened.
    pub note: Box<dyn Fn(Note<'_>) + Send + Sync>,
}

/// Something that is counted. Nothing in it comes from input.
#[derive(Debug, Clone, Copy)]
pub enum Note<'a> {
    /// A callback came; account and type if they are known.
    Received(Option<&'a AccountName>, Option<CallbackType>, Admission),
    /// A delivery was attempted.
    Attempted(&'a TenantName, Attempt),
    /// No delivery was made.
    Skipped(&'a TenantName, Skipped),
    /// The queues were counted, at this time.
    Queues(&'a Queues, SystemTime),
}

/// The end of an attempt, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The endpoint answered 2xx.
    Delivered,
    /// The delivery will be tried again.
    Failed,
    /// The attempt was the last one.
    Dead,
}

/// The reason why there is no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The team has no URL for this type.
    NoUrl,
    /// Too many callbacks of hits came at once.
    Overflow,
    /// A callback of a hit found the team's outbox full.
    Dropped,
    /// A callback of a hit could not be stored.
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

/// A callback that came and was stored, for the parts that learn from it. It may come again after a crash.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The account.
    pub account: AccountName,
    /// Its type, where the path named it.
    pub kind: Option<CallbackType>,
    /// Iluma's id.
    pub id: String,
    /// The body, with the reference as Iluma knows it.
    pub body: Bytes,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks(…)")
    }
}
