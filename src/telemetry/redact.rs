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
    /// credentials; the known secrets, also as base64 of a Basic credential. Left alone: UUIDs, ids of deliveries, RFC 3339
    /// timestamps, IPv4 addresses, and numbers (not strings) whose key ends in `_us`, `_ms` or `_bytes`.
    pub fn scrub(&self, line: &mut Vec<u8>) -> usize {
        let secrets = self.shared.secrets.load();
        let mut count = 0;
        let mut passes = 0;
        while passes < PASSES {
            let spans = secrets.spans(line);
            if spans.is_empty() {
                break;
            }
            count += spans.len();
            cut(line, &spans);
            passes += 1;
        }
        if count > 0 {
            if passes == PASSES && !secrets.spans(line).is_empty() {
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

/// Something to take out.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    /// It stands outside of strings, so its mark needs quotes to be JSON.
    bare: bool,
}

/// Where something was found; not yet aligned with what JSON is made of.
type Find = (usize, usize);

/// Turns finds into what to take out: no half escapes, no half marks, and outside of strings whole literals (half a
/// number and a string are no JSON). A find across the quotes of a string is left out: no rule makes one, and a
/// secret's own quotes would be escaped.
fn frame(line: &[u8], mut finds: Vec<Find>) -> Vec<Span> {
    finds.sort_unstable();
    // One walk over the line for all finds. `unit` is the beginning of the last escape or byte before `at`.
    let (mut unit, mut at) = (0, 0);
    // Whether `at` is inside of a string, and how many quotes there were.
    let (mut text, mut quotes) = (false, 0);
    let mut walk = |until: usize| {
        while at < until {
            unit = at;
            match line[at] {
                b'\\' => at += escape(line, at),
                b'"' => {
                    (text, quotes) = (!text, quotes + 1);
                    at += 1;
                }
                _ => at += 1,
            }
        }
        (unit, at, text, quotes)
    };
    let mut spans: Vec<Span> = Vec::with_capacity(finds.len());
    let mut covered = 0;
    for (mut start, mut end) in finds {
        if end <= covered {
            continue;
        }
        let (unit, at, text, quotes) = walk(start);
        if at > start {
            start = start.min(unit);
        }
        let (_, at, _, crossed) = walk(end);
        if crossed != quotes {
            continue;
        }
        end = end.max(at);
        let (near, far) = (start.saturating_sub(MARK.len()), line.len().min(end + MARK.len()));
        for mark in memmem::find_iter(&line[near..far], MARK).map(|mark| near + mark) {
            if mark < end && start < mark + MARK.len() {
                start = start.min(mark);
                end = end.max(mark + MARK.len());
            }
        }
        if !text {
            let literal = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
            start -= line[..start].iter().rev().take_while(literal).count();
            end += line[end..].iter().take_while(literal).count();
        }
        covered = covered.max(end);
        spans.push(Span { start, end, bare: !text });
    }
    merge(&mut spans);
    spans
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

/// Finds what the rules find, in one pass from left to right. It reads the raw line, escapes and all: `\u0812345` is
/// an escape and some digits to JSON, and a number to whoever reads the line.
fn scan(line: &[u8], finds: &mut Vec<Find>) {
    let mut at = 0;
    // The end of the last key or credential: there is no other inside.
    let mut taken = 0;
    while let Some(ahead) = line.get(at..).and_then(|rest| rest.iter().position(|b| CLASS[*b as usize] != PLAIN)) {
        at += ahead;
        match CLASS[line[at] as usize] {
            DIGIT => {
                let end = at + digits(&line[at..]);
                if end - at < RUN && !joined(line, end) {
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
                // Every line of the access log has a UUID here; passing over it at once saves its many short numbers.
                if line[at..].starts_with(b"_id\":\"") && uuid_at(line, at + 6) {
                    at += 6 + UUID;
                } else if is_delivery(line, at) {
                    at += DELIVERY;
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

fn take(finds: &mut Vec<Find>, found: Option<Find>) -> usize {
    finds.extend(found);
    found.map_or(0, |(_, end)| end)
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

/// The hexadecimal digits of a delivery's id, behind its `msg_`.
const DELIVERY: usize = 32;

/// Whether the id of a delivery has its underscore at `at`, and stands by itself. It is a keyed hash; what has no letter in
/// all of it is none, but digits that somebody put there.
fn is_delivery(line: &[u8], at: usize) -> bool {
    let Some(before) = line[..at].strip_suffix(b"msg") else { return false };
    let Some((digits, behind)) = line[at + 1..].split_at_checked(DELIVERY) else { return false };
    let ends = |byte: Option<&u8>| !byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let hex = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    hex && digits.iter().any(u8::is_ascii_lowercase) && ends(before.last()) && ends(behind.first())
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
        // Microseconds at most: no account number fits in.
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

/// The end of the number at `start`, if its key says that it counts something. The quote ends a key and not a text
/// inside of a string: there it would have a backslash before it.
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
fn email(line: &[u8], at: usize, length: usize) -> Option<Find> {
    let local = |b: &&u8| b.is_ascii_alphanumeric() || !b.is_ascii() || b"!#$%'*+-.^_~".contains(*b);
    let domain = |b: &&u8| b.is_ascii_alphanumeric() || !b.is_ascii() || matches!(b, b'.' | b'-');
    let before = line[..at].iter().rev().take(LOCAL_PART).take_while(local).count();
    let after = line[at + length..].iter().take_while(domain).count();
    if before == 0 || after == 0 {
        return None;
    }
    // Where the bound cut into a character, its other bytes stay whole.
    let start = at - before;
    let start = start + line[start..at].iter().take_while(|b| **b & 0xC0 == 0x80).count();
    Some((start, at + length + after))
}

/// The credential behind `Basic` or `Bearer` and the space, `length` bytes long, at `at` (RFC 9110, 11.4).
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

/// The key of Iluma's or the gateway's whose first underscore stands at `at`.
fn key(line: &[u8], at: usize) -> Option<Find> {
    let (before, after) = (&line[..at], &line[at + 1..]);
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
    (length > 0).then_some((at - prefix, at + 1 + skip + length))
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

    /// What to take out of the line.
    fn spans(&self, line: &[u8]) -> Vec<Span> {
        // Allocates with the first find only.
        let mut finds = Vec::new();
        self.find(line, &mut finds);
        scan(line, &mut finds);
        if finds.is_empty() { Vec::new() } else { frame(line, finds) }
    }

    fn find(&self, line: &[u8], finds: &mut Vec<Find>) {
        for pattern in &self.short {
            let mut last = (0, 0);
            for start in memmem::find_iter(line, pattern.bytes.as_slice()) {
                last = pattern.find(line, start, last);
                finds.push(last);
            }
        }
        let mut last = (0, 0);
        let mut at = 0;
        while let Some(bytes) = line.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) {
            let window = u32::from_le_bytes(*bytes);
            let (word, bit) = filter_place(window);
            // Empty if there is nothing to look for.
            let Some(bits) = self.filter.get(word) else { break };
            if bits & bit != 0 {
                let from = self.windows.partition_point(|(known, ..)| *known < window);
                for (_, place, offset) in self.windows[from..].iter().take_while(|(known, ..)| *known == window) {
                    let pattern = &self.patterns[*place];
                    if let Some(start) = at.checked_sub(*offset)
                        && line[start..].starts_with(&pattern.bytes)
                    {
                        last = pattern.find(line, start, last);
                        finds.push(last);
                    }
                }
            }
            at += self.stride;
        }
    }
}

impl Pattern {
    /// An occurrence at `start`; what lies within the find before is that find again.
    fn find(&self, line: &[u8], start: usize, last: Find) -> Find {
        let end = start + self.bytes.len();
        if last.0 <= start && end <= last.1 {
            return last;
        }
        let more = |b: &&u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(*b);
        (start, if self.encoded { end + line[end..].iter().take_while(more).count() } else { end })
    }
}

#[inline]
fn filter_place(window: u32) -> (usize, u64) {
    // Fibonacci hashing: the upper bits of a product with 2^32 / golden ratio are well spread.
    let hash = window.wrapping_mul(0x9E37_79B1) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| SecretString::from(*secret)).collect())
    }

    fn scrubbed(redactor: &Redactor, line: &str) -> String {
        let mut bytes = line.as_bytes().to_vec();
        redactor.scrub(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    /// What becomes of a text inside of a JSON string.
    fn text(redactor: &Redactor, text: &str) -> String {
        let line = serde_json::json!({ "message": text }).to_string();
        let clean: serde_json::Value = serde_json::from_str(&scrubbed(redactor, &line)).unwrap();
        clean["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn personal_data_in_texts_is_taken_out() {
        let redactor = redactor(&[]);
        for (dirty, clean) in [
            ("account 1234567 rejected", "account [redacted] rejected"),
            ("a1234567b", "a[redacted]b"),
            ("\t1234567", "\t[redacted]"),
            ("\u{1f}1234567", "\u{1f}[redacted]"),
            ("nik 3171234567890123", "nik [redacted]"),
            ("0812 3456 7890", "[redacted]"),
            ("0812-3456-7890", "[redacted]"),
            ("0812.3456.7890", "[redacted]"),
            ("0812\u{a0}3456\u{2011}7890", "[redacted]"),
            ("0812%203456%207890", "[redacted]"),
            ("0812%2D3456%2D7890", "[redacted]"),
            ("q=%31%32%33%34%35%36%37", "q=%[redacted]"),
            ("npwp 09.254.294.3-407.000", "npwp [redacted]"),
            ("tel:+6281234567", "tel:[redacted]"),
            ("+62 812-345", "[redacted]"),
            ("%2B62 812-345", "[redacted]"),
            ("12 1234567 1", "[redacted]"),
            ("1234567 2026-11-23T09:15:00Z", "[redacted] 2026-11-23T09:15:00Z"),
            ("mail siti.r+x@example.co.id!", "mail [redacted]!"),
            ("q=siti%40example.com&x", "q=[redacted]&x"),
            ("q=siti%2540example.com&x", "q=[redacted]&x"),
            ("\nsiti@example.com", "[redacted]"),
            ("sitié@exämple.com", "[redacted]"),
            ("key iluma_live_abc-DEF_9==.", "key [redacted]"),
            ("iluma_development_x iluma_production_y", "[redacted] [redacted]"),
            ("igw_abcDEF", "[redacted]"),
            ("authorization: Basic aWx1bWE6", "authorization: Basic [redacted]"),
            ("bearer  abc.def-ghi", "bearer  [redacted]"),
            ("Basic%20aWx1bWE6", "Basic%20[redacted]"),
            ("\"Bearer abc\"", "\"Bearer [redacted]\""),
            ("x-3f2504e0-4f89-41d3-9a0c-0305e82c33011234567", "x-3f2504e0-4f89-41d3-9a0c-0305e82c[redacted]"),
            // No id of a delivery: no letter, too short, a part of something longer.
            ("msg_12345678901234567890123456789012", "msg_[redacted]"),
            ("msg_123456789012345678901234567890a", "msg_[redacted]a"),
            ("msg_12345678901234567890123456789012a", "msg_[redacted]a"),
            ("xmsg_1234567890123456789012345678901a", "xmsg_[redacted]a"),
        ] {
            assert_eq!(text(&redactor, dirty), clean, "{dirty}");
        }
        assert!(redactor.total() > 30);
    }

    #[test]
    fn what_is_not_personal_stays() {
        let redactor = redactor(&["hunter2hunter2"]);
        for clean in [
            "123456 is short",
            "2026-11-23",
            "2026-11-23T09:15:00Z 2026-11-23T09:15:00.123456+07:00",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "a callback msg_1234567890123456789012345678901a is dead",
            "bknv_12345678-1234-4123-8123-123456789012",
            "count 5 12345678-1234-4123-8123-123456789012",
            "connect to 192.168.100.200:8080",
            "took 12345.6789 s",
            "iluma_gateway::cache at 100% of 50",
            "ILUMA_LIVE_API_KEY is not set",
            "igw_ iluma_live_ @ a@ @b Basic ",
            "[redacted]",
        ] {
            assert_eq!(text(&redactor, clean), clean);
        }
        assert_eq!(redactor.total(), 0);
    }

    #[test]
    fn numbers_become_strings_unless_their_key_says_that_they_count() {
        let redactor = redactor(&[]);
        for (dirty, clean) in [
            (r#"{"a":1234567}"#, r#"{"a":"[redacted]"}"#),
            (r#"{"a":-1234567.5e3,"b":1}"#, r#"{"a":"[redacted]","b":1}"#),
            (r#"[1,12345678,2]"#, r#"[1,"[redacted]",2]"#),
            (r#"{"duration_us":12345678}"#, r#"{"duration_us":12345678}"#),
            (r#"{"wait_ms":1.23456789,"a_bytes":123456789}"#, r#"{"wait_ms":1.23456789,"a_bytes":123456789}"#),
            (r#"{"duration_us":"12345678"}"#, r#"{"duration_us":"[redacted]"}"#),
            (r#"{"status":12345678}"#, r#"{"status":"[redacted]"}"#),
            (r#"{"1234567_us":12345678}"#, r#"{"[redacted]_us":12345678}"#),
            (r#"{"igw_a_us":12345678}"#, r#"{"[redacted]":"[redacted]"}"#),
            (r#"{"m":"\"_us\":12345678}"}"#, r#"{"m":"\"_us\":[redacted]}"}"#),
            (r#"{"m":"\u0812345678"}"#, r#"{"m":"[redacted]"}"#),
        ] {
            let out = scrubbed(&redactor, dirty);
            assert_eq!(out, clean);
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
        }
    }

    #[test]
    fn configured_secrets_are_taken_out_in_every_form() {
        let secrets = ["correct-horse-battery", "tok12", "with\"quote\\and-slash", "p[redacted]word", "redacted"];
        let redactor = redactor(&secrets);
        for secret in &secrets[..4] {
            for place in ["", "x", "xyz", "\n", "\\", "é"] {
                assert_eq!(text(&redactor, &format!("{place}{secret}-")), format!("{place}[redacted]-"), "{secret}");
            }
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{secret}:"));
            assert_eq!(text(&redactor, &format!("is {basic}.")), "is [redacted].");
        }
        assert_eq!(scrubbed(&redactor, "panic tok12"), "panic \"[redacted]\"");
    }

    #[test]
    fn a_reload_replaces_the_secrets_of_every_clone() {
        let redactor = redactor(&["correct-horse-battery"]);
        redactor.clone().replace(vec!["staple-staple-staple".into()]);
        assert_eq!(text(&redactor, "correct-horse-battery"), "correct-horse-battery");
        assert_eq!(text(&redactor, "staple-staple-staple"), "[redacted]");
        assert_eq!(redactor.total(), 1);
    }

    #[test]
    fn a_long_line_of_finds_takes_linear_time() {
        let redactor = redactor(&["correct-horse-battery"]);
        for piece in [
            "a%40b",
            "a@",
            "1-",
            "12345678,",
            "Basic x ",
            "igw_",
            "igw_a ",
            "Basic%20",
            "\\u0812",
            "correct-horse-battery ",
        ] {
            let line = serde_json::json!({ "m": piece.repeat(20_000) }).to_string();
            let out = scrubbed(&redactor, &line);
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{piece}");
        }
    }

    /// Texts made of what the rules look for and what could confuse them.
    fn nasty() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\\"),
            Just("\""),
            Just("@"),
            Just("%40"),
            Just("%"),
            Just("-"),
            Just(" "),
            Just("."),
            Just("+62"),
            Just("igw_"),
            Just("iluma_live_"),
            Just("Basic "),
            Just("bearer"),
            Just("_us\":"),
            Just("[redacted]"),
            Just("3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
            Just("msg_1234567890123456789012345678901a"),
            Just("2026-11-23T09:15:00.1Z"),
            Just("\u{1}"),
            Just("\n"),
            Just("\\u00"),
            Just("123"),
            Just("0"),
            Just("é"),
            Just("secret-"),
            Just("number-one"),
            Just("ab"),
            Just(","),
            Just("redacted"),
            Just("p]["),
            Just("{}:"),
        ];
        prop_oneof![proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()), ".{0,60}",]
    }

    fn knowing() -> Redactor {
        redactor(&["secret-number-one", "ab0", "[red", "p][red", "0é\"0", "u00e9", "edacted]p"])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn arbitrary_bytes_are_scrubbed_once_and_for_all(mut line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let redactor = knowing();
            redactor.scrub(&mut line);
            let once = line.clone();
            prop_assert_eq!(redactor.scrub(&mut line), 0);
            prop_assert_eq!(line, once);
        }

        #[test]
        fn json_stays_json_and_nothing_is_found_twice(key in nasty(), value in nasty(), number in any::<i64>()) {
            let redactor = knowing();
            let line = format!(
                "{{{}:{},\"n\":{number},\"d_us\":{number}}}",
                serde_json::Value::from(key), serde_json::Value::from(value),
            );
            let once = scrubbed(&redactor, &line);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&once).is_ok(), "{}", once);
            prop_assert_eq!(scrubbed(&redactor, &once), once);
        }

        #[test]
        fn raw_nasty_lines_are_scrubbed_once_and_for_all(line in nasty()) {
            let redactor = knowing();
            let once = scrubbed(&redactor, &line);
            prop_assert_eq!(scrubbed(&redactor, &once), once);
        }

        #[test]
        fn no_account_number_survives(before in nasty(), number in "[0-9]{7,19}", after in nasty(), raw in any::<bool>()) {
            let redactor = redactor(&["secret-number-one"]);
            let planted = format!("{before}{number}{after}");
            let line = if raw { planted } else { serde_json::json!({ "message": planted }).to_string() };
            // Its place in a raw line may make it a counter of a line that is no log line of ours.
            prop_assume!(!(raw && before.ends_with("_us\":")));
            let out = scrubbed(&redactor, &line);
            prop_assert!(!out.contains(&number), "{}", out);
        }

        #[test]
        fn no_secret_survives(before in nasty(), secret in "[!-~]{4,40}", after in nasty()) {
            let redactor = redactor(&[&secret]);
            prop_assume!(!"[redacted]".contains(&secret) && !before.contains(&secret) && !after.contains(&secret));
            let out = text(&redactor, &format!("{before}{secret}{after}"));
            prop_assert!(!out.contains(&secret), "{}", out);
        }
    }
}
