//! The route table: method and path → [`Route`].
//!
//! Invariants: a path is routed and forwarded in one normal form; every request gets exactly one row; a path with a
//! forbidden word that no row knows is `forbidden`, whatever else is configured.

mod path;

pub use path::{NormalPath, PathError};

use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::RouteName;
use http::Method;
use http::uri::PathAndQuery;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Segments that hand out an account's secrets or settings, and the gateway's own: where no row that we know says
/// otherwise, nothing with one passes, whatever the operator added.
const FORBIDDEN_WORDS: [&str; 4] = ["callback", "businesses", "api_keys", "_gateway"];

/// Segments of the longest row, and then some for rows that the operator adds; a longer path matches no row.
const MOST_SEGMENTS: usize = 12;

/// Where a team reads what its callbacks are signed with.
pub const WEBHOOK_SECRET: &str = "_gateway/webhook_secret";

/// The rows of section 3 of the design. `v*` stands for any version, `:x` for any one segment.
#[rustfmt::skip]
const ROWS: &[(RouteName, Method, &str)] = &[
    (RouteName::Bank,          Method::POST,  "v*/identity/bank_account_data_requests"),
    (RouteName::Bank,          Method::POST,  "v*/identity/bank_account_validation_details"),
    (RouteName::BankGet,       Method::GET,   "v*/identity/bank_account_data_requests/:id"),
    (RouteName::BankGet,       Method::GET,   "v*/identity/bank_account_validation_details/:id"),
    (RouteName::Cft,           Method::POST,  "v*/identity/cft/individual_watchlist"),
    (RouteName::BankCodes,     Method::GET,   "bank/available_bank_codes"),
    (RouteName::Ktp,           Method::POST,  "v*/identity/ktp_name/validations"),
    (RouteName::Ktp,           Method::POST,  "v*/identity/ktp_data_requests"),
    (RouteName::Npwp,          Method::POST,  "v*/identity/npwp_data_requests"),
    (RouteName::Phone,         Method::GET,   "v*/fraud/phone_numbers/:number/age"),
    (RouteName::Phone,         Method::POST,  "v*/identity/phone_numbers/validate"),
    (RouteName::Drawdown,      Method::POST,  "v*/credit/drawdowns"),
    (RouteName::Face,          Method::POST,  "v*/identity/face_comparisons"),
    (RouteName::IdCard,        Method::POST,  "v*/identity/id_card_verifications"),
    (RouteName::Ocr,           Method::POST,  "v*/identity/id_card_images"),
    (RouteName::OcrGet,        Method::GET,   "v*/identity/id_card_images"),
    (RouteName::OcrGet,        Method::GET,   "v*/identity/id_card_images/:id"),
    (RouteName::Document,      Method::POST,  "v*/identity/document_ocr_requests"),
    (RouteName::DocumentGet,   Method::GET,   "v*/identity/document_ocr_requests"),
    (RouteName::DocumentGet,   Method::GET,   "v*/identity/document_ocr_requests/:id"),
    (RouteName::Capture,       Method::POST,  "v*/identity/document_ocr_captures"),
    (RouteName::Capture,       Method::POST,  "v*/identity/document_ocr_captures/:id/recapture"),
    (RouteName::Capture,       Method::GET,   "v*/identity/document_ocr_captures/:id/recapture"),
    (RouteName::CaptureGet,    Method::GET,   "v*/identity/document_ocr_captures"),
    (RouteName::CaptureGet,    Method::GET,   "v*/identity/document_ocr_capture"),
    (RouteName::CaptureGet,    Method::GET,   "v*/identity/document_ocr_captures/:id"),
    (RouteName::CaptureGet,    Method::GET,   "v*/document_ocr_captures"), // as the links of its lists spell it
    (RouteName::CaptureFile,   Method::GET,   "v*/identity/captures/:id/results/:link/download"),
    (RouteName::CallbackUrls,  Method::GET,   "v*/callback/urls"),
    (RouteName::CallbackUrls,  Method::POST,  "v*/callback/urls"),
    (RouteName::CallbackUrls,  Method::PATCH, "v*/callback/urls"),
    (RouteName::CallbackToken, Method::GET,   "v*/callback/authentication_tokens"),
    (RouteName::CallbackToken, Method::GET,   WEBHOOK_SECRET),
    (RouteName::Health,        Method::GET,   "health"),
    (RouteName::Gateway,       Method::GET,   "_gateway/usage"),
];

