//! Fuzzes the cache: random bytes as an upstream answer are prepared for other callers and offered to the cache.
//!
//! Properties for every input: nothing panics; every caller gets upstream's answer with its own reference or none, and
//! no other byte changes; a stored answer is final.
#![no_main]

mod support;

use bytes::Bytes;
use http::StatusCode;
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::json_template::{Absent, JsonTemplate};
use iluma_gateway::base::name::AccountName;
use iluma_gateway::cache::{Cache, CacheCandidate, Scope, Subject};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use support::Pairs;

const REFERENCE: &str = "reference_id";

static CACHE: LazyLock<(Cache, AccountName)> = LazyLock::new(|| {
    let settings = support::settings("http://127.0.0.1:1");
    let (origin, root) = (&settings.upstream.base_url, settings.state.root_key.expose_secret());
    let cache = Cache::new(&settings.cache, origin, root, None, Clock::system());
    (cache, "live".parse().expect("a name"))
});

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    for absent in [Absent::Insert, Absent::Leave] {
        check_split(&body, absent);
    }
    check_offer(&body);
});

fn check_split(body: &Bytes, absent: Absent) {
    let split = JsonTemplate::split(body, absent);
    let Some(pairs) = Pairs::read(body) else {
        // This reader does not accept half a surrogate pair in a name.
        if support::contains(&body.to_ascii_lowercase(), br"\ud") {
            return;
        }
        // An object that can't be read is refused. Any other JSON stays whole.
        let json = serde_json::from_slice::<&RawValue>(body).is_ok_and(|json| !json.get().starts_with('{'));
        assert_eq!(split.is_some(), json);
        assert!(split.is_none_or(|split| split.with(None) == body && split.with(Some(b"\"r\"")) == body));
        return;
    };
    let places: Vec<usize> = (0..pairs.len()).filter(|at| pairs[*at].0 == REFERENCE).collect();
    assert_eq!(split.is_some(), places.len() <= 1, "an object is split if it names the reference once at most");
    let Some(split) = split else { return };
    let place = places.first().copied();

    if place.is_none() && absent == Absent::Leave {
        assert_eq!((split.with(None), split.with(Some(b"\"r\""))), (body.clone(), body.clone()));
        return;
    }
    match place {
        Some(at) => assert_eq!(split.with(Some(pairs[at].1.get().as_bytes())), body, "its own reference put back"),
        None => assert_eq!(split.with(None), body, "no reference, and none before"),
    }
    let mut others = texts(&pairs);
    others.retain(|(name, _)| *name != REFERENCE);
    let without = split.with(None);
    check_members(&without, &others);
    check_value(body, &without, None);

    // A reference is any JSON string; one of these is made of the input.
    let made = Value::from(String::from_utf8_lossy(&body[..body.len().min(32)])).to_string();
    for reference in ["\"r\"", "\"\"", r#""\",\\\"reference_id\":}{""#, &made] {
        let with = split.with(Some(reference.as_bytes()));
        let mut expected = others.clone();
        expected.insert(place.unwrap_or(others.len()), (REFERENCE, reference));
        check_members(&with, &expected);
        check_value(body, &with, Some(reference));
        // The body for one caller also serves the next one.
        let again = JsonTemplate::split(&with, absent).expect("what was put together comes apart");
        assert_eq!(again.with(None), without);
        assert_eq!(again.with(Some(b"\"other\"")), split.with(Some(b"\"other\"")));
    }
}

fn texts(pairs: &[(String, Box<RawValue>)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.get())).collect()
}

/// Checks the members, their order, and their values as written.
fn check_members(body: &Bytes, expected: &[(&str, &str)]) {
    let pairs = Pairs::read(body).expect("one JSON object");
    assert_eq!(texts(&pairs), expected);
}

/// Checks the JSON value that a client reads from `body`. Skips an `original` that serde_json can't read, because a
/// number is out of range or the nesting is too deep.
fn check_value(original: &Bytes, body: &Bytes, reference: Option<&str>) {
    // serde_json gives a member of this name a meaning of its own.
    if support::contains(original, b"$serde_json::private") {
        return;
    }
    let Ok(Value::Object(mut expected)) = serde_json::from_slice(original) else { return };
    expected.remove(REFERENCE);
    let mut value: Value = serde_json::from_slice(body).expect("JSON that a client can read");
    let given = value.as_object_mut().expect("an object").remove(REFERENCE);
    assert_eq!(
        given.map(|given| given.to_string()),
        reference.map(|r| serde_json::from_str::<Value>(r).expect("a string").to_string())
    );
    assert_eq!(value, Value::Object(expected));
}

fn check_offer(body: &Bytes) {
    let (cache, account) = &*CACHE;
    let scope = Scope::shared(account);
    let split = JsonTemplate::split(body, Absent::Insert).unwrap_or(JsonTemplate::whole(body));
    for subject in Subject::ALL {
        // Each answer has its own key, so that no entry of another answer is found.
        let slot = cache.place(&scope, subject, "/x", body);
        for status in [StatusCode::ACCEPTED, StatusCode::OK] {
            let candidate = CacheCandidate { status, content_type: None, body, spliced: &split, tags: BTreeSet::new() };
            // A pending answer is kept for identical requests meanwhile.
            let Some(entry) = cache.offer(&slot, candidate).filter(|entry| !entry.pending) else { continue };
            assert_eq!(entry.status, status);
            assert!(subject == Subject::Health || status == StatusCode::OK);
            if matches!(subject, Subject::Bank | Subject::Cft) {
                check_final(subject, body);
            }
            let hit = cache.look_up(&slot, None).expect("what is kept is found");
            assert_eq!(hit.entry.body, split);
            assert_eq!(hit.entry.status, status);
        }
    }
}

/// Checks that a stored bank or watchlist answer has only one status, and that the status is final. A watchlist answer
/// may have none.
fn check_final(subject: Subject, body: &Bytes) {
    let pairs = Pairs::read(body).expect("only an object is kept");
    let mut statuses = pairs.iter().filter(|(name, _)| name == "status");
    match statuses.next() {
        Some((_, status)) => {
            let status: String = serde_json::from_str(status.get()).expect("a status is text");
            let status = status.to_ascii_uppercase();
            let failed = subject == Subject::Bank && status == "FAILED";
            assert!(failed || ["SUCCESS", "COMPLETED"].contains(&status.as_str()), "{status} is kept");
        }
        None => assert_eq!(subject, Subject::Cft),
    }
    assert!(statuses.next().is_none(), "two statuses");
}
