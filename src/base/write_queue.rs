//! The jobs that wait for one thread.
//!
//! Invariants: jobs run in the order in which they came; a thread that works is not woken, so jobs that come meanwhile
//! cost no system call; after the end no job is accepted.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// A queue with one reader. Its callers bound its length.
#[derive(Debug)]
pub(super) struct WriteQueue<J> {
    inside: Mutex<Inside<J>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Inside<J> {
    jobs: VecDeque<J>,
    ended: bool,
}

impl<J> WriteQueue<J> {
    pub(super) fn new() -> Self {
        Self { inside: Mutex::new(Inside { jobs: VecDeque::new(), ended: false }), arrived: Condvar::new() }
    }

    /// Adds a job. Returns false after the end; the job is dropped then.
    pub(super) fn push(&self, job: J) -> bool {
        let mut inside = self.inside.lock();
        if inside.ended {
            drop(inside);
            drop(job);
            return false;
        }
        inside.jobs.push_back(job);
        drop(inside);
        self.arrived.notify_one();
        true
    }

    /// Waits for the next job. Returns `None` once the queue has ended and is empty.
    pub(super) fn next(&self) -> Option<J> {
        let mut inside = self.inside.lock();
        loop {
            if let Some(job) = inside.jobs.pop_front() {
                return Some(job);
            }
            if inside.ended {
                return None;
            }
            self.arrived.wait(&mut inside);
        }
    }

    /// Returns the next job, if one waits.
    pub(super) fn try_next(&self) -> Option<J> {
        self.inside.lock().jobs.pop_front()
    }

    /// Accepts no further jobs. The waiting ones stay.
    pub(super) fn end(&self) {
        self.inside.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Accepts no further jobs, and drops the waiting ones.
    pub(super) fn abandon(&self) {
        self.end();
        // They are dropped without the lock, since what they hold may look at the queue.
        let jobs = std::mem::take(&mut self.inside.lock().jobs);
        drop(jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn jobs_run_in_order_and_none_is_accepted_after_the_end() {
        let queue = Arc::new(WriteQueue::new());
        let reader = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || std::iter::from_fn(|| queue.next()).collect::<Vec<u32>>()
        });
        assert!((0..1000).all(|job| queue.push(job)));
        queue.end();
        assert!(!queue.push(1000));
        assert_eq!(reader.join().unwrap(), (0..1000).collect::<Vec<_>>());
        assert_eq!((queue.next(), queue.try_next()), (None, None));
    }

    #[test]
    fn what_waits_is_dropped_when_the_queue_is_abandoned() {
        let (queue, job) = (WriteQueue::new(), Arc::new(()));
        assert!(queue.push(Arc::clone(&job)));
        queue.abandon();
        assert_eq!((Arc::strong_count(&job), queue.try_next()), (1, None));
    }
}
