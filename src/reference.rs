//! The request, parsed once.
//!
//! Invariants: a body is held only up to its bound; what [`Question::parse`] accepts has exactly one meaning (no
//! member twice goes unnoticed, no number stands for a string, nothing invalid was replaced); the tenant's
//! credential, hop-by-hop fields, cookies and trace context are gone from what is forwarded; sealing and unsealing
//! change the caller's reference and no other byte.

mod form;
mod headers;
mod json;
mod multipart;
mod prefix;
mod scan;
mod stream;
mod strip;

pub use headers::{Directives, forget_body, forwardable_request, forwardable_response, forwardable_trailers, is_magic};
pub use multipart::Boundary;
pub use prefix::{ReferencePrefix, ReferencePrefixes, reference_json, reference_text};
pub use scan::screen_target;
pub use stream::{Outcome, SealedBody, StreamError};
pub use strip::{Answer, List, Ownership, PrefixStripper, Record};

use crate::base::bounded_body::{self, NotWhole};
use crate::base::json_template::Absent;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use prefix::InsertPoint;
use std::borrow::Cow;
use std::time::Duration;

/// The largest request body that is read rather than streamed: bank and watchlist questions are a few hundred bytes.
pub const LARGEST_QUESTION: usize = 1 << 20;

/// Why a request body can't be used. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Over [`LARGEST_QUESTION`]. A 413.
    #[error("the request body is larger than 1 MiB")]
    TooLarge,
    /// The gateway, or the tenant, holds as many bytes of request bodies as it may. A 503.
    #[error("too many request bodies are held at once (server.max_buffered), try again later: nothing was sent")]
    NoRoom,
    /// The client sent nothing for too long. A 408.
    #[error("the request body did not arrive in time")]
    TooSlow,
    /// The client went away, or broke its own framing. A 400, which nobody may be there to read.
    #[error("the request body was cut off")]
    CutOff,
    /// A content encoding. A 400.
    #[error("an encoded request body can't be read here, send it without content-encoding")]
    Encoded,
    /// Neither JSON nor a form, or in a charset that is not read here. A 400.
    #[error(
        "the content type must be application/json, application/x-www-form-urlencoded or, where files are taken, \
         multipart/form-data"
    )]
    UnknownType,
    /// Not one JSON object, or not a form. A 400.
    #[error("the request body is malformed")]
    Malformed,
    /// `reference_id` is not a string, stands twice, is too long, or is one to some servers alone. A 400.
    #[error("reference_id must be one string")]
    Reference,
    /// `reference_id` has the seal of another team, on a row where references are not sealed. A 400.
    #[error("reference_id begins with the name of another team and a colon, which is kept for that team")]
    Foreign,
}

/// Reads a whole body, up to [`LARGEST_QUESTION`]; `idle` is how long the client may send nothing, `total` how long
/// it may take over all. `room` is asked before further bytes are held.
///
/// # Errors
/// The body is too large, has no room, is too slow or cut off.
pub async fn read<B>(
    body: B,
    idle: Duration,
    total: Duration,
    room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let all = bounded_body::read(body, LARGEST_QUESTION, Some(idle), room);
    tokio::time::timeout(total, all).await.unwrap_or(Err(NotWhole::TooSlow)).map_err(|error| match error {
        NotWhole::TooLarge => BodyError::TooLarge,
        NotWhole::NoRoom => BodyError::NoRoom,
        NotWhole::TooSlow => BodyError::TooSlow,
        NotWhole::Broken(_) => BodyError::CutOff,
    })
}

/// What a bank or watchlist request asks.
#[derive(Debug)]
pub struct Question {
    /// All members but `reference_id`, in one canonical encoding: equal exactly if the questions are.
    pub parameters: Vec<u8>,
    /// The caller's reference as JSON text with its quotes; none if absent or null.
    pub reference: Option<Bytes>,
    /// Why the answer must not be shared, if it must not.
    pub ambiguity: Option<Ambiguity>,
    /// Where the seal goes; none if the body can't be read.
    place: Option<InsertPoint>,
}

