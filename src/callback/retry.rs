//! The waits between the attempts of a delivery, by the schedule `callbacks.retry` of the configuration.

use crate::base::keyring::random;
use std::time::Duration;

/// Returns the wait after a failed attempt, or `None` if the schedule is used up. `attempts` is the number of scheduled
/// attempts that failed before this one. The wait is the schedule's, plus or minus a fifth. If the endpoint `asked` for
/// a longer wait (`retry-after`), this wait is used, up to the longest wait in the schedule.
pub(super) fn wait(schedule: &[Duration], attempts: u32, asked: Option<Duration>) -> Option<Duration> {
    let scheduled = jittered(*schedule.get(attempts as usize)?);
    let longest = schedule.iter().max().copied().unwrap_or_default();
    Some(asked.map_or(scheduled, |asked| scheduled.max(asked.min(longest))))
}

/// Changes a wait by up to a fifth, so that deliveries that failed together are not repeated together.
fn jittered(wait: Duration) -> Duration {
    let [byte] = random::<1>();
    wait.mul_f64(0.8 + 0.4 * f64::from(byte) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_by_a_fifth() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(8)..=Duration::from_millis(12_001)).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn the_next_attempt_is_not_before_what_the_endpoint_asked_for() {
        let schedule = [5, 30, 3600].map(Duration::from_secs);
        for (attempts, asked, shortest, longest) in [
            (0, None, 4, 6),
            (0, Some(0), 4, 6),
            (0, Some(1), 4, 6),
            (0, Some(600), 600, 600),
            (1, Some(10), 24, 36),
            // The wait is at most the schedule's longest one.
            (0, Some(86_400), 3600, 3600),
            (2, Some(86_400), 3600, 4320),
        ] {
            let wait = wait(&schedule, attempts, asked.map(Duration::from_secs)).unwrap();
            let bounds = Duration::from_secs(shortest)..=Duration::from_secs(longest) + Duration::from_millis(1);
            assert!(bounds.contains(&wait), "attempt {attempts}, asked {asked:?}: {wait:?}");
        }
        assert_eq!(wait(&schedule, 3, None), None);
        assert_eq!(wait(&schedule, 3, Some(Duration::from_secs(1))), None);
    }
}
