//! Counts and logs failed authentications, and limits them by the client's address.
//!
//! Invariants: only wrong credentials are counted, so a valid credential is never limited; this part never sees a
//! credential; the table of addresses is bounded, and the address that failed least recently is evicted first.

use super::clock::Clock;
use super::log_throttle::LogThrottle;
use arc_swap::ArcSwap;
use governor::Quota;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, RateLimiter};
use moka::policy::EvictionPolicy;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The largest number of remembered addresses, for all listeners together. They take about 10 MiB of memory.
const MOST_ADDRESSES: u64 = 50_000;
/// The time without a failure after which an address is forgotten. After this time the limiter would allow the address
/// as many failures as a new address, so nothing is lost.
const IDLE: Duration = Duration::from_secs(120);

/// A listener that authenticates its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authenticating {
    /// The listener of teams.
    Server,
    /// The listener of Iluma's callbacks.
    Callbacks,
    /// The listener of operators.
    Admin,
}

impl Authenticating {
    const ALL: [Self; 3] = [Self::Server, Self::Callbacks, Self::Admin];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Callbacks => "callbacks",
            Self::Admin => "admin",
        }
    }
}

/// The failed authentications of all listeners. Clones share them.
#[derive(Debug, Clone)]
pub struct AuthFailures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: FailureClock,
    counts: [AtomicU64; Authenticating::ALL.len()],
    table: ArcSwap<Table>,
}

#[derive(Debug)]
struct Table {
    most: NonZeroU32,
    addresses: moka::sync::Cache<(Authenticating, IpAddr), Arc<Address>>,
}

#[derive(Debug)]
struct Address {
    limiter: RateLimiter<NotKeyed, InMemoryState, FailureClock, NoOpMiddleware<Nanos>>,
    throttle: LogThrottle,
}

impl AuthFailures {
    /// Makes an empty table. An address may send `most` wrong credentials a minute.
    #[must_use]
    pub fn new(most: NonZeroU32, clock: &Clock) -> Self {
        let clock = FailureClock { clock: clock.clone(), origin: clock.now() };
        Self(Arc::new(Inner { clock, counts: Default::default(), table: ArcSwap::from_pointee(Table::new(most)) }))
    }

    /// Changes the limit to `most` failures a minute. If this is another limit than before, every address starts again
    /// from zero failures.
    pub fn reload(&self, most: NonZeroU32) {
        if self.0.table.load().most != most {
            self.0.table.store(Arc::new(Table::new(most)));
        }
    }

    /// Counts and logs a wrong credential that a client sent.
    ///
    /// # Errors
    /// Returns the time after which the client may try again, if its address has sent too many wrong credentials.
    pub fn note(&self, listener: Authenticating, client: IpAddr) -> Result<(), Duration> {
        self.0.counts[listener as usize].fetch_add(1, Ordering::Relaxed);
        let (table, network) = (self.0.table.load(), network(client));
        let new = || {
            let limiter = RateLimiter::direct_with_clock(Quota::per_minute(table.most), self.0.clock.clone());
            Arc::new(Address { limiter, throttle: LogThrottle::default() })
        };
        let address = table.addresses.get_with((listener, network), new);
        if let Some(failures) = address.throttle.pass() {
            let listener = listener.as_str();
            tracing::warn!(listener, client = %network, failures, "wrong credentials were refused");
        }
        address.limiter.check().map_err(|not_until| not_until.wait_time_from(self.0.clock.nanos()))
    }

    /// Returns the name of each listener, and the number of its failures since the start.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |listener: Authenticating| self.0.counts[listener as usize].load(Ordering::Relaxed);
        Authenticating::ALL.map(|listener| (listener.as_str(), count(listener))).to_vec()
    }
}

impl Table {
    fn new(most: NonZeroU32) -> Self {
        let addresses = moka::sync::Cache::builder()
            .max_capacity(MOST_ADDRESSES)
            .time_to_idle(IDLE)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { most, addresses }
    }
}

/// Returns the address under which a client's failures are counted: its IPv4 address, or the /64 network of its IPv6
/// address.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The gateway's clock, as the crate `governor` needs it: in nanoseconds since `origin`.
#[derive(Debug, Clone)]
struct FailureClock {
    clock: Clock,
    origin: Instant,
}

impl FailureClock {
    fn nanos(&self) -> Nanos {
        let since = self.clock.now().saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).into()
    }
}

impl governor::clock::Clock for FailureClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(clock: &Clock) -> AuthFailures {
        AuthFailures::new(NonZeroU32::new(20).unwrap(), clock)
    }

    #[test]
    fn an_address_may_fail_so_often_a_minute_and_no_other_suffers() {
        let clock = Clock::adjustable();
        let failures = failures(&clock);
        let [one, other]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        for _ in 0..20 {
            assert_eq!(failures.note(Authenticating::Server, one), Ok(()));
        }
        let wait = failures.note(Authenticating::Server, one).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(3), "{wait:?}");
        assert_eq!(failures.note(Authenticating::Server, other), Ok(()));
        assert_eq!(failures.note(Authenticating::Admin, one), Ok(()), "each listener for itself");
        clock.advance(Duration::from_secs(60));
        assert_eq!(failures.note(Authenticating::Server, one), Ok(()));
        assert_eq!(failures.counts(), [("server", 23), ("callbacks", 0), ("admin", 1)]);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        for (client, expected) in
            [("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1")]
        {
            assert_eq!(network(client.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn many_addresses_take_a_bounded_table() {
        let failures = failures(&Clock::adjustable());
        for address in 0..200_000_u32 {
            let _ = failures.note(Authenticating::Server, IpAddr::V4(address.into()));
        }
        let table = failures.0.table.load();
        table.addresses.run_pending_tasks();
        assert!(table.addresses.entry_count() <= MOST_ADDRESSES);
    }
}
