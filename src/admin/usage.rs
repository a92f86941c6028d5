//! The ledger for operators: calls, cost and savings of each team.

use super::answer::{Refusal, json, typed};
use super::context::Context;
use crate::base::calendar::Day;
use crate::base::name::TenantName;
use crate::ledger::{Columns, Row, Selection, Statement, csv};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;

/// The largest number of lines in one answer: about 2 MB of JSON.
const MOST: usize = 10_000;

/// The lines of the ledger as JSON. They are serialized directly, because a tree of JSON values would need several
/// times the memory.
#[derive(Debug, serde::Serialize)]
struct Usage {
    rows: Vec<Row>,
    /// The name of the page's last line, from which the next page continues. It is null if no further lines follow, and
    /// absent if the request did not ask for a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Option<String>>,
    restored: Vec<String>,
    /// The first day.
    from: String,
    /// The last day.
    to: String,
    /// The time zone in which the days begin.
    time_zone: String,
}

/// A request for lines of the ledger.
#[derive(Debug)]
struct Asked {
    selection: Selection,
    /// True if the request asks for a page. False if all lines must fit into the answer.
    is_page: bool,
}

/// `GET /v1/usage`: lists the lines of the ledger from the day `from` to the day `to`, both included. By default these
/// are the first day of this month and today. `by` sums the lines with the same day, tenant or route, and `tenant`
/// selects one tenant. `limit` and `after` (the value of `next` in the previous page) ask for a page.
pub(super) async fn usage(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let ledger = &context.ledger;
    let Asked { selection, is_page } = asked(query.as_deref().unwrap_or_default(), ledger.today())?;
    if let Some(tenant) = &selection.tenant {
        context.ever_known(tenant).await?;
    }
    let Selection { from, to, columns, .. } = selection;
    let Statement { rows, has_more, is_complete, restored } =
        ledger.statement(selection).await.map_err(|_| Refusal::books())?;
    if has_more && !is_page {
        return Err(Refusal::invalid(format!(
            "these days have more than {MOST} lines: sum them with by=day, by=tenant or by=route, ask for fewer days, or read \
             them in pages with limit and after"
        )));
    }
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = if accepted.any(|value| value.to_ascii_lowercase().contains("text/csv")) {
        typed(StatusCode::OK, "text/csv; charset=utf-8", csv(columns, &rows).into())
    } else {
        let last = rows.last().filter(|_| has_more).map(|row| columns.name(row.parts()));
        let (from, to, time_zone) = (from.to_string(), to.to_string(), ledger.time_zone());
        json(StatusCode::OK, &Usage { rows, next: is_page.then_some(last), restored, from, to, time_zone })
    };
    if !is_complete {
        response.headers_mut().insert("x-gateway-partial", HeaderValue::from_static(Statement::PARTIAL));
    }
    Ok(response)
}

fn asked(query: &str, today: Day) -> Result<Asked, Refusal> {
    let mut selection = Selection { most: MOST, ..Selection::days(today.month().first(), today) };
    let (mut is_page, mut after) = (false, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let day = || value.parse::<Day>().map_err(|_| Refusal::invalid("from and to are days, such as 2026-11-25"));
        match &*name {
            "from" => selection.from = day()?,
            "to" => selection.to = day()?,
            "tenant" => {
                let name = value.parse::<TenantName>().map_err(|_| Refusal::invalid("tenant is the name of a team"))?;
                selection.tenant = Some(name);
            }
            "by" => {
                let columns = value.parse::<Columns>();
                selection.columns = columns.map_err(|error| Refusal::invalid(format!("by {error}")))?;
            }
            "limit" => {
                let most = value.parse().ok().filter(|most| (1..=MOST).contains(most));
                selection.most = most.ok_or_else(|| Refusal::invalid(format!("limit is 1 to {MOST}")))?;
                is_page = true;
            }
            "after" => after = Some(value),
            _ => return Err(Refusal::invalid("known here: from, to, tenant, by, limit and after")),
        }
    }
    if let Some(after) = after {
        // The name has the columns of `by`, which may come after `after` in the query.
        let name = selection.columns.read(&after);
        let name = name.ok_or_else(|| Refusal::invalid("after is the next of the page before, with the same by"))?;
        (selection.after, is_page) = (Some(name), true);
    }
    Ok(Asked { selection, is_page })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_days_a_team_columns_and_a_page() {
        let today: Day = "2026-11-25".parse().unwrap();
        let of = |query: &str| asked(query, today);
        let Asked { selection, is_page } = of("").unwrap();
        assert_eq!((selection.from.to_string(), selection.to, selection.most), ("2026-11-01".to_owned(), today, MOST));
        assert_eq!((selection.columns, selection.after, is_page), (Columns::ALL, None, false));
        let Asked { selection, is_page } = of("after=2026-11-02,bank&by=day,route&limit=7&tenant=lending").unwrap();
        assert_eq!((selection.columns.name(["a", "b", "c"]), selection.most, is_page), ("a,c".to_owned(), 7, true));
        assert_eq!(selection.after, selection.columns.read("2026-11-02,bank"));
        assert_eq!(selection.tenant, "lending".parse().ok());
        for (query, why) in [
            ("limit=0", "limit is 1 to 10000"),
            ("limit=10001", "limit is 1 to 10000"),
            ("by=team", "by must be day, tenant or route, or several of them with commas in between"),
            ("by=", "by must be day, tenant or route, or several of them with commas in between"),
            ("by=tenant&after=2026-11-02,lending", "after is the next of the page before, with the same by"),
            ("after=lending", "after is the next of the page before, with the same by"),
            ("page=2", "known here: from, to, tenant, by, limit and after"),
        ] {
            assert_eq!(of(query).map(|_| ()), Err(Refusal::invalid(why)), "{query}");
        }
    }
}
