//! The second wall: takes personal data and secrets out of a line that is about to leave the process.
//!
//! The first wall is that lines are made of listed fields; this one is for what slips through all the same, such as
//! the text of a dependency's error. It prefers to take too much.
//!
//! Invariants: a line of valid JSON stays valid JSON; scrubbing twice is scrubbing once (a line is scrubbed until
//! nothing more is found); no input makes it panic; the time is linear in the length of the line.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// What stands where something was taken out. Its brackets belong to no token that the rules know, so it never
/// becomes part of a new find.
const MARK: &[u8] = b"[redacted]";

/// This many digits in a row are personal: the shortest Indonesian account and phone numbers have seven or eight.
const RUN: usize = 7;

/// This many digits with single separators between them are personal. A date has eight.
const JOINED: usize = 9;

/// How far an e-mail's local part reaches back: 64 characters (RFC 5321, 4.5.3.1.1), each percent-encoded, and some.
const LOCAL_PART: usize = 256;

/// Two passes are what a dirty line takes (the second finds nothing). What is not settled after this many was made to
/// be so, and goes as a whole.
const PASSES: usize = 8;

/// Scrubs lines. Clones share the secrets and the count.
#[derive(Clone)]
pub struct Redactor {
    shared: Arc<Shared>,
}

struct Shared {
    secrets: ArcSwap<Secrets>,
    total: AtomicU64,
}

impl Redactor {
    /// A scrubber that knows these secrets beside its rules. Secrets of fewer than four bytes are not looked for:
    /// they would take ordinary text with them.
    #[must_use]
    pub fn new(secrets: Vec<SecretString>) -> Self {
        Self { shared: Arc::new(Shared { secrets: ArcSwap::from_pointee(Secrets::new(&secrets)), total: 0.into() }) }
    }

    /// Looks for these secrets from now on, in every clone, instead of those known until now.
    pub fn replace(&self, secrets: Vec<SecretString>) {
        self.shared.secrets.store(Arc::new(Secrets::new(&secrets)));
    }

    /// How much all clones have taken out since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// Takes personal data and secrets out of one line of JSON and says how often it had to. In a string what is
    /// found becomes `[redacted]`; a number becomes the string `"[redacted]"`.
    ///
    /// Taken out: seven and more digits in a row; nine and more with single separators between them, fewer after
    /// `+62`; e-mail addresses, percent-encoded ones too; Iluma's and the gateway's keys; `Basic` and `Bearer`
    /// credentials; the known secrets, also as base64 of a Basic credential. Left alone: UUIDs, RFC 3339 timestamps,
    /// IPv4 addresses, and numbers (not strings) whose key ends in `_us`, `_ms` or `_bytes`.
    pub fn scrub(&self, line: &mut Vec<u8>) -> usize {
        let secrets = self.shared.secrets.load();
        // Allocates with the first find only.
        let mut spans = Vec::new();
        let mut count = 0;
        for _ in 0..PASSES {
            secrets.find(line, &mut spans);
            scan(line, &mut spans);
            if spans.is_empty() {
                break;
            }
            merge(&mut spans);
            count += spans.len();
            cut(line, &spans);
            spans.clear();
        }
        if count > 0 {
            if count >= PASSES && !settled(&secrets, line) {
                let newline = line.ends_with(b"\n");
                line.clear();
                line.extend_from_slice(b"\"[redacted]\"");
                line.extend_from_slice(if newline { b"\n" } else { b"" });
            }
            self.shared.total.fetch_add(count as u64, Ordering::Relaxed);
        }
        count
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("total", &self.total()).finish_non_exhaustive()
    }
}

fn settled(secrets: &Secrets, line: &[u8]) -> bool {
    let mut spans = Vec::new();
    secrets.find(line, &mut spans);
    scan(line, &mut spans);
    spans.is_empty()
}

/// Something to take out.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    /// It stands outside of strings, so its mark needs quotes to be JSON.
    bare: bool,
}

impl Span {
    /// What stands outside of strings goes as the whole literal: half a number and a string are no JSON.
    fn new(line: &[u8], start: usize, end: usize, floor: usize, text: bool) -> Self {
        if text {
            return Self { start, end, bare: false };
        }
        let literal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let before = line[floor.min(start)..start].iter().rev().take_while(|b| literal(b)).count();
        let after = line[end..].iter().take_while(|b| literal(b)).count();
        Self { start: start - before, end: end + after, bare: true }
    }
}

fn merge(spans: &mut Vec<Span>) {
    spans.sort_unstable_by_key(|span| span.start);
    spans.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
}

