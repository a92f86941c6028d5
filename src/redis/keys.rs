//! The names of all keys and channels of gateways in Redis.
//!
//! Invariants:
//! - Every name of the current layout, except [`root_sentinel`], begins with the same hash tag,
//!   `{iluma-gateway:<hex>}`. So a cluster keeps all keys in one slot, and a script may use any of them.
//! - The Redis user needs access to the keys `{iluma-gateway:*`.
//! - Gateways with the same root key share these names.
//! - A name contains no data of a request, only names from the configuration and the route table, nodes, dates and
//!   keyed hashes.
//!
//! The keys of state are named in `scripts/state/prelude.lua`, below [`KeySpace::state`].

use crate::base::keyring;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::person::Tag;
use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};
use std::sync::Arc;

/// The version of the layout: of the names below, and of the formats of their values. A change gets the next number if
/// the gateway's previous version can't work with the new layout.
pub(super) const LAYOUT_VERSION: u32 = 1;

/// The suffix of a key that holds the copy of a cache entry.
const COPY: &[u8] = b":copy";

/// The name of a key in Redis. Only a [`KeySpace`] makes names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisKey(Vec<u8>);

impl RedisKey {
    /// Returns the bytes of the name, for use as the associated data of the envelope that is stored under this name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ToRedisArgs for RedisKey {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(&self.0);
    }
}

impl ToSingleRedisArg for RedisKey {}

/// Returns the key of the root key's sentinel, a fingerprint by which state recognises its root key. The name does not
/// derive from the root key, so that a gateway with a wrong root key finds the sentinel too. In a cluster, this key may
/// be on another node than all other keys.
#[must_use]
pub fn root_sentinel() -> RedisKey {
    RedisKey(b"{iluma-gateway:root}:sentinel".to_vec())
}

/// The name of a channel in Redis. Only a [`KeySpace`] makes names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(String);

impl Channel {
    /// Returns the channel's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ToRedisArgs for Channel {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.0.as_bytes());
    }
}

impl ToSingleRedisArg for Channel {}

/// The readable part of a cache entry's name: its subject, and the tenant of a private entry.
#[derive(Debug, Clone, Copy)]
pub struct EntryScope<'a> {
    /// The name of the subject of the stored answer, such as `bank`.
    pub subject: &'a str,
    /// The tenant of an entry that serves one tenant only; `None` for a shared entry.
    pub private: Option<&'a TenantName>,
}

/// The names of all keys and channels of one deployment.
#[derive(Debug, Clone)]
pub struct KeySpace {
    /// The hex digits in the hash tag.
    id: Arc<str>,
}

impl KeySpace {
    /// Makes the key space that all gateways with this root key share.
    #[must_use]
    pub fn new(root: &[u8; 32]) -> Self {
        let [a, b, c, d] = *keyring::derive::<4>(root, "namespace v1");
        Self { id: format!("{:08x}", u32::from_be_bytes([a, b, c, d])).into() }
    }

    /// Returns the key of the layout's version: see [`super::layout`].
    pub(super) fn layout(&self) -> RedisKey {
        self.key("layout")
    }

    /// Returns the prefix of all names from the time before layouts had numbers. It has no hash tag.
    pub(super) fn prefix_before_layouts(&self) -> String {
        format!("iluma-gateway:{}:", self.id)
    }

    /// Returns the keys by which the leftovers of a gateway without layout numbers are recognised.
    pub(super) fn before_layouts(&self) -> impl Iterator<Item = RedisKey> {
        let names =
            ["epochs", "number", "roll", "state:events", "state:owners", "state:tenants", "state:callbacks:waiting"];
        let prefix = self.prefix_before_layouts();
        names.into_iter().map(move |name| RedisKey(format!("{prefix}{name}").into_bytes()))
    }

    /// Returns the key that probes write.
    pub(super) fn probe(&self) -> RedisKey {
        self.key("probe")
    }

    /// Returns the prefix of the names of all keys of state.
    #[must_use]
    pub fn state(&self) -> RedisKey {
        self.key("state:")
    }

    /// Returns the key of the Redis hash with the callback URLs that a tenant has set.
    #[must_use]
    pub fn callback_urls(&self, tenant: &TenantName) -> RedisKey {
        self.key(&format!("state:urls:{tenant}"))
    }

    /// Returns the key of the Redis hash with the figures of one day that the nodes have published.
    #[must_use]
    pub fn ledger_day(&self, day: &str) -> RedisKey {
        self.key(&format!("ledger:day:{day}"))
    }

