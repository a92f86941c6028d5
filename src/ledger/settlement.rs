//! The ends of booked calls: known at once, or settled later by a callback, a GET, an operator or another node.

use super::charge::Outcome;
use crate::base::calendar::Day;
use crate::base::database::DatabaseError;
use crate::base::name::TenantName;
use std::collections::BTreeSet;
use std::time::SystemTime;

/// A keyed hash by which a call is found: of an account and Iluma's id of a record, or of an account, a route and a
/// reference.
pub(super) type CallName = [u8; 32];

/// The claim of an idempotency key under which a call was made. The bytes are the key's pseudonym and the claim's
/// token.
pub type ClaimLink = [u8; 48];

/// The outcome of the call with this name. The call may be booked here or on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) name: CallName,
    pub(super) outcome: Outcome,
}

/// The charged calls of a team, from the ledger at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The team.
    pub tenant: TenantName,
    /// The day.
    pub day: Day,
    /// Calls on that day.
    pub today: u64,
    /// Calls in that day's month so far.
    pub this_month: u64,
    /// Rupiah in that day's month so far: the cost of billable calls, and of calls that may still be billable.
    pub rupiah: u64,
}

/// The price of a call that turned out not to be billable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The team that made the call.
    pub tenant: TenantName,
    /// The day under which the call is booked.
    pub day: Day,
    /// The price in rupiah.
    pub rupiah: u64,
}

/// The name of one call: the node that booked it, and its number there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallNumber {
    /// The node's name.
    pub node: String,
    /// The number in that node's journal.
    pub number: i64,
}

/// The result of a settlement by hand, for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByHand {
    /// The call was open, and has the outcome now.
    Settled,
    /// The call has an outcome, is in flight, or was never booked.
    NotOpen,
}

/// The result of a settlement by hand, for all its calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettledByHand {
    /// The calls that were open, and have their outcome now.
    pub settled: BTreeSet<CallNumber>,
    /// The calls that are not open: they have an outcome, are in flight, or were never booked.
    pub not_open: BTreeSet<CallNumber>,
    /// The names of the nodes that did not settle their calls in time, or that could not be identified.
    pub left: BTreeSet<String>,
}

impl SettledByHand {
    pub(super) fn note(&mut self, call: CallNumber, result: ByHand) {
        match result {
            ByHand::Settled => self.settled.insert(call),
            ByHand::NotOpen => self.not_open.insert(call),
        };
    }
}

/// The reason why nothing was settled by hand.
#[derive(Debug, thiserror::Error)]
pub enum HandError {
    /// No node of this name shows its open calls.
    #[error("there is no node {0:?}; GET /v1/usage/unknown names the node of each call")]
    UnknownNode(String),
    /// The ledger can't be written.
    #[error("the ledger can't be written now; give the order again")]
    Database(#[from] DatabaseError),
}

/// A call whose outcome is not known, or is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OpenCall {
    /// The call's number in the journal of its node; later calls have larger numbers.
    pub id: i64,
    /// The time of its booking; 1970 if an earlier version booked it.
    pub booked: SystemTime,
    /// The day under which the call is booked.
    pub day: String,
    /// The team.
    pub tenant: String,
    /// The route's name in the route table.
    pub route: String,
    /// The reason why its outcome is unknown.
    pub why: Why,
}

/// The reason why the outcome of a call is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Iluma was still processing the request: a callback or a GET will settle the call.
    Pending,
    /// There was no answer, or the answer does not show the outcome. Only the reference of the call or an operator can
    /// settle the call.
    Lost,
    /// The call is in flight, or the process ended during the call.
    Open,
}

impl Why {
    /// Returns the reason's name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Lost => "lost",
            Self::Open => "open",
        }
    }
}

/// The end of a booked call, before it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub(super) call: Call,
    pub(super) end: End,
    /// The keyed hash of the reference of a booked call, if it is known by now. For an outcome that another node
    /// reported, it is the hash that this node sent.
    pub(super) reference: Option<CallName>,
    /// True if the outcome is from a settlement that arrived before the call's own answer.
    pub(super) is_early: bool,
}

/// The conditions under which calls of the journal end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The smallest call number of this process. Calls with smaller numbers belong to earlier runs.
    pub(super) first_new: i64,
    /// True if there are no other nodes, so that the journal has every call.
    pub(super) is_alone: bool,
    /// Milliseconds since 1970.
    pub(super) now: i64,
    pub(super) day: Day,
}

/// The call that a closing ends, and the way to find it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    /// A call by its number in this journal.
    Booked(i64),
    /// The call of the record with this name. A callback or a GET at this node gave the outcome.
    Named(CallName),
    /// The call of the record with this name. Another node reported the outcome.
    NamedElsewhere(CallName),
    /// The call of the record with this name or, if there is none, the oldest lost call with this reference. The first
    /// value is the name, the second the reference. No answer is known to have named the record.
    Referenced(CallName, CallName),
    /// A lost call that Redis has matched by reference with the outcome of the record with this name. `Some` is a call
    /// of this journal: its number, and the time of its booking in milliseconds since 1970. `None` is a call of another
    /// node.
    Paired(CallName, Option<(i64, i64)>),
}

/// The end of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The call was never sent.
    Withdrawn,
    /// The call was sent. The second value is the name of the record in its answer, if the answer names one. If the
    /// outcome is unknown, the name is stored, so that the call can be settled later.
    Outcome(Outcome, Option<CallName>),
}

/// The closings that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Closings {
    pub(super) waiting: Vec<Closing>,
    /// The number of closings since the start of the process.
    pub(super) came: u64,
}

impl Closings {
    pub(super) fn push(&mut self, closing: Closing) {
        self.waiting.push(closing);
        self.came += 1;
    }
}