fn cut(line: &mut Vec<u8>, spans: &[Span]) {
    let mut clean = Vec::with_capacity(line.len() + spans.len() * (MARK.len() + 2));
    let mut from = 0;
    for span in spans {
        clean.extend_from_slice(&line[from..span.start]);
        let quote: &[u8] = if span.bare { b"\"" } else { b"" };
        clean.extend_from_slice(quote);
        clean.extend_from_slice(MARK);
        clean.extend_from_slice(quote);
        from = span.end;
    }
    clean.extend_from_slice(&line[from..]);
    *line = clean;
}

/// What a byte may begin or complete. Everything else is passed over.
const PLAIN: u8 = 0;
const QUOTE: u8 = 1;
const DIGIT: u8 = 2;
const ESCAPE: u8 = 3;
const AT: u8 = 4;
const PERCENT: u8 = 5;
const UNDERSCORE: u8 = 6;
const SPACE: u8 = 7;

static CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        class[digit as usize] = DIGIT;
        digit += 1;
    }
    class[b'"' as usize] = QUOTE;
    class[b'\\' as usize] = ESCAPE;
    class[b'@' as usize] = AT;
    class[b'%' as usize] = PERCENT;
    class[b'_' as usize] = UNDERSCORE;
    class[b' ' as usize] = SPACE;
    class
};

/// Finds what the rules find, in one pass from left to right.
fn scan(line: &[u8], spans: &mut Vec<Span>) {
    let mut at = 0;
    // The end of the last quote or escape: no find reaches back over it, so none takes half an escape.
    let mut floor = 0;
    // Whether `at` is inside a string.
    let mut text = false;
    while let Some(ahead) = line.get(at..).and_then(|rest| rest.iter().position(|b| CLASS[*b as usize] != PLAIN)) {
        at += ahead;
        match CLASS[line[at] as usize] {
            QUOTE => {
                text = !text;
                at += 1;
                floor = at;
                // Every line of the access log has one; passing over it at once saves a fifth of the time.
                if text && line.get(at + 8) == Some(&b'-') && uuid_at(line, at) {
                    at += UUID;
                }
            }
            DIGIT => {
                let end = at + digits(&line[at..]);
                if end - at < RUN && !joined(line, end) {
                    at = end;
                } else if let Some(end) = timestamp(line, at)
                    .or_else(|| uuid_around(line, at))
                    .or_else(|| if text { None } else { counter(line, at) })
                {
                    at = end;
                } else {
                    let found = Digits::read(line, at);
                    at = found.end;
                    if found.personal {
                        let span = Span::new(line, found.start, found.end, floor, text);
                        at = span.end;
                        spans.push(span);
                    }
                }
            }
            ESCAPE => {
                let length = escape(line, at);
                // `\u0812345…` is an escape and some digits to JSON, and an account number to whoever reads the raw
                // line.
                if length == 6 && digits(&line[at + 2..]) >= RUN {
                    spans.push(Span::new(line, at, at + 2 + digits(&line[at + 2..]), floor, text));
                }
                at += length;
                floor = at;
            }
            AT => {
                spans.extend(email(line, at, 1, floor, text));
                at += 1;
            }
            PERCENT => {
                let code = &line[at + 1..];
                let code = code.len() - code.strip_prefix(b"25").unwrap_or(code).len();
                if line[at + 1 + code..].starts_with(b"40") {
                    spans.extend(email(line, at, code + 3, floor, text));
                } else if line[at + 1 + code..].starts_with(b"20") {
                    spans.extend(credential(line, at, code + 3, floor, text));
                }
                at += 1;
            }
            UNDERSCORE => {
                spans.extend(key(line, at, floor, text));
                at += 1;
            }
            _ => {
                spans.extend(credential(line, at, 1, floor, text));
                at += 1;
            }
        }
    }
}

/// How many digits these bytes begin with.
fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// How long the escape at `at` is. A backslash that begins none counts alone, so that it hides nothing behind it.
fn escape(line: &[u8], at: usize) -> usize {
    match line.get(at + 1) {
        Some(b'u') if line.get(at + 2..at + 6).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)) => 6,
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
        _ => 1,
    }
}

/// The length of what may separate two groups of one number: a space, a dash, a dot or a plus (a space in a form),
/// their percent-encoded forms (`%` before the digits of `%20` or `%31` counts as one), and their typographic
/// cousins. 0: none.
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

/// Whether the group of digits that ends at `end` goes on behind a separator.
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
        loop {
            let length = digits(&line[at..]);
            end = end.max(at + length);
            total += length;
            longest = longest.max(length);
            groups += 1;
            let next = end + separator(line, end);
            if !joined(line, end) || timestamp(line, next).is_some() || uuid_around(line, next).is_some() {
                break;
            }
            dots += usize::from(line[end] == b'.');
            at = next;
        }
        let address = groups == 4 && dots == 3 && longest <= 3;
        let fraction = groups == 2 && dots == 1;
        let plus = country_code(line, start);
        let personal =
            longest >= RUN || total >= JOINED && !address && !fraction || plus > 0 && total >= RUN && !fraction;
        Self { start: if personal { start - plus } else { start }, end, personal }
    }
}

