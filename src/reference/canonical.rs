//! The canonical encoding: all requests with the same meaning have the same encoding.
//!
//! `json.rs` and `form.rs` choose the members, and read their values.

use std::borrow::Cow;

/// The maker of the canonical encoding of members. In it, members are sorted by name, and a length precedes each name
/// and each value.
pub(super) struct Canonical<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// A value: its type and its decoded bytes, which are borrowed from the body where possible.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value<'a>(pub(super) Tag, pub(super) Cow<'a, [u8]>);

/// The type of a value, which precedes its bytes so that `"1"` differs from `1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Tag {
    Array = b'a',
    Literal = b'l',
    Number = b'n',
    Object = b'o',
    String = b's',
}

impl<'a> Canonical<'a> {
    pub(super) fn new() -> Self {
        // A request has two to four members.
        Self { members: Vec::with_capacity(8) }
    }

    pub(super) fn push(&mut self, name: Cow<'a, str>, value: Value<'a>) {
        self.members.push((name, value));
    }

    /// Returns the encoding, and true if a name is given twice.
    pub(super) fn finish(mut self) -> (Vec<u8>, bool) {
        self.members.sort_unstable();
        let duplicate = self.members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let size = self.members.iter().map(|(name, value)| name.len() + value.1.len() + 9).sum();
        let mut encoded = Vec::with_capacity(size);
        for (name, value) in &self.members {
            put(&mut encoded, name.as_bytes());
            value.put(&mut encoded);
        }
        (encoded, duplicate)
    }
}

impl Value<'_> {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0 as u8);
        put(out, &self.1);
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // A request is at most 1 MiB, so the lengths of its parts fit.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}
