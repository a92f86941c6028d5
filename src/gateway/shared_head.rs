//! The head of a request whose answer other teams may get.
//!
//! It is canonical, so that one team's headers can't influence another team's answer.

use crate::reference::{self, essence};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const MAGIC_REPLY: &str = "magic-reply";
const FORWARDED_HEADER: &str = "forwarded-header";
const CONTENT_TYPE_UNCLEAR: &str = "content-type";

const MAGIC: HeaderName = HeaderName::from_static("x-magic-reply");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("iluma-gateway/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// The client's request head, with the decision whether the request bypasses the cache. The head for Iluma is built
/// only if there is a call.
#[derive(Debug)]
pub(super) struct SharedHead<'a> {
    sent: &'a HeaderMap,
    /// The additional headers that the operator allows to be forwarded.
    forwarded: &'a [HeaderName],
    content_type: ContentType,
    /// The reason why the answer must be neither cached nor shared; `None` if it may be.
    pub(super) bypass: Option<&'static str>,
}

impl<'a> SharedHead<'a> {
    /// Decides by the head of a request with a body whether the answer may be cached and shared.
    pub(super) fn of(sent: &'a HeaderMap, forwarded: &'a [HeaderName]) -> Self {
        let content_type = content_type(sent);
        let is_unclear = content_type == ContentType::Unclear || sent.contains_key(CONTENT_ENCODING);
        Self::judged(sent, forwarded, content_type, is_unclear)
    }

    /// Decides by the head of a GET whether the answer may be cached and shared. A GET has no body, so its content type
    /// has no meaning.
    pub(super) fn of_get(sent: &'a HeaderMap, forwarded: &'a [HeaderName]) -> Self {
        Self::judged(sent, forwarded, ContentType::None, sent.contains_key(CONTENT_ENCODING))
    }

    fn judged(sent: &'a HeaderMap, forwarded: &'a [HeaderName], content_type: ContentType, is_unclear: bool) -> Self {
        // The magic reply comes first: it is the reason that teams look for.
        let bypass = if reference::is_magic(sent) {
            Some(MAGIC_REPLY)
        } else if forwarded.iter().any(|name| sent.contains_key(name)) {
            Some(FORWARDED_HEADER)
        } else if is_unclear {
            Some(CONTENT_TYPE_UNCLEAR)
        } else {
            None
        };
        Self { sent, forwarded, content_type, bypass }
    }

    /// Returns the head for Iluma.
    pub(super) fn for_iluma(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCEPT, JSON);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, AGENT);
        match &self.content_type {
            ContentType::None => {}
            ContentType::Canonical(value) => drop(headers.insert(CONTENT_TYPE, value.clone())),
            // Iluma judges the body, for this caller only. The gateway read it as UTF-8, so Iluma must do so too,
            // whatever charset the client named.
            ContentType::Unclear => self.sent.get_all(CONTENT_TYPE).iter().for_each(|value| {
                headers.append(CONTENT_TYPE, without_charset(value));
            }),
        }
        copy(self.sent, &CONTENT_ENCODING, &mut headers);
        self.forwarded.iter().for_each(|name| copy(self.sent, name, &mut headers));
        copy(self.sent, &MAGIC, &mut headers);
        reference::forwardable_request(&mut headers);
        headers
    }
}

/// Returns a content type without its parameters. A multipart type keeps them, because its boundary is one of them.
fn without_charset(value: &HeaderValue) -> HeaderValue {
    let essence = essence(value);
    if essence.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")) {
        return value.clone();
    }
    // A part of a valid value is valid.
    HeaderValue::from_bytes(&essence.to_ascii_lowercase()).unwrap_or(JSON)
}

fn copy(from: &HeaderMap, name: &HeaderName, to: &mut HeaderMap) {
    for value in from.get_all(name) {
        to.append(name.clone(), value.clone());
    }
}

#[derive(Debug, PartialEq, Eq)]
enum ContentType {
    None,
    /// A content type for which all servers read the body in the same way. The value is its canonical form.
    Canonical(HeaderValue),
    /// A content type for which servers may read the body in different ways, or more than one content type.
    Unclear,
}

fn content_type(sent: &HeaderMap) -> ContentType {
    let mut values = sent.get_all(CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        // A body without a type is read as JSON.
        (None, _) => return ContentType::Canonical(JSON),
        (Some(value), None) => value.as_bytes().to_ascii_lowercase(),
        (Some(_), Some(_)) => return ContentType::Unclear,
    };
    let mut parts = value.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let canonical = match parts.next() {
        Some(b"application/json") => JSON,
        Some(b"application/x-www-form-urlencoded") => FORM,
        Some(_) | None => return ContentType::Unclear,
    };
    let mut charsets = parts.filter(|part| part.starts_with(b"charset"));
    let is_plain = match (charsets.next(), charsets.next()) {
        (None, _) => true,
        (Some(charset), None) => is_utf8(charset),
        (Some(_), Some(_)) => false,
    };
    if is_plain { ContentType::Canonical(canonical) } else { ContentType::Unclear }
}

