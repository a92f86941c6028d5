//! Data about a team's key: the stored record of a key that an order made, and the view of any key for operators.

use super::super::times::{millis, time};
use crate::base::keyring::Pseudonymizer;
use crate::base::moment;
use crate::base::name::TenantName;
use crate::config::FileKey;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::SystemTime;
use subtle::ConstantTimeEq as _;

/// The source of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File,
    /// An order of an operator.
    Api,
}

/// A key as operators and its team see it, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The id that orders use for the key.
    pub id: String,
    /// The team.
    pub tenant: TenantName,
    /// The operators' note about the key, if there is one.
    pub note: Option<String>,
    /// The source of the key.
    pub source: Source,
    /// The time at which the key was created; `None` for a key in the configuration file.
    pub created: Option<SystemTime>,
    /// The time at which the key ends; `None` if it has no end.
    pub expires: Option<SystemTime>,
    /// The minute of the key's last use; `None` if no use is known.
    pub last_used: Option<SystemTime>,
}

impl KeyInfo {
    /// Returns the data of a key in the configuration file.
    pub(super) fn of_file(tenant: &TenantName, key: &FileKey) -> Self {
        Self {
            // The id distinguishes the keys of a file. A part of the hash of a hash reveals neither the hash nor the
            // key.
            id: format!("file-{}", &hex::encode(Sha256::digest(key.sha256))[..12]),
            tenant: tenant.clone(),
            note: key.note.clone(),
            source: Source::File,
            created: None,
            expires: key.expires,
            last_used: None,
        }
    }

    /// Returns the key as the API shows it. `key` is the secret that the team sends. It is given only when the key is
    /// made, and shown only then.
    #[must_use]
    pub fn json(&self, key: Option<&SecretString>) -> Value {
        let shown = |time: Option<SystemTime>| time.map(moment::seconds);
        let mut value = json!({
            "id": self.id,
            "tenant": self.tenant.as_str(),
            "note": self.note,
            "source": match self.source { Source::File => "file", Source::Api => "api" },
            "created": shown(self.created),
            "expires": shown(self.expires),
            "last_used": shown(self.last_used),
        });
        if let Some(key) = key {
            value["key"] = key.expose_secret().into();
        }
        value
    }
}

/// The stored record of a key that an order made. It is written once and never changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Record {
    pub(super) tenant: String,
    pub(super) sha256: [u8; 32],
    pub(super) note: Option<String>,
    /// The time of creation in milliseconds since 1970. `expires` has the same unit.
    pub(super) created: i64,
    pub(super) expires: Option<i64>,
}

impl Record {
    pub(super) fn new(tenant: &TenantName, sha256: [u8; 32], note: Option<String>, now: SystemTime) -> Self {
        Self { tenant: tenant.to_string(), sha256, note, created: millis(now), expires: None }
    }

    /// Returns the text that is stored for the record: a MAC over the key's id and the record, a dot, and the record as
    /// JSON.
    pub(super) fn write(&self, id: &str, mac: &Pseudonymizer) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{}.{text}", hex::encode(mac.name([id.as_bytes(), text.as_bytes()])))
    }

    /// Reads a stored record; `None` if it is damaged, or was not written for this id with the root key.
    pub(super) fn read(id: &str, value: &str, mac: &Pseudonymizer) -> Option<Self> {
        let (tag, text) = value.split_once('.')?;
        let expected = hex::encode(mac.name([id.as_bytes(), text.as_bytes()]));
        let is_ours: bool = expected.as_bytes().ct_eq(tag.as_bytes()).into();
        is_ours.then(|| serde_json::from_str(text).ok())?
    }

    /// Returns the time at which the key ends: the earlier of the record's expiry and `row`, the end that orders have
    /// stored. Returns `Some(None)` for a key without an end. Returns `None` for a revoked key: its `row` is negative.
    /// Times are in milliseconds since 1970.
    pub(super) fn end(&self, row: Option<i64>) -> Option<Option<i64>> {
        match row {
            Some(..0) => None,
            row => Some(row.into_iter().chain(self.expires).min()),
        }
    }

    pub(super) fn info(&self, id: &str, expires: Option<i64>, used: Option<i64>) -> Option<KeyInfo> {
        Some(KeyInfo {
            id: id.to_owned(),
            tenant: self.tenant.parse().ok()?,
            note: self.note.clone(),
            source: Source::Api,
            created: Some(time(self.created)),
            expires: expires.map(time),
            last_used: used.map(time),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_good_for_its_id_and_root_key_alone() {
        let mac = Pseudonymizer::new(&[1; 32], "test");
        let record = Record::new(&"lending".parse().unwrap(), [7; 32], Some("a note".into()), time(5_000));
        let written = record.write("a", &mac);
        assert_eq!(Record::read("a", &written, &mac), Some(record));
        assert_eq!(Record::read("b", &written, &mac), None);
        assert_eq!(Record::read("a", &written, &Pseudonymizer::new(&[2; 32], "test")), None);
        assert_eq!(Record::read("a", &written.replace("lending", "payments"), &mac), None);
        assert_eq!(Record::read("a", "nothing", &mac), None);
    }

    #[test]
    fn a_key_ends_at_the_nearest_of_its_ends() {
        let mut record = Record::new(&"lending".parse().unwrap(), [7; 32], None, time(0));
        assert_eq!(record.end(None), Some(None));
        assert_eq!(record.end(Some(9)), Some(Some(9)));
        record.expires = Some(5);
        assert_eq!(record.end(Some(9)), Some(Some(5)));
        assert_eq!(record.end(Some(-9)), None, "revoked");
    }
}
