//! The idempotency keys of teams: a key is claimed before its call, and keeps the answer for a day.
//!
//! Invariants: a key has at most one claim at a time, and only the claim's token can end it; a claim that ends as free
//! is deleted; an answer is not stored if the request or the answer names a person who was erased since the request.

use super::envelopes::ClaimName;
use crate::base::keyring::random;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// The time for which a key is kept after its claim.
pub const KEPT: Duration = Duration::from_secs(86400);

/// The age from which a claim that is in flight on another node counts as lost. A call with the upload of its body
/// takes far less time.
const LONGEST_CALL: Duration = Duration::from_secs(600);

/// The process that makes a call. It has the node's identity, which survives restarts, and a random name for the
/// current process of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    node: String,
    process: String,
}

impl Holder {
    /// Makes the holder for this process. `node` is the identity of this node.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let process = random::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { node: node.to_owned(), process }
    }

    /// Returns the text that engines store for the holder.
    pub(super) fn text(&self) -> String {
        format!("{}/{}", self.node, self.process)
    }

    /// Returns true if `other` is the stored text of another process of the same node. That process has ended, because
    /// a node has one process at a time.
    fn is_successor_of(&self, other: &str) -> bool {
        other.split_once('/').is_some_and(|(node, process)| node == self.node && process != self.process)
    }
}

/// A request that claims its idempotency key.
#[derive(Debug, Clone)]
pub struct Claiming {
    /// The team. Each team has keys of its own.
    pub tenant: TenantName,
    /// The idempotency key.
    pub key: Box<[u8]>,
    /// The hash of the request without its body: a repetition must have the same hash.
    pub request: [u8; 32],
    /// The process that makes the call.
    pub holder: Holder,
    /// The fencing token of this claim. If the claim is repeated, for example after a lost answer, state recognises the
    /// repetition by the token.
    pub token: ClaimToken,
}

/// The token of one claim: random bytes.
pub type ClaimToken = [u8; 16];

/// The id of one claim: the key's stored name, and the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimId {
    pub(super) name: ClaimName,
    pub(super) token: ClaimToken,
}

impl ClaimId {
    /// Returns the bytes by which the ledger refers to the claim: the key's name and the token.
    #[must_use]
    pub fn bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(&self.name);
        bytes[32..].copy_from_slice(&self.token);
        bytes
    }

    /// Returns the claim from the bytes that [`ClaimId::bytes`] made.
    #[must_use]
    pub fn of_bytes(bytes: &[u8; 48]) -> Self {
        let (mut name, mut token) = ([0; 32], [0; 16]);
        name.copy_from_slice(&bytes[..32]);
        token.copy_from_slice(&bytes[32..]);
        Self { name, token }
    }
}

/// The result of claiming a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// This request has claimed the key, and must end the claim.
    New,
    /// Another request with the key is in flight.
    InFlight,
    /// An earlier request with the key may have been processed, and its outcome is unknown.
    Unknown,
    /// An earlier request with the key was answered, and this is the kept answer.
    Answered(Bytes),
    /// An earlier request with the key was answered, and its answer was not kept.
    NotKept,
    /// The kept answer was erased, because it named a person who was erased.
    Erased,
    /// An earlier request with the key had another hash, so this request is not a repetition.
    OtherRequest,
}

/// The result with which a claim ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimEnd {
    /// The claim is deleted, and the key may be used again.
    Free,
    /// The answer is kept for repetitions.
    Answered {
        /// The answer.
        content: Bytes,
        /// The persons that the request and the answer name.
        tags: Vec<Tag>,
        /// The time of the request. The answer is not stored if one of the persons was erased after this time.
        asked: SystemTime,
    },
    /// The request was answered, and the answer is not kept.
    NotKept,
    /// The request may have been processed, and its outcome is unknown.
    Unknown,
}

/// The stored status of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum KeyStatus {
    InFlight,
    Answered,
    Unknown,
    NotKept,
    Erased,
}

impl ClaimEnd {
    /// Returns the key's status after this end; `None` if the key is deleted.
    pub(super) const fn standing(&self) -> Option<KeyStatus> {
        match self {
            Self::Free => None,
            Self::Answered { .. } => Some(KeyStatus::Answered),
            Self::NotKept => Some(KeyStatus::NotKept),
            Self::Unknown => Some(KeyStatus::Unknown),
        }
    }
}

