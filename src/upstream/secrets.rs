//! Secrets that no answer may show: the keys and callback tokens of all accounts.
//!
//! Invariants:
//! - A secret is found in clear, and as the user name in Basic credentials. Each of these is also found with JSON
//!   escapes, percent-encoded, or both.
//! - Masking keeps the length of a text.
//! - The time is linear in the length of a text.

use crate::base::unescape::{readings, units};
use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use std::ops::Range;
use zeroize::Zeroizing;

/// The shortest secret in bytes that is masked: shorter secrets would match ordinary words.
const SHORTEST: usize = 8;

/// The length of the longest spelling of one byte: `%61`, with each character as an escape of JSON
/// (`\u0025\u0036\u0031`).
const SPELLING: usize = 18;

/// The search for the secrets of all accounts in answers.
pub struct Secrets {
    /// The secrets in clear and as Basic credentials, sorted.
    patterns: Vec<Zeroizing<Vec<u8>>>,
    /// The search for all secrets; `None` if there are none.
    finder: Option<AhoCorasick>,
    /// The same search in any letter case, because names of header fields are in lower case.
    folded: Option<AhoCorasick>,
    /// The length in bytes of the longest possible spelling of a secret.
    reach: usize,
}

impl Secrets {
    /// Makes the search for these API keys and callback tokens.
    pub fn new<'a>(
        keys: impl IntoIterator<Item = &'a SecretString>,
        tokens: impl IntoIterator<Item = &'a SecretString>,
    ) -> Self {
        let mut patterns: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        let mut add = |text: String| {
            let pattern = Zeroizing::new(text.into_bytes());
            if pattern.len() >= SHORTEST && !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        };
        for key in keys {
            let key = key.expose_secret();
            add(key.to_owned());
            let basic = Zeroizing::new(format!("{key}:"));
            add(STANDARD_NO_PAD.encode(basic.as_bytes()));
            add(URL_SAFE_NO_PAD.encode(basic.as_bytes()));
        }
        tokens.into_iter().for_each(|token| add(token.expose_secret().to_owned()));
        let build = |fold: bool| {
            let mut builder = AhoCorasick::builder();
            let built = builder
                .match_kind(MatchKind::LeftmostLongest)
                .ascii_case_insensitive(fold)
                .build(patterns.iter().map(|pattern| &pattern[..]));
            built.ok().filter(|_| !patterns.is_empty())
        };
        let (finder, folded) = (build(false), build(true));
        patterns.sort_unstable_by(|one, other| one.as_slice().cmp(other.as_slice()));
        let reach = patterns.iter().map(|pattern| pattern.len()).max().unwrap_or(0) * SPELLING;
        Self { patterns, finder, folded, reach }
    }

    /// Removes the fields whose name or value contains a secret.
    pub(super) fn clean(&self, fields: &mut HeaderMap) {
        let tells = |text: &[u8]| !self.places(self.folded.as_ref(), text).is_empty();
        let telling = fields.iter().filter(|(name, value)| tells(name.as_str().as_bytes()) || tells(value.as_bytes()));
        let names: Vec<_> = telling.map(|(name, _)| name.clone()).collect();
        for name in names {
            fields.remove(name);
        }
    }

    /// Returns `data` with each secret overwritten, in the same length.
    pub(super) fn cover(&self, data: Bytes) -> Bytes {
        let places = self.places(self.finder.as_ref(), &data);
        if places.is_empty() {
            return data;
        }
        let mut covered = BytesMut::from(&data[..]);
        for place in places {
            covered[place].fill(b'*');
        }
        covered.freeze()
    }

    /// Returns the number of bytes at the end of `data` that may be the beginning of a secret in any spelling.
    pub(super) fn undecided(&self, data: &[u8]) -> usize {
        let tail = &data[data.len().saturating_sub(self.reach)..];
        let mut start = tail.len();
        let escapes = memchr::memchr2_iter(b'\\', b'%', tail);
        // An escape at the end may be incomplete.
        let cuts: Vec<usize> = escapes.filter(|at| tail.len() - at < SPELLING).collect();
        for cut in cuts.into_iter().chain([tail.len()]) {
            let part = &tail[..cut];
            start = start.min(cut - self.begins(part));
            // The first reading is the text itself.
            for reading in readings(part, false).into_iter().skip(1) {
                let (bytes, places): (Vec<u8>, Vec<usize>) = units(part, reading).unzip();
                let first = bytes.len() - self.begins(&bytes);
                start = start.min(places.get(first).copied().unwrap_or(cut));
            }
        }
        tail.len() - start
    }

    /// Returns the length of the longest end of `text` that is the beginning of a secret, and not a whole secret.
    fn begins(&self, text: &[u8]) -> usize {
        let longest = self.reach / SPELLING;
        let begins = |end: &[u8]| {
            // If any longer pattern begins with `end`, the first pattern that sorts after `end` begins with it too.
            let next = self.patterns.partition_point(|pattern| pattern.as_slice() <= end);
            self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(end))
        };
        let from = (text.len() + 1).saturating_sub(longest);
        (from..text.len()).find(|at| begins(&text[*at..])).map_or(0, |at| text.len() - at)
    }

    /// Returns the positions of all secrets in any spelling.
    fn places(&self, finder: Option<&AhoCorasick>, text: &[u8]) -> Vec<Range<usize>> {
        let Some(finder) = finder else { return Vec::new() };
        let mut places: Vec<_> = finder.find_iter(text).map(|found| found.range()).collect();
        for window in self.windows(text) {
            let part = &text[window.clone()];
            // The first reading is the text itself.
            for reading in readings(part, false).into_iter().skip(1) {
                let (bytes, at): (Vec<u8>, Vec<usize>) = units(part, reading).unzip();
                let end = |index: usize| at.get(index).copied().unwrap_or(part.len());
                places.extend(finder.find_iter(&bytes).map(|found| {
                    let (from, to) = (end(found.start()), end(found.end()));
                    window.start + from..window.start + to
                }));
            }
        }
        places
    }

    /// Returns the parts of a text that may contain a secret with escapes. In most texts these are few bytes.
    fn windows(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut windows: Vec<Range<usize>> = Vec::new();
        for at in memchr::memchr2_iter(b'\\', b'%', text) {
            let begins = match &text[at..] {
                [b'\\', sign, ..] => matches!(sign, b'u' | b'/' | b'\\'),
                [b'%', high, low, ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
                _ => false,
            };
            if !begins {
                continue;
            }
            let (from, to) = (at.saturating_sub(self.reach), text.len().min(at + self.reach));
            match windows.last_mut() {
                Some(last) if from <= last.end => last.end = to,
                _ => windows.push(from..to),
            }
        }
        windows
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::linear::{assert_linear, repeated};
    use http::{HeaderName, HeaderValue};

    const KEY: &str = "iluma_development_TESTONLY";
    const OTHER: &str = "iluma_development_OTHERONLY";
    const TOKEN: &str = "token/with+signs~0123";

    fn secrets() -> Secrets {
        let [key, other, token] = [KEY, OTHER, TOKEN].map(SecretString::from);
        Secrets::new([&key, &other], [&token])
    }

    fn spellings(secret: &str) -> Vec<String> {
        let json = secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>();
        let percent = secret.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        let both = percent.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect::<String>();
        let one = format!("\\u{:04x}{}", secret.as_bytes()[0], &secret[1..]);
        let last = format!("{}%{:02x}", &secret[..secret.len() - 1], secret.as_bytes()[secret.len() - 1]);
        vec![secret.to_owned(), json, percent, both, one, last, secret.replace('/', "\\/")]
    }

    #[test]
    fn every_secret_is_covered_in_every_spelling() {
        let basic = STANDARD_NO_PAD.encode(format!("{OTHER}:"));
        for secret in [KEY, OTHER, TOKEN, &basic] {
            for spelling in spellings(secret) {
                let text = format!("{{\"m\":\"key {spelling} 100% a\\nb\"}}");
                let covered = secrets().cover(Bytes::from(text.clone()));
                let expected = text.replace(&spelling, &"*".repeat(spelling.len()));
                assert_eq!(String::from_utf8(covered.to_vec()).unwrap(), expected);
            }
        }
        for same in ["iluma_development_", "nothing \\u0041 %41", r#"{"a":"\/"}"#] {
            assert_eq!(secrets().cover(Bytes::from(same)), same);
        }
    }

    #[test]
    fn no_cut_lets_a_spelling_through() {
        for secret in [KEY, TOKEN] {
            for spelling in spellings(secret) {
                let text = format!("x{spelling}y");
                for cut in 0..text.len() {
                    let (head, tail) = text.as_bytes().split_at(cut);
                    let covered = secrets().cover(Bytes::copy_from_slice(head));
                    let held = secrets().undecided(&covered);
                    let (passed, held) = covered.split_at(covered.len() - held);
                    let rest = secrets().cover([held, tail].concat().into());
                    let all = [passed, &rest].concat();
                    let expected = format!("x{}y", "*".repeat(spelling.len()));
                    assert_eq!(String::from_utf8(all).unwrap(), expected, "{spelling} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn fields_that_tell_a_secret_in_name_or_value_are_dropped() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            (KEY.to_ascii_lowercase(), "1".to_owned()),
            ("x-quoted".to_owned(), format!("a {OTHER}")),
            ("location".to_owned(), spellings(TOKEN)[2].clone()),
            ("x-plain".to_owned(), "iluma".to_owned()),
        ] {
            fields.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        secrets().clean(&mut fields);
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-plain"]);
    }

    #[test]
    fn answers_are_covered_in_linear_time() {
        let secrets = secrets();
        for piece in [KEY, &KEY[..20], "\\u0069", "%69", "\\\\", "\\u0025", "x", "iluma_", "%"] {
            assert_linear(
                piece,
                |size| Bytes::from(repeated("", piece, "", size)),
                |body| {
                    for at in (0..body.len()).step_by(1 << 14) {
                        let covered = secrets.cover(body.slice(at..body.len().min(at + (1 << 14))));
                        let _ = secrets.undecided(&covered);
                    }
                },
            );
        }
    }
}
