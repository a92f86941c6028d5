//! The normal form for the path of a request.
//!
//! Invariants of a [`NormalPath`]: it begins with `/`; no segment is empty, except after one trailing slash; no segment
//! is `.` or `..`, or hides a slash in an encoding, also if it is encoded several times; unreserved characters are
//! decoded, and the remaining encodings are in upper case (RFC 3986, section 6.2.2). The same path is routed and
//! forwarded.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The largest number of decoding rounds in the search for a hidden slash or dot segment. Some servers decode twice. A
/// path that is still encoded after these rounds is an attack, and is refused.
const DECODING_ROUNDS: usize = 8;

/// A path in normal form.
#[derive(Debug, PartialEq, Eq)]
pub struct NormalPath<'a>(Cow<'a, str>);

/// The reason why a path has no normal form. The gateway answers each with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A segment is `.` or `..`, or an encoding of them.
    #[error("the path has a segment `.` or `..`; send it without")]
    DotSegment,
    /// The path has two slashes in a row.
    #[error("the path has two slashes in a row; send one")]
    EmptySegment,
    /// The path has an encoded slash or backslash, or a plain backslash.
    #[error("the path has an encoded slash or a backslash; send it without")]
    EncodedSlash,
    /// The path has a broken percent-encoding, a control character, a character that a path can't hold or that is
    /// outside ASCII, or no leading slash.
    #[error("the path is malformed: it must begin with a slash and contain only ASCII characters, also after decoding")]
    Malformed,
}

impl<'a> NormalPath<'a> {
    /// Returns the normal form of `path`. A path without percent-encodings is borrowed, and not copied.
    ///
    /// # Errors
    /// Returns the reason why the path can't be routed or forwarded.
    pub fn parse(path: &'a str) -> Result<Self, PathError> {
        if is_plain(path.as_bytes()) { Ok(Self(Cow::Borrowed(path))) } else { Self::normalized(path) }
    }

    fn normalized(path: &'a str) -> Result<Self, PathError> {
        if !path.starts_with('/') {
            return Err(PathError::Malformed);
        }
        let is_encoded = path.contains('%');
        let normal = if is_encoded { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
        if let Some(bad) = normal.bytes().find(|b| !b.is_ascii_graphic() || *b == b'\\') {
            return Err(if bad == b'\\' { PathError::EncodedSlash } else { PathError::Malformed });
        }
        let path = Self(normal);
        path.segments().try_for_each(|segment| check_segment(segment, is_encoded))?;
        Ok(path)
    }

    /// Returns the path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the segments. A trailing slash adds no segment, and `/` has none.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let inner = &self.0[1..];
        let mut rest = (!inner.is_empty()).then(|| inner.strip_suffix('/').unwrap_or(inner));
        std::iter::from_fn(move || {
            let path = rest?;
            // Segments are too short for a search that is optimized for long texts.
            let end = path.bytes().position(|b| b == b'/');
            rest = end.map(|at| &path[at + 1..]);
            Some(end.map_or(path, |at| &path[..at]))
        })
    }

    /// Returns true if a segment is one of `words`. Letter case and repeated encodings make no difference. The
    /// comparison ends at the first character that is not a letter, a digit, `_` or `-`, because some servers cut
    /// suffixes such as `;…`, `.json` or a space.
    #[must_use]
    pub fn names(&self, words: &[&str]) -> bool {
        self.segments().any(|segment| {
            // Only an encoding can still hide a word. Every segment of a normal path can be decoded.
            let decoded = match segment.contains('%') {
                true => Cow::Owned(decode_fully(segment).unwrap_or_default()),
                false => Cow::Borrowed(segment),
            };
            let end = decoded.bytes().position(|b| !is_word(b)).unwrap_or(decoded.len());
            words.iter().any(|word| decoded[..end].eq_ignore_ascii_case(word))
        })
    }
}

/// Returns true if a path is certainly in normal form. Most paths are: the loops over their bytes
/// have no branches, so the compiler makes them fast.
fn is_plain(path: &[u8]) -> bool {
    let is_known = |b: &u8| b.is_ascii_alphanumeric() | matches!(b, b'/' | b'_' | b'-' | b'.');
    let is_bad = |pair: (&u8, &u8)| (*pair.0 == b'/') & matches!(*pair.1, b'/' | b'.');
    path.first() == Some(&b'/')
        && path.iter().fold(true, |so_far, b| so_far & is_known(b))
        && !path.iter().zip(path.iter().skip(1)).fold(false, |so_far, pair| so_far | is_bad(pair))
}

/// Checks a segment; `is_encoded` is false if the whole path has no encodings.
fn check_segment(segment: &str, is_encoded: bool) -> Result<(), PathError> {
    if segment.is_empty() {
        return Err(PathError::EmptySegment);
    }
    // Servers that first cut off path parameters read `..;x` as a dot segment.
    let is_dots = |text: &str| text.starts_with('.') && matches!(text.split(';').next(), Some("." | ".."));
    if is_dots(segment) {
        return Err(PathError::DotSegment);
    }
    if !is_encoded || !segment.contains('%') {
        return Ok(());
    }
    let decoded = decode_fully(segment).ok_or(PathError::Malformed)?;
    if decoded.contains(['/', '\\']) {
        return Err(PathError::EncodedSlash);
    }
    if is_dots(&decoded) {
        return Err(PathError::DotSegment);
    }
    // A letter outside ASCII may fold to an ASCII letter: U+212A in lower case is `k`.
    if decoded.bytes().any(|b| b.is_ascii_control() || !b.is_ascii()) {
        return Err(PathError::Malformed);
    }
    Ok(())
}

