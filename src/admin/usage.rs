//! What each team called, spent and saved, for operators.

use super::{error, invalid, json, typed};
use crate::calendar::Day;
use crate::ledger::{Counts, Ledger, Row};
use crate::name::TenantName;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// `GET /v1/usage`: the books, `from` a day `to` a day, both included; left out, from the first of this month to today.
pub(super) async fn usage(
    ledger: &Ledger,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let today = ledger.today();
    let (mut from, mut to, mut tenant) = (today.month().first(), today, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let day = value.parse::<Day>();
        let no_day = |_| invalid("from and to are days, such as 2026-11-25");
        match &*name {
            "from" => from = day.map_err(no_day)?,
            "to" => to = day.map_err(no_day)?,
            "tenant" => {
                let name = value.parse::<TenantName>().map_err(|_| invalid("tenant is the name of a team"))?;
                tenant = Some(name);
            }
            _ => return Err(invalid("known here: from, to and tenant")),
        }
    }
    let rows = ledger.rows(from, to, tenant.as_ref()).await.map_err(|_| {
        error(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "the ledger can't be read just now")
    })?;
    let partial = !ledger.is_complete();
    let told = |mut response: Response<Full<Bytes>>| {
        if partial {
            let value = HeaderValue::from_static("Redis is out: these are the books of this node alone");
            response.headers_mut().insert("x-gateway-partial", value);
        }
        response
    };
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.to_ascii_lowercase().contains("text/csv")) {
        return Ok(told(typed(StatusCode::OK, "text/csv; charset=utf-8", csv(&rows).into())));
    }
    Ok(told(json(StatusCode::OK, &serde_json::json!({ "rows": rows }))))
}

/// RFC 4180. Names need no quotes.
fn csv(rows: &[Row]) -> String {
    let mut text = format!("day,tenant,route,{}\r\n", Counts::NAMES.join(","));
    for Row { day, tenant, route, counts } in rows {
        let numbers = counts.numbers().map(|number| number.to_string());
        text.push_str(&format!("{day},{tenant},{route},{}\r\n", numbers.join(",")));
    }
    text
}
