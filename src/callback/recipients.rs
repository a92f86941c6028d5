//! The recipients of a callback: a pure decision.
//!
//! Invariants:
//! - A callback goes only to (1) the owners of its id, (2) the tenant in the prefix of its reference, (3) the fallback
//!   owner, if neither (1) nor (2) is known in time.
//! - Only (2) applies to a body whose id is not at Iluma's usual position, because nothing else identifies its owner.
//! - Each recipient gets its own reference.

use super::config::{Account, CallbackConfig};
use crate::base::name::TenantName;
use crate::iluma::callback_body::CallbackBody;
use crate::iluma::callback_type::CallbackType;
use crate::state::{EARLY, Waiting};
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// The time for which a callback without a known owner waits before it is set aside. Iluma answers most POSTs sooner,
/// and the answer makes the owner known.
const UNOWNED: Duration = Duration::from_secs(5);

/// The decision about the recipients of a callback.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// These tenants get the callback, which has this type; there is at least one. Each tenant is listed with its own
    /// reference as JSON text, or `None` if there is none.
    Recipients(CallbackType, Vec<(TenantName, Option<Bytes>)>),
    /// No owner is known yet: the callback may have overtaken the answer to its request. It waits until this time.
    Overtaking(SystemTime),
    /// No tenant gets the callback.
    Unowned,
}

/// Decides at the time `now` which tenants get a callback.
pub(super) fn find(config: &CallbackConfig, waiting: &Waiting, body: &CallbackBody, now: SystemTime) -> Finding {
    let account = config.accounts.get(&waiting.account);
    let prefix = prefix(config, account, waiting, body);
    let mut recipients = owners(config, waiting, body);
    if let Some((tenant, reference)) = prefix.clone() {
        // The gateway has erased its copy of this reference. The prefixed reference in the callback still contains it.
        if waiting.awaiting.iter().any(|owner| owner.erased) {
            recipients.retain(|(known, reference)| *known != tenant || reference.is_some());
        }
        let prefixed = (tenant, reference);
        if !recipients.contains(&prefixed) {
            recipients.push(prefixed);
        }
    }
    let fallback_owner = account.and_then(|account| account.fallback_owner.clone()).filter(|_| body.id.is_some());
    let wait = match &fallback_owner {
        Some(_) if !account.is_some_and(|account| account.prefixes) => EARLY,
        // If references have prefixes, a callback without one was not requested through this gateway, and no other team
        // will own it.
        Some(_) if waiting.kind.is_some() => Duration::ZERO,
        // A callback that is set aside is still given to a later owner, and operators see it without waiting.
        _ => UNOWNED,
    };
    let until = waiting.received + wait;
    if recipients.is_empty() && now >= until && prefix.is_none() {
        let own = body.reference.as_ref().and_then(|text| serde_json::to_vec(text).ok()).map(Bytes::from);
        recipients.extend(fallback_owner.map(|tenant| (tenant, own)));
    }
    match waiting.kind {
        Some(kind) if !recipients.is_empty() => Finding::Recipients(kind, recipients),
        _ if now >= until => Finding::Unowned,
        _ => Finding::Overtaking(until),
    }
}

/// Returns the configured tenants that own the callback's id, each with its reference. Returns an empty list if the id
/// is not at Iluma's usual position.
fn owners(config: &CallbackConfig, waiting: &Waiting, body: &CallbackBody) -> Vec<(TenantName, Option<Bytes>)> {
    let owners = waiting.awaiting.iter().filter(|owner| body.id.is_some() && config.teams.contains_key(&owner.tenant));
    owners.map(|owner| (owner.tenant.clone(), owner.reference.clone())).collect()
}

