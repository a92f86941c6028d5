//! The active configuration of callbacks: configured URLs, secrets, tokens and bounds of each team.

use super::sign::Credentials;
use crate::base::name::{AccountName, TenantName};
use crate::config::{self, OutboxBounds, Settings};
use crate::iluma::callback_type::CallbackType;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The configuration of callbacks.
pub(super) struct CallbackConfig {
    pub(super) accounts: BTreeMap<AccountName, Account>,
    /// The networks that callbacks may come from; `None` if they may come from anywhere.
    pub(super) allow: Option<Vec<IpNet>>,
    pub(super) teams: BTreeMap<TenantName, Team>,
    /// The waits between attempts.
    pub(super) retry: Vec<Duration>,
    /// The time in which an endpoint must send the head of its answer.
    pub(super) timeout: Duration,
    pub(super) outbox: OutboxBounds,
    pub(super) extra_ca: Vec<CertificateDer<'static>>,
}

pub(super) struct Account {
    /// The tokens that Iluma's callbacks carry.
    pub(super) tokens: Vec<SecretString>,
    /// True if references carry the prefix of their tenant.
    pub(super) prefixes: bool,
    /// The tenant that gets callbacks without a known owner; `None` if there is no such tenant.
    pub(super) fallback_owner: Option<TenantName>,
}

pub(super) struct Team {
    pub(super) account: AccountName,
    /// The hosts that the team's URLs may have, in their normal form.
    pub(super) hosts: BTreeSet<String>,
    /// The configured URLs, by callback type. A URL that the team sets itself replaces the configured one.
    pub(super) urls: BTreeMap<CallbackType, String>,
    pub(super) credentials: Credentials,
}

impl CallbackConfig {
    pub(super) fn new(settings: &Settings) -> Self {
        let root = settings.state.root_key.expose_secret();
        let team = |(name, tenant): (&TenantName, &config::Tenant)| {
            let team = Team {
                account: tenant.account.clone(),
                hosts: tenant.callback_hosts.clone(),
                urls: tenant.callback_urls.iter().map(|(kind, url)| (*kind, url.to_string())).collect(),
                credentials: Credentials::new(root, name, tenant),
            };
            (name.clone(), team)
        };
        let account = |(name, account): (&AccountName, &config::Account)| {
            let owner = settings.tenants.iter().find(|(_, tenant)| tenant.account == *name && tenant.owns_unprefixed);
            let account = Account {
                tokens: account.callback_tokens.clone(),
                prefixes: account.prefix_references,
                fallback_owner: owner.map(|(name, _)| name.clone()),
            };
            (name.clone(), account)
        };
        Self {
            accounts: settings.accounts.iter().map(account).collect(),
            allow: settings.callbacks.allow.clone(),
            teams: settings.tenants.iter().map(team).collect(),
            retry: settings.callbacks.retry.clone(),
            timeout: settings.callbacks.timeout,
            outbox: settings.callbacks.outbox,
            extra_ca: settings.callbacks.extra_ca.clone(),
        }
    }
}

/// Returns the tokens and signing secrets of every team, whether configured or derived. Other parts mask them in logs
/// and answers.
#[must_use]
pub fn secrets(settings: &Settings) -> Vec<SecretString> {
    let teams = CallbackConfig::new(settings).teams.into_values();
    teams.flat_map(|team| std::iter::once(team.credentials.token).chain(team.credentials.secrets)).collect()
}