    /// Returns the key of the text of one day's published figures. Publishing makes the text of a day that is over, and a
    /// reader makes the others.
    #[must_use]
    pub fn ledger_day_text(&self, day: &str) -> RedisKey {
        self.key(&format!("ledger:text:{day}"))
    }

    /// Returns the key of the stream of settlements by reference.
    #[must_use]
    pub fn ledger_settlements(&self) -> RedisKey {
        self.key("ledger:settled")
    }

    /// Returns the key of the Redis hash with reported outcomes that wait for the nodes of their calls. A field is the
    /// keyed hash of the call's record.
    #[must_use]
    pub fn ledger_reports(&self) -> RedisKey {
        self.key("ledger:words")
    }

    /// Returns the key of the sorted set with the fields of [`ledger_reports`](Self::ledger_reports), by the time at which
    /// each was stored.
    #[must_use]
    pub fn ledger_report_times(&self) -> RedisKey {
        self.key("ledger:word-times")
    }

    /// Returns the key of the Redis hash with the orders to settle calls that `node` booked.
    #[must_use]
    pub fn ledger_orders(&self, node: &str) -> RedisKey {
        self.key(&format!("ledger:orders:{node}"))
    }

    /// Returns the key of the Redis hash with the replies to orders that settle calls by hand. These orders contain
    /// `name`, the name for their replies.
    #[must_use]
    pub fn ledger_reply(&self, name: &str) -> RedisKey {
        self.key(&format!("ledger:reply:{name}"))
    }

    /// Returns the key of the sorted set with the lost calls that have the same reference. `reference` is its keyed
    /// hash.
    #[must_use]
    pub fn ledger_lost(&self, reference: &[u8; 32]) -> RedisKey {
        self.named("ledger:lost", reference)
    }

    /// Returns the key of the Redis hash with the records' reported outcomes that wait for a lost call. All these
    /// records have the same reference, whose keyed hash is `reference`.
    #[must_use]
    pub fn ledger_said(&self, reference: &[u8; 32]) -> RedisKey {
        self.named("ledger:said", reference)
    }

    /// Returns the key of the Redis hash with the records whose outcome was given to a lost call. All these records
    /// have the same reference, whose keyed hash is `reference`.
    #[must_use]
    pub fn ledger_used(&self, reference: &[u8; 32]) -> RedisKey {
        self.named("ledger:used", reference)
    }

    /// Returns the key of the Redis hash with the calls that have an unknown outcome, by node.
    #[must_use]
    pub fn ledger_open(&self) -> RedisKey {
        self.key("ledger:open")
    }

    /// Returns the key of the Redis hash with the number of each node's last publication.
    #[must_use]
    pub fn ledger_generations(&self) -> RedisKey {
        self.key("ledger:generations")
    }

    /// Returns the key of the Redis hash with the nodes, each with its incarnation and the end of its lease.
    #[must_use]
    pub fn nodes(&self) -> RedisKey {
        self.key("nodes")
    }

    /// Returns the key of the Redis hash with the nodes' reports for operators.
    #[must_use]
    pub fn node_reports(&self) -> RedisKey {
        self.key("node-reports")
    }

    /// Returns the key of the Redis hash with the fingerprints of the encryption keys of shared state.
    #[must_use]
    pub fn key_sentinels(&self) -> RedisKey {
        self.key("key-sentinels")
    }

    /// Returns the key of the sorted set with the ids of the audit log's entries.
    #[must_use]
    pub fn audit_ids(&self) -> RedisKey {
        self.key("audit:ids")
    }

    /// Returns the key of the Redis hash with the audit log's entries.
    #[must_use]
    pub fn audit_entries(&self) -> RedisKey {
        self.key("audit:entries")
    }

    /// Returns the key of the sorted set with the ids of erasure receipts.
    #[must_use]
    pub fn erasure_ids(&self) -> RedisKey {
        self.key("erasures:ids")
    }

    /// Returns the key of the Redis hash with the erasure receipts.
    #[must_use]
    pub fn erasure_entries(&self) -> RedisKey {
        self.key("erasures:entries")
    }

    /// Returns the key that holds the number of the last change to the registry.
    #[must_use]
    pub fn registry_number(&self) -> RedisKey {
        self.key("registry:number")
    }

    /// Returns the key of the Redis hash with the registry's rows.
    #[must_use]
    pub fn registry_rows(&self) -> RedisKey {
        self.key("registry:rows")
    }

