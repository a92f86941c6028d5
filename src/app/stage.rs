//! Groups of tasks that end together.

use crate::base::tasks::Tasks;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The time within which the tasks of a stage should end after they were asked to stop. The listeners of teams and
/// callbacks get it in addition to the drain timeout.
pub(super) const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A group of tasks. A shutdown asks all these tasks to stop, and then waits for them. Clones share the tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct Stage {
    tasks: Tasks,
    stop: CancellationToken,
}

impl Stage {
    /// Runs a task that stops by itself when the stage ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs a task that is dropped at the stage's end.
    pub(super) fn spawn_until_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_until(&self.stop, task);
    }

    /// Returns the stage's tasks, for parts that spawn their own.
    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Returns the token that is cancelled at the stage's end.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks the tasks to stop.
    pub(super) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Asks the tasks to stop, and waits for them, for `timeout` at most.
    pub(super) async fn end(&self, timeout: Duration) {
        self.ask_to_stop();
        self.tasks.drain(timeout).await;
    }
}
