//! Callbacks, and the URLs that an account set for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Uri;
use serde::Serialize;

use super::key::Key;

/// The largest number of accounts that may set URLs. One developer has a handful of accounts.
const MAX_ACCOUNTS: usize = 10_000;
/// The longest URL in bytes.
const MAX_URL: usize = 2048;

/// The type of a callback; each has its own URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Type {
    NameValidatorRequest,
    BankNameValidatorDetails,
    IdImageOcrRequest,
    BusinessDocumentOcrRequest,
    DocumentOcrCaptureRequest,
}

impl Type {
    /// All types with their names.
    pub(super) const ALL: [(&str, Self); 5] = [
        ("NAME_VALIDATOR_REQUEST", Self::NameValidatorRequest),
        ("BANK_NAME_VALIDATOR_DETAILS", Self::BankNameValidatorDetails),
        ("ID_IMAGE_OCR_REQUEST", Self::IdImageOcrRequest),
        ("BUSINESS_DOCUMENT_OCR_REQUEST", Self::BusinessDocumentOcrRequest),
        ("DOCUMENT_OCR_CAPTURE_REQUEST", Self::DocumentOcrCaptureRequest),
    ];
}

/// A result that is sent to the account's URL.
#[derive(Clone, Debug)]
pub(super) struct Callback {
    pub(super) kind: Type,
    pub(super) key: Key,
    pub(super) due: Instant,
    /// The object as `GET :id` shows it.
    pub(super) object: Bytes,
}

/// The URLs of every account.
#[derive(Debug, Default)]
pub(super) struct Urls(BTreeMap<(Arc<str>, Type), String>);

impl Urls {
    pub(super) fn of(&self, account: &Arc<str>) -> Vec<(Type, String)> {
        let all = Type::ALL.iter().map(|(_, kind)| *kind);
        all.filter_map(|kind| Some((kind, self.0.get(&(Arc::clone(account), kind))?.clone()))).collect()
    }

    pub(super) fn find(&self, account: &Arc<str>, kind: Type) -> Option<String> {
        self.0.get(&(Arc::clone(account), kind)).cloned()
    }

    /// Sets the URL of an account for a type. Returns false if the URL would be a new one and too many are stored.
    pub(super) fn set(&mut self, account: &Arc<str>, kind: Type, url: String) -> bool {
        let place = (Arc::clone(account), kind);
        if self.0.len() >= MAX_ACCOUNTS * Type::ALL.len() && !self.0.contains_key(&place) {
            return false;
        }
        self.0.insert(place, url);
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Parses a callback URL. Returns `None` if it is not an http or https URL with a host, or is too long.
pub(super) fn destination(url: &str) -> Option<Uri> {
    if url.len() > MAX_URL {
        return None;
    }
    let uri: Uri = url.parse().ok()?;
    uri.host()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_destinations() {
        assert!(destination("http://127.0.0.1:1/x?y").is_some());
        assert!(destination("https://team.internal").is_some());
        for bad in ["", "/x", "ftp://x/", "http://", "nonsense", "javascript:alert(1)"] {
            assert!(destination(bad).is_none(), "{bad}");
        }
        assert!(destination(&format!("http://x/{}", "y".repeat(MAX_URL))).is_none());
    }

    #[test]
    fn types_are_written_as_documented() {
        for (name, kind) in Type::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
    }
}