/// A path that Iluma added, treated like a row we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomRoute {
    /// The method.
    pub method: Method,
    /// Segments; `:name` stands for any one segment, `v*` for any version.
    pub path: String,
    /// The row whose treatment it gets; never `forbidden` or `other`.
    pub like: RouteName,
}

/// Where a request goes, and how it is treated there.
#[derive(Debug)]
pub struct Route {
    /// The row.
    pub name: RouteName,
    /// What the gateway does on that row.
    pub treatment: Treatment,
    /// Whether asking twice changes and costs nothing.
    pub repeatable: bool,
    /// Path and query as they are forwarded: the path in normal form, the query as it came.
    pub target: PathAndQuery,
    /// The record that the path names, by Iluma's id.
    pub id: Option<Box<str>>,
}

impl Route {
    /// What Iluma's callbacks about a record of this row are (`iluma-field-notes.md`).
    #[must_use]
    pub fn callback_type(&self) -> Option<CallbackType> {
        match self.name {
            RouteName::Bank | RouteName::BankGet if self.target.path().contains("/bank_account_validation_details") => {
                Some(CallbackType::BankNameValidatorDetails)
            }
            RouteName::Bank | RouteName::BankGet => Some(CallbackType::NameValidatorRequest),
            RouteName::Ocr | RouteName::OcrGet => Some(CallbackType::IdImageOcrRequest),
            RouteName::Document | RouteName::DocumentGet => Some(CallbackType::BusinessDocumentOcrRequest),
            RouteName::Capture | RouteName::CaptureGet | RouteName::CaptureFile => {
                Some(CallbackType::DocumentOcrCaptureRequest)
            }
            _ => None,
        }
    }

    /// The path at which the record of a capture's file is looked at.
    #[must_use]
    pub fn capture(&self) -> Option<PathAndQuery> {
        let version = self.target.path().split('/').nth(1)?;
        let path = format!("/{version}/identity/document_ocr_captures/{}", self.id.as_deref()?);
        PathAndQuery::try_from(path).ok()
    }
}

/// What the gateway does with a request, by its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// The request is read, and answered from the cache where that can be.
    Cached,
    /// A result by its id: final ones are kept, and upstream is asked for others once a second.
    Looked,
    /// A public list, kept for every tenant of an account.
    Listed,
    /// Upstream's health, asked without a key.
    Health,
    /// A record is made, or made anew: its reference is sealed, and the team comes to own it.
    Submitted,
    /// Records are looked at, by id or as a list: the team sees its own alone.
    Records,
    /// A file that belongs to a record.
    File,
    /// Both bodies pass without being held.
    Streamed,
    /// OPTIONS: the path's methods are told, and nothing is sent.
    Described,
    /// What the team used and may use, from the gateway's own books.
    Usage,
    /// A setting of the tenant's own, which never reaches Iluma.
    Callback,
    /// Refused.
    Forbidden,
    /// No row knows it.
    Unknown,
}

/// The table, ready to be asked.
#[derive(Debug)]
pub struct Table {
    known: Vec<Row>,
    added: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: RouteName,
    method: Method,
    pattern: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Literal(Box<str>),
    Version,
    Any,
}