/// Returns a segment with all encodings decoded; `None` if that takes more than [`DECODING_ROUNDS`] rounds.
fn decode_fully(segment: &str) -> Option<String> {
    let mut text = segment.to_owned();
    for _ in 0..DECODING_ROUNDS {
        let next = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if next == text {
            return Some(text);
        }
        text = next;
    }
    None
}

/// Decodes the characters that RFC 3986 calls unreserved, and writes other encodings in upper case.
fn decode_unreserved(path: &str) -> Result<String, PathError> {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        let digits = rest.as_bytes().get(at + 1..at + 3).ok_or(PathError::Malformed)?;
        let (Some(high), Some(low)) = (hex(digits[0]), hex(digits[1])) else { return Err(PathError::Malformed) };
        let byte = high << 4 | low;
        if is_unreserved(byte) {
            normal.push(char::from(byte));
        } else {
            normal.push('%');
            normal.push(char::from(digits[0].to_ascii_uppercase()));
            normal.push(char::from(digits[1].to_ascii_uppercase()));
        }
        rest = &rest[at + 3..];
    }
    normal.push_str(rest);
    Ok(normal)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_brought_into_normal_form_in_linear_time() {
        use crate::base::linear::{assert_linear, repeated};
        for (before, piece, behind) in [
            ("/", "%25", ""),
            ("/%", "25", ""),
            ("/", "a/", ""),
            ("/", "%61", ""),
            ("/", ";", ""),
            ("/.", ";..", ""),
            ("/", "%5", ""),
        ] {
            assert_linear(
                &format!("{before}{piece}"),
                |size| repeated(before, piece, behind, size),
                |text| {
                    if let Ok(path) = NormalPath::parse(text) {
                        let _ = path.names(&["callback"]);
                    }
                },
            );
        }
    }
    use proptest::prelude::*;

    fn normal(path: &str) -> Result<String, PathError> {
        NormalPath::parse(path).map(|p| p.as_str().to_owned())
    }

    #[test]
    fn unreserved_characters_are_decoded_and_the_rest_is_written_one_way() {
        for (path, expected) in [
            ("/", "/"),
            ("/v1/identity", "/v1/identity"),
            ("/v1/identity/", "/v1/identity/"),
            ("/%76%31/%69dentity", "/v1/identity"),
            ("/a%3ab", "/a%3Ab"),
            ("/a%20b%2bc", "/a%20b%2Bc"),
            ("/a;x=1", "/a;x=1"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_could_mean_another_path_elsewhere_has_no_normal_form() {
        use PathError::*;
        for (path, error) in [
            ("", Malformed),
            ("*", Malformed),
            ("v1", Malformed),
            ("/a//b", EmptySegment),
            ("//", EmptySegment),
            ("/a//", EmptySegment),
            ("/a/./b", DotSegment),
            ("/a/../b", DotSegment),
            ("/a/..", DotSegment),
            ("/a/%2e%2E/b", DotSegment),
            ("/a/%252e%252e/b", DotSegment),
            ("/a/..;x/b", DotSegment),
            ("/a%2fb", EncodedSlash),
            ("/a%5Cb", EncodedSlash),
            ("/a\\b", EncodedSlash),
            ("/a%252fb", EncodedSlash),
            ("/a%25252fb", EncodedSlash),
            ("/a%252525252fb", EncodedSlash),
            ("/a%25252525252525252525252fb", Malformed),
            ("/a%", Malformed),
            ("/a%4", Malformed),
            ("/a%zz", Malformed),
            ("/a%00", Malformed),
            ("/a%0d%0ab", Malformed),
            ("/a b", Malformed),
            ("/é", Malformed),
            ("/callbac%E2%84%AA/urls", Malformed),
            ("/callbac%25E2%2584%25AA/urls", Malformed),
            ("/a%FFb", Malformed),
        ] {
            assert_eq!(normal(path), Err(error), "{path}");
        }
    }

    #[test]
    fn a_word_is_found_in_every_spelling() {
        for path in [
            "/businesses/1/api_keys",
            "/BUSINESSES/1",
            "/%62usinesses/1",
            "/x/businesses",
            "/businesses;v=1/x",
            "/businesses%3Bv/x",
            "/%2562usinesses/x",
            "/businesses%20/x",
            "/businesses/",
            "/businesses.json",
            "/businesses,x",
        ] {
            assert!(NormalPath::parse(path).unwrap().names(&["businesses"]), "{path}");
        }
        for path in ["/business/1", "/mybusinesses", "/businesses2", "/v1/x?businesses"] {
            assert!(!NormalPath::parse(path).unwrap().names(&["businesses"]), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(path in "/[ -~]{0,40}") {
            if let Ok(once) = normal(&path) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
            }
        }

        #[test]
        fn a_plain_path_is_its_own_normal_form(path in "(/|[a-zA-Z0-9_.%;-]{0,3}){0,8}") {
            if is_plain(path.as_bytes()) {
                prop_assert_eq!(NormalPath::normalized(&path).map(|normal| normal.0), Ok(Cow::Borrowed(path.as_str())));
            }
        }

        #[test]
        fn encoding_a_character_changes_nothing(path in "/[a-z0-9_~-]{1,8}(/[a-z0-9_~-]{1,8}){0,3}", at in 1_usize..20) {
            let at = at.min(path.len() - 1);
            if path.as_bytes()[at] != b'/' {
                let encoded = format!("{}%{:02x}{}", &path[..at], path.as_bytes()[at], &path[at + 1..]);
                prop_assert_eq!(normal(&encoded), Ok(path));
            }
        }
    }
}
