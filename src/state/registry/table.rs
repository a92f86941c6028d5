//! The table of keys, in which each request looks up its key.

use super::super::times::millis;
use super::key::KeyInfo;
use crate::base::name::TenantName;
use crate::config::{FileKey, Settings};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The precision of a key's last use, in milliseconds.
const MINUTE: i64 = 60_000;

/// A SHA-256 as four words, which take four comparisons instead of 32.
type Hash = [u64; 4];

/// A key that was not revoked.
#[derive(Debug)]
pub struct ActiveKey {
    /// The id that orders use for the key.
    pub id: String,
    /// The team.
    pub tenant: TenantName,
    /// True while the team is suspended.
    pub is_suspended: bool,
    pub(super) info: KeyInfo,
    /// The end of the key in milliseconds since 1970; `None` if it has no end.
    pub(super) ends: Option<i64>,
    /// The minute of the key's last use on this node, in milliseconds since 1970; 0 for none.
    pub(super) used: Arc<AtomicI64>,
}

/// Every key that was not revoked, and the tenants that are suspended.
#[derive(Debug, Default)]
pub struct KeyTable {
    hashes: Vec<(Hash, u32)>,
    pub(super) keys: Vec<ActiveKey>,
    pub(super) suspended: BTreeSet<TenantName>,
}

impl KeyTable {
    pub(super) fn new(keys: Vec<([u8; 32], ActiveKey)>, suspended: BTreeSet<TenantName>) -> Self {
        let hashes = (0..).zip(&keys).map(|(index, (hash, _))| (words(hash), index)).collect();
        Self { hashes, keys: keys.into_iter().map(|(_, key)| key).collect(), suspended }
    }

    /// Makes a table that has only the keys of the configuration.
    #[must_use]
    pub fn of_configuration(settings: &Settings) -> Self {
        let all = settings.tenants.iter();
        let all = all.flat_map(|(tenant, its)| its.key_sha256.iter().map(move |key| (tenant, key)));
        let active = |(tenant, key): (&TenantName, &FileKey)| {
            let (info, used) = (KeyInfo::of_file(tenant, key), Arc::default());
            let (id, tenant, ends) = (info.id.clone(), tenant.clone(), key.expires.map(millis));
            (key.sha256, ActiveKey { id, tenant, is_suspended: false, info, ends, used })
        };
        Self::new(all.map(active).collect(), BTreeSet::new())
    }

    /// Returns the key with this SHA-256, if it has not ended, and notes its use. Every hash is compared, so that the
    /// time of the look-up reveals nothing about the keys.
    #[must_use]
    pub fn find(&self, sha256: &[u8; 32], now: SystemTime) -> Option<&ActiveKey> {
        let hash = words(sha256);
        let found = self.hashes.iter().fold(u32::MAX, |found, (known, index)| {
            let difference = known.iter().zip(&hash).fold(0, |bits, (a, b)| bits | (a ^ b));
            let same: Choice = difference.ct_eq(&0);
            u32::conditional_select(&found, index, same)
        });
        let key = self.keys.get(usize::try_from(found).ok()?)?;
        let now = millis(now);
        if key.ends.is_some_and(|ends| ends <= now) {
            return None;
        }
        let minute = now - now % MINUTE;
        if key.used.load(Ordering::Relaxed) < minute {
            key.used.store(minute, Ordering::Relaxed);
        }
        Some(key)
    }

    /// Returns true if the tenant is suspended.
    #[must_use]
    pub fn is_suspended(&self, tenant: &TenantName) -> bool {
        self.suspended.contains(tenant)
    }

    /// Returns the number of a tenant's keys that were not revoked.
    #[must_use]
    pub fn count(&self, tenant: &TenantName) -> usize {
        self.keys.iter().filter(|key| key.tenant == *tenant).count()
    }
}

fn words(hash: &[u8; 32]) -> Hash {
    let mut words = Hash::default();
    for (word, bytes) in words.iter_mut().zip(hash.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
impl KeyTable {
    /// Makes a table for tests from pairs of a team and its key.
    #[must_use]
    pub fn of(keys: &[(&str, &str)]) -> Self {
        use super::key::Source;
        use sha2::{Digest as _, Sha256};
        let active = |(tenant, key): &(&str, &str)| {
            let tenant: TenantName = tenant.parse().expect("a name");
            let info = KeyInfo {
                id: "x".into(),
                tenant: tenant.clone(),
                note: None,
                source: Source::File,
                created: None,
                expires: None,
                last_used: None,
            };
            let used = Arc::default();
            (
                Sha256::digest(key).into(),
                ActiveKey { id: "x".into(), tenant, is_suspended: false, info, ends: None, used },
            )
        };
        Self::new(keys.iter().map(active).collect(), BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_key_that_has_ended_is_not_found_and_a_use_is_noted_to_the_minute() {
        use sha2::{Digest as _, Sha256};
        let mut table = KeyTable::of(&[("lending", "one"), ("payments", "two")]);
        table.keys[1].ends = Some(200_000);
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let found = |key: &str, now| table.find(&Sha256::digest(key).into(), at(now)).map(|key| key.tenant.to_string());
        assert_eq!(found("one", 130_000).as_deref(), Some("lending"));
        assert_eq!(found("two", 199_999).as_deref(), Some("payments"));
        assert_eq!(found("two", 200_000), None);
        assert_eq!(found("three", 0), None);
        assert_eq!(table.keys[0].used.load(Ordering::Relaxed), 120_000);
        assert_eq!(table.keys[1].used.load(Ordering::Relaxed), 180_000);
    }
}
