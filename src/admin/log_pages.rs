//! Pages of the logs that all nodes share: the audit log, and the receipts of erasures.

use super::answer::{Refusal, json, typed};
use crate::base::moment;
use crate::state::{LogEntries, LogPage};
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use std::time::Duration;

/// The number of entries in a page if the query has no `limit`.
const PAGE: usize = 100;
/// The largest `limit`.
const MOST: usize = 1000;

/// Reads the query of a list: `after` (the value of `next` in the previous page), `limit`, `from`, `to` and
/// `newest_first`.
pub(super) fn asked(query: Option<&str>) -> Result<LogPage, Refusal> {
    page(query.unwrap_or_default()).ok_or_else(|| {
        Refusal::invalid(
            "known here: after (the next of the page before), limit (1 to 1000), from and to (days or RFC 3339 times), and \
             newest_first (true or false)",
        )
    })
}

/// Answers with one JSON object, which `page` makes from the entries and the value of `next`. A client that accepts
/// `application/x-ndjson` gets JSON lines instead; `line` makes each line from an entry. If entries of other nodes are
/// missing, the answer has the header `x-gateway-partial`.
pub(super) fn answer<T, L: Serialize, P: Serialize>(
    headers: &HeaderMap,
    found: LogEntries<T>,
    line: impl Fn(T) -> L,
    page: impl FnOnce(Vec<T>, Option<String>) -> P,
) -> Response {
    let LogEntries { entries, next, is_complete } = found;
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = if accepted.any(|value| value.to_ascii_lowercase().contains("application/x-ndjson")) {
        let text = |entry| serde_json::to_string(&line(entry)).map_or_else(|_| String::new(), |line| line + "\n");
        typed(StatusCode::OK, "application/x-ndjson", entries.into_iter().map(text).collect::<String>().into())
    } else {
        json(StatusCode::OK, &page(entries, next))
    };
    if !is_complete {
        let missing = HeaderValue::from_static("other nodes' entries are missing");
        response.headers_mut().insert("x-gateway-partial", missing);
    }
    response
}

fn page(query: &str) -> Option<LogPage> {
    let mut page = LogPage { most: PAGE, ..LogPage::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => {
                let is_id = value.len() <= 32 && value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                page.after = Some(value.into_owned()).filter(|_| is_id);
                page.after.as_ref()?;
            }
            "limit" => page.most = value.parse().ok().filter(|most| (1..=MOST).contains(most))?,
            "from" => page.from = Some(moment::parse_or_date(&value)?),
            // The day `to` is included, so the time span ends a day later.
            "to" if value.len() == 10 => page.to = Some(moment::parse_or_date(&value)? + Duration::from_secs(86400)),
            "to" => page.to = Some(moment::parse(&value)?),
            "newest_first" => page.newest_first = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(page)
}
