//! Routing: method and path → [`Route`], and the paths that are never forwarded.
//!
//! Invariants: a path is routed and forwarded in one normal form; every request gets exactly one row; a path with a
//! forbidden word that matches no row is `forbidden`, and no setting changes that.

use super::kind::{Charge, Kind};
use super::path::{NormalPath, PathError};
use super::table::ROUTES;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::RouteName;
use http::Method;
use http::uri::PathAndQuery;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

/// Segments of paths that reveal an account's secrets or settings. A path with one of them, or with [`OWN_WORD`], is
/// refused if no row of the table matches it. A route that the operator has added for such a path does not change that.
pub const ACCOUNT_WORDS: [&str; 3] = ["callback", "businesses", "api_keys"];
/// The segment of the gateway's own API.
pub const OWN_WORD: &str = "_gateway";

/// The collections of records. A path in a collection that matches no row is refused, with any method and any suffix: a
/// server that is not strict about paths could show another team's record there.
const COLLECTIONS: [&str; 7] = [
    "bank_account_data_requests",
    "bank_account_validation_details",
    "id_card_images",
    "document_ocr_requests",
    "document_ocr_captures",
    "document_ocr_capture",
    "captures",
];

/// The largest number of segments in a path that a row can match. The longest row of the table has fewer, so that the
/// operator can add longer ones.
const MOST_SEGMENTS: usize = 12;

/// An operator's row for a path that Iluma added; it is treated like a row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomRoute {
    /// The method.
    pub method: Method,
    /// The pattern of the path: `:name` matches any one segment, and `v*` any version.
    pub path: String,
    /// The row whose treatment the path gets; never `forbidden` or `other`.
    pub like: RouteName,
}

/// The row and the target of one request.
#[derive(Debug)]
pub struct Route {
    /// The row.
    pub name: RouteName,
    /// The handler.
    pub kind: Kind,
    /// True if repeating the call changes and costs nothing.
    pub repeatable: bool,
    /// The forwarded path and query: the path in normal form, the query as received.
    pub target: PathAndQuery,
    /// Iluma's id of the record that the path names; `None` if the path names no record.
    pub record: Option<Box<str>>,
    /// The type of Iluma's callbacks about a record of this row; `None` if Iluma sends no such callbacks.
    pub callback_type: Option<CallbackType>,
}

impl Route {
    /// Returns the path of the capture that a file or a recapture belongs to; `None` if the path names no record.
    #[must_use]
    pub fn capture(&self) -> Option<PathAndQuery> {
        let version = self.target.path().split('/').nth(1)?;
        let path = format!("/{version}/identity/document_ocr_captures/{}", self.record.as_deref()?);
        PathAndQuery::try_from(path).ok()
    }
}

/// The route table with the operator's rows.
#[derive(Debug)]
pub struct Table {
    known: Vec<Row>,
    added: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: RouteName,
    method: Method,
    /// Method and pattern, as the table has them.
    endpoint: Arc<str>,
    pattern: Vec<Segment>,
    /// The index of the segment that is a record's id; `None` if no segment is.
    record: Option<usize>,
    /// The type of Iluma's callbacks about the row's records.
    callback_type: Option<CallbackType>,
}

#[derive(Debug)]
enum Segment {
    Literal(Box<str>),
    Version,
    Any,
}

impl Table {
    /// Makes a table of the built-in rows, and of the rows that the operator added. A request is compared with the
    /// added rows last.
    #[must_use]
    pub fn new(custom: &[CustomRoute]) -> Self {
        let known = ROUTES.iter().flat_map(|row| row.patterns().map(|(method, path)| Row::new(row.name, method, path)));
        let added = custom.iter().map(|route| Row::new(route.like, route.method.clone(), &route.path));
        Self { known: known.collect(), added: added.collect() }
    }

