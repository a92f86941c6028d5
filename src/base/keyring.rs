//! Key material: the keys that protect data at rest, and the secrets that are derived from the root key.
//!
//! Invariants: an envelope can be decrypted only under the name for which it was made (the name is associated data);
//! two envelopes have the same nonce only with a probability of 2^-96; keys are wiped from memory when they are
//! dropped.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::Sha256;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

/// The first byte of an envelope: the version of its layout.
const VERSION: u8 = 1;
/// The length of AES-GCM's nonce in bytes.
const NONCE: usize = 12;
const TAG: usize = 16;

/// A key for data at rest.
#[derive(Debug)]
pub struct EncryptionKey {
    /// The key's id, which each of its envelopes contains.
    pub id: String,
    /// The key.
    pub key: SecretBox<[u8; 32]>,
}

/// Encrypts and decrypts data at rest with AES-256-GCM. Clones share the keys.
///
/// An envelope is `version, length of the key's id, id, nonce, ciphertext with tag`. The first three are authenticated
/// with the associated data. Nonces are random, so one key may make at most 2^32 envelopes (NIST SP 800-38D, section
/// 8.3). That is a hundred a second for more than a year.
#[derive(Clone)]
pub struct Keyring(Arc<Keys>);

struct Keys {
    keys: Box<[Key]>,
    /// The index of the key that encrypts.
    writer: AtomicUsize,
}

struct Key {
    id: Box<str>,
    cipher: Aes256Gcm,
    fingerprint: [u8; 32],
}

/// The reason why an envelope can't be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The envelope's key is not in the configuration.
    #[error("the key that encrypted it is not in state.encryption_keys")]
    UnknownKey,
    /// The envelope is damaged or forged, or was made for another `place`.
    #[error("decryption failed: the value is damaged or was tampered with")]
    Forged,
}

impl Keyring {
    /// Makes a keyring from the keys of the configuration. The first key encrypts; every key decrypts.
    #[must_use]
    pub fn new(keys: &[EncryptionKey]) -> Self {
        let key = |key: &EncryptionKey| Key {
            id: key.id.as_str().into(),
            cipher: Aes256Gcm::new(key.key.expose_secret().into()),
            fingerprint: fingerprint(key.key.expose_secret()),
        };
        Self(Arc::new(Keys { keys: keys.iter().map(key).collect(), writer: AtomicUsize::new(0) }))
    }

    /// Returns the id and the fingerprint of each key.
    pub fn fingerprints(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        self.0.keys.iter().map(|key| (&*key.id, &key.fingerprint))
    }

    /// Returns the ids of all keys, joined by commas, for other nodes. An id has no comma.
    #[must_use]
    pub fn known(&self) -> String {
        self.0.keys.iter().map(|key| &*key.id).collect::<Vec<_>>().join(",")
    }

    /// Selects the key for encryption: the first key that every running node knows. Returns the key's id. `nodes` has
    /// the [`Keyring::known`] of each running node. If `nodes` is empty, or no key is known to all, selects the first
    /// key.
    pub fn write_with_known(&self, nodes: &[String]) -> &str {
        let is_known = |key: &Key| nodes.iter().all(|known| known.split(',').any(|id| id == &*key.id));
        let writer = self.0.keys.iter().position(is_known).unwrap_or(0);
        self.0.writer.store(writer, Ordering::Relaxed);
        self.0.keys.get(writer).map_or("", |key| &key.id)
    }

    fn writer(&self) -> Option<&Key> {
        self.0.keys.get(self.0.writer.load(Ordering::Relaxed))
    }