/// Returns true for the parameter `charset=utf-8`, and for ASCII, which is a subset of UTF-8.
fn is_utf8(parameter: &[u8]) -> bool {
    let Some((name, value)) =
        parameter.iter().position(|b| *b == b'=').map(|at| (&parameter[..at], &parameter[at + 1..]))
    else {
        return false;
    };
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    name.trim_ascii() == b"charset" && matches!(value, b"utf-8" | b"utf8" | b"us-ascii")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason for a bypass, and the head for Iluma.
    #[derive(Debug, PartialEq)]
    struct Made {
        bypass: Option<&'static str>,
        headers: HeaderMap,
    }

    fn head(sent: &[(&'static str, &'static str)], forwarded: &[&'static str]) -> Made {
        let mut map = HeaderMap::new();
        for (name, value) in sent {
            map.append(*name, HeaderValue::from_static(value));
        }
        let forwarded: Vec<_> = forwarded.iter().map(|name| HeaderName::from_static(name)).collect();
        let head = SharedHead::of(&map, &forwarded);
        Made { bypass: head.bypass, headers: head.for_iluma() }
    }

    fn names(head: &Made) -> Vec<&str> {
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_shared_request_has_the_same_head_whoever_asks() {
        let plain = head(&[("content-type", "application/json")], &[]);
        let busy = head(
            &[
                ("content-type", "Application/JSON; Charset=\"UTF-8\""),
                ("accept", "text/html"),
                ("accept-language", "id"),
                ("user-agent", "team"),
                ("x-anything", "1"),
                ("authorization", "Basic x"),
                ("if-none-match", "x"),
            ],
            &["x-feature"],
        );
        assert_eq!(busy, plain);
        assert_eq!(names(&plain), ["accept", "accept-encoding", "content-type", "user-agent"]);
        assert_eq!(plain.bypass, None);
    }

    #[test]
    fn a_header_that_may_change_the_answer_bypasses_the_cache() {
        let magic = head(&[("x-magic-reply", "SUCCESS"), ("x-feature", "1")], &["x-feature"]);
        assert_eq!((magic.bypass, magic.headers.len()), (Some(MAGIC_REPLY), 6));
        let forwarded = head(&[("x-feature", "1")], &["x-feature"]);
        assert_eq!((forwarded.bypass, forwarded.headers["x-feature"].to_str().unwrap()), (Some(FORWARDED_HEADER), "1"));
        // The header is never forwarded, even if the operator allows it.
        let credential = head(&[("authorization", "x"), ("x_real_ip", "1")], &["authorization"]);
        assert!(!credential.headers.contains_key("authorization"));
    }

    #[test]
    fn a_charset_is_plain_or_the_answer_is_for_the_caller_alone() {
        for (value, expected) in [
            ("application/json", true),
            ("application/json; charset=us-ascii", true),
            ("application/x-www-form-urlencoded;charset=utf8;x=1", true),
            ("application/json; charset=utf-16", false),
            ("application/json; charset=utf-8; charset=utf-16", false),
            ("application/json; charset*=utf-8''utf-16", false),
            ("application/json; charset*0=utf-16", false),
            ("application/json; charset", false),
            ("text/plain", false),
            ("", false),
        ] {
            let head = head(&[("content-type", value)], &[]);
            assert_eq!(head.bypass.is_none(), expected, "{value}");
            // The gateway reads the body as UTF-8, so Iluma must read it in the same way.
            let essence = value.split(';').next().expect("a first part");
            assert_eq!(head.headers[CONTENT_TYPE], essence, "{value}");
        }
        let parts = head(&[("content-type", "multipart/form-data; boundary=B; charset=utf-8")], &[]);
        assert_eq!(parts.headers[CONTENT_TYPE], "multipart/form-data; boundary=B; charset=utf-8");
        assert_eq!(head(&[], &[]).headers[CONTENT_TYPE], "application/json", "a body without a type is read as JSON");
        let encoded = head(&[("content-type", "application/json"), ("content-encoding", "gzip")], &[]);
        assert_eq!((encoded.bypass, encoded.headers.len()), (Some(CONTENT_TYPE_UNCLEAR), 5));
        let twice = head(&[("content-type", "application/json"), ("content-type", "application/json")], &[]);
        assert_eq!((twice.bypass, twice.headers.get_all(CONTENT_TYPE).iter().count()), (Some(CONTENT_TYPE_UNCLEAR), 2));
    }

    #[test]
    fn the_content_type_of_a_get_has_no_meaning() {
        let sent = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        let head = SharedHead::of_get(&sent, &[]);
        assert_eq!((head.bypass, head.for_iluma().get(CONTENT_TYPE)), (None, None));
    }
}
