//! The background loops of callbacks, which run from the start of the gateway to its end.

use super::events::Note;
use super::service::{Callbacks, Inflow};
use crate::base::tasks::Tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The interval at which old callbacks and owners are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The interval at which the queues are counted, and old deliveries to paused endpoints become dead letters.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

impl Callbacks {
    /// Starts the loops that fan callbacks out, make deliveries, store callbacks of cache hits, remove old data and
    /// count the queues. They run until `stop`. After that, deliveries in progress finish, and queued deliveries stay
    /// queued.
    pub fn run(self: &Arc<Self>, inflow: Inflow, tasks: &Tasks, stop: &CancellationToken) {
        let [fan_out, dispatch, sweep, count] = std::array::from_fn(|_| Arc::clone(self));
        tasks.spawn_until(stop, async move { fan_out.fan_out_all().await });
        let deliveries = tasks.clone();
        tasks.spawn_until(stop, async move { dispatch.dispatch(&deliveries).await });
        tasks.spawn_until(stop, async move { sweep.sweep().await });
        tasks.spawn_until(stop, async move { count.count().await });
        let (journal, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { journal.journal(inflow.made, stop).await });
    }

    async fn sweep(&self) {
        loop {
            match self.state.sweep().await {
                // More entries may be due.
                Ok(1..) => continue,
                Ok(0) => {}
                Err(error) => tracing::warn!(%error, "cannot remove old callbacks and owners; will retry"),
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    async fn count(&self) {
        loop {
            match self.state.queues().await {
                Ok(queues) => (self.hooks.note)(Note::Queues(&queues, self.clock.wall())),
                Err(error) => tracing::warn!(%error, "cannot count queued callbacks; will retry"),
            }
            self.expire_paused().await;
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
    }
}
