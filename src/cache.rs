//! What is remembered of upstream's answers.
//!
//! Invariants: a [`Key`] can't be built without the tenant's [`Scope`]; an entry is never served past its lifetime; at
//! most one call per key is under way in this process ([`Flights`]); stored bytes are never written anew, only the
//! caller's reference is put in its place.

mod entry;
mod flight;
mod key;
mod memory;
mod policy;

pub use entry::Entry;
pub use flight::{Flights, Leader, Seat, Waiter};
pub use key::{Key, Keys, Scope};
pub use policy::Subject;

use crate::clock::Clock;
use crate::config;
use crate::splice::Spliced;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use memory::Memory;
use std::sync::Arc;
use std::time::Duration;

/// Remembered answers, by key.
#[derive(Debug)]
pub struct Cache {
    keys: Keys,
    memory: Memory,
    lifetimes: ArcSwap<config::Cache>,
    clock: Clock,
}

/// An entry that may be served.
#[derive(Debug)]
pub struct Hit {
    /// The entry.
    pub entry: Arc<Entry>,
    /// How long ago it was stored.
    pub age: Duration,
    /// How long it may still be served.
    pub ttl: Duration,
}

impl Cache {
    /// An empty cache whose keys derive from `root`.
    #[must_use]
    pub fn new(settings: &config::Cache, root: &[u8; 32], clock: Clock) -> Self {
        Self {
            keys: Keys::new(root),
            memory: Memory::new(settings.memory),
            lifetimes: ArcSwap::from_pointee(settings.clone()),
            clock,
        }
    }

    /// Takes over other lifetimes, for what is stored from now on. The bound of memory stays as it was at the start.
    pub fn reload(&self, settings: &config::Cache) {
        self.lifetimes.store(Arc::new(settings.clone()));
    }

    /// Finds nothing again of what was stored until now.
    pub fn forget(&self) {
        self.keys.begin_epochs();
    }

    /// The key of a question.
    #[must_use]
    pub fn key(&self, scope: &Scope<'_>, subject: Subject, target: &str, parameters: &[u8]) -> Key {
        self.keys.key(scope, subject, target, parameters)
    }

    /// The entry under `key`, if it may still be served and is no older than `max_age`.
    #[must_use]
    pub fn look_up(&self, key: &Key, max_age: Option<Duration>) -> Option<Hit> {
        let entry = self.memory.look_up(key)?;
        let age = self.clock.now().saturating_duration_since(entry.stored_at);
        let ttl = entry.lifetime.checked_sub(age).filter(|ttl| !ttl.is_zero())?;
        max_age.is_none_or(|most| age <= most).then_some(Hit { entry, age, ttl })
    }

    /// Keeps an answer if it is worth keeping; says whether it was. `body` is upstream's, `spliced` the same made
    /// ready for other callers.
    pub fn offer(
        &self,
        key: Key,
        subject: Subject,
        status: StatusCode,
        content_type: Option<&HeaderValue>,
        body: &Bytes,
        spliced: &Spliced,
    ) -> bool {
        let lifetimes = self.lifetimes.load();
        let Some(lifetime) = policy::lifetime(subject, status, body, &lifetimes) else { return false };
        // Copied, as the body was: see `Spliced::whole`.
        let content_type = content_type.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        let entry = Entry { status, content_type, body: spliced.clone(), stored_at: self.clock.now(), lifetime };
        self.memory.insert(key, Arc::new(entry));
        true
    }

    /// Entries and bytes held, for metrics.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        self.memory.size()
    }
}

/// What the cache did for a request, as `cache-status` tells it (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Served from the cache.
    Hit {
        /// How long the entry may still be served.
        ttl: Duration,
    },
    /// Asked upstream, because nothing was there.
    Miss {
        /// Whether the answer was kept.
        stored: bool,
    },
    /// Waited for a call that another request had begun.
    Collapsed,
    /// Asked upstream, because the request's directives wanted it.
    Directed {
        /// Whether the answer was kept.
        stored: bool,
    },
    /// The cache was left out of it.
    Bypass {
        /// Why.
        detail: &'static str,
    },
}

