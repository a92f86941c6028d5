//! Stored results, which `GET :id` and the lists show.
//!
//! A record is a list of steps, each with the time from which it is shown and the whole object as text. A PENDING
//! record becomes COMPLETED without any task.
//!
//! Invariants: at most `max` records, the oldest are removed first; only the key that made a record sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

/// The kind of a record. An id of one kind is not found under the path of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Bank,
    Ocr,
    Document,
    Capture,
}

/// One state of a record.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) from: Instant,
    pub(super) object: Bytes,
}

/// A stored result.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) owner: Arc<str>,
    pub(super) kind: Kind,
    pub(super) reference: Option<String>,
    /// The states in the order of their times; the first one is shown from the beginning.
    pub(super) steps: Vec<Step>,
}

impl Record {
    /// Returns the object that is shown at the time `now`.
    pub(super) fn at(&self, now: Instant) -> Bytes {
        let current = self.steps.iter().rev().find(|step| step.from <= now).or(self.steps.first());
        current.map(|step| step.object.clone()).unwrap_or_default()
    }
}

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) objects: Vec<Bytes>,
    /// The id of the last item on the page, if more items follow; else `None`.
    pub(super) next: Option<String>,
}

/// All records.
#[derive(Debug)]
pub(super) struct Records {
    max: usize,
    next: u64,
    by_number: BTreeMap<u64, Record>,
    by_id: HashMap<String, u64>,
    by_reference: BTreeSet<(Arc<str>, Kind, String, u64)>,
}

/// The records of one account and one kind that have one reference.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) owner: &'a Arc<str>,
    pub(super) kind: Kind,
    pub(super) reference: &'a str,
}

impl Records {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            next: 0,
            by_number: BTreeMap::new(),
            by_id: HashMap::new(),
            by_reference: BTreeSet::new(),
        }
    }

    pub(super) fn insert(&mut self, record: Record) {
        let number = self.next;
        self.next += 1;
        if let Some(reference) = &record.reference {
            self.by_reference.insert((Arc::clone(&record.owner), record.kind, reference.clone(), number));
        }
        self.by_id.insert(record.id.clone(), number);
        self.by_number.insert(number, record);
        if self.by_number.len() > self.max
            && let Some((number, old)) = self.by_number.pop_first()
        {
            self.by_id.remove(&old.id);
            if let Some(reference) = old.reference {
                self.by_reference.remove(&(old.owner, old.kind, reference, number));
            }
        }
    }

    pub(super) fn find(&self, owner: &str, kind: Kind, id: &str) -> Option<&Record> {
        self.by_number.get(self.by_id.get(id)?).filter(|record| *record.owner == *owner && record.kind == kind)
    }

    pub(super) fn find_mut(&mut self, owner: &str, kind: Kind, id: &str) -> Option<&mut Record> {
        self.by_number.get_mut(self.by_id.get(id)?).filter(|record| *record.owner == *owner && record.kind == kind)
    }

    /// Returns a page of a list, oldest first. It begins after the record with the id `after`, or with the first
    /// record. Returns `None` if the list has no record with the id `after`.
    pub(super) fn page(&self, list: &List<'_>, after: Option<&str>, limit: usize, now: Instant) -> Option<Page> {
        let List { owner, kind, reference } = *list;
        let first = match after {
            Some(id) => {
                let record = self.find(owner, kind, id)?;
                if record.reference.as_deref() != Some(reference) {
                    return None;
                }
                self.by_id.get(id)? + 1
            }
            None => 0,
        };
        let bound = |number| (Arc::clone(owner), kind, reference.to_owned(), number);
        let mut rows = self
            .by_reference
            .range(bound(first)..=bound(u64::MAX))
            .filter_map(|(_, _, _, number)| self.by_number.get(number))
            .take(limit + 1);
        let shown: Vec<&Record> = rows.by_ref().take(limit).collect();
        let next = rows.next().and(shown.last()).map(|record| record.id.clone());
        Some(Page { objects: shown.iter().map(|record| record.at(now)).collect(), next })
    }

    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::new(self.max) };
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::now;
    use super::*;
    use std::time::Duration;

    fn record(id: &str, reference: Option<&str>) -> Record {
        let step = Step { from: now(), object: Bytes::from(id.to_owned()) };
        Record {
            id: id.into(),
            owner: "a".into(),
            kind: Kind::Ocr,
            reference: reference.map(Into::into),
            steps: vec![step],
        }
    }

    #[test]
    fn a_record_shows_the_step_of_the_time() {
        let start = now();
        let mut record = record("first", None);
        record.steps.push(Step { from: start + Duration::from_secs(5), object: "second".into() });
        assert_eq!(record.at(start), "first");
        assert_eq!(record.at(start + Duration::from_secs(5)), "second");
    }

    #[test]
    fn the_oldest_go_first_and_leave_nothing_behind() {
        let mut records = Records::new(2);
        for id in ["1", "2", "3"] {
            records.insert(record(id, Some("r")));
        }
        assert!(records.find("a", Kind::Ocr, "1").is_none());
        assert!(records.find("a", Kind::Ocr, "3").is_some());
        assert!(records.find("b", Kind::Ocr, "3").is_none());
        assert!(records.find("a", Kind::Bank, "3").is_none());
        assert_eq!((records.len(), records.by_id.len(), records.by_reference.len()), (2, 2, 2));
    }

    #[test]
    fn pages_follow_each_other() {
        let mut records = Records::new(10);
        for id in ["1", "2", "3"] {
            records.insert(record(id, Some("r")));
            records.insert(record(&format!("x{id}"), Some("rr")));
        }
        let owner: Arc<str> = "a".into();
        let list = List { owner: &owner, kind: Kind::Ocr, reference: "r" };
        let page = |after, limit| records.page(&list, after, limit, now());
        assert_eq!(page(None, 2), Some(Page { objects: vec!["1".into(), "2".into()], next: Some("2".into()) }));
        assert_eq!(page(Some("2"), 2), Some(Page { objects: vec!["3".into()], next: None }));
        assert_eq!(page(None, 3).unwrap().next, None);
        assert_eq!(page(Some("x1"), 2), None);
        let others = List { owner: &"b".into(), ..list };
        assert!(records.page(&others, None, 2, now()).unwrap().objects.is_empty());
    }
}
