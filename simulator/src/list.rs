//! Lists by `reference_id`, page by page.

use bytes::Bytes;
use serde::Serialize;

use super::call::Call;
use super::check::is_digits;
use super::problem::{FieldError, Problem};
use super::record::{Kind, List};
use super::reply::Reply;
use super::time;

/// The number of items on a page if the request has no `limit`. The API document states this number.
const DEFAULT_LIMIT: usize = 10;
/// The largest number of items on a page. The API document does not state it.
const MAX_LIMIT: usize = 100;

#[derive(Serialize)]
struct Link {
    href: String,
    rel: &'static str,
    method: &'static str,
}

/// Answers a list request with the query parameters `reference_id`, `limit` and `after_id`. The links in the answer
/// begin with `path`.
pub(super) fn list(call: &Call<'_>, kind: Kind, path: &str) -> Result<Reply, Problem> {
    let mut errors = Vec::new();
    let mut wrong =
        |field: &str, message: &str| errors.push(FieldError { field: field.into(), message: message.into() });
    let reference = call.query_value("reference_id").filter(|reference| !reference.is_empty());
    if reference.is_none() {
        wrong("reference_id", "reference_id is required");
    }
    let asked = call.query_value("limit");
    let limit = match asked.as_deref() {
        None => DEFAULT_LIMIT,
        Some(text) => {
            let limit = if is_digits(text, 1..=3) { text.parse().unwrap_or(0) } else { 0 };
            if !(1..=MAX_LIMIT).contains(&limit) {
                wrong("limit", "limit must be a number from 1 to 100");
            }
            limit
        }
    };
    let Some(reference) = reference.filter(|_| errors.is_empty()) else { return Err(Problem::validation(errors)) };
    let after = call.query_value("after_id").filter(|after| !after.is_empty());
    let records = List { owner: &call.key.label, kind, reference: &reference };
    let page = call
        .world
        .records
        .lock()
        .page(&records, after.as_deref(), limit, time::now())
        .ok_or_else(|| Problem::field("after_id", "after_id is no item of this list"))?;
    let href = |limit: Option<&str>, after: Option<&str>| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("reference_id", &reference);
        if let Some(limit) = limit {
            query.append_pair("limit", limit);
        }
        if let Some(after) = after {
            query.append_pair("after_id", after);
        }
        format!("{path}?{}", query.finish())
    };
    let mut links = vec![
        Link { href: href(None, None), rel: "first", method: "GET" },
        Link { href: href(asked.as_deref(), after.as_deref()), rel: "self", method: "GET" },
    ];
    if let Some(next) = &page.next {
        links.push(Link { href: href(Some(&limit.to_string()), Some(next)), rel: "next", method: "GET" });
    }
    let links = serde_json::to_vec(&links).map_err(|error| Problem::server(&error.to_string()))?;
    let mut body = b"{\"data\":[".to_vec();
    body.extend_from_slice(&page.objects.join(&b","[..]));
    body.extend_from_slice(format!("],\"has_more\":{},\"links\":", page.next.is_some()).as_bytes());
    body.extend_from_slice(&links);
    body.push(b'}');
    Ok(Reply::stored(Bytes::from(body)))
}
