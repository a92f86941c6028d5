//! Ends of booked calls: known at once, or settled later by a callback, a GET or another node.

use super::charge::Outcome;
use crate::base::calendar::Day;
use crate::base::name::TenantName;
use std::time::SystemTime;

/// Keyed hash of an account and one of Iluma's ids.
pub(super) type CallName = [u8; 32];

/// Outcome of a call that is known by its name: it may be booked here or on another node.
pub(super) type Settlement = (CallName, Outcome);

/// Charged calls of a team, as the ledger had them at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The team.
    pub tenant: TenantName,
    /// The day.
    pub day: Day,
    /// Calls on that day.
    pub today: u64,
    /// Calls in its month so far.
    pub this_month: u64,
}

/// A call whose outcome is not known, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCall {
    /// Its number in this journal; later calls have larger ones.
    pub id: i64,
    /// Time of its booking; 1970 if an earlier version booked it.
    pub booked: SystemTime,
    /// The day under which it is booked.
    pub day: String,
    /// The team.
    pub tenant: String,
    /// The route's name in the route table.
    pub route: String,
    /// Reason why its outcome is not known.
    pub why: Why,
}

/// Reason why the outcome of a call is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Iluma was still processing it: a callback or a GET will settle it.
    Pending,
    /// No answer came, or none that says it: nothing will settle it by itself.
    Lost,
    /// It is under way, or the process ended meanwhile.
    Open,
}

impl Why {
    /// Returns its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Lost => "lost",
            Self::Open => "open",
        }
    }
}

/// End of a booked call, on its way to the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub(super) call: Call,
    pub(super) end: End,
}

/// The call that a closing is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    /// By its number in this journal.
    Booked(i64),
    /// By its name, from a callback or GET at this node.
    Named(CallName),
    /// By its name, from another node.
    NamedElsewhere(CallName),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// It was never sent.
    Withdrawn,
    /// It was sent. The name is kept with an unknown outcome, so that it can be settled later.
    Outcome(Outcome, Option<CallName>),
}

/// Closings that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Closings {
    pub(super) waiting: Vec<Closing>,
    /// Number of closings so far.
    pub(super) came: u64,
}

impl Closings {
    pub(super) fn push(&mut self, closing: Closing) {
        self.waiting.push(closing);
        self.came += 1;
    }
}
