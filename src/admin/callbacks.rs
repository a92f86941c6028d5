//! Callbacks for operators: lists by state, and the selection of an order to replay.
//!
//! Invariant: an entry shows names, times and Iluma's ids, and no data of a person.

use super::answer::{Refusal, json};
use super::context::Context;
use crate::base::name::TenantName;
use crate::state::{Cursor, DeliveryId, DeliveryStatus, Listed, Page, Replay};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The entries of a page, unless `limit` gives another number.
const PAGE: usize = 100;

/// `GET /v1/callbacks?state=queued|dead|unowned|delivered`, with `tenant`, `limit` and `after` (the `next` of the
/// previous page).
pub(super) async fn list(State(context): State<Arc<Context>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let (standing, page) = asked(query.as_deref().unwrap_or_default()).ok_or_else(|| {
        Refusal::invalid("state must be queued, dead, unowned or delivered; tenant, limit and after may be given")
    })?;
    let wanted = page.most;
    let listed = context.orders.state.list(standing, &page).await;
    let listed = listed.map_err(|failed| Refusal::Unavailable(failed.to_string()))?;
    let next = listed.last().filter(|_| listed.len() == wanted).map(|last| {
        let Cursor { at, id } = last.cursor;
        format!("{at}-{id}")
    });
    let entries: Vec<_> = listed.iter().map(|entry| shown(entry, standing)).collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "callbacks": entries, "next": next })))
}

fn asked(query: &str) -> Option<(DeliveryStatus, Page)> {
    let (mut standing, mut page) = (None, Page { most: PAGE, ..Page::default() });
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "state" => {
                standing = Some(match &*value {
                    "queued" => DeliveryStatus::Queued,
                    "dead" => DeliveryStatus::Dead,
                    "unowned" => DeliveryStatus::Unowned,
                    "delivered" => DeliveryStatus::Delivered,
                    _ => return None,
                });
            }
            "tenant" => page.tenant = Some(value.parse().ok()?),
            "limit" => page.most = value.parse().ok().filter(|most| (1..=crate::state::MOST_LISTED).contains(most))?,
            "after" => {
                let (at, id) = value.rsplit_once('-')?;
                page.after = Some(Cursor { at: at.parse().ok()?, id: id.parse().ok()? });
            }
            _ => return None,
        }
    }
    Some((standing?, page))
}

fn shown(entry: &Listed, status: DeliveryStatus) -> serde_json::Value {
    let time = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(entry.cursor.at).unwrap_or(0));
    // The meaning of the time that orders the list.
    let what = match status {
        DeliveryStatus::Queued => "due",
        DeliveryStatus::Dead | DeliveryStatus::Delivered => "ended",
        DeliveryStatus::Unowned => "removed",
    };
    serde_json::json!({
        "id": entry.cursor.id.to_string(),
        "tenant": entry.tenant.as_ref().map(TenantName::as_str),
        "account": entry.account.as_str(),
        "type": entry.kind.map(crate::iluma::callback_type::CallbackType::as_str),
        "upstream_id": entry.upstream_id,
        "attempts": entry.attempts,
        "received": time(entry.received),
        what: time(at),
    })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    id: Option<String>,
    tenant: Option<String>,
    since: Option<String>,
    all: Option<bool>,
}

/// Reads the selection of a replay; `None` unless the order names exactly one thing.
pub(super) fn wanted(body: &[u8]) -> Option<Replay> {
    match serde_json::from_slice(body).ok()? {
        Wanted { id: Some(id), tenant: None, since: None, all: None } => {
            Some(Replay::One(id.parse::<DeliveryId>().ok()?))
        }
        Wanted { id: None, tenant: Some(tenant), since: Some(since), all: None } => {
            Some(Replay::Since(tenant.parse().ok()?, time(&since)?))
        }
        Wanted { id: None, tenant: None, since: None, all: Some(true) } => Some(Replay::AllDead),
        _ => None,
    }
}

/// Reads a time of RFC 3339 with any offset.
fn time(text: &str) -> Option<SystemTime> {
    let at = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at))?;
    let (local, offset) = text.split_at(at);
    let ahead = match offset.as_bytes()[0] {
        b'+' => true,
        b'-' if offset.contains(':') => false,
        _ => return humantime::parse_rfc3339(&text.to_ascii_uppercase()).ok(),
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let digits = |text: &str, most: u64| {
        let fits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| fits && *number <= most)
    };
    let offset = Duration::from_secs(digits(hours, 23)? * 3600 + digits(minutes, 59)? * 60);
    let local = humantime::parse_rfc3339(&format!("{}Z", local.to_ascii_uppercase())).ok()?;
    if ahead { local.checked_sub(offset) } else { local.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_an_offset() {
        let shown = |text: &str| time(text).map(|time| humantime::format_rfc3339(time).to_string());
        let utc = Some("2026-11-25T08:30:00Z".to_owned());
        for same in [
            "2026-11-25T08:30:00Z",
            "2026-11-25t08:30:00z",
            "2026-11-25T15:30:00+07:00",
            "2026-11-25T04:00:00-04:30",
            "2026-11-25T08:30:00+00:00",
        ] {
            assert_eq!(shown(same), utc, "{same}");
        }
        for bad in
            ["", "now", "2026-11-25", "2026-11-25T08:30:00", "2026-11-25T08:30:00+7:00", "2026-11-25T08:30:00+99:00"]
        {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_thing_is_replayed_at_a_time() {
        let id = "msg_000102030405060708090a0b0c0d0e0f";
        assert_eq!(wanted(format!("{{\"id\":\"{id}\"}}").as_bytes()), Some(Replay::One(id.parse().unwrap())));
        assert_eq!(wanted(br#"{"all":true}"#), Some(Replay::AllDead));
        let since = wanted(br#"{"tenant":"lending","since":"1970-01-01T00:00:00Z"}"#);
        assert_eq!(since, Some(Replay::Since("lending".parse().unwrap(), SystemTime::UNIX_EPOCH)));
        for bad in
            ["", "{}", r#"{"all":false}"#, r#"{"id":"x"}"#, r#"{"tenant":"lending"}"#, r#"{"all":true,"more":1}"#]
        {
            assert_eq!(wanted(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_list_is_asked_for_by_its_state() {
        let (standing, page) =
            asked("state=dead&tenant=lending&limit=5&after=-7-msg_000102030405060708090a0b0c0d0e0f").unwrap();
        assert_eq!((standing, page.tenant.unwrap().as_str(), page.most), (DeliveryStatus::Dead, "lending", 5));
        assert_eq!(page.after.unwrap().at, -7);
        for bad in
            ["", "state=", "state=x", "tenant=lending", "state=dead&limit=0", "state=dead&limit=1001", "state=dead&x=1"]
        {
            assert!(asked(bad).is_none(), "{bad}");
        }
    }
}
