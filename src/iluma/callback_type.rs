//! The types of Iluma's callbacks.

use std::fmt;
use std::str::FromStr;

/// The type of a callback, as in the member `type` of Iluma's `/callback/urls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallbackType {
    /// Bank account name validation at the path `bank_account_data_requests`.
    NameValidatorRequest,
    /// Bank account name validation at the path `bank_account_validation_details`.
    BankNameValidatorDetails,
    /// ID card OCR.
    IdImageOcrRequest,
    /// Business document OCR.
    BusinessDocumentOcrRequest,
    /// Document OCR capture.
    DocumentOcrCaptureRequest,
}

impl CallbackType {
    /// All types; `ALL[kind as usize] == kind`.
    pub const ALL: [Self; 5] = [
        Self::NameValidatorRequest,
        Self::BankNameValidatorDetails,
        Self::IdImageOcrRequest,
        Self::BusinessDocumentOcrRequest,
        Self::DocumentOcrCaptureRequest,
    ];

    /// Returns the name as Iluma spells it.
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

/// The error for a text that names no callback type.
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
}
