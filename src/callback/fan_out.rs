//! Whose a callback is: from what waits to deliveries.
//!
//! Invariants: nobody gets a callback but who is known to own its id, or whose seal is on its reference, or (where neither is
//! known of anyone, and nobody came in time) whom the configuration names for that; each gets its own reference.

use super::body::Body;
use super::dispatch::Skipped;
use super::{Account, CallbackConfig, Callbacks, Note, REST};
use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use crate::state::{Copy, EARLY, Made, StateError, Verdict, Waiting};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Callbacks that are fanned out together: their deliveries share a write to disk.
const MOST_TOGETHER: usize = 64;

/// How long nobody else fans out what is in hand here.
const LEASE: Duration = Duration::from_secs(30);

/// How long a callback that nobody owns waits before it is set aside: longer than Iluma takes to answer most POSTs.
const UNOWNED: Duration = Duration::from_secs(5);

/// How soon an early callback is looked at again after its time, at the latest.
const TICK: Duration = Duration::from_millis(250);

/// What a group of journalled callbacks may collect for (section 5 of the design), and how many it holds.
const GROUP_TIME: Duration = Duration::from_millis(100);
const GROUP_MOST: usize = 256;

/// Who gets a callback, and with which reference.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// These, which are not none.
    Recipients(CallbackType, Vec<(TenantName, Option<Bytes>)>),
    /// Nobody is known yet; not before this time is it nobody's.
    OvertakingCallbacks(SystemTime),
    /// Nobody.
    Unowned,
}

impl Callbacks {
    /// Fans out what waits, for ever.
    pub(super) async fn relay(&self) {
        loop {
            let waiting = match self.state.waiting(MOST_TOGETHER, LEASE).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    tracing::warn!(%error, "callbacks can't be fanned out");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            if waiting.is_empty() {
                let _ = tokio::time::timeout(TICK, self.state.arrival()).await;
                continue;
            }
            let settled = join_all(waiting.iter().map(|waiting| self.fan_out(waiting))).await;
            if let Some(error) = settled.into_iter().find_map(Result::err) {
                tracing::warn!(%error, "a callback could not be fanned out");
                tokio::time::sleep(REST).await;
            }
        }
    }

    async fn fan_out(&self, waiting: &Waiting) -> Result<(), StateError> {
        let live = self.live.load_full();
        // It was read when it came.
        let Ok(body) = Body::parse(&waiting.body) else {
            return self.state.settle(waiting, Verdict::Unowned).await;
        };
        let verdict = match find(&live, waiting, &body, self.clock.wall()) {
            Finding::OvertakingCallbacks(until) => Verdict::Wait(until),
            Finding::Unowned => Verdict::Unowned,
            Finding::Recipients(kind, recipients) => {
                let mut copies = Vec::with_capacity(recipients.len());
                for (tenant, reference) in recipients {
                    // Whoever set no URL wants no callbacks of this type.
                    if self.has_url(&live, &tenant, kind).await? {
                        let body = body.with(reference.as_deref());
                        copies.push(Copy { tenant, reference, body });
                    } else {
                        (self.hooks.note)(Note::Skipped(&tenant, Skipped::NoUrl));
                    }
                }
                Verdict::Deliver(kind, copies)
            }
        };
        self.state.settle(waiting, verdict).await
    }

    async fn has_url(
        &self,
        live: &CallbackConfig,
        tenant: &TenantName,
        kind: CallbackType,
    ) -> Result<bool, StateError> {
        let Some(team) = live.teams.get(tenant) else { return Ok(false) };
        Ok(self.url(tenant, team, kind).await?.is_some())
    }

    /// Stores callbacks of hits in groups, until `stop`, and then those that are left.
    pub(super) async fn journal(&self, mut made: mpsc::Receiver<Made>, stop: CancellationToken) {
        let mut group = Vec::new();
        loop {
            let first = stop.run_until_cancelled(made.recv()).await.flatten();
            let Some(first) = first else { break };
            group.push(first);
            let collect = async {
                while group.len() < GROUP_MOST {
                    let Some(next) = made.recv().await else { break };
                    group.push(next);
                }
            };
            let _ = tokio::time::timeout(GROUP_TIME, stop.run_until_cancelled(collect)).await;
            self.enqueue(std::mem::take(&mut group)).await;
        }
        while let Ok(next) = made.try_recv() {
            group.push(next);
        }
        self.enqueue(group).await;
    }

    async fn enqueue(&self, group: Vec<Made>) {
        let live = self.live.load_full();
        let (mut wanted, mut lost) = (Vec::with_capacity(group.len()), Vec::new());
        // Most of a group are of few teams.
        let mut listens = BTreeMap::new();
        for made in group {
            let key = (made.copy.tenant.clone(), made.kind);
            let listening = match listens.get(&key) {
                Some(known) => *known,
                None => self.has_url(&live, &key.0, key.1).await,
            };
            listens.insert(key, listening);
            match listening {
                Ok(true) => wanted.push(made),
                // Nobody listens: that is the common case, and no event.
                Ok(false) => {}
                Err(_) => lost.push(made.copy.tenant),
            }
        }
        if wanted.is_empty() && lost.is_empty() {
            return;
        }
        let tenants: Vec<_> = wanted.iter().map(|made| made.copy.tenant.clone()).collect();
        if let Err(error) = self.state.enqueue(wanted).await {
            tracing::warn!(%error, "callbacks of hits are lost");
            lost.extend(tenants);
        }
        lost.iter().for_each(|tenant| (self.hooks.note)(Note::Skipped(tenant, Skipped::NotStored)));
    }
}

