//! The rules: numbers, e-mail addresses, keys and credentials, found in one pass by the class of each byte.

use super::spans::Find;
use crate::base::team_key::KEY_MARK;

/// The smallest number of consecutive digits that counts as personal: the shortest Indonesian account and phone numbers
/// have seven or eight digits.
const RUN: usize = 7;

/// The smallest number of digits with single separators between them that counts as personal. It is above eight,
/// because a date has eight digits.
const JOINED: usize = 9;

/// The longest local part of an e-mail address in bytes: 64 characters (RFC 5321, 4.5.3.1.1), each percent-encoded,
/// plus a margin.
const LOCAL_PART: usize = 256;

/// The class of bytes that are skipped. The bytes of the other classes may begin or complete a find.
const PLAIN: u8 = 0;
const DIGIT: u8 = 1;
const AT: u8 = 2;
const PERCENT: u8 = 3;
const UNDERSCORE: u8 = 4;
const SPACE: u8 = 5;

static CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        class[digit as usize] = DIGIT;
        digit += 1;
    }
    class[b'@' as usize] = AT;
    class[b'%' as usize] = PERCENT;
    class[b'_' as usize] = UNDERSCORE;
    class[b' ' as usize] = SPACE;
    class
};

/// Collects the finds of all rules in one pass from left to right. It reads the line without decoding its escapes: JSON
/// reads `\u0812345` as an escape and some digits, and a person reads it as a number.
pub(super) fn scan(line: &[u8], finds: &mut Vec<Find>) {
    let mut at = 0;
    // The end of the last key or credential. No other key or credential begins before this end.
    let mut taken = 0;
    while let Some(next) = next_classed(line, at) {
        at = next;
        match CLASS[line[at] as usize] {
            DIGIT => {
                let end = at + digits(&line[at..]);
                if end - at < RUN && !joined(line, end) {
                    at = end;
                } else if let Some(end) = quoted_address(line, at) {
                    at = end;
                } else if let Some(end) =
                    timestamp(line, at).or_else(|| uuid_around(line, at)).or_else(|| counter(line, at))
                {
                    at = end;
                } else {
                    let number = Digits::read(line, at);
                    if number.personal {
                        finds.push((number.start, number.end));
                    }
                    at = number.end;
                }
                continue;
            }
            UNDERSCORE => {
                // Every line of the access log has a UUID here; skipping it at once saves its many short numbers.
                if line[at..].starts_with(b"_id\":\"") && uuid_at(line, at + 6) {
                    at += 6 + UUID;
                } else if is_trace(line, at) {
                    at += 6 + HEX_ID;
                } else if is_delivery(line, at) {
                    at += HEX_ID;
                } else if at >= taken {
                    taken = take(finds, key(line, at));
                }
            }
            SPACE => taken = taken.max(take(finds, credential(line, at, 1))),
            AT => finds.extend(email(line, at, 1)),
            _ => {
                let code = &line[at + 1..];
                let code = code.len() - code.strip_prefix(b"25").unwrap_or(code).len();
                if line[at + 1 + code..].starts_with(b"40") {
                    finds.extend(email(line, at, code + 3));
                } else if at >= taken && line[at + 1 + code..].starts_with(b"20") {
                    taken = take(finds, credential(line, at, code + 3));
                }
            }
        }
        at += 1;
    }
}

/// Returns the position of the first byte at or after `from` whose class is not `PLAIN`.
fn next_classed(line: &[u8], from: usize) -> Option<usize> {
    let is_classed = |b: &u8| CLASS[*b as usize] != PLAIN;
    let mut at = from;
    // Most bytes are plain. For a piece of fixed length the compiler makes a third of the instructions.
    while let Some(piece) = line.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if let Some(ahead) = piece.iter().position(is_classed) {
            return Some(at + ahead);
        }
        at += piece.len();
    }
    line.get(at..)?.iter().position(is_classed).map(|ahead| at + ahead)
}