    /// Returns the key of the sorted set of nodes, by the time of their last heartbeat.
    #[must_use]
    pub fn limit_nodes(&self) -> RedisKey {
        self.key("limit:nodes")
    }

    /// Returns the key of the Redis hash with the number of requests of each tenant at each node.
    #[must_use]
    pub fn limit_asked(&self) -> RedisKey {
        self.key("limit:asked")
    }

    /// Returns the key of the fair queue of an account.
    #[must_use]
    pub fn limit_queue(&self, account: &AccountName) -> RedisKey {
        self.key(&format!("limit:queue:{account}"))
    }

    /// Returns the key of the Redis hash with the number of a tenant's calls in a day or month, by node.
    #[must_use]
    pub fn limit_quota(&self, tenant: &TenantName, period: &str) -> RedisKey {
        self.key(&format!("limit:quota:{tenant}:{period}"))
    }

    /// Returns the key of the Redis hash with the back-off of an account's endpoints.
    #[must_use]
    pub fn limit_backoff(&self, account: &AccountName) -> RedisKey {
        self.key(&format!("limit:backoff:{account}"))
    }

    /// Returns the key of the Redis hash with the price in rupiah of a tenant's calls in a month, by node.
    #[must_use]
    pub fn limit_budget(&self, tenant: &TenantName, month: &str) -> RedisKey {
        self.key(&format!("limit:budget:{tenant}:{month}"))
    }

    /// Returns the key of a cache entry.
    #[must_use]
    pub fn cache_entry(&self, scope: EntryScope<'_>, key: &[u8; 32]) -> RedisKey {
        self.named(&Self::entry_kind(scope), key)
    }

    /// Returns the key of the copy of a cache entry that is served while Iluma fails.
    #[must_use]
    pub fn cache_copy(&self, scope: EntryScope<'_>, key: &[u8; 32]) -> RedisKey {
        let RedisKey(mut name) = self.cache_entry(scope, key);
        name.extend_from_slice(COPY);
        RedisKey(name)
    }

    /// Returns true if `key`, the key of a cache entry or of an entry's copy, is the key of a copy. A copy outlives its
    /// entry, and is served while Iluma fails.
    #[must_use]
    pub fn is_cache_copy(key: &[u8]) -> bool {
        key.ends_with(COPY)
    }

    /// Returns a pattern for the keys of cache entries. `subject` is the entries' subject, and `private` is the tenant
    /// of private entries or `-` for shared entries. Each may be `*` for all.
    #[must_use]
    pub fn cache_entries(&self, subject: &str, private: &str) -> RedisKey {
        self.key(&format!("cache:entry:{subject}:{private}:*"))
    }

    /// Returns the key of the lease of the node that makes the call for an entry.
    #[must_use]
    pub fn cache_lease(&self, key: &[u8; 32]) -> RedisKey {
        self.named("cache:lease", key)
    }

    /// Returns the key that holds the result of a call whose answer is not cached. Requests on other nodes wait for it.
    #[must_use]
    pub fn cache_result(&self, key: &[u8; 32]) -> RedisKey {
        self.named("cache:result", key)
    }

    /// Returns the key of a mark that is set while a node waits for an entry.
    #[must_use]
    pub fn cache_wanted(&self, key: &[u8; 32]) -> RedisKey {
        self.named("cache:wanted", key)
    }

    /// Returns the key that names the place in the cache for the final answer to a pending request. `id` is the keyed
    /// hash of the request's id at Iluma.
    #[must_use]
    pub fn cache_pending(&self, id: &[u8; 32]) -> RedisKey {
        self.named("cache:pending", id)
    }

    /// Returns the key of the set of cache entries that name a person.
    #[must_use]
    pub fn cache_tag(&self, tag: &Tag) -> RedisKey {
        self.named("cache:tag", tag.bytes())
    }

    /// Returns the key of the tombstone of an erased person.
    #[must_use]
    pub fn cache_tombstone(&self, tag: &Tag) -> RedisKey {
        self.named("cache:erased", tag.bytes())
    }

    /// Returns the key of the Redis hash with the current epochs.
    #[must_use]
    pub fn cache_epochs(&self) -> RedisKey {
        self.key("cache:epochs")
    }

    /// Returns the key that holds the number of the last change to the cache, such as a purge.
    #[must_use]
    pub fn cache_number(&self) -> RedisKey {
        self.key("cache:number")
    }

    /// Returns the key of the sorted set with the changes to the cache, ordered by their numbers.
    #[must_use]
    pub fn cache_changes(&self) -> RedisKey {
        self.key("cache:changes")
    }

