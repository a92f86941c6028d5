//! Lists of callbacks for operators and teams, by state, tenant, type and time, and the attempts at each callback.
//!
//! Invariants: an entry shows names, times, statuses and Iluma's ids, but no person's data, no URL and no body. A team
//! sees only its own callbacks.

use super::orders::{OrderError, time};
use super::service::Callbacks;
use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use crate::state::{
    AttemptRecord, AttemptResult, Cursor, DeliveryId, DeliveryStatus, Found, Listed, MOST_LISTED, Page, Pause,
    StateError,
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// The number of entries on a page, unless the query has a `limit`.
const PAGE: usize = 100;

const LIST: &str =
    "state must be queued, dead, unowned or delivered; tenant, type, since, until, limit and after may be given";
const OWN_LIST: &str = "state (queued, dead or delivered), type, since, until, limit and after may be given";

/// The states of callbacks that a team may list. Only operators see unowned callbacks.
const OWN_STATES: [DeliveryStatus; 3] = [DeliveryStatus::Queued, DeliveryStatus::Dead, DeliveryStatus::Delivered];

impl Callbacks {
    /// Lists the callbacks that a query selects by `state`, `tenant` (operators only), `type`, `since`, `until`,
    /// `limit`, and `after` (the `next` of the previous page). `own` is the requesting team, or `None` for an operator.
    /// An operator's query must name a state. A team sees only its own callbacks. Without `state`, it sees them in
    /// every state that a team may list.
    ///
    /// # Errors
    /// Returns an error if the query is malformed, or if state can't be read.
    pub async fn list(&self, query: &str, own: Option<&TenantName>) -> Result<Value, OrderError> {
        let refused = OrderError::Malformed(if own.is_some() { OWN_LIST } else { LIST });
        let (states, page) = asked(query, own).ok_or(refused)?;
        let mut listed = Vec::new();
        for state in states {
            let entries = self.state.list(state, &page).await?;
            listed.extend(entries.into_iter().map(|entry| (state, entry)));
        }
        listed.sort_by_key(|(_, entry)| entry.cursor);
        listed.truncate(page.most);
        let next = listed.last().filter(|_| listed.len() == page.most).map(|(_, last)| {
            let Cursor { at, id } = last.cursor;
            format!("{at}-{id}")
        });
        let mut pauses = self.state.pauses().await?;
        let entries: Vec<_> = listed.iter().map(|(state, entry)| shown(entry, *state, &pauses)).collect();
        pauses.retain(|pause| page.tenant.as_ref().is_none_or(|tenant| pause.endpoint.tenant == *tenant));
        let paused: Vec<_> = pauses.iter().map(shown_pause).collect();
        Ok(json!({ "callbacks": entries, "next": next, "paused": paused }))
    }

    /// Shows one delivery, or one unowned callback, with its stored attempts. `own` is the requesting team, or `None` for
    /// an operator.
    ///
    /// # Errors
    /// Returns an error if nothing has this id, if `own` is a team that does not own it, or if state can't be read.
    pub async fn show(&self, id: &str, own: Option<&TenantName>) -> Result<Value, OrderError> {
        let id: DeliveryId = id.parse().map_err(|_| OrderError::NotFound)?;
        let found = self.state.find(id).await?.ok_or(OrderError::NotFound)?;
        let Found { status, entry, history } = found;
        if own.is_some() && entry.tenant.as_ref() != own {
            return Err(OrderError::NotFound);
        }
        let mut shown = shown(&entry, status, &self.state.pauses().await?);
        shown["attempts"] = history.iter().map(shown_attempt).collect();
        Ok(shown)
    }
}

impl From<StateError> for OrderError {
    fn from(_: StateError) -> Self {
        Self::Unavailable
    }
}

fn asked(query: &str, own: Option<&TenantName>) -> Option<(Vec<DeliveryStatus>, Page)> {
    let mut states = if own.is_some() { OWN_STATES.to_vec() } else { Vec::new() };
    let mut page = Page { most: PAGE, tenant: own.cloned(), ..Page::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "state" => states = vec![state(&value).filter(|state| own.is_none() || OWN_STATES.contains(state))?],
            "tenant" if own.is_none() => page.tenant = Some(value.parse().ok()?),
            "type" => page.kind = Some(value.parse().ok()?),
            "since" => page.since = Some(time(&value)?),
            "until" => page.until = Some(time(&value)?),
            "limit" => page.most = value.parse().ok().filter(|most| (1..=MOST_LISTED).contains(most))?,
            "after" => {
                let (at, id) = value.rsplit_once('-')?;
                page.after = Some(Cursor { at: at.parse().ok()?, id: id.parse().ok()? });
            }
            _ => return None,
        }
    }
    (!states.is_empty()).then_some((states, page))
}

