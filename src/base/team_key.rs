//! A team's key and its hash: the team sends the key, and the gateway stores only the hash.

use super::keyring;
use super::name::TenantName;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The beginning of every team's key. Secret scanners, the scrubber and the command `check` recognise a key by it.
pub const KEY_MARK: &str = "igw_";

/// A team's key, and the hash that is stored.
#[derive(Debug)]
pub struct TeamKey {
    /// `igw_<tenant>_` and 43 characters of URL-safe base64.
    pub key: SecretString,
    /// The SHA-256 of the whole key.
    pub sha256: [u8; 32],
}

/// Makes a key for a team from 256 random bits of the operating system.
#[must_use]
pub fn team_key(tenant: &TenantName) -> TeamKey {
    let random = Zeroizing::new(keyring::random::<32>());
    let key = format!("{KEY_MARK}{tenant}_{}", *Zeroizing::new(URL_SAFE_NO_PAD.encode(*random)));
    let sha256 = Sha256::digest(key.as_bytes()).into();
    TeamKey { key: key.into(), sha256 }
}