fn find(live: &CallbackConfig, waiting: &Waiting, body: &Body, now: SystemTime) -> Finding {
    let mut recipients: Vec<(TenantName, Option<Bytes>)> = Vec::new();
    let mut erased = false;
    for owner in &waiting.awaiting {
        erased |= owner.erased;
        if live.teams.contains_key(&owner.tenant) {
            recipients.push((owner.tenant.clone(), owner.reference.clone()));
        }
    }
    let account = live.accounts.get(&waiting.account);
    // Where references are not sealed, what looks like a seal is a team's own invention.
    let seal = body.seal().filter(|(tenant, _)| {
        let ours = live.teams.get(tenant).is_some_and(|team| team.account == waiting.account);
        ours && account.is_some_and(|account| account.seals)
    });
    if let Some((tenant, reference)) = seal.clone() {
        // The seal still tells the reference that was erased here.
        if erased {
            recipients.retain(|(known, reference)| *known != tenant || reference.is_some());
        }
        let sealed = (tenant, reference);
        if !recipients.contains(&sealed) {
            recipients.push(sealed);
        }
    }
    let heir = account.and_then(|account| account.owns_unsealed.clone());
    let patience = match &heir {
        Some(_) if !account.is_some_and(|account: &Account| account.seals) => EARLY,
        // Where references are sealed, what comes without a seal was not asked here: nobody else will own it.
        Some(_) if waiting.kind.is_some() => Duration::ZERO,
        // Set aside it is still given to whoever comes to own it; operators need not wait to see it.
        _ => UNOWNED,
    };
    let until = waiting.received + patience;
    if recipients.is_empty() && now >= until && seal.is_none() {
        let own = body.reference.as_ref().and_then(|text| serde_json::to_vec(text).ok()).map(Bytes::from);
        recipients.extend(heir.map(|tenant| (tenant, own)));
    }
    match waiting.kind {
        Some(kind) if !recipients.is_empty() => Finding::Recipients(kind, recipients),
        _ if now >= until => Finding::Unowned,
        _ => Finding::OvertakingCallbacks(until),
    }
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

    /// What is found for a callback with this reference, `age` seconds after it came.
    fn found(live: &CallbackConfig, reference: &str, owners: &[(&str, &str)], age: u64) -> Finding {
        let owner = |(tenant, reference): &(&str, &str)| Awaiting {
            tenant: tenant.parse().unwrap(),
            reference: quoted(reference.trim_end_matches('!')),
            erased: reference.ends_with('!'),
        };
        let body: Bytes = format!("{{\"id\":\"1\",\"reference_id\":{reference}}}").into();
        let waiting = Waiting::example("live", Some(KIND), "1", body, owners.iter().map(owner).collect());
        let body = Body::parse(&waiting.body).unwrap();
        match find(live, &waiting, &body, waiting.received + Duration::from_secs(age)) {
            Finding::OvertakingCallbacks(until) => {
                Finding::OvertakingCallbacks(SystemTime::UNIX_EPOCH + until.duration_since(waiting.received).unwrap())
            }
            finding => finding,
        }
    }

    /// So long after it came.
    fn early(seconds: u64) -> Finding {
        Finding::OvertakingCallbacks(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn recipients(list: &[(&str, &str)]) -> Finding {
        let list = list.iter().map(|(tenant, reference)| (tenant.parse().unwrap(), quoted(reference)));
        Finding::Recipients(KIND, list.collect())
    }

    #[test]
    fn owners_and_the_seal_say_whose_it_is() {
        let live = live("", "");
        for (reference, owners, expected) in [
            ("null", &[("lending", "a"), ("payments", "")][..], recipients(&[("lending", "a"), ("payments", "")])),
            (r#""lending:a""#, &[], recipients(&[("lending", "a")])),
            (r#""lending:""#, &[], recipients(&[("lending", "")])),
            (r#""lending:a""#, &[("lending", "a")], recipients(&[("lending", "a")])),
            (r#""lending:a""#, &[("payments", "b")], recipients(&[("payments", "b"), ("lending", "a")])),
            (r#""lending:a""#, &[("lending", "!")], recipients(&[("lending", "a")])),
            (r#""lending:a""#, &[("payments", "!")], recipients(&[("payments", ""), ("lending", "a")])),
            (r#""gone:a""#, &[("gone", "a")], early(5)),
            // Another account's team has no business here.
            (r#""foreign:a""#, &[], early(5)),
            ("null", &[], early(5)),
        ] {
            assert_eq!(found(&live, reference, owners, 0), expected, "{reference} {owners:?}");
        }
        assert_eq!(found(&live, "null", &[], 5), Finding::Unowned);
    }

    #[test]
    fn where_nothing_is_sealed_a_seal_says_nothing() {
        let live = live("prefix_references = false", "");
        assert_eq!(found(&live, r#""lending:a""#, &[], 0), early(5));
        assert_eq!(found(&live, r#""lending:a""#, &[], 5), Finding::Unowned);
    }

    #[test]
    fn what_nobody_owns_is_the_heirs() {
        let live_sealed = live("", "owns_unprefixed = true");
        assert_eq!(found(&live_sealed, r#""a""#, &[], 0), recipients(&[("lending", "a")]), "it was not asked here");
        assert_eq!(found(&live_sealed, r#""payments:a""#, &[], 0), recipients(&[("payments", "a")]));
        assert_eq!(found(&live_sealed, r#""a""#, &[("payments", "b")], 0), recipients(&[("payments", "b")]));
        let live_unsealed = live("prefix_references = false", "owns_unprefixed = true");
        assert_eq!(found(&live_unsealed, r#""a""#, &[], 59), early(60), "somebody may be asking just now");
        assert_eq!(found(&live_unsealed, r#""a""#, &[], 60), recipients(&[("lending", "a")]));
    }
}
