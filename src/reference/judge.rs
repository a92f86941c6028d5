//! Judges references that pass without our own prefix: none may begin with another team's.
//!
//! Invariants: at most [`LARGEST_RAW`] bytes are held; the time is linear in what was fed, in whatever pieces it comes.

use super::body::BodyError;
use super::prefix::{LARGEST_REFERENCE, ReferencePrefix, ReferencePrefixes};

/// The part of a name, or of a reference, in which its meaning must show: the longest prefix with each letter escaped fits
/// in several times.
pub(super) const BEGINNING: usize = 1 << 10;

/// The longest reference in any spelling: an escape of JSON has six bytes for one.
const LARGEST_RAW: usize = 6 * LARGEST_REFERENCE;

/// Undoes the escapes of a text as tolerantly as any server does.
pub(super) type Decode = fn(&[u8]) -> String;

/// The judge of one request, and the name or reference that is under way.
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

    /// Takes the next byte of a name. Returns false if the name is longer than is held; the byte is then dropped.
    pub(super) fn name_byte(&mut self, byte: u8) -> bool {
        let fits = self.text.len() < BEGINNING;
        if fits {
            self.text.push(byte);
        }
        fits
    }

    /// Returns the name as far as it is held.
    pub(super) fn name(&self) -> String {
        (self.decode)(&self.text)
    }

    /// Forgets the name or reference.
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
            // Its beginning is judged already.
            return Ok(());
        }
        let beginning = (self.decode)(&self.text);
        let trimmed = beginning.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
        // A kilobyte of spaces, and then what may become a name.
        if trimmed.len() <= 32 && !trimmed.contains(':') {
            return Err(BodyError::Reference);
        }
        self.judge(&beginning)
    }

    /// Judges a reference at the end of a piece, which may be its own end.
    pub(super) fn so_far(&self) -> Result<(), BodyError> {
        if self.text.len() < BEGINNING { self.judge(&(self.decode)(&self.text)) } else { Ok(()) }
    }

    /// Judges a reference that is complete.
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
