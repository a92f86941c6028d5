//! Keys of cache entries.
//!
//! Invariants: two requests have the same key exactly if they may have the same answer; nobody without the root key
//! can tell from a key what was asked.

use super::Subject;
use crate::name::{AccountName, TenantName};
use crate::vault::{self, Namer};
use arc_swap::ArcSwap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The name of a cache entry: an HMAC-SHA256.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The bytes are uniform already.
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Whom an entry may serve.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    account: &'a AccountName,
    tenant: Option<&'a TenantName>,
}

impl<'a> Scope<'a> {
    /// Every tenant of the account that shares.
    #[must_use]
    pub const fn shared(account: &'a AccountName) -> Self {
        Self { account, tenant: None }
    }

    /// One tenant alone.
    #[must_use]
    pub const fn private(account: &'a AccountName, tenant: &'a TenantName) -> Self {
        Self { account, tenant: Some(tenant) }
    }
}

/// Makes keys.
#[derive(Debug)]
pub struct Keys {
    namer: Namer,
    /// Random per subject: entries of an epoch that ended are never found again.
    epochs: ArcSwap<Epochs>,
}

type Epochs = [[u8; 16]; Subject::ALL.len()];

fn epochs() -> Epochs {
    Subject::ALL.map(|_| vault::random())
}

impl Keys {
    /// Keys that derive from `root`, in epochs of their own.
    pub(super) fn new(root: &[u8; 32]) -> Self {
        Self { namer: Namer::new(root, "cache keys v1"), epochs: ArcSwap::from_pointee(epochs()) }
    }

    /// Ends every epoch.
    pub(super) fn begin_epochs(&self) {
        self.epochs.store(Arc::new(epochs()));
    }

    /// `target` is path with version and query; `parameters` is one canonical encoding of what is asked.
    pub(super) fn key(&self, scope: &Scope<'_>, subject: Subject, target: &str, parameters: &[u8]) -> Key {
        let (kind, tenant) = scope.tenant.map_or(("shared", ""), |tenant| ("private", tenant.as_str()));
        let epochs = self.epochs.load();
        Key(self.namer.name([
            scope.account.as_str().as_bytes(),
            subject.as_str().as_bytes(),
            target.as_bytes(),
            &epochs[subject as usize],
            kind.as_bytes(),
            tenant.as_bytes(),
            parameters,
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (String, Option<String>, usize, String, Vec<u8>);

    fn key(keys: &Keys, (account, tenant, subject, target, parameters): &Parts) -> Key {
        let account = account.parse().unwrap();
        let tenant = tenant.as_ref().map(|name| name.parse().unwrap());
        let scope = tenant.as_ref().map_or(Scope::shared(&account), |tenant| Scope::private(&account, tenant));
        keys.key(&scope, Subject::ALL[*subject], target, parameters)
    }

    fn parts() -> impl Strategy<Value = Parts> {
        (
            "[ab]{1,2}",
            proptest::option::of("[ab]{1,2}"),
            0..Subject::ALL.len(),
            "/[ab]{0,2}",
            proptest::collection::vec(0_u8..2, 0..3),
        )
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_if_every_part_is(a in parts(), b in parts()) {
            let keys = Keys::new(&[1; 32]);
            prop_assert_eq!(a == b, key(&keys, &a) == key(&keys, &b));
        }
    }

    #[test]
    fn another_root_or_epoch_is_another_key() {
        let parts = ("live".to_owned(), None, 0, "/x".to_owned(), vec![]);
        let keys = Keys::new(&[1; 32]);
        assert_ne!(key(&keys, &parts), key(&Keys::new(&[1; 32]), &parts), "epochs are random");
        let other = Keys::new(&[2; 32]);
        other.epochs.store(keys.epochs.load_full());
        assert_ne!(key(&keys, &parts), key(&other, &parts));
        let before = key(&keys, &parts);
        assert_eq!(key(&keys, &parts), before);
        keys.begin_epochs();
        assert_ne!(key(&keys, &parts), before);
    }
}