    /// Returns the route of a request. HEAD is routed as GET. OPTIONS matches rows with any method. A path that matches
    /// no row gets the row `gateway`, `forbidden` or `other`.
    ///
    /// # Errors
    /// Returns an error if the path has no normal form.
    pub fn find(&self, method: &Method, target: &PathAndQuery) -> Result<Route, PathError> {
        let path = NormalPath::parse(target.path())?;
        let described = method == Method::OPTIONS;
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        let found = with_segments(&path, |segments| {
            let fits = |row: &&Row| (described || row.method == *asked) && row.matches(segments);
            let known = self.known.iter().find(fits);
            // An added row serves no path with a forbidden word, and in a collection only the paths of
            // `Row::may_serve`.
            let may_serve = |row: &&Row| !is_forbidden(&path) && row.may_serve(&path);
            let row = known.or_else(|| self.added.iter().find(|row| fits(row) && may_serve(row)))?;
            Some((row, row.record(segments)))
        });
        let (row, record) = found.flatten().unzip();
        let (record, callback_type) = (record.flatten(), row.and_then(|row: &Row| row.callback_type));
        let is_in_collection = row.is_none() && path.names(&COLLECTIONS);
        let (name, path) = match row {
            // Most paths arrive in their documented form, and cost no copy.
            Some(row) if is_canonical(path.as_str()) => (row.name, Cow::Borrowed(path.as_str())),
            Some(row) => {
                (row.name, with_segments(&path, |segments| row.canonical(segments)).unwrap_or_default().into())
            }
            None => (unknown(&path), Cow::Borrowed(path.as_str())),
        };
        let spec = name.spec();
        let kind = match row {
            Some(_) if described => Kind::Options,
            None if name == RouteName::Other && is_in_collection => Kind::Closed,
            None if name == RouteName::Gateway => Kind::Absent,
            _ => spec.kind,
        };
        let repeatable = method.is_safe() && spec.charge == Charge::Never;
        Ok(Route { name, kind, repeatable, target: retarget(target, &path)?, record, callback_type })
    }

    /// Returns the endpoint of a call: its method and path pattern. All versions of a path are one endpoint. Paths that
    /// match no row are one endpoint for each method.
    #[must_use]
    pub fn endpoint(&self, method: &Method, target: &PathAndQuery) -> Arc<str> {
        self.pattern(method, target).unwrap_or_else(|| format!("{method} {}", RouteName::Other).into())
    }

    /// Returns the method and the path pattern of the row that a request matches, such as `GET /health`; `None` if no
    /// row matches.
    #[must_use]
    pub fn pattern(&self, method: &Method, target: &PathAndQuery) -> Option<Arc<str>> {
        let path = NormalPath::parse(target.path()).ok()?;
        let fits = |segments: &[&str]| {
            let rows = self.known.iter().chain(&self.added);
            rows.filter(|row| row.method == *method).find(|row| row.matches(segments))
        };
        with_segments(&path, fits).flatten().map(|row| Arc::clone(&row.endpoint))
    }

    /// Returns the methods of the rows that match a path; none if no row matches it.
    ///
    /// # Errors
    /// Returns an error if the path has no normal form.
    pub fn methods(&self, target: &PathAndQuery) -> Result<Vec<Method>, PathError> {
        let path = NormalPath::parse(target.path())?;
        let rows = |segments: &[&str]| {
            let rows = self.known.iter().chain(&self.added);
            rows.filter(|row| row.matches(segments)).map(|row| row.method.clone()).collect()
        };
        Ok(with_segments(&path, rows).unwrap_or_default())
    }
}

fn is_forbidden(path: &NormalPath<'_>) -> bool {
    path.names(&ACCOUNT_WORDS) || path.names(&[OWN_WORD])
}

/// Returns the name of the row for a path that no pattern matches.
fn unknown(path: &NormalPath<'_>) -> RouteName {
    if path.segments().next().is_some_and(|first| first.eq_ignore_ascii_case(OWN_WORD)) {
        RouteName::Gateway
    } else if is_forbidden(path) {
        RouteName::Forbidden
    } else {
        RouteName::Other
    }
}

/// The relation of an operator's pattern to the collections of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectionPlace {
    /// The pattern is in no collection.
    Outside,
    /// The pattern names a record: `:id` follows the collection's name directly.
    Record,
    /// The pattern is in a collection and has no `:name` segment.
    Collection,
    /// The pattern is in a collection and has a `:name` segment, but no `:id` directly after the collection's name.
    Unclear,
}

