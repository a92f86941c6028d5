//! THE route table: one row says everything about a route, and no other list of routes exists.
//!
//! Configuration names, metric labels, prices, cache subjects, callback types and handlers derive from it. A new route
//! of Iluma's is a name in `iluma/route_name.rs` and a row here. Invariant: `ROUTES[name as usize].name == name`, which
//! the compiler checks.

use super::kind::{Charge, Kind, References};
use super::samples::{self, Sample};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::{NotARoute, RouteName};
use crate::iluma::subject::Subject;
use http::Method;
use std::fmt;
use std::str::FromStr;

/// One row of the route table.
#[derive(Debug)]
pub struct RouteSpec {
    /// The row's name.
    pub name: RouteName,
    /// The name in configuration, logs and metrics.
    pub text: &'static str,
    /// Methods and paths, such as `GET health`. `v*` matches any version, `:id` the id of a record, and any other
    /// `:name` any one segment.
    pub paths: &'static [&'static str],
    /// The handler.
    pub kind: Kind,
    /// Iluma's charge for a call. If Iluma never charges for the row, a GET may be repeated.
    pub charge: Charge,
    /// The treatment of references before they are sent to Iluma.
    pub references: References,
    /// True if a request may carry an `Idempotency-Key`: its repetition gets the stored answer, and costs nothing.
    pub idempotent: bool,
    /// True if the row's answers to a GET may settle an earlier call whose outcome is unknown.
    pub settles: bool,
    /// The types of callbacks about the row's records: pairs of a text and a type. The first pair whose text is in the
    /// path's pattern applies. An empty text is in every pattern.
    pub callbacks: &'static [(&'static str, CallbackType)],
    /// The rows that are allowed as well if a tenant's `routes` name this row.
    pub includes: &'static [RouteName],
    /// True if every tenant may use the row, even if the tenant's `routes` do not name it.
    pub always_allowed: bool,
    /// Examples of requests.
    pub samples: &'static [Sample],
}

const ID_CARD: &[(&str, CallbackType)] = &[("", CallbackType::IdImageOcrRequest)];
const DOCUMENT: &[(&str, CallbackType)] = &[("", CallbackType::BusinessDocumentOcrRequest)];
const CAPTURE: &[(&str, CallbackType)] = &[("", CallbackType::DocumentOcrCaptureRequest)];
const BANK: &[(&str, CallbackType)] = &[
    ("/bank_account_validation_details", CallbackType::BankNameValidatorDetails),
    ("", CallbackType::NameValidatorRequest),
];

/// The path of the team portal. The portal's other paths and the team's own API are below it.
pub const PORTAL: &str = "/_gateway";

/// The path at which the portal opens a session.
pub const PORTAL_LOG_IN: &str = "/_gateway/login";
/// The path at which the portal ends a session.
pub const PORTAL_LOG_OUT: &str = "/_gateway/logout";

/// The path below which the portal's files are.
pub const PORTAL_ASSETS: &str = "/_gateway/assets";

/// The path at which a team rotates the key of its request.
pub const ROTATE_KEY: &str = "/_gateway/keys/rotate";

/// The path at which a team reads the secret that signs its callbacks.
pub const WEBHOOK_SECRET: &str = "/_gateway/webhook_secret";

/// The path that describes the service, also to a client without a key.
pub const INDEX: &str = "/";

/// The path of the OpenAPI document.
pub const OPENAPI: &str = "/_gateway/openapi.json";

/// The path at which a team lists its callbacks. The paths of orders about callbacks are below it.
pub const OWN_CALLBACKS: &str = "/_gateway/callbacks";

