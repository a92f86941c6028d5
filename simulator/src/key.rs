//! API keys: the account and the environment of a caller.
//!
//! Invariants: the raw key of a request never leaves this file; all other code sees its label, which is a class and a
//! short hash.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use super::options::Options;
use super::problem::Problem;
use super::seed::Seed;

/// The prefix of development keys.
pub(super) const DEVELOPMENT: &str = "iluma_development_";
/// The prefixes of keys of the live environment.
pub(super) const LIVE: [&str; 2] = ["iluma_live_", "iluma_production_"];

/// A caller whose key was accepted: one Iluma account.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The key's name in statistics, such as `development-1a2b3c4d`.
    pub(super) label: Arc<str>,
    /// True for a live key, false for a development key.
    pub(super) live: bool,
    /// The token that is sent as `x-callback-token` with this account's callbacks.
    pub(super) callback_token: Arc<str>,
}

impl Key {
    fn new(raw: &str, options: &Options) -> Self {
        let token = options
            .callback_token
            .clone()
            .unwrap_or_else(|| format!("sim_callback_{}", Seed::of(&["callback token", raw]).hex(40)));
        Self { label: label(raw).into(), live: !raw.starts_with(DEVELOPMENT), callback_token: token.into() }
    }
}

/// Returns the caller that Basic authentication names. The user is the API key, and the password must be empty.
pub(super) fn authenticate(headers: &HeaderMap, options: &Options) -> Result<Key, Problem> {
    let raw = credential(headers).ok_or_else(Problem::key)?;
    let key = raw.strip_suffix(':').ok_or_else(Problem::key)?;
    let accepted = if options.keys.is_empty() {
        std::iter::once(DEVELOPMENT).chain(LIVE).any(|prefix| key.len() > prefix.len() && key.starts_with(prefix))
    } else {
        options.keys.iter().any(|known| known == key)
    };
    if accepted && !key.contains(':') { Ok(Key::new(key, options)) } else { Err(Problem::key()) }
}

/// Returns the `authorization` header as the journal shows it: its scheme, and the label of its key.
pub(super) fn masked(headers: &HeaderMap) -> String {
    match credential(headers) {
        Some(raw) => {
            let key = raw.strip_suffix(':');
            let note = if key.is_none() { " (with a password, or without the colon)" } else { "" };
            format!("Basic {}{note}", label(key.unwrap_or(&raw)))
        }
        None => {
            let value = headers.get(header::AUTHORIZATION).map(|v| String::from_utf8_lossy(v.as_bytes()));
            let scheme = value.as_deref().and_then(|v| v.split_once(' ')).map_or("", |(scheme, _)| scheme);
            format!("{} other-{}", scheme, Seed::of(&[value.as_deref().unwrap_or("")]).hex(8)).trim().to_owned()
        }
    }
}

fn label(raw: &str) -> String {
    let class = if raw.starts_with(DEVELOPMENT) {
        "development"
    } else if LIVE.iter().any(|prefix| raw.starts_with(prefix)) {
        "live"
    } else {
        "other"
    };
    format!("{class}-{}", Seed::of(&["key", raw]).hex(8))
}

/// Returns `user:password` of Basic authentication; `None` if the header is missing or has another form.
fn credential(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn basic(text: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn keys_are_told_apart_by_their_beginning() {
        let any = Options::default();
        assert!(!authenticate(&basic("iluma_development_a:"), &any).unwrap().live);
        assert!(authenticate(&basic("iluma_live_a:"), &any).unwrap().live);
        assert!(authenticate(&basic("iluma_production_a:"), &any).unwrap().live);
        for bad in ["iluma_live_a", "iluma_live_a:password", "iluma_live_:", "other:", ":", ""] {
            assert!(authenticate(&basic(bad), &any).is_err(), "{bad}");
        }
        assert!(authenticate(&HeaderMap::new(), &any).is_err());
    }

    #[test]
    fn with_a_list_only_the_list_is_accepted() {
        let some = Options { keys: vec!["iluma_live_one".into()], ..Options::default() };
        assert!(authenticate(&basic("iluma_live_one:"), &some).is_ok());
        assert!(authenticate(&basic("iluma_live_two:"), &some).is_err());
    }

    #[test]
    fn the_journal_never_shows_a_key() {
        let shown = masked(&basic("iluma_live_secret:"));
        assert!(shown.starts_with("Basic live-") && !shown.contains("secret"), "{shown}");
        let bearer = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer hush"))]);
        assert!(!masked(&bearer).contains("hush"));
    }
}