impl Table {
    /// The rows we know and those that the operator added, which come last.
    #[must_use]
    pub fn new(custom: &[CustomRoute]) -> Self {
        let known = ROWS.iter().map(|(name, method, pattern)| Row::new(*name, method.clone(), pattern));
        let added = custom.iter().map(|route| Row::new(route.like, route.method.clone(), &route.path));
        Self { known: known.collect(), added: added.collect() }
    }

    /// The row of a request. HEAD is routed as GET.
    ///
    /// # Errors
    /// The path has no normal form.
    pub fn find(&self, method: &Method, target: &PathAndQuery) -> Result<Route, PathError> {
        let path = NormalPath::parse(target.path())?;
        let described = method == Method::OPTIONS;
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        let row = with_segments(&path, |segments| {
            let fits = |row: &&Row| (described || row.method == *asked) && row.matches(segments);
            let known = self.known.iter().find(fits);
            // What an added row stands for is the operator's choice, but not where the account's keys are.
            known.or_else(|| self.added.iter().find(fits).filter(|_| !path.names(&FORBIDDEN_WORDS)))
        });
        let row = row.flatten();
        let id = row.and_then(|row| with_segments(&path, |segments| row.id(segments))).flatten();
        let (name, path) = match row {
            // Most paths come as they are documented, and cost no copy.
            Some(row) if is_canonical(path.as_str()) => (row.name, Cow::Borrowed(path.as_str())),
            Some(row) => {
                (row.name, with_segments(&path, |segments| row.canonical(segments)).unwrap_or_default().into())
            }
            None if path.names(&FORBIDDEN_WORDS) => (RouteName::Forbidden, Cow::Borrowed(path.as_str())),
            None => (RouteName::Other, Cow::Borrowed(path.as_str())),
        };
        let known = !matches!(name, RouteName::Forbidden | RouteName::Other);
        let treatment = if described && known { Treatment::Described } else { treatment(name) };
        let repeatable = method.is_safe() && is_free(name);
        Ok(Route { name, treatment, repeatable, target: retarget(target, &path)?, id })
    }

    /// The methods that some row knows for a path; none if no row knows the path.
    ///
    /// # Errors
    /// The path has no normal form.
    pub fn methods(&self, target: &PathAndQuery) -> Result<Vec<Method>, PathError> {
        let path = NormalPath::parse(target.path())?;
        let rows = |segments: &[&str]| {
            let rows = self.known.iter().chain(&self.added);
            rows.filter(|row| row.matches(segments)).map(|row| row.method.clone()).collect()
        };
        Ok(with_segments(&path, rows).unwrap_or_default())
    }
}

/// The treatment of a row, in one place.
const fn treatment(name: RouteName) -> Treatment {
    match name {
        RouteName::Bank | RouteName::Cft => Treatment::Cached,
        RouteName::BankCodes => Treatment::Listed,
        RouteName::Health => Treatment::Health,
        RouteName::BankGet => Treatment::Looked,
        RouteName::Ktp
        | RouteName::Npwp
        | RouteName::Phone
        | RouteName::Drawdown
        | RouteName::Face
        | RouteName::IdCard => Treatment::Streamed,
        RouteName::Ocr | RouteName::Document | RouteName::Capture => Treatment::Submitted,
        RouteName::OcrGet | RouteName::DocumentGet | RouteName::CaptureGet => Treatment::Records,
        RouteName::CaptureFile => Treatment::File,
        RouteName::CallbackUrls | RouteName::CallbackToken => Treatment::Callback,
        RouteName::Gateway => Treatment::Usage,
        RouteName::Forbidden => Treatment::Forbidden,
        RouteName::Other => Treatment::Unknown,
    }
}

/// Whether a GET on the row only looks at what is there. The age of a phone number is charged, and a recapture is one
/// by GET too.
const fn is_free(name: RouteName) -> bool {
    matches!(
        name,
        RouteName::BankGet
            | RouteName::BankCodes
            | RouteName::OcrGet
            | RouteName::DocumentGet
            | RouteName::CaptureGet
            | RouteName::CaptureFile
            | RouteName::Health
    )
}