impl CollectionPlace {
    /// Returns the relation of a pattern to the collections of records. A pattern without a normal form is `Outside`.
    #[must_use]
    pub fn of(pattern: &str) -> Self {
        let Ok(path) = NormalPath::parse(pattern) else { return Self::Outside };
        if !path.names(&COLLECTIONS) {
            return Self::Outside;
        }
        let segments: Vec<&str> = path.segments().collect();
        let is_name = |segment: &str| COLLECTIONS.iter().any(|name| name.eq_ignore_ascii_case(segment));
        if segments.windows(2).any(|pair| is_name(pair[0]) && pair[1] == ":id") {
            Self::Record
        } else if segments.iter().any(|segment| segment.starts_with(':')) {
            Self::Unclear
        } else {
            Self::Collection
        }
    }
}

impl Row {
    fn new(name: RouteName, method: Method, pattern: &str) -> Self {
        let segment = |text: &str| match text {
            "v*" => Segment::Version,
            text if text.starts_with(':') => Segment::Any,
            text => Segment::Literal(text.to_ascii_lowercase().into()),
        };
        let segments = || pattern.trim_matches('/').split('/');
        // An operator may give the parameter of the id another name.
        let id =
            segments().position(|text| text == ":id").or_else(|| segments().position(|text| text.starts_with(':')));
        let record = id.filter(|_| name.spec().names_records());
        let endpoint = format!("{method} /{}", pattern.trim_matches('/')).into();
        let path = pattern.to_ascii_lowercase();
        let callback_type = name.spec().callbacks.iter().find(|(text, _)| path.contains(text)).map(|(_, kind)| *kind);
        Self { name, method, endpoint, pattern: segments().map(segment).collect(), record, callback_type }
    }

    fn matches(&self, segments: &[&str]) -> bool {
        // The last segments differ most between rows.
        self.pattern.len() == segments.len()
            && self.pattern.iter().zip(segments).rev().all(|(pattern, segment)| match pattern {
                Segment::Literal(text) => text.eq_ignore_ascii_case(segment),
                Segment::Version => is_version(segment),
                Segment::Any => true,
            })
    }

    /// Returns true if the row may serve the path. In a collection of records a row may only serve the record that its
    /// path names, or a submission.
    fn may_serve(&self, path: &NormalPath<'_>) -> bool {
        !path.names(&COLLECTIONS) || self.name.spec().may_stand_in_collection(self.record.is_some())
    }

    /// Returns the segment that is a record's id, if the row has one.
    fn record(&self, segments: &[&str]) -> Option<Box<str>> {
        segments.get(self.record?).map(|id| (*id).into())
    }

