//! The names of the rows of the route table.

use std::fmt;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_by_its_name_and_at_its_place() {
        for (place, name) in RouteName::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, place);
            assert_eq!(name.as_str().parse(), Ok(name));
        }
    }
}
