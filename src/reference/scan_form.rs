//! Scans a form or a query for another team's prefix.

use super::body::BodyError;
use super::judge::Judge;
use super::name::{Named, named, named_so_far};
use super::prefix::LARGEST_REFERENCE;

/// The position of the next byte in a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    /// The next byte may begin the first name of a body. A body that is JSON is recognised here.
    Start,
    Name,
    /// The next byte is in the value of the reference. `length` is the decoded length of the value so far. `digits` is
    /// the number of hexadecimal digits that the current escape still needs.
    Reference {
        length: usize,
        digits: u8,
    },
    Skipped,
}

/// Reads a form or a query byte by byte.
pub(super) struct FormReader {
    state: ScanState,
}

impl FormReader {
    /// Returns a reader for a body.
    pub(super) const fn body() -> Self {
        Self { state: ScanState::Start }
    }

    /// Returns a reader for a query.
    pub(super) const fn query() -> Self {
        Self { state: ScanState::Name }
    }

    pub(super) fn feed(&mut self, data: &[u8], judge: &mut Judge) -> Result<(), BodyError> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            // Files in base64 are long, so the end of a skipped value is searched for.
            let skipped = if self.state == ScanState::Skipped {
                memchr::memchr2(b'&', b';', rest).unwrap_or(rest.len())
            } else {
                0
            };
            if let Some(byte) = rest.get(skipped) {
                self.byte(*byte, judge)?;
            }
            at += skipped + 1;
        }
        // The body may end after this piece, and a server may accept the incomplete reference. So the received part of
        // the reference is checked before it passes.
        if matches!(self.state, ScanState::Reference { .. }) { judge.so_far() } else { Ok(()) }
    }

    fn byte(&mut self, byte: u8, judge: &mut Judge) -> Result<(), BodyError> {
        self.state = match (self.state, byte) {
            (ScanState::Start, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf) => ScanState::Start,
            (ScanState::Start, b'{') => return Err(BodyError::Mistyped),
            // Some servers read a semicolon as a separator too.
            (ScanState::Start | ScanState::Name | ScanState::Skipped, b'&' | b';') => {
                judge.clear();
                ScanState::Name
            }
            (ScanState::Start | ScanState::Name, b'=') => {
                let other = named(&judge.name()) == Named::Other;
                judge.clear();
                if other { ScanState::Skipped } else { ScanState::Reference { length: 0, digits: 0 } }
            }
            (ScanState::Start | ScanState::Name, _) if judge.name_byte(byte) => ScanState::Name,
            (ScanState::Start | ScanState::Name, _) => {
                // A file that is declared as a form looks like one long name, and is skipped. A name that may still
                // become the reference's name is refused. A name that ends with an incomplete escape is refused too,
                // because the letter of the escape is unknown.
                let name = judge.name();
                let end = name.len() - name.len().min(2);
                if name.as_bytes()[end..].contains(&b'%') || named_so_far(&name) != Named::Other {
                    return Err(BodyError::Malformed);
                }
                judge.clear();
                ScanState::Skipped
            }
            (ScanState::Reference { .. }, b'&' | b';') => {
                judge.end_of_reference()?;
                ScanState::Name
            }
            (ScanState::Reference { length, digits }, _) => {
                judge.reference_byte(byte)?;
                match digits {
                    0 if length == LARGEST_REFERENCE => return Err(BodyError::Reference),
                    0 => ScanState::Reference { length: length + 1, digits: if byte == b'%' { 2 } else { 0 } },
                    _ => ScanState::Reference { length, digits: digits - 1 },
                }
            }
            (ScanState::Skipped, _) => ScanState::Skipped,
        };
        Ok(())
    }
}
