//! Rows of the route table, as tenants name them and as operators add them.
//!
//! Invariants: no tenant gets the forbidden row, and no added row opens a path of Iluma that hands out the account's
//! keys.

use super::nearest::nearest;
use super::reader::Entry;
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::{ACCOUNT_WORDS, CollectionPlace, CustomRoute, Kind, OWN_WORD};
use std::collections::BTreeSet;
use std::str::FromStr;

/// Reads a tenant's `routes`. Returns the rows that the list names, the rows that are allowed together with them
/// (`RouteSpec::includes`), and the rows that every tenant may use. Returns `None` if the list has a fault, which is
/// recorded.
pub(super) fn allowed(list: &Entry<'_>) -> Option<BTreeSet<RouteName>> {
    let named = list.each(0..=RouteName::COUNT, |entry| {
        let route = known_route(entry)?;
        if is_closed(route) {
            entry.fault("no team may use these paths: they would hand out the account's key");
            return None;
        }
        Some(route)
    });
    let mut routes: BTreeSet<RouteName> = named?.into_iter().collect();
    let included: Vec<RouteName> = routes.iter().flat_map(|route| route.spec().includes).copied().collect();
    routes.extend(included);
    routes.extend(RouteName::ALL.into_iter().filter(|route| route.spec().always_allowed));
    Some(routes)
}

/// Returns the rows that a tenant without the key `routes` may use: all except the row of the forbidden paths.
pub(super) fn all_but_forbidden() -> BTreeSet<RouteName> {
    RouteName::ALL.into_iter().filter(|route| !is_closed(*route)).collect()
}

/// Reads the routes that the operator adds to the route table (`[[routes]]`).
pub(super) fn custom(list: &Entry<'_>) -> Option<Vec<CustomRoute>> {
    let mut seen = BTreeSet::new();
    list.each(0..=MAX_ROUTES, |entry| {
        let table = entry.table()?;
        let method = table.must("method", "missing; give \"GET\" or \"POST\"", |method| method.one_of(&METHODS));
        let path = table.must("path", "missing; give a path, such as \"/v*/identity/bank_checks\"", route_path);
        let like = table.must("like", "missing; give the row whose treatment it gets, such as \"bank\"", like);
        let (method, path, like) = (method?, path?, like?);
        // Paths are matched in any letter case.
        if !seen.insert((method, path.to_ascii_lowercase())) {
            entry.fault("method and path are given twice");
            return None;
        }
        let method = http::Method::from_str(method).ok()?;
        if let Some(right) = like.spec().kind.only_method().filter(|right| *right != method) {
            entry.fault(format!("the row {like} takes only {right}"));
            return None;
        }
        if let Some(problem) = collection_problem(&path, like) {
            entry.fault(problem);
            return None;
        }
        Some(CustomRoute { method, path, like })
    })
}

/// Returns the reason why a path may not be treated like the row `like`; `None` if it may. Only a path in a collection
/// of records can be refused.
fn collection_problem(path: &str, like: RouteName) -> Option<String> {
    let fits = match CollectionPlace::of(path) {
        CollectionPlace::Outside => true,
        CollectionPlace::Record => like.spec().may_stand_in_collection(true),
        CollectionPlace::Collection => like.spec().may_stand_in_collection(false),
        CollectionPlace::Unclear => false,
    };
    (!fits).then(|| {
        format!(
            "a path in a collection of records must be like a row that shows records (bank_get, ocr_get, document_get, \
             capture_get, capture_file), with :id in the record's place, or like one that makes them (bank, ocr, document, \
             capture) without another segment that varies; {like} is none of these here"
        )
    })
}

/// Returns the charged row with this name. Other rows have no price, because Iluma does not charge for them or never
/// gets their requests. For any other name, returns the text of the fault.
pub(super) fn priced(name: &str) -> Result<RouteName, String> {
    let names = RouteName::charged().map(RouteName::as_str);
    RouteName::charged()
        .find(|route| route.as_str() == name)
        .ok_or_else(|| format!("no row with a price; known: {}", names.collect::<Vec<_>>().join(", ")))
}

/// Returns true if no team may use the row.
fn is_closed(route: RouteName) -> bool {
    route.spec().kind == Kind::Forbidden
}

const METHODS: [(&str, &str); 5] =
    [("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];

fn route_path(entry: &Entry<'_>) -> Option<String> {
    let path = entry.text()?;
    let problem = match path.strip_prefix('/') {
        None => Some("must begin with /"),
        Some(_) if path.len() > 256 => Some("must have at most 256 characters"),
        Some(rest) => rest.split('/').find_map(segment_problem),
    };
    if let Some(problem) = problem {
        entry.fault(problem);
        return None;
    }
    Some(path.to_owned())
}

fn segment_problem(segment: &str) -> Option<&'static str> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if segment.is_empty() {
        return Some("must not have an empty segment or end with /");
    }
    if matches!(segment, "." | "..") {
        return Some("must not have a dot segment");
    }
    // Such paths set the destinations of results and return keys; no row may reach them.
    if ACCOUNT_WORDS.iter().any(|closed| segment.eq_ignore_ascii_case(closed)) {
        return Some("must not have a segment callback, businesses or api_keys: they concern the account's own keys");
    }
    if segment.eq_ignore_ascii_case(OWN_WORD) {
        return Some("must not have a segment _gateway: the teams' own API and portal are there");
    }
    let fits = match segment.strip_prefix(':') {
        Some(name) => !name.is_empty() && plain(name),
        None => segment == "v*" || plain(segment),
    };
    (!fits).then_some("each segment must be :name for any one, v* for any version, or of a-z, A-Z, 0-9, -, ., _ and ~")
}

fn like(entry: &Entry<'_>) -> Option<RouteName> {
    let route = known_route(entry)?;
    if !route.spec().kind.is_of_ilumas_api() {
        entry.fault(format!("must be a row of Iluma's API, and {route:?} is none", route = route.as_str()));
        return None;
    }
    Some(route)
}

fn known_route(entry: &Entry<'_>) -> Option<RouteName> {
    let text = entry.text()?;
    let route = text.parse().ok();
    if route.is_none() {
        let names = RouteName::ALL.into_iter().filter(|route| !is_closed(*route)).map(RouteName::as_str);
        entry.fault(match nearest(text, names.clone()) {
            Some(near) => format!("no such route; did you mean {near:?}?"),
            None => format!("no such route; known: {}", names.collect::<Vec<_>>().join(", ")),
        });
    }
    route
}

/// The largest number of added routes; Iluma's whole table has about 40 rows.
const MAX_ROUTES: usize = 100;
