//! The names of the rows of the route table. Everything else about a row stands in the table (`routes/table.rs`).

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
    /// Iluma's health.
    Health,
    /// The gateway's own API, about the team that asks.
    Gateway,
    /// Paths that are never forwarded.
    Forbidden,
    /// Paths that no row knows.
    Other,
}

/// A text that names no route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no such route")]
pub struct NotARoute;
