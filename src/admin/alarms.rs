//! Alarms: the conditions that need an operator now.
//!
//! Invariants: an alarm is declared once, in [`ALARMS`]; the list is empty while all is well; an alarm says what
//! happened and what the operator has to do, without personal data.

use super::facts::{Facts, QuotaFact};
use crate::base::moment;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The lead time of an alarm about a certificate or a key: the alarm begins 14 days before the expiry.
pub const SOON: Duration = Duration::from_secs(14 * 86400);
/// The age at which a call with an unknown outcome raises an alarm. Callbacks and GETs settle most calls within hours,
/// so an older call needs an operator.
const OLD_CALL: Duration = Duration::from_secs(86400);
/// The largest number of alarms of one kind that a node lists. If there are more, one further alarm gives the number of
/// the alarms that are not listed.
const MOST_OF_A_KIND: usize = 20;

/// The urgency of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Teams are refused, or data is at risk.
    Critical,
    /// An operator has to act within days.
    Warning,
    /// An operator should know of the condition.
    Info,
}

impl Severity {
    /// Returns the name of the urgency, as in the API's JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// The declaration of an alarm: its name, urgency and instruction, and the function that finds its conditions in the
/// facts.
#[derive(Debug)]
pub struct AlarmSpec {
    /// The name.
    pub name: &'static str,
    /// The urgency.
    pub severity: Severity,
    /// The instruction for the operator.
    pub action: &'static str,
    find: fn(&Facts) -> Vec<Found>,
}

/// A condition in the facts that raises an alarm.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The name of the part that the condition concerns, such as a team, an account, a listener or a node. `None` if
    /// the condition concerns the whole node.
    subject: Option<String>,
    message: String,
    /// The time at which the condition began, if the facts have that time.
    since: Option<SystemTime>,
}

/// An alarm that is raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The name of the alarm, as in [`ALARMS`].
    pub name: String,
    /// The urgency.
    pub severity: Severity,
    /// The time at which the condition began, as RFC 3339 in UTC. If the facts do not have that time, the time at which
    /// the node first saw the condition.
    pub since: String,
    /// The names of the nodes that raise the alarm.
    pub nodes: Vec<String>,
    /// The name of the part that the condition concerns, such as a team, an account, a listener or a node. `None` if
    /// the condition concerns the whole node.
    pub subject: Option<String>,
    /// The description of the condition.
    pub message: String,
    /// The instruction for the operator.
    pub action: String,
}

