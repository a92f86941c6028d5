//! Finds the places at which a text quotes a prefixed reference, in clear or escaped.
//!
//! Invariant: the time is linear in the length of the text plus the length of the reference, even if both are
//! repetitive.

use crate::base::unescape::{Unit, readings, units};
use std::ops::Range;

/// A quoted reference in a text: the position of its prefix, and the end of the whole quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) prefix: Range<usize>,
    pub(super) end: usize,
}

/// The prefixed reference that is searched for.
pub(super) struct Needle {
    bytes: Vec<u8>,
    /// The length of the prefix with its colon.
    prefix: usize,
    /// The failure function of the algorithm of Knuth, Morris and Pratt. For each beginning of the needle, it has the
    /// length of the longest shorter text with which this beginning both starts and ends.
    borders: Vec<usize>,
}

impl Needle {
    /// Returns the needle for the team `name` and a reference that is not empty.
    pub(super) fn new(name: &str, reference: &str) -> Self {
        let bytes = [name, ":", reference].concat().into_bytes();
        let mut borders = vec![0; bytes.len()];
        let mut length = 0;
        for at in 1..bytes.len() {
            while length > 0 && bytes[at] != bytes[length] {
                length = borders[length - 1];
            }
            length += usize::from(bytes[at] == bytes[length]);
            borders[at] = length;
        }
        Self { bytes, prefix: name.len() + 1, borders }
    }

    /// Returns all quotes of the prefixed reference in the text: in clear, JSON-escaped, percent-encoded, or
    /// percent-encoded within JSON.
    pub(super) fn quotes(&self, text: &[u8]) -> Vec<Quote> {
        let mut quotes = Vec::new();
        for reading in readings(text, self.bytes.contains(&b' ')) {
            self.search(units(text, reading), text.len(), &mut quotes);
        }
        quotes
    }

    fn search(&self, units: impl Iterator<Item = Unit>, end: usize, quotes: &mut Vec<Quote>) {
        let length = self.bytes.len();
        // The positions of the units that a match may cover.
        let mut places = vec![0; length];
        let mut matched = 0;
        // A quote ends at the start of the next unit.
        let mut open: Option<Range<usize>> = None;
        for (count, (byte, place)) in units.enumerate() {
            quotes.extend(open.take().map(|prefix| Quote { prefix, end: place }));
            places[count % length] = place;
            while matched > 0 && (matched == length || self.bytes[matched] != byte) {
                matched = self.borders[matched - 1];
            }
            matched += usize::from(self.bytes[matched] == byte);
            if matched == length {
                let first = count + 1 - length;
                open = Some(places[first % length]..places[(first + self.prefix) % length]);
            }
        }
        quotes.extend(open.map(|prefix| Quote { prefix, end }));
    }
}

/// Returns the position after the colon at `at`, which may be in clear or escaped. Returns `None` if no colon is at
/// `at`.
pub(super) fn colon(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let spelled = |spelling: &[u8]| {
        rest.get(..spelling.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(spelling)).then_some(spelling.len())
    };
    // JSON has no escape `\U`.
    let json = rest.starts_with(b"\\u").then(|| spelled(b"\\u003a")).flatten();
    spelled(b":").or(json).or_else(|| spelled(b"\\:")).or_else(|| spelled(b"%3a")).map(|length| at + length)
}

/// Returns true if a name may begin at `at`. Returns false if `at` is within a longer name or within an escape.
pub(super) fn begins_word(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    let escape = |length: usize| {
        // A backslash begins an escape unless it is escaped itself.
        let signs = before[..at - length].iter().rev().take_while(|b| **b == b'\\').count();
        signs % 2 == 1
    };
    let hexadecimal = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
    match before {
        [.., b'\\'] => !escape(0),
        [.., b'%'] => !text.get(at..at + 2).is_some_and(hexadecimal),
        [.., b'%', a, b] if hexadecimal(&[*a, *b]) => true,
        [.., b'u', a, b, c, d] if hexadecimal(&[*a, *b, *c, *d]) && escape(5) => true,
        [.., b'b' | b'f' | b'n' | b'r' | b't'] if escape(1) => true,
        [.., last] => !(last.is_ascii_alphanumeric() || matches!(last, b'-' | b'_')),
        [] => true,
    }
}

/// Returns true if the value of a parameter `reference_id` begins at `at`.
pub(super) fn is_parameter(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    before.ends_with(b"reference_id=") || before.ends_with(b"reference_id%3D")
}

/// Returns true if the text from `at` to `end` has a quotation mark, a bracket or a similar sign directly on each side.
pub(super) fn is_alone(text: &[u8], at: usize, end: usize) -> bool {
    let opens = text[..at].last().is_some_and(|b| b"\"'`=([<".contains(b));
    let closes = text.get(end).is_some_and(|b| b"\"'`\\&)]>".contains(b));
    opens && closes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the start and the end of each prefix that `text` has in front of the reference.
    fn found(reference: &str, text: &str) -> Vec<(usize, usize)> {
        let quotes = Needle::new("a", reference).quotes(text.as_bytes());
        let mut found: Vec<_> = quotes.into_iter().map(|quote| (quote.prefix.start, quote.prefix.end)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn quotes_are_found_in_clear_and_behind_escapes() {
        for (reference, text, expected) in [
            ("x", "a:x a:y a:x", &[(0, 2), (8, 10)][..]),
            ("a:x", "a:a:a:x", &[(2, 4)]),
            ("é", r"a\u003a\u00e9 a:é", &[(0, 7), (14, 16)]),
            ("😀", r"a:\ud83d\ude00", &[(0, 2)]),
            ("b c", "a%3Ab+c a:b%20c a:b c", &[(0, 4), (8, 10), (16, 18)]),
            ("b&c", r"?a%3Ab%26c\u0026a:b\u0026c", &[(1, 5), (16, 18)]),
            ("%41", "a:%41 a:%2541", &[(0, 2), (6, 8)]),
            ("a:a:", "a:a:a:a:a:", &[(0, 2), (2, 4), (4, 6)]),
        ] {
            assert_eq!(found(reference, text), expected, "{text}");
        }
    }

    #[test]
    fn a_colon_is_read_in_every_spelling() {
        for text in [":", r"\u003a", r"\u003A", "%3A", "%3a", r"\:"] {
            assert_eq!(colon(text.as_bytes(), 0), Some(text.len()), "{text}");
        }
        for text in ["", ";", r"\U003a", r"\u003", "%3"] {
            assert_eq!(colon(text.as_bytes(), 0), None, "{text}");
        }
    }
}