/// Makes a row that is streamed and charged, for a synchronous route.
const fn streamed(name: RouteName, text: &'static str, paths: &'static [&'static str]) -> RouteSpec {
    RouteSpec {
        name,
        text,
        paths,
        kind: Kind::Streamed,
        charge: Charge::Answered,
        references: References::Checked,
        idempotent: true,
        settles: false,
        callbacks: &[],
        includes: &[],
        always_allowed: false,
        samples: samples::of(name),
    }
}

/// Makes a row that costs nothing, makes no records and takes no references.
const fn free(
    name: RouteName,
    text: &'static str,
    kind: Kind,
    paths: &'static [&'static str],
    always_allowed: bool,
) -> RouteSpec {
    RouteSpec {
        name,
        text,
        paths,
        kind,
        charge: Charge::Never,
        references: References::Untouched,
        idempotent: false,
        settles: false,
        callbacks: &[],
        includes: &[],
        always_allowed,
        samples: samples::of(name),
    }
}

/// Makes a row that creates records of Iluma's.
const fn makes_records(
    name: RouteName,
    text: &'static str,
    paths: &'static [&'static str],
    (callbacks, includes): (&'static [(&'static str, CallbackType)], &'static [RouteName]),
) -> RouteSpec {
    RouteSpec {
        name,
        text,
        paths,
        kind: Kind::Submission,
        charge: Charge::Answered,
        references: References::Prefixed,
        idempotent: true,
        settles: false,
        callbacks,
        includes,
        always_allowed: false,
        samples: samples::of(name),
    }
}

/// Makes a row that shows records of Iluma's.
const fn shows_records(
    name: RouteName,
    text: &'static str,
    kind: Kind,
    paths: &'static [&'static str],
    callbacks: &'static [(&'static str, CallbackType)],
) -> RouteSpec {
    RouteSpec {
        name,
        text,
        paths,
        kind,
        charge: Charge::Never,
        references: References::Prefixed,
        idempotent: false,
        settles: true,
        callbacks,
        includes: &[],
        always_allowed: false,
        samples: samples::of(name),
    }
}