/// The length of the plus before a `62` that begins at `at`; 0 if there is none.
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

const UUID: usize = 36;

/// Whether a UUID (8-4-4-4-12) stands at `start`, by itself and not as a part of something longer.
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

static HEX: [bool; 256] = {
    let mut hex = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = (byte as u8).is_ascii_hexdigit();
        byte += 1;
    }
    hex
};

/// The end of the UUID of which the byte at `at` is a part.
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

/// The end of the RFC 3339 timestamp that begins at `start`.
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
        if !(1..=9).contains(&fraction) {
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

/// The end of the number at `start` (outside of strings), if its key says that it counts something.
fn counter(line: &[u8], start: usize) -> Option<usize> {
    let key = line[..start].strip_suffix(b"\":")?;
    if ![&b"_us"[..], b"_ms", b"_bytes"].into_iter().any(|unit| key.ends_with(unit)) {
        return None;
    }
    let number = |b: &&u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let end = start + line[start..].iter().take_while(number).count();
    matches!(line.get(end), Some(b',' | b'}')).then_some(end)
}

/// The e-mail address whose `@`, `length` bytes long, stands at `at`.
fn email(line: &[u8], at: usize, length: usize, floor: usize, text: bool) -> Option<Span> {
    let local = |b: &&u8| b.is_ascii_alphanumeric() || !b.is_ascii() || b"!#$%'*+-.^_~".contains(*b);
    let domain = |b: &&u8| b.is_ascii_alphanumeric() || !b.is_ascii() || matches!(b, b'.' | b'-');
    let before = line[floor..at].iter().rev().take(LOCAL_PART).take_while(local).count();
    let after = line[at + length..].iter().take_while(domain).count();
    if before == 0 || after == 0 {
        return None;
    }
    // Where the bound cut into a character, its other bytes stay whole.
    let start = at - before;
    let start = start + line[start..at].iter().take_while(|b| **b & 0xC0 == 0x80).count();
    Some(Span::new(line, start, at + length + after, floor, text))
}

/// The credential behind `Basic` or `Bearer` and the space, `length` bytes long, at `at` (RFC 9110, 11.4).
fn credential(line: &[u8], at: usize, length: usize, floor: usize, text: bool) -> Option<Span> {
    let before = &line[floor..at];
    let scheme = [&b"basic"[..], b"bearer"].into_iter().any(|scheme| {
        before.len().checked_sub(scheme.len()).is_some_and(|from| before[from..].eq_ignore_ascii_case(scheme))
    });
    if !scheme {
        return None;
    }
    let start = at + length;
    let start = start + line[start..].iter().take_while(|b| **b == b' ').count();
    let end = start + token(&line[start..]);
    (end > start).then(|| Span::new(line, start, end, floor, text))
}

/// The key of Iluma's or the gateway's whose first underscore stands at `at`.
fn key(line: &[u8], at: usize, floor: usize, text: bool) -> Option<Span> {
    let (before, after) = (&line[floor..at], &line[at + 1..]);
    let (prefix, skip) = if before.ends_with(b"iluma") {
        // Case matters: the names of environment variables (ILUMA_LIVE_API_KEY) are no secrets.
        let kinds = [&b"development_"[..], b"live_", b"production_"];
        (5, kinds.into_iter().find(|kind| after.starts_with(kind))?.len())
    } else if before.ends_with(b"igw") {
        (3, 0)
    } else {
        return None;
    };
    let length = token(&after[skip..]);
    (length > 0).then(|| Span::new(line, at - prefix, at + 1 + skip + length, floor, text))
}

/// The length of the `token68` (RFC 9110, 11.2) at the beginning; underscores and the like are part of it.
fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/=%".contains(*b)).count()
}

/// The configured secrets, indexed for looking for all of them at once.
///
/// Any occurrence of a pattern of at least `stride + 3` bytes covers four whole bytes at a multiple of `stride`. So it
/// is enough to look at every stride-th place of a line, whatever the number of secrets, and to know the four bytes
/// at each of the first `stride` offsets of each pattern.
struct Secrets {
    patterns: Vec<Pattern>,
    /// Patterns too short for the index, searched for one by one.
    short: Vec<Pattern>,
    stride: usize,
    /// (four bytes, pattern, offset), sorted.
    windows: Vec<(u32, usize, usize)>,
    /// One bit for the hash of each window.
    filter: Vec<u64>,
}

struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    /// What follows in this alphabet belongs to it: the pattern is the certain part of an encoding.
    encoded: bool,
}

/// Shorter secrets are not looked for, and the index is made of pieces of this length.
const WINDOW: usize = 4;
/// Patterns from this length on are indexed.
const INDEXED: usize = 12;
/// 2^16 bits, 8 KiB: stays in the nearest cache and is sparse for hundreds of secrets.
const FILTER_BITS: u32 = 16;

impl Secrets {
    fn new(secrets: &[SecretString]) -> Self {
        let mut all: Vec<Pattern> = Vec::new();
        let mut add = |bytes: Vec<u8>, encoded| {
            let pattern = Pattern { bytes: Zeroizing::new(bytes), encoded };
            let known = all.iter().any(|other| other.bytes == pattern.bytes);
            // What is part of the mark would be found in every mark.
            if pattern.bytes.len() >= WINDOW && !known && memmem::find(MARK, &pattern.bytes).is_none() {
                all.push(pattern);
            }
        };
        for secret in secrets {
            let secret = secret.expose_secret();
            if secret.len() < WINDOW {
                continue;
            }
            // As it stands in a JSON string; without the quotes around it.
            if let Ok(quoted) = serde_json::to_vec(secret) {
                let quoted = Zeroizing::new(quoted);
                add(quoted[1..quoted.len() - 1].to_vec(), false);
            }
            // The part of base64("secret:") that does not depend on what follows the secret.
            let whole = &secret.as_bytes()[..secret.len() / 3 * 3];
            add(STANDARD_NO_PAD.encode(whole).into_bytes(), true);
            add(URL_SAFE_NO_PAD.encode(whole).into_bytes(), true);
        }
        let (patterns, short): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.bytes.len() >= INDEXED);
        let stride = patterns.iter().map(|p| p.bytes.len() - WINDOW + 1).min().unwrap_or(1);
        let mut windows = Vec::new();
        let mut filter = vec![0; if patterns.is_empty() { 0 } else { 1 << (FILTER_BITS - 6) }];
        for (place, pattern) in patterns.iter().enumerate() {
            for (offset, window) in pattern.bytes.windows(WINDOW).take(stride).enumerate() {
                let window = window.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                windows.push((window, place, offset));
                let (word, bit) = filter_place(window);
                filter[word] |= bit;
            }
        }
        windows.sort_unstable();
        Self { patterns, short, stride, windows, filter }
    }

    fn find(&self, line: &[u8], spans: &mut Vec<Span>) {
        for pattern in &self.short {
            for start in memmem::find_iter(line, pattern.bytes.as_slice()) {
                spans.extend(pattern.span(line, start));
            }
        }
        if self.filter.is_empty() {
            return;
        }
        let mut at = 0;
        while let Some(bytes) = line.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) {
            let window = u32::from_le_bytes(*bytes);
            let (word, bit) = filter_place(window);
            if self.filter[word] & bit != 0 {
                let from = self.windows.partition_point(|(known, ..)| *known < window);
                for (_, place, offset) in self.windows[from..].iter().take_while(|(known, ..)| *known == window) {
                    let pattern = &self.patterns[*place];
                    if let Some(start) = at.checked_sub(*offset)
                        && line[start..].starts_with(&pattern.bytes)
                    {
                        spans.extend(pattern.span(line, start));
                    }
                }
            }
            at += self.stride;
        }
    }
}

#[inline]
fn filter_place(window: u32) -> (usize, u64) {
    // Fibonacci hashing: the upper bits of a product with 2^32 / golden ratio are well spread.
    let hash = window.wrapping_mul(0x9E37_79B1) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

impl Pattern {
    /// What to take out for an occurrence at `start`: no half escapes, no half marks, whole literals. None if it
    /// lies across the quotes of a string, which no secret does (its own quotes would be escaped).
    fn span(&self, line: &[u8], mut start: usize) -> Option<Span> {
        let mut end = start + self.bytes.len();
        if self.encoded {
            end += line[end..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"+/-_=".contains(*b)).count();
        }
        let (mut at, mut floor, mut text) = (0, 0, false);
        while at < end {
            let length = if line[at] == b'\\' { escape(line, at) } else { 1 };
            if line[at] == b'"' {
                if at >= start {
                    return None;
                }
                text = !text;
                floor = at + 1;
            }
            if at < start && start < at + length {
                start = at;
            }
            at += length;
        }
        end = end.max(at);
        for mark in memmem::find_iter(line, MARK) {
            if mark < end && start < mark + MARK.len() {
                start = start.min(mark);
                end = end.max(mark + MARK.len());
            }
        }
        Some(Span::new(line, start, end, floor, text))
    }
}
