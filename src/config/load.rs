//! Converts text to [`Settings`]: the operator's file, and `config/default.toml` for its missing keys.
//!
//! Invariants: all faults of a file are found at once; defaults are only in `config/default.toml`, which is compiled
//! in.

use super::fault::{Fault, Faults};
use super::reader;
use super::reader::{Entry, Findings, Reader, Secrets, Section};
use super::settings::{
    Admin, Cache, Callbacks, Log, Otlp, OutboxBounds, Quotas, Retention, Role, Server, Settings, State, UnknownRoutes,
    Upstream,
};
use super::values::UrlParts;
use super::{effective, listener, redis, routes, teams, tls, warnings};
use crate::base::byte_size::ByteSize;
use crate::base::host_name;
use crate::base::keyring::EncryptionKey;
use crate::iluma::route_name::RouteName;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Table;

impl Settings {
    /// Reads a configuration file, with the secrets and certificates that it names.
    ///
    /// # Errors
    /// Returns all faults of the file: invalid TOML, unknown keys, missing keys and invalid values.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        Self::load_with(path, Secrets::Read)
    }

    /// Reads a configuration file alone, with placeholders for secrets and certificates. Such settings can be shown,
    /// but a gateway can't run with them.
    ///
    /// # Errors
    /// Returns all faults of the file, as [`Settings::load`] does, except faults of secrets and certificates.
    pub fn load_without_secrets(path: &Path) -> Result<Self, Faults> {
        Self::load_with(path, Secrets::Skipped)
    }

    fn load_with(path: &Path, secrets: Secrets) -> Result<Self, Faults> {
        let (path, text) = read_file(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let mut settings = Self::parse_with(&text, base, &|name| std::env::var(name).ok(), secrets)?;
        settings.files.insert(0, path);
        Ok(settings)
    }

    /// Reads a configuration from text. Relative file paths start at `base`; `env` looks up environment variables.
    ///
    /// # Errors
    /// Returns all faults of the text, as [`Settings::load`] does.
    pub fn parse(text: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        Self::parse_with(text, base, env, Secrets::Read)
    }

    fn parse_with(
        text: &str,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        secrets: Secrets,
    ) -> Result<Self, Faults> {
        let own = reader::parse(text)?;
        let (settings, Findings { faults, mut warnings, mut files, shown, .. }) = read(&own, base, env, secrets)?;
        match settings {
            Some(mut settings) if faults.is_empty() => {
                files.sort();
                files.dedup();
                settings.files = files;
                settings.effective = effective::table(&own, &reader::parse(DEFAULTS)?, shown);
                settings.hash = hash(text);
                let of_tls = |warning: &Fault| secrets == Secrets::Read || warning.key() != "admin.listen";
                warnings.extend(warnings::of(&settings).into_iter().filter(of_tls));
                warnings.sort();
                settings.warnings = warnings;
                Ok(settings)
            }
            _ => Err(Faults::new(faults)),
        }
    }
}

fn hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}

/// The text of `config/default.toml`: every key with its default, or with an example if it has no default.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

// The bounds here and in the other files are wide enough for every real need, and narrow enough to catch a wrong unit.
/// The largest configuration file. A configuration for a thousand tenants has about 500 KiB.
const MAX_FILE: ByteSize = ByteSize::mib(4);
/// The largest number of encryption keys. With a new key each year, they cover more years than any retention.
const MAX_ENCRYPTION_KEYS: usize = 16;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86400);
/// The bounds of a timeout; zero would end every request before it began.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=HOUR;
/// The bounds of a delivery's timeout. A delivery has a lease of one minute, in which its outcome must be stored too.
const CALLBACK_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30);
/// The bounds of a stored answer's lifetime. A bank account can be closed or renamed, so an answer is useful for a
/// month at most. With zero, no answer is stored.
const LIFETIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86400);
/// The bounds of `state.redis_timeout`. No network answers in less than a millisecond. Iluma's fastest answers take
/// less than a second, so it makes no sense to wait longer for Redis.
const REDIS_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);
/// The longest retention: data about persons is useless beyond the time that auditors require.
const RETENTION: Duration = Duration::from_secs(10 * 366 * 86400);
/// The longest contact in characters: longer than any channel's name or address.
const MAX_CONTACT: usize = 200;
/// The largest number of forwarded headers. Each of them makes requests bypass the cache, and nobody needs many.
const MAX_FORWARD_HEADERS: usize = 16;
/// The headers that the gateway sends on every request whose answer may be shared.
const CANONICAL_HEADERS: [&str; 6] =
    ["accept", "accept-encoding", "content-length", "content-type", "user-agent", "x-magic-reply"];
/// The highest price in rupiah. The price of a billion calls still fits into 64 bits.
const MAX_PRICE: u64 = 1_000_000_000;
/// The bounds of a watchlist answer's lifetime: watchlists change every day.
const WATCHLIST_LIFETIME: RangeInclusive<Duration> = Duration::ZERO..=DAY;

/// Reads a configuration file. Returns its absolute path and its text.
pub(super) fn read_file(path: &Path) -> Result<(PathBuf, String), Fault> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_FILE.bytes() + 1).read_to_string(&mut text));
    if let Err(error) = read {
        return Err(Fault::new("", format!("cannot read {}: {error}", path.display())));
    }
    if text.len() > MAX_FILE.to_usize() {
        return Err(Fault::new("", format!("{} is larger than {MAX_FILE}", path.display())));
    }
    Ok((path, text))
}

/// Reads all sections. The settings are `None` only if the findings have a fault.
fn read(
    own: &Table,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<(Option<Settings>, Findings), Fault> {
    let defaults = reader::parse(DEFAULTS)?;
    let reader = Reader::new(base, env).with(secrets);
    let settings = settings(&reader.root(own, &defaults));
    Ok((settings, reader.finish(own)))
}

// These functions read every key before the first `?`, so that a fault hides no other.

fn settings(root: &Section<'_>) -> Option<Settings> {
    let server = server(&root.section("server"));
    let callbacks = callbacks(&root.section("callbacks"));
    let admin = admin(&root.section("admin"));
    let status = root.maybe("status", |status| listener::read(&status.table()?));
    let max_auth_failures = root.section("auth").get("max_failures", Entry::count).and_then(NonZeroU32::new);
    let contact = root.section("help").maybe("contact", contact);
    let log = log(&root.section("log"));
    let otlp = otlp(&root.section("telemetry").section("otlp"));
    let upstream = upstream(&root.section("upstream"));
    let node = node(&root.section("node"));
    let state = state(&root.section("state"));
    let cache = cache(&root.section("cache"));
    let quotas = quotas(&root.section("quotas"));
    let prices = prices(&root.section("prices"));
    let (account_names, accounts) = teams::accounts(&root.section("accounts"));
    let tenants = teams::tenants(&root.section("tenants"), &account_names, server.as_ref());
    let routes = root.maybe("routes", routes::custom).unwrap_or_default();
    let (server, callbacks, admin) = (server?, callbacks?, admin?);
    let mut listeners = vec![
        ("server", server.listener.listen),
        ("callbacks", callbacks.listener.listen),
        ("admin", admin.listener.listen),
    ];
    listeners.extend(status.iter().map(|status| ("status", status.listen)));
    listener::distinct(root, &listeners);
    Some(Settings {
        server,
        callbacks,
        admin,
        status,
        max_auth_failures: max_auth_failures?,
        contact,
        log: log?,
        otlp: otlp?,
        upstream: upstream?,
        node: node?,
        state: state?,
        cache: cache?,
        quotas: quotas?,
        prices,
        accounts,
        tenants,
        routes,
        effective: Table::new(),
        hash: String::new(),
        files: Vec::new(),
        warnings: Vec::new(),
    })
}

fn server(server: &Section<'_>) -> Option<Server> {
    let listener = listener::read(server);
    let max_connections = server.get("max_connections", Entry::count);
    let max_in_flight = server.get("max_in_flight", Entry::count);
    // A tenant may have half of this, which must be enough for at least one body.
    let max_buffered = server.get("max_buffered", |size| size.size(ByteSize::mib(2)..=ByteSize::mib(1 << 20)));
    let header_timeout = server.get("header_timeout", |time| time.duration(TIMEOUT));
    let keep_alive_timeout = server.get("keep_alive_timeout", |time| time.duration(TIMEOUT));
    // hyper's smallest buffer is 8 KiB.
    let max_header_bytes = server.get("max_header_bytes", |size| size.size(ByteSize::kib(8)..=ByteSize::mib(1)));
    let max_headers = server.get("max_headers", |count| count.number(1..=1000_u32));
    let drain_timeout = server.get("drain_timeout", |time| time.duration(Duration::ZERO..=HOUR));
    Some(Server {
        listener: listener?,
        max_connections: max_connections? as usize,
        max_in_flight: max_in_flight? as usize,
        max_buffered: max_buffered?,
        header_timeout: header_timeout?,
        keep_alive_timeout: keep_alive_timeout?,
        max_header_bytes: max_header_bytes?,
        max_headers: max_headers? as usize,
        drain_timeout: drain_timeout?,
    })
}

fn callbacks(callbacks: &Section<'_>) -> Option<Callbacks> {
    let listener = listener::read(callbacks);
    let allow = callbacks.maybe("allow", listener::networks);
    let public_url = callbacks.maybe("public_url", |url| url.url(&["http", "https"], UrlParts::Path));
    let retry = callbacks.get("retry", |list| list.each(1..=20, |wait| wait.duration(Duration::ZERO..=7 * DAY)));
    let extra_ca = callbacks.maybe("extra_ca", tls::trusted).unwrap_or_default();
    let timeout = callbacks.get("timeout", |time| time.duration(CALLBACK_TIMEOUT));
    let deliveries = callbacks.get("max_queued", |count| count.number(1..=100_000_000));
    let bytes = callbacks.get("max_queued_bytes", |size| size.size(ByteSize::mib(2)..=ByteSize::mib(1 << 20)));
    let outbox = OutboxBounds { deliveries: deliveries?, bytes: bytes? };
    Some(Callbacks { listener: listener?, allow, public_url, retry: retry?, timeout: timeout?, outbox, extra_ca })
}

fn admin(admin: &Section<'_>) -> Option<Admin> {
    let listener = listener::read(admin);
    let token = admin.maybe("token", Entry::admin_token);
    let mut tokens = admin_tokens(&admin.section("tokens"));
    if let Some(token) = &token {
        if tokens.contains_key(MAIN_TOKEN) {
            admin.fault_at("token", "is the token admin too: leave one of both out");
        } else if is_taken(&tokens, token) {
            admin.fault_at("token", SAME_SECRET);
        }
        tokens.insert(MAIN_TOKEN.to_owned(), (token.clone(), Role::Admin));
    }
    Some(Admin { listener: listener?, token, tokens })
}

/// The name that the token of the key `admin.token` has in the list of tokens.
const MAIN_TOKEN: &str = "admin";
/// The largest number of admin tokens: one for each person and program that gives orders.
const MAX_ADMIN_TOKENS: usize = 100;

fn admin_tokens(section: &Section<'_>) -> BTreeMap<String, (SecretString, Role)> {
    let members = section.members();
    if members.len() > MAX_ADMIN_TOKENS {
        section.fault(format!("there must be at most {MAX_ADMIN_TOKENS} tokens"));
    }
    let roles = Role::ALL.map(|role| (role.as_str(), role));
    let mut tokens = BTreeMap::new();
    for (name, token) in members {
        if name.is_empty() || name.len() > 32 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            token.fault("a token's name is 1 to 32 characters of a-z, A-Z, 0-9, -, _ and .");
        }
        let missing = "missing; give { env = \"NAME\" } or { file = \"PATH\" }";
        let secret = token.must("token", missing, Entry::admin_token);
        let role =
            token.must("role", "missing; give \"viewer\", \"operator\" or \"admin\"", |role| role.one_of(&roles));
        if let (Some(secret), Some(role)) = (secret, role) {
            if is_taken(&tokens, &secret) {
                token.fault_at("token", SAME_SECRET);
            }
            tokens.insert(name, (secret, role));
        }
    }
    tokens
}