/// The declarations of all alarms.
pub const ALARMS: &[AlarmSpec] = &[
    AlarmSpec {
        name: "redis_down",
        severity: Severity::Critical,
        action: "Restore Redis, or the way to it. Until then callbacks are answered 503, and purges and erasures reach one node alone.",
        find: |facts| {
            let down = facts.redis.iter().filter(|redis| !redis.is_up);
            let found = down.map(|redis| {
                let cause = redis.cause.as_deref().unwrap_or("it does not answer");
                Found { since: Some(redis.since), ..of(redis.name, format!("Redis can't be used: {cause}")) }
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "state_not_writable",
        severity: Severity::Critical,
        action: "Free the disk, or mend it. The node is unready, and refuses charged calls and callbacks.",
        find: |facts| {
            facts.unready.iter().map(|why| Found { subject: None, message: why.clone(), since: None }).collect()
        },
    },
    AlarmSpec {
        name: "disk_low",
        severity: Severity::Critical,
        action: "Free some space. Below state.disk_reserve only what must not be lost is written.",
        find: |facts| {
            let message = |(free, reserve): &(u64, u64)| {
                format!("{free} bytes of the disk are free, and {reserve} are the reserve")
            };
            facts.low_disk.iter().map(|low| Found { subject: None, message: message(low), since: None }).collect()
        },
    },
    AlarmSpec {
        name: "cache_disk_down",
        severity: Severity::Warning,
        action: "See the log for the reason: the disk is full, or the file can't be opened. Answers are kept in memory alone.",
        find: |facts| {
            let message = "the disk cache can't be used".to_owned();
            if facts.is_cache_disk_up { Vec::new() } else { vec![Found { subject: None, message, since: None }] }
        },
    },
    AlarmSpec {
        name: "state_unreadable",
        severity: Severity::Critical,
        action: "Put the encryption key that was taken out of state.encryption_keys back, at the end.",
        find: |facts| match facts.unreadable {
            0 => Vec::new(),
            number => {
                let message =
                    format!("{number} reads of state in the last 15 minutes found an entry that no key decrypts");
                vec![Found { subject: None, message, since: None }]
            }
        },
    },
    AlarmSpec {
        name: "node_silent",
        severity: Severity::Critical,
        action: "Start the node, or restore its way to Redis. A purge or an erasure names it in left until it is back.",
        find: |facts| {
            let found = facts.silent_nodes.iter().map(|(name, seen)| Found {
                since: Some(*seen),
                ..of(name, "the node stopped its heartbeats without leaving".to_owned())
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "circuit_open",
        severity: Severity::Critical,
        action: "See Iluma's status page, and the metrics of the account. Calls go out again by themselves once a probe succeeds.",
        find: |facts| {
            let message = "Iluma fails for this account; nothing is sent except probes";
            facts.open_circuits.iter().map(|account| of(account, message.to_owned())).collect()
        },
    },
    AlarmSpec {
        name: "endpoint_backing_off",
        severity: Severity::Warning,
        action: "Lower the rate of the account, or ask Iluma for a higher one. Calls go out again by themselves.",
        find: |facts| {
            let found = facts.backing_off.iter().map(|backoff| {
                let subject = format!("{}: {}", backoff.account, backoff.endpoint);
                of(&subject, "Iluma refuses calls to this endpoint for their rate".to_owned())
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "dead_letters",
        severity: Severity::Warning,
        action: "See GET /v1/callbacks?state=dead for the errors, let the team mend its endpoint, then replay them or delete them.",
        find: |facts| {
            let found = facts
                .dead_letters
                .iter()
                .map(|(tenant, number)| of(tenant, format!("{number} callbacks were given up")));
            found.collect()
        },
    },
    AlarmSpec {
        name: "callbacks_unowned",
        severity: Severity::Warning,
        action: "Name a fallback owner of the account, or replay them once their owner is known.",
        find: |facts| match facts.unowned {
            0 => Vec::new(),
            number => {
                let message = format!("{number} callbacks belong to no team that is known");
                vec![Found { subject: None, message, since: None }]
            }
        },
    },
    AlarmSpec {
        name: "endpoint_paused",
        severity: Severity::Warning,
        action: "Let the team mend the endpoint, or resume it. Its callbacks wait, and become dead letters after the schedule's time.",
        find: |facts| {
            let found = facts.paused.iter().map(|pause| Found {
                since: Some(pause.since),
                ..of(&format!("{}: {}", pause.tenant, pause.kind), format!("callbacks are paused ({})", pause.reason))
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "certificate_expires",
        severity: Severity::Warning,
        action: "Renew the certificate; a changed file is read without a restart.",
        find: |facts| {
            let soon = facts.certificates.iter().filter(|certificate| certificate.expires <= facts.now + SOON);
            let found = soon.map(|certificate| {
                let is_over = certificate.expires <= facts.now;
                let verb = if is_over { "expired" } else { "expires" };
                let message = format!("the certificate {verb} at {}", moment::seconds(certificate.expires));
                Found { since: Some(certificate.expires - SOON), ..of(certificate.listener, message) }
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "reload_failed",
        severity: Severity::Warning,
        action: "Mend the configuration, as check names its faults. The one from before is in effect.",
        find: |facts| {
            let reload = &facts.last_reload;
            let found = reload.fault.iter().map(|fault| Found {
                subject: None,
                message: format!("the changed configuration is refused: {fault}"),
                since: Some(reload.time),
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "quota_spent",
        severity: Severity::Warning,
        action: "Raise the limit of the team, or let the team know. Further calls are refused, or counted in shadow mode.",
        find: |facts| quotas(facts, |percent| percent >= 100),
    },
    AlarmSpec {
        name: "quota_nearly_spent",
        severity: Severity::Info,
        action: "Let the team know, or raise its limit.",
        find: |facts| quotas(facts, |percent| (80..100).contains(&percent)),
    },
    AlarmSpec {
        name: "unknown_calls_old",
        severity: Severity::Warning,
        action: "See GET /v1/usage/unknown, compare with Iluma's bill, and settle them by POST /v1/usage/unknown/settle.",
        find: |facts| {
            let old = facts.unknown_calls.iter().filter(|(_, oldest)| *oldest + OLD_CALL <= facts.now);
            let found = old.map(|(number, oldest)| Found {
                subject: None,
                message: format!(
                    "{number} calls have an unknown outcome, the oldest since {}",
                    moment::seconds(*oldest)
                ),
                since: Some(*oldest + OLD_CALL),
            });
            found.collect()
        },
    },
    AlarmSpec {
        name: "key_expires",
        severity: Severity::Warning,
        action: "Let the team rotate the key, or create another one.",
        find: |facts| {
            let soon = facts.ending_keys.iter().filter(|key| key.expires <= facts.now + SOON);
            let found = soon.map(|key| {
                let message = format!("the key ends at {}, and was not rotated", moment::seconds(key.expires));
                Found { since: Some(key.expires - SOON), ..of(&format!("{}/{}", key.tenant, key.id), message) }
            });
            found.collect()
        },
    },
];

fn of(subject: &str, message: String) -> Found {
    Found { subject: Some(subject.to_owned()), message, since: None }
}

fn quotas(facts: &Facts, is_meant: impl Fn(u64) -> bool) -> Vec<Found> {
    let percent = |quota: &&QuotaFact| is_meant(quota.used.saturating_mul(100).checked_div(quota.quota).unwrap_or(100));
    let message = |quota: &QuotaFact| format!("{} of {} are used", quota.used, quota.quota);
    let meant = facts.quotas.iter().filter(percent);
    meant.map(|quota| of(&format!("{}: {}", quota.tenant, quota.name), message(quota))).collect()
}

/// The alarms that this node raises now, by name and subject. Each has the time at which the node first saw its
/// condition.
#[derive(Debug, Default)]
pub(super) struct Raised(Mutex<BTreeMap<(&'static str, Option<String>), SystemTime>>);

impl Raised {
    /// Returns the alarms that `facts` raise. `node` is the name of this node. A condition that the previous call found
    /// too keeps the time at which it was first seen.
    pub(super) fn of(&self, facts: &Facts, node: &str) -> Vec<Alarm> {
        let mut seen = self.0.lock();
        let (mut still, mut alarms) = (BTreeMap::new(), Vec::new());
        for spec in ALARMS {
            for found in bounded((spec.find)(facts)) {
                let key = (spec.name, found.subject.clone());
                let first = seen.remove(&key).unwrap_or(facts.now);
                still.insert(key, first);
                alarms.push(Alarm {
                    name: spec.name.to_owned(),
                    severity: spec.severity,
                    since: moment::seconds(found.since.unwrap_or(first)),
                    nodes: vec![node.to_owned()],
                    subject: found.subject,
                    message: found.message,
                    action: spec.action.to_owned(),
                });
            }
        }
        *seen = still;
        alarms
    }
}

fn bounded(mut found: Vec<Found>) -> Vec<Found> {
    let rest = found.len().saturating_sub(MOST_OF_A_KIND);
    if rest > 0 {
        found.truncate(MOST_OF_A_KIND);
        found.push(Found { subject: None, message: format!("{rest} more of this kind"), since: None });
    }
    found
}

/// Joins the alarms of several nodes, and sorts them: the most urgent first, then the oldest first. An alarm that
/// several nodes raise appears once, with the earliest time.
pub(super) fn joined(alarms: impl IntoIterator<Item = Alarm>) -> Vec<Alarm> {
    let mut all: Vec<Alarm> = Vec::new();
    for alarm in alarms {
        match all.iter_mut().find(|known| known.name == alarm.name && known.subject == alarm.subject) {
            Some(known) => {
                known.nodes.extend(alarm.nodes);
                known.nodes.sort_unstable();
                known.nodes.dedup();
                known.since = std::cmp::min(std::mem::take(&mut known.since), alarm.since);
            }
            None => all.push(alarm),
        }
    }
    all.sort_by(|one, other| (one.severity, &one.since).cmp(&(other.severity, &other.since)));
    all
}

#[cfg(test)]
mod tests {
    use super::super::facts::{BackoffFact, CertificateFact, KeyFact, PauseFact, RedisFact, ReloadFact};
    use super::*;

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-11-25T08:00:00Z").unwrap()
    }

    fn well() -> Facts {
        let hour = Duration::from_secs(3600);
        Facts {
            now: now(),
            configuration: "0".into(),
            redis: vec![RedisFact {
                name: "state.redis.url",
                topology: "single",
                is_up: true,
                since: now(),
                cause: None,
            }],
            certificates: vec![CertificateFact { listener: "server", expires: now() + SOON + hour }],
            last_reload: ReloadFact { time: now() - hour, fault: None },
            backing_off: Vec::new(),
            unready: None,
            low_disk: None,
            is_cache_disk_up: true,
            unreadable: 0,
            open_circuits: Vec::new(),
            dead_letters: Vec::new(),
            unowned: 0,
            paused: Vec::new(),
            quotas: vec![quota(79)],
            unknown_calls: Some((3, now() - hour)),
            ending_keys: vec![KeyFact { tenant: "lending".into(), id: "1f".into(), expires: now() + SOON + hour }],
            silent_nodes: Vec::new(),
        }
    }

    fn quota(used: u64) -> QuotaFact {
        QuotaFact { tenant: "lending".into(), name: "quota_day", used, quota: 100 }
    }

    /// Applies a change to facts that raise no alarm. Returns the name, the subject and the time of the only alarm that
    /// the changed facts raise.
    fn one(change: impl FnOnce(&mut Facts)) -> (String, Option<String>, String) {
        let mut facts = well();
        change(&mut facts);
        let mut alarms = Raised::default().of(&facts, "a");
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        let alarm = alarms.remove(0);
        assert!(!alarm.message.is_empty() && !alarm.action.is_empty() && alarm.nodes == ["a"], "{alarm:?}");
        (alarm.name, alarm.subject, alarm.since)
    }

    #[test]
    fn nothing_is_raised_while_all_is_well() {
        assert_eq!(Raised::default().of(&well(), "a"), []);
    }

    #[test]
    fn each_condition_raises_its_own_alarm() {
        let hour = Duration::from_secs(3600);
        let (day, text) = (24 * hour, |subject: &str| Some(subject.to_owned()));
        type Change = Box<dyn FnOnce(&mut Facts)>;
        let cases: Vec<(&str, Option<String>, Change)> = vec![
            ("redis_down", text("state.redis.url"), Box::new(|facts| facts.redis[0].is_up = false)),
            ("state_not_writable", None, Box::new(|facts| facts.unready = Some("disk full".into()))),
            ("disk_low", None, Box::new(|facts| facts.low_disk = Some((1, 2)))),
            ("cache_disk_down", None, Box::new(|facts| facts.is_cache_disk_up = false)),
            ("state_unreadable", None, Box::new(|facts| facts.unreadable = 1)),
            ("node_silent", text("b"), Box::new(|facts| facts.silent_nodes = vec![("b".into(), now())])),
            ("circuit_open", text("live"), Box::new(|facts| facts.open_circuits = vec!["live".into()])),
            (
                "endpoint_backing_off",
                text("live: POST /v*/x"),
                Box::new(move |facts| {
                    let (account, endpoint) = ("live".into(), "POST /v*/x".into());
                    facts.backing_off = vec![BackoffFact { account, endpoint, left: hour }];
                }),
            ),
            ("dead_letters", text("lending"), Box::new(|facts| facts.dead_letters = vec![("lending".into(), 2)])),
            ("callbacks_unowned", None, Box::new(|facts| facts.unowned = 1)),
            (
                "endpoint_paused",
                text("lending: OCR"),
                Box::new(|facts| {
                    let pause = PauseFact { tenant: "lending".into(), kind: "OCR", reason: "gone", since: now() };
                    facts.paused = vec![pause];
                }),
            ),
            ("certificate_expires", text("server"), Box::new(|facts| facts.certificates[0].expires = now() + SOON)),
            ("reload_failed", None, Box::new(|facts| facts.last_reload.fault = Some("upstream: unknown".into()))),
            ("quota_spent", text("lending: quota_day"), Box::new(|facts| facts.quotas = vec![quota(100)])),
            ("quota_nearly_spent", text("lending: quota_day"), Box::new(|facts| facts.quotas = vec![quota(80)])),
            ("unknown_calls_old", None, Box::new(move |facts| facts.unknown_calls = Some((1, now() - day)))),
            ("key_expires", text("lending/1f"), Box::new(|facts| facts.ending_keys[0].expires = now() + SOON)),
        ];
        let tried: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
        assert_eq!(tried, ALARMS.iter().map(|spec| spec.name).collect::<Vec<_>>(), "every alarm is tried");
        for (name, subject, change) in cases {
            let (raised, about, _) = one(change);
            assert_eq!((raised.as_str(), about), (name, subject));
        }
    }

    #[test]
    fn an_alarm_begins_once_and_ends_with_its_condition() {
        let (raised, mut facts) = (Raised::default(), well());
        facts.unowned = 1;
        let since = |raised: &Raised, facts: &Facts| raised.of(facts, "a").first().map(|alarm| alarm.since.clone());
        let first = since(&raised, &facts);
        facts.now += Duration::from_secs(60);
        assert_eq!(since(&raised, &facts), first);
        facts.unowned = 0;
        assert_eq!(since(&raised, &facts), None);
        facts.unowned = 2;
        assert_ne!(since(&raised, &facts), first);
    }

    #[test]
    fn an_alarm_of_several_nodes_is_one_and_the_number_of_a_kind_is_bounded() {
        let mut facts = well();
        facts.dead_letters = (0..50).map(|number| (format!("team-{number}"), 1)).collect();
        let of = |node: &str| Raised::default().of(&facts, node);
        assert_eq!(of("a").len(), MOST_OF_A_KIND + 1);
        let both = joined(of("b").into_iter().chain(of("a")));
        assert_eq!((both.len(), &both[0].nodes), (MOST_OF_A_KIND + 1, &vec!["a".to_owned(), "b".to_owned()]));
        facts.open_circuits = vec!["live".into()];
        let sorted = joined(Raised::default().of(&facts, "a"));
        assert_eq!(sorted[0].name, "circuit_open", "the most urgent is first");
    }
}
