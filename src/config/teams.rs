//! Iluma's accounts and the teams that share them.
//!
//! Invariants: a tenant's account exists; no two tenants have the same key hash; at most one tenant of an account owns
//! unprefixed records; a callback URL's host is one of the tenant's hosts.

use super::keys;
use super::limits::{QuotaMode, TenantLimits};
use super::reader::{Entry, Section};
use super::routes;
use super::settings::{Account, MaxAge, Server, Tenant};
use super::values::UrlParts;
use crate::base::name::{AccountName, TenantName};
use crate::base::team_key::KEY_MARK;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::callback_url::{self, CallbackUrl, UrlError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use zeroize::Zeroizing;

/// Reads the accounts. Returns the names of all accounts, and the accounts without faults. The names include those of
/// faulty accounts, so that a faulty account causes no second fault at its tenants.
pub(super) fn accounts(accounts: &Section<'_>) -> (BTreeSet<AccountName>, BTreeMap<AccountName, Account>) {
    let members = accounts.members();
    if members.is_empty() {
        accounts.fault(
            "there must be at least one account, such as [accounts.live] with api_key = { env = \"ILUMA_LIVE_API_KEY\" }",
        );
    }
    if members.len() > MAX_ACCOUNTS {
        accounts.fault(format!("there must be at most {MAX_ACCOUNTS} accounts"));
    }
    let mut names = BTreeSet::new();
    let mut read = BTreeMap::new();
    for (name, section) in members {
        let name = named::<AccountName>(&name, &section);
        names.extend(name.clone());
        if let (Some(name), Some(account)) = (name, account(&section)) {
            read.insert(name, account);
        }
    }
    (names, read)
}

fn account(account: &Section<'_>) -> Option<Account> {
    let missing = "missing; give { env = \"NAME\" } or { file = \"PATH\" } with the account's API key";
    // The key has only characters that Basic authentication and JSON carry unchanged, so that the scrubber recognises
    // it in every spelling.
    let api_key = account.must("api_key", missing, |key| {
        let secret = key.token(":\"'\\")?;
        if secret.expose_secret().starts_with(KEY_MARK) {
            key.fault(
                "the secret is a team's key of this gateway; give the account's own key, which begins with iluma_",
            );
            return None;
        }
        Some(secret)
    });
    let callback_tokens =
        account.maybe("callback_token", |token| one_or_more(token, MAX_CALLBACK_TOKENS, |token| token.token("")));
    let requests_per_second = account.maybe("requests_per_second", Entry::count);
    let max_wait = account.get("max_wait", |time| time.duration(Duration::ZERO..=MAX_WAIT));
    let prefix_references = account.get_renamed("prefix_references", "seal_references", Entry::flag);
    Some(Account {
        api_key: api_key?,
        callback_tokens: callback_tokens.unwrap_or_default(),
        requests_per_second,
        max_wait: max_wait?,
        prefix_references: prefix_references?,
    })
}

/// Reads the tenants. `server` is `None` if the server's settings have a fault, which is reported already.
pub(super) fn tenants(
    tenants: &Section<'_>,
    accounts: &BTreeSet<AccountName>,
    server: Option<&Server>,
) -> BTreeMap<TenantName, Tenant> {
    let members = tenants.members();
    if members.len() > MAX_TENANTS {
        tenants.fault(format!("there must be at most {MAX_TENANTS} tenants"));
    }
    let mut read = BTreeMap::new();
    let mut seen = Seen::default();
    let in_flight = TenantLimits::default_in_flight(server.map_or(1, |server| server.max_in_flight));
    for (name, section) in members {
        let name = named::<TenantName>(&name, &section);
        if let (Some(name), Some(tenant)) = (name, tenant(&section, accounts, &mut seen, in_flight)) {
            read.insert(name, tenant);
        }
    }
    read
}

/// The values that no two tenants may share, each with the key path at which it was read.
#[derive(Default)]
struct Seen {
    hashes: BTreeMap<[u8; 32], String>,
    owners: BTreeMap<AccountName, String>,
}

fn tenant(
    tenant: &Section<'_>,
    accounts: &BTreeSet<AccountName>,
    seen: &mut Seen,
    default_in_flight: usize,
) -> Option<Tenant> {
    let account = tenant.must("account", "missing; give the name of an account", |name| known_account(name, accounts));
    // A team may have only keys that operators make.
    let key_sha256 =
        tenant.maybe("key_sha256", |list| list.each(0..=MAX_KEYS, |key| keys::file_key(key, &mut seen.hashes)));
    let limits = limits(tenant, default_in_flight);
    let routes = match tenant.entry("routes") {
        Some(list) => routes::allowed(&list),
        None => Some(routes::all_but_forbidden()),
    };
    if let Some(routes) = &routes {
        tenant.show("routes", routes.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    let share_cache = tenant.get("share_cache", Entry::flag);
    let ages = tenant.section("max_age");
    let age = |name| ages.maybe(name, |age| age.duration(MAX_AGE));
    let max_age = MaxAge { bank: age("bank"), cft: age("cft") };
    let owns_unprefixed = tenant.get_renamed("owns_unprefixed", "owns_unsealed", |flag| {
        let owns = flag.flag()?;
        if let (true, Some(account)) = (owns, &account) {
            if let Some(other) = seen.owners.get(account) {
                flag.fault(format!("at most one team of an account may have this, and {other} has it"));
            } else {
                seen.owners.insert(account.clone(), flag.path().to_owned());
            }
        }
        Some(owns)
    });
    let hosts = tenant.maybe("callback_hosts", |list| list.each(0..=MAX_HOSTS, host));
    let urls = callback_urls(&tenant.section("callback_urls"), hosts.as_deref());
    let callback_token = tenant.maybe("callback_token", |token| token.token(""));
    let webhook_secrets =
        tenant.maybe("webhook_secret", |secret| one_or_more(secret, MAX_WEBHOOK_SECRETS, webhook_secret));
    let callback_hosts: BTreeSet<String> = match hosts {
        Some(hosts) => hosts.into_iter().collect(),
        None => urls.values().filter_map(http::Uri::host).map(str::to_owned).collect(),
    };
    tenant.show("callback_hosts", Vec::from_iter(callback_hosts.clone()));
    Some(Tenant {
        account: account?,
        key_sha256: key_sha256.unwrap_or_default(),
        limits: limits?,
        routes: routes?,
        share_cache: share_cache?,
        max_age,
        owns_unprefixed: owns_unprefixed?,
        callback_hosts,
        callback_urls: urls,
        callback_token,
        webhook_secrets: webhook_secrets.unwrap_or_default(),
    })
}

fn limits(tenant: &Section<'_>, default_in_flight: usize) -> Option<TenantLimits> {
    let requests_per_second = tenant.maybe("requests_per_second", Entry::count);
    let burst = tenant.maybe("burst", |burst| {
        if tenant.entry("requests_per_second").is_none() {
            burst.fault("is of use only with requests_per_second; give that too, or leave this out");
        }
        burst.count()
    });
    let max_in_flight = tenant.maybe("max_in_flight", Entry::count);
    let weight = tenant.get("weight", |weight| weight.number(1..=MAX_WEIGHT));
    let upstream_calls_per_day = tenant.maybe("upstream_calls_per_day", |calls| calls.number(0..=MAX_CALLS));
    let upstream_calls_per_month = tenant.maybe("upstream_calls_per_month", |calls| calls.number(0..=MAX_CALLS));
    let budget_per_month = tenant.maybe("budget_per_month", |rupiah| rupiah.number(0..=MAX_CALLS));
    let modes = QuotaMode::ALL.map(|mode| (mode.as_str(), mode));
    let quota_mode = tenant.get("quota_mode", |mode| mode.one_of(&modes));
    // The default burst is the number of requests of one second.
    let burst = burst.or(requests_per_second);
    if let Some(burst) = burst {
        tenant.show("burst", burst);
    }
    let max_in_flight = max_in_flight.map_or(default_in_flight, |count| count as usize);
    tenant.show("max_in_flight", i64::try_from(max_in_flight).unwrap_or(i64::MAX));
    Some(TenantLimits {
        requests_per_second,
        burst,
        max_in_flight,
        weight: weight?,
        upstream_calls_per_day,
        upstream_calls_per_month,
        budget_per_month,
        quota_mode: quota_mode?,
    })
}

fn known_account(entry: &Entry<'_>, accounts: &BTreeSet<AccountName>) -> Option<AccountName> {
    let name = entry.parsed::<AccountName>()?;
    if !accounts.contains(&name) {
        let known: Vec<&str> = accounts.iter().map(AccountName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        entry.fault(format!("no such account \"{name}\"; known: {known}"));
        return None;
    }
    Some(name)
}

/// Reads one value, or a list of 1 to `most` values.
fn one_or_more<'r, T>(entry: &Entry<'r>, most: usize, mut read: impl FnMut(&Entry<'r>) -> Option<T>) -> Option<Vec<T>> {
    if entry.is_list() { entry.each(1..=most, read) } else { Some(vec![read(entry)?]) }
}

/// Reads a secret in the format of Standard Webhooks.
fn webhook_secret(entry: &Entry<'_>) -> Option<SecretString> {
    let secret = entry.token("")?;
    if entry.skips_secrets() {
        return Some(secret);
    }
    let key = secret.expose_secret().strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    if !key.is_some_and(|key| WEBHOOK_KEY.contains(&Zeroizing::new(key).len())) {
        entry.fault(format!(
            "the secret must be whsec_ and the base64 of {} to {} bytes",
            WEBHOOK_KEY.start(),
            WEBHOOK_KEY.end()
        ));
        return None;
    }
    Some(secret)
}

/// Reads a host, and returns it in its normal form. Hosts of URLs are compared in this form.
fn host(entry: &Entry<'_>) -> Option<String> {
    let Some(host) = callback_url::normal_host(entry.text()?) else {
        entry.fault("must be a host name or an IP address, without scheme and port");
        return None;
    };
    if callback_url::permitted_host(&host).is_err() {
        entry.fault(NO_CALLBACKS);
        return None;
    }
    Some(host)
}

fn callback_urls(urls: &Section<'_>, hosts: Option<&[String]>) -> BTreeMap<CallbackType, http::Uri> {
    let mut read = BTreeMap::new();
    for (name, entry) in urls.named() {
        let kind = name.parse::<CallbackType>();
        if let Err(unknown) = &kind {
            let known = CallbackType::ALL.map(CallbackType::as_str).join(", ");
            entry.fault(format!("{unknown}; the types are {known}"));
        }
        let Some(url) = entry.url(&["http", "https"], UrlParts::Query) else { continue };
        entry.show(without_query(&url));
        let url = match CallbackUrl::parse(&url.to_string()) {
            Ok(url) => url,
            Err(UrlError::Address) => {
                entry.fault(NO_CALLBACKS);
                continue;
            }
            Err(error @ (UrlError::Shape | UrlError::Host)) => {
                entry.fault(error.to_string());
                continue;
            }
        };
        if hosts.is_some_and(|hosts| !hosts.iter().any(|host| host == url.host())) {
            entry.fault("its host is not in callback_hosts");
        }
        if let Ok(kind) = kind {
            read.insert(kind, url.into_uri());
        }
    }
    read
}

/// Returns the text of a URL, with `(set)` in place of its query. The query may contain a team's token.
fn without_query(url: &http::Uri) -> String {
    let text = url.to_string();
    match text.split_once('?') {
        Some((before, _)) => format!("{before}?(set)"),
        None => text,
    }
}

fn named<N: FromStr>(name: &str, section: &Section<'_>) -> Option<N>
where
    N::Err: std::fmt::Display,
{
    name.parse().map_err(|error: N::Err| section.fault(error.to_string())).ok()
}

/// The text of the fault about a forbidden callback address. Cloud metadata services return credentials at some of
/// these addresses.
const NO_CALLBACKS: &str = "callbacks are never sent to link-local, multicast, unspecified or cloud metadata addresses";
/// The largest number of tenants, whose names are label values of metrics.
const MAX_TENANTS: usize = 1000;
/// The largest number of accounts, each of which has its own limits and metrics.
const MAX_ACCOUNTS: usize = 100;
/// The largest number of a team's keys. During a rotation a team has two, and some teams have one key for each service.
const MAX_KEYS: usize = 32;
/// The largest number of an account's callback tokens. While a token is being replaced, an account has two.
const MAX_CALLBACK_TOKENS: usize = 4;
/// The largest number of a team's webhook secrets. While a secret is being replaced, a team has two.
const MAX_WEBHOOK_SECRETS: usize = 4;
/// The lengths in bytes that Standard Webhooks allows for a webhook secret.
const WEBHOOK_KEY: RangeInclusive<usize> = 24..=64;
/// The largest number of hosts to which a team's callbacks may be sent.
const MAX_HOSTS: usize = 64;
/// The bounds of a tenant's `max_age`. The longest is as long as the longest lifetime of a stored answer.
const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);
/// The largest quota of a day or month, in calls or rupiah; 0 lets a team use only the cache.
const MAX_CALLS: u64 = 1_000_000_000_000;
/// The largest weight. A team with a larger weight would take nearly the whole rate of its account.
const MAX_WEIGHT: u32 = 1000;
/// The largest `max_wait` of an account. No caller waits longer for an answer.
const MAX_WAIT: Duration = Duration::from_secs(60);
