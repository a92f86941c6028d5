//! Tracked tasks: every spawned task is known, and a shutdown waits for all of them.

use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Spawns tasks and waits for them. Clones share the tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Makes a tracker without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` concurrently with the caller.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The task's log lines belong to the request that started it.
        self.0.spawn(task.in_current_span());
    }

    /// Runs `task` concurrently with the caller until it ends or `stop` is cancelled.
    pub fn spawn_until<F>(&self, stop: &CancellationToken, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = stop.clone();
        self.spawn(async move {
            let _: Option<()> = stop.run_until_cancelled(task).await;
        });
    }

    /// Waits until every task has ended, at most for `most`. Returns false if a task is still running then.
    pub async fn drain(&self, most: Duration) -> bool {
        self.0.close();
        tokio::time::timeout(most, self.0.wait()).await.is_ok()
    }
}

/// An executor for hyper, which spawns a task for each HTTP/2 stream.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
