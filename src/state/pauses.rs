//! Pauses of endpoints: their reasons, and the times at which they end.

use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use std::time::{Duration, SystemTime};
use strum::{EnumString, IntoStaticStr};

/// The time after which a failing endpoint is paused: from its first failure on, without a success.
pub const FAILING: Duration = Duration::from_secs(86_400);

/// The time between two probes of an endpoint that is paused because it fails.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(3600);

/// A tenant's URL for a type.
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
    /// The endpoint failed for [`FAILING`]; it is probed, and resumed by the first success.
    Failing,
    /// An operator paused it.
    Operator,
    /// The team paused it.
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
    /// The time of the next probe, if the endpoint is probed.
    pub probe: Option<SystemTime>,
}

/// The pauses that an order ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Every pause.
    Any,
    /// A pause that the gateway made by itself. It ends because the endpoint's URL has changed.
    Automatic,
}

impl PauseReason {
    /// Returns the name in answers and in state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
