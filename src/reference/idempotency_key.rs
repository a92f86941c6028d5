//! The `Idempotency-Key` of a request: a name that a team gives to one request and its repetitions.

use super::headers::IDEMPOTENCY_KEY;
use http::HeaderMap;

/// The largest length of a key in bytes: UUIDs and the ids of common ledgers are far shorter.
const LARGEST: usize = 255;

/// A valid idempotency key, without quotes.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Box<[u8]>);

/// The error for a key that is given twice, or is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters or as a string of these in quotes; nothing was sent"
)]
pub struct MalformedKey;

impl IdempotencyKey {
    /// Returns the key of a request; `None` if the request has no key. The key may be in quotes (RFC 9651, section
    /// 3.3.3), which are removed.
    ///
    /// # Errors
    /// Returns an error if the key is malformed or given twice.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, MalformedKey> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(MalformedKey);
        }
        let value = value.as_bytes().trim_ascii();
        let key = match value.strip_prefix(b"\"") {
            Some(rest) => unquoted(rest.strip_suffix(b"\"").ok_or(MalformedKey)?)?,
            None => value.to_vec(),
        };
        let is_valid = (1..=LARGEST).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if is_valid { Ok(Some(Self(key.into()))) } else { Err(MalformedKey) }
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Decodes the text between the quotes of a string, in which a backslash escapes a quote or a backslash.
fn unquoted(text: &[u8]) -> Result<Vec<u8>, MalformedKey> {
    let (mut key, mut bytes) = (Vec::with_capacity(text.len()), text.iter());
    while let Some(byte) = bytes.next() {
        key.push(match byte {
            b'"' => return Err(MalformedKey),
            b'\\' => *bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\')).ok_or(MalformedKey)?,
            byte => *byte,
        });
    }
    Ok(key)
}

impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn key(values: &[&[u8]]) -> Result<Option<String>, MalformedKey> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        Ok(IdempotencyKey::of(&headers)?.map(|key| String::from_utf8(key.as_bytes().to_vec()).unwrap()))
    }

    #[test]
    fn a_key_is_visible_characters_with_or_without_quotes() {
        let longest = "k".repeat(LARGEST);
        for (value, expected) in [
            ("a", "a"),
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            (" \"a\" ", "a"),
            ("a,b;c\"d", "a,b;c\"d"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (&longest, &longest),
            (&format!("\"{longest}\""), &longest),
        ] {
            assert_eq!(key(&[value.as_bytes()]), Ok(Some(expected.to_owned())), "{value}");
        }
        assert_eq!(key(&[]), Ok(None));
    }

    #[test]
    fn a_key_that_is_none_or_two_is_refused() {
        let too_long = "k".repeat(LARGEST + 1);
        for values in [
            &[b"".as_slice()][..],
            &[b" "],
            &[b"\"\""],
            &[b"\""],
            &[b"\"a"],
            &[b"\"a\";p=1"],
            &[b"\"a\"b\""],
            &[b"\"a\\b\""],
            &[b"\"a\\\""],
            &[b"a b"],
            &[b"\"a b\""],
            &[b"a\tb"],
            &["\u{e9}".as_bytes()],
            &[too_long.as_bytes()],
            &[b"a", b"a"],
        ] {
            assert_eq!(key(values), Err(MalformedKey), "{values:?}");
        }
    }
}
