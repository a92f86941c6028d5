//! The facts about a node, from which its report and its alarms are made.
//!
//! Invariant: no fact has personal data or a secret.

use std::time::{Duration, SystemTime};

/// The facts about a node at one moment.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The moment at which the facts were collected.
    pub now: SystemTime,
    /// The hash of the configuration file's text, as 16 hex digits.
    pub configuration: String,
    /// The configured Redis servers; empty for a gateway without Redis.
    pub redis: Vec<RedisFact>,
    /// The certificates of the listeners.
    pub certificates: Vec<CertificateFact>,
    /// The last reload of the configuration, or the start.
    pub last_reload: ReloadFact,
    /// Iluma's endpoints from which the node backs off. Iluma refused calls to such an endpoint because of their rate,
    /// so the node sends no call there before the next probe.
    pub backing_off: Vec<BackoffFact>,
    /// The reason why the ledger or the inbox can't be written; `None` if both can be written.
    pub unready: Option<String>,
    /// The free space of the disk and the reserve, in bytes; `None` while at least the reserve is free.
    pub low_disk: Option<(u64, u64)>,
    /// False if a disk cache is configured and can't be used.
    pub is_cache_disk_up: bool,
    /// The number of reads of state in the last 15 minutes that found an entry that no configured encryption key
    /// decrypts.
    pub unreadable: u64,
    /// The accounts whose circuit is open: for them only probes are sent to Iluma.
    pub open_circuits: Vec<String>,
    /// The teams with dead letters, each with its number of dead letters.
    pub dead_letters: Vec<(String, u64)>,
    /// The number of callbacks without an owner.
    pub unowned: u64,
    /// The paused endpoints of teams.
    pub paused: Vec<PauseFact>,
    /// The use of each team's quotas and budget.
    pub quotas: Vec<QuotaFact>,
    /// The number of calls with an unknown outcome, and the time at which the oldest of them was booked; `None` if
    /// there are no such calls.
    pub unknown_calls: Option<(u64, SystemTime)>,
    /// The teams' keys that expire soon and were not rotated.
    pub ending_keys: Vec<KeyFact>,
    /// The nodes that stopped their heartbeats without leaving, each with the time of its last heartbeat.
    pub silent_nodes: Vec<(String, SystemTime)>,
}

/// The condition of a configured Redis.
#[derive(Debug, Clone)]
pub struct RedisFact {
    /// The configuration key of the address, such as `state.redis.url`.
    pub name: &'static str,
    /// The topology of the Redis servers: `single`, `sentinel` or `cluster`.
    pub topology: &'static str,
    /// True while Redis answers.
    pub is_up: bool,
    /// The time of the last change of `is_up`.
    pub since: SystemTime,
    /// The last cause of an outage; `None` while Redis answers, or before the first request to it.
    pub cause: Option<String>,
}

/// The certificate of a listener.
#[derive(Debug, Clone)]
pub struct CertificateFact {
    /// The name of the listener.
    pub listener: &'static str,
    /// The time at which the certificate expires.
    pub expires: SystemTime,
}

/// A reload of the configuration, or the start.
#[derive(Debug, Clone)]
pub struct ReloadFact {
    /// The time of the reload.
    pub time: SystemTime,
    /// The faults of the changed configuration; `None` if it was applied.
    pub fault: Option<String>,
}

/// An endpoint of Iluma that refuses calls because their rate is too high.
#[derive(Debug, Clone)]
pub struct BackoffFact {
    /// The account.
    pub account: String,
    /// The method and the path pattern, with a space in between.
    pub endpoint: String,
    /// The duration until the node may send the next probe.
    pub left: Duration,
}

/// A paused endpoint of a team.
#[derive(Debug, Clone)]
pub struct PauseFact {
    /// The team.
    pub tenant: String,
    /// The type of the callbacks that the endpoint receives.
    pub kind: &'static str,
    /// The reason of the pause.
    pub reason: &'static str,
    /// The beginning of the pause.
    pub since: SystemTime,
}

/// The use of a quota or a budget.
#[derive(Debug, Clone)]
pub struct QuotaFact {
    /// The team.
    pub tenant: String,
    /// The name of the quota or budget, such as `quota_day`.
    pub name: &'static str,
    /// The number of calls that the team has used, or the rupiah that it has spent.
    pub used: u64,
    /// The number of calls that the team may use, or the rupiah that it may spend.
    pub quota: u64,
}

/// A key of a team that expires soon.
#[derive(Debug, Clone)]
pub struct KeyFact {
    /// The team.
    pub tenant: String,
    /// The key's id.
    pub id: String,
    /// The time at which the key expires.
    pub expires: SystemTime,
}
