//! The node's copy of the registry, which is merged with the shared copy in Redis.

use super::super::error::StateError;
use super::super::times::{millis, time};
use super::key::{KeyInfo, Record};
use super::rows::{self, Field, Rows};
use super::storage;
use super::table::{ActiveKey, KeyTable};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring::Pseudonymizer;
use crate::base::name::TenantName;
use crate::config::{FileKey, Settings};
use crate::redis::RedisClient;
use arc_swap::{ArcSwap, Guard};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// The interval at which the shared copy is read. If an announcement is lost, a change takes effect within this time.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of [`INTERVAL`]s between two writes of the keys' last uses.
const INTERVALS_PER_FLUSH: u32 = 5;

/// A function that announces to every node that the shared copy has changed. It returns the names of the nodes and
/// stores that were not reached.
pub type Announce = Box<dyn Fn() -> BoxFuture<'static, Vec<String>> + Send + Sync>;

/// The registry of keys and suspensions. Clones share it.
#[derive(Clone)]
pub struct Registry(pub(super) Arc<Inner>);

pub(super) struct Inner {
    database: Database,
    redis: Option<RedisClient>,
    pub(super) mac: Pseudonymizer,
    pub(super) clock: Clock,
    rows: Mutex<Rows>,
    files: Mutex<Vec<(TenantName, FileKey)>>,
    /// The last use of each key on this node, by the key's id. These times stay when the table is built again.
    used: Mutex<BTreeMap<String, Arc<AtomicI64>>>,
    table: ArcSwap<KeyTable>,
    turn: tokio::sync::Mutex<Position>,
    announce: OnceLock<Announce>,
}

/// The relation of this node's copy to the shared copy.
#[derive(Default)]
struct Position {
    /// The number of the last change that was read; empty if none was read.
    known: String,
    /// True if this copy may have rows that the shared copy lacks.
    is_ahead: bool,
}

impl Registry {
    /// Opens the registry: the node's own copy in the database, and the keys of the configuration.
    ///
    /// # Errors
    /// Returns an error if the database can't be read.
    pub async fn open(
        database: Database,
        redis: Option<RedisClient>,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Self, DatabaseError> {
        let rows = storage::load(&database).await?;
        let mac = Pseudonymizer::new(settings.state.root_key.expose_secret(), "key records v1");
        let registry = Self(Arc::new(Inner {
            database,
            redis,
            mac,
            clock,
            rows: Mutex::new(rows),
            files: Mutex::default(),
            used: Mutex::default(),
            table: ArcSwap::default(),
            turn: tokio::sync::Mutex::new(Position { known: String::new(), is_ahead: true }),
            announce: OnceLock::new(),
        }));
        registry.reload(settings);
        Ok(registry)
    }

    /// Sets the function that announces changes to the other nodes.
    pub fn announce_by(&self, announce: Announce) {
        // The start sets this once; a second `set` would change nothing.
        let _ = self.0.announce.set(announce);
    }

    /// Replaces the keys of the former configuration with the keys of `settings`.
    pub fn reload(&self, settings: &Settings) {
        let all = settings.tenants.iter();
        let files = all.flat_map(|(name, tenant)| tenant.key_sha256.iter().map(|key| (name.clone(), key.clone())));
        *self.0.files.lock() = files.collect();
        self.rebuild();
    }

    /// Returns the current table of keys.
    #[must_use]
    pub fn table(&self) -> Guard<Arc<KeyTable>> {
        self.0.table.load()
    }

    /// Calls [`follow`](Self::follow) every second and writes the last uses of keys every five seconds, until the
    /// future is dropped.
    pub async fn keep(&self) {
        let mut looks: u32 = 0;
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.follow().await;
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(INTERVALS_PER_FLUSH) {
                self.flush_uses().await;
            }
        }
    }

    /// Merges the shared copy into this node's copy, and this node's copy into the shared copy. Returns true if this
    /// node then has every change of the shared copy, or if there is no Redis.
    pub async fn follow(&self) -> bool {
        let Some(redis) = &self.0.redis else { return true };
        if !redis.is_up() {
            return false;
        }
        let mut turn = self.0.turn.lock().await;
        let known = if turn.is_ahead { "" } else { turn.known.as_str() };
        let Ok(read) = storage::read(redis, known).await else { return false };
        let Some((number, theirs)) = read else { return true };
        let (news, missing) = {
            let ours = self.0.rows.lock();
            (rows::changes(&ours, &theirs), rows::changes(&theirs, &ours))
        };
        if self.take(news).await.is_err() {
            return false;
        }
        turn.is_ahead = storage::publish(redis, &missing, true).await.is_err();
        // If rows were published, the next call reads their number.
        turn.known = number;
        true
    }

    /// Writes the last uses of keys on this node, and reads the last uses on the other nodes.
    pub(super) async fn refresh(&self) {
        self.flush_uses().await;
        self.0.turn.lock().await.known.clear();
        self.follow().await;
    }