fn take(finds: &mut Vec<Find>, found: Option<Find>) -> usize {
    finds.extend(found);
    found.map_or(0, |(_, end)| end)
}

/// Returns the number of digits at the beginning.
fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Returns the length of the separator between two groups of digits that begins at `at`; 0 if there is none. Separators
/// are a space, a dash, a dot, a plus (a space in a form), their percent-encoded forms, and their typographic variants.
/// A `%` alone is a separator too, because the digits of `%20` or `%31` follow it.
fn separator(line: &[u8], at: usize) -> usize {
    match line.get(at) {
        Some(b'%') => match line.get(at + 1..at + 3) {
            Some(b"2D" | b"2d" | b"2B" | b"2b" | b"2E" | b"2e") => 3,
            _ => 1,
        },
        Some(b' ' | b'-' | b'.' | b'+') => 1,
        Some(0xC2) if line.get(at + 1) == Some(&0xA0) => 2, // no-break space
        Some(0xE2) => match line.get(at + 1..at + 3) {
            Some([0x80, 0x90..=0x95 | 0xAF] | [0x88, 0x92]) => 3, // hyphens and dashes, narrow space, minus
            _ => 0,
        },
        _ => 0,
    }
}

/// Returns true if the group of digits that ends at `end` continues after a separator.
#[inline]
fn joined(line: &[u8], end: usize) -> bool {
    let separator = separator(line, end);
    separator > 0 && line.get(end + separator).is_some_and(u8::is_ascii_digit)
}

/// Groups of digits with single separators between them.
struct Digits {
    start: usize,
    end: usize,
    personal: bool,
}

impl Digits {
    fn read(line: &[u8], start: usize) -> Self {
        let (mut at, mut end) = (start, start);
        let (mut total, mut longest, mut groups, mut dots) = (0, 0, 0, 0);
        let mut octets = true;
        loop {
            let length = digits(&line[at..]);
            end = end.max(at + length);
            total += length;
            longest = longest.max(length);
            groups += 1;
            octets &= length < 3 || length == 3 && line[at..at + 3] <= b"255"[..];
            let next = end + separator(line, end);
            if !joined(line, end) || timestamp(line, next).is_some() || uuid_around(line, next).is_some() {
                break;
            }
            dots += usize::from(line[end] == b'.');
            at = next;
        }
        let address = octets && groups == 4 && dots == 3;
        let fraction = groups == 2 && dots == 1;
        let plus = country_code(line, start);
        let personal =
            longest >= RUN || total >= JOINED && !address && !fraction || plus > 0 && total >= RUN && !fraction;
        Self { start: if personal { start - plus } else { start }, end, personal }
    }
}

/// Returns the length of the plus, plain or percent-encoded, before a `62` that begins at `at`; 0 if there is none.
fn country_code(line: &[u8], at: usize) -> usize {
    let (before, after) = line.split_at(at);
    if !after.starts_with(b"62") {
        0
    } else if before.ends_with(b"+") {
        1
    } else if before.ends_with(b"%2B") || before.ends_with(b"%2b") {
        3
    } else {
        0
    }
}

/// Returns the end of the IPv4 address at `start`, if the address is a whole JSON string. Every line of the access log
/// has the client's address: skipping it at once is cheaper than reading its four numbers as parts of one number.
fn quoted_address(line: &[u8], start: usize) -> Option<usize> {
    line[..start].ends_with(b"\"").then_some(())?;
    let mut at = start;
    for group in 0..4 {
        let length = digits(&line[at..]);
        let is_octet = length == 1 || length == 2 || length == 3 && line[at..at + 3] <= b"255"[..];
        at += length;
        let ends = if group == 3 { b'"' } else { b'.' };
        (is_octet && line.get(at) == Some(&ends)).then_some(())?;
        at += usize::from(group < 3);
    }
    Some(at)
}

const UUID: usize = 36;