const SAME_SECRET: &str = "another token has the same secret: its entries in the audit log could not be told apart";

/// Returns true if one of the tokens has this secret.
fn is_taken(tokens: &BTreeMap<String, (SecretString, Role)>, secret: &SecretString) -> bool {
    tokens.values().any(|(other, _)| other.expose_secret() == secret.expose_secret())
}

fn log(log: &Section<'_>) -> Option<Log> {
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    Some(Log { level: log.get("level", |level| level.one_of(&levels))? })
}

fn otlp(otlp: &Section<'_>) -> Option<Option<Otlp>> {
    let endpoint = otlp.maybe("endpoint", |url| url.url(&["http", "https"], UrlParts::Path));
    let sample = otlp.get("sample", Entry::share);
    let extra_ca = otlp.maybe("extra_ca", tls::trusted).unwrap_or_default();
    let sample = sample?;
    Some(endpoint.map(|endpoint| Otlp { endpoint, sample, extra_ca }))
}

fn upstream(upstream: &Section<'_>) -> Option<Upstream> {
    let base_url = upstream.get("base_url", |url| url.url(&["http", "https"], UrlParts::Authority));
    let extra_ca = upstream.maybe("extra_ca", tls::trusted).unwrap_or_default();
    let proxy = upstream.maybe("proxy", |url| url.url(&["http"], UrlParts::Authority));
    let connect_timeout = upstream.get("connect_timeout", |time| time.duration(TIMEOUT));
    let timeout = upstream.get("timeout", |time| time.duration(TIMEOUT));
    let idle_timeout = upstream.get("idle_timeout", |time| time.duration(TIMEOUT));
    let pool_idle_timeout = upstream.get("pool_idle_timeout", |time| time.duration(TIMEOUT));
    let words = [("post", UnknownRoutes::Post), ("forward", UnknownRoutes::Forward), ("deny", UnknownRoutes::Deny)];
    let unknown_routes = upstream.get("unknown_routes", |word| word.one_of(&words));
    let forward_headers = upstream.get("forward_headers", |list| list.each(0..=MAX_FORWARD_HEADERS, forwarded_header));
    Some(Upstream {
        base_url: base_url?,
        extra_ca,
        proxy,
        connect_timeout: connect_timeout?,
        timeout: timeout?,
        idle_timeout: idle_timeout?,
        pool_idle_timeout: pool_idle_timeout?,
        unknown_routes: unknown_routes?,
        forward_headers: forward_headers?,
    })
}

/// Reads the contact: a line of text that a message can quote.
fn contact(entry: &Entry<'_>) -> Option<String> {
    let text = entry.text()?.trim();
    if text.is_empty() || text.chars().count() > MAX_CONTACT || text.chars().any(char::is_control) {
        entry.fault("must be one line of 1 to 200 characters, such as \"#kyc-platform on Slack\"");
        return None;
    }
    Some(text.to_owned())
}

/// Reads the name of a header that is sent in addition to [`CANONICAL_HEADERS`].
fn forwarded_header(entry: &Entry<'_>) -> Option<http::HeaderName> {
    let text = entry.text()?;
    let name = http::HeaderName::from_bytes(text.as_bytes()).ok().filter(|name| !name.as_str().contains('_'));
    let Some(name) = name else {
        entry.fault("must be the name of a header, such as \"x-feature\", without _");
        return None;
    };
    let is_sent = CANONICAL_HEADERS.contains(&name.as_str());
    if is_sent || ["authorization", "cookie", "host", "connection", "transfer-encoding"].contains(&name.as_str()) {
        entry.fault("the gateway sets this header itself, or never forwards it");
        return None;
    }
    Some(name)
}

fn node(node: &Section<'_>) -> Option<String> {
    let Some(entry) = node.entry("name") else {
        let name = host_name::host_name();
        node.show("name", name.clone());
        return Some(name);
    };
    let name = entry.text()?;
    if (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Some(name.to_owned());
    }
    entry.fault("must be 1 to 64 characters of a-z, A-Z, 0-9, -, _ and ., such as \"gateway-1\"");
    None
}

fn state(state: &Section<'_>) -> Option<State> {
    let path = state.get("path", Entry::path_of_file);
    let missing = "missing; give { env = \"NAME\" } or { file = \"PATH\" } with 64 hex digits \
                   (iluma-gateway keygen --secret makes them)";
    let root_key = state.must("root_key", missing, Entry::key);
    let missing = "missing; give at least one { id = \"2026-11\", key = { env = \"NAME\" } } with 64 hex digits \
                   (iluma-gateway keygen --secret makes them)";
    let encryption_keys = state.must("encryption_keys", missing, encryption_keys);
    let redis = state.maybe("redis", |redis| redis::read(&redis.table()?));
    let redis_timeout = state.get("redis_timeout", |time| time.duration(REDIS_TIMEOUT));
    let disk_reserve = state.get("disk_reserve", |size| size.size(ByteSize::kib(0)..=ByteSize::mib(1 << 40)));
    let retention = retention(&state.section("retention"));
    if let (Some(root), Some(keys)) = (&root_key, &encryption_keys)
        && let Some(same) = keys.iter().find(|key| key.key.expose_secret() == root.expose_secret())
    {
        let problem =
            format!("the key {:?} is the root key too: make one of its own (iluma-gateway keygen --secret)", same.id);
        state.fault_at("encryption_keys", problem);
    }
    Some(State {
        path: path?,
        root_key: root_key?,
        encryption_keys: encryption_keys?,
        redis,
        redis_timeout: redis_timeout?,
        disk_reserve: disk_reserve?,
        retention: retention?,
    })
}

fn retention(retention: &Section<'_>) -> Option<Retention> {
    let owners = retention.get("owners", |time| time.duration(DAY..=RETENTION));
    let delivered_callbacks = retention.get("delivered_callbacks", |time| time.duration(HOUR..=RETENTION));
    let dead_letters = retention.get("dead_letters", |time| time.duration(HOUR..=RETENTION));
    // The ledger has to outlive the current and the previous month.
    let ledger = retention.get("ledger", |time| time.duration(62 * DAY..=RETENTION));
    Some(Retention {
        owners: owners?,
        delivered_callbacks: delivered_callbacks?,
        dead_letters: dead_letters?,
        ledger: ledger?,
    })
}

fn encryption_keys(list: &Entry<'_>) -> Option<Vec<EncryptionKey>> {
    let mut ids = BTreeSet::new();
    list.each(1..=MAX_ENCRYPTION_KEYS, |entry| {
        let table = entry.table()?;
        let id = table.must("id", "missing; give a name for the key, such as \"2026-11\"", |id| {
            let text = id.text()?;
            let fits = (1..=32).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !fits {
                id.fault("must be 1 to 32 characters of a-z, A-Z, 0-9, -, _ and .");
                return None;
            }
            if !ids.insert(text) {
                id.fault("is given twice; an id names one key");
                return None;
            }
            Some(text.to_owned())
        });
        let key = table.must("key", "missing; give { env = \"NAME\" } or { file = \"PATH\" }", Entry::key);
        Some(EncryptionKey { id: id?, key: key? })
    })
}

