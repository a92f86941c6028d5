//! The disk level of the cache: its file, its epochs, and its background work.

use super::disk_cache::{self, DiskCache, DiskCacheSettings};
use super::disk_file;
use super::durable_epochs::{self, DurableEpochs};
use super::epoch::{Change, Epochs};
use super::memory::Memory;
use super::purge::Removed;
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring::Keyring;
use crate::base::tasks::Tasks;
use crate::config::Settings;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The time for which entries are collected before one transaction writes them. It is short, because a stored entry
/// must be in the file within a second.
const GATHERING: Duration = Duration::from_millis(100);
/// The interval at which expired entries are removed, and at which a file is opened if none is open.
const TIDYING: Duration = Duration::from_secs(5);

/// The name of the disk level in the outcome of an order that could not reach it.
pub(super) const DISK_CACHE: &str = "the disk cache";

/// The disk level of a gateway without Redis.
#[derive(Debug)]
pub struct DiskLevel {
    pub(super) disk: Arc<DiskCache>,
    pub(super) epochs: Arc<Epochs>,
    pub(super) durable: Arc<DurableEpochs>,
}

impl DiskLevel {
    /// Opens the disk level if the settings have one. Otherwise deletes the file of an earlier run and returns `None`.
    /// The old file must not stay, because purges and erasures would not reach it.
    ///
    /// # Errors
    /// Returns an error if the state database can't be used. A cache file that can't be used is no error.
    pub async fn open(database: &Database, settings: &Settings, clock: &Clock) -> Result<Option<Self>, DatabaseError> {
        let path = disk_file::beside(&settings.state.path);
        if settings.state.redis.is_some() || settings.cache.disk.bytes() == 0 {
            durable_epochs::forget(database).await?;
            if let Err(error) = disk_cache::delete(&path) {
                let path = path.display();
                tracing::warn!(%path, %error, "the disk cache of an earlier run is not used any more, and the gateway could not delete its file: delete it by hand");
            }
            return Ok(None);
        }
        let (durable, epochs, time) = DurableEpochs::load(database.clone(), clock).await?;
        let (epochs, durable) = (Arc::new(epochs), Arc::new(durable));
        let disk_settings = DiskCacheSettings {
            path,
            bound: settings.cache.disk,
            reserve: settings.state.disk_reserve,
            keyring: Keyring::new(&settings.state.encryption_keys),
        };
        let disk = Arc::new(DiskCache::open(disk_settings, Arc::clone(&epochs), time, clock.clone()));
        Ok(Some(Self { disk, epochs, durable }))
    }

    /// Applies a change in the state database, in memory and on disk. The result has the numbers of removed entries,
    /// and the names of the stores that could not be reached.
    pub(super) async fn change(&self, change: &Change, memory: &Memory) -> Removed {
        let mut left = Vec::new();
        if self.durable.change(&self.epochs, change).await.is_err() {
            // The change is not written, so it holds only until the process ends.
            left.push("state".to_owned());
        }
        let memory = memory.remove(change);
        let disk = self.disk.remove(change).await.unwrap_or_else(|_| {
            left.push(DISK_CACHE.to_owned());
            0
        });
        Removed { memory, disk, left, ..Removed::default() }
    }

    /// Deletes the entries of erased persons. Until `stop`, writes waiting entries and deletes expired ones. Then
    /// writes the last waiting entries and closes the file.
    pub(super) fn keep(&self, tasks: &Tasks, stop: CancellationToken) {
        let disk = Arc::clone(&self.disk);
        tasks.spawn_until(&stop, async move { disk.forget_erased().await });
        let (disk, durable) = (Arc::clone(&self.disk), Arc::clone(&self.durable));
        tasks.spawn(async move {
            let work = async {
                let mut tidying = tokio::time::interval(TIDYING);
                tidying.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        () = disk.arrived.notified() => tokio::time::sleep(GATHERING).await,
                        _ = tidying.tick() => {
                            while disk.tidy().await {
                                disk.flush().await;
                            }
                            durable.note_time().await;
                        }
                    }
                    disk.flush().await;
                }
            };
            let _: Option<()> = stop.run_until_cancelled(work).await;
            disk.flush().await;
            durable.note_time().await;
            disk.close().await;
        });
    }
}