    /// Returns the path as Iluma documents it: words in lower case, and no trailing slash. Segments in place of a `:x`
    /// are unchanged.
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

/// Returns true if a path that matched a row has no trailing slash and no upper-case letter, and so is the row's
/// canonical path. For a canonical path with upper-case letters in an id it returns false.
fn is_canonical(path: &str) -> bool {
    !path.ends_with('/') && !path.bytes().any(|b| b.is_ascii_uppercase())
}

/// Returns true for a version: `v` and numbers with dots in between, such as `v0`, `v1.1` or `v22`.
fn is_version(segment: &str) -> bool {
    let Some(numbers) = segment.strip_prefix(['v', 'V']) else { return false };
    segment.len() <= 16 && numbers.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Calls `f` with the segments of a path, which are kept on the stack. Returns `None` if there are more than
/// [`MOST_SEGMENTS`].
fn with_segments<T>(path: &NormalPath<'_>, f: impl FnOnce(&[&str]) -> T) -> Option<T> {
    let mut segments = [""; MOST_SEGMENTS];
    let mut count = 0;
    for segment in path.segments() {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    Some(f(&segments[..count]))
}

/// Returns `target` with `path` in place of its own path. The query stays the same.
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
        let rows = ROUTES.iter().flat_map(|row| row.patterns().map(|(method, pattern)| (&row.name, method, pattern)));
        for (name, method, pattern) in rows {
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
            ("PUT", "/v1/callback/urls", RouteName::Forbidden),
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
        assert_eq!(methods, [Method::GET, Method::POST, Method::PATCH, Method::DELETE]);
        assert!(table.methods(&"/nowhere".parse().unwrap()).unwrap().is_empty());
        let options = table.find(&Method::OPTIONS, &"/v1/callback/urls".parse().unwrap()).unwrap();
        assert_eq!((options.name, options.kind), (RouteName::CallbackUrls, Kind::Options));
        assert_eq!(find("OPTIONS", "/businesses/1").0, RouteName::Forbidden);
    }

    #[test]
    fn an_added_path_is_treated_like_the_row_it_names() {
        let added =
            CustomRoute { method: Method::POST, path: "/v3/identity/bank_checks/:id".into(), like: RouteName::Bank };
        let table = Table::new(&[added]);
        let route = table.find(&Method::POST, &"/V3/identity/Bank_Checks/Ab".parse().unwrap()).unwrap();
        assert_eq!((route.name, route.target.as_str()), (RouteName::Bank, "/v3/identity/bank_checks/Ab"));
        assert_eq!(route.kind, RouteName::Bank.spec().kind);
    }

    #[test]
    fn an_added_path_never_leads_to_the_accounts_keys() {
        let added = CustomRoute { method: Method::GET, path: "/:a/:b/:c".into(), like: RouteName::Ktp };
        let table = Table::new(&[added]);
        let name = |target: &str| table.find(&Method::GET, &target.parse().unwrap()).unwrap().name;
        assert_eq!(name("/a/b/c"), RouteName::Ktp);
        for closed in ["/businesses/5abc/api_keys?token=1", "/v1/callback/x", "/x/y/api_keys", "/x/_gateway/y"] {
            assert_eq!(name(closed), RouteName::Forbidden, "{closed}");
        }
        assert_eq!(name("/_gateway/x/y"), RouteName::Gateway);
    }

    #[test]
    fn a_collection_of_records_is_closed_but_for_its_rows() {
        let added = |path: &str, like| CustomRoute { method: Method::GET, path: path.into(), like };
        // `check` refuses the first pattern; if it is still configured, it serves no record.
        let custom = [
            added("/v*/identity/id_card_images/:id/pages/:page", RouteName::Ktp),
            added("/v*/identity/id_card_images/:id/pages", RouteName::OcrGet),
        ];
        let table = Table::new(&custom);
        let find = |method: &str, target: &str| table.find(&method.parse().unwrap(), &target.parse().unwrap()).unwrap();
        for (method, target) in [
            ("POST", "/v1/identity/id_card_images/1"),
            ("PUT", "/v1/identity/id_card_images/1"),
            ("GET", "/v1/identity/id_card_images/1/x"),
            ("GET", "/v1/identity/id_card_images/1/pages/2"),
            ("GET", "/v1/identity/document_ocr_capture/1"),
            ("POST", "/v1/identity/captures/1/results/x/download"),
            ("GET", "/v1/x/Bank_Account_Data_Requests;a/1"),
            ("GET", "/v1/identity/bank_account_validation_details%20/1"),
            ("PURGE", "/v1/document_ocr_requests"),
        ] {
            let route = find(method, target);
            assert_eq!((route.name, route.kind), (RouteName::Other, Kind::Closed), "{method} {target}");
        }
        assert_eq!(find("GET", "/v1/identity/id_card_images/1").kind, Kind::Records);
        let added = find("GET", "/v1/identity/id_card_images/1/pages");
        assert_eq!((added.kind, added.record.as_deref()), (Kind::Records, Some("1")));
        assert_eq!(find("POST", "/v1/identity/captured/1").kind, Kind::Unknown);
    }

    #[test]
    fn an_encoded_spelling_reaches_the_same_row_in_one_form() {
        let (name, target) = find("POST", "/%76%31/identity/bank%5Faccount_data_requests?x=%41");
        assert_eq!((name, target.as_str()), (RouteName::Bank, "/v1/identity/bank_account_data_requests?x=%41"));
    }
}