/// The rows of the table, in the order of [`RouteName`].
pub static ROUTES: [RouteSpec; RouteName::COUNT] = [
    RouteSpec {
        kind: Kind::CachedRequest(Subject::Bank),
        idempotent: false,
        ..makes_records(
            RouteName::Bank,
            "bank",
            &["POST v*/identity/bank_account_data_requests", "POST v*/identity/bank_account_validation_details"],
            (BANK, &[RouteName::BankGet]),
        )
    },
    shows_records(
        RouteName::BankGet,
        "bank_get",
        Kind::CachedRecord(Subject::BankGet),
        &["GET v*/identity/bank_account_data_requests/:id", "GET v*/identity/bank_account_validation_details/:id"],
        BANK,
    ),
    RouteSpec {
        kind: Kind::CachedRequest(Subject::Cft),
        idempotent: false,
        ..streamed(RouteName::Cft, "cft", &["POST v*/identity/cft/individual_watchlist"])
    },
    free(
        RouteName::BankCodes,
        "bank_codes",
        Kind::PublicList(Subject::BankCodes),
        &["GET bank/available_bank_codes"],
        true,
    ),
    streamed(RouteName::Ktp, "ktp", &["POST v*/identity/ktp_name/validations", "POST v*/identity/ktp_data_requests"]),
    streamed(RouteName::Npwp, "npwp", &["POST v*/identity/npwp_data_requests"]),
    // The age of a phone number is charged, though it is a GET.
    streamed(
        RouteName::Phone,
        "phone",
        &["GET v*/fraud/phone_numbers/:number/age", "POST v*/identity/phone_numbers/validate"],
    ),
    streamed(RouteName::Drawdown, "drawdown", &["POST v*/credit/drawdowns"]),
    streamed(RouteName::Face, "face", &["POST v*/identity/face_comparisons"]),
    streamed(RouteName::IdCard, "id_card", &["POST v*/identity/id_card_verifications"]),
    makes_records(RouteName::Ocr, "ocr", &["POST v*/identity/id_card_images"], (ID_CARD, &[RouteName::OcrGet])),
    shows_records(
        RouteName::OcrGet,
        "ocr_get",
        Kind::Records,
        &["GET v*/identity/id_card_images", "GET v*/identity/id_card_images/:id"],
        ID_CARD,
    ),
    makes_records(
        RouteName::Document,
        "document",
        &["POST v*/identity/document_ocr_requests"],
        (DOCUMENT, &[RouteName::DocumentGet]),
    ),
    shows_records(
        RouteName::DocumentGet,
        "document_get",
        Kind::Records,
        &["GET v*/identity/document_ocr_requests", "GET v*/identity/document_ocr_requests/:id"],
        DOCUMENT,
    ),
    makes_records(
        RouteName::Capture,
        "capture",
        &[
            "POST v*/identity/document_ocr_captures",
            "POST v*/identity/document_ocr_captures/:id/recapture",
            // A recapture may also be a GET, and is charged.
            "GET v*/identity/document_ocr_captures/:id/recapture",
        ],
        (CAPTURE, &[RouteName::CaptureGet, RouteName::CaptureFile]),
    ),
    shows_records(
        RouteName::CaptureGet,
        "capture_get",
        Kind::Records,
        &[
            "GET v*/identity/document_ocr_captures",
            "GET v*/identity/document_ocr_capture",
            "GET v*/identity/document_ocr_captures/:id",
            // The links in Iluma's lists have this path.
            "GET v*/document_ocr_captures",
        ],
        CAPTURE,
    ),
    RouteSpec {
        settles: false,
        references: References::Untouched,
        ..shows_records(
            RouteName::CaptureFile,
            "capture_file",
            Kind::File,
            &["GET v*/identity/captures/:id/results/:link/download"],
            CAPTURE,
        )
    },
    free(
        RouteName::CallbackUrls,
        "callback_urls",
        Kind::CallbackSetting,
        &["GET v*/callback/urls", "POST v*/callback/urls", "PATCH v*/callback/urls", "DELETE v*/callback/urls"],
        true,
    ),
    free(
        RouteName::CallbackToken,
        "callback_token",
        Kind::CallbackSetting,
        &["GET v*/callback/authentication_tokens", "GET _gateway/webhook_secret"],
        true,
    ),
    free(RouteName::Health, "health", Kind::Health(Subject::Health), &["GET health"], true),
    free(
        RouteName::Gateway,
        "gateway",
        Kind::OwnApi,
        &[
            "GET _gateway/usage",
            "GET _gateway/openapi.json",
            "POST _gateway/keys/rotate",
            "GET _gateway/callbacks",
            "GET _gateway/callbacks/:delivery",
            "POST _gateway/callbacks/replay",
            "POST _gateway/callbacks/pause",
            "POST _gateway/callbacks/resume",
            "POST _gateway/callbacks/test",
            "GET _gateway",
            "POST _gateway/login",
            "POST _gateway/logout",
            "GET _gateway/assets/:name",
        ],
        true,
    ),
    free(RouteName::Forbidden, "forbidden", Kind::Forbidden, &[], false),
    RouteSpec {
        kind: Kind::Unknown,
        charge: Charge::Unknown,
        idempotent: false,
        references: References::Checked,
        ..streamed(RouteName::Other, "other", &[])
    },
];

/// Checks at compile time that each row is at the index of its name.
const _: () = {
    let mut at = 0;
    while at < ROUTES.len() {
        assert!(ROUTES[at].name as usize == at);
        at += 1;
    }
};

impl RouteSpec {
    /// Returns the method and the path pattern of each path of the row.
    pub fn patterns(&self) -> impl Iterator<Item = (Method, &'static str)> {
        let method = |text: &str| Method::from_bytes(text.as_bytes()).ok();
        self.paths.iter().filter_map(move |path| path.split_once(' ').and_then(|(m, path)| Some((method(m)?, path))))
    }