    /// Encrypts `plain`. `place` names the place where the envelope is stored, such as a key in Redis. The envelope can
    /// be decrypted only with the same `place`.
    #[must_use]
    pub fn encrypt(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        // The configuration guarantees at least one key.
        let Some(key) = self.writer() else { return Vec::new() };
        let mut envelope = Vec::with_capacity(2 + key.id.len() + NONCE + plain.len() + TAG);
        envelope.push(VERSION);
        // An id has at most 32 characters.
        envelope.push(u8::try_from(key.id.len()).unwrap_or(0));
        envelope.extend_from_slice(key.id.as_bytes());
        let aad = [&envelope[..], place].concat();
        let nonce: [u8; NONCE] = random();
        envelope.extend_from_slice(&nonce);
        // Encryption fails only for more than 64 GiB; every value here is far smaller.
        let sealed = key.cipher.encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: &aad }).unwrap_or_default();
        envelope.extend_from_slice(&sealed);
        envelope
    }

    /// Returns true if an envelope was made with the key that encrypts now. Another envelope has to be encrypted again
    /// before its key is removed.
    #[must_use]
    pub fn is_current(&self, envelope: &[u8]) -> bool {
        let id = envelope.get(2..).zip(envelope.get(1)).and_then(|(rest, length)| rest.get(..usize::from(*length)));
        self.writer().is_some_and(|key| id == Some(key.id.as_bytes()))
    }

    /// Returns the id of the key that made an envelope; `None` if the bytes are too short for an envelope, or if the id
    /// is not UTF-8.
    #[must_use]
    pub fn key_id(envelope: &[u8]) -> Option<&str> {
        let (&[_, length], rest) = envelope.split_first_chunk()?;
        std::str::from_utf8(rest.get(..usize::from(length))?).ok()
    }

    /// Decrypts an envelope that was made for `place`.
    ///
    /// # Errors
    /// Returns an error if the key is unknown, or if the gateway did not make the envelope for this place.
    pub fn decrypt(&self, place: &[u8], envelope: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (&[version, length], rest) = envelope.split_first_chunk().ok_or(Unopened::Forged)?;
        let (id, sealed) = rest.split_at_checked(length.into()).ok_or(Unopened::Forged)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(Unopened::Forged)?;
        if version != VERSION {
            return Err(Unopened::Forged);
        }
        let key = self.0.keys.iter().find(|key| key.id.as_bytes() == id).ok_or(Unopened::UnknownKey)?;
        let aad = [&envelope[..2 + id.len()], place].concat();
        let payload = Payload { msg: sealed, aad: &aad };
        key.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| Unopened::Forged)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(…)")
    }
}

/// Makes pseudonyms for one purpose with HMAC-SHA256. A pseudonym does not reveal the thing that it names.
#[derive(Clone)]
pub struct Pseudonymizer(Hmac<Sha256>);

impl Pseudonymizer {
    /// Makes the pseudonymizer for a purpose. The same root key and purpose give the same pseudonyms on every node and
    /// after every start.
    #[must_use]
    pub fn new(root: &[u8; 32], purpose: &str) -> Self {
        // The secret is as long as SHA-256's block, the longest secret that HMAC uses without hashing it first.
        Self(Hmac::new((&*derive::<64>(root, purpose)).into()))
    }

    /// Returns one pseudonym for all `parts` together. The length of each part is hashed too, so different parts never
    /// give the same input.
    #[must_use]
    pub fn name<const PARTS: usize>(&self, parts: [&[u8]; PARTS]) -> [u8; 32] {
        let mut mac = self.0.clone();
        // The lengths come first, in one piece: feeding the MAC once is twice as fast.
        let mut lengths = [[0; 8]; PARTS];
        for (slot, part) in lengths.iter_mut().zip(parts) {
            *slot = (part.len() as u64).to_be_bytes();
        }
        mac.update(lengths.as_flattened());
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Pseudonymizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonymizer(…)")
    }
}

/// Returns a fingerprint of a key. The fingerprint reveals nothing about the key.
#[must_use]
pub fn fingerprint(key: &[u8; 32]) -> [u8; 32] {
    Pseudonymizer::new(key, "sentinel").name([b"key"])
}

/// Derives the secret for one purpose from the root key (HKDF-SHA256, RFC 5869).
#[must_use]
pub fn derive<const LENGTH: usize>(root: &[u8; 32], purpose: &str) -> Zeroizing<[u8; LENGTH]> {
    let mut secret = Zeroizing::new([0; LENGTH]);
    // HKDF-SHA256 gives up to 8160 bytes, so it can't fail here.
    let derived =
        Hkdf::<Sha256>::new(None, root).expand_multi_info(&[b"iluma-gateway ", purpose.as_bytes()], &mut *secret);
    debug_assert!(derived.is_ok());
    secret
}