/// Returns the tenant whose prefix the reference carries, and the rest of the reference. Returns `None` in an account
/// without prefixes, and for a tenant of another account: then a team chose text that only looks like a prefix.
fn prefix(
    config: &CallbackConfig,
    account: Option<&Account>,
    waiting: &Waiting,
    body: &CallbackBody,
) -> Option<(TenantName, Option<Bytes>)> {
    body.prefix().filter(|(tenant, _)| {
        let is_here = config.teams.get(tenant).is_some_and(|team| team.account == waiting.account);
        is_here && account.is_some_and(|account| account.prefixes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::state::Awaiting;
    use std::path::Path;

    fn live(account: &str, lending: &str) -> CallbackConfig {
        let hash = |digit: &str| digit.repeat(64);
        let text = format!(
            "[state]\nroot_key = {{ env = \"ROOT\" }}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"K\" }} }}]\n\
             [accounts.live]\napi_key = {{ env = \"K\" }}\n{account}\n[accounts.other]\napi_key = {{ env = \"K\" }}\n\
             [tenants.lending]\naccount = \"live\"\nkey_sha256 = [\"{}\"]\n{lending}\n\
             [tenants.payments]\naccount = \"live\"\nkey_sha256 = [\"{}\"]\n\
             [tenants.foreign]\naccount = \"other\"\nkey_sha256 = [\"{}\"]\n",
            hash("1"),
            hash("2"),
            hash("3"),
        );
        CallbackConfig::new(
            &Settings::parse(&text, Path::new("."), &|name| Some(if name == "ROOT" { "cd" } else { "ab" }.repeat(32)))
                .unwrap(),
        )
    }

    const KIND: CallbackType = CallbackType::NameValidatorRequest;

    fn quoted(reference: &str) -> Option<Bytes> {
        (!reference.is_empty()).then(|| format!("{reference:?}").into())
    }

    /// Returns the finding for a callback with this reference, `age` seconds after it arrived.
    fn found(live: &CallbackConfig, reference: &str, owners: &[(&str, &str)], age: u64) -> Finding {
        let body = format!("{{\"id\":\"1\",\"reference_id\":{reference}}}");
        found_in(live, body, owners, age)
    }

    /// Returns the finding for a body that was stored under the id 1.
    fn found_in(live: &CallbackConfig, body: String, owners: &[(&str, &str)], age: u64) -> Finding {
        let owner = |(tenant, reference): &(&str, &str)| Awaiting {
            tenant: tenant.parse().unwrap(),
            reference: quoted(reference.trim_end_matches('!')),
            erased: reference.ends_with('!'),
        };
        let body = Bytes::from(body);
        let waiting = Waiting::example("live", Some(KIND), "1", body, owners.iter().map(owner).collect());
        let body = CallbackBody::parse(&waiting.body).unwrap();
        match find(live, &waiting, &body, waiting.received + Duration::from_secs(age)) {
            Finding::Overtaking(until) => {
                Finding::Overtaking(SystemTime::UNIX_EPOCH + until.duration_since(waiting.received).unwrap())
            }
            finding => finding,
        }
    }

    /// Returns the finding for a callback that waits this long for an owner.
    fn overtaking(seconds: u64) -> Finding {
        Finding::Overtaking(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn recipients(list: &[(&str, &str)]) -> Finding {
        let list = list.iter().map(|(tenant, reference)| (tenant.parse().unwrap(), quoted(reference)));
        Finding::Recipients(KIND, list.collect())
    }

    #[test]
    fn owners_and_the_prefix_say_whose_it_is() {
        let live = live("", "");
        for (reference, owners, expected) in [
            ("null", &[("lending", "a"), ("payments", "")][..], recipients(&[("lending", "a"), ("payments", "")])),
            (r#""lending:a""#, &[], recipients(&[("lending", "a")])),
            (r#""lending:""#, &[], recipients(&[("lending", "")])),
            (r#""lending:a""#, &[("lending", "a")], recipients(&[("lending", "a")])),
            (r#""lending:a""#, &[("payments", "b")], recipients(&[("payments", "b"), ("lending", "a")])),
            (r#""lending:a""#, &[("lending", "!")], recipients(&[("lending", "a")])),
            (r#""lending:a""#, &[("payments", "!")], recipients(&[("payments", ""), ("lending", "a")])),
            (r#""gone:a""#, &[("gone", "a")], overtaking(5)),
            // A team of another account owns nothing here.
            (r#""foreign:a""#, &[], overtaking(5)),
            ("null", &[], overtaking(5)),
        ] {
            assert_eq!(found(&live, reference, owners, 0), expected, "{reference} {owners:?}");
        }
        assert_eq!(found(&live, "null", &[], 5), Finding::Unowned);
    }

    #[test]
    fn without_prefixes_a_prefix_says_nothing() {
        let live = live("prefix_references = false", "");
        assert_eq!(found(&live, r#""lending:a""#, &[], 0), overtaking(5));
        assert_eq!(found(&live, r#""lending:a""#, &[], 5), Finding::Unowned);
    }

    #[test]
    fn the_fallback_owner_gets_what_nobody_owns() {
        let prefixed = live("", "owns_unprefixed = true");
        assert_eq!(found(&prefixed, r#""a""#, &[], 0), recipients(&[("lending", "a")]), "it was not asked here");
        assert_eq!(found(&prefixed, r#""payments:a""#, &[], 0), recipients(&[("payments", "a")]));
        assert_eq!(found(&prefixed, r#""a""#, &[("payments", "b")], 0), recipients(&[("payments", "b")]));
        let unprefixed = live("prefix_references = false", "owns_unprefixed = true");
        assert_eq!(found(&unprefixed, r#""a""#, &[], 59), overtaking(60), "a request may be in flight");
        assert_eq!(found(&unprefixed, r#""a""#, &[], 60), recipients(&[("lending", "a")]));
    }

    #[test]
    fn an_id_in_another_place_makes_nobody_an_owner() {
        let config = live("", "owns_unprefixed = true");
        let nested = |reference: &str| format!(r#"{{"data":{{"id":"1","reference_id":"payments:x"}}{reference}}}"#);
        // Neither an owner nor the fallback owner may see another team's reference that is nested in the body.
        assert_eq!(found_in(&config, nested(""), &[("lending", "a")], 5), Finding::Unowned);
        assert_eq!(
            found_in(&config, nested(r#","reference_id":"payments:y""#), &[("lending", "a")], 0),
            recipients(&[("payments", "y")])
        );
    }
}