impl Report {
    /// The value of `cache-status`.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        match self {
            Self::Hit { ttl } => {
                let mut value = Vec::with_capacity(40);
                value.extend_from_slice(b"iluma-gateway; hit; ttl=");
                value.extend_from_slice(itoa::Buffer::new().format(ttl.as_secs()).as_bytes());
                HeaderValue::from_maybe_shared(Bytes::from(value))
                    .unwrap_or(HeaderValue::from_static("iluma-gateway; hit"))
            }
            Self::Miss { stored: true } => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; stored"),
            Self::Miss { stored: false } => HeaderValue::from_static("iluma-gateway; fwd=uri-miss"),
            Self::Collapsed => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; collapsed"),
            Self::Directed { stored: true } => HeaderValue::from_static("iluma-gateway; fwd=request; stored"),
            Self::Directed { stored: false } => HeaderValue::from_static("iluma-gateway; fwd=request"),
            Self::Bypass { detail } => HeaderValue::try_from(format!("iluma-gateway; fwd=bypass; detail={detail}"))
                .unwrap_or(HeaderValue::from_static("iluma-gateway; fwd=bypass")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splice::Absent;

    const FOUND: &[u8] = br#"{"status":"COMPLETED","id":"1","result":{"is_found":true}}"#;

    fn cache(clock: &Clock) -> (Cache, Key) {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let settings = config::Cache {
            memory: crate::byte_size::ByteSize::mib(1),
            bank_found: minutes(10),
            bank_not_found: minutes(5),
            bank_stale_if_error: Duration::ZERO,
            cft_clear: minutes(1),
            cft_match: Duration::ZERO,
            bank_codes: minutes(1),
        };
        let cache = Cache::new(&settings, &[7; 32], clock.clone());
        let account = "live".parse().unwrap();
        let key = cache.key(&Scope::shared(&account), Subject::Bank, "/v1.1/x", b"q");
        (cache, key)
    }

    fn offer(cache: &Cache, key: &Key, body: &'static [u8]) -> bool {
        let body = Bytes::from_static(body);
        let spliced = Spliced::split(&body, Absent::Insert).unwrap_or(Spliced::whole(&body));
        cache.offer(key.clone(), Subject::Bank, StatusCode::OK, None, &body, &spliced)
    }

    #[test]
    fn an_entry_is_served_until_its_lifetime_ends_and_no_longer() {
        let clock = Clock::adjustable();
        let (cache, key) = cache(&clock);
        assert!(cache.look_up(&key, None).is_none());
        assert!(offer(&cache, &key, FOUND));
        clock.advance(Duration::from_secs(599));
        let hit = cache.look_up(&key, None).unwrap();
        assert_eq!((hit.age.as_secs(), hit.ttl.as_secs()), (599, 0));
        assert!(cache.look_up(&key, Some(Duration::from_secs(600))).is_some());
        assert!(cache.look_up(&key, Some(Duration::from_secs(598))).is_none());
        clock.advance(Duration::from_secs(1));
        assert!(cache.look_up(&key, None).is_none());
    }

    #[test]
    fn what_is_not_worth_keeping_is_not_kept() {
        let (cache, key) = cache(&Clock::adjustable());
        assert!(!offer(&cache, &key, br#"{"status":"PENDING","id":"1"}"#));
        assert!(!offer(&cache, &key, b"not JSON"));
        assert!(cache.look_up(&key, None).is_none());
    }

    #[test]
    fn the_report_reads_as_rfc_9211_has_it() {
        let week = Report::Hit { ttl: Duration::from_secs(604_800) };
        assert_eq!(week.header(), "iluma-gateway; hit; ttl=604800");
        assert_eq!(Report::Miss { stored: true }.header(), "iluma-gateway; fwd=uri-miss; stored");
        assert_eq!(Report::Collapsed.header(), "iluma-gateway; fwd=uri-miss; collapsed");
        assert_eq!(Report::Bypass { detail: "magic-reply" }.header(), "iluma-gateway; fwd=bypass; detail=magic-reply");
    }
}
