//! Checks references to which no prefix is added. No such reference may begin with another team's prefix.
//!
//! Invariants: at most [`LARGEST_RAW`] bytes are held; the time is linear in the length of the input, for pieces of any
//! size.

use super::body::BodyError;
use super::prefix::{LARGEST_REFERENCE, ReferencePrefix, ReferencePrefixes};

/// The number of bytes, before decoding, by which a longer name or reference is checked. The longest prefix fits into
/// them several times, even if each letter is escaped.
pub(super) const BEGINNING: usize = 1 << 10;

/// The longest reference in bytes, before decoding. In JSON, one byte may be escaped as six bytes.
const LARGEST_RAW: usize = 6 * LARGEST_REFERENCE;

/// A function that decodes the escapes of a text as the most tolerant servers do.
pub(super) type Decode = fn(&[u8]) -> String;

/// The checker of the references of one request. It holds the bytes of the name or the reference that is arriving.
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

    /// Takes the next byte of a name. Returns false, and drops the byte, if the name has [`BEGINNING`] bytes already.
    pub(super) fn name_byte(&mut self, byte: u8) -> bool {
        let fits = self.text.len() < BEGINNING;
        if fits {
            self.text.push(byte);
        }
        fits
    }

    /// Returns the received part of the name, decoded. It has at most [`BEGINNING`] bytes before decoding.
    pub(super) fn name(&self) -> String {
        (self.decode)(&self.text)
    }

    /// Discards the bytes of the name or the reference.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    /// Takes the next byte of a reference. When [`BEGINNING`] bytes have arrived, checks this beginning of the
    /// reference.
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
        // After a kilobyte of spaces a prefix may still follow, which would not be checked.
        if trimmed.len() <= 32 && !trimmed.contains(':') {
            return Err(BodyError::Reference);
        }
        self.judge(&beginning)
    }

    /// Checks the received part of a reference at the end of a piece, because the body may end there.
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
