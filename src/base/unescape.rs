//! Decodes the escapes of a text, and maps each decoded byte to its position in the text.
//!
//! Invariant: the time is linear in the length of the text.

use std::collections::VecDeque;

/// A byte of decoded text, and the position in the original text at which its byte or escape begins.
pub type Unit = (u8, usize);

/// The choice of the escapes that are decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Escapes {
    /// True to decode the escapes of JSON.
    pub json: bool,
    /// True to decode percent-encoding, after the escapes of JSON.
    pub percent: bool,
    /// True to decode a plus as a space, as in forms.
    pub plus: bool,
}

/// Returns the combinations of escapes that may have been used in the text. The first combination decodes nothing. If
/// `plus` is false, no combination decodes a plus as a space.
#[must_use]
pub fn readings(text: &[u8], plus: bool) -> Vec<Escapes> {
    let contains = |byte: u8| memchr::memchr(byte, text).is_some();
    let choices = |also: bool| if also { &[false, true][..] } else { &[false] };
    let mut readings = Vec::with_capacity(1);
    for json in choices(contains(b'\\')) {
        // An escape of JSON may encode the percent sign itself.
        for percent in choices(contains(b'%') || *json) {
            for plus in choices(plus && contains(b'+')) {
                readings.push(Escapes { json: *json, percent: *percent, plus: *plus });
            }
        }
    }
    readings
}

/// Returns the decoded bytes of a text, each with its position in the text.
pub fn units(text: &[u8], escapes: Escapes) -> impl Iterator<Item = Unit> {
    let json = Json { text, at: 0, undo: escapes.json, waiting: VecDeque::new() };
    Percent { json, ahead: VecDeque::new(), escapes }
}

/// Decodes the escapes of JSON.
struct Json<'a> {
    text: &'a [u8],
    at: usize,
    undo: bool,
    /// The bytes that are still to be returned of a character that was escaped.
    waiting: VecDeque<Unit>,
}

impl Iterator for Json<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        if let Some(unit) = self.waiting.pop_front() {
            return Some(unit);
        }
        let place = self.at;
        let byte = *self.text.get(place)?;
        if !self.undo || byte != b'\\' {
            self.at += 1;
            return Some((byte, place));
        }
        let (letter, length) = escape(&self.text[place..]);
        self.at += length;
        self.waiting.extend(letter.encode_utf8(&mut [0; 4]).bytes().map(|byte| (byte, place)));
        self.waiting.pop_front()
    }
}

/// Decodes the escape at the start of a text. Returns its character, and the length of the escape in bytes. For a
/// backslash that begins no escape, returns a backslash and 1.
fn escape(text: &[u8]) -> (char, usize) {
    let code = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
    };
    let letter = match text.get(1) {
        Some(b'u') => {
            let Some(first) = code(0) else { return ('\\', 1) };
            let pair = || match (first, code(6)) {
                (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) => {
                    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
                }
                _ => None,
            };
            let whole = char::from_u32(first).map(|letter| (letter, 6));
            // Half of a surrogate pair is not a character.
            return whole.or_else(|| pair().map(|letter| (letter, 12))).unwrap_or((char::REPLACEMENT_CHARACTER, 6));
        }
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(sign @ (b'"' | b'\\' | b'/')) => char::from(*sign),
        Some(_) | None => return ('\\', 1),
    };
    (letter, 2)
}

/// Decodes percent-encoding after the escapes of JSON.
struct Percent<'a> {
    json: Json<'a>,
    ahead: VecDeque<Unit>,
    escapes: Escapes,
}

impl Iterator for Percent<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let (byte, place) = self.ahead.pop_front().or_else(|| self.json.next())?;
        if byte == b'+' && self.escapes.plus {
            return Some((b' ', place));
        }
        if byte != b'%' || !self.escapes.percent {
            return Some((byte, place));
        }
        while self.ahead.len() < 2 {
            let Some(unit) = self.json.next() else { break };
            self.ahead.push_back(unit);
        }
        let digit = |at: usize| self.ahead.get(at).and_then(|(byte, _)| char::from(*byte).to_digit(16));
        let code = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        if code.is_some() {
            self.ahead.clear();
        }
        Some((code.unwrap_or(byte), place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_all_readings_that_its_signs_allow() {
        assert_eq!(readings(b"abc+", false), [Escapes::default()]);
        assert_eq!(readings(b"a%b", false).len(), 2);
        assert_eq!(readings(br"a%b\+", true).len(), 8);
    }

    #[test]
    fn escapes_are_undone_and_have_the_places_where_they_stand() {
        let read = |text: &str, json, percent, plus| {
            let (bytes, places): (Vec<_>, Vec<_>) = units(text.as_bytes(), Escapes { json, percent, plus }).unzip();
            (String::from_utf8(bytes).unwrap(), places)
        };
        assert_eq!(read(r"\u0061%62+", false, false, false).0, r"\u0061%62+");
        assert_eq!(read(r"\u0061%62+", true, true, true), ("ab ".to_owned(), vec![0, 6, 9]));
        assert_eq!(read(r"\u002561", true, true, false), ("a".to_owned(), vec![0]));
        assert_eq!(read(r"\ud83d\ude00x", true, false, false), ("😀x".to_owned(), vec![0, 0, 0, 0, 12]));
        assert_eq!(read(r"\u00", true, false, false).0, r"\u00");
        assert_eq!(read(r"%4%41", false, true, false).0, "%4A");
        assert_eq!(read(r"\\u0061", true, false, false).0, r"\u0061");
    }
}
