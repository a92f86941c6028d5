//! The account's key: every request to Iluma carries it, and answers show neither it nor any other secret.

use super::secrets::Secrets;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// An account's API key in the form of an `authorization` header, and the secrets that no answer may show.
pub struct Credential {
    authorization: HeaderValue,
    hidden: Arc<Secrets>,
}

impl Credential {
    /// Returns the credential of an account. Answers to its calls are searched only for this account's key.
    #[must_use]
    pub fn new(api_key: &SecretString) -> Self {
        Self::with_secrets(api_key, Arc::new(Secrets::new([api_key], [])))
    }

    /// Returns the credential of an account. Answers to its calls are searched for the secrets in `hidden`.
    #[must_use]
    pub fn with_secrets(api_key: &SecretString, hidden: Arc<Secrets>) -> Self {
        let basic = STANDARD.encode(format!("{}:", api_key.expose_secret()));
        // The configuration accepts only printable keys, so this does not fail.
        let mut authorization =
            HeaderValue::try_from(format!("Basic {basic}")).unwrap_or(HeaderValue::from_static("Basic Og=="));
        authorization.set_sensitive(true);
        Self { authorization, hidden }
    }

    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Removes the fields that contain a secret.
    pub(super) fn clean(&self, fields: &mut HeaderMap) {
        self.hidden.clean(fields);
    }

    /// Returns `data` with each secret overwritten, in the same length.
    pub(super) fn cover(&self, data: Bytes) -> Bytes {
        self.hidden.cover(data)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Masks the secrets in a body that arrives in pieces, even if a secret is split between two pieces.
#[derive(Debug)]
pub(super) struct Mask {
    credential: Arc<Credential>,
    held: Bytes,
}

impl Mask {
    /// Makes the mask of one body.
    pub(super) fn new(credential: &Arc<Credential>) -> Self {
        Self { credential: Arc::clone(credential), held: Bytes::new() }
    }

    /// Adds `data`, the next piece, to the held data and masks the secrets. Returns the result without an end that may
    /// be the beginning of a secret. This end is held until the next call.
    pub(super) fn pass(&mut self, data: Bytes) -> Bytes {
        let mut covered = self.last(data);
        // A masked secret is never the beginning of another one, so only unmasked bytes are held.
        self.held = covered.split_off(covered.len() - self.credential.hidden.undecided(&covered));
        covered
    }

    /// Adds `data`, the last piece, to the held data and masks the secrets. Returns the whole result, because no
    /// further data can complete a secret.
    pub(super) fn last(&mut self, data: Bytes) -> Bytes {
        let held = self.rest();
        let data = if held.is_empty() { data } else { [&held[..], &data[..]].concat().into() };
        self.credential.cover(data)
    }

    /// Removes the trailers that contain a secret.
    pub(super) fn clean(&self, trailers: &mut HeaderMap) {
        self.credential.hidden.clean(trailers);
    }

    /// Takes and returns the held data, unmasked: it contains no whole secret.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held)
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "iluma_development_TESTONLY";

    fn mask() -> Mask {
        Mask::new(&Arc::new(Credential::new(&SecretString::from(KEY))))
    }

    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let mut mask = mask();
        let mut out: Vec<u8> = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&mask.pass(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&mask.rest());
        let mut mask = self::mask();
        let mut known_end: Vec<u8> = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let piece = Bytes::copy_from_slice(piece);
            known_end.extend_from_slice(&if at + 1 == pieces.len() { mask.last(piece) } else { mask.pass(piece) });
        }
        assert_eq!(known_end, out, "a body whose end is known");
        out
    }

    #[test]
    fn the_key_is_covered_plain_and_encoded_and_nothing_else_is() {
        let basic = STANDARD.encode(format!("{KEY}:"));
        let body = format!("key {KEY} and {basic}, iluma_development_OTHER");
        let covered = String::from_utf8(through(&[body.as_bytes()])).unwrap();
        assert_eq!(covered.len(), body.len());
        assert!(!covered.contains(KEY) && !covered.contains(basic.trim_end_matches('=')), "{covered}");
        assert!(covered.ends_with(", iluma_development_OTHER") && covered.starts_with("key *"), "{covered}");
    }

    proptest! {
        #[test]
        fn no_cut_lets_the_key_through(cuts in proptest::collection::vec(0_usize..80, 0..5), lead in "[ilum_]{0,9}") {
            let body = format!("{lead}{KEY}{lead}");
            let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();
            let expected = body.replace(KEY, &"*".repeat(KEY.len()));
            prop_assert_eq!(String::from_utf8(through(&pieces)).unwrap(), expected);
        }
    }
}
