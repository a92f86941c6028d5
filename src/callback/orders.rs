//! Parsing of orders about callbacks: the deliveries to replay, and the endpoints to pause, resume or test.
//!
//! Invariant: an order of a team selects only the team's own callbacks and endpoints.

use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use crate::state::{DeliveryId, Replay};
use serde::Deserialize;
use std::time::{Duration, SystemTime};

/// The reason why an order about callbacks is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The query or the body is malformed.
    #[error("{0}")]
    Malformed(&'static str),
    /// There is no such type.
    #[error(
        "type must be one of NAME_VALIDATOR_REQUEST, BANK_NAME_VALIDATOR_DETAILS, ID_IMAGE_OCR_REQUEST, \
         BUSINESS_DOCUMENT_OCR_REQUEST, DOCUMENT_OCR_CAPTURE_REQUEST"
    )]
    Type,
    /// There is no such tenant.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// No such delivery exists, or it is another team's.
    #[error("there is no callback with this id; the list of callbacks shows the ids")]
    NotFound,
    /// The delivery is not a dead letter, so it can't be deleted.
    #[error("this callback is not a dead letter, and only dead letters can be deleted")]
    NotDead,
    /// There is no URL to test.
    #[error(
        "no callback URL is set for this type; set one at /v1/callback/urls, or ask operations to set callback_urls"
    )]
    NoUrl,
    /// Too many tests run already.
    #[error("too many test deliveries are running; try again")]
    Busy,
    /// State can't be read or written.
    #[error("callbacks can't be read or written now; try again")]
    Unavailable,
}

const REPLAY: &str = "the body must be one of {\"id\"}, {\"tenant\",\"since\"} with an RFC 3339 time and perhaps \
                      \"until\", {\"all\":true}";
const OWN_REPLAY: &str = "the body must be one of {\"id\"}, {\"since\"} with an RFC 3339 time and perhaps \"until\", \
                          {\"all\":true}";
const ENDPOINTS: &str = "the body must be {\"tenant\"}, and perhaps \"type\"";
const OWN_ENDPOINTS: &str = "the body must be empty, or {\"type\"}";

/// The endpoints that an order names: a tenant's endpoint of one type, or all of the tenant's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub(super) tenant: TenantName,
    pub(super) kind: Option<CallbackType>,
}

