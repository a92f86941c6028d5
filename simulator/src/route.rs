//! The table of paths. It maps method and path to a route with its label, price and parameters.
//!
//! Any version from `v0` to `v99.99` is accepted: Iluma versions each route and adds versions without notice. As on
//! Iluma's own server, static segments match in any ASCII case and a path may end with one slash.

use http::Method;
use percent_encoding::percent_decode_str;

/// A version in a path: `v1.1` is `Version { major: 1, minor: 1 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u8,
    pub(super) minor: u8,
}

impl Version {
    pub(super) const V1_1: Self = Self { major: 1, minor: 1 };
    pub(super) const V2: Self = Self { major: 2, minor: 0 };
    pub(super) const V2_2: Self = Self { major: 2, minor: 2 };

    fn parse(segment: &str) -> Option<Self> {
        let digits = segment.strip_prefix(['v', 'V'])?;
        let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
        let number = |text: &str| {
            let fits = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
            if fits { text.parse().ok() } else { None }
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// The route of a call: one row of the table, or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Bank,
    BankDetails,
    BankGet,
    BankDetailsGet,
    BankCodes,
    Cft,
    Ktp,
    KtpData,
    Npwp,
    PhoneAge,
    PhoneValidate,
    Drawdown,
    Face,
    IdCard,
    Ocr,
    OcrGet,
    OcrList,
    Document,
    DocumentGet,
    DocumentList,
    Capture,
    CaptureGet,
    CaptureList,
    Recapture,
    CaptureFile,
    CallbackUrls,
    CallbackToken,
    ApiKeys,
    Health,
    Unknown,
}

impl Route {
    /// Returns the route's name in the statistics, and the price of a charged call in rupiah. The simulator invents
    /// both.
    pub(super) fn label(self) -> (&'static str, u64) {
        match self {
            Self::Bank | Self::BankDetails => ("bank", 500),
            Self::BankGet | Self::BankDetailsGet => ("bank_get", 0),
            Self::BankCodes => ("bank_codes", 0),
            Self::Cft => ("cft", 1000),
            Self::Ktp | Self::KtpData => ("ktp", 1500),
            Self::Npwp => ("npwp", 1500),
            Self::PhoneAge | Self::PhoneValidate => ("phone", 700),
            Self::Drawdown => ("drawdown", 900),
            Self::Face => ("face", 1200),
            Self::IdCard => ("id_card", 3000),
            Self::Ocr => ("ocr", 1000),
            Self::OcrGet | Self::OcrList => ("ocr_get", 0),
            Self::Document => ("document", 5000),
            Self::DocumentGet | Self::DocumentList => ("document_get", 0),
            Self::Capture | Self::Recapture => ("capture", 8000),
            Self::CaptureGet | Self::CaptureList => ("capture_get", 0),
            Self::CaptureFile => ("capture_file", 0),
            Self::CallbackUrls => ("callback_urls", 0),
            Self::CallbackToken => ("callback_token", 0),
            Self::ApiKeys => ("api_keys", 0),
            Self::Health => ("health", 0),
            Self::Unknown => ("unknown", 0),
        }
    }
}

/// The result of a look-up in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) route: Route,
    /// The path's version, or v1 if it has none.
    pub(super) version: Version,
    /// The values of the path's parameters, percent-decoded, in the path's order.
    pub(super) parameters: Vec<String>,
}

/// Finds a call's route in the table.
pub(super) fn find(method: &Method, path: &str) -> Matched {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<&str> = trimmed.split('/').skip(1).collect();
    let (version, rest) = match segments.split_first() {
        Some((first, rest)) => match Version::parse(first) {
            Some(version) => (Some(version), rest),
            None => (None, segments.as_slice()),
        },
        None => (None, segments.as_slice()),
    };
    let lower: Vec<String> = rest.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let (route, parameters) = row(method, version.is_some(), &lower, rest);
    Matched {
        route,
        version: version.unwrap_or(Version { major: 1, minor: 0 }),
        parameters: parameters.into_iter().map(|p| percent_decode_str(p).decode_utf8_lossy().into_owned()).collect(),
    }
}

fn row<'a>(method: &Method, versioned: bool, lower: &[&str], raw: &[&'a str]) -> (Route, Vec<&'a str>) {
    let method = method.as_str();
    let param = |at: usize| raw.get(at).copied().unwrap_or("");
    match (method, versioned, lower) {
        ("GET", _, ["bank", "available_bank_codes"]) => (Route::BankCodes, vec![]),
        ("GET", false, ["health"]) => (Route::Health, vec![]),
        ("GET", false, ["businesses", _, "api_keys"]) => (Route::ApiKeys, vec![param(1)]),
        ("POST", true, ["identity", "bank_account_data_requests"]) => (Route::Bank, vec![]),
        ("POST", true, ["identity", "bank_account_validation_details"]) => (Route::BankDetails, vec![]),
        ("GET", true, ["identity", "bank_account_data_requests", _]) => (Route::BankGet, vec![param(2)]),
        ("GET", true, ["identity", "bank_account_validation_details", _]) => (Route::BankDetailsGet, vec![param(2)]),
        ("POST", true, ["identity", "cft", "individual_watchlist"]) => (Route::Cft, vec![]),
        ("POST", true, ["identity", "ktp_name", "validations"]) => (Route::Ktp, vec![]),
        ("POST", true, ["identity", "ktp_data_requests"]) => (Route::KtpData, vec![]),
        ("POST", true, ["identity", "npwp_data_requests"]) => (Route::Npwp, vec![]),
        ("GET", true, ["fraud", "phone_numbers", _, "age"]) => (Route::PhoneAge, vec![param(2)]),
        ("POST", true, ["identity", "phone_numbers", "validate"]) => (Route::PhoneValidate, vec![]),
        ("POST", true, ["credit", "drawdowns"]) => (Route::Drawdown, vec![]),
        ("POST", true, ["identity", "face_comparisons"]) => (Route::Face, vec![]),
        ("POST", true, ["identity", "id_card_verifications"]) => (Route::IdCard, vec![]),
        ("POST", true, ["identity", "id_card_images"]) => (Route::Ocr, vec![]),
        ("GET", true, ["identity", "id_card_images"]) => (Route::OcrList, vec![]),
        ("GET", true, ["identity", "id_card_images", _]) => (Route::OcrGet, vec![param(2)]),
        ("POST", true, ["identity", "document_ocr_requests"]) => (Route::Document, vec![]),
        ("GET", true, ["identity", "document_ocr_requests"]) => (Route::DocumentList, vec![]),
        ("GET", true, ["identity", "document_ocr_requests", _]) => (Route::DocumentGet, vec![param(2)]),
        ("POST", true, ["identity", "document_ocr_captures"]) => (Route::Capture, vec![]),
        // The API document lists captures below the singular path, and its example links have no `identity`.
        ("GET", true, ["identity", "document_ocr_captures" | "document_ocr_capture"] | ["document_ocr_captures"]) => {
            (Route::CaptureList, vec![])
        }
        ("GET", true, ["identity", "document_ocr_captures", _]) => (Route::CaptureGet, vec![param(2)]),
        ("GET" | "POST", true, ["identity", "document_ocr_captures", _, "recapture"]) => {
            (Route::Recapture, vec![param(2)])
        }
        ("GET", true, ["identity", "captures", _, "results", _, "download"]) => {
            (Route::CaptureFile, vec![param(2), param(4)])
        }
        ("GET" | "POST" | "PATCH", true, ["callback", "urls"]) => (Route::CallbackUrls, vec![]),
        ("GET", true, ["callback", "authentication_tokens"]) => (Route::CallbackToken, vec![]),
        _ => (Route::Unknown, vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Matched {
        find(&Method::GET, path)
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(Version::parse("v1"), Some(Version { major: 1, minor: 0 }));
        assert_eq!(Version::parse("v2.2"), Some(Version::V2_2));
        for bad in ["", "v", "v.1", "v1.", "1", "vx", "v1.1.1", "v100", "v+1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert!(Version::V1_1 < Version::V2 && Version::V2 < Version::V2_2);
    }

    #[test]
    fn paths_find_their_row() {
        let bank = find(&Method::POST, "/v2.2/identity/bank_account_data_requests");
        assert_eq!((bank.route, bank.version), (Route::Bank, Version::V2_2));
        assert_eq!(get("/v1/identity/bank_account_data_requests/Ab1").parameters, ["Ab1"]);
        assert_eq!(get("/v1/Identity/Document_OCR_Capture/").route, Route::CaptureList);
        assert_eq!(get("/v1/fraud/phone_numbers/%2B6281/age").parameters, ["+6281"]);
        assert_eq!(get("/v1/identity/captures/a/results/b.pdf/download").parameters, ["a", "b.pdf"]);
        assert_eq!(get("/health").route, Route::Health);
        assert_eq!(get("/businesses/5abc/api_keys").route, Route::ApiKeys);
        for unknown in
            ["/", "", "//", "/v1", "/v1/identity", "/identity/id_card_images", "/v1/v1/identity/id_card_images"]
        {
            assert_eq!(get(unknown).route, Route::Unknown, "{unknown}");
        }
        assert_eq!(find(&Method::DELETE, "/v1/callback/urls").route, Route::Unknown);
    }
}