/// Returns true if `start` begins a UUID (8-4-4-4-12) that is not a part of something longer.
fn uuid_at(line: &[u8], start: usize) -> bool {
    let Some(token) = line.get(start..start + UUID) else { return false };
    let shape = token.iter().enumerate().all(|(place, b)| match place {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => HEX[*b as usize],
    });
    let begins = match line[..start] {
        [.., digit, b'-'] => !digit.is_ascii_digit(),
        [.., last] => !last.is_ascii_alphanumeric(),
        [] => true,
    };
    shape && begins && !line.get(start + UUID).is_some_and(u8::is_ascii_alphanumeric)
}

/// The number of hexadecimal digits of a trace's id, and of a delivery's id after its `msg_`.
const HEX_ID: usize = 32;

/// Returns true if the underscore at `at` belongs to the id of a delivery, which is not a part of something longer. The
/// id is a keyed hash or random, so it almost always has a letter; digits alone count as a number.
fn is_delivery(line: &[u8], at: usize) -> bool {
    let Some(before) = line[..at].strip_suffix(b"msg") else { return false };
    let Some((digits, behind)) = line[at + 1..].split_first_chunk() else { return false };
    let ends = |byte: Option<&u8>| !byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_hex_id(digits) && ends(before.last()) && ends(behind.first())
}

/// Returns true if the underscore at `at` belongs to the key `trace_id`, whose value is the id of a trace. The id is
/// random, so it almost always has a letter; digits alone count as a number.
fn is_trace(line: &[u8], at: usize) -> bool {
    let Some(value) = line[at..].strip_prefix(b"_id\":\"").filter(|_| line[..at].ends_with(b"\"trace")) else {
        return false;
    };
    let Some((digits, behind)) = value.split_first_chunk() else { return false };
    is_hex_id(digits) && behind.first() == Some(&b'"')
}

/// Returns true for 32 hexadecimal digits in lower case with a letter among them. The loops do not end early, so that
/// the compiler can test many digits at once.
fn is_hex_id(digits: &[u8; HEX_ID]) -> bool {
    let is_letter = |digit: &u8| (b'a'..=b'f').contains(digit);
    let hex = digits.iter().fold(true, |hex, digit| hex & (digit.is_ascii_digit() | is_letter(digit)));
    hex & digits.iter().fold(false, |any, digit| any | is_letter(digit))
}

static HEX: [bool; 256] = {
    let mut hex = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = (byte as u8).is_ascii_hexdigit();
        byte += 1;
    }
    hex
};

/// Returns the end of the UUID that contains the byte at `at`; `None` if no UUID does.
fn uuid_around(line: &[u8], at: usize) -> Option<usize> {
    let hex = |b: &&u8| b.is_ascii_hexdigit();
    let before = line[..at].iter().rev().take(12).take_while(hex).count();
    let length = before + line[at..].iter().take(13).take_while(hex).count();
    let group = at - before;
    let starts: &[usize] = match length {
        8 => &[0],
        4 => &[9, 14, 19],
        12 => &[24],
        _ => &[],
    };
    let start = starts.iter().filter_map(|back| group.checked_sub(*back)).find(|start| uuid_at(line, *start))?;
    Some(start + UUID)
}

/// Returns the end of the RFC 3339 timestamp that begins at `start`; `None` if none begins there.
fn timestamp(line: &[u8], start: usize) -> Option<usize> {
    let parts = line.get(start..start + 19)?;
    let shape = parts.iter().zip(b"0000-00-00T00:00:00").all(|(b, shape)| match shape {
        b'0' => b.is_ascii_digit(),
        b'T' => matches!(b, b'T' | b't' | b' '),
        other => b == other,
    });
    let two = |at: usize| (parts[at] & 15) * 10 + (parts[at + 1] & 15);
    if !shape || two(5) > 12 || two(8) > 31 || two(11) > 23 || two(14) > 59 || two(17) > 60 {
        return None;
    }
    if start > 0 && line[start - 1].is_ascii_alphanumeric() {
        return None;
    }
    let mut end = start + 19;
    if line.get(end) == Some(&b'.') {
        let fraction = digits(&line[end + 1..]);
        // At most microseconds are accepted, so that no account number fits.
        if !(1..=6).contains(&fraction) {
            return None;
        }
        end += 1 + fraction;
    }
    match line.get(end..)? {
        [b'Z' | b'z', ..] => Some(end + 1),
        [b'+' | b'-', h, i, b':', m, n, rest @ ..]
            if [h, i, m, n].into_iter().all(u8::is_ascii_digit) && !rest.first().is_some_and(u8::is_ascii_digit) =>
        {
            Some(end + 6)
        }
        _ => None,
    }
}

