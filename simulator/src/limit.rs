//! A token bucket for each key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// The largest number of keys with a bucket of their own; one more key resets all buckets.
const MAX_KEYS: usize = 10_000;

/// The token buckets, by key: the number of tokens, and the time at which they were counted.
#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<Arc<str>, (f64, Instant)>);

impl Limiter {
    /// Takes a token from a key's bucket; returns false if the bucket has none. A bucket holds the tokens of one
    /// second.
    pub(super) fn admit(&mut self, key: &Arc<str>, per_second: u32, now: Instant) -> bool {
        if self.0.len() >= MAX_KEYS && !self.0.contains_key(key) {
            self.0.clear();
        }
        let full = f64::from(per_second);
        let (tokens, last) = self.0.entry(Arc::clone(key)).or_insert((full, now));
        *tokens = (*tokens + now.saturating_duration_since(*last).as_secs_f64() * full).min(full);
        *last = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::now;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_second_refills_the_bucket() {
        let (mut limiter, start, key) = (Limiter::default(), now(), Arc::from("k"));
        assert!(limiter.admit(&key, 2, start) && limiter.admit(&key, 2, start));
        assert!(!limiter.admit(&key, 2, start));
        assert!(limiter.admit(&"other".into(), 2, start));
        assert!(limiter.admit(&key, 2, start + Duration::from_millis(500)));
        assert!(!limiter.admit(&key, 2, start + Duration::from_millis(501)));
        assert!(!limiter.admit(&key, 0, start + Duration::from_secs(9)));
    }
}
