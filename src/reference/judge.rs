//! Checks references to which no prefix is added: none may begin with another team's prefix.
//!
//! Invariants: at most [`LARGEST_RAW`] bytes are held; the time is linear in the input, however it is cut into pieces.

use super::body::BodyError;
use super::prefix::{LARGEST_REFERENCE, ReferencePrefix, ReferencePrefixes};

/// The largest number of bytes of a name or a reference that are examined. The longest prefix fits several times, even
/// with each letter escaped.
pub(super) const BEGINNING: usize = 1 << 10;

/// The longest reference in any spelling: an escape of JSON has six bytes for one byte.
const LARGEST_RAW: usize = 6 * LARGEST_REFERENCE;

/// Decodes the escapes of a text like the most tolerant server.
pub(super) type Decode = fn(&[u8]) -> String;

/// The check of one request, with its current name or reference.
pub(super) struct Judge {
    own: ReferencePrefix,
    prefixes: ReferencePrefixes,
    text: Vec<u8>,
    decode: Decode,
}

impl Judge {
    pub(super) fn new(own: ReferencePrefix, prefixes: ReferencePrefixes, decode: Decode) -> Self {
        Self { own, prefixes, text: Vec::new(), decode }
    }

    /// Takes the next byte of a name. Returns false if the name exceeds the bound; the byte is dropped then.
    pub(super) fn name_byte(&mut self, byte: u8) -> bool {
        let fits = self.text.len() < BEGINNING;
        if fits {
            self.text.push(byte);
        }
        fits
    }

    /// Returns the held part of the name.
    pub(super) fn name(&self) -> String {
        (self.decode)(&self.text)
    }

    /// Discards the name or reference.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    /// Takes the next byte of a reference.
    pub(super) fn reference_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        self.text.push(byte);
        if self.text.len() > LARGEST_RAW {
            return Err(BodyError::Reference);
        }
        if self.text.len() < BEGINNING {
            return Ok(());
        }
        if self.text.len() > BEGINNING {
            // The beginning was checked before.
            return Ok(());
        }
        let beginning = (self.decode)(&self.text);
        let trimmed = beginning.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
        // After a kilobyte of spaces a name may still follow.
        if trimmed.len() <= 32 && !trimmed.contains(':') {
            return Err(BodyError::Reference);
        }
        self.judge(&beginning)
    }

    /// Checks a reference at the end of a piece, which may be the end of the reference.
    pub(super) fn so_far(&self) -> Result<(), BodyError> {
        if self.text.len() < BEGINNING { self.judge(&(self.decode)(&self.text)) } else { Ok(()) }
    }

    /// Checks a complete reference.
    pub(super) fn end_of_reference(&mut self) -> Result<(), BodyError> {
        let reference = (self.decode)(&std::mem::take(&mut self.text));
        if reference.len() > LARGEST_REFERENCE {
            return Err(BodyError::Reference);
        }
        self.judge(&reference)
    }

    fn judge(&self, reference: &str) -> Result<(), BodyError> {
        if self.prefixes.is_foreign(&self.own, reference) { Err(BodyError::Foreign) } else { Ok(()) }
    }
}