/// Returns the end of the number at `start`, if its key ends in `_us`, `_ms` or `_bytes`: such a number is a
/// measurement. The quote before the colon proves that this is a key: inside of a string, a backslash would precede the
/// quote.
fn counter(line: &[u8], start: usize) -> Option<usize> {
    let key = line[..start].strip_suffix(b"\":")?;
    if ![&b"_us"[..], b"_ms", b"_bytes"].into_iter().any(|unit| key.ends_with(unit)) {
        return None;
    }
    let number = |b: &&u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let end = start + line[start..].iter().take_while(number).count();
    matches!(line.get(end), Some(b',' | b'}')).then_some(end)
}

/// Returns the position of the e-mail address whose `@` is at `at`. The `@` has `length` bytes, because it may be
/// percent-encoded.
fn email(line: &[u8], at: usize, length: usize) -> Option<Find> {
    let local = |b: &&u8| b.is_ascii_alphanumeric() || !b.is_ascii() || b"!#$%'*+-.^_~".contains(*b);
    let domain = |b: &&u8| b.is_ascii_alphanumeric() || !b.is_ascii() || matches!(b, b'.' | b'-');
    let before = line[..at].iter().rev().take(LOCAL_PART).take_while(local).count();
    let after = line[at + length..].iter().take_while(domain).count();
    if before == 0 || after == 0 {
        return None;
    }
    // If the bound cut into a character, the find begins after the character's bytes.
    let start = at - before;
    let start = start + line[start..at].iter().take_while(|b| **b & 0xC0 == 0x80).count();
    Some((start, at + length + after))
}

/// Returns the position of the credential after `Basic` or `Bearer` (RFC 9110, 11.4). The space before the credential
/// begins at `at` and takes `length` bytes.
fn credential(line: &[u8], at: usize, length: usize) -> Option<Find> {
    let before = &line[..at];
    let scheme = [&b"basic"[..], b"bearer"].into_iter().any(|scheme| {
        before.len().checked_sub(scheme.len()).is_some_and(|from| before[from..].eq_ignore_ascii_case(scheme))
    });
    if !scheme {
        return None;
    }
    let start = at + length;
    let start = start + line[start..].iter().take_while(|b| **b == b' ').count();
    let end = start + token(&line[start..]);
    (end > start).then_some((start, end))
}

/// Returns the position of the key, Iluma's or the gateway's, whose first underscore is at `at`.
fn key(line: &[u8], at: usize) -> Option<Find> {
    let (before, after) = (&line[..at], &line[at + 1..]);
    let (prefix, skip) = if before.ends_with(b"iluma") {
        // The case matters: the names of environment variables (ILUMA_LIVE_API_KEY) are no secrets.
        let kinds = [&b"development_"[..], b"live_", b"production_"];
        (5, kinds.into_iter().find(|kind| after.starts_with(kind))?.len())
    } else if line[..=at].ends_with(KEY_MARK.as_bytes()) {
        (KEY_MARK.len() - 1, 0)
    } else {
        return None;
    };
    let length = token(&after[skip..]);
    (length > 0).then_some((at - prefix, at + 1 + skip + length))
}

/// Returns the length of the `token68` (RFC 9110, 11.2) at the beginning. A `%` counts as a part, for percent-encoded
/// tokens.
fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/=%".contains(*b)).count()
}