    /// Returns the example of a request on a path of the row. `path` is the path's pattern in the table.
    #[must_use]
    pub fn sample(&self, path: &str) -> Option<&'static Sample> {
        self.samples.iter().find(|sample| path.contains(sample.path))
    }

    /// Returns true if a path of the row names a record by its id.
    #[must_use]
    pub fn names_records(&self) -> bool {
        self.paths.iter().any(|path| path.contains("/:id"))
    }
}

impl RouteName {
    /// Returns the row whose calls make the records that this row shows; `None` if this row shows no records.
    #[must_use]
    pub fn made_by(self) -> Option<Self> {
        makers().find(|row| row.includes.contains(&self)).map(|row| row.name)
    }

    /// Returns the row whose calls make the records that callbacks of this type report; `None` if there is no such row.
    #[must_use]
    pub fn called_back(kind: CallbackType) -> Option<Self> {
        makers().find(|row| row.callbacks.iter().any(|(_, known)| *known == kind)).map(|row| row.name)
    }
}

/// Returns the rows that make records.
fn makers() -> impl Iterator<Item = &'static RouteSpec> {
    ROUTES.iter().filter(|row| row.charge == Charge::Answered && row.references == References::Prefixed)
}

impl RouteSpec {
    /// Returns true if an operator's path in a collection of records may name the row in `like`. `by_id` is true if the
    /// path names a record.
    #[must_use]
    pub fn may_stand_in_collection(&self, by_id: bool) -> bool {
        match self.kind {
            Kind::CachedRecord(_) | Kind::Records | Kind::File => by_id,
            // A path that makes a record has no id; a path that repeats a capture has one.
            Kind::Submission => !by_id || self.names_records(),
            Kind::CachedRequest(Subject::Bank) => !by_id,
            Kind::CachedRequest(_)
            | Kind::PublicList(_)
            | Kind::Health(_)
            | Kind::Streamed
            | Kind::CallbackSetting
            | Kind::OwnApi
            | Kind::Options
            | Kind::Forbidden
            | Kind::Unknown
            | Kind::Closed
            | Kind::Absent => false,
        }
    }
}

/// Returns the methods and paths that contain the segment, separated by commas, such as `GET /_gateway/usage`.
#[must_use]
pub fn documented(segment: &str) -> String {
    let paths = ROUTES.iter().flat_map(|row| row.paths).map(|path| path.replacen(' ', " /", 1));
    paths.filter(|path| path.split('/').any(|text| text == segment)).collect::<Vec<_>>().join(", ")
}

impl RouteName {
    /// The number of routes, for arrays with one element for each route. The value does not come from the table,
    /// because the compiler needs the length of such an array while it checks the table's own functions.
    pub const COUNT: usize = Self::Other as usize + 1;

    /// Every row, in the table's order; `ALL[name as usize] == name`.
    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self::Other; Self::COUNT];
        let mut at = 0;
        while at < ROUTES.len() {
            all[at] = ROUTES[at].name;
            at += 1;
        }
        all
    };

    /// Returns the row with this name.
    #[must_use]
    pub const fn spec(self) -> &'static RouteSpec {
        &ROUTES[self as usize]
    }

    /// Returns the name in configuration, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.spec().text
    }

    /// Returns the names of the rows whose calls Iluma may charge for, in the table's order.
    pub fn charged() -> impl Iterator<Item = Self> + Clone {
        Self::ALL.into_iter().filter(|name| name.spec().charge != Charge::Never)
    }
}

impl FromStr for RouteName {
    type Err = NotARoute;

