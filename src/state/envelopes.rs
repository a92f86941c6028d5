//! Names and contents of stored entries.
//!
//! A name reveals nothing without the root key. A content can be decrypted only under the name for which it was
//! encrypted.

use super::error::StateError;
use super::sessions::{SessionKind, SessionName};
use crate::base::keyring::{Keyring, Pseudonymizer, Unopened, random};
use crate::base::name::{AccountName, TenantName};
use crate::config;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The stored name of a record: a keyed hash of the account and Iluma's id.
pub(super) type Record = [u8; 32];

/// The stored name of a team's reference that waits for the callbacks of a record: a keyed hash.
pub(super) type ReferenceName = [u8; 32];

/// The stored name of a team's idempotency key: a keyed hash.
pub(super) type ClaimName = [u8; 32];

/// The stored name of a callback: a keyed hash of its record and its body. A repeat of a callback has the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallbackName(pub(super) [u8; 32]);

/// The id of a delivery, the same at every attempt and on every node: `msg_` and 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub(super) [u8; 16]);

/// The error for a text that is no delivery id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a delivery id is msg_ and 32 hex digits")]
pub struct NotADeliveryId;

impl DeliveryId {
    /// Makes a random id.
    pub(super) fn fresh() -> Self {
        Self(random())
    }
}

impl CallbackName {
    /// Returns the first half of the name, in the form of a delivery id. Operators use this id for the callback.
    pub(super) fn short(&self) -> DeliveryId {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0[..16]);
        DeliveryId(short)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("msg_")?;
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for DeliveryId {
    type Err = NotADeliveryId;

    fn from_str(text: &str) -> Result<Self, NotADeliveryId> {
        let digits = text.strip_prefix("msg_").ok_or(NotADeliveryId)?.as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 16 || !rest.is_empty() {
            return Err(NotADeliveryId);
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(NotADeliveryId) };
            *byte = high << 4 | low;
        }
        Ok(Self(id))
    }
}

/// The maker of stored names and envelopes. Both engines use the same names and envelopes, so that one engine could
/// read the other's data.
#[derive(Debug, Clone)]
pub(super) struct Secrecy {
    namer: Pseudonymizer,
    keyring: Keyring,
    /// The number of failed decryptions.
    unreadable: Arc<AtomicU64>,
}

impl Secrecy {
    pub(super) fn new(settings: &config::State) -> Self {
        Self {
            namer: Pseudonymizer::new(settings.root_key.expose_secret(), "state"),
            keyring: Keyring::new(&settings.encryption_keys),
            unreadable: Arc::default(),
        }
    }

    /// Returns the keys, which all clones share.
    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Returns the number of failed decryptions.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    pub(super) fn record(&self, account: &AccountName, id: &str) -> Record {
        self.namer.name([b"record", account.as_str().as_bytes(), id.as_bytes()])
    }

    pub(super) fn callback(&self, record: &Record, body: &[u8]) -> CallbackName {
        CallbackName(self.namer.name([b"callback", record, &Sha256::digest(body)]))
    }

    pub(super) fn reference(&self, record: &Record, tenant: &TenantName, reference: Option<&Bytes>) -> ReferenceName {
        let given: &[u8] = if reference.is_some() { b"given" } else { b"none" };
        let text = reference.map_or(&b""[..], |text| text);
        self.namer.name([b"reference", record, tenant.as_str().as_bytes(), given, text])
    }

    pub(super) fn delivery(&self, callback: &CallbackName, reference: &ReferenceName) -> DeliveryId {
        CallbackName(self.namer.name([b"delivery", &callback.0, reference])).short()
    }

    pub(super) fn claim(&self, tenant: &TenantName, key: &[u8]) -> ClaimName {
        self.namer.name([b"claim", tenant.as_str().as_bytes(), key])
    }

    /// Returns the keyed hash that is stored for a request with an idempotency key. `request` is the plain hash of the
    /// request. It is not stored, because it could reveal the request's path, which may name a person.
    pub(super) fn claimed_request(&self, claim: &ClaimName, request: &[u8; 32]) -> [u8; 32] {
        self.namer.name([b"request", claim, request])
    }

    pub(super) fn session(&self, kind: SessionKind, id: &str) -> SessionName {
        self.namer.name([b"session", <&str>::from(kind).as_bytes(), id.as_bytes()])
    }

    pub(super) fn hide_kept_answer(&self, claim: &ClaimName, answer: &[u8]) -> Vec<u8> {
        self.keyring.encrypt(&place(b"answer", claim, ""), answer)
    }

    pub(super) fn show_kept_answer(&self, claim: &ClaimName, hidden: &[u8]) -> Result<Bytes, StateError> {
        self.open(&place(b"answer", claim, ""), hidden).map(Bytes::from)
    }

    /// Returns the stored name of a person: a keyed hash of the tag that callers use.
    pub(super) fn person(&self, tag: &Tag) -> [u8; 32] {
        self.namer.name([b"person", tag.bytes()])
    }

    pub(super) fn hide_reference(&self, record: &Record, tenant: &TenantName, reference: &[u8]) -> Vec<u8> {
        self.keyring.encrypt(&place(b"reference", record, tenant.as_str()), reference)
    }

    pub(super) fn show_reference(
        &self,
        record: &Record,
        tenant: &TenantName,
        hidden: &[u8],
    ) -> Result<Bytes, StateError> {
        self.open(&place(b"reference", record, tenant.as_str()), hidden).map(Bytes::from)
    }

    pub(super) fn hide_callback(&self, name: &CallbackName, id: &str, body: &[u8]) -> Vec<u8> {
        self.keyring.encrypt(&place(b"callback", &name.0, ""), &pack(id, body))
    }

