//! Epochs and erasures: the two ways in which older entries stop being served before the end of their lifetime.
//!
//! Invariants: an epoch is random, so an epoch that ended or was lost never comes back; the check for erased persons
//! never misses an erased person. After erasures were forgotten, it may also report persons who were not erased.

use crate::base::keyring;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A part of cache keys that a purge replaces. It is a random number of 128 bits, so that no number comes twice.
pub(super) type Epoch = [u8; 16];

/// The largest number of erasures that are remembered. An erasure of several tags counts once for each tag. Answers in
/// flight and stored entries are compared with these erasures. If the call of an entry began before the newest
/// forgotten erasure, the entry counts as erased.
const MOST_ERASED: usize = 10_000;

/// A change that every node applies. Each kind except [`Registry`](Self::Registry) removes entries before the end of
/// their lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Removes all entries of a subject.
    Subject(Subject),
    /// Removes the private entries of a tenant.
    Tenant(TenantName),
    /// Removes all entries.
    All,
    /// Removes all entries that name one of these persons.
    Erased(BTreeSet<Tag>),
    /// Removes no entry: the registry of the teams' keys has changed, and every node has to update its copy.
    Registry,
}

impl Change {
    /// Returns true if the change removes an entry with these properties. `private` is the tenant of a private entry,
    /// and `tags` are the persons that the entry names.
    pub(super) fn hits(&self, subject: Subject, private: Option<&TenantName>, tags: &[Tag]) -> bool {
        match self {
            Self::Subject(changed) => *changed == subject,
            Self::Tenant(changed) => private == Some(changed),
            Self::All => true,
            Self::Erased(erased) => tags.iter().any(|tag| erased.contains(tag)),
            Self::Registry => false,
        }
    }
}

/// The current epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The random id of the sequence of changes. After Redis has lost its data there is another era.
    pub(super) era: Epoch,
    pub(super) subjects: [Epoch; Subject::ALL.len()],
    /// The epochs of tenants whose private entries were purged.
    pub(super) tenants: BTreeMap<TenantName, Epoch>,
}

impl Table {
    pub(super) fn random() -> Self {
        Self { era: keyring::random(), subjects: Subject::ALL.map(|_| keyring::random()), tenants: BTreeMap::new() }
    }

    /// Returns a copy of the epochs, with new epochs for the entries that the change removes.
    pub(super) fn after(&self, change: &Change) -> Self {
        let mut table = self.clone();
        match change {
            Change::Subject(subject) => table.subjects[*subject as usize] = keyring::random(),
            Change::Tenant(tenant) => {
                table.tenants.insert(tenant.clone(), keyring::random());
            }
            Change::All => table.subjects = Subject::ALL.map(|_| keyring::random()),
            Change::Erased(_) | Change::Registry => {}
        }
        table
    }
}

/// The epochs as this node knows them, and recent erasures.
#[derive(Debug)]
pub(super) struct Epochs {
    table: ArcSwap<Table>,
    /// The number of the newest change that this node knows.
    last: AtomicU64,
    erased: Mutex<Erased>,
}

#[derive(Debug, Default)]
struct Erased {
    /// The number of the newest erasure of each person.
    last: HashMap<Tag, u64>,
    /// The erased persons, each with the number of its erasure; the oldest erasure is first.
    order: VecDeque<(u64, Tag)>,
    /// The number up to which erasures are forgotten; 0 if none is forgotten.
    forgotten: u64,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self { table: ArcSwap::from_pointee(Table::random()), last: AtomicU64::new(0), erased: Mutex::default() }
    }

    /// Makes the epochs from the table of an earlier run. The next change gets the number after `last`.
    pub(super) fn restored(table: Table, last: u64) -> Self {
        Self { table: ArcSwap::from_pointee(table), last: AtomicU64::new(last), erased: Mutex::default() }
    }

    pub(super) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    pub(super) fn set(&self, table: Table) {
        if **self.table.load() != table {
            self.table.store(Arc::new(table));
        }
    }

    /// Returns the number of the newest change that this node knows.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Records that this node knows every change up to this number.
    pub(super) fn know(&self, number: u64) {
        self.last.store(number, Ordering::Release);
    }

    /// Applies a change on a gateway without other nodes, and gives it the next number.
    pub(super) fn change(&self, change: &Change) {
        if let Change::Erased(tags) = change {
            self.erase(self.last() + 1, tags);
        }
        self.table.rcu(|table| table.after(change));
        self.last.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn erase(&self, number: u64, tags: &BTreeSet<Tag>) {
        let mut erased = self.erased.lock();
        for tag in tags {
            erased.last.insert(*tag, number);
            erased.order.push_back((number, *tag));
        }
        while erased.order.len() > MOST_ERASED {
            let Some((number, tag)) = erased.order.pop_front() else { break };
            erased.forgotten = number;
            if erased.last.get(&tag) == Some(&number) {
                erased.last.remove(&tag);
            }
        }
    }

    /// Forgets all erasures. From then on an entry counts as erased if its call began before the change with this
    /// number.
    pub(super) fn forget(&self, number: u64) {
        *self.erased.lock() = Erased { forgotten: number, ..Erased::default() };
    }

    /// Returns true if one of these persons was erased after the change with the number `began`. Also returns true if
    /// erasures after that change were forgotten, because these persons may be among them.
    pub(super) fn erased_since(&self, began: u64, tags: &[Tag]) -> bool {
        let erased = self.erased.lock();
        began < erased.forgotten || tags.iter().any(|tag| erased.last.get(tag).is_some_and(|at| *at > began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(seed: u8) -> Tag {
        Tag::from_bytes(&[seed; 16]).unwrap()
    }

    #[test]
    fn a_change_ends_what_it_names_and_nothing_else() {
        let epochs = Epochs::new();
        let before = epochs.table().clone();
        epochs.change(&Change::Subject(Subject::Cft));
        let after = epochs.table().clone();
        for subject in Subject::ALL {
            let same = before.subjects[subject as usize] == after.subjects[subject as usize];
            assert_eq!(same, subject != Subject::Cft);
        }
        let lending: TenantName = "lending".parse().unwrap();
        epochs.change(&Change::Tenant(lending.clone()));
        assert_eq!(epochs.table().subjects, after.subjects);
        assert!(epochs.table().tenants.contains_key(&lending));
        epochs.change(&Change::All);
        assert!(Subject::ALL.iter().all(|s| epochs.table().subjects[*s as usize] != after.subjects[*s as usize]));
        assert_eq!(epochs.last(), 3);
    }

    #[test]
    fn who_was_erased_is_known_to_calls_that_began_before() {
        let epochs = Epochs::new();
        let (one, two) = ([tag(1)], [tag(2)]);
        epochs.change(&Change::Erased(BTreeSet::from(one)));
        assert!(epochs.erased_since(0, &one) && !epochs.erased_since(0, &two));
        assert!(!epochs.erased_since(1, &one), "a call that began later may be kept");
        for _ in 0..MOST_ERASED {
            epochs.change(&Change::Erased(BTreeSet::from(two)));
        }
        assert!(epochs.erased_since(0, &[tag(3)]), "what is not known any more counts as erased");
        assert!(!epochs.erased_since(epochs.last(), &two));
    }
}
