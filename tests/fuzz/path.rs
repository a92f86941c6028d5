//! Fuzzes the normal form of paths with random text as the path of a request.
//!
//! Properties for every input: nothing panics; the normal form of a normal form is itself; no segment is empty, is a
//! dot segment, or has an encoded slash, however often it is decoded; a forbidden word is found in every letter case.
#![no_main]

use iluma_gateway::iluma::routes::NormalPath;
use libfuzzer_sys::fuzz_target;
use std::borrow::Cow;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(path) = NormalPath::parse(text) else { return };
    let again = NormalPath::parse(path.as_str()).expect("a normal form has a normal form");
    assert_eq!(again.as_str(), path.as_str());
    assert!(path.as_str().starts_with('/') && path.as_str().is_ascii());
    for segment in path.segments() {
        assert!(!segment.is_empty());
        let mut plain = Cow::Borrowed(segment.as_bytes());
        loop {
            assert!(!plain.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0..=31 | 127)), "{text:?}");
            let bare = plain.split(|byte| *byte == b';').next().unwrap_or_default();
            assert!(!matches!(bare, b"." | b".."), "{text:?}");
            let next: Vec<u8> = decoded(&plain);
            if next == *plain {
                break;
            }
            plain = Cow::Owned(next);
        }
        if segment.eq_ignore_ascii_case("callback") {
            assert!(path.names(&["callback"]));
        }
    }
});

/// Decodes percent-encoding once; text that is not encoded stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut plain, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}