/// Returns random bytes from the operating system, and panics if it gives none.
#[must_use]
pub fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    // Nothing is safe without randomness: the process must end.
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("the operating system gives no random bytes: {error}"));
    bytes
}

#[cfg(test)]
impl Keyring {
    /// Makes a keyring for tests. Each pair is a key's id and a byte; the key is this byte, 32 times.
    pub(crate) fn of_bytes(keys: &[(&str, u8)]) -> Self {
        let key = |(id, byte): &(&str, u8)| EncryptionKey {
            id: (*id).to_owned(),
            key: secrecy::SecretBox::new(Box::new([*byte; 32])),
        };
        Self::new(&keys.iter().map(key).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_envelope_opens_in_its_place_alone() {
        let vault = Keyring::of_bytes(&[("a", 1)]);
        let envelope = vault.encrypt(b"here", b"secret");
        assert_eq!(vault.decrypt(b"here", &envelope).unwrap(), b"secret");
        assert_eq!(vault.decrypt(b"there", &envelope), Err(Unopened::Forged));
        assert_ne!(vault.encrypt(b"here", b"secret"), envelope, "the nonce is fresh");
        assert!(!envelope.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn keys_rotate() {
        let (old, both, new) = (
            Keyring::of_bytes(&[("old", 1)]),
            Keyring::of_bytes(&[("new", 2), ("old", 1)]),
            Keyring::of_bytes(&[("new", 2)]),
        );
        let before = old.encrypt(b"x", b"1");
        assert_eq!(both.decrypt(b"x", &before).unwrap(), b"1");
        let after = both.encrypt(b"x", b"2");
        assert_eq!(new.decrypt(b"x", &after).unwrap(), b"2");
        assert_eq!(new.decrypt(b"x", &before), Err(Unopened::UnknownKey));
        // The same id with other key bytes is a foreign key.
        assert_eq!(Keyring::of_bytes(&[("old", 9)]).decrypt(b"x", &before), Err(Unopened::Forged));
    }

    #[test]
    fn names_depend_on_root_purpose_and_every_part() {
        let name = |root: u8, purpose: &str, parts: [&[u8]; 2]| Pseudonymizer::new(&[root; 32], purpose).name(parts);
        let base = name(1, "p", [b"ab", b"c"]);
        assert_eq!(base, name(1, "p", [b"ab", b"c"]));
        for other in [
            name(2, "p", [b"ab", b"c"]),
            name(1, "q", [b"ab", b"c"]),
            name(1, "p", [b"a", b"bc"]),
            name(1, "p", [b"", b"abc"]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_new_key_writes_once_every_node_knows_it() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "new"),
            (&["new,old"], "new"),
            (&["new,old", "old"], "old"),
            (&["new,old", "old,new"], "new"),
            (&["new,old", "newer,old"], "old"),
            // No key is known to all nodes: the operator's order decides.
            (&["other"], "new"),
        ];
        for (nodes, expected) in cases {
            let keyring = Keyring::of_bytes(&[("new", 2), ("old", 1)]);
            let nodes: Vec<_> = nodes.iter().map(|&keys| keys.to_owned()).collect();
            assert_eq!(keyring.write_with_known(&nodes), expected, "{nodes:?}");
            let envelope = keyring.encrypt(b"x", b"1");
            assert_eq!(Keyring::key_id(&envelope), Some(expected), "{nodes:?}");
            assert!(keyring.is_current(&envelope));
        }
    }

    proptest! {
        #[test]
        fn no_changed_envelope_opens(plain in proptest::collection::vec(any::<u8>(), 0..50), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let vault = Keyring::of_bytes(&[("a", 1)]);
            let mut envelope = vault.encrypt(b"here", &plain);
            prop_assert_eq!(vault.decrypt(b"here", &envelope).unwrap(), plain);
            let at = at.index(envelope.len());
            envelope[at] ^= flip;
            prop_assert!(vault.decrypt(b"here", &envelope).is_err());
            envelope.truncate(at);
            prop_assert!(vault.decrypt(b"here", &envelope).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Keyring::of_bytes(&[("a", 1)]).decrypt(b"", &bytes).is_err());
        }
    }
}
