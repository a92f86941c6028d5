//! hyper's timer for the head of a request, without a new timer for every request.

use crate::base::lazy_sleep::LazySleep;
use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The timer of one h1 connection, which waits for one thing at a time: the next head.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadTimer(Arc<Mutex<LazySleep>>);

struct Until {
    deadline: tokio::time::Instant,
    alarm: Arc<Mutex<LazySleep>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { deadline: tokio::time::Instant::now() + duration, alarm: Arc::clone(&self.0) })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { deadline: deadline.into(), alarm: Arc::clone(&self.0) })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Nobody else is at it: a connection is polled by one task.
        let mut alarm = self.alarm.lock();
        if alarm.poll(cx, self.deadline) { Poll::Ready(()) } else { Poll::Pending }
    }
}