impl Endpoints {
    /// Returns the team that has the endpoints.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.tenant
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedReplay {
    id: Option<String>,
    tenant: Option<String>,
    since: Option<String>,
    until: Option<String>,
    all: Option<bool>,
}

/// Reads an order's selection of deliveries to replay. `body` is the order's body. `own` is the requesting team, or
/// `None` for an operator.
///
/// # Errors
/// Returns an error if the order does not select exactly one of these: a delivery, a team's deliveries since a time, or
/// all dead letters.
pub fn replay(body: &[u8], own: Option<&TenantName>) -> Result<Replay, OrderError> {
    let refused = OrderError::Malformed(if own.is_some() { OWN_REPLAY } else { REPLAY });
    wanted(body, own).ok_or(refused)
}

fn wanted(body: &[u8], own: Option<&TenantName>) -> Option<Replay> {
    match (serde_json::from_slice(body).ok()?, own) {
        (WantedReplay { id: Some(id), tenant: None, since: None, until: None, all: None }, own) => {
            let id: DeliveryId = id.parse().ok()?;
            Some(own.map_or(Replay::One(id), |own| Replay::Own(own.clone(), id)))
        }
        (WantedReplay { id: None, tenant, since: Some(since), until, all: None }, own) => {
            let tenant = match (tenant, own) {
                (Some(tenant), None) => tenant.parse().ok()?,
                (None, Some(own)) => own.clone(),
                (Some(_), Some(_)) | (None, None) => return None,
            };
            let until = match until {
                Some(until) => Some(time(&until)?),
                None => None,
            };
            Some(Replay::Since(tenant, time(&since)?, until))
        }
        (WantedReplay { id: None, tenant: None, since: None, until: None, all: Some(true) }, own) => {
            Some(Replay::AllDead(own.cloned()))
        }
        (WantedReplay { .. }, _) => None,
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedEndpoints {
    tenant: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Reads an order's selection of endpoints. `body` is the order's body. `own` is the requesting team, or `None` for an
/// operator.
///
/// # Errors
/// Returns an error if the body is malformed, names no tenant, or names a type that does not exist.
pub fn endpoints(body: &[u8], own: Option<&TenantName>) -> Result<Endpoints, OrderError> {
    let refused = OrderError::Malformed(if own.is_some() { OWN_ENDPOINTS } else { ENDPOINTS });
    let WantedEndpoints { tenant, kind } = if own.is_some() && body.is_empty() {
        WantedEndpoints::default()
    } else {
        serde_json::from_slice(body).map_err(|_| refused)?
    };
    let tenant = match (tenant, own) {
        (Some(tenant), None) => tenant.parse().map_err(|_| OrderError::UnknownTenant)?,
        (None, Some(own)) => own.clone(),
        (Some(_), Some(_)) | (None, None) => return Err(refused),
    };
    let kind = kind.map(|kind| kind.parse().map_err(|_| OrderError::Type)).transpose()?;
    Ok(Endpoints { tenant, kind })
}

/// Reads a time in the format of RFC 3339 with any offset. Returns `None` if the text is no such time.
pub(super) fn time(text: &str) -> Option<SystemTime> {
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

    fn lending() -> TenantName {
        "lending".parse().unwrap()
    }

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
        let one = format!("{{\"id\":\"{id}\"}}");
        let epoch = SystemTime::UNIX_EPOCH;
        let day = Some(epoch + Duration::from_secs(86400));
        let until = r#""since":"1970-01-01T00:00:00Z","until":"1970-01-02T00:00:00Z""#;
        let of_lending = format!(r#"{{"tenant":"lending",{until}}}"#);
        let own = Some(lending());
        for (body, own, expected) in [
            (&*one, None, Replay::One(id.parse().unwrap())),
            (&*one, own.as_ref(), Replay::Own(lending(), id.parse().unwrap())),
            (r#"{"all":true}"#, None, Replay::AllDead(None)),
            (r#"{"all":true}"#, own.as_ref(), Replay::AllDead(own.clone())),
            (r#"{"tenant":"lending","since":"1970-01-01T00:00:00Z"}"#, None, Replay::Since(lending(), epoch, None)),
            (&*of_lending, None, Replay::Since(lending(), epoch, day)),
            (&*format!("{{{until}}}"), own.as_ref(), Replay::Since(lending(), epoch, day)),
        ] {
            assert_eq!(replay(body.as_bytes(), own), Ok(expected), "{body} by {own:?}");
        }
        for bad in
            ["", "{}", r#"{"all":false}"#, r#"{"id":"x"}"#, r#"{"tenant":"lending"}"#, r#"{"all":true,"more":1}"#]
        {
            for own in [None, own.as_ref()] {
                assert!(replay(bad.as_bytes(), own).is_err(), "{bad} by {own:?}");
            }
        }
        assert!(replay(of_lending.as_bytes(), own.as_ref()).is_err(), "a team names no tenant");
        assert!(replay(format!("{{{until}}}").as_bytes(), None).is_err(), "an operator names one");
    }

    #[test]
    fn an_order_names_endpoints_of_one_tenant() {
        let kind = CallbackType::NameValidatorRequest;
        let own = Some(lending());
        for (body, own, expected) in [
            (r#"{"tenant":"lending"}"#, None, Ok(None)),
            (r#"{"tenant":"lending","type":"NAME_VALIDATOR_REQUEST"}"#, None, Ok(Some(kind))),
            ("", own.as_ref(), Ok(None)),
            ("{}", own.as_ref(), Ok(None)),
            (r#"{"type":"NAME_VALIDATOR_REQUEST"}"#, own.as_ref(), Ok(Some(kind))),
            (r#"{"type":"x"}"#, own.as_ref(), Err(OrderError::Type)),
            (r#"{"tenant":"X"}"#, None, Err(OrderError::UnknownTenant)),
            ("", None, Err(OrderError::Malformed(ENDPOINTS))),
            ("{}", None, Err(OrderError::Malformed(ENDPOINTS))),
            (r#"{"tenant":"payments"}"#, own.as_ref(), Err(OrderError::Malformed(OWN_ENDPOINTS))),
            (r#"{"more":1}"#, own.as_ref(), Err(OrderError::Malformed(OWN_ENDPOINTS))),
        ] {
            let expected = expected.map(|kind| Endpoints { tenant: lending(), kind });
            assert_eq!(endpoints(body.as_bytes(), own), expected, "{body} by {own:?}");
        }
    }
}
