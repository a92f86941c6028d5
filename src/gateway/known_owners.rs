//! The record owners that this process has written. They need not be written again for some time.
//!
//! Invariants:
//! - A name may be forgotten. It is never confused with another name.
//! - Memory is bounded, and the names that are used stay longest.
//!
//! A general cache would need more memory, because it also keeps an order of use and an order of expiry.

use crate::base::uniform_hash::BuildUniform;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;
use tokio::time::Instant;

/// The number of parts of the table. Each part has its own lock, so that threads seldom wait for each other.
const SHARDS: usize = 16;
/// The largest number of names in one generation of a shard. A hash table of 16,384 places has room for them, in 0.5
/// MiB.
const MOST: usize = 14_336;

/// The keyed hash of a team, an account and a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnerName(pub(super) [u64; 2]);

impl Hash for OwnerName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[1]);
    }
}

/// The record owners that this process has written.
#[derive(Debug)]
pub(super) struct KnownOwners {
    shards: [Mutex<Shard>; SHARDS],
    /// The time in seconds after which a written owner is forgotten, so that it is written again.
    lifetime: u64,
    began: Instant,
}

/// Two generations of names. Once the younger one is full, it replaces the older one, and the older names are
/// forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<OwnerName, Known, BuildUniform>,
    old: HashMap<OwnerName, Known, BuildUniform>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The hash of the owner's newest reference.
    newest: u64,
    /// The time of the write, in seconds since the table was made.
    written: u32,
}

impl KnownOwners {
    /// Makes a table that forgets an owner once `lifetime` has passed since the owner was written.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), lifetime: lifetime.as_secs(), began: Instant::now() }
    }

    /// Sets the hash of a known owner's newest reference, and returns the hash of the previous one; `None` if the owner
    /// is not known.
    pub(super) fn renew(&self, name: OwnerName, newest: u64) -> Option<u64> {
        let now = self.began.elapsed().as_secs();
        let mut shard = self.shard(name).lock();
        let is_fresh = |known: &Known| now.saturating_sub(known.written.into()) < self.lifetime;
        if let Some(known) = shard.young.get_mut(&name) {
            return is_fresh(known).then(|| std::mem::replace(&mut known.newest, newest));
        }
        let known = shard.old.remove(&name).filter(is_fresh)?;
        shard.insert(name, Known { newest, ..known });
        Some(known.newest)
    }

    /// Records that an owner was written. `newest` is the hash of its newest reference.
    pub(super) fn insert(&self, name: OwnerName, newest: u64) {
        let written = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.shard(name).lock().insert(name, Known { newest, written });
    }

    /// Forgets an owner.
    pub(super) fn forget(&self, name: OwnerName) {
        let mut shard = self.shard(name).lock();
        shard.young.remove(&name);
        shard.old.remove(&name);
    }

    /// Returns the number of known owners.
    pub(super) fn count(&self) -> u64 {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        });
        sizes.sum::<usize>() as u64
    }

    fn shard(&self, name: OwnerName) -> &Mutex<Shard> {
        &self.shards[name.0[0] as usize % SHARDS]
    }
}

impl Shard {
    fn insert(&mut self, name: OwnerName, known: Known) {
        // An insertion would grow a full table, even if the table already has the name.
        if let Some(place) = self.young.get_mut(&name) {
            *place = known;
            return;
        }
        self.old.remove(&name);
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> OwnerName {
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        OwnerName([n, spread])
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_is_known_with_its_newest_reference_until_its_time_is_over() {
        let known = KnownOwners::new(Duration::from_secs(60));
        assert_eq!(known.renew(name(1), 7), None);
        known.insert(name(1), 7);
        assert_eq!(
            (known.renew(name(1), 7), known.renew(name(1), 8), known.renew(name(1), 8)),
            (Some(7), Some(7), Some(8))
        );
        known.insert(name(2), 9);
        known.forget(name(2));
        assert_eq!((known.renew(name(2), 9), known.count()), (None, 1));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(known.renew(name(1), 8), None, "its use does not make it younger");
    }

    #[test]
    fn the_table_is_bounded_and_what_is_used_stays() {
        let known = KnownOwners::new(Duration::from_secs(60));
        let most = (2 * SHARDS * MOST) as u64;
        for n in 0..2 * most {
            known.insert(name(n), n);
            if n % 1000 == 0 {
                assert_eq!(known.renew(name(0), 0), Some(0), "{n}");
            }
        }
        assert!(known.count() <= most && known.count() >= most / 2, "{}", known.count());
        assert_eq!(known.renew(name(2 * most - 1), 1), Some(2 * most - 1));
        assert_eq!(known.renew(name(1), 1), None);
        let places = known.shards.iter().map(|shard| shard.lock().young.capacity()).max();
        assert_eq!(places, Some(MOST), "a table is not larger than it has to be");
    }
}
