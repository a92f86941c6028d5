//! The names of the rows of the route table. The table itself is in `routes/table.rs`.

/// The name of a row of the route table, as in configuration, logs and metrics.
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
    /// Iluma's health.
    Health,
    /// The gateway's own API, about the calling team.
    Gateway,
    /// Paths that are never forwarded.
    Forbidden,
    /// Paths that match no other row.
    Other,
}

/// The error for a text that names no route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no such route")]
pub struct NotARoute;