fn cache(cache: &Section<'_>) -> Option<Cache> {
    let memory = cache.get("memory", |size| size.size(ByteSize::kib(0)..=ByteSize::mib(1 << 20)));
    let disk = cache.get("disk", |size| size.size(ByteSize::kib(0)..=ByteSize::mib(1 << 20)));
    let bank = cache.section("bank");
    let bank_found = bank.get("found", |time| time.duration(LIFETIME));
    let bank_need_review = bank.get("need_review", |time| time.duration(LIFETIME));
    // A marked answer never lives longer than other answers for an existing account.
    let bank_need_review = bank_need_review.zip(bank_found).map(|(review, found)| {
        if review > found {
            bank.show("need_review", humantime::format_duration(found).to_string());
        }
        review.min(found)
    });
    let bank_not_found = bank.get("not_found", |time| time.duration(LIFETIME));
    let bank_stale_if_error = bank.get("stale_if_error", |time| time.duration(LIFETIME));
    let cft = cache.section("cft");
    let cft_clear = cft.get("clear", |time| time.duration(WATCHLIST_LIFETIME));
    let cft_match = cft.get("match", |time| time.duration(WATCHLIST_LIFETIME));
    cft.refuse(
        "stale_if_error",
        "a watchlist answer is never served past its lifetime, not even while Iluma fails: leave it out",
    );
    let bank_codes = cache.get("bank_codes", |time| time.duration(LIFETIME));
    Some(Cache {
        memory: memory?,
        disk: disk?,
        bank_found: bank_found?,
        bank_need_review: bank_need_review?,
        bank_not_found: bank_not_found?,
        bank_stale_if_error: bank_stale_if_error?,
        cft_clear: cft_clear?,
        cft_match: cft_match?,
        bank_codes: bank_codes?,
    })
}

fn quotas(quotas: &Section<'_>) -> Option<Quotas> {
    Some(Quotas { calendar: quotas.get("time_zone", Entry::parsed)? })
}

