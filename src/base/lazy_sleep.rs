//! A timer for deadlines that keep moving.

use std::pin::Pin;
use std::task::Context;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for a deadline that moves. A later deadline costs nothing, because the timer is reset only when it fires. An
/// earlier deadline resets the timer at once. One timer serves all requests of a connection.
#[derive(Debug, Default)]
pub struct LazySleep(Option<Pin<Box<Sleep>>>);

impl LazySleep {
    /// Returns true if `deadline` has passed. Otherwise returns false, and the task is woken at the deadline.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_its_last_deadline_and_not_before() {
        let mut alarm = LazySleep::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!poll_fn(|cx| Poll::Ready(alarm.poll(cx, after(10)))).await);
        assert!(!poll_fn(|cx| Poll::Ready(alarm.poll(cx, after(30)))).await);
        poll_fn(|cx| if alarm.poll(cx, after(30)) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        poll_fn(|cx| if alarm.poll(cx, after(31)) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert_eq!(start.elapsed().as_secs(), 31);
    }
}
