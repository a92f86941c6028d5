//! The drain of a gateway, stage by stage.

use super::node::{App, Stages};
use super::stage::LAST_MOMENT;
use crate::telemetry::logs::LogWriter;

impl App {
    /// Drains the gateway: it accepts no new connections, and requests in flight finish within the configured time.
    pub async fn shutdown(self) {
        tracing::info!("draining");
        self.admin.drain();
        let Stages { servers, leftovers, deliveries, background, redis_clients, admin } = &self.stages;
        // Requests, leftover calls and deliveries share one deadline, because the process manager has a deadline too.
        let end = tokio::time::Instant::now() + self.drain_timeout;
        servers.end(self.drain_timeout + LAST_MOMENT).await;
        self.gateway.close();
        let left = || end.saturating_duration_since(tokio::time::Instant::now()).max(LAST_MOMENT);
        leftovers.drain(left()).await;
        // A delivery that does not end in time is sent again at the next start.
        deliveries.drain(left()).await;
        self.gateway.leave().await;
        background.end(LAST_MOMENT).await;
        if let Some(membership) = &self.storage.membership {
            membership.leave().await;
        }
        redis_clients.end(LAST_MOMENT).await;
        admin.end(LAST_MOMENT).await;
        self.admin.finish(LAST_MOMENT).await;
        if self.storage.ledger.finish().await.is_err() {
            tracing::error!("the last counts of the ledger could not be written: usage lacks the newest requests");
        }
        self.storage.database.close().await;
        LogWriter::finish_all(self.logs);
    }
}
