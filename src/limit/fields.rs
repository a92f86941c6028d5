//! `RateLimit` and `RateLimit-Policy`, the fields of draft-ietf-httpapi-ratelimit-headers-11.
//!
//! Invariants:
//! - The fields come from this node's memory.
//! - An answer gets the last built pair of fields while this pair is younger than [`LIFETIME`], so under load it is
//!   built once for many answers.
//! - A refusal lists its limit first, with 0 remaining.

use super::refusal::Refusal;
use crate::base::retry_after::whole_seconds;
use crate::config::Limit;
use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The time for which a built text is used again. Building takes about a microsecond, so one build in ten milliseconds
/// costs nothing at any load. Values that are 10 ms old are exact enough for a team.
const LIFETIME: Duration = Duration::from_millis(10);

/// One limit of a tenant, as the fields show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) limit: Limit,
    pub(super) quota: u64,
    /// The window of the quota, if the limit is a rate.
    pub(super) window: Option<Duration>,
    pub(super) remaining: u64,
    /// The time until the whole quota is available again, if it is known.
    pub(super) resets_in: Option<Duration>,
}

/// The values of `RateLimit` and `RateLimit-Policy` for one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitFields {
    policy: HeaderValue,
    limit: HeaderValue,
}

impl RateLimitFields {
    /// Puts the fields into an answer's head, where they replace upstream's.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy);
        headers.insert(RATE_LIMIT, self.limit);
    }
}

/// The fields that were last built for a tenant.
#[derive(Debug, Default)]
pub(super) struct RecentFields(ArcSwapOption<Built>);

#[derive(Debug)]
struct Built {
    at: Instant,
    fields: RateLimitFields,
}

impl RecentFields {
    /// Returns the fields that were built last. If they are too old, builds new fields from `items`. Returns `None` for
    /// a tenant without limits.
    pub(super) fn get(&self, now: Instant, items: impl FnOnce() -> Vec<Item>) -> Option<RateLimitFields> {
        if let Some(built) = &*self.0.load()
            && now.saturating_duration_since(built.at) < LIFETIME
        {
            return Some(built.fields.clone());
        }
        let fields = fields(&items())?;
        self.0.store(Some(Arc::new(Built { at: now, fields: fields.clone() })));
        Some(fields)
    }
}

/// Puts the limit that refused a request first, with 0 remaining. A refusal without such a limit changes nothing.
pub(super) fn refused(mut items: Vec<Item>, refusal: &Refusal) -> Vec<Item> {
    if let Refusal::Exceeded { limit, quota, window, retry_after } = *refusal {
        items.retain(|item| item.limit != limit);
        items.insert(0, Item { limit, quota, window, remaining: 0, resets_in: Some(retry_after) });
    }
    items
}

/// Builds both header fields, as structured fields (RFC 9651). Returns `None` if there is no limit to show.
pub(super) fn fields(items: &[Item]) -> Option<RateLimitFields> {
    let (mut policy, mut limit) = (String::new(), String::new());
    for item in items {
        let name = item.limit.as_str();
        if !policy.is_empty() {
            policy.push_str(", ");
            limit.push_str(", ");
        }
        // Writing to a string does not fail.
        let _ = write!(policy, "\"{name}\";q={}", item.quota);
        if let Some(window) = item.window {
            let _ = write!(policy, ";w={}", whole_seconds(window).max(1));
        }
        let _ = write!(policy, ";qu=\"{}\"", item.limit.unit());
        let _ = write!(limit, "\"{name}\";r={}", item.remaining);
        if let Some(resets_in) = item.resets_in {
            let _ = write!(limit, ";t={}", whole_seconds(resets_in));
        }
    }
    if policy.is_empty() {
        return None;
    }
    Some(RateLimitFields { policy: HeaderValue::try_from(policy).ok()?, limit: HeaderValue::try_from(limit).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    fn item(limit: Limit, quota: u64, remaining: u64) -> Item {
        Item { limit, quota, window: None, remaining, resets_in: None }
    }

    fn text(items: &[Item]) -> [String; 2] {
        let RateLimitFields { policy, limit } = fields(items).unwrap();
        [policy, limit].map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_fields_list_every_limit_with_its_unit() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let items = [
            Item { window: seconds(2), resets_in: Some(Duration::from_millis(1050)), ..item(Limit::Requests, 40, 19) },
            item(Limit::InFlight, 200, 199),
            Item { resets_in: seconds(43200), ..item(Limit::QuotaDay, 1000, 7) },
            Item { resets_in: seconds(86400), ..item(Limit::BudgetMonth, 5_000_000, 0) },
        ];
        let [policy, limit] = text(&items);
        assert_eq!(
            policy,
            "\"requests\";q=40;w=2;qu=\"requests\", \"in_flight\";q=200;qu=\"concurrent-requests\", \
             \"quota_day\";q=1000;qu=\"requests\", \"budget_month\";q=5000000;qu=\"rupiah\""
        );
        assert_eq!(
            limit,
            "\"requests\";r=19;t=2, \"in_flight\";r=199, \"quota_day\";r=7;t=43200, \"budget_month\";r=0;t=86400"
        );
        assert_eq!(fields(&[]), None);
    }

    #[test]
    fn a_refusal_names_its_limit_first_and_once() {
        let items = vec![item(Limit::Requests, 40, 3), item(Limit::InFlight, 200, 199)];
        for (limit, others) in
            [(Limit::InFlight, "\"requests\";r=3"), (Limit::Account, "\"requests\";r=3, \"in_flight\";r=199")]
        {
            let retry_after = Duration::from_millis(1050);
            let refusal = Refusal::Exceeded { limit, quota: 200, window: None, retry_after };
            let [_, shown] = text(&refused(items.clone(), &refusal));
            assert_eq!(shown, format!("\"{}\";r=0;t=2, {others}", limit.as_str()));
        }
    }

    #[test]
    fn what_was_built_serves_for_ten_milliseconds() {
        let (recent, now) = (RecentFields::default(), Clock::system().now());
        let shown = |later, remaining| {
            recent.get(now + Duration::from_millis(later), || vec![item(Limit::InFlight, 9, remaining)])
        };
        let first = shown(0, 8);
        assert_eq!(shown(9, 7), first);
        assert_ne!(shown(10, 7), first);
    }
}