    fn from_str(text: &str) -> Result<Self, NotARoute> {
        ROUTES.iter().find(|row| row.text == text).map(|row| row.name).ok_or(NotARoute)
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_by_its_name() {
        for row in &ROUTES {
            assert_eq!(row.text.parse(), Ok(row.name));
            let twice = ROUTES.iter().filter(|other| other.text == row.text).count();
            assert_eq!(twice, 1, "{}", row.text);
        }
    }

    /// Each column of a row agrees with the others: a row that was copied and changed in part fails here.
    #[test]
    fn every_row_is_complete() {
        for row in &ROUTES {
            let name = row.text;
            let virtual_row = matches!(row.kind, Kind::Forbidden | Kind::Unknown);
            assert_eq!(row.paths.is_empty(), virtual_row, "{name}: paths");
            assert!(
                !matches!(row.kind, Kind::Options | Kind::Closed | Kind::Absent),
                "{name}: a kind of requests, not of rows"
            );
            assert_eq!(row.patterns().count(), row.paths.len(), "{name}: method and path");
            let ids = row.paths.iter().filter(|path| path.contains("/:id")).count();
            let (needs_id, may_have_id) = match row.kind {
                Kind::CachedRecord(_) | Kind::File => (row.paths.len(), row.paths.len()),
                Kind::Records | Kind::Submission => (0, row.paths.len()),
                _ => (0, 0),
            };
            assert!((needs_id..=may_have_id).contains(&ids), "{name}: records in its paths");
            // A row that makes or shows records has callbacks about them.
            let of_records = row.references == References::Prefixed || row.kind == Kind::File;
            assert_eq!(!row.callbacks.is_empty(), of_records, "{name}: callback types");
            assert!(row.callbacks.last().is_none_or(|(text, _)| text.is_empty()), "{name}: the last type fits all");
            // A row that shows a record settles the call that made it, and is free.
            let shows = matches!(row.kind, Kind::CachedRecord(_) | Kind::Records);
            assert_eq!(row.settles, shows, "{name}: settles");
            if shows || row.kind.subject().is_some() && row.patterns().all(|(method, _)| method == Method::GET) {
                assert_eq!(row.charge, Charge::Never, "{name}: charge");
            }
            assert_eq!(row.charge == Charge::Unknown, row.kind == Kind::Unknown, "{name}: charge");
            // On the other charged rows the cache serves a repetition.
            let is_repeated = matches!(row.kind, Kind::Streamed | Kind::Submission);
            assert_eq!(row.idempotent, is_repeated && row.charge == Charge::Answered, "{name}: idempotent");
            if let Some(method) = row.kind.only_method() {
                assert!(row.patterns().all(|(own, _)| own == method), "{name}: methods");
            }
            // A row that shows the records of another row is included with it.
            let includes: Vec<_> = ROUTES
                .iter()
                .filter(|other| row.charge == Charge::Answered && other.charge == Charge::Never)
                .filter(|other| !row.callbacks.is_empty() && other.callbacks == row.callbacks)
                .map(|other| other.name)
                .collect();
            assert_eq!(row.includes, includes, "{name}: includes");
            let own = !row.kind.is_of_ilumas_api() && !virtual_row;
            assert_eq!(row.always_allowed, own || matches!(row.kind, Kind::PublicList(_)), "{name}: always allowed");
            for (_, path) in row.patterns() {
                assert!(!path.starts_with('/') && !path.ends_with('/'), "{name}: {path}");
                assert_eq!(path, path.to_ascii_lowercase(), "{name}: {path}");
            }
        }
    }

    #[test]
    fn no_two_rows_take_the_same_request() {
        let all: Vec<_> = ROUTES.iter().flat_map(|row| row.paths.iter()).collect();
        for path in &all {
            assert_eq!(all.iter().filter(|other| other == &path).count(), 1, "{path:?}");
        }
    }

    #[test]
    fn each_cache_subject_belongs_to_one_row() {
        for subject in Subject::ALL {
            let rows = ROUTES.iter().filter(|row| row.kind.subject() == Some(subject));
            assert_eq!(rows.map(|row| row.text).collect::<Vec<_>>(), [subject.as_str()]);
        }
    }
}
