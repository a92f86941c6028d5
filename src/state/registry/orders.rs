//! Orders about keys and suspensions.

use super::super::error::StateError;
use super::super::times::millis;
use super::key::{KeyInfo, Record, Source};
use super::rows::{self, Field, Rows};
use super::store::Registry;
use crate::base::keyring;
use crate::base::name::TenantName;
use crate::base::team_key::{TeamKey, team_key};
use secrecy::SecretString;
use std::time::{Duration, SystemTime};

/// The time for which a rotated key still works, if the order names no other time.
const GRACE: Duration = Duration::from_secs(86400);
/// The longest time for which an order may let a rotated key work.
const MOST_GRACE: Duration = Duration::from_secs(366 * 86400);

/// The largest number of keys that orders may make for one tenant. A key counts until it has ended, and for at least
/// [`COUNTED`]. A revoked key does not count.
const MOST_KEYS: usize = 32;
/// The time for which a new key counts toward [`MOST_KEYS`] even if the key has ended. Otherwise rotations without a
/// grace could make any number of records.
const COUNTED: Duration = Duration::from_secs(86400);

/// A key that is to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The team.
    pub tenant: TenantName,
    /// The operators' note about the key, if there is one.
    pub note: Option<String>,
    /// The lifetime of the key; `None` makes a key without an end.
    pub lifetime: Option<Duration>,
}

/// An order that is in effect on this node.
#[derive(Debug)]
pub struct Taken<T> {
    /// The result of the order.
    pub value: T,
    /// The nodes and stores that could not be reached and will apply the order later; empty if all have applied it.
    pub left: Vec<String>,
}

