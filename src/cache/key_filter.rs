//! A filter, in memory, of the keys that the disk cache may have. It saves most reads of the file for missing keys.
//!
//! The filter is a counting Bloom filter with two counters for each key. Invariant: it never answers "no" for a key in
//! the file.

use super::key::Key;
use crate::base::byte_size::ByteSize;
use parking_lot::Mutex;

/// The number of bytes of the file for which the filter has one counter. A file with entries of 1 KiB has eight
/// counters for each entry. Then about one miss in 20 reads the file without need.
const BYTES_PER_COUNTER: u64 = 128;
/// The smallest number of counters; a counter has one byte.
const LEAST: u64 = 1 << 10;
/// The largest number of counters: 64 MiB.
const MOST: u64 = 1 << 26;

/// The filter of one file's keys. The keys that are in the file at the start are read in ascending order and counted in
/// steps.
#[derive(Debug)]
pub(super) struct KeyFilter(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    counters: Vec<u8>,
    progress: Progress,
}

/// The part of the file's keys that the filter has counted. Any other key may be in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Nothing,
    /// The keys up to and including this one.
    Until(Key),
    All,
}

impl Progress {
    fn has(&self, key: &Key) -> bool {
        match self {
            Self::Nothing => false,
            Self::Until(last) => key.bytes() <= last.bytes(),
            Self::All => true,
        }
    }
}

impl KeyFilter {
    /// Makes a filter for a file of at most `bound` bytes. No key is counted yet.
    pub(super) fn new(bound: ByteSize) -> Self {
        let size = (bound.bytes() / BYTES_PER_COUNTER).clamp(LEAST, MOST).next_power_of_two();
        let counters = vec![0; usize::try_from(size).unwrap_or_default()];
        Self(Mutex::new(Counted { counters, progress: Progress::Nothing }))
    }

    /// Returns false only if the file certainly does not have this key.
    pub(super) fn may_have(&self, key: &Key) -> bool {
        let counted = self.0.lock();
        !counted.progress.has(key) || counted.places(key).iter().all(|place| counted.counters[*place] > 0)
    }

    /// Counts a key that was written. Ignores a key beyond the present progress, because it is counted later.
    pub(super) fn insert(&self, key: &Key) {
        self.0.lock().change(key, |counter| counter.saturating_add(1));
    }

    /// Subtracts a key that was deleted. Ignores a key beyond the present progress, because it was not counted.
    pub(super) fn remove(&self, key: &Key) {
        // A counter at its maximum has lost the exact number, so it stays there.
        self.0.lock().change(key, |counter| if counter == u8::MAX { counter } else { counter.saturating_sub(1) });
    }

    /// Returns the progress: the part of the file's keys that is counted.
    pub(super) fn progress(&self) -> Progress {
        self.0.lock().progress.clone()
    }

    /// Counts `keys`, the next keys of the file in ascending order. `before` is the progress that the caller read
    /// before it read these keys. Empty `keys` mean that the filter has counted the whole file. Does nothing if the
    /// progress has changed since.
    pub(super) fn learn(&self, before: &Progress, keys: &[Key]) {
        let mut counted = self.0.lock();
        // The filter was reset after the caller read `before`.
        if counted.progress != *before {
            return;
        }
        counted.progress = Progress::All;
        for key in keys {
            counted.change(key, |counter| counter.saturating_add(1));
        }
        if let Some(last) = keys.last() {
            counted.progress = Progress::Until(last.clone());
        }
    }

    /// Starts the filter from nothing: every key may be in the file until its keys are counted again. This is needed
    /// after changes that the filter has counted, and that the file may have lost.
    pub(super) fn reset(&self) {
        let mut counted = self.0.lock();
        counted.counters.fill(0);
        counted.progress = Progress::Nothing;
    }
}

impl Counted {
    fn change(&mut self, key: &Key, change: impl Fn(u8) -> u8) {
        if self.progress.has(key) {
            for place in self.places(key) {
                self.counters[place] = change(self.counters[place]);
            }
        }
    }

    /// Returns the indexes of a key's two counters. A key's bytes are uniformly distributed, so they serve as the hash.
    fn places(&self, key: &Key) -> [usize; 2] {
        let [.., a, b, c, d, e, f, g, h] = key.bytes();
        let hash = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        [hash, hash >> 32].map(|hash| usize::try_from(hash & (self.counters.len() as u64 - 1)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        use sha2::Digest as _;
        let mut bytes: [u8; 32] = sha2::Sha256::digest(n.to_be_bytes()).into();
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Key::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn a_key_that_was_counted_is_found_and_few_others_are() {
        let filter = KeyFilter::new(ByteSize::mib(10));
        assert!(filter.may_have(&key(1)), "nothing is known before the keys are counted");
        filter.learn(&Progress::Nothing, &[]);
        assert!(!filter.may_have(&key(1)));
        (0..10_000).for_each(|n| filter.insert(&key(n)));
        assert!((0..10_000).all(|n| filter.may_have(&key(n))));
        let wrong = (10_000..30_000).filter(|n| filter.may_have(&key(*n))).count();
        assert!(wrong < 2_000, "{wrong} of 20000 keys are taken for others");
        (0..10_000).for_each(|n| filter.remove(&key(n)));
        assert!((0..10_000).all(|n| !filter.may_have(&key(n))), "what is deleted is forgotten");
    }

    #[test]
    fn keys_that_change_while_the_file_is_read_are_counted_once() {
        let filter = KeyFilter::new(ByteSize::mib(1));
        filter.learn(&Progress::Nothing, &[key(1), key(2)]);
        let before = filter.progress();
        assert_eq!(before, Progress::Until(key(2)));
        // Keys 0 to 2 are counted; key 3 is not yet, and key 4 will be.
        filter.insert(&key(0));
        filter.remove(&key(1));
        filter.remove(&key(3));
        filter.insert(&key(4));
        filter.learn(&before, &[key(4)]);
        filter.learn(&Progress::Until(key(4)), &[]);
        assert_eq!(filter.progress(), Progress::All);
        assert_eq!([0, 1, 2, 3, 4].map(|n| filter.may_have(&key(n))), [true, false, true, false, true]);
        filter.remove(&key(4));
        assert!(!filter.may_have(&key(4)));
    }

    #[test]
    fn a_filter_that_was_reset_begins_again() {
        let filter = KeyFilter::new(ByteSize::mib(1));
        filter.learn(&Progress::Nothing, &[key(1)]);
        filter.reset();
        filter.learn(&Progress::Until(key(1)), &[]);
        assert!(filter.may_have(&key(4)) && filter.progress() == Progress::Nothing);
    }

    #[test]
    fn a_counter_that_is_full_stays_full() {
        let filter = KeyFilter::new(ByteSize::kib(1));
        filter.learn(&Progress::Nothing, &[]);
        (0..300).for_each(|_| filter.insert(&key(7)));
        (0..299).for_each(|_| filter.remove(&key(7)));
        assert!(filter.may_have(&key(7)));
    }
}
