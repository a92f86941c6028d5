//! Names that the configuration gives and that labels, keys and messages carry.
//!
//! Invariants: a name is 1 to 32 characters of `[a-z0-9-]`, so it is safe in a metric label, a log line, a URL
//! segment and in front of the `:` of a sealed reference.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is no name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a name is 1 to 32 characters of a-z, 0-9 and -")]
pub struct NotAName;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                let fits = (1..=32).contains(&text.len())
                    && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
                if fits { Ok(Self(text.into())) } else { Err(NotAName) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A team.
    TenantName
}
name! {
    /// An Iluma API key with its callback token.
    AccountName
}

/// A row of the route table (section 3 of the design), by the name that the configuration, logs and metrics use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RouteName {
    /// Bank account name validation.
    Bank,
    /// One bank validation by id.
    BankGet,
    /// The watchlist of individuals.
    Cft,
    /// The list of bank codes.
    BankCodes,
    /// KTP name and data checks.
    Ktp,
    /// NPWP data.
    Npwp,
    /// Phone number age and validation.
    Phone,
    /// Credit drawdowns.
    Drawdown,
    /// Face comparison.
    Face,
    /// Individual photo authentication.
    IdCard,
    /// ID card OCR.
    Ocr,
    /// ID card OCR results.
    OcrGet,
    /// Business document OCR.
    Document,
    /// Business document OCR results.
    DocumentGet,
    /// Document OCR capture, recapture included.
    Capture,
    /// Document OCR capture results.
    CaptureGet,
    /// A captured file.
    CaptureFile,
    /// Callback URLs.
    CallbackUrls,
    /// The callback token.
    CallbackToken,
    /// Upstream's health.
    Health,
    /// The gateway's own, about the team that asks.
    Gateway,
    /// What must never be forwarded.
    Forbidden,
    /// What no row knows.
    Other,
}

impl RouteName {
    /// Every row, in the table's order; `ALL[name as usize] == name`.
    pub const ALL: [Self; 23] = [
        Self::Bank,
        Self::BankGet,
        Self::Cft,
        Self::BankCodes,
        Self::Ktp,
        Self::Npwp,
        Self::Phone,
        Self::Drawdown,
        Self::Face,
        Self::IdCard,
        Self::Ocr,
        Self::OcrGet,
        Self::Document,
        Self::DocumentGet,
        Self::Capture,
        Self::CaptureGet,
        Self::CaptureFile,
        Self::CallbackUrls,
        Self::CallbackToken,
        Self::Health,
        Self::Gateway,
        Self::Forbidden,
        Self::Other,
    ];

    /// The name in configuration, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::BankGet => "bank_get",
            Self::Cft => "cft",
            Self::BankCodes => "bank_codes",
            Self::Ktp => "ktp",
            Self::Npwp => "npwp",
            Self::Phone => "phone",
            Self::Drawdown => "drawdown",
            Self::Face => "face",
            Self::IdCard => "id_card",
            Self::Ocr => "ocr",
            Self::OcrGet => "ocr_get",
            Self::Document => "document",
            Self::DocumentGet => "document_get",
            Self::Capture => "capture",
            Self::CaptureGet => "capture_get",
            Self::CaptureFile => "capture_file",
            Self::CallbackUrls => "callback_urls",
            Self::CallbackToken => "callback_token",
            Self::Health => "health",
            Self::Gateway => "gateway",
            Self::Forbidden => "forbidden",
            Self::Other => "other",
        }
    }

    /// The rows that naming this one in a tenant's `routes` includes beside itself.
    #[must_use]
    pub const fn includes(self) -> &'static [Self] {
        match self {
            Self::Bank => &[Self::BankGet],
            Self::Ocr => &[Self::OcrGet],
            Self::Document => &[Self::DocumentGet],
            Self::Capture => &[Self::CaptureGet, Self::CaptureFile],
            _ => &[],
        }
    }

    /// Whether every tenant may use the row, whatever its `routes` say.
    #[must_use]
    pub const fn always_allowed(self) -> bool {
        matches!(self, Self::BankCodes | Self::CallbackUrls | Self::CallbackToken | Self::Health | Self::Gateway)
    }
}

impl FromStr for RouteName {
    type Err = NotARoute;

    fn from_str(text: &str) -> Result<Self, NotARoute> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(NotARoute)
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names no route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no such route")]
pub struct NotARoute;

/// What a callback is about: the `type` at Iluma's `/callback/urls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallbackType {
    /// Bank account name validation.
    NameValidatorRequest,
    /// The same under its other name.
    BankNameValidatorDetails,
    /// ID card OCR.
    IdImageOcrRequest,
    /// Business document OCR.
    BusinessDocumentOcrRequest,
    /// Document OCR capture.
    DocumentOcrCaptureRequest,
}

impl CallbackType {
    /// All of them; `ALL[kind as usize] == kind`.
    pub const ALL: [Self; 5] = [
        Self::NameValidatorRequest,
        Self::BankNameValidatorDetails,
        Self::IdImageOcrRequest,
        Self::BusinessDocumentOcrRequest,
        Self::DocumentOcrCaptureRequest,
    ];

    /// The name as Iluma spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NameValidatorRequest => "NAME_VALIDATOR_REQUEST",
            Self::BankNameValidatorDetails => "BANK_NAME_VALIDATOR_DETAILS",
            Self::IdImageOcrRequest => "ID_IMAGE_OCR_REQUEST",
            Self::BusinessDocumentOcrRequest => "BUSINESS_DOCUMENT_OCR_REQUEST",
            Self::DocumentOcrCaptureRequest => "DOCUMENT_OCR_CAPTURE_REQUEST",
        }
    }
}

impl FromStr for CallbackType {
    type Err = NotACallbackType;

    fn from_str(text: &str) -> Result<Self, NotACallbackType> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(NotACallbackType)
    }
}

impl fmt::Display for CallbackType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names no type of callback.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no such callback type")]
pub struct NotACallbackType;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_type_is_found_by_its_name_and_at_its_place() {
        for (place, kind) in CallbackType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("name_validator_request".parse::<CallbackType>(), Err(NotACallbackType));
    }

    #[test]
    fn a_route_is_found_by_its_name_and_at_its_place() {
        for (place, name) in RouteName::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, place);
            assert_eq!(name.as_str().parse(), Ok(name));
        }
    }

    #[test]
    fn names_have_a_length_and_an_alphabet() {
        for good in ["a", "lending", "team-7", &"x".repeat(32)] {
            assert!(good.parse::<TenantName>().is_ok(), "{good}");
        }
        for bad in ["", "Lending", "a_b", "a:b", "é", &"x".repeat(33)] {
            assert_eq!(bad.parse::<TenantName>(), Err(NotAName), "{bad}");
        }
    }
}
