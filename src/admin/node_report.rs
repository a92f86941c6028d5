//! The report of a node, which it publishes to the other nodes and shows to operators.

use super::alarms::Alarm;
use super::facts::{BackoffFact, CertificateFact, Facts, RedisFact};
use crate::base::moment;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The largest number of endpoints in a report. It bounds the size of the report.
const MOST_ENDPOINTS: usize = 50;

/// The report of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The version of the program.
    pub version: String,
    /// The revision of the program.
    pub revision: String,
    /// The time of its start.
    pub started: String,
    /// The seconds since its start.
    pub uptime_seconds: u64,
    /// The hash of its configuration file.
    pub configuration: String,
    /// The configured Redis servers; empty for a gateway without Redis.
    pub redis: Vec<RedisStatus>,
    /// The certificates of its listeners.
    pub certificates: Vec<CertificateStatus>,
    /// The last reload of its configuration, or its start.
    pub last_reload: ReloadStatus,
    /// The endpoints of Iluma's from which it backs off.
    pub backing_off: Vec<BackingOff>,
}

/// A Redis of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisStatus {
    /// The configuration key of its address.
    pub name: String,
    /// `single`, `sentinel` or `cluster`.
    pub topology: String,
    /// True while it answers.
    pub up: bool,
    /// The time at which it last came up or went out.
    pub since: String,
    /// The cause of an outage.
    pub cause: Option<String>,
}

/// The certificate of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The listener.
    pub listener: String,
    /// The time at which the certificate expires.
    pub expires: String,
}

/// A reload of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// The time of the reload.
    pub time: String,
    /// True if the loaded configuration is in effect; false if it was refused.
    pub success: bool,
    /// The faults of the configuration, if it was refused.
    pub fault: Option<String>,
}

/// An endpoint of Iluma's that refuses calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingOff {
    /// The account.
    pub account: String,
    /// The method.
    pub method: String,
    /// The path pattern.
    pub path: String,
    /// The time of the next probe.
    pub until: String,
}

/// A node's report with its alarms, in the form that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    #[serde(flatten)]
    pub(super) report: NodeReport,
    pub(super) alarms: Vec<Alarm>,
}

/// The facts about the program itself.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version.
    pub version: &'static str,
    /// The revision.
    pub revision: &'static str,
}

impl NodeReport {
    /// Makes the report of these facts.
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