/// A key as an engine stores it.
#[derive(Debug)]
pub(super) struct KeyRow {
    pub(super) token: Vec<u8>,
    /// The keyed hash of the request.
    pub(super) request: Vec<u8>,
    pub(super) holder: String,
    pub(super) standing: Option<KeyStatus>,
    pub(super) content: Option<Vec<u8>>,
    /// The time since the claim.
    pub(super) age: Duration,
}

impl KeyRow {
    /// Returns the result for a request that finds this key. `request` is the keyed hash of that request. An answer in
    /// the result is still encrypted.
    pub(super) fn met_by(self, claiming: &Claiming, request: &[u8; 32]) -> Claimed {
        let in_flight = if claiming.holder.is_successor_of(&self.holder) || self.age > LONGEST_CALL {
            Claimed::Unknown
        } else {
            Claimed::InFlight
        };
        if self.request != request {
            return Claimed::OtherRequest;
        }
        match (self.standing, self.content) {
            (Some(KeyStatus::InFlight), _) if self.token == claiming.token => Claimed::New,
            (Some(KeyStatus::InFlight), _) if self.holder == claiming.holder.text() => Claimed::InFlight,
            (Some(KeyStatus::InFlight), _) => in_flight,
            (Some(KeyStatus::Answered), Some(content)) => Claimed::Answered(content.into()),
            (Some(KeyStatus::Answered | KeyStatus::NotKept), _) => Claimed::NotKept,
            (Some(KeyStatus::Erased), _) => Claimed::Erased,
            // A newer version may have written another status, which must not lead to a second call.
            (Some(KeyStatus::Unknown) | None, _) => Claimed::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_what_a_key_means() {
        let holder = Holder { node: "a".into(), process: "2".into() };
        let claiming = Claiming {
            tenant: "lending".parse().unwrap(),
            key: (*b"k").into(),
            request: [1; 32],
            holder,
            token: [7; 16],
        };
        let (young, old) = (Duration::ZERO, LONGEST_CALL + Duration::from_secs(1));
        let content = || Some(b"answer".to_vec());
        for (standing, token, holder, age, content, expected) in [
            (Some(KeyStatus::InFlight), 7, "a/2", young, None, Claimed::New),
            (Some(KeyStatus::InFlight), 8, "a/2", young, None, Claimed::InFlight),
            (Some(KeyStatus::InFlight), 8, "a/2", old, None, Claimed::InFlight),
            (Some(KeyStatus::InFlight), 8, "a/1", young, None, Claimed::Unknown),
            (Some(KeyStatus::InFlight), 8, "b/1", young, None, Claimed::InFlight),
            (Some(KeyStatus::InFlight), 8, "b/1", old, None, Claimed::Unknown),
            (Some(KeyStatus::Answered), 8, "b/1", old, content(), Claimed::Answered(Bytes::from_static(b"answer"))),
            (Some(KeyStatus::Answered), 8, "b/1", old, None, Claimed::NotKept),
            (Some(KeyStatus::NotKept), 8, "b/1", old, None, Claimed::NotKept),
            (Some(KeyStatus::Erased), 8, "b/1", old, None, Claimed::Erased),
            (Some(KeyStatus::Unknown), 8, "a/2", young, None, Claimed::Unknown),
            (None, 8, "a/2", young, None, Claimed::Unknown),
        ] {
            let row = |request: u8| KeyRow {
                token: vec![token; 16],
                request: vec![request; 32],
                holder: holder.into(),
                standing,
                content: content.clone(),
                age,
            };
            assert_eq!(row(1).met_by(&claiming, &[1; 32]), expected, "{standing:?} {token} {holder} {age:?}");
            assert_eq!(row(2).met_by(&claiming, &[1; 32]), Claimed::OtherRequest, "{standing:?}");
        }
    }

    #[test]
    fn a_claim_is_the_same_after_the_ledger_had_it() {
        let claim = ClaimId { name: [1; 32], token: [2; 16] };
        assert_eq!(ClaimId::of_bytes(&claim.bytes()), claim);
    }
}
