//! The type and the encoding of a request body.

use super::body::BodyError;
use super::boundary::Boundary;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// The kinds of body in which a reference can be found.
#[derive(Debug)]
pub enum Kind {
    /// `application/json`, which is read whole and parsed.
    Json,
    /// `application/x-www-form-urlencoded`, which is read whole and parsed.
    Form,
    /// `multipart/form-data`, which is processed while it is forwarded.
    Multipart(Boundary),
}

/// The charset that a head declares for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// UTF-8, which is also the default.
    Utf8,
    /// US-ASCII, which means the same as UTF-8 if every byte of the body is ASCII.
    Ascii,
    /// Another charset, more than one charset, or the parameter `charset*`.
    Other,
}

impl Kind {
    /// Returns the kind that a request's head declares for a body in UTF-8 or US-ASCII. A body without a content type
    /// is JSON, because Iluma reads it as JSON.
    ///
    /// # Errors
    /// Returns an error if the body has a content encoding, another type or charset, a malformed boundary, or more than
    /// one content type.
    pub fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        match Self::with_charset(headers)? {
            (kind, Charset::Utf8 | Charset::Ascii) => Ok(kind),
            // JSON is UTF-8 (RFC 8259, section 8.1); in another charset the bytes would mean something else.
            (_, Charset::Other) => Err(BodyError::UnknownType),
        }
    }

    /// Returns the kind and the charset of a body.
    ///
    /// # Errors
    /// Returns an error if the body has a content encoding, another type, a malformed boundary, or more than one
    /// content type.
    pub(super) fn with_charset(headers: &HeaderMap) -> Result<(Self, Charset), BodyError> {
        if is_encoded(headers) {
            return Err(BodyError::Encoded);
        }
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let Some(value) = types.next() else { return Ok((Self::Json, Charset::Utf8)) };
        if types.next().is_some() {
            return Err(BodyError::UnknownType);
        }
        // Most clients send exactly this.
        if value == "application/json" {
            return Ok((Self::Json, Charset::Utf8));
        }
        let essence = essence(value);
        if essence.eq_ignore_ascii_case(b"multipart/form-data") {
            let boundary = Boundary::of(value.as_bytes()).ok_or(BodyError::Malformed)?;
            return Ok((Self::Multipart(boundary), Charset::Utf8));
        }
        let kind = if essence.eq_ignore_ascii_case(b"application/json") {
            Self::Json
        } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            Self::Form
        } else {
            return Err(BodyError::UnknownType);
        };
        Ok((kind, declared(value)))
    }
}

/// The content encodings that the gateway decodes in requests. Brotli is not among them, because its window takes up to
/// 16 MiB for each body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// Returns the content encoding of a body; `None` for a plain body.
    ///
    /// # Errors
    /// Returns an error for an unknown encoding, or for more than one encoding.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, BodyError> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let value = value.as_bytes().to_ascii_lowercase();
        match (value.trim_ascii(), values.next()) {
            (b"identity", None) => Ok(None),
            (b"gzip" | b"x-gzip", None) => Ok(Some(Self::Gzip)),
            (b"deflate", None) => Ok(Some(Self::Deflate)),
            _ => Err(BodyError::Encoded),
        }
    }
}

/// Returns true if the body has a content encoding, known or unknown.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    !matches!(Encoding::of(headers), Ok(None))
}

/// Returns a content type without its parameters, such as `text/html` for `text/html; charset=utf-8`.
#[must_use]
pub fn essence(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii()
}

/// Returns the charsets that a content type names, in the order of its parameters. A parameter `charset*` (RFC 8187)
/// counts as the charset `*`.
pub(super) fn charsets(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let parameters = value.as_bytes().split(|b| *b == b';').skip(1).map(<[u8]>::trim_ascii);
    parameters.filter_map(|parameter| {
        let at = parameter.iter().position(|b| *b == b'=')?;
        let name = parameter[..at].trim_ascii();
        // `charset*` and `charset*0` count as unknown charsets.
        let named = name.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"charset"));
        let exact = name.len() == 7;
        let value = parameter[at + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|c| c.strip_suffix(b"\"")).unwrap_or(value);
        (named && (exact || name[7] == b'*')).then_some(if exact { value } else { b"*" })
    })
}

/// Returns the charset that a content type declares.
fn declared(value: &HeaderValue) -> Charset {
    let mut charsets = charsets(value);
    match (charsets.next(), charsets.next()) {
        (None, _) => Charset::Utf8,
        (Some(one), None) if one.eq_ignore_ascii_case(b"utf-8") || one.eq_ignore_ascii_case(b"utf8") => Charset::Utf8,
        (Some(one), None) if one.eq_ignore_ascii_case(b"us-ascii") || one.eq_ignore_ascii_case(b"ascii") => {
            Charset::Ascii
        }
        (Some(_), _) => Charset::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_is_known_if_it_is_named_once_and_plainly() {
        for (value, expected) in [
            ("application/json", Charset::Utf8),
            ("application/json; charset=UTF-8", Charset::Utf8),
            ("application/json;charset=\"utf8\"", Charset::Utf8),
            ("application/json; charset=us-ascii", Charset::Ascii),
            ("application/json; charset=utf-16", Charset::Other),
            ("application/json; charset=utf-8; charset=utf-8", Charset::Other),
            ("application/json; charset*=utf-8''utf-8", Charset::Other),
            ("application/json; charset*0=utf; charset*1=-8", Charset::Other),
            ("application/json; charsets=x; profile=\"charset\"", Charset::Utf8),
        ] {
            assert_eq!(declared(&value.parse().unwrap()), expected, "{value}");
        }
    }

    #[test]
    fn one_known_encoding_is_read() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| _ = headers.append(CONTENT_ENCODING, value.parse().unwrap()));
            Encoding::of(&headers)
        };
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["Identity"], Ok(None)),
            (&["GZip"], Ok(Some(Encoding::Gzip))),
            (&["x-gzip"], Ok(Some(Encoding::Gzip))),
            (&["deflate"], Ok(Some(Encoding::Deflate))),
            (&["br"], Err(BodyError::Encoded)),
            (&["zstd"], Err(BodyError::Encoded)),
            (&["gzip, br"], Err(BodyError::Encoded)),
            (&["gzip", "gzip"], Err(BodyError::Encoded)),
        ] {
            assert_eq!(of(values), expected, "{values:?}");
        }
    }
}
