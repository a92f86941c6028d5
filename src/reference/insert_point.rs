//! The position in a body or a query at which the prefix is inserted.

use super::prefix::ReferencePrefix;
use crate::base::json_template::{Absent, join};
use bytes::Bytes;
use std::ops::Range;

/// The position in a body or a query at which the prefix is inserted.
#[derive(Debug, Clone)]
pub(super) struct InsertPoint {
    whole: Bytes,
    /// The range of bytes that the prefix replaces. It is empty unless the reference is a `null` in JSON.
    cut: Range<usize>,
    /// The text that is inserted before the team's name.
    open: &'static str,
    /// The text that is inserted after the team's name.
    close: &'static str,
    /// True if the caller gave a reference.
    given: bool,
}

impl InsertPoint {
    /// Returns the insert point before the caller's reference, which begins at `at`. `open` and `close` are inserted
    /// before and after the team's name.
    pub(super) fn given(whole: &Bytes, at: usize, open: &'static str, close: &'static str) -> Self {
        Self { whole: whole.clone(), cut: at..at, open, close, given: true }
    }

    /// Returns the insert point for a missing reference. The prefix replaces the bytes `cut`. `open` and `close` are
    /// inserted before and after the team's name.
    pub(super) fn absent(whole: &Bytes, cut: Range<usize>, open: &'static str, close: &'static str) -> Self {
        Self { whole: whole.clone(), cut, open, close, given: false }
    }

    /// Returns the body or the query without the prefix.
    pub(super) const fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// Returns the body or the query with the prefix. If the caller gave no reference, `absent` decides whether the
    /// bare prefix is inserted.
    pub(super) fn prefixed(&self, prefix: &ReferencePrefix, absent: Absent) -> Bytes {
        if !self.given && absent == Absent::Leave {
            return self.whole.clone();
        }
        let (before, behind) = (&self.whole[..self.cut.start], &self.whole[self.cut.end..]);
        join(&[before, self.open.as_bytes(), prefix.name().as_bytes(), self.close.as_bytes(), behind])
    }
}