fn state(text: &str) -> Option<DeliveryStatus> {
    let all = [DeliveryStatus::Queued, DeliveryStatus::Dead, DeliveryStatus::Delivered, DeliveryStatus::Unowned];
    all.into_iter().find(|state| name(*state) == text)
}

const fn name(state: DeliveryStatus) -> &'static str {
    match state {
        DeliveryStatus::Queued => "queued",
        DeliveryStatus::Dead => "dead",
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::Unowned => "unowned",
    }
}

fn shown(entry: &Listed, state: DeliveryStatus, pauses: &[Pause]) -> Value {
    let at = text(SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(entry.cursor.at).unwrap_or(0)));
    let is_of = |pause: &&Pause| {
        Some(&pause.endpoint.tenant) == entry.tenant.as_ref() && Some(pause.endpoint.kind) == entry.kind
    };
    let paused = pauses.iter().find(is_of).map(|pause| pause.reason.as_str());
    // The name of the time by which the list is ordered.
    let what = match state {
        DeliveryStatus::Queued => "due",
        DeliveryStatus::Dead | DeliveryStatus::Delivered => "ended",
        DeliveryStatus::Unowned => "removed",
    };
    let (last_status, last_error) = match entry.last.map(|last| last.result) {
        Some(AttemptResult::Status(status)) => (Some(status), None),
        Some(AttemptResult::Error(error)) => (None, Some(error.as_str())),
        None => (None, None),
    };
    let next_attempt = (state == DeliveryStatus::Queued && paused.is_none()).then_some(&at);
    json!({
        "id": entry.cursor.id.to_string(),
        "state": name(state),
        "tenant": entry.tenant.as_ref().map(TenantName::as_str),
        "account": entry.account.as_str(),
        "type": entry.kind.map(CallbackType::as_str),
        "upstream_id": entry.upstream_id,
        "attempts": entry.attempts,
        "last_status": last_status,
        "last_error": last_error,
        "next_attempt": next_attempt,
        "paused": paused,
        "received": text(entry.received),
        what: at,
    })
}

fn shown_pause(pause: &Pause) -> Value {
    json!({
        "tenant": pause.endpoint.tenant.as_str(),
        "type": pause.endpoint.kind.as_str(),
        "reason": pause.reason.as_str(),
        "since": text(pause.since),
        "next_probe": pause.probe.map(text),
    })
}

fn shown_attempt(attempt: &AttemptRecord) -> Value {
    let mut shown = shown_result(attempt);
    shown["time"] = text(attempt.time).into();
    shown
}

/// Shows the result of an attempt: `status` or `error`, and `duration_ms`.
pub(super) fn shown_result(attempt: &AttemptRecord) -> Value {
    let duration = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    match attempt.result {
        AttemptResult::Status(status) => json!({ "status": status, "duration_ms": duration }),
        AttemptResult::Error(error) => json!({ "error": error.as_str(), "duration_ms": duration }),
    }
}

fn text(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_ask_for_a_list_by_its_state() {
        let query = "state=dead&tenant=lending&limit=5&after=-7-msg_000102030405060708090a0b0c0d0e0f";
        let (states, page) = asked(query, None).unwrap();
        assert_eq!((states, page.tenant.unwrap().as_str(), page.most), (vec![DeliveryStatus::Dead], "lending", 5));
        assert_eq!(page.after.unwrap().at, -7);
        let (_, page) = asked("state=dead&type=NAME_VALIDATOR_REQUEST&since=1970-01-01T00:00:00Z", None).unwrap();
        assert_eq!(page.kind, Some(CallbackType::NameValidatorRequest));
        assert_eq!((page.since, page.until), (Some(SystemTime::UNIX_EPOCH), None));
        for bad in
            ["", "state=", "state=x", "tenant=lending", "state=dead&limit=0", "state=dead&limit=1001", "state=dead&x=1"]
        {
            assert!(asked(bad, None).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_team_asks_for_its_own_of_any_state() {
        let own: TenantName = "lending".parse().unwrap();
        for (query, states) in [("", OWN_STATES.to_vec()), ("state=dead&limit=1", vec![DeliveryStatus::Dead])] {
            let (found, page) = asked(query, Some(&own)).unwrap();
            assert_eq!((found, page.tenant), (states, Some(own.clone())), "{query}");
        }
        for bad in ["state=unowned", "state=x", "tenant=lending", "tenant=payments", "since=now"] {
            assert!(asked(bad, Some(&own)).is_none(), "{bad}");
        }
    }
}