    /// Puts the rows of an order into effect: on this node's disk, in its memory, in the shared copy, and on the other
    /// nodes. Returns the names of the nodes and stores that could not be reached. Orders of this node run one after
    /// another. `admit` runs when the earlier orders of this node have taken effect. If it returns an error, the order
    /// is refused.
    pub(super) async fn apply<E: From<StateError>>(
        &self,
        changed: Rows,
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        let mut left = Vec::new();
        {
            let mut turn = self.0.turn.lock().await;
            admit()?;
            let news = rows::changes(&self.0.rows.lock(), &changed);
            self.take(news).await?;
            if let Some(redis) = &self.0.redis
                && storage::publish(redis, &changed, true).await.is_err()
            {
                turn.is_ahead = true;
                left.push("redis".to_owned());
            }
        }
        if let Some(announce) = self.0.announce.get() {
            left.extend(announce().await);
        }
        left.sort_unstable();
        left.dedup();
        Ok(left)
    }

    /// Writes rows to this node's disk, and puts the rows into effect on this node.
    async fn take(&self, news: Rows) -> Result<(), StateError> {
        if news.is_empty() {
            return Ok(());
        }
        storage::save(&self.0.database, news.clone()).await?;
        self.0.rows.lock().extend(news);
        self.rebuild();
        Ok(())
    }

    /// Writes the last uses of keys to this node's copy and to the shared copy.
    async fn flush_uses(&self) {
        let uses: Rows = {
            let used = self.0.used.lock();
            let noted = used.iter().map(|(id, used)| (id, used.load(Ordering::Relaxed))).filter(|(_, used)| *used > 0);
            noted.map(|(id, used)| ((Field::Used, id.clone()), used.to_string())).collect()
        };
        let news = rows::changes(&self.0.rows.lock(), &uses);
        if news.is_empty() || storage::save(&self.0.database, news.clone()).await.is_err() {
            return;
        }
        self.0.rows.lock().extend(news.clone());
        if let Some(redis) = &self.0.redis {
            // If this fails, Redis gets the next use of the key.
            let _ = storage::publish(redis, &news, false).await;
        }
    }

    pub(super) fn row(&self, field: Field, name: &str) -> Option<String> {
        self.0.rows.lock().get(&(field, name.to_owned())).cloned()
    }

    pub(super) fn now(&self) -> SystemTime {
        self.0.clock.wall()
    }

    /// Returns a tenant's keys that were not revoked. The keys of the configuration come first.
    pub(super) fn infos(&self, tenant: &TenantName) -> Vec<KeyInfo> {
        let table = self.table();
        let rows = self.0.rows.lock();
        let used = |key: &ActiveKey| {
            let shared = rows.get(&(Field::Used, key.id.clone())).and_then(|text| text.parse().ok()).unwrap_or(0);
            Some(key.used.load(Ordering::Relaxed).max(shared)).filter(|used| *used > 0).map(time)
        };
        let of_tenant = table.keys.iter().filter(|key| key.tenant == *tenant);
        of_tenant.map(|key| KeyInfo { last_used: used(key), ..key.info.clone() }).collect()
    }

    /// Returns the keys that expire between now and `end`. Rotated keys are left out, because each has a successor.
    #[must_use]
    pub fn expiring(&self, end: SystemTime) -> Vec<KeyInfo> {
        let (table, now) = (self.table(), self.now());
        let rows = self.0.rows.lock();
        let is_meant = |key: &&ActiveKey| {
            let expires = key.info.expires;
            let is_rotated = || rows.contains_key(&(Field::End, key.id.clone()));
            expires.is_some_and(|expires| expires > now && expires <= end) && !is_rotated()
        };
        table.keys.iter().filter(is_meant).map(|key| key.info.clone()).collect()
    }

    /// Builds the table of the keys that were not revoked, from the configuration and from this node's copy.
    fn rebuild(&self) {
        let (files, rows, mut used) = (self.0.files.lock(), self.0.rows.lock(), self.0.used.lock());
        let names = rows.iter().filter(|((field, _), value)| *field == Field::Suspension && rows::is_suspended(value));
        let suspended = names.filter_map(|((_, name), _)| name.parse().ok()).collect::<std::collections::BTreeSet<_>>();
        let mut active = |sha256: [u8; 32], info: KeyInfo| {
            let used = Arc::clone(used.entry(info.id.clone()).or_default());
            let (id, tenant, ends) = (info.id.clone(), info.tenant.clone(), info.expires.map(millis));
            let is_suspended = suspended.contains(&tenant);
            (sha256, ActiveKey { id, tenant, is_suspended, info, ends, used })
        };
        let mut keys: Vec<_> =
            files.iter().map(|(tenant, key)| active(key.sha256, KeyInfo::of_file(tenant, key))).collect();
        for ((_, id), value) in rows.iter().filter(|((field, _), _)| *field == Field::Key) {
            let Some(record) = Record::read(id, value, &self.0.mac) else {
                tracing::error!(
                    id,
                    "a team's key is ignored: its record is damaged, or was written with another state.root_key"
                );
                continue;
            };
            let end = rows.get(&(Field::End, id.clone())).and_then(|text| text.parse().ok());
            let info = record.end(end).and_then(|expires| record.info(id, expires, None));
            keys.extend(info.map(|info| active(record.sha256, info)));
        }
        self.0.table.store(Arc::new(KeyTable::new(keys, suspended)));
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry(…)")
    }
}
