//! Keys of cache entries.
//!
//! Invariants: two requests have the same key exactly if one answer may serve both; a key does not reveal its request
//! to a reader without the root key.

use super::epoch::Table;
use crate::base::keyring::Pseudonymizer;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::subject::Subject;
use arc_swap::ArcSwap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The name of a cache entry: an HMAC-SHA256.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The bytes are uniformly distributed already.
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The tenants that an entry may serve.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    account: &'a AccountName,
    tenant: Option<&'a TenantName>,
}

impl<'a> Scope<'a> {
    /// Returns the shared scope of an account. Its entries may serve every tenant of the account that shares answers.
    #[must_use]
    pub const fn shared(account: &'a AccountName) -> Self {
        Self { account, tenant: None }
    }

    /// Returns the tenant of a private scope; `None` for a shared scope.
    pub(super) fn private_to(&self) -> Option<TenantName> {
        self.tenant.cloned()
    }

    /// Returns the private scope of a tenant. Its entries serve only this tenant.
    #[must_use]
    pub const fn private(account: &'a AccountName, tenant: &'a TenantName) -> Self {
        Self { account, tenant: Some(tenant) }
    }
}

/// The parts of a request that determine its key within a scope.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyInput<'a> {
    pub(super) subject: Subject,
    /// The path with version and query.
    pub(super) target: &'a str,
    /// The parameters in their canonical encoding.
    pub(super) parameters: &'a [u8],
}

/// The maker of cache keys, for one root key and one upstream.
#[derive(Debug)]
pub struct Keys {
    namer: Pseudonymizer,
    /// The origin of the upstream that gives the answers.
    origin: ArcSwap<String>,
}

impl Keys {
    /// Returns a maker of keys that derive from `root`, for answers of the upstream at `origin`.
    pub(super) fn new(root: &[u8; 32], origin: &http::Uri) -> Self {
        Self { namer: Pseudonymizer::new(root, "cache keys v1"), origin: ArcSwap::from_pointee(origin.to_string()) }
    }

    /// Sets the origin of the upstream for which keys are made from now on. Returns true if this changes the origin.
    pub(super) fn set_origin(&self, origin: &http::Uri) -> bool {
        let origin = Arc::new(origin.to_string());
        *self.origin.swap(Arc::clone(&origin)) != *origin
    }

    /// Returns the cache key of a request. The key depends on the epochs, so no look-up finds an entry of an earlier
    /// epoch.
    pub(super) fn key(&self, epochs: &Table, scope: &Scope<'_>, input: &KeyInput<'_>) -> Key {
        let KeyInput { subject, target, parameters } = *input;
        let (kind, tenant) = scope.tenant.map_or(("shared", ""), |tenant| ("private", tenant.as_str()));
        let own = scope.tenant.and_then(|tenant| epochs.tenants.get(tenant)).map_or(&[][..], |epoch| epoch);
        Key(self.namer.name([
            self.origin.load().as_bytes(),
            scope.account.as_str().as_bytes(),
            subject.as_str().as_bytes(),
            target.as_bytes(),
            &epochs.subjects[subject as usize],
            kind.as_bytes(),
            tenant.as_bytes(),
            own,
            parameters,
        ]))
    }

    /// Returns the key under which the slot of a pending request is stored. `id` is Iluma's id of the request.
    pub(super) fn pending(&self, account: &AccountName, id: &str) -> Key {
        Key(self.namer.name([self.origin.load().as_bytes(), account.as_str().as_bytes(), b"pending", id.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::Change;
    use super::*;
    use proptest::prelude::*;

    fn keys(root: u8) -> Keys {
        Keys::new(&[root; 32], &http::Uri::from_static("http://a"))
    }

    type Parts = (String, Option<String>, usize, String, Vec<u8>);

    fn key(keys: &Keys, epochs: &Table, (account, tenant, subject, target, parameters): &Parts) -> Key {
        let account = account.parse().unwrap();
        let tenant = tenant.as_ref().map(|name| name.parse().unwrap());
        let scope = tenant.as_ref().map_or(Scope::shared(&account), |tenant| Scope::private(&account, tenant));
        keys.key(epochs, &scope, &KeyInput { subject: Subject::ALL[*subject], target, parameters })
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
            let (all, epochs) = (keys(1), Table::random());
            prop_assert_eq!(a == b, key(&all, &epochs, &a) == key(&all, &epochs, &b));
        }
    }

    #[test]
    fn another_root_or_epoch_is_another_key() {
        let parts = ("live".to_owned(), Some("lending".to_owned()), 0, "/x".to_owned(), vec![]);
        let (all, epochs) = (keys(1), Table::random());
        let before = key(&all, &epochs, &parts);
        assert_eq!(key(&keys(1), &epochs, &parts), before);
        assert_ne!(key(&keys(2), &epochs, &parts), before);
        assert_ne!(key(&all, &Table::random(), &parts), before, "epochs are random");
        assert_ne!(key(&all, &epochs.after(&Change::Subject(Subject::Bank)), &parts), before);
        assert_ne!(key(&all, &epochs.after(&Change::Tenant("lending".parse().unwrap())), &parts), before);
        assert_eq!(key(&all, &epochs.after(&Change::Tenant("other".parse().unwrap())), &parts), before);
    }
}