    /// Returns the key of the Redis hash with the last change that each node has applied.
    #[must_use]
    pub fn cache_membership(&self) -> RedisKey {
        self.key("cache:membership")
    }

    /// Returns the key that counts the entries that nodes removed from memory because of the change `number`.
    #[must_use]
    pub fn cache_removed(&self, number: u64) -> RedisKey {
        self.key(&format!("cache:removed:{number}"))
    }

    /// Returns the channel with the cache keys of calls that have ended.
    #[must_use]
    pub fn results_channel(&self) -> Channel {
        Channel(format!("{}channel:results", self.prefix()))
    }

    /// Returns the channel with the numbers of the cache's changes.
    #[must_use]
    pub fn changes_channel(&self) -> Channel {
        Channel(format!("{}channel:changes", self.prefix()))
    }

    /// Returns the channel with the names of accounts whose endpoints begin to refuse calls, or accept them again.
    #[must_use]
    pub fn backoff_channel(&self) -> Channel {
        Channel(format!("{}channel:backoff", self.prefix()))
    }

    fn entry_kind(scope: EntryScope<'_>) -> String {
        format!("cache:entry:{}:{}", scope.subject, scope.private.map_or("-", TenantName::as_str))
    }

    fn prefix(&self) -> String {
        format!("{{iluma-gateway:{}}}:", self.id)
    }

    fn key(&self, name: &str) -> RedisKey {
        RedisKey(format!("{}{name}", self.prefix()).into_bytes())
    }

    fn named(&self, kind: &str, key: &[u8]) -> RedisKey {
        let RedisKey(mut name) = self.key(kind);
        name.push(b':');
        name.extend_from_slice(key);
        RedisKey(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_begins_with_the_one_hash_tag_and_names_of_other_root_keys_differ() {
        let (names, tenant) = (KeySpace::new(&[1; 32]), "lending".parse().unwrap());
        let (account, tag) = ("live".parse().unwrap(), Tag::from_bytes(&[b'}'; 16]).unwrap());
        let scope = EntryScope { subject: "bank", private: Some(&tenant) };
        let key = [b'}'; 32];
        let all = [
            names.layout(),
            names.probe(),
            names.state(),
            names.callback_urls(&tenant),
            names.ledger_day("2026-11-25"),
            names.ledger_day_text("2026-11-25"),
            names.ledger_settlements(),
            names.ledger_reports(),
            names.ledger_report_times(),
            names.ledger_orders("node"),
            names.ledger_reply("name"),
            names.ledger_open(),
            names.ledger_lost(&key),
            names.ledger_said(&key),
            names.ledger_used(&key),
            names.audit_ids(),
            names.audit_entries(),
            names.nodes(),
            names.node_reports(),
            names.erasure_ids(),
            names.erasure_entries(),
            names.registry_number(),
            names.registry_rows(),
            names.limit_nodes(),
            names.limit_asked(),
            names.limit_queue(&account),
            names.limit_quota(&tenant, "2026-11"),
            names.cache_entry(scope, &key),
            names.cache_copy(scope, &key),
            names.cache_entries("*", "*"),
            names.cache_lease(&key),
            names.cache_result(&key),
            names.cache_wanted(&key),
            names.cache_pending(&key),
            names.cache_tag(&tag),
            names.cache_tombstone(&tag),
            names.cache_epochs(),
            names.cache_number(),
            names.cache_changes(),
            names.cache_membership(),
            names.cache_removed(7),
        ];
        let tag_of = |name: &[u8]| {
            let open = name.iter().position(|byte| *byte == b'{').unwrap();
            let close = open + name[open..].iter().position(|byte| *byte == b'}').unwrap();
            (open, name[open..=close].to_vec())
        };
        let (_, tag) = tag_of(all[0].as_bytes());
        assert!(tag.starts_with(b"{iluma-gateway:"));
        for name in &all {
            assert_eq!(tag_of(name.as_bytes()), (0, tag.clone()), "{name:?}");
        }
        for channel in [names.results_channel(), names.changes_channel(), names.backoff_channel()] {
            assert_eq!(tag_of(channel.as_str().as_bytes()), (0, tag.clone()), "{channel:?}");
        }
        let distinct: std::collections::BTreeSet<&[u8]> = all.iter().map(RedisKey::as_bytes).collect();
        assert_eq!(distinct.len(), all.len(), "no two names are the same");
        assert_ne!(KeySpace::new(&[2; 32]).probe(), names.probe());
    }
}
