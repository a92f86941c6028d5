//! Operators' tokens, and the look-up of a request's token.
//!
//! Invariant: a token is compared with every token of the configuration, by SHA-256, in constant time.

use crate::config::Role;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// A token of the configuration.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    pub(super) hash: [u8; 32],
}

/// The tokens of the configuration.
#[derive(Debug)]
pub(super) struct Tokens(Vec<Token>);

impl Tokens {
    pub(super) fn new(tokens: &BTreeMap<String, (SecretString, Role)>) -> Self {
        let token = |(name, (token, role)): (&String, &(SecretString, Role))| Token {
            name: name.as_str().into(),
            role: *role,
            hash: hash(token.expose_secret()),
        };
        Self(tokens.iter().map(token).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the configured token in the request's `authorization` header. Returns `None` if the header is missing,
    /// is repeated, or has no configured token.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<&Token> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (scheme, given) = value.to_str().ok()?.split_once(' ')?;
        self.with_secret(given.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
    }

    /// Returns the token with this secret. The hash of the secret is compared with the hashes of all tokens. So the
    /// duration of the comparison reveals nothing, not even a token's length.
    pub(super) fn with_secret(&self, secret: &str) -> Option<&Token> {
        let given = hash(secret);
        self.0.iter().fold(None, |found, known| {
            let same: bool = given.ct_eq(&known.hash).into();
            if same { Some(known) } else { found }
        })
    }

    /// Returns the role of the token with this name; `None` if there is no such token, or if its secret no longer has
    /// the hash `secret`.
    pub(super) fn role_of(&self, name: &str, secret: &[u8; 32]) -> Option<Role> {
        let known = self.0.iter().find(|known| &*known.name == name)?;
        bool::from(known.hash.ct_eq(secret)).then_some(known.role)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