/// Equal if they ask the same and for the same reference, however they are written.
impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.parameters == other.parameters && self.reference == other.reference && self.ambiguity == other.ambiguity
    }
}

impl Eq for Question {}

/// What makes a well-formed question unfit for the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// A member stands twice: which one counts is upstream's secret.
    DuplicateMember,
    /// Deeper than any real question.
    Nesting,
    /// In no form that is read here.
    Unreadable,
}

impl Question {
    /// A question that could not be parsed, for a row on which upstream judges that.
    #[must_use]
    pub const fn unreadable() -> Self {
        Self { parameters: Vec::new(), reference: None, ambiguity: Some(Ambiguity::Unreadable), place: None }
    }

    /// Parses a JSON or form body.
    ///
    /// # Errors
    /// The reference can't be read exactly, so neither could the answer be given back.
    pub fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Self, BodyError> {
        match Kind::of(headers)? {
            Kind::Json => json::question(body),
            Kind::Form => form::question(body),
            Kind::Multipart(_) => Err(BodyError::UnknownType),
        }
    }

    /// The body that it was parsed from with the reference sealed. Where the caller gave none, `absent` says whether it
    /// gets the bare seal. None for an [unreadable](Self::unreadable) question.
    #[must_use]
    pub fn seal(&self, seal: &ReferencePrefix, absent: Absent) -> Option<Bytes> {
        self.place.as_ref().map(|place| place.seal(seal, absent))
    }
}

/// The kinds of body in which a reference can be found.
#[derive(Debug)]
pub enum Kind {
    /// `application/json`: to be [`read`] and [parsed](Question::parse).
    Json,
    /// `application/x-www-form-urlencoded`: likewise.
    Form,
    /// `multipart/form-data`: to be passed on through a [`SealedBody`].
    Multipart(Boundary),
}

impl Kind {
    /// The kind that a request's head declares.
    ///
    /// # Errors
    /// The body is encoded, of another type, or of a type that is declared in more than one way.
    pub fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        if is_encoded(headers) {
            return Err(BodyError::Encoded);
        }
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let value = match (types.next(), types.next()) {
            // Iluma takes a body without a type for JSON; what is none is refused as malformed.
            (None, _) => return Ok(Self::Json),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(BodyError::UnknownType),
        };
        let essence = essence(value);
        if essence.eq_ignore_ascii_case(b"multipart/form-data") {
            return Boundary::of(value.as_bytes()).map(Self::Multipart).ok_or(BodyError::Malformed);
        }
        // JSON is UTF-8 (RFC 8259, section 8.1); in another charset the bytes would mean something else.
        if charset(value).is_some_and(|c| !c.eq_ignore_ascii_case(b"utf-8") && !c.eq_ignore_ascii_case(b"utf8")) {
            return Err(BodyError::UnknownType);
        }
        if essence.eq_ignore_ascii_case(b"application/json") {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            Ok(Self::Form)
        } else {
            Err(BodyError::UnknownType)
        }
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A content type without its parameters.
fn essence(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii()
}

/// The charset that a content type names first.
fn charset(value: &HeaderValue) -> Option<&[u8]> {
    let charset = value.as_bytes().split(|b| *b == b';').skip(1).map(<[u8]>::trim_ascii).find_map(|p| {
        let at = p.iter().position(|b| *b == b'=')?;
        p[..at].trim_ascii().eq_ignore_ascii_case(b"charset").then(|| p[at + 1..].trim_ascii())
    })?;
    Some(charset.strip_prefix(b"\"").and_then(|c| c.strip_suffix(b"\"")).unwrap_or(charset))
}

/// The canonical encoding of members: sorted by name, each name and value with its length before it.
struct Canonical<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// A value: what it is, and its bytes, which mostly stand in the body as they are meant.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Value<'a>(Tag, Cow<'a, [u8]>);

/// What a value is, ahead of its bytes, so that `"1"` is not `1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Tag {
    Array = b'a',
    Literal = b'l',
    Number = b'n',
    Object = b'o',
    String = b's',
}