    pub(super) fn show_callback(&self, name: &CallbackName, hidden: &[u8]) -> Result<(String, Bytes), StateError> {
        self.unpacked(self.open(&place(b"callback", &name.0, ""), hidden)?)
    }

    pub(super) fn hide_delivery(&self, id: &DeliveryId, upstream_id: &str, body: &[u8]) -> Vec<u8> {
        self.keyring.encrypt(&place(b"delivery", &id.0, ""), &pack(upstream_id, body))
    }

    pub(super) fn show_delivery(&self, id: &DeliveryId, hidden: &[u8]) -> Result<(String, Bytes), StateError> {
        self.unpacked(self.open(&place(b"delivery", &id.0, ""), hidden)?)
    }

    /// Encrypts Iluma's id of a callback or delivery separately from the body, so that a list shows the id without
    /// decrypting the body. `name` is the name of the callback or delivery.
    pub(super) fn hide_id(&self, name: &[u8], upstream_id: &str) -> Vec<u8> {
        self.keyring.encrypt(&place(b"id", name, ""), upstream_id.as_bytes())
    }

    pub(super) fn show_id(&self, name: &[u8], hidden: &[u8]) -> Result<String, StateError> {
        self.text(self.open(&place(b"id", name, ""), hidden)?)
    }

    pub(super) fn hide_url(&self, tenant: &TenantName, kind: CallbackType, url: &str) -> Vec<u8> {
        self.keyring.encrypt(&place(b"url", kind.as_str().as_bytes(), tenant.as_str()), url.as_bytes())
    }

    /// Encrypts the URL with the current encryption key, and returns the envelope. Returns `None` if `hidden`, the
    /// stored envelope of the URL, has the current key already.
    pub(super) fn renewed_url(
        &self,
        tenant: &TenantName,
        kind: CallbackType,
        url: &str,
        hidden: &[u8],
    ) -> Option<Vec<u8>> {
        (!self.keyring.is_current(hidden)).then(|| self.hide_url(tenant, kind, url))
    }

    pub(super) fn show_url(
        &self,
        tenant: &TenantName,
        kind: CallbackType,
        hidden: &[u8],
    ) -> Result<String, StateError> {
        let url = self.open(&place(b"url", kind.as_str().as_bytes(), tenant.as_str()), hidden)?;
        self.text(url)
    }

    /// Decrypts an envelope; `place` is its associated data. A failure gives [`StateError::Unavailable`], because the
    /// missing key may reach this node later. The entry never counts as absent.
    fn open(&self, place: &[u8], hidden: &[u8]) -> Result<Vec<u8>, StateError> {
        self.keyring.decrypt(place, hidden).map_err(|error| {
            self.note_unreadable(&error, Keyring::key_id(hidden));
            StateError::Unavailable
        })
    }

    fn unpacked(&self, packed: Vec<u8>) -> Result<(String, Bytes), StateError> {
        unpack(packed).ok_or_else(|| {
            self.note_unreadable(&Unopened::Forged, None);
            StateError::Unavailable
        })
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, StateError> {
        String::from_utf8(bytes).map_err(|_| {
            self.note_unreadable(&Unopened::Forged, None);
            StateError::Unavailable
        })
    }

    /// Counts a failed decryption. A line is logged only when the count has doubled, because there may be many
    /// failures.
    fn note_unreadable(&self, error: &Unopened, key: Option<&str>) {
        let count = self.unreadable.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            let key = key.unwrap_or("unknown");
            tracing::error!(
                %error, key, count,
                "an entry of state can't be decrypted: it waits until its key is in state.encryption_keys again"
            );
        }
    }
}

/// Returns the associated data of an envelope: the kind of its content, the entry's name, and the tenant. The length of
/// each part comes before the part, so that different parts never give the same data.
fn place(what: &[u8], name: &[u8], tenant: &str) -> Vec<u8> {
    let mut place = b"state".to_vec();
    for part in [what, name, tenant.as_bytes()] {
        place.extend_from_slice(&(part.len() as u64).to_be_bytes());
        place.extend_from_slice(part);
    }
    place
}

/// Joins an id and a body: the id's length in eight bytes, the id, the body.
fn pack(id: &str, body: &[u8]) -> Vec<u8> {
    [&(id.len() as u64).to_be_bytes(), id.as_bytes(), body].concat()
}

fn unpack(packed: Vec<u8>) -> Option<(String, Bytes)> {
    let packed = Bytes::from(packed);
    let (length, rest) = packed.split_first_chunk()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let id = std::str::from_utf8(rest.get(..length)?).ok()?.to_owned();
    Some((id, packed.slice(8 + length..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_found_by_what_it_is_shown_as() {
        let id = DeliveryId::fresh();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 36);
        for odd in ["", "msg_", "00000000000000000000000000000000", "msg_0000000000000000000000000000000g", "msg_000"] {
            assert_eq!(odd.parse::<DeliveryId>(), Err(NotADeliveryId), "{odd}");
        }
    }

    #[test]
    fn an_id_and_a_body_come_apart_as_they_went_together() {
        for (id, body) in [("", &b""[..]), ("x", b""), ("", b"y"), ("an id", b"a body")] {
            assert_eq!(unpack(pack(id, body)), Some((id.to_owned(), Bytes::copy_from_slice(body))));
        }
        assert_eq!(unpack(vec![0, 0, 0, 0, 0, 0, 0, 9, 1]), None);
        assert_eq!(unpack(vec![255; 9]), None);
    }
}
