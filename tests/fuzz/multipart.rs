//! Fuzzes the prefixing of a reference in a multipart body: random bytes are prefixed while they stream, and another
//! parser (`multer`) reads the result.
//!
//! Properties for every input: nothing panics; the sizes of the pieces do not matter; the output has each part
//! unchanged except the one reference, which is prefixed; and the output of a body that was refused later contains no
//! reference without its prefix.
//!
//! The first byte selects the size of the pieces. The rest is the body, in which some control bytes are replaced by
//! typical parts of bodies ([`expand`]).
#![no_main]

mod support;

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use iluma_gateway::base::json_template::Absent;
use iluma_gateway::reference::{BodyError, Boundary, FilteredBody, ReferencePrefix, StreamError, reference_text};
use libfuzzer_sys::fuzz_target;
use multer::Multipart;
use std::convert::Infallible;

const BOUNDARY: &str = "XyZ";

const PREFIX: &str = "lending:";

fuzz_target!(|data: &[u8]| {
    let Some((size, body)) = data.split_first() else { return };
    let body = expand(body);
    let prefixed = prefix(&body, usize::from(*size).max(1));
    let whole = prefix(&body, body.len().max(1));
    assert_eq!(prefixed.end.is_ok(), whole.end.is_ok(), "the cuts decide whether it passes");
    check_references(&prefixed.passed);
    let Ok(reference) = prefixed.end else { return };
    assert_eq!(prefixed.passed, whole.passed, "the cuts decide what passes");

    // multer limits the number of fields, and may fail on a body that the gateway accepts. Then it fails on the output
    // too.
    let (Ok(given), Ok(passed)) = (parts(&body), parts(&prefixed.passed)) else { return };
    let mut expected = given;
    match expected.iter_mut().find(|part| part.name.as_deref() == Some("reference_id")) {
        Some(own) => {
            assert_eq!(reference.as_deref().map(str::as_bytes), Some(&own.value[..]));
            own.value.splice(..0, PREFIX.bytes());
        }
        None => {
            assert_eq!(reference, None);
            expected.push(Part { name: Some("reference_id".into()), file: None, value: PREFIX.into() });
        }
    }
    assert_eq!(passed, expected);
});

/// Replaces single bytes by typical parts of bodies.
fn expand(data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for byte in data {
        match byte {
            1 => body.extend_from_slice(b"\r\n"),
            2 => body.extend_from_slice(b"--XyZ"),
            3 => body.extend_from_slice(b"\r\n--XyZ\r\n"),
            4 => body.extend_from_slice(b"\r\n--XyZ--\r\n"),
            5 => body.extend_from_slice(b"Content-Disposition: form-data; name=\""),
            6 => body.extend_from_slice(b"reference_id"),
            7 => body.extend_from_slice(b"\"; filename=\""),
            8 => body.extend_from_slice(b"\"\r\n\r\n"),
            other => body.push(*other),
        }
    }
    body
}

struct Passed {
    passed: Vec<u8>,
    end: Result<Option<String>, BodyError>,
}

fn prefix(body: &[u8], size: usize) -> Passed {
    let frames: Vec<_> =
        body.chunks(size).map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let boundary = Boundary::of(format!("multipart/form-data; boundary={BOUNDARY}").as_bytes()).expect("a boundary");
    let team = ReferencePrefix::of(&"lending".parse().expect("a name"));
    let mut prefixed = FilteredBody::prefix(StreamBody::new(stream::iter(frames)), &boundary, team, Absent::Insert);
    let outcome = prefixed.outcome();
    let mut passed = Vec::new();
    while let Some(frame) = prefixed.frame().now_or_never().expect("all is there") {
        match frame {
            Ok(frame) => passed.extend_from_slice(&frame.into_data().expect("no trailers")),
            Err(StreamError::Refused(error)) => assert_eq!(outcome.result(), Some(Err(error))),
            Err(StreamError::Client(never)) => match never {},
        }
    }
    let end = outcome.result().expect("an end");
    let end = end.map(|reference| reference.map(|json| reference_text(&json).expect("a JSON string")));
    Passed { passed, end }
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    name: Option<String>,
    file: Option<String>,
    value: Vec<u8>,
}

/// Reads the parts with `multer`, up to the end or to its first error. Returns the parts that were read, and the error.
fn read(body: &[u8]) -> (Vec<Part>, Result<(), multer::Error>) {
    let stream = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(body))]);
    let (mut multipart, mut parts) = (Multipart::new(stream, BOUNDARY), Vec::new());
    let all = async {
        while let Some(field) = multipart.next_field().await? {
            let (name, file) = (field.name().map(str::to_owned), field.file_name().map(str::to_owned));
            let value = field.bytes().await?.to_vec();
            parts.push(Part { name, file, value });
        }
        Ok(())
    };
    // The stream never waits, but it sometimes reports pending.
    let end = all.now_or_never().unwrap_or(Err(multer::Error::IncompleteStream));
    (parts, end)
}

fn parts(body: &[u8]) -> Result<Vec<Part>, multer::Error> {
    let (parts, end) = read(body);
    end.map(|()| parts)
}

fn check_references(passed: &[u8]) {
    for part in read(passed).0 {
        let name = part.name.unwrap_or_default();
        assert!(!name.trim().eq_ignore_ascii_case("reference_id") || part.value.starts_with(PREFIX.as_bytes()));
    }
}