impl<'a> Canonical<'a> {
    fn new() -> Self {
        // Questions have two to four members.
        Self { members: Vec::with_capacity(8) }
    }

    fn push(&mut self, name: Cow<'a, str>, value: Value<'a>) {
        self.members.push((name, value));
    }

    /// The encoding, and whether some name stands twice.
    fn finish(mut self) -> (Vec<u8>, bool) {
        self.members.sort_unstable();
        let duplicate = self.members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let size = self.members.iter().map(|(name, value)| name.len() + value.1.len() + 9).sum();
        let mut encoded = Vec::with_capacity(size);
        for (name, value) in &self.members {
            put(&mut encoded, name.as_bytes());
            value.put(&mut encoded);
        }
        (encoded, duplicate)
    }
}

impl Value<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0 as u8);
        put(out, &self.1);
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // A question is at most 1 MiB, so its parts' lengths fit.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())])
    }

    fn parse(content_type: &str, body: &str) -> Result<Question, BodyError> {
        Question::parse(&headers(content_type), &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn json_and_forms_are_known_in_utf8_alone() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=\"UTF-8\""] {
            assert!(parse(good, "{}").is_ok(), "{good}");
        }
        assert!(parse("application/x-www-form-urlencoded", "a=b").is_ok());
        let untyped = |body: &'static str| Question::parse(&HeaderMap::new(), &Bytes::from_static(body.as_bytes()));
        assert_eq!(untyped(r#"{"a":"b"}"#), parse("application/json", r#"{"a":"b"}"#));
        assert_eq!(untyped("a=b"), Err(BodyError::Malformed));
        for bad in ["text/plain", "application/json; charset=utf-16", "multipart/form-data; boundary=x", ""] {
            assert_eq!(parse(bad, "{}"), Err(BodyError::UnknownType), "{bad}");
        }
        let mut encoded = headers("application/json");
        encoded.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(Question::parse(&encoded, &Bytes::from_static(b"{}")), Err(BodyError::Encoded));
        let mut twice = headers("application/json");
        twice.append(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        assert_eq!(Question::parse(&twice, &Bytes::from_static(b"{}")), Err(BodyError::UnknownType));
    }

    #[test]
    fn a_form_asks_the_same_question_as_json() {
        let form =
            parse("application/x-www-form-urlencoded", "bank_code=BCA&bank_account_number=001+2%34&reference_id=r");
        let json =
            parse("application/json", r#"{"reference_id":"r","bank_account_number":"001 24","bank_code":"BCA"}"#);
        assert_eq!(form, json);
        assert!(form.is_ok());
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let long = Duration::from_secs(60);
        let read = |body: Vec<Vec<u8>>| async move {
            let frames = body.into_iter().map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(chunk.into())));
            super::read(StreamBody::new(futures_util::stream::iter(frames)), long, long, |_| true).await
        };
        assert_eq!(read(vec![vec![0; LARGEST_QUESTION]]).await.map(|b| b.len()), Ok(LARGEST_QUESTION));
        assert_eq!(read(vec![vec![0; LARGEST_QUESTION], vec![0]]).await, Err(BodyError::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_drips_is_given_up() {
        let (idle, total) = (Duration::from_secs(10), Duration::from_secs(25));
        let stopped =
            StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
        assert_eq!(super::read(stopped, idle, total, |_| true).await, Err(BodyError::TooSlow));
        let drip = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b"x"))), ()))
        });
        assert_eq!(super::read(StreamBody::new(drip), idle, total, |_| true).await, Err(BodyError::TooSlow));
    }
}
