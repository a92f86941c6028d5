//! Fuzzes the scrubber with random bytes as a line of output.
//!
//! Properties for every input: nothing panics; scrubbing twice is the same as once; a line of JSON stays JSON; no known
//! secret is left.
#![no_main]

mod support;

use iluma_gateway::telemetry::redact::Redactor;
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use serde_json::value::RawValue;
use std::sync::LazyLock;
use support::{API_KEY, contains};

static REDACTOR: LazyLock<Redactor> =
    LazyLock::new(|| Redactor::new(vec![SecretString::from(API_KEY), SecretString::from("short-secret")]));

fuzz_target!(|data: &[u8]| {
    let is_json = |line: &[u8]| serde_json::from_slice::<&RawValue>(line).is_ok();
    let mut line = data.to_vec();
    let count = REDACTOR.scrub(&mut line);
    assert_eq!(count == 0, line == data, "what is counted is what was taken out");
    assert!(!is_json(data) || is_json(&line), "JSON was broken: {}", line.escape_ascii());
    let mut again = line.clone();
    assert_eq!(REDACTOR.scrub(&mut again), 0, "scrubbed twice: {}", line.escape_ascii());
    assert_eq!(again, line);
    for secret in [API_KEY, "short-secret"] {
        // A secret that is split over two JSON strings is not one text.
        assert!(!contains(&line, secret.as_bytes()), "a secret is left: {}", line.escape_ascii());
    }
});
