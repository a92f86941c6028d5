//! The search for all known secrets at once.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::scan::scan;
use super::spans::{Find, MARK, Span, frame};

/// The configured secrets, with an index for a search of all of them at once.
///
/// Every indexed pattern has at least `stride + 3` bytes. So each of its occurrences in a line covers a position that
/// is a multiple of `stride`, and the three bytes after that position. The search reads only the four bytes at each
/// multiple of `stride`, and looks them up in an index. The index has the four bytes at each of the first `stride`
/// offsets of each pattern. So the cost does not depend on the number of secrets.
pub(super) struct Secrets {
    patterns: Vec<Pattern>,
    /// Patterns that are too short for the index, searched one by one.
    short: Vec<Pattern>,
    stride: usize,
    /// The index, sorted: the four bytes, the index of their pattern in `patterns`, and their offset in the pattern.
    windows: Vec<(u32, usize, usize)>,
    /// A filter with one bit for the hash of each window. If the bit of four bytes is 0, they are not in the index.
    filter: Vec<u64>,
}

struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    /// True if the pattern is the beginning of a base64 text. The base64 characters that follow it belong to the find
    /// too.
    encoded: bool,
}

/// The number of bytes that the index compares. A secret with fewer bytes is not searched.
const WINDOW: usize = 4;
/// The length of the shortest pattern in the index. Shorter patterns are searched one by one.
const INDEXED: usize = 12;
/// The exponent of the filter's size: 2^16 bits are 8 KiB. It stays in the first-level cache, and is sparse for
/// hundreds of secrets.
const FILTER_BITS: u32 = 16;

impl Secrets {
    pub(super) fn new(secrets: &[SecretString]) -> Self {
        let mut all: Vec<Pattern> = Vec::new();
        let mut add = |bytes: Vec<u8>, encoded| {
            let pattern = Pattern { bytes: Zeroizing::new(bytes), encoded };
            let known = all.iter().any(|other| other.bytes == pattern.bytes);
            // A pattern that is a part of the mark is left out: it would be found in every mark.
            if pattern.bytes.len() >= WINDOW && !known && memmem::find(MARK, &pattern.bytes).is_none() {
                all.push(pattern);
            }
        };
        for secret in secrets {
            let secret = secret.expose_secret();
            if secret.len() < WINDOW {
                continue;
            }
            // The secret's spelling in a JSON string, without the quotes around it.
            if let Ok(quoted) = serde_json::to_vec(secret) {
                let quoted = Zeroizing::new(quoted);
                add(quoted[1..quoted.len() - 1].to_vec(), false);
            }
            // The part of base64("secret:") that does not depend on the text after the secret.
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

    /// Returns the spans to remove from the line.
    pub(super) fn spans(&self, line: &[u8]) -> Vec<Span> {
        // The list allocates memory only for the first find.
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
            // The filter is empty if there are no patterns.
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
    /// Returns the position of this pattern at `start`. If `last`, the previous find, contains the pattern, returns
    /// `last`.
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
    // Fibonacci hashing: the upper bits of a product with 2^32 / golden ratio are well distributed.
    let hash = window.wrapping_mul(0x9E37_79B1) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}
