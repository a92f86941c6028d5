//! The hash of the parts of a multipart body: names, file names, content types and bytes, in order.
//!
//! Invariant: two bodies have the same hash if they have the same parts. Boundaries, other header fields of the parts,
//! and the pieces in which a body arrived make no difference.

use super::parameters::parameters;
use super::part_head::lines;
use sha2::{Digest as _, Sha256};

/// The largest value, in bytes, that is kept as a field. Names and identity numbers are shorter.
const LARGEST_FIELD: usize = 4 << 10;

/// The hash of all parts, and the fields as pairs of name and value. A field is a part without a file name, whose value
/// is UTF-8 and has at most [`LARGEST_FIELD`] bytes.
pub(super) type Hashed = ([u8; 32], Vec<(String, String)>);

/// The hash and the fields of the parts that have arrived.
#[derive(Default)]
pub(super) struct PartsHash {
    whole: Sha256,
    part: Option<Part>,
    fields: Vec<(String, String)>,
}

/// The part whose bytes are arriving.
struct Part {
    hash: Sha256,
    /// The name of the part; `None` for a file, and once the value exceeds [`LARGEST_FIELD`].
    field: Option<String>,
    value: Vec<u8>,
}

/// The values of a part's head that go into the hash: name, file name and content type.
#[derive(Default)]
struct Identity<'a> {
    name: Option<&'a [u8]>,
    file: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Identity<'a> {
    /// Reads the head of a part. The caller has checked that the head is well-formed.
    fn of(head: &'a [u8]) -> Self {
        let mut identity = Self::default();
        for line in lines(head) {
            let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-type") {
                identity.kind = Some(value);
            } else if name.eq_ignore_ascii_case(b"content-disposition") {
                let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
                for parameter in parameters(&value[end..]).unwrap_or_default() {
                    match parameter.name.to_ascii_lowercase().as_slice() {
                        b"name" => identity.name = Some(parameter.value),
                        b"filename" => identity.file = Some(parameter.value),
                        b"filename*" => identity.file = identity.file.or(Some(parameter.value)),
                        _ => {}
                    }
                }
            }
        }
        identity
    }
}

impl PartsHash {
    /// Begins the part that has this head.
    pub(super) fn begin(&mut self, head: &[u8]) {
        let Identity { name, file, kind } = Identity::of(head);
        for fact in [name, file, kind] {
            self.whole.update([u8::from(fact.is_some())]);
            self.whole.update((fact.unwrap_or_default().len() as u64).to_be_bytes());
            self.whole.update(fact.unwrap_or_default());
        }
        let field = name.filter(|_| file.is_none()).map(|name| String::from_utf8_lossy(name).into_owned());
        self.part = Some(Part { hash: Sha256::new(), field, value: Vec::new() });
    }

    /// Takes the next bytes of the part.
    pub(super) fn data(&mut self, data: &[u8]) {
        let Some(part) = &mut self.part else { return };
        part.hash.update(data);
        if part.value.len() + data.len() > LARGEST_FIELD {
            part.field = None;
        } else if part.field.is_some() {
            part.value.extend_from_slice(data);
        }
    }

    /// Ends the part.
    pub(super) fn end(&mut self) {
        let Some(part) = self.part.take() else { return };
        self.whole.update(part.hash.finalize());
        if let (Some(name), Ok(value)) = (part.field, String::from_utf8(part.value)) {
            self.fields.push((name, value));
        }
    }

    /// Returns the hash of all parts, and the [fields](Hashed).
    pub(super) fn finish(self) -> Hashed {
        (self.whole.finalize().into(), self.fields)
    }
}
