//! The time for which a request, or a task, may wait for Redis.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The time for which a request may still wait for Redis. All commands of one request share one budget.
#[derive(Debug)]
pub struct Budget {
    whole: Duration,
    /// The spent time in nanoseconds. It may exceed `whole` if the waiting task wakes late.
    spent: AtomicU64,
}

/// The timeout of a command that no request waits for. It is far above the usual time, so that a busy Redis does not
/// count as out, and far below Iluma's timeouts.
pub const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(2);

impl Budget {
    /// Returns the budget of one command that no request waits for.
    #[must_use]
    pub fn background() -> Self {
        Self::of(BACKGROUND_TIMEOUT)
    }

    /// Returns a budget of `time` for all commands together.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        Self { whole: time, spent: AtomicU64::new(0) }
    }

    /// Returns the time that the budget had at its beginning.
    pub(super) fn whole(&self) -> Duration {
        self.whole
    }

    /// Returns the time that is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.whole.saturating_sub(self.spent())
    }

    /// Returns the time that was spent so far.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    /// Spends the time of a wait for Redis.
    pub fn spend(&self, time: Duration) {
        self.spent.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the output of `work`, which waits for Redis; `None` if the remaining time ends first. The time of the
    /// wait is spent from the budget.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        /// A guard that spends the time of the wait, even if the waiting future is dropped.
        struct Charge<'a>(&'a Budget, Instant);
        impl Drop for Charge<'_> {
            fn drop(&mut self) {
                self.0.spend(self.1.elapsed());
            }
        }
        let left = self.left();
        if left.is_zero() {
            return None;
        }
        let _charge = Charge(self, Instant::now());
        timeout(left, work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn waiting_for_whatever_is_charged_even_if_it_is_given_up() {
        tokio::time::pause();
        let budget = Budget::of(REQUEST);
        let waited = timeout(Duration::from_millis(20), budget.wait(std::future::pending::<()>())).await;
        assert!(waited.is_err());
        // Tokio's clock counts whole milliseconds.
        assert!((18..=22).contains(&budget.spent().as_millis()), "{budget:?}");
        assert_eq!(budget.wait(std::future::pending::<()>()).await, None);
        assert_eq!(budget.left(), Duration::ZERO);
        let started = Instant::now();
        assert_eq!(budget.wait(std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_budget_is_spent_and_tells_all_that_was_waited() {
        let budget = Budget::of(REQUEST);
        budget.spend(Duration::from_millis(30));
        assert_eq!(budget.left(), Duration::from_millis(20));
        budget.spend(Duration::from_secs(1));
        assert_eq!((budget.left(), budget.spent()), (Duration::ZERO, Duration::from_millis(1030)));
    }
}