impl Row {
    fn new(name: RouteName, method: Method, pattern: &str) -> Self {
        let segment = |text: &str| match text {
            "v*" => Segment::Version,
            text if text.starts_with(':') => Segment::Any,
            text => Segment::Literal(text.to_ascii_lowercase().into()),
        };
        let pattern = pattern.trim_matches('/').split('/').map(segment).collect();
        Self { name, method, pattern }
    }

    fn matches(&self, segments: &[&str]) -> bool {
        self.pattern.len() == segments.len()
            && self.pattern.iter().zip(segments).all(|(pattern, segment)| match pattern {
                Segment::Literal(text) => text.eq_ignore_ascii_case(segment),
                Segment::Version => is_version(segment),
                Segment::Any => true,
            })
    }

    /// What stands for the row's first `:x`, on rows where that is the id of a record.
    fn id(&self, segments: &[&str]) -> Option<Box<str>> {
        let named = matches!(
            self.name,
            RouteName::BankGet
                | RouteName::OcrGet
                | RouteName::DocumentGet
                | RouteName::Capture
                | RouteName::CaptureGet
                | RouteName::CaptureFile
        );
        let at = self.pattern.iter().position(|segment| matches!(segment, Segment::Any)).filter(|_| named)?;
        segments.get(at).map(|id| (*id).into())
    }

    /// The path as upstream documents it: words in lower case, no trailing slash, what stands for a `:x` untouched.
    fn canonical(&self, segments: &[&str]) -> String {
        let mut path = String::with_capacity(64);
        for (pattern, segment) in self.pattern.iter().zip(segments) {
            path.push('/');
            match pattern {
                Segment::Literal(text) => path.push_str(text),
                Segment::Version => path.extend(segment.chars().map(|c| c.to_ascii_lowercase())),
                Segment::Any => path.push_str(segment),
            }
        }
        path
    }
}

/// Whether a path that matched a row is sure to be that row's canonical path.
fn is_canonical(path: &str) -> bool {
    !path.ends_with('/') && !path.bytes().any(|b| b.is_ascii_uppercase())
}

