//! Pauses of endpoints: their reasons, and the times at which the gateway pauses and probes an endpoint.

use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use std::time::{Duration, SystemTime};
use strum::{EnumString, IntoStaticStr};

/// The time after which a failing endpoint is paused. It begins with the first failure after the last success.
pub const FAILING: Duration = Duration::from_secs(86_400);

/// The time between two probes of an endpoint that is paused because it fails.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(3600);

/// A team's endpoint for one type of callback. The endpoint's URL is stored separately.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The tenant.
    pub tenant: TenantName,
    /// The type of the callbacks.
    pub kind: CallbackType,
}

/// The reason of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum PauseReason {
    /// The endpoint answered 410.
    Gone,
    /// The endpoint failed for the time [`FAILING`]. The gateway probes the endpoint, and the first success ends the
    /// pause.
    Failing,
    /// An operator paused the endpoint.
    Operator,
    /// The team paused the endpoint.
    Team,
}

/// An endpoint that is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The reason.
    pub reason: PauseReason,
    /// The time when the pause began.
    pub since: SystemTime,
    /// The time of the next probe; `None` if the endpoint is not probed.
    pub probe: Option<SystemTime>,
}

/// The kind of pauses that [`State::resume`](super::State::resume) ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Every pause, whatever its reason.
    Any,
    /// Only a pause that the gateway made by itself. Such a pause ends when the endpoint's URL is changed.
    Automatic,
}

impl PauseReason {
    /// Returns the reason's name, as state stores it and APIs show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
