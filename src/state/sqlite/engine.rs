//! The embedded engine: its parts, its start and its end.

use super::super::envelopes::{CallbackName, DeliveryId, Secrecy};
use super::super::error::StateError;
use super::super::leases::Leases;
use super::super::times::millis;
use crate::base::clock::Clock;
use crate::base::database::Database;
use crate::base::disk::Disk;
use crate::config::{self, Retention};
use crate::iluma::person::Tag;
use tokio::sync::Notify;

/// The embedded engine.
#[derive(Debug)]
pub struct Sqlite {
    pub(super) database: Database,
    pub(in super::super) secrecy: Secrecy,
    pub(super) retention: Retention,
    disk: Disk,
    pub(super) clock: Clock,
    pub(super) callbacks: Leases<CallbackName>,
    pub(super) deliveries: Leases<DeliveryId>,
    pub(super) arrived: Notify,
    pub(super) due: Notify,
}

impl Sqlite {
    /// Makes the engine on a database that was opened with `MIGRATIONS`.
    #[must_use]
    pub fn new(database: Database, settings: &config::State, clock: Clock) -> Self {
        Self {
            database,
            secrecy: Secrecy::new(settings),
            retention: settings.retention,
            disk: Disk::of(&settings.path, settings.disk_reserve.bytes()),
            callbacks: Leases::new(clock.clone()),
            deliveries: Leases::new(clock.clone()),
            clock,
            arrived: Notify::new(),
            due: Notify::new(),
        }
    }

    pub(in super::super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    pub(in super::super) async fn work(&self) {
        self.due.notified().await;
    }

    pub(in super::super) async fn close(&self) {
        self.database.close().await;
    }

    pub(super) fn persons(&self, tags: &[Tag]) -> Vec<[u8; 32]> {
        tags.iter().map(|tag| self.secrecy.person(tag)).collect()
    }

    /// Returns an error while the free space of the disk is below its reserve. Work that can wait calls this before it
    /// writes.
    pub(super) fn spare(&self) -> Result<(), StateError> {
        if self.disk.is_low() { Err(StateError::Unavailable) } else { Ok(()) }
    }

    pub(super) fn now(&self) -> i64 {
        millis(self.clock.wall())
    }
}

pub(super) fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
