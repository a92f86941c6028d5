//! The head of a part of a multipart body.

use super::body::BodyError;
use super::name::{Named, REFERENCE, named};
use super::parameters::{Parameter, is_token, parameters, starts_with_ignoring_case};
use memchr::memmem;
use percent_encoding::percent_decode;
use std::ops::Range;

/// The contents of a part's head that the gateway uses.
#[derive(Default)]
pub(super) struct Head {
    pub(super) is_reference: bool,
    /// The position of the value of `content-length` in the head. `None` if the head has no such field, or if the part
    /// is not the reference.
    pub(super) length: Option<Range<usize>>,
    /// True if the reference must be ASCII, because its charset equals UTF-8 only for ASCII characters.
    pub(super) must_be_ascii: bool,
}

impl Head {
    /// Parses the head of a part. `text` ends before the empty line.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BodyError> {
        let (mut disposition, mut kind, mut encoding, mut length) = (None, None, None, None);
        let mut start = 0;
        for line in lines(text) {
            // A line with a bare line end, NUL or another control character is malformed. So is a line that begins with
            // a space: it continues the previous line, and has no name.
            if line.iter().any(|b| (b.is_ascii_control() && *b != b'\t') || *b == 0x7f) {
                return Err(BodyError::Malformed);
            }
            let colon = line.iter().position(|b| *b == b':').ok_or(BodyError::Malformed)?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() || !name.iter().copied().all(is_token) {
                return Err(BodyError::Malformed);
            }
            let lead = value.len() - value.trim_ascii_start().len();
            let value = value.trim_ascii();
            let field = Some((value, start + colon + 1 + lead));
            let twice = if name.eq_ignore_ascii_case(b"content-disposition") {
                disposition.replace(field).is_some()
            } else if name.eq_ignore_ascii_case(b"content-type") {
                kind.replace(field).is_some()
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
                encoding.replace(field).is_some()
            } else if name.eq_ignore_ascii_case(b"content-length") {
                length.replace(field).is_some()
            } else {
                false
            };
            if twice {
                return Err(BodyError::Malformed);
            }
            start += line.len() + 2;
        }
        let kind = kind.flatten().map(|(value, _)| value);
        // Parts within a part (RFC 7578, section 4.3, deprecates them) could name the reference too.
        if kind.is_some_and(|kind| starts_with_ignoring_case(kind, b"multipart/")) {
            return Err(BodyError::Malformed);
        }
        let (disposition, _) = disposition.flatten().ok_or(BodyError::Malformed)?;
        let disposition = Disposition::parse(disposition)?;
        if !disposition.is_reference {
            return Ok(Self::default());
        }
        let plain =
            |encoding: &[u8]| [&b"7bit"[..], b"8bit", b"binary"].iter().any(|p| encoding.eq_ignore_ascii_case(p));
        if !disposition.alone || encoding.flatten().is_some_and(|(encoding, _)| !plain(encoding)) {
            return Err(BodyError::Reference);
        }
        let must_be_ascii = match kind.map(is_utf8) {
            None | Some(Some(true)) => false,
            Some(Some(false)) => true,
            Some(None) => return Err(BodyError::Reference),
        };
        let length = match length.flatten() {
            Some((digits, at)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                Some(at..at + digits.len())
            }
            Some(_) => return Err(BodyError::Reference),
            None => None,
        };
        Ok(Self { is_reference: true, length, must_be_ascii })
    }
}

/// Splits a head into lines. Only CRLF ends a line.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memmem::find(text, b"\r\n");
        rest = end.map(|end| &text[end + 2..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Returns true if the text of a part of this type is UTF-8, and false if its charset agrees with UTF-8 only for ASCII
/// characters. Returns `None` for another charset, for malformed parameters, or for a type that some servers read as a
/// file. JSON is accepted, because some clients label every text part as JSON.
fn is_utf8(kind: &[u8]) -> Option<bool> {
    let end = kind.iter().position(|b| *b == b';').unwrap_or(kind.len());
    let essence = kind[..end].trim_ascii();
    if !essence.eq_ignore_ascii_case(b"text/plain") && !essence.eq_ignore_ascii_case(b"application/json") {
        return None;
    }
    let mut utf8 = true;
    for Parameter { name, value } in parameters(&kind[end..])? {
        if name.eq_ignore_ascii_case(b"charset") {
            utf8 &= value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"utf8");
            if !is_like_ascii(value) {
                return None;
            }
        }
    }
    Some(utf8)
}

/// Returns true for a known charset in which ASCII characters have the same bytes as in ASCII.
pub(super) fn is_like_ascii(charset: &[u8]) -> bool {
    let known: [&[u8]; 6] = [b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"windows-1252"];
    known.iter().any(|known| charset.eq_ignore_ascii_case(known))
}

/// The content disposition of a part.
struct Disposition {
    is_reference: bool,
    /// True if the disposition has no parameter except `name`.
    alone: bool,
}

impl Disposition {
    fn parse(value: &[u8]) -> Result<Self, BodyError> {
        let end = value.iter().position(|b| *b == b';').ok_or(BodyError::Malformed)?;
        if !value[..end].trim_ascii().eq_ignore_ascii_case(b"form-data") {
            return Err(BodyError::Malformed);
        }
        let parameters = parameters(&value[end..]).ok_or(BodyError::Malformed)?;
        // The name must come first: a parser that searches for `name=` without reading the rest must find the same
        // name.
        let (first, others) = parameters.split_first().ok_or(BodyError::Malformed)?;
        if !first.name.eq_ignore_ascii_case(b"name") {
            return Err(BodyError::Malformed);
        }
        let name = std::str::from_utf8(first.value).map_err(|_| BodyError::Malformed)?;
        // Some parsers decode escapes and encoded words (RFC 2047).
        if name.contains('\\') || name.contains("=?") {
            return Err(BodyError::Malformed);
        }
        let is_reference = match (named(name), named(&percent_decode(name.as_bytes()).decode_utf8_lossy())) {
            (Named::Reference, _) => true,
            (Named::Ambiguous, _) | (_, Named::Reference | Named::Ambiguous) => return Err(BodyError::Reference),
            (Named::Other, Named::Other) => false,
        };
        // The value of this part is the charset of all other parts (RFC 7578, section 4.6).
        if name.eq_ignore_ascii_case("_charset_") {
            return Err(BodyError::Malformed);
        }
        for (index, parameter) in others.iter().enumerate() {
            let same = |other: &Parameter<'_>| other.name.eq_ignore_ascii_case(parameter.name);
            if same(first)
                || starts_with_ignoring_case(parameter.name, b"name*")
                || others[..index].iter().any(same)
                || hides_reference(parameter.value)
            {
                return Err(BodyError::Malformed);
            }
        }
        Ok(Self { is_reference, alone: others.is_empty() })
    }
}

/// Returns true if a parser may find a parameter named like the reference in `value`. Some parsers split at every
/// semicolon, even between quotes.
fn hides_reference(value: &[u8]) -> bool {
    value.contains(&b'=') && memmem::find(&value.to_ascii_lowercase(), REFERENCE.as_bytes()).is_some()
}