/// The reason why an order about a key was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyOrderError {
    /// The team has no key with this id.
    #[error("the team has no such key")]
    Unknown,
    /// The configuration file defines the key.
    #[error("the configuration file defines this key: change key_sha256 there")]
    FromFile,
    /// The key has expired or was revoked.
    #[error("the key has ended: create a new one")]
    Ended,
    /// The team already has the largest number of keys.
    #[error("the team has {MOST_KEYS} keys that are open or less than a day old: revoke one first")]
    TooMany,
    /// State could not be changed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Registry {
    /// Makes a key. Returns the key's data and its secret, which is not returned anywhere else.
    ///
    /// # Errors
    /// Returns an error if the order was refused or could not be stored. Nothing was changed then.
    pub async fn create(&self, new: NewKey) -> Result<Taken<(KeyInfo, SecretString)>, KeyOrderError> {
        let tenant = new.tenant.clone();
        self.make(new, Rows::new(), || self.has_room(&tenant, None)).await
    }

    /// Makes a successor of a key, with the note and the lifetime of the old key. The old key ends after `grace`.
    /// Returns the successor's data and its secret.
    ///
    /// # Errors
    /// Returns an error if the order was refused or could not be stored. Nothing was changed then.
    pub async fn rotate(
        &self,
        tenant: &TenantName,
        id: &str,
        grace: Duration,
    ) -> Result<Taken<(KeyInfo, SecretString)>, KeyOrderError> {
        let before = self.open_key(tenant, id)?;
        let lifetime = self.row(Field::Key, id).and_then(|value| Record::read(id, &value, &self.0.mac));
        let lifetime = lifetime.and_then(|record| u64::try_from(record.expires? - record.created).ok());
        let end = millis(self.now() + grace).to_string();
        let new = NewKey { tenant: tenant.clone(), note: before.note, lifetime: lifetime.map(Duration::from_millis) };
        // Without a grace the successor replaces the old key; with a grace both are open for a while.
        let replaced = grace.is_zero().then_some(id);
        // An order before this one, here or on another node, may have ended the key.
        let admit = || self.open_key(tenant, id).and_then(|_| self.has_room(tenant, replaced));
        self.make(new, Rows::from([((Field::End, id.to_owned()), end)]), admit).await
    }

    /// Revokes a key. Repeating the order changes nothing here, and reaches nodes that were not reached before.
    ///
    /// # Errors
    /// Returns an error if the order was refused or could not be stored. Nothing was changed then.
    pub async fn revoke(&self, tenant: &TenantName, id: &str) -> Result<Taken<KeyInfo>, KeyOrderError> {
        let key = self.key(tenant, id)?;
        // If the key was revoked before, the time of that revocation stays.
        let end = self.row(Field::End, id).filter(|end| end.starts_with('-'));
        let end = end.unwrap_or_else(|| (-millis(self.now())).to_string());
        let left = self.apply(Rows::from([((Field::End, id.to_owned()), end)]), || Ok::<_, StateError>(())).await?;
        Ok(Taken { value: key, left })
    }

    /// Suspends a tenant if `is_suspended` is true; otherwise ends the tenant's suspension.
    ///
    /// # Errors
    /// Returns an error if the order could not be stored. Nothing was changed then.
    pub async fn suspend(&self, tenant: &TenantName, is_suspended: bool) -> Result<Taken<()>, StateError> {
        // Another node's order may be newer than this copy.
        self.follow().await;
        let known = self.row(Field::Suspension, tenant.as_str());
        let value = match known {
            Some(known) if rows::is_suspended(&known) == is_suspended => known,
            known => rows::suspension(known.as_deref(), millis(self.now()), is_suspended),
        };
        let left = self
            .apply(Rows::from([((Field::Suspension, tenant.to_string()), value)]), || Ok::<_, StateError>(()))
            .await?;
        Ok(Taken { value: (), left })
    }

    /// Returns a tenant's keys that were not revoked, with their last uses on any node.
    pub async fn list(&self, tenant: &TenantName) -> Vec<KeyInfo> {
        self.refresh().await;
        self.infos(tenant)
    }

    /// Returns an error if the tenant already has the largest number of keys. `replaced` is the id of a key that the
    /// order itself ends; this key does not count.
    fn has_room(&self, tenant: &TenantName, replaced: Option<&str>) -> Result<(), KeyOrderError> {
        let now = self.now();
        let is_new = |key: &KeyInfo| key.created.is_some_and(|created| created + COUNTED > now);
        let counts = |key: &&KeyInfo| {
            key.source == Source::Api && (is_open(key, now) || is_new(key)) && replaced != Some(key.id.as_str())
        };
        if self.infos(tenant).iter().filter(counts).count() < MOST_KEYS { Ok(()) } else { Err(KeyOrderError::TooMany) }
    }

    async fn make(
        &self,
        new: NewKey,
        mut changed: Rows,
        admit: impl FnOnce() -> Result<(), KeyOrderError>,
    ) -> Result<Taken<(KeyInfo, SecretString)>, KeyOrderError> {
        // Another node may have made keys of the team.
        self.follow().await;
        let NewKey { tenant, note, lifetime } = new;
        let (TeamKey { key, sha256 }, now) = (team_key(&tenant), self.now());
        let id = hex::encode(keyring::random::<8>());
        let mut record = Record::new(&tenant, sha256, note, now);
        record.expires = lifetime.map(|lifetime| millis(now + lifetime));
        changed.insert((Field::Key, id.clone()), record.write(&id, &self.0.mac));
        let info = record.info(&id, record.expires, None).ok_or(KeyOrderError::State(StateError::Refused))?;
        let left = self.apply(changed, admit).await?;
        Ok(Taken { value: (info, key), left })
    }

    /// Returns a key that has not ended. Returns an error for a key that has ended.
    fn open_key(&self, tenant: &TenantName, id: &str) -> Result<KeyInfo, KeyOrderError> {
        let key = self.key(tenant, id)?;
        if is_open(&key, self.now()) { Ok(key) } else { Err(KeyOrderError::Ended) }
    }

    /// Returns a tenant's key, which an order made, even if it was revoked. Returns an error for a key of the
    /// configuration file, and for an unknown id.
    fn key(&self, tenant: &TenantName, id: &str) -> Result<KeyInfo, KeyOrderError> {
        if let Some(known) = self.infos(tenant).into_iter().find(|key| key.id == id) {
            return if known.source == Source::File { Err(KeyOrderError::FromFile) } else { Ok(known) };
        }
        let record = self.row(Field::Key, id).and_then(|value| Record::read(id, &value, &self.0.mac));
        let revoked = self.row(Field::End, id).and_then(|end| end.parse::<i64>().ok()).map(i64::abs);
        let info = record.and_then(|record| record.info(id, revoked, None));
        info.filter(|info| info.tenant == *tenant).ok_or(KeyOrderError::Unknown)
    }
}

/// Returns the time for which a rotated key still works, from the body of an order to rotate a key, such as
/// `{"grace":"24h"}`. If the body is empty or names no grace, the time is 24 hours. Returns `None` if the body is
/// invalid, or if the grace is longer than 366 days.
#[must_use]
pub fn grace(body: &[u8]) -> Option<Duration> {
    #[derive(Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        grace: Option<String>,
    }
    let wanted = if body.is_empty() { Wanted::default() } else { serde_json::from_slice(body).ok()? };
    match wanted.grace {
        Some(text) => humantime::parse_duration(&text).ok().filter(|grace| *grace <= MOST_GRACE),
        None => Some(GRACE),
    }
}

fn is_open(key: &KeyInfo, now: SystemTime) -> bool {
    key.expires.is_none_or(|ends| ends > now)
}
