//! How much a team, and all of them together, may ask for.
//!
//! Invariants: a [`Permit`] stands for one request in flight and gives its places back when it is dropped, however
//! the request ends; what is refused later is not charged earlier.

mod local;

use crate::clock::Clock;
use crate::config::{self, Settings};
use local::{InFlight, Place, Rate};
use std::sync::Arc;
use std::time::Duration;

/// Requests without a key at once. They have places of their own, so that nobody without a key can take a team's.
const MOST_ANONYMOUS: usize = 64;

/// A limit, by the name that metrics and the `RateLimit` headers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests a second, with a burst.
    Requests,
    /// Requests handled at once.
    InFlight,
}

impl Limit {
    /// The name in metrics and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InFlight => "in_flight",
        }
    }
}

/// Why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tenant's own limit. A 429.
    #[error("the rate limit of this API key is exceeded, try again later")]
    Exceeded {
        /// Which one.
        limit: Limit,
        /// How much it allows.
        quota: u64,
        /// Over how long, where it is a rate.
        window: Option<Duration>,
        /// When to come back.
        retry_after: Duration,
    },
    /// The gateway has as many requests in hand as it may. A 503: nothing was sent.
    #[error("the gateway is at its limit of requests in flight, try again later")]
    Overloaded,
}

/// A request in flight.
#[derive(Debug)]
pub struct Permit {
    _tenant: Place,
    _gateway: Place,
}

/// The limits of one tenant.
#[derive(Debug)]
struct TenantLimits {
    rate: Option<Rate>,
    in_flight: InFlight,
}

/// Every limit of this process.
#[derive(Debug)]
pub struct Limits {
    gateway: Arc<InFlight>,
    anonymous: Arc<InFlight>,
    tenants: Vec<Arc<TenantLimits>>,
    names: Vec<crate::name::TenantName>,
}

impl Limits {
    /// The limits that `settings` asks for. A tenant of `previous` whose limits did not change keeps what it used.
    #[must_use]
    pub fn new(settings: &Settings, previous: Option<&Self>, clock: &Clock) -> Self {
        let before = |name| {
            let previous = previous?;
            let at = previous.names.iter().position(|known| known == name)?;
            previous.tenants.get(at)
        };
        let tenants = settings.tenants.iter().map(|(name, tenant)| match before(name) {
            Some(limits) if limits.fit(tenant) => Arc::clone(limits),
            _ => Arc::new(TenantLimits::new(tenant, clock)),
        });
        let fits = |limits: &&Self| limits.gateway.most() == u64::try_from(settings.server.max_in_flight).ok();
        let gateway = match previous.filter(fits) {
            Some(limits) => Arc::clone(&limits.gateway),
            None => Arc::new(InFlight::new(Some(settings.server.max_in_flight))),
        };
        let anonymous = match previous {
            Some(limits) => Arc::clone(&limits.anonymous),
            None => Arc::new(InFlight::new(Some(MOST_ANONYMOUS))),
        };
        let names = settings.tenants.keys().cloned().collect();
        Self { gateway, anonymous, tenants: tenants.collect(), names }
    }

    /// Takes what one request of the tenant at `index` costs, or nothing.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&self, index: usize) -> Result<Permit, Refusal> {
        let gateway = self.gateway.enter().ok_or(Refusal::Overloaded)?;
        let Some(limits) = self.tenants.get(index) else { return Err(Refusal::Overloaded) };
        // Places come back by themselves, a token of the rate does not: it is taken last.
        let tenant = limits.in_flight.enter().ok_or_else(|| Refusal::Exceeded {
            limit: Limit::InFlight,
            quota: limits.in_flight.most().unwrap_or_default(),
            window: None,
            // Nobody knows when a place comes free; a second is the least that the header can say.
            retry_after: Duration::from_secs(1),
        })?;
        if let Some(rate) = &limits.rate {
            rate.take().map_err(|retry_after| Refusal::Exceeded {
                limit: Limit::Requests,
                quota: rate.burst(),
                window: Some(rate.window()),
                retry_after,
            })?;
        }
        Ok(Permit { _tenant: tenant, _gateway: gateway })
    }

    /// A place for a request that no tenant asks, such as upstream's health.
    ///
    /// # Errors
    /// There are as many of them as there may be.
    pub fn admit_anonymous(&self) -> Result<Permit, Refusal> {
        let anonymous = self.anonymous.enter().ok_or(Refusal::Overloaded)?;
        Ok(Permit { _tenant: Place::free(), _gateway: anonymous })
    }
}

impl TenantLimits {
    fn new(tenant: &config::Tenant, clock: &Clock) -> Self {
        let rate = tenant.requests_per_second.and_then(|rate| Rate::new(rate, tenant.burst.unwrap_or(rate), clock));
        Self { rate, in_flight: InFlight::new(tenant.max_in_flight) }
    }

    /// Whether these are the limits that the configuration asks for.
    fn fit(&self, tenant: &config::Tenant) -> bool {
        let asked = tenant.requests_per_second.map(|rate| (rate, tenant.burst.unwrap_or(rate)));
        self.rate.as_ref().map(Rate::shape) == asked
            && self.in_flight.most() == tenant.max_in_flight.and_then(|n| u64::try_from(n).ok())
    }
}
