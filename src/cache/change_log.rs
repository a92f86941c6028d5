//! The form of changes and epochs in Redis. All functions are pure.

use super::epoch::{Change, Table};
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use std::collections::BTreeMap;

/// The prefix of a field's name, if the field holds the epoch of a tenant. No subject's name contains a colon, so a
/// tenant's field never has the same name as a subject's field.
pub(super) const TENANT: &str = "tenant:";
/// The name of the field that holds the era: a random id, which is made again after Redis has lost all its data.
pub(super) const ERA: &str = "era";

/// Returns the number of the newest change that is missing from `changes`. `number` is the number of the newest change
/// of all. `changes` has pairs of an entry and its number, in ascending order. For the numbers 7, 8 and 9 and a
/// `number` of 9, the result is 6.
pub(super) fn unknown_to(number: u64, changes: &[(Vec<u8>, u64)]) -> u64 {
    changes.iter().rev().fold(number, |first, (_, at)| if *at == first { at.saturating_sub(1) } else { first })
}

/// Reads the epochs from the fields that hold them. Returns `None` if the era or a subject's epoch is missing, or if
/// any field is damaged.
pub(super) fn read_epochs(fields: &BTreeMap<String, Vec<u8>>) -> Option<Table> {
    let mut table = Table::random();
    table.era = fields.get(ERA)?.as_slice().try_into().ok()?;
    for subject in Subject::ALL {
        table.subjects[subject as usize] = fields.get(subject.as_str())?.as_slice().try_into().ok()?;
    }
    for (name, epoch) in fields {
        if let Some(tenant) = name.strip_prefix(TENANT) {
            table.tenants.insert(tenant.parse().ok()?, epoch.as_slice().try_into().ok()?);
        }
    }
    Some(table)
}

/// An entry of the list of changes in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Logged {
    /// Each node applies the change.
    Change(Change),
    /// Each node counts the entries in its memory that the change would remove.
    Count(Change),
}

/// Returns the bytes of an entry without its number. The script that appends the entry puts the number and a colon in
/// front.
pub(super) fn write(entry: &Logged) -> Vec<u8> {
    match entry {
        Logged::Change(change) => write_change(change),
        Logged::Count(change) => [b"c".as_slice(), &write_change(change)].concat(),
    }
}

fn write_change(change: &Change) -> Vec<u8> {
    match change {
        Change::Subject(subject) => format!("s{}", subject.as_str()).into_bytes(),
        Change::Tenant(tenant) => format!("t{tenant}").into_bytes(),
        Change::All => b"a".to_vec(),
        Change::Registry => b"k".to_vec(),
        Change::Erased(tags) => {
            let mut entry = b"e".to_vec();
            tags.iter().for_each(|tag| entry.extend_from_slice(tag.bytes()));
            entry
        }
    }
}

/// Reads an entry of the list: a number, a colon, and a change or a count. Returns `None` for a damaged entry, and for
/// an entry of a later version that this version does not know.
pub(super) fn read(entry: &[u8]) -> Option<Logged> {
    let colon = entry.iter().position(|b| *b == b':')?;
    let entry = entry.get(colon + 1..)?;
    match entry.strip_prefix(b"c") {
        Some(change) => read_change(change).map(Logged::Count),
        None => read_change(entry).map(Logged::Change),
    }
}

fn read_change(change: &[u8]) -> Option<Change> {
    let (kind, rest) = change.split_first()?;
    let text = || std::str::from_utf8(rest).ok();
    match kind {
        b's' => Subject::ALL.into_iter().find(|subject| Some(subject.as_str()) == text()).map(Change::Subject),
        b't' => text()?.parse::<TenantName>().ok().map(Change::Tenant),
        b'a' => Some(Change::All),
        b'k' => Some(Change::Registry),
        b'e' => rest.chunks(16).map(Tag::from_bytes).collect::<Option<_>>().map(Change::Erased),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_a_list_does_not_hold_is_not_known() {
        let list = |numbers: &[u64]| numbers.iter().map(|number| (Vec::new(), *number)).collect::<Vec<_>>();
        // Nothing has changed since the first number, or the list is lost: entries from that number on are valid.
        assert_eq!(unknown_to(9, &list(&[])), 9);
        assert_eq!(unknown_to(9, &list(&[7, 8, 9])), 6);
        assert_eq!(unknown_to(9, &list(&[3, 4, 8, 9])), 7, "a gap");
        assert_eq!(unknown_to(9, &list(&[7, 8])), 9, "the last is missing");
        assert_eq!(unknown_to(1, &list(&[1])), 0);
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let tag = |seed| Tag::from_bytes(&[seed; 16]).unwrap();
        for change in [
            Change::Subject(Subject::Cft),
            Change::Tenant("lending".parse().unwrap()),
            Change::All,
            Change::Registry,
            Change::Erased(BTreeSet::from([tag(b':'), tag(2)])),
        ] {
            for entry in [Logged::Change(change.clone()), Logged::Count(change)] {
                let written = [&b"17:"[..], &write(&entry)].concat();
                assert_eq!(read(&written), Some(entry));
            }
        }
        for bad in [&b""[..], b"17", b"17:", b"17:x", b"17:snothing", b"17:eshort"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