/// `v` and dotted numbers: `v0`, `v1.1`, `v22`.
fn is_version(segment: &str) -> bool {
    let Some(numbers) = segment.strip_prefix(['v', 'V']) else { return false };
    segment.len() <= 16 && numbers.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Calls `f` with the segments on the stack; not at all where there are more than any row has.
fn with_segments<T>(path: &NormalPath<'_>, f: impl FnOnce(&[&str]) -> T) -> Option<T> {
    let mut segments = [""; MOST_SEGMENTS];
    let mut count = 0;
    for segment in path.segments() {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    Some(f(&segments[..count]))
}

/// `target` with another path, or itself where the path is the same already.
fn retarget(target: &PathAndQuery, path: &str) -> Result<PathAndQuery, PathError> {
    if target.path() == path {
        return Ok(target.clone());
    }
    let mut text = path.to_owned();
    if let Some(query) = target.query() {
        let _ = write!(text, "?{query}");
    }
    PathAndQuery::try_from(text).map_err(|_| PathError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, target: &str) -> (RouteName, String) {
        let route = Table::new(&[]).find(&method.parse().unwrap(), &target.parse().unwrap()).unwrap();
        (route.name, route.target.to_string())
    }

    #[test]
    fn every_row_is_found_in_any_version_case_and_with_a_trailing_slash() {
        for (name, method, pattern) in ROWS {
            for version in ["v0", "v1", "v1.1", "v2.2", "v10"] {
                let plain = format!("/{}", pattern.replace("v*", version).replace(':', "X-"));
                assert_eq!(find(method.as_str(), &plain), (*name, plain.clone()));
                assert_eq!(find(method.as_str(), &format!("{plain}/?a=B")), (*name, format!("{plain}?a=B")));
                let odd = format!("/{}", pattern.replace("v*", version).to_uppercase().replace(':', "X-"));
                assert_eq!(find(method.as_str(), &odd).0, *name, "{odd}");
            }
        }
    }

    #[test]
    fn what_no_row_knows_is_other_or_forbidden() {
        for (method, target, name) in [
            ("POST", "/v3/identity/bank_checks", RouteName::Other),
            ("GET", "/v1/identity/bank_account_data_requests", RouteName::Other),
            ("DELETE", "/v1/identity/bank_account_data_requests/1", RouteName::Other),
            ("POST", "/vx/identity/bank_account_data_requests", RouteName::Other),
            ("POST", "/v1./identity/bank_account_data_requests", RouteName::Other),
            ("GET", "/", RouteName::Other),
            ("GET", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n", RouteName::Other),
            ("GET", "/businesses/5abc/api_keys?token=1", RouteName::Forbidden),
            ("POST", "/Businesses", RouteName::Forbidden),
            ("DELETE", "/v1/callback/urls", RouteName::Forbidden),
            ("POST", "/v1/callback/authentication_tokens", RouteName::Forbidden),
            ("GET", "/v9/x/api_keys", RouteName::Forbidden),
            ("GET", "/v1/a/b/c/d/e/f/g/h/i/j/k/l/callback", RouteName::Forbidden),
        ] {
            assert_eq!(find(method, target).0, name, "{method} {target}");
        }
    }

    #[test]
    fn head_is_routed_as_get_and_methods_are_listed() {
        assert_eq!(find("HEAD", "/health").0, RouteName::Health);
        let table = Table::new(&[]);
        let methods = table.methods(&"/v1/callback/urls".parse().unwrap()).unwrap();
        assert_eq!(methods, [Method::GET, Method::POST, Method::PATCH]);
        assert!(table.methods(&"/nowhere".parse().unwrap()).unwrap().is_empty());
        let options = table.find(&Method::OPTIONS, &"/v1/callback/urls".parse().unwrap()).unwrap();
        assert_eq!((options.name, options.treatment), (RouteName::CallbackUrls, Treatment::Described));
        assert_eq!(find("OPTIONS", "/businesses/1").0, RouteName::Forbidden);
    }

    #[test]
    fn an_added_path_is_treated_like_the_row_it_names() {
        let added =
            CustomRoute { method: Method::POST, path: "/v3/identity/bank_checks/:id".into(), like: RouteName::Bank };
        let table = Table::new(&[added]);
        let route = table.find(&Method::POST, &"/V3/identity/Bank_Checks/Ab".parse().unwrap()).unwrap();
        assert_eq!((route.name, route.target.as_str()), (RouteName::Bank, "/v3/identity/bank_checks/Ab"));
        assert_eq!(route.treatment, Treatment::Cached);
    }

    #[test]
    fn an_added_path_never_leads_to_the_accounts_keys() {
        let added = CustomRoute { method: Method::GET, path: "/:a/:b/:c".into(), like: RouteName::Ktp };
        let table = Table::new(&[added]);
        let name = |target: &str| table.find(&Method::GET, &target.parse().unwrap()).unwrap().name;
        assert_eq!(name("/a/b/c"), RouteName::Ktp);
        for closed in ["/businesses/5abc/api_keys?token=1", "/v1/callback/x", "/x/y/api_keys", "/_gateway/x/y"] {
            assert_eq!(name(closed), RouteName::Forbidden, "{closed}");
        }
    }

    #[test]
    fn an_encoded_spelling_reaches_the_same_row_in_one_form() {
        let (name, target) = find("POST", "/%76%31/identity/bank%5Faccount_data_requests?x=%41");
        assert_eq!((name, target.as_str()), (RouteName::Bank, "/v1/identity/bank_account_data_requests?x=%41"));
    }
}
