//! Durable state: the embedded database, the ledger, and the state that nodes may share.

use super::error::StartError;
use super::redis_clients::RedisClients;
use super::stage::Stage;
use crate::base::clock::Clock;
use crate::base::database::Database;
use crate::cache;
use crate::config::Settings;
use crate::ledger::{self, Ledger};
use crate::redis::RedisClient;
use crate::state::{
    self, AUDIT_MIGRATIONS, AuditLog, ERASURES_MIGRATIONS, Erasures, Membership, REGISTRY_MIGRATIONS, Registry, Sqlite,
    State,
};
use std::path::Path;
use std::sync::Arc;

/// The durable state of a node.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) database: Database,
    pub(super) ledger: Ledger,
    pub(super) state: State,
    pub(super) registry: Registry,
    pub(super) audit: AuditLog,
    pub(super) erasures: Erasures,
    /// The node's membership among the nodes that share a Redis; `None` without Redis.
    pub(super) membership: Option<Membership>,
}

impl Storage {
    /// Opens the database and its contents. If an error ends the start, the file is closed, so that the next start can
    /// lock it.
    pub(super) async fn open(
        settings: &Settings,
        clock: &Clock,
        redis_clients: &RedisClients,
    ) -> Result<Self, StartError> {
        let database = open(&settings.state.path)?;
        let (ledger, registry) = match open_parts(&database, settings, clock, redis_clients.main.clone()).await {
            Ok(parts) => parts,
            Err(error) => {
                database.close().await;
                return Err(error);
            }
        };
        let audit = AuditLog::new(database.clone(), redis_clients.main.clone(), &settings.node, clock.clone());
        let erasures = Erasures::new(database.clone(), redis_clients.main.clone(), clock.clone());
        let state = match &redis_clients.main {
            Some(redis) => State::Redis(Arc::new(state::Redis::new(redis.clone(), &settings.state, clock.clone()))),
            None => State::Sqlite(Arc::new(Sqlite::new(database.clone(), &settings.state, clock.clone()))),
        };
        let membership = redis_clients.main.clone().map(|redis| {
            let names = (ledger.node(), settings.node.as_str());
            Membership::new(redis, names, state.keyring(), clock.clone())
        });
        Ok(Self { database, ledger, state, registry, audit, erasures, membership })
    }

    /// Verifies the keys against shared state, and registers this node's identity among the nodes. If Redis is out, the
    /// start does not wait: both are done once Redis is back.
    pub(super) async fn take_place(&self) -> Result<(), StartError> {
        match self.state.verify_keys().await {
            Err(error @ state::KeyError::Wrong(_)) => return Err(error.into()),
            Err(state::KeyError::State(_) | state::KeyError::File(..)) | Ok(()) => {}
        }
        if let Some(membership) = &self.membership {
            membership.join().await?;
        }
        Ok(())
    }

    /// Runs the heartbeats, and the background work of the ledger, the registry, the audit log and the receipts, until
    /// the stage ends.
    pub(super) fn keep(&self, stage: &Stage) {
        if let Some(membership) = self.membership.clone() {
            stage.spawn_until_end(async move { membership.keep().await });
        }
        let audit = self.audit.clone();
        stage.spawn_until_end(async move { audit.keep().await });
        let erasures = self.erasures.clone();
        stage.spawn_until_end(async move { erasures.keep().await });
        let registry = self.registry.clone();
        stage.spawn_until_end(async move { registry.keep().await });
        let (ledger, membership) = (self.ledger.clone(), self.membership.clone());
        stage.spawn_until_end(async move { ledger.keep(membership).await });
    }
}

/// Compares the configured keys with the key sentinels in a database. Then opens the ledger and the registry in it.
async fn open_parts(
    database: &Database,
    settings: &Settings,
    clock: &Clock,
    redis: Option<RedisClient>,
) -> Result<(Ledger, Registry), StartError> {
    state::verify_database(database, &settings.state).await?;
    let registry = Registry::open(database.clone(), redis.clone(), settings, clock.clone()).await?;
    Ok((Ledger::open(database.clone(), settings, clock.clone(), redis).await?, registry))
}

/// Opens the embedded database. It has the node's own ledger and data of the cache. Without Redis it also has all
/// state.
pub(super) fn open(path: &Path) -> Result<Database, StartError> {
    let own = [("ledger", ledger::MIGRATIONS), ("cache", cache::MIGRATIONS)];
    let parts = [&[state::MIGRATIONS, REGISTRY_MIGRATIONS, AUDIT_MIGRATIONS, ERASURES_MIGRATIONS], &own[..]].concat();
    Database::open(path, &parts).map_err(|source| StartError::State { path: path.to_owned(), source })
}
