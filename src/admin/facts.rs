//! The facts about a node, from which its report and its alarms are made.
//!
//! Invariant: no fact has personal data or a secret.

use std::time::{Duration, SystemTime};

/// The facts about a node at one moment.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The moment.
    pub now: SystemTime,
    /// The hash of the configuration file's text.
    pub configuration: String,
    /// The configured Redis servers; empty for a gateway without Redis.
    pub redis: Vec<RedisFact>,
    /// The certificates of the listeners.
    pub certificates: Vec<CertificateFact>,
    /// The last reload of the configuration, or the start.
    pub last_reload: ReloadFact,
    /// The endpoints of Iluma's from which the node backs off.
    pub backing_off: Vec<BackoffFact>,
    /// The reason why the ledger or the inbox can't be written; `None` if both can be written.
    pub unready: Option<String>,
    /// The free space of the disk and the reserve, in bytes, if less than the reserve is free.
    pub low_disk: Option<(u64, u64)>,
    /// False if a disk cache is configured and can't be used.
    pub is_cache_disk_up: bool,
    /// The number of reads in the last 15 minutes that found an entry of state that no key decrypts.
    pub unreadable: u64,
    /// The accounts for which nothing is sent except probes.
    pub open_circuits: Vec<String>,
    /// The teams with dead letters, each with its number of dead letters.
    pub dead_letters: Vec<(String, u64)>,
    /// The number of callbacks without an owner.
    pub unowned: u64,
    /// The endpoints of teams that are paused.
    pub paused: Vec<PauseFact>,
    /// The use of the quotas and budgets of teams.
    pub quotas: Vec<QuotaFact>,
    /// The number of calls with an unknown outcome, and the time at which the oldest was booked, if there are any.
    pub unknown_calls: Option<(u64, SystemTime)>,
    /// The keys that expire soon.
    pub ending_keys: Vec<KeyFact>,
    /// The nodes that stopped their heartbeats without leaving, each with the time of the last one.
    pub silent_nodes: Vec<(String, SystemTime)>,
}

/// The condition of a configured Redis.
#[derive(Debug, Clone)]
pub struct RedisFact {
    /// The configuration key of its address.
    pub name: &'static str,
    /// The kind of its servers: `single`, `sentinel` or `cluster`.
    pub topology: &'static str,
    /// True while it answers.
    pub is_up: bool,
    /// The time at which it last came up or went out.
    pub since: SystemTime,
    /// The cause of an outage.
    pub cause: Option<String>,
}

/// The certificate of a listener.
#[derive(Debug, Clone)]
pub struct CertificateFact {
    /// The listener.
    pub listener: &'static str,
    /// The time at which the certificate expires.
    pub expires: SystemTime,
}

/// A reload of the configuration.
#[derive(Debug, Clone)]
pub struct ReloadFact {
    /// The time of the reload.
    pub time: SystemTime,
    /// The faults of the changed configuration, if it was refused.
    pub fault: Option<String>,
}

/// An endpoint of Iluma's that refuses calls.
#[derive(Debug, Clone)]
pub struct BackoffFact {
    /// The account.
    pub account: String,
    /// The method and the path pattern, with a space in between.
    pub endpoint: String,
    /// The time until the next probe.
    pub left: Duration,
}

/// A paused endpoint of a team.
#[derive(Debug, Clone)]
pub struct PauseFact {
    /// The team.
    pub tenant: String,
    /// The type of its callbacks.
    pub kind: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// The beginning of the pause.
    pub since: SystemTime,
}

/// The use of a quota or a budget.
#[derive(Debug, Clone)]
pub struct QuotaFact {
    /// The team.
    pub tenant: String,
    /// The name of the quota.
    pub name: &'static str,
    /// The used calls or rupiah.
    pub used: u64,
    /// The allowed calls or rupiah.
    pub quota: u64,
}

/// A key of a team.
#[derive(Debug, Clone)]
pub struct KeyFact {
    /// The team.
    pub tenant: String,
    /// The key's id.
    pub id: String,
    /// The time at which the key expires.
    pub expires: SystemTime,
}