/// Reads the prices. Reports a fault for each name that is not a charged route.
fn prices(prices: &Section<'_>) -> BTreeMap<RouteName, u64> {
    let mut read = BTreeMap::new();
    for (name, entry) in prices.named() {
        match routes::priced(&name) {
            Ok(route) => read.extend(entry.number(0..=MAX_PRICE).map(|price| (route, price))),
            Err(problem) => entry.fault(problem),
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iluma::routes::CustomRoute;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    /// The text that marks the secrets from [`env`]. No fault may contain it.
    const MARK: &str = "5ec5e7";

    fn env(name: &str) -> Option<String> {
        Some(match name {
            "EMPTY" => String::new(),
            "SHORT" => "5ec5e7".to_owned(),
            "COLON" => "5ec5e7-with:colon".to_owned(),
            "SPACE" => "5ec5e7 with space".to_owned(),
            "QUOTE" => "5ec5e7-with\"quote".to_owned(),
            "LATIN" => "5ec5e7-with-é".to_owned(),
            "LONG" => "5ec5e7".repeat(100),
            "KEY" | "ILUMA_GATEWAY_KEY_2026_11" | "ILUMA_DEMO_ENCRYPTION_KEY" => format!("{MARK:0<64}"),
            "ROOT" | "ILUMA_GATEWAY_ROOT_KEY" | "ILUMA_DEMO_ROOT_KEY" => format!("{MARK:1<64}"),
            "TEAM_KEY" => format!("igw_lending_{MARK}"),
            "ILUMA_GATEWAY_REDIS_URL" | "ILUMA_GATEWAY_REDIS_CACHE_URL" => {
                format!("rediss://iluma:{MARK}@redis.internal/0")
            }
            "LENDING_CALLBACK_TOKEN" => format!("{MARK}-token"),
            "LENDING_WEBHOOK_SECRET" => format!("whsec_{MARK:0<32}"),
            "WHSEC_SHORT" => format!("whsec_{MARK:0<28}"),
            "KEY63" => format!("{MARK:0<63}"),
            "KEYX" => format!("{MARK:x<64}"),
            "ILUMA_LIVE_KEY" => format!("iluma_live_{MARK}"),
            "ILUMA_DEVELOPMENT_KEY" => format!("iluma_development_{MARK}"),
            _ if name.starts_with("ILUMA_") || name == "TOKEN" => format!("{MARK}-{}", name.to_lowercase()),
            _ => return None,
        })
    }

    fn parse(text: &str) -> Result<Settings, Faults> {
        Settings::parse(text, Path::new("/nowhere"), &env)
    }

    fn parse_in(folder: &Path, text: &str) -> Result<Settings, Faults> {
        Settings::parse(text, folder, &env)
    }

    /// The required keys, except `[state]`: one account, no tenant.
    const ACCOUNT: &str = "[accounts.live]\napi_key = { env = \"TOKEN\" }\n";
    const STATE: &str =
        "[state]\nroot_key = { env = \"ROOT\" }\nencryption_keys = [{ id = \"a\", key = { env = \"KEY\" } }]\n";

    fn with(text: &str) -> String {
        format!("{text}\n{STATE}{ACCOUNT}")
    }

    fn lending(keys: &str) -> String {
        let hash = "ab".repeat(32);
        with(&format!("[tenants.lending]\naccount = \"live\"\nkey_sha256 = [\"{hash}\"]\n{keys}"))
    }

    /// Writes `cert.pem`, `key.pem`, `other-key.pem`, and the files named in the defaults' examples.
    fn folder_with_certificates() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for name in [
            "cert.pem",
            "teams-ca.pem",
            "iluma-ca.pem",
            "ops-ca.pem",
            "proxy-ca.pem",
            "redis-ca.pem",
            "internal-ca.pem",
        ] {
            write(name, &made.cert.pem());
        }
        write("key.pem", &made.signing_key.serialize_pem());
        write("other-key.pem", &other.signing_key.serialize_pem());
        folder
    }

    /// Returns the defaults with all their examples uncommented.
    fn every_key() -> String {
        let example = |rest: &str| {
            let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| word(key))
        };
        let lines = DEFAULTS.lines().map(|line| line.strip_prefix("# ").filter(|rest| example(rest)).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Collects every key of a table in the reader's notation; a secret has no keys of its own.
    fn keys(path: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) if !table.contains_key("env") => {
                for (key, value) in table {
                    let named =
                        matches!(path, "admin.tokens" | "accounts" | "tenants" | "prices" | "tenants.*.callback_urls");
                    let key = if named { "*" } else { key };
                    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    keys(&path, value, found);
                    found.insert(path);
                }
            }
            toml::Value::Array(list) => list.iter().filter(|item| item.is_table()).for_each(|item| {
                keys(&format!("{path}[]"), item, found);
            }),
            _ => {}
        }
    }

    #[test]
    fn the_file_of_defaults_has_every_key_that_is_read_and_no_other() {
        let folder = folder_with_certificates();
        let mut own = reader::parse(&every_key()).unwrap();
        let mut written = BTreeSet::new();
        keys("", &toml::Value::Table(own.clone()), &mut written);
        // The operator's file has names in place of the defaults' "*".
        for named in ["accounts", "tenants"] {
            let defaults = own[named].as_table_mut().unwrap().remove("*").unwrap();
            for (_, member) in own[named].as_table_mut().unwrap() {
                for (key, value) in defaults.as_table().unwrap() {
                    member.as_table_mut().unwrap().insert(key.clone(), value.clone());
                }
            }
        }
        // The forms of a Redis are alternatives: each is valid without the others, and together they have every key.
        let mut asked = BTreeSet::new();
        for form in ["url", "sentinel", "cluster"] {
            let mut own = own.clone();
            let redis = own["state"]["redis"].as_table_mut().unwrap();
            redis.remove(if form == "url" { "cache" } else { "cache_url" });
            leave(redis, form);
            if let Some(cache) = redis.get_mut("cache") {
                leave(cache.as_table_mut().unwrap(), form);
            }
            let (settings, findings) = read(&own, folder.path(), &env, Secrets::Read).unwrap();
            assert_eq!(findings.faults, [], "{form}");
            assert!(settings.is_some(), "{form}");
            asked.extend(findings.asked);
        }
        assert_eq!(Vec::from_iter(asked), Vec::from_iter(written));
    }

    /// Leaves only the keys of one form in the table of a Redis.
    fn leave(redis: &mut Table, form: &str) {
        let others: &[&str] = match form {
            "url" => &["sentinel", "cluster", "username", "password", "tls", "database"],
            "sentinel" => &["url", "cluster"],
            _ => &["url", "sentinel", "database"],
        };
        others.iter().for_each(|key| drop(redis.remove(*key)));
    }

    #[test]
    fn without_a_file_only_what_has_no_default_is_missing() {
        let faults = parse("").unwrap_err();
        assert_eq!(
            faults.iter().map(Fault::key).collect::<Vec<_>>(),
            ["accounts", "state.encryption_keys", "state.root_key"]
        );
    }

    #[test]
    fn defaults_are_what_operators_rely_on() {
        let settings = parse(&lending("requests_per_second = 20")).unwrap();
        assert_eq!(settings.server.listener.listen, "127.0.0.1:8080".parse().unwrap());
        assert!(settings.server.listener.tls.is_none());
        assert_eq!(settings.server.max_connections, 10_000);
        assert_eq!(settings.server.max_in_flight, 4096);
        assert_eq!(settings.server.max_buffered, ByteSize::mib(256));
        assert_eq!(settings.server.header_timeout, Duration::from_secs(30));
        assert_eq!(settings.server.keep_alive_timeout, Duration::from_secs(75));
        assert_eq!(settings.server.max_header_bytes, ByteSize::kib(32));
        assert_eq!(settings.server.max_headers, 100);
        assert_eq!(settings.server.drain_timeout, Duration::from_secs(30));
        assert_eq!(settings.callbacks.listener.listen, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(
            settings.callbacks.retry,
            [5, 30, 120, 600, 3600, 10800, 28800, 43200, 43200, 43200, 43200, 43200].map(Duration::from_secs)
        );
        assert_eq!(settings.admin.listener.listen, "127.0.0.1:9090".parse().unwrap());
        assert!(settings.admin.token.is_none());
        assert_eq!(settings.log.level, tracing::Level::INFO);
        assert_eq!(settings.upstream.base_url, "https://api.iluma.ai/");
        assert_eq!(settings.upstream.connect_timeout, Duration::from_secs(3));
        assert_eq!(settings.upstream.timeout, Duration::from_secs(30));
        assert_eq!(settings.upstream.idle_timeout, Duration::from_secs(30));
        assert_eq!(settings.upstream.pool_idle_timeout, Duration::from_secs(30));
        assert_eq!(settings.upstream.unknown_routes, UnknownRoutes::Post);
        assert_eq!(settings.state.path, Path::new("/nowhere/iluma-gateway.db"));
        assert_eq!(settings.cache.memory, ByteSize::mib(256));
        assert_eq!(settings.cache.bank_found, 7 * DAY);
        assert_eq!(settings.cache.bank_not_found, HOUR);
        assert_eq!(settings.cache.bank_stale_if_error, Duration::ZERO);
        assert_eq!(settings.state.redis_timeout, Duration::from_millis(50));
        assert_eq!([settings.cache.cft_clear, settings.cache.cft_match, settings.cache.bank_codes], [HOUR; 3]);
        let account = &settings.accounts[&"live".parse().unwrap()];
        assert_eq!(account.max_wait, Duration::from_secs(2));
        assert!(account.prefix_references && account.requests_per_second.is_none());
        let tenant = &settings.tenants[&"lending".parse().unwrap()];
        assert_eq!((tenant.limits.weight, tenant.share_cache, tenant.owns_unprefixed), (1, true, false));
        assert_eq!(tenant.limits.rate(), Some((20, 20)));
        assert_eq!(tenant.limits.max_in_flight, 2048, "half of all places");
        assert_eq!(tenant.routes.len(), RouteName::COUNT - 1);
        assert!(!tenant.routes.contains(&RouteName::Forbidden));
    }

    /// A whole configuration.
    const EXAMPLE: &str = r#"
[server]
listen = "127.0.0.1:8080"
[callbacks]
listen = "127.0.0.1:8081"
public_url = "https://kyc-callbacks.example.com"
retry = ["5s", "30s", "2m", "10m", "1h", "3h", "6h", "12h"]
[admin]
listen = "127.0.0.1:9090"
token = { env = "ILUMA_GATEWAY_ADMIN_TOKEN" }
[log]
level = "info"
[upstream]
base_url = "https://api.iluma.ai"
proxy = "http://egress.internal:3128"
connect_timeout = "3s"
timeout = "30s"
idle_timeout = "30s"
unknown_routes = "post"
[state]
path = "iluma-gateway.db"
root_key = { env = "ILUMA_GATEWAY_ROOT_KEY" }
encryption_keys = [{ id = "2026-11", key = { env = "ILUMA_GATEWAY_KEY_2026_11" } }]
[cache]
memory = "256MiB"
bank = { found = "7d", not_found = "1h", stale_if_error = "0s" }
cft = { clear = "1h", match = "1h" }
bank_codes = "1h"
[accounts.live]
api_key = { env = "ILUMA_LIVE_API_KEY" }
callback_token = { env = "ILUMA_LIVE_CALLBACK_TOKEN" }
requests_per_second = 50
max_wait = "2s"
prefix_references = true
[tenants.lending]
account = "live"
key_sha256 = ["00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"]
requests_per_second = 20
burst = 40
max_in_flight = 200
weight = 1
upstream_calls_per_day = 10000
upstream_calls_per_month = 200000
budget_per_month = 150000000
routes = ["bank", "cft"]
share_cache = true
owns_unprefixed = false
callback_hosts = ["lending.internal"]
callback_urls = { NAME_VALIDATOR_REQUEST = "https://lending.internal/kyc" }
[[routes]]
method = "POST"
path = "/v3/identity/bank_checks"
like = "bank"
"#;

    #[test]
    fn a_whole_configuration_loads() {
        let settings = parse(EXAMPLE).unwrap();
        assert_eq!(settings.upstream.proxy.unwrap(), "http://egress.internal:3128/");
        let tenant = &settings.tenants[&"lending".parse().unwrap()];
        use RouteName::{Bank, BankCodes, BankGet, CallbackToken, CallbackUrls, Cft, Gateway, Health};
        assert!(tenant.routes.iter().eq(&[
            Bank,
            BankGet,
            Cft,
            BankCodes,
            CallbackUrls,
            CallbackToken,
            Health,
            Gateway
        ]));
        assert_eq!(tenant.key_sha256[0].sha256[15..17], [0xff, 0x00]);
        let (path, like) = ("/v3/identity/bank_checks".to_owned(), Bank);
        assert_eq!(settings.routes, [CustomRoute { method: http::Method::POST, path, like }]);
    }

    #[test]
    fn the_example_and_the_demo_load() {
        let settings = parse(include_str!("../../config/example.toml")).unwrap();
        assert_eq!((settings.accounts.len(), settings.tenants.len()), (2, 3));
        let demo = include_str!("../../config/demo.toml")
            .replace("{upstream}", "127.0.0.1:9")
            .replace("{lending_sha256}", &"1".repeat(64))
            .replace("{payments_sha256}", &"2".repeat(64));
        let settings = parse(&demo).unwrap();
        assert_eq!((settings.accounts.len(), settings.tenants.len()), (1, 2));
        assert_eq!(settings.upstream.base_url, "http://127.0.0.1:9/");
    }

    const HASH: &str = "abababababababababababababababababababababababababababababababab";
    const OTHER_HASH: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
    const SECRET: &str = "{ env = \"NAME\" } or { file = \"PATH\" }";

    fn account_with(keys: &str) -> String {
        format!("{STATE}[accounts.live]\n{keys}")
    }

    fn with_api_key(value: &str) -> String {
        account_with(&format!("api_key = {value}"))
    }

    fn with_tenant(keys: &str) -> String {
        with(&format!("[tenants.lending]\n{keys}"))
    }

    fn with_route(keys: &str) -> String {
        with(&format!("[[routes]]\nmethod = \"POST\"\npath = \"/v*/a/:id\"\nlike = \"bank\"\n{keys}"))
    }

    /// Asserts that each text has the given fault, with its key path and without the invalid value.
    fn each_is_told<const N: usize>(cases: [(String, &str); N]) {
        for (text, fault) in cases {
            match parse(&text) {
                Ok(_) => panic!("no fault, but expected: {fault}\n{text}"),
                Err(faults) => {
                    let told = faults.to_string();
                    assert!(told.lines().any(|line| line == fault), "expected: {fault}\ntold:     {told}\n{text}");
                    // One mistake is one fault; a missing account or key is one more.
                    assert!(faults.iter().count() <= 2, "{told}\n{text}");
                    assert!(!told.contains(MARK), "{told}");
                }
            }
        }
    }

    #[test]
    fn a_fault_of_shape_is_told() {
        each_is_told([
            (
                with("[quotas]\ntime_zone = \"Jakarta\""),
                "quotas.time_zone: no such time zone; give a name of the IANA database, such as \"Asia/Jakarta\" or \"UTC\"",
            ),
            (with("[prices]\nbank = -1"), "prices.bank: must be a whole number from 0 to 1000000000"),
            (
                with("[prices]\nbank_get = 1"),
                "prices.bank_get: no row with a price; known: bank, cft, ktp, npwp, phone, drawdown, face, id_card, ocr, document, capture, other",
            ),
            (lending("quota_mode = \"off\""), "tenants.lending.quota_mode: must be one of \"enforce\", \"shadow\""),
            (
                with("colour = 1"),
                "colour: unknown key; known here: accounts, admin, auth, cache, callbacks, help, log, node, prices, quotas, routes, server, state, status, telemetry, tenants, upstream",
            ),
            (with("[servers]"), "servers: unknown key; did you mean \"server\"?"),
            (with("[server]\nlisen = \"5ec5e7\""), "server.lisen: unknown key; did you mean \"listen\"?"),
            (with("server = 1"), "server: must be a table, is a whole number"),
            (with("[server]\nlisten = 8080"), "server.listen: must be a string, is a whole number"),
            (
                with("[server]\nlisten = \"localhost\""),
                "server.listen: must be an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
            ),
            (with("[server]\nmax_in_flight = \"many\""), "server.max_in_flight: must be a whole number, is a string"),
            (with("[server]\nmax_buffered = \"1MiB\""), "server.max_buffered: must be from 2MiB to 1024GiB"),
            (with("[server]\nmax_in_flight = 0"), "server.max_in_flight: must be a whole number from 1 to 1000000"),
            (with("[server]\nmax_headers = -1"), "server.max_headers: must be a whole number from 1 to 1000"),
            (
                with("[server]\nmax_header_bytes = \"32KB\""),
                "server.max_header_bytes: a size is a whole number with a unit, such as \"256MiB\" (B, KiB, MiB, GiB)",
            ),
            (with("[server]\nmax_header_bytes = \"1KiB\""), "server.max_header_bytes: must be from 8KiB to 1MiB"),
            (with("[server]\nheader_timeout = 30"), "server.header_timeout: must be a string, is a whole number"),
            (
                with("[server]\nheader_timeout = \"30\""),
                "server.header_timeout: must be a time span with units, such as \"500ms\", \"30s\" or \"1h 30m\"",
            ),
            (with("[server]\nheader_timeout = \"0s\""), "server.header_timeout: must be from 1ms to 1h"),
            (with("[server]\ntls = \"cert.pem\""), "server.tls: must be a table, is a string"),
            (
                with("[admin]\nlisten = \"127.0.0.1:8080\""),
                "admin.listen: the same address as server.listen; give it another port",
            ),
            (
                with("[callbacks]\nlisten = \"0.0.0.0:8080\""),
                "callbacks.listen: the same address as server.listen; give it another port",
            ),
            (with("[callbacks]\nretry = []"), "callbacks.retry: must have 1 to 20 members, has 0"),
            (with("[callbacks]\nretry = [\"1s\", 2]"), "callbacks.retry[1]: must be a string, is a whole number"),
            (
                with("[callbacks]\npublic_url = \"kyc.example.com\""),
                "callbacks.public_url: must be a URL with a host, beginning with http:// or https://",
            ),
            (
                with("[callbacks]\npublic_url = \"https://kyc.example.com?a=b\""),
                "callbacks.public_url: must not have a query",
            ),
            (
                with("[log]\nlevel = \"loud\""),
                "log.level: must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_upstream_or_cache_is_told() {
        each_is_told([
            (
                with("[upstream]\nbase_url = \"ftp://api.iluma.ai\""),
                "upstream.base_url: must be a URL with a host, beginning with http:// or https://",
            ),
            (
                with("[upstream]\nbase_url = \"https://api.iluma.ai/v1\""),
                "upstream.base_url: must end after the host and port: no path, no query",
            ),
            (
                with("[upstream]\nbase_url = \"https://api.iluma.ai#a\""),
                "upstream.base_url: must be a URL of at most 2048 bytes, without #",
            ),
            (
                with("[upstream]\nbase_url = \"https://u:5ec5e7@api.iluma.ai\""),
                "upstream.base_url: must not have a user name or password in it",
            ),
            (
                with("[upstream]\nproxy = \"https://egress.internal\""),
                "upstream.proxy: must be a URL with a host, beginning with http://",
            ),
            (
                with("[upstream]\nproxy = \"http://u:5ec5e7@egress.internal\""),
                "upstream.proxy: must not have a user name or password in it",
            ),
            (
                with("[upstream]\nunknown_routes = \"get\""),
                "upstream.unknown_routes: must be one of \"post\", \"forward\", \"deny\"",
            ),
            (
                with("[upstream]\nextra_ca = \"none.pem\""),
                "upstream.extra_ca: cannot read /nowhere/none.pem: entity not found; a relative path starts at the configuration file's folder",
            ),
            (with("[cache]\nmemory = \"2048GiB\""), "cache.memory: must be from 0B to 1024GiB"),
            (with("[cache]\nbank = { found = \"31d\" }"), "cache.bank.found: must be from 0s to 30days"),
            (with("[cache]\ncft = { clear = \"25h\" }"), "cache.cft.clear: must be from 0s to 1day"),
            (
                with("[cache]\ncft = { stale_if_error = \"0s\" }"),
                "cache.cft.stale_if_error: a watchlist answer is never served past its lifetime, not even while Iluma fails: leave it out",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_a_secret_is_told() {
        each_is_told([
            (
                with("[admin]\ntoken = \"5ec5e7\""),
                &format!("admin.token: a secret must not stand in the file; give {SECRET}"),
            ),
            (
                with(
                    "[admin]\ntoken = { env = \"KEY\" }\ntokens.report = { token = { env = \"KEY\" }, role = \"viewer\" }",
                ),
                &format!("admin.token: {SAME_SECRET}"),
            ),
            (with("[admin]\ntoken = 1"), &format!("admin.token: must be a secret, {SECRET}")),
            (with("[admin]\ntoken = {}"), &format!("admin.token: must be exactly one of {SECRET}")),
            (
                with("[admin]\ntoken = { env = \"TOKEN\", file = \"token\" }"),
                &format!("admin.token: must be exactly one of {SECRET}"),
            ),
            (
                with("[admin]\ntoken = { env = \"TOKEN\", fil = \"a\" }"),
                "admin.token.fil: unknown key; did you mean \"file\"?",
            ),
            (with("[admin]\ntoken = { env = 5 }"), "admin.token.env: must be a string, is a whole number"),
            (
                with("[admin]\ntoken = { env = \"UNSET\" }"),
                "admin.token.env: the environment variable UNSET is not set",
            ),
            (
                with("[admin]\ntoken = { env = \"live_5ec5e7\" }"),
                "admin.token.env: the environment variable with this name is not set",
            ),
            (with("[admin]\ntoken = { env = \"EMPTY\" }"), "admin.token: the secret is empty"),
            (with("[admin]\ntoken = { env = \"SHORT\" }"), "admin.token: the secret must have 16 to 512 characters"),
            (
                with("[admin]\ntoken = { env = \"SPACE\" }"),
                "admin.token: the secret must be printable ASCII without space",
            ),
            (
                with("[admin]\ntoken = { file = \"5ec5e7\" }"),
                "admin.token.file: cannot read the file, in /nowhere: entity not found; a relative path starts at the configuration file's folder",
            ),
            (with("[admin]\ntoken = { file = \"\" }"), "admin.token.file: must be the path of a file"),
            (
                with("[admin]\ntoken = { file = \"secrets/token.txt\" }"),
                "admin.token.file: cannot read /nowhere/secrets/token.txt: entity not found; a relative path starts at the configuration file's folder",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_state_is_told() {
        let missing_key = "with 64 hex digits (iluma-gateway keygen --secret makes them)";
        let state = |keys: &str| format!("{ACCOUNT}[state]\n{keys}");
        let root = "root_key = { env = \"ROOT\" }";
        let key = "encryption_keys = [{ id = \"a\", key = { env = \"KEY\" } }]";
        each_is_told([
            (
                state(&format!("{root}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"ROOT\" }} }}]")),
                "state.encryption_keys: the key \"a\" is the root key too: make one of its own (iluma-gateway keygen --secret)",
            ),
            (
                with_api_key("{ env = \"TEAM_KEY\" }"),
                "accounts.live.api_key: the secret is a team's key of this gateway; give the account's own key, which begins with iluma_",
            ),
            (
                with_api_key("{ env = \"TOKEN\" }\nseal_references = true\nprefix_references = true"),
                "accounts.live.seal_references: the old name of prefix_references, which is there too: leave this one out",
            ),
            (lending("owns_unsealed = \"yes\""), "tenants.lending.owns_unsealed: must be true or false, is a string"),
            (state(key), &format!("state.root_key: missing; give {SECRET} {missing_key}")),
            (
                state(root),
                &format!(
                    "state.encryption_keys: missing; give at least one {{ id = \"2026-11\", key = {{ env = \"NAME\" }} }} {missing_key}"
                ),
            ),
            (
                state(&format!("{root}\nencryption_keys = []")),
                "state.encryption_keys: must have 1 to 16 members, has 0",
            ),
            (
                state(&format!("{root}\nencryption_keys = [{{ id = \"a\" }}]")),
                &format!("state.encryption_keys[0].key: missing; give {SECRET}"),
            ),
            (
                state(&format!("{root}\nencryption_keys = [{{ key = {{ env = \"KEY\" }} }}]")),
                "state.encryption_keys[0].id: missing; give a name for the key, such as \"2026-11\"",
            ),
            (
                state(&format!("{root}\nencryption_keys = [{{ id = \"a b\", key = {{ env = \"KEY\" }} }}]")),
                "state.encryption_keys[0].id: must be 1 to 32 characters of a-z, A-Z, 0-9, -, _ and .",
            ),
            (
                state(&format!(
                    "{root}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"KEY\" }} }}, {{ id = \"a\", key = {{ env = \"KEY\" }} }}]"
                )),
                "state.encryption_keys[1].id: is given twice; an id names one key",
            ),
            (
                state(&format!("{root}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"KEY63\" }} }}]")),
                "state.encryption_keys[0].key: the secret must be exactly 64 hex digits (iluma-gateway keygen --secret makes one)",
            ),
            (
                state(&format!("{root}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"KEY\" }}, old = true }}]")),
                "state.encryption_keys[0].old: unknown key; known here: id, key",
            ),
            (
                state(&format!("root_key = {{ env = \"KEYX\" }}\n{key}")),
                "state.root_key: the secret must be exactly 64 hex digits (iluma-gateway keygen --secret makes one)",
            ),
            (
                state(&format!("{root}\n{key}\nredis = {{ url = {{ env = \"TOKEN\" }} }}")),
                "state.redis.url: the secret must be a URL such as redis://user:password@host:6379/0, or rediss:// for TLS",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_an_account_is_told() {
        each_is_told([
            (
                STATE.to_owned(),
                "accounts: there must be at least one account, such as [accounts.live] with api_key = { env = \"ILUMA_LIVE_API_KEY\" }",
            ),
            (
                with("[accounts.\"*\"]\napi_key = { env = \"TOKEN\" }"),
                "accounts.\"*\": a name is 1 to 32 characters of a-z, 0-9 and -",
            ),
            (
                with("[accounts.Live]\napi_key = { env = \"TOKEN\" }"),
                "accounts.Live: a name is 1 to 32 characters of a-z, 0-9 and -",
            ),
            (with("[accounts]\ndev = 1"), "accounts.dev: must be a table, is a whole number"),
            (account_with(""), &format!("accounts.live.api_key: missing; give {SECRET} with the account's API key")),
            (
                with_api_key("\"5ec5e7\""),
                &format!("accounts.live.api_key: a secret must not stand in the file; give {SECRET}"),
            ),
            (
                with_api_key("{ env = \"COLON\" }"),
                "accounts.live.api_key: the secret must be printable ASCII without space, :, \", ', \\",
            ),
            (
                with_api_key("{ env = \"SPACE\" }"),
                "accounts.live.api_key: the secret must be printable ASCII without space, :, \", ', \\",
            ),
            (
                with_api_key("{ env = \"QUOTE\" }"),
                "accounts.live.api_key: the secret must be printable ASCII without space, :, \", ', \\",
            ),
            (
                with_api_key("{ env = \"LATIN\" }"),
                "accounts.live.api_key: the secret must be printable ASCII without space, :, \", ', \\",
            ),
            (with_api_key("{ env = \"LONG\" }"), "accounts.live.api_key: the secret must have 8 to 512 characters"),
            (
                with_api_key("{ env = \"TOKEN\" }\ncallback_token = [{ env = \"TOKEN\" }, { env = \"UNSET\" }]"),
                "accounts.live.callback_token[1].env: the environment variable UNSET is not set",
            ),
            (
                with_api_key("{ env = \"TOKEN\" }\ncallback_token = []"),
                "accounts.live.callback_token: must have 1 to 4 members, has 0",
            ),
            (
                with_api_key("{ env = \"TOKEN\" }\nrequests_per_second = 0"),
                "accounts.live.requests_per_second: must be a whole number from 1 to 1000000",
            ),
            (with_api_key("{ env = \"TOKEN\" }\nmax_wait = \"2h\""), "accounts.live.max_wait: must be from 0s to 1m"),
            (
                with_api_key("{ env = \"TOKEN\" }\nprefix_references = \"yes\""),
                "accounts.live.prefix_references: must be true or false, is a string",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_a_tenant_is_told() {
        each_is_told([
            (
                with_tenant(&format!("key_sha256 = [\"{HASH}\"]")),
                "tenants.lending.account: missing; give the name of an account",
            ),
            (
                with_tenant(&format!("account = \"liv\"\nkey_sha256 = [\"{HASH}\"]"))
                    + "[accounts.dev]\napi_key = { env = \"TOKEN\" }",
                "tenants.lending.account: no such account \"liv\"; known: dev, live",
            ),
            (
                with_tenant(&format!("account = \"igw_5ec5e7\"\nkey_sha256 = [\"{HASH}\"]")),
                "tenants.lending.account: a name is 1 to 32 characters of a-z, 0-9 and -",
            ),
            (
                with_tenant("account = \"live\"\nkey_sha256 = [{ expires = 2026-12-31 }]"),
                "tenants.lending.key_sha256[0]: has no sha256; give { sha256 = \"…\", expires = 2026-12-31, note = \"…\" }, or the hash alone",
            ),
            (
                with_tenant(&format!(
                    "account = \"live\"\nkey_sha256 = [{{ sha256 = \"{HASH}\", expires = 2026-12-31T00:00:00 }}]"
                )),
                "tenants.lending.key_sha256[0].expires: must be a date, such as 2026-12-31, or a time with an offset, such as 2026-12-31T18:00:00+07:00",
            ),
            (
                with_tenant(&format!("account = \"live\"\nkey_sha256 = [{{ sha256 = \"{HASH}\", note = \" \" }}]")),
                "tenants.lending.key_sha256[0].note: must be one line of 1 to 200 characters",
            ),
            (
                with_tenant(&format!("account = \"live\"\nkey_sha256 = [{{ sha256 = \"{HASH}\", until = 1 }}]")),
                "tenants.lending.key_sha256[0].until: unknown key; known here: expires, note, sha256",
            ),
            (
                with_tenant(&format!("account = \"live\"\nkey_sha256 = \"{HASH}\"")),
                "tenants.lending.key_sha256: must be a list, is a string",
            ),
            (
                with_tenant("account = \"live\"\nkey_sha256 = [\"igw_lending_5ec5e7\"]"),
                "tenants.lending.key_sha256[0]: must be 64 hex digits: the SHA-256 of the key, not the key (iluma-gateway keygen prints both)",
            ),
            (
                with_tenant(&format!("account = \"live\"\nkey_sha256 = [\"{HASH}\", \"{}\"]", HASH.to_uppercase())),
                "tenants.lending.key_sha256[1]: is given twice; tenants.lending.key_sha256[0] is the same key, and a key belongs to one team",
            ),
            (
                lending(&format!(
                    "[tenants.payments]\naccount = \"live\"\nkey_sha256 = [\"{OTHER_HASH}\", \"{HASH}\"]"
                )),
                "tenants.payments.key_sha256[1]: is given twice; tenants.lending.key_sha256[0] is the same key, and a key belongs to one team",
            ),
            (
                lending("burst = 5"),
                "tenants.lending.burst: is of use only with requests_per_second; give that too, or leave this out",
            ),
            (
                lending("requests_per_second = 5\nburst = 0"),
                "tenants.lending.burst: must be a whole number from 1 to 1000000",
            ),
            (lending("weight = 0"), "tenants.lending.weight: must be a whole number from 1 to 1000"),
            (lending("max_in_flight = 0"), "tenants.lending.max_in_flight: must be a whole number from 1 to 1000000"),
            (
                lending("upstream_calls_per_day = -1"),
                "tenants.lending.upstream_calls_per_day: must be a whole number from 0 to 1000000000000",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_a_tenants_routes_or_callbacks_is_told() {
        each_is_told([
            (
                lending("routes = [\"bank\", \"cfd\"]"),
                "tenants.lending.routes[1]: no such route; did you mean \"cft\"?",
            ),
            (
                lending("routes = [\"everything\"]"),
                "tenants.lending.routes[0]: no such route; known: bank, bank_get, cft, bank_codes, ktp, npwp, phone, drawdown, face, id_card, ocr, ocr_get, document, document_get, capture, capture_get, capture_file, callback_urls, callback_token, health, gateway, other",
            ),
            (
                lending("routes = [\"forbidden\"]"),
                "tenants.lending.routes[0]: no team may use these paths: they would hand out the account's key",
            ),
            (
                lending(&format!(
                    "owns_unprefixed = true\n[tenants.payments]\naccount = \"live\"\nkey_sha256 = [\"{OTHER_HASH}\"]\nowns_unprefixed = true"
                )),
                "tenants.payments.owns_unprefixed: at most one team of an account may have this, and tenants.lending.owns_unprefixed has it",
            ),
            (
                lending("callback_hosts = [\"https://lending.internal\"]"),
                "tenants.lending.callback_hosts[0]: must be a host name or an IP address, without scheme and port",
            ),
            (
                lending("callback_hosts = [\"lending.internal:443\"]"),
                "tenants.lending.callback_hosts[0]: must be a host name or an IP address, without scheme and port",
            ),
            (
                lending("callback_hosts = [\"169.254.169.254\"]"),
                "tenants.lending.callback_hosts[0]: callbacks are never sent to link-local, multicast, unspecified or cloud metadata addresses",
            ),
            (
                lending("callback_urls = { NAME_VALIDATOR_REQUEST = \"http://[fe80::1]/\" }"),
                "tenants.lending.callback_urls.NAME_VALIDATOR_REQUEST: callbacks are never sent to link-local, multicast, unspecified or cloud metadata addresses",
            ),
            (
                lending(
                    "callback_hosts = [\"lending.internal\"]\ncallback_urls = { NAME_VALIDATOR_REQUEST = \"https://payments.internal/?token=5ec5e7\" }",
                ),
                "tenants.lending.callback_urls.NAME_VALIDATOR_REQUEST: its host is not in callback_hosts",
            ),
            (
                lending("callback_urls = { NAME_VALIDATOR_REQUEST = \"ftp://lending.internal/5ec5e7\" }"),
                "tenants.lending.callback_urls.NAME_VALIDATOR_REQUEST: must be a URL with a host, beginning with http:// or https://",
            ),
            (
                lending("callback_urls = { BANK = \"https://lending.internal\" }"),
                "tenants.lending.callback_urls.BANK: no such callback type; the types are NAME_VALIDATOR_REQUEST, BANK_NAME_VALIDATOR_DETAILS, ID_IMAGE_OCR_REQUEST, BUSINESS_DOCUMENT_OCR_REQUEST, DOCUMENT_OCR_CAPTURE_REQUEST",
            ),
            (
                lending("webhook_secret = { env = \"WHSEC_SHORT\" }"),
                "tenants.lending.webhook_secret: the secret must be whsec_ and the base64 of 24 to 64 bytes",
            ),
            (
                lending("webhook_secret = [{ env = \"LENDING_WEBHOOK_SECRET\" }, { env = \"TOKEN\" }]"),
                "tenants.lending.webhook_secret[1]: the secret must be whsec_ and the base64 of 24 to 64 bytes",
            ),
            (lending("webhook_secret = []"), "tenants.lending.webhook_secret: must have 1 to 4 members, has 0"),
            (
                lending("callback_token = { env = \"SPACE\" }"),
                "tenants.lending.callback_token: the secret must be printable ASCII without space",
            ),
            (
                lending("callback_url = {}"),
                "tenants.lending.callback_url: unknown key; did you mean \"callback_urls\"?",
            ),
        ]);
    }

    #[test]
    fn a_fault_of_a_route_is_told() {
        let path = |path: &str| with_route("").replace("/v*/a/:id", path);
        each_is_told([
            (with("[routes]"), "routes: must be a list, is a table"),
            (
                with_route("[[routes]]\npath = \"/a\"\nlike = \"cft\""),
                "routes[1].method: missing; give \"GET\" or \"POST\"",
            ),
            (
                with_route("").replace("POST", "FETCH"),
                "routes[0].method: must be one of \"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"",
            ),
            (with_route("").replace("bank", "banks"), "routes[0].like: no such route; did you mean \"bank\"?"),
            (
                with_route("").replace("bank", "health"),
                "routes[0].like: must be a row of Iluma's API, and \"health\" is none",
            ),
            (
                with_route("").replace("bank", "forbidden"),
                "routes[0].like: must be a row of Iluma's API, and \"forbidden\" is none",
            ),
            (
                path("/v*/identity/id_card_images/:id/x").replace("like = \"bank\"", "like = \"ktp\""),
                "routes[0]: a path in a collection of records must be like a row that shows records (bank_get, ocr_get, document_get, capture_get, capture_file), with :id in the record's place, or like one that makes them (bank, ocr, document, capture) without another segment that varies; ktp is none of these here",
            ),
            (
                path("/v*/identity/captures/:x/y").replace("like = \"bank\"", "like = \"capture_get\""),
                "routes[0]: a path in a collection of records must be like a row that shows records (bank_get, ocr_get, document_get, capture_get, capture_file), with :id in the record's place, or like one that makes them (bank, ocr, document, capture) without another segment that varies; capture_get is none of these here",
            ),
            (
                path("/v*/identity/id_card_images/:id").replace("like = \"bank\"", "like = \"ocr\""),
                "routes[0]: a path in a collection of records must be like a row that shows records (bank_get, ocr_get, document_get, capture_get, capture_file), with :id in the record's place, or like one that makes them (bank, ocr, document, capture) without another segment that varies; ocr is none of these here",
            ),
            (
                with("[upstream]\nforward_headers = [\"x_a\"]"),
                "upstream.forward_headers[0]: must be the name of a header, such as \"x-feature\", without _",
            ),
            (
                with("[upstream]\nforward_headers = [\"Authorization\"]"),
                "upstream.forward_headers[0]: the gateway sets this header itself, or never forwards it",
            ),
            (
                with("[help]\ncontact = \"\""),
                "help.contact: must be one line of 1 to 200 characters, such as \"#kyc-platform on Slack\"",
            ),
            (
                with_route("[[routes]]\nmethod = \"POST\"\npath = \"/V*/A/:id\"\nlike = \"cft\"").replace("/V*", "/v*"),
                "routes[1]: method and path are given twice",
            ),
            (path("v3/checks"), "routes[0].path: must begin with /"),
            (path("/v3//checks"), "routes[0].path: must not have an empty segment or end with /"),
            (path("/v3/checks/"), "routes[0].path: must not have an empty segment or end with /"),
            (path("/v3/../checks"), "routes[0].path: must not have a dot segment"),
            (
                path("/v3/:"),
                "routes[0].path: each segment must be :name for any one, v* for any version, or of a-z, A-Z, 0-9, -, ., _ and ~",
            ),
            (
                path("/v3/a?b"),
                "routes[0].path: each segment must be :name for any one, v* for any version, or of a-z, A-Z, 0-9, -, ., _ and ~",
            ),
            (
                path("/v3/a%2fb"),
                "routes[0].path: each segment must be :name for any one, v* for any version, or of a-z, A-Z, 0-9, -, ., _ and ~",
            ),
            (
                path("/Businesses/:id"),
                "routes[0].path: must not have a segment callback, businesses or api_keys: they concern the account's own keys",
            ),
        ]);
    }

    #[test]
    fn a_route_below_the_teams_own_api_is_told() {
        each_is_told([(
            with_route("").replace("/v*/a/:id", "/_Gateway/x"),
            "routes[0].path: must not have a segment _gateway: the teams' own API and portal are there",
        )]);
    }

    #[test]
    fn what_hardly_anybody_wants_is_a_warning_with_the_host_and_what_is_right() {
        let clear = "personal data and keys go to internal.example in clear; use https://";
        let account = |name: &str, key: &str| format!("{STATE}[accounts.{name}]\napi_key = {{ env = \"{key}\" }}\n");
        let urls =
            |host: &str| lending(&format!("callback_urls = {{ NAME_VALIDATOR_REQUEST = \"http://{host}/5ec5e7\" }}"));
        for (text, expected) in [
            (with(""), vec![]),
            (with("[upstream]\nbase_url = \"http://127.0.0.1:9\""), vec![]),
            (with("[upstream]\nbase_url = \"http://[::1]:9\""), vec![]),
            (with("[upstream]\nbase_url = \"http://localhost:9\""), vec![]),
            (with("[upstream]\nbase_url = \"http://internal.example:9\""), vec![format!("upstream.base_url: {clear}, such as https://api.iluma.ai")]),
            (with("[callbacks]\npublic_url = \"http://internal.example\""), vec![format!("callbacks.public_url: {clear}, such as https://internal.example")]),
            (urls("internal.example"), vec![format!("tenants.lending.callback_urls.NAME_VALIDATOR_REQUEST: {clear}, such as https://internal.example")]),
            (urls("127.0.0.9:8"), vec![]),
            (with("[admin]\nlisten = \"0.0.0.0:9090\""), vec!["admin.listen: other machines reach 0.0.0.0:9090, and without TLS the token goes in clear; give admin.tls, or listen on 127.0.0.1:9090".to_owned()]),
            (with("[admin]\nlisten = \"[::1]:9090\""), vec![]),
            (account("live", "ILUMA_DEVELOPMENT_KEY"), vec!["accounts.live.api_key: a development key (iluma_development_…) in an account whose name has \"live\"; give the live key, which begins with iluma_live_, or name the account dev".to_owned()]),
            (account("dev", "ILUMA_LIVE_KEY"), vec!["accounts.dev.api_key: a live key (iluma_live_…) in an account whose name has \"dev\"; give the development key, which begins with iluma_development_, or name the account live".to_owned()]),
            (account("dev", "ILUMA_DEVELOPMENT_KEY"), vec![]),
            (account("main", "ILUMA_DEVELOPMENT_KEY"), vec![]),
            (lending("owns_unsealed = true"), vec!["tenants.lending.owns_unsealed: the old name of owns_unprefixed: write owns_unprefixed instead".to_owned()]),
            (format!("{}seal_references = false", with("")), vec!["accounts.live.seal_references: the old name of prefix_references: write prefix_references instead".to_owned()]),
        ] {
            let settings = parse(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
            let told: Vec<String> = settings.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(told, expected, "{text}");
        }
    }

    #[test]
    fn an_old_name_means_what_the_new_one_does() {
        let settings = parse(&lending("owns_unsealed = true")).unwrap();
        assert!(settings.tenants[&"lending".parse().unwrap()].owns_unprefixed);
        let settings = parse(&format!("{}seal_references = false", with(""))).unwrap();
        assert!(!settings.accounts[&"live".parse().unwrap()].prefix_references);
    }

    #[test]
    fn every_fault_of_a_file_is_told_in_one_go_and_in_order() {
        let faults = parse("[server]\nlisten = 1\nmax_headers = 0\ncolour = 1\n[log]\nlevel = \"\"").unwrap_err();
        let keys: Vec<&str> = faults.iter().map(Fault::key).collect();
        assert_eq!(
            keys,
            [
                "accounts",
                "log.level",
                "server.colour",
                "server.listen",
                "server.max_headers",
                "state.encryption_keys",
                "state.root_key"
            ]
        );
        assert_eq!(faults.to_string().lines().count(), keys.len());
    }

    #[test]
    fn secrets_come_from_files_too_without_their_line_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from-a-file-of-secrets\r\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff; 20]).unwrap();
        let settings = parse_in(folder.path(), &with("[admin]\ntoken = { file = \"token\" }")).unwrap();
        assert_eq!(settings.admin.token.unwrap().expose_secret(), "from-a-file-of-secrets");
        assert_eq!(settings.files, [folder.path().join("token")]);
        let faults = parse_in(folder.path(), &with("[admin]\ntoken = { file = \"binary\" }")).unwrap_err();
        assert_eq!(faults.to_string(), "admin.token.file: the file is not UTF-8 text");
    }

    #[test]
    fn tls_takes_matching_files_and_nothing_else() {
        let folder = folder_with_certificates();
        std::fs::write(folder.path().join("text.pem"), "5ec5e7").unwrap();
        let tls = |tls: &str| parse_in(folder.path(), &with(&format!("[server]\ntls = {tls}")));
        let settings = tls("{ cert = \"cert.pem\", key = \"key.pem\" }").unwrap();
        let config = settings.server.listener.tls.unwrap().config;
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(settings.files, ["cert.pem", "key.pem"].map(|name| folder.path().join(name)));
        assert!(tls("{ cert = \"cert.pem\", key = \"key.pem\", client_ca = \"teams-ca.pem\" }").is_ok());
        let [none, other, cert, text, key] =
            ["none.pem", "other-key.pem", "cert.pem", "text.pem", "key.pem"].map(|name| folder.path().join(name));
        let read = format!(
            "cannot read {}: entity not found; a relative path starts at the configuration file's folder",
            none.display()
        );
        let [other, cert, text, key] = [other, cert, text, key].map(|path| path.display().to_string());
        for (table, fault) in [
            (
                "{ cert = \"cert.pem\", key = \"other-key.pem\" }",
                format!(
                    "server.tls.key: {other} does not belong to {cert}: give the key that the certificate was made for"
                ),
            ),
            (
                "{ key = \"key.pem\" }",
                "server.tls.cert: missing; give the PEM file of the certificate chain".to_owned(),
            ),
            ("{ cert = \"cert.pem\" }", "server.tls.key: missing; give the PEM file of the private key".to_owned()),
            ("{ cert = \"none.pem\", key = \"key.pem\" }", format!("server.tls.cert: {read}")),
            (
                "{ cert = \"text.pem\", key = \"key.pem\" }",
                format!("server.tls.cert: {text} is not a list of PEM certificates (-----BEGIN CERTIFICATE-----)"),
            ),
            (
                "{ cert = \"cert.pem\", key = \"text.pem\" }",
                format!(
                    "server.tls.key: {text} has no PEM private key (PKCS#8, SEC1 or PKCS#1: -----BEGIN PRIVATE KEY-----)"
                ),
            ),
            (
                "{ cert = \"cert.pem\", key = \"key.pem\", client_ca = \"key.pem\" }",
                format!("server.tls.client_ca: {key} is not a list of PEM certificates (-----BEGIN CERTIFICATE-----)"),
            ),
            (
                "{ cert = \"cert.pem\", key = \"key.pem\", ca = \"a\" }",
                "server.tls.ca: unknown key; known here: cert, client_ca, key".to_owned(),
            ),
        ] {
            assert_eq!(tls(table).unwrap_err().to_string(), fault, "{table}");
        }
        let extra = parse_in(folder.path(), &with("[upstream]\nextra_ca = \"proxy-ca.pem\"")).unwrap();
        assert_eq!(extra.upstream.extra_ca.len(), 1);
    }

    #[test]
    fn callback_hosts_are_those_of_the_urls_unless_they_are_given() {
        let urls = "callback_urls = { NAME_VALIDATOR_REQUEST = \"https://Lending.internal:8443/kyc?a=b\" }";
        let hosts = |keys: &str| {
            let settings = parse(&lending(keys)).unwrap();
            Vec::from_iter(settings.tenants[&"lending".parse().unwrap()].callback_hosts.clone())
        };
        assert_eq!(hosts(urls), ["lending.internal"]);
        let given = "callback_hosts = [\"LENDING.internal\", \"::1\", \"[fd00::2]\", \"10.0.0.1\"]";
        assert_eq!(hosts(&format!("{given}\n{urls}")), ["10.0.0.1", "[::1]", "[fd00::2]", "lending.internal"]);
        assert!(hosts("").is_empty());
    }

    #[test]
    fn a_file_that_is_loaded_is_watched_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        let key = |pair: &str| format!("{}\n", pair.repeat(32));
        for (name, text) in [("api-key", "5ec5e7-api-key\n".to_owned()), ("key", key("b2")), ("root", key("a1"))] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let text = with("").replace("env = \"TOKEN\"", "file = \"api-key\"");
        let text = text.replace("env = \"ROOT\"", "file = \"root\"").replace("env = \"KEY\"", "file = \"key\"");
        std::fs::write(&path, text).unwrap();
        let settings = Settings::load(&path).unwrap();
        assert_eq!(settings.files, ["gateway.toml", "api-key", "key", "root"].map(|name| folder.path().join(name)));
        assert_eq!(settings.state.root_key.expose_secret(), &[0xa1; 32]);
        let faults = Settings::load(&folder.path().join("none.toml")).unwrap_err();
        assert!(faults.to_string().starts_with("cannot read "), "{faults}");
    }

    #[test]
    fn a_description_is_toml_and_has_no_secret() {
        let folder = folder_with_certificates();
        let text = every_key().replace("[accounts.\"*\"]", "[accounts.dev]\napi_key = { env = \"TOKEN\" }");
        let text = text.replace("[tenants.\"*\"]", "[tenants.lending]").replace("# [tenants.lending]", "");
        // The defaults' table and the example become one tenant.
        let text = text.replacen("\n[tenants.lending]\n# Required: the account", "\n# Required: the account", 1);
        let text = text.replace("https://lending.internal/kyc", "https://lending.internal/kyc?token=5ec5e7");
        let mut own = reader::parse(&text).unwrap();
        let redis = own["state"]["redis"].as_table_mut().unwrap();
        redis.remove("cache_url");
        leave(redis, "sentinel");
        leave(redis["cache"].as_table_mut().unwrap(), "cluster");
        let settings = parse_in(folder.path(), &own.to_string()).unwrap();
        for shown in [settings.describe().to_string(), format!("{settings:?}").replace("?token=5ec5e7", "")] {
            assert!(!shown.contains(MARK), "{shown}");
        }
        let described = settings.describe().to_string();
        let table = reader::parse(&described).unwrap();
        assert_eq!(table["accounts"]["live"]["api_key"].as_str(), Some("(set)"));
        assert_eq!(table["state"]["root_key"].as_str(), Some("(set)"));
        assert_eq!(table["state"]["redis"]["sentinel"]["master"].as_str(), Some("iluma"));
        assert_eq!(table["state"]["redis"]["cache"]["cluster"][0].as_str(), Some("cache-1.internal:6379"));
        let certificate = folder.path().join("cert.pem");
        assert_eq!(table["server"]["tls"]["cert"].as_str(), certificate.to_str());
        assert_eq!(table["cache"]["bank"]["found"].as_str(), Some("7d"));
        assert_eq!(table["state"]["retention"]["owners"].as_str(), Some("90d"));
        assert_eq!(table["tenants"]["lending"]["key_sha256"][0].as_str(), Some("00000000…"));
        let url = table["tenants"]["lending"]["callback_urls"]["NAME_VALIDATOR_REQUEST"].as_str();
        assert_eq!(url, Some("https://lending.internal/kyc?(set)"));
        assert_eq!(table["tenants"]["lending"]["owns_unprefixed"].as_bool(), Some(false));
        // Every key has an effect, so the output needs no comment.
        assert!(!described.lines().any(|line| line.starts_with('#')), "{described}");
        assert_eq!(table["quotas"]["time_zone"].as_str(), Some("Asia/Jakarta"));
        assert_eq!(table["prices"]["bank"].as_integer(), Some(500));
    }

    /// Generates any TOML value, and prefers texts that mean something in the configuration.
    fn value() -> impl Strategy<Value = toml::Value> {
        let text = prop_oneof![
            Just("30s".to_owned()),
            Just("1MiB".to_owned()),
            Just("https://a.example/b?c".to_owned()),
            Just("127.0.0.1:0".to_owned()),
            Just("live".to_owned()),
            Just("ab".repeat(32)),
            any::<String>(),
        ];
        let leaf = prop_oneof![
            any::<i64>().prop_map(toml::Value::Integer),
            any::<bool>().prop_map(toml::Value::Boolean),
            any::<f64>().prop_map(toml::Value::Float),
            text.prop_map(toml::Value::String),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let key = prop_oneof![
                prop::sample::select(vec![
                    "env",
                    "file",
                    "id",
                    "key",
                    "cert",
                    "listen",
                    "tls",
                    "retry",
                    "token",
                    "url",
                    "found",
                    "bank",
                    "live",
                    "account",
                    "key_sha256",
                    "routes",
                    "callback_urls",
                    "callback_hosts",
                    "method",
                    "path",
                    "like",
                    "encryption_keys",
                    "root_key",
                    "burst",
                    "api_key",
                    "callback_token",
                    "webhook_secret",
                    "extra_ca",
                ])
                .prop_map(str::to_owned),
                any::<String>(),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(toml::Value::Array),
                prop::collection::vec((key, inner), 0..5)
                    .prop_map(|members| toml::Value::Table(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic_or_tells_a_secret(
            sections in prop::collection::btree_map(prop::sample::select(vec![
                "server", "callbacks", "admin", "log", "upstream", "state", "cache", "accounts", "tenants", "routes", "x",
            ]), value(), 0..6),
        ) {
            let table: Table = sections.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let text = toml::to_string(&table).unwrap_or_default();
            if let Err(faults) = Settings::parse(&text, Path::new("/nowhere"), &|_| Some(MARK.repeat(4))) {
                prop_assert!(faults.iter().count() > 0);
                prop_assert!(!faults.to_string().contains(MARK));
            }
        }

        #[test]
        fn no_typing_mistake_tells_an_inline_secret(at in 0..100_usize, typed in ".?") {
            let mut text = format!("[admin]\ntoken = \"{MARK}-token\"\n[upstream]\ntimeout = \"{MARK}\"\n");
            if text.is_char_boundary(at) && at < text.len() {
                text.replace_range(at..=at, &typed);
            }
            let faults = parse(&with(&text)).unwrap_err();
            // A key is never a secret.
            prop_assume!(faults.iter().all(|fault| !fault.key().contains(MARK)));
            prop_assert!(!faults.to_string().contains(MARK), "{}", faults);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), cut in 0..DEFAULTS.len()) {
            let _ = parse(&text);
            let _ = parse(DEFAULTS.get(..cut).unwrap_or_default());
        }
    }
}
