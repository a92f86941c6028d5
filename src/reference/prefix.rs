//! Prefixed references: toward Iluma a reference is `<tenant>:<reference>`, so that no two teams share one.
//!
//! Invariants: prefixing inserts the prefix and changes no other byte; a request whose reference can't be read exactly
//! is refused; no character of a prefix needs an escape in JSON, forms and queries, except its colon in forms and
//! queries.

use crate::base::name::TenantName;
use bytes::Bytes;
use std::sync::Arc;

/// The longest reference in bytes, after decoding. The API document shows references of about ten characters. The bound
/// is needed because answers and callbacks repeat the reference.
pub(super) const LARGEST_REFERENCE: usize = 4 << 10;

/// A team's name and a colon, which precede the team's references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePrefix(TenantName);

impl ReferencePrefix {
    /// Returns the prefix of a team.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Self {
        Self(tenant.clone())
    }

    /// Returns the team whose prefix this is.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.0
    }

    pub(super) fn name(&self) -> &str {
        self.0.as_str()
    }
}

/// The prefixes of all teams of an account.
#[derive(Debug, Clone)]
pub struct ReferencePrefixes(Arc<[TenantName]>);

impl ReferencePrefixes {
    /// Returns the prefixes of these teams. A reference with the prefix of any other team counts as unprefixed.
    #[must_use]
    pub fn of(tenants: impl IntoIterator<Item = TenantName>) -> Self {
        let mut names: Vec<_> = tenants.into_iter().collect();
        names.sort_unstable();
        Self(names.into())
    }

    /// Returns the team with this name; `None` if no team of the account has this name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&TenantName> {
        let at = self.0.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        self.0.get(at)
    }

    /// Returns true if a server may find the prefix of a team other than `own` at the beginning of `reference`. Leading
    /// spaces are ignored, because some servers trim values. `reference` may be only the beginning of a reference, as
    /// far as it was received.
    #[must_use]
    pub fn is_foreign(&self, own: &ReferencePrefix, reference: &str) -> bool {
        // Some servers also count a byte order mark as a space.
        let reference = reference.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}');
        let name = reference.split_once(':').map(|(name, _)| name);
        name.and_then(|name| self.tenant(name)).is_some_and(|tenant| tenant != own.tenant())
    }
}

/// Decodes a reference from JSON text with quotes. Returns `None` if the text is not a JSON string.
#[must_use]
pub fn reference_text(json: &[u8]) -> Option<String> {
    serde_json::from_slice(json).ok()
}

/// Returns a reference as JSON text with quotes.
#[must_use]
pub fn reference_json(text: &str) -> Bytes {
    // A string can always be written as JSON.
    serde_json::to_vec(text).unwrap_or_default().into()
}

/// Reads a prefix at the beginning of a JSON string; `inner` is the text between the quotes. The name and the colon may
/// be written with `\u` escapes. Returns the name, which may be empty or belong to no team, and the position after the
/// colon. Returns `None` if `inner` does not begin with a valid name and a colon.
pub(super) fn json_prefix(inner: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 0);
    loop {
        let (letter, end) = match inner.get(at)? {
            b'\\' => {
                let hex = inner.get(at + 1..at + 6)?.strip_prefix(b"u")?;
                let code = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
                (u8::try_from(code).ok()?, at + 6)
            }
            plain => (*plain, at + 1),
        };
        at = end;
        match letter {
            b':' => return Some((name, at)),
            b'a'..=b'z' | b'0'..=b'9' | b'-' if name.len() < 32 => name.push(char::from(letter)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_however_it_is_spelled() {
        for (inner, name, rest) in [
            ("lending:foo", "lending", "foo"),
            (r"lending\u003Afoo", "lending", "foo"),
            (r"\u006c\u0065nding\u003a\u003a", "lending", r"\u003a"),
            ("a:b:c", "a", "b:c"),
            (":x", "", "x"),
        ] {
            let (found, at) = json_prefix(inner.as_bytes()).unwrap();
            assert_eq!((found.as_str(), &inner[at..]), (name, rest), "{inner}");
        }
        for none in ["", "lending", "Lending:x", "lending :x", "é:x", r"a\n:x", r"\u00", r"\u12e9:", &"x".repeat(99)] {
            assert_eq!(json_prefix(none.as_bytes()), None, "{none}");
        }
    }
}
