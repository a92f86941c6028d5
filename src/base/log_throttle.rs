//! A limit of one line a second for equal log lines.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The time between two equal lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// A limit of one log line a second. It counts the events that are not logged.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Passed>);

#[derive(Debug, Default)]
struct Passed {
    last: Option<Instant>,
    /// The number of events since the last line.
    events: u64,
}

impl LogThrottle {
    /// Counts an event. If the event may be logged, returns the number of events since the last line, including this
    /// event. Otherwise returns `None`.
    pub fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut passed = self.0.lock();
        passed.events += 1;
        if passed.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        passed.last = Some(now);
        Some(std::mem::take(&mut passed.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_says_how_many_there_were() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.pass(), Some(1));
        assert_eq!([throttle.pass(), throttle.pass(), throttle.pass()], [None; 3]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.pass(), Some(4));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.pass(), Some(1));
    }
}
