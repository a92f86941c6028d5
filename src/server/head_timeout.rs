//! hyper's timer for the head of a request, without a new timer for each request.
//!
//! hyper has one timeout for a head, which begins when the connection is ready for the next head. With this timer, the
//! timeout begins with the first byte of the head. Until then the idle timeout applies. On a new connection the timeout
//! for the head begins at once.

use super::signs::Signs;
use crate::base::lazy_sleep::LazySleep;
use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The timer of one h1 connection. At any time there is at most one wait: the wait for the next head.
#[derive(Debug, Clone)]
pub(super) struct HeadTimer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    alarm: Mutex<LazySleep>,
    signs: Signs,
    /// The time in which a head must arrive.
    head: Duration,
    /// The time that a connection may be idle between two requests.
    idle: Duration,
    /// True after the first wait for a head has begun.
    begun: AtomicBool,
}

impl HeadTimer {
    pub(super) fn new(signs: Signs, head: Duration, idle: Duration) -> Self {
        let (alarm, begun) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { alarm, signs, head, idle, begun }))
    }

    fn wait(&self, deadline: tokio::time::Instant) -> Pin<Box<dyn Sleep>> {
        let idle = self.0.begun.swap(true, Ordering::Relaxed);
        let until = if idle {
            // Bytes that arrived earlier belong to the previous request.
            self.0.signs.take_arrival();
            // hyper's deadline is the current time plus the time for a head.
            deadline - self.0.head + self.0.idle
        } else {
            deadline
        };
        Box::pin(Until { until, idle, shared: Arc::clone(&self.0) })
    }
}

/// One wait for a head.
struct Until {
    until: tokio::time::Instant,
    /// True while the idle timeout applies: the connection is not new, and no byte of the head has arrived.
    idle: bool,
    shared: Arc<Shared>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.wait(tokio::time::Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.wait(deadline.into())
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.idle && self.shared.signs.take_arrival() {
            self.idle = false;
            self.until = tokio::time::Instant::now() + self.shared.head;
        }
        // The lock is always free: one task polls a connection.
        let mut alarm = self.shared.alarm.lock();
        if alarm.poll(cx, self.until) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn rings(sleep: &mut Pin<Box<dyn Sleep>>) -> bool {
        poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_its_time_and_a_head_its_own() {
        let (signs, seconds) = (Signs::default(), Duration::from_secs);
        let timer = HeadTimer::new(signs.clone(), seconds(30), seconds(75));
        let mut first = timer.sleep(seconds(30));
        signs.note_arrival();
        tokio::time::advance(seconds(29)).await;
        assert!(!rings(&mut first).await);
        tokio::time::advance(seconds(1)).await;
        assert!(rings(&mut first).await, "the first head has no idle time before it");
        let mut idle = timer.sleep(seconds(30));
        tokio::time::advance(seconds(74)).await;
        assert!(!rings(&mut idle).await);
        tokio::time::advance(seconds(1)).await;
        assert!(rings(&mut idle).await);
        let mut begun = timer.sleep(seconds(30));
        tokio::time::advance(seconds(70)).await;
        signs.note_arrival();
        assert!(!rings(&mut begun).await);
        tokio::time::advance(seconds(29)).await;
        assert!(!rings(&mut begun).await, "it begins with the first byte");
        tokio::time::advance(seconds(1)).await;
        assert!(rings(&mut begun).await);
    }
}
