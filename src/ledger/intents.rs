//! The intents that wait for the disk.

use super::settlement::{CallName, ClaimLink};
use crate::base::name::TenantName;
use crate::iluma::route_name::RouteName;
use std::time::SystemTime;
use tokio::sync::oneshot;

/// A call that may be charged, before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) day: String,
    pub(super) tenant: TenantName,
    pub(super) route: RouteName,
    pub(super) price: u64,
    pub(super) booked: SystemTime,
    /// The claim that the call is made under.
    pub(super) claim: Option<ClaimLink>,
    /// The name of its reference as Iluma has it.
    pub(super) reference: Option<CallName>,
}

/// An intent, and the sender of its call's number, which is dropped if the call was not booked.
pub(super) type Waiting = (Intent, oneshot::Sender<i64>);

/// The intents that wait. Their number is that of the requests in flight at most.
#[derive(Debug, Default)]
pub(super) struct Intents {
    waiting: Vec<Waiting>,
    /// True while the database's queue has a job that will take them.
    is_queued: bool,
}

impl Intents {
    /// Adds an intent. Returns true if its caller has to queue a job.
    pub(super) fn push(&mut self, intent: Intent, number: oneshot::Sender<i64>) -> bool {
        self.waiting.push((intent, number));
        !std::mem::replace(&mut self.is_queued, true)
    }

    /// Takes the intents, because the queued job has begun, or was dropped.
    pub(super) fn take(&mut self) -> Vec<Waiting> {
        self.is_queued = false;
        std::mem::take(&mut self.waiting)
    }
}
