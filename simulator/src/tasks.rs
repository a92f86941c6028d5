//! Tasks that end with the simulator.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks. The shutdown of the simulator cancels them, and `Simulator::stop` waits for their end.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracked {
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

impl Tracked {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = task => {}
            }
        });
    }
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}
