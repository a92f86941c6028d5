//! Stored answers to requests with an idempotency key: the decision to store an answer, and the stored format.
//!
//! Invariant: an answer is kept only if a second call could cost money or would get the same answer.

use super::received::Received;
use crate::iluma::route_name::RouteName;
use crate::ledger::{self, Outcome};
use crate::upstream::Collected;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_DISPOSITION, CONTENT_LANGUAGE, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The largest body in bytes that is kept. Iluma's answers have a few kilobytes.
const LARGEST: usize = 256 << 10;

/// The header fields that are kept with an answer's body.
const FIELDS: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_LANGUAGE, CONTENT_DISPOSITION, LOCATION];

/// The version of the stored format.
const VERSION: u8 = 1;

/// The decision about an answer to a request with an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Repetitions get the answer.
    Keep,
    /// The request may be sent again: it cost nothing, and may succeed now.
    Free,
    /// The request may have been charged, and there is no answer to keep.
    Unknown,
}

/// Decides if repetitions get the received answer. Billable answers, accepted submissions and refusals of the request
/// itself are kept.
pub(super) fn decide(route: RouteName, received: &Received) -> Decision {
    let status = received.collected.status;
    let charge = ledger::charge_outcome(route, status.as_u16(), Some(&received.answer));
    match charge.outcome {
        Outcome::Billable => Decision::Keep,
        // Iluma has accepted the submission: its result can be read under the id.
        Outcome::Unknown if charge.id.is_some() => Decision::Keep,
        Outcome::Unknown => Decision::Unknown,
        Outcome::NotBillable => {
            let may_succeed_later = matches!(
                status,
                StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::REQUEST_TIMEOUT
                    | StatusCode::TOO_MANY_REQUESTS
            ) || received.answer.is_rate_limited();
            if status.is_client_error() && !may_succeed_later { Decision::Keep } else { Decision::Free }
        }
    }
}

/// An answer, with the fingerprint of the body of its request.
#[derive(Debug, Clone)]
pub(super) struct KeptAnswer {
    /// The hash of the request's body.
    pub(super) hash: [u8; 32],
    /// The number of bytes of the request's body.
    pub(super) length: u64,
    pub(super) answer: Collected,
}

impl KeptAnswer {
    /// Returns the answer in its stored format; `None` if it is too large.
    pub(super) fn encode(&self) -> Option<Bytes> {
        let Collected { status, headers, body } = &self.answer;
        if body.len() > LARGEST {
            return None;
        }
        let mut form = BytesMut::with_capacity(body.len() + 256);
        form.put_u8(VERSION);
        form.put_slice(&self.hash);
        form.put_u64(self.length);
        form.put_u16(status.as_u16());
        for name in &FIELDS {
            let value = headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
            form.put_u16(u16::try_from(value.len()).ok()?);
            form.put_slice(value);
        }
        form.put_slice(body);
        Some(form.freeze())
    }

    /// Reads a stored answer; `None` if it is damaged, or if another version of the gateway wrote it.
    pub(super) fn decode(mut form: Bytes) -> Option<Self> {
        if form.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut hash = [0; 32];
        form.try_copy_to_slice(&mut hash).ok()?;
        let length = form.try_get_u64().ok()?;
        let status = StatusCode::from_u16(form.try_get_u16().ok()?).ok()?;
        let mut headers = HeaderMap::new();
        for name in FIELDS {
            let size = usize::from(form.try_get_u16().ok()?);
            if form.len() < size {
                return None;
            }
            let value = form.split_to(size);
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_maybe_shared(value).ok()?);
            }
        }
        Some(Self { hash, length, answer: Collected { status, headers, body: form } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iluma::person::Persons;

    fn answer(status: u16, body: &'static str) -> Collected {
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (http::header::DATE, HeaderValue::from_static("today")),
        ]);
        Collected { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn the_table_of_the_answers_that_are_kept() {
        use Decision::{Free, Keep, Unknown};
        let network = r#"{"id":"a","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#;
        for (status, body, expected) in [
            (200, r#"{"status":"FOUND"}"#, Keep),
            (200, r#"{"id":"a","status":"PENDING"}"#, Keep),
            (200, r#"{"status":"PENDING"}"#, Unknown),
            (200, r#"{"id":"a","status":"FAILED","failure_reason":"OTHER"}"#, Keep),
            (200, network, Free),
            (200, "garbage", Unknown),
            (302, "", Free),
            (400, r#"{"error_code":"API_VALIDATION_ERROR"}"#, Keep),
            (400, r#"{"error_code":"RATE_LIMIT_EXCEEDED"}"#, Free),
            (401, "{}", Free),
            (403, "{}", Free),
            (404, "{}", Keep),
            (408, "{}", Free),
            (413, "{}", Keep),
            (422, "{}", Keep),
            (429, "{}", Free),
            (500, "{}", Unknown),
            (503, "{}", Free),
            (504, "{}", Unknown),
        ] {
            let received = Received::new(answer(status, body), &Persons::new(&[1; 32]));
            assert_eq!(decide(RouteName::Ocr, &received), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_kept_answer_is_the_same_with_the_fields_of_its_body() {
        let kept = KeptAnswer { hash: [3; 32], length: 77, answer: answer(201, "{\"id\":\"a\"}") };
        let form = kept.encode().unwrap();
        let read = KeptAnswer::decode(form.clone()).unwrap();
        assert_eq!((read.hash, read.length), (kept.hash, kept.length));
        assert_eq!((read.answer.status, &read.answer.body), (kept.answer.status, &kept.answer.body));
        assert_eq!(read.answer.headers, HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]));
        for length in 0..40 {
            assert!(KeptAnswer::decode(form.slice(..length)).is_none(), "{length}");
        }
        let large = Collected { body: vec![b'x'; LARGEST + 1].into(), ..answer(200, "") };
        assert!(KeptAnswer { answer: large, ..kept }.encode().is_none());
    }
}
