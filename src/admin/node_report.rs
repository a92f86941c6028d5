//! The report of a node, which it publishes to the other nodes and shows to operators.

use super::alarms::Alarm;
use super::facts::{BackoffFact, CertificateFact, Facts, RedisFact};
use crate::base::moment;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The largest number of backed-off endpoints in a report. It limits the size of the report.
const MOST_ENDPOINTS: usize = 50;

/// The report of a node about itself. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The version of the program.
    pub version: String,
    /// The revision of the source code, or `unknown`.
    pub revision: String,
    /// The time at which the node started.
    pub started: String,
    /// The number of seconds since the node started.
    pub uptime_seconds: u64,
    /// The hash of the text of the node's configuration file, as 16 hex digits.
    pub configuration: String,
    /// The configured Redis servers; empty for a gateway without Redis.
    pub redis: Vec<RedisStatus>,
    /// The certificates of the node's listeners.
    pub certificates: Vec<CertificateStatus>,
    /// The last reload of the node's configuration, or the start.
    pub last_reload: ReloadStatus,
    /// Iluma's endpoints from which the node backs off. Iluma refused calls to such an endpoint because of their rate,
    /// so the node sends no call there before the next probe.
    pub backing_off: Vec<BackingOff>,
}

/// The condition of a configured Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisStatus {
    /// The configuration key of the address, such as `state.redis.url`.
    pub name: String,
    /// The topology of the Redis servers: `single`, `sentinel` or `cluster`.
    pub topology: String,
    /// True while Redis answers.
    pub up: bool,
    /// The time of the last change of `up`.
    pub since: String,
    /// The last cause of an outage; `None` while Redis answers, or before the first request to it.
    pub cause: Option<String>,
}

/// The certificate of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The name of the listener.
    pub listener: String,
    /// The time at which the certificate expires.
    pub expires: String,
}

/// A reload of the configuration, or the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// The time of the reload.
    pub time: String,
    /// True if the loaded configuration is in effect; false if it was refused.
    pub success: bool,
    /// The faults of the configuration; `None` if it is in effect.
    pub fault: Option<String>,
}

/// An endpoint of Iluma that refuses calls because their rate is too high.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingOff {
    /// The account.
    pub account: String,
    /// The method.
    pub method: String,
    /// The path pattern.
    pub path: String,
    /// The time before which the node sends no probe.
    pub until: String,
}

/// A node's report with its alarms, in the form that the node publishes to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    #[serde(flatten)]
    pub(super) report: NodeReport,
    pub(super) alarms: Vec<Alarm>,
}

/// The version and the revision of the program.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version, such as `1.2.3`.
    pub version: &'static str,
    /// The revision of the source code, or `unknown`.
    pub revision: &'static str,
}

impl NodeReport {
    /// Makes the report from the facts, the program's version, the time of the start and the duration since the start.
    pub(super) fn of(facts: &Facts, build: Build, (started, uptime): (SystemTime, Duration)) -> Self {
        let backing_off = facts.backing_off.iter().take(MOST_ENDPOINTS);
        Self {
            version: build.version.to_owned(),
            revision: build.revision.to_owned(),
            started: moment::seconds(started),
            uptime_seconds: uptime.as_secs(),
            configuration: facts.configuration.clone(),
            redis: facts.redis.iter().map(RedisStatus::of).collect(),
            certificates: facts.certificates.iter().map(CertificateStatus::of).collect(),
            last_reload: ReloadStatus {
                time: moment::seconds(facts.last_reload.time),
                success: facts.last_reload.fault.is_none(),
                fault: facts.last_reload.fault.clone(),
            },
            backing_off: backing_off.map(|backoff| BackingOff::of(backoff, facts.now)).collect(),
        }
    }
}

impl RedisStatus {
    fn of(fact: &RedisFact) -> Self {
        Self {
            name: fact.name.to_owned(),
            topology: fact.topology.to_owned(),
            up: fact.is_up,
            since: moment::seconds(fact.since),
            cause: fact.cause.clone(),
        }
    }
}

impl CertificateStatus {
    fn of(fact: &CertificateFact) -> Self {
        Self { listener: fact.listener.to_owned(), expires: moment::seconds(fact.expires) }
    }
}

impl BackingOff {
    fn of(fact: &BackoffFact, now: SystemTime) -> Self {
        let (method, path) = fact.endpoint.split_once(' ').unwrap_or(("", &fact.endpoint));
        let until = moment::seconds(now + fact.left);
        Self { account: fact.account.clone(), method: method.to_owned(), path: path.to_owned(), until }
    }
}
