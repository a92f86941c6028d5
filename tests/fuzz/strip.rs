//! Fuzzes the removal of the reference prefix: random bytes are an upstream answer that may quote a reference.
//!
//! Properties for every input: nothing panics; JSON stays JSON; nothing is added; a text without the team's name is
//! unchanged; stripping a reference that the gateway prefixed gives the team's reference.
//!
//! The first byte is the length of the reference, which follows; the rest is the answer.
#![no_main]

use bytes::Bytes;
use iluma_gateway::reference::{PrefixStripper, ReferencePrefix};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first() else { return };
    let (reference, body) = rest.split_at(usize::from(*length).min(rest.len()));
    let reference = String::from_utf8_lossy(reference).into_owned();
    let stripper = PrefixStripper::new(ReferencePrefix::of(&"lending".parse().expect("a name")), Some(&reference));
    let body = Bytes::copy_from_slice(body);
    let stripped = stripper.error(&body);
    assert!(stripped.len() <= body.len(), "something was put in");
    let is_json = |text: &[u8]| serde_json::from_slice::<&RawValue>(text).is_ok();
    assert!(!is_json(&body) || is_json(&stripped), "JSON was broken: {}", stripped.escape_ascii());
    if !body.windows(7).any(|part| part == b"lending") && !body.contains(&b'\\') && !body.contains(&b'%') {
        assert_eq!(stripped, body);
    }

    if !reference.is_empty() {
        let quoted = |reference: &str| {
            serde_json::to_vec(&serde_json::json!({ "message": format!("'{reference}' exists") })).expect("JSON")
        };
        assert_eq!(stripper.error(&quoted(&format!("lending:{reference}")).into()), quoted(&reference));
    }
});
