//! Callbacks of cache hits, which the gateway itself makes and stores in groups.
//!
//! Invariant: no request waits for these callbacks, and they are dropped if there is no room; Iluma's own callbacks
//! never depend on them.

use super::events::{Note, Skipped};
use super::service::Callbacks;
use crate::state::Made;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The time in which a group of callbacks is collected.
const GROUP_TIME: Duration = Duration::from_millis(100);
/// The largest number of callbacks in a group.
const GROUP_MOST: usize = 256;

impl Callbacks {
    /// Stores callbacks of cache hits in groups until `stop`, and then the callbacks that still wait.
    pub(super) async fn journal(&self, mut made: mpsc::Receiver<Made>, stop: CancellationToken) {
        let mut group = Vec::new();
        loop {
            let first = stop.run_until_cancelled(made.recv()).await.flatten();
            let Some(first) = first else { break };
            group.push(first);
            let collect = async {
                while group.len() < GROUP_MOST {
                    let Some(next) = made.recv().await else { break };
                    group.push(next);
                }
            };
            let _ = tokio::time::timeout(GROUP_TIME, stop.run_until_cancelled(collect)).await;
            self.enqueue(std::mem::take(&mut group)).await;
        }
        while let Ok(next) = made.try_recv() {
            group.push(next);
        }
        self.enqueue(group).await;
    }

    async fn enqueue(&self, group: Vec<Made>) {
        let config = self.config.load_full();
        let (mut wanted, mut lost) = (Vec::with_capacity(group.len()), Vec::new());
        // Most callbacks of a group belong to few teams, so each team's URL is looked up once.
        let mut listens = BTreeMap::new();
        for made in group {
            let key = (made.copy.tenant.clone(), made.kind);
            let listening = match listens.get(&key) {
                Some(known) => *known,
                None => self.has_url(&config, &key.0, key.1).await,
            };
            listens.insert(key, listening);
            match listening {
                Ok(true) => wanted.push(made),
                // No URL is set for the type: this is the common case, and no event.
                Ok(false) => {}
                Err(_) => lost.push(made.copy.tenant),
            }
        }
        if wanted.is_empty() && lost.is_empty() {
            return;
        }
        let tenants: Vec<_> = wanted.iter().map(|made| made.copy.tenant.clone()).collect();
        match self.state.enqueue(wanted, &config.outbox).await {
            Ok(dropped) => dropped.iter().for_each(|tenant| (self.hooks.note)(Note::Skipped(tenant, Skipped::Dropped))),
            Err(error) => {
                tracing::warn!(%error, "cannot store callbacks of cache hits: they are lost; their results can be read by GET");
                lost.extend(tenants);
            }
        }
        lost.iter().for_each(|tenant| (self.hooks.note)(Note::Skipped(tenant, Skipped::NotStored)));
    }
}
