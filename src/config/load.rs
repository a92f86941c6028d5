//! Text to [`Settings`]: the operator's file laid over `config/default.toml`, which is compiled in.
//!
//! Invariants: every fault of a file is found in one go; no default stands anywhere but in that file.

use super::raw::{self, Entry, Fault, Faults, Findings, Reader, Section, UrlParts};
use super::{
    Account, Admin, Cache, Callbacks, CustomRoute, EncryptionKey, Listener, Log, Server, Settings, State, Tenant,
    UnknownRoutes, Upstream, tls,
};
use crate::byte_size::ByteSize;
use crate::name::{AccountName, RouteName, TenantName};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use toml::Table;

impl Settings {
    /// Reads a configuration file, and the secrets and certificates it names.
    ///
    /// # Errors
    /// Every fault of the file: what is not TOML, not known, not there or not right.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut text = String::new();
        let read =
            std::fs::File::open(&path).and_then(|file| file.take(MAX_FILE.bytes() + 1).read_to_string(&mut text));
        if let Err(error) = read {
            return Err(Fault::new("", format!("cannot read {}: {error}", path.display())).into());
        }
        if text.len() > MAX_FILE.len() {
            return Err(Fault::new("", format!("{} is larger than {MAX_FILE}", path.display())).into());
        }
        let base = path.parent().unwrap_or(Path::new("."));
        let mut settings = Self::parse(&text, base, &|name| std::env::var(name).ok())?;
        settings.files.insert(0, path);
        Ok(settings)
    }

    /// Reads a configuration from text. Relative file paths start at `base`; `env` looks up environment variables.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(text: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let own = raw::parse(text)?;
        let (settings, Findings { faults, mut files, .. }) = read(&own, base, env)?;
        match settings {
            Some(mut settings) if faults.is_empty() => {
                files.sort();
                files.dedup();
                settings.files = files;
                settings.not_in_effect = not_in_effect(&own, &settings);
                Ok(settings)
            }
            _ => Err(Faults::new(faults)),
        }
    }
}

/// What Iluma's callbacks may be about (`type` at `/callback/urls`).
pub const CALLBACK_TYPES: [&str; 5] = [
    "NAME_VALIDATOR_REQUEST",
    "BANK_NAME_VALIDATOR_DETAILS",
    "ID_IMAGE_OCR_REQUEST",
    "BUSINESS_DOCUMENT_OCR_REQUEST",
    "DOCUMENT_OCR_CAPTURE_REQUEST",
];

/// Every key with its default, or as an example where it has none.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Keys that are read and checked, and that nothing acts on yet; `*` is any one key.
const NOT_IN_EFFECT: [&str; 14] = [
    "callbacks.*",
    "state.path",
    "state.encryption_keys",
    "cache.bank.stale_if_error",
    "accounts.*.requests_per_second",
    "accounts.*.max_wait",
    "accounts.*.seal_references",
    "accounts.*.callback_token",
    "tenants.*.weight",
    "tenants.*.upstream_calls_per_day",
    "tenants.*.upstream_calls_per_month",
    "tenants.*.owns_unsealed",
    "tenants.*.callback_hosts",
    "tenants.*.callback_urls",
];

// Bounds. Each is far from what anyone needs and near enough to catch a wrong unit.
/// A configuration for a thousand tenants has about 500 KiB.
const MAX_FILE: ByteSize = ByteSize::mib(4);
/// Label values of every metric.
const MAX_TENANTS: usize = 1000;
/// Each has its own limits and metrics.
const MAX_ACCOUNTS: usize = 100;
/// Iluma's whole table has about 40 rows.
const MAX_ROUTES: usize = 100;
/// Two while a key is rotated; some teams have one key a service.
const MAX_KEYS: usize = 32;
/// One a year for longer than anything is kept.
const MAX_ENCRYPTION_KEYS: usize = 16;
/// Old and new, while the token changes.
const MAX_CALLBACK_TOKENS: usize = 4;
/// Hosts of one team.
const MAX_HOSTS: usize = 64;
/// Beyond it something else is the limit: memory, the kernel's files.
const MAX_COUNT: u32 = 1_000_000;
/// Per day or month; 0 lets a team live from the cache alone.
const MAX_CALLS: u64 = 1_000_000_000_000;
/// More would be a share of nearly everything.
const MAX_WEIGHT: u32 = 1000;
/// Short tokens can be guessed, and cannot be told from other text when logs are scrubbed; long ones do not fit the
/// headers they travel in.
const TOKEN: RangeInclusive<usize> = 8..=512;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86400);
/// Zero would end every request before it began.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=HOUR;
/// An account can be closed or renamed; a month is what its answer is worth at most. Zero does not store at all.
const LIFETIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86400);
/// Watchlists change every day.
const WATCHLIST_LIFETIME: RangeInclusive<Duration> = Duration::ZERO..=DAY;

/// Reads everything; `None` only with a fault in the findings.
fn read(own: &Table, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(Option<Settings>, Findings), Fault> {
    let defaults = raw::parse(DEFAULTS)?;
    let reader = Reader::new(base, env);
    let settings = settings(&reader.root(own, &defaults));
    Ok((settings, reader.finish(own)))
}

// In these functions everything is read before the first `?`, so that a fault hides no other.

fn settings(root: &Section<'_>) -> Option<Settings> {
    let server = server(&root.section("server"));
    let callbacks = callbacks(&root.section("callbacks"));
    let admin = admin(&root.section("admin"));
    let log = log(&root.section("log"));
    let upstream = upstream(&root.section("upstream"));
    let state = state(&root.section("state"));
    let cache = cache(&root.section("cache"));
    let (account_names, accounts) = accounts(&root.section("accounts"));
    let tenants = tenants(&root.section("tenants"), &account_names);
    let routes = root.maybe("routes", routes).unwrap_or_default();
    let (server, callbacks, admin) = (server?, callbacks?, admin?);
    distinct_listeners(
        root,
        [
            ("server", server.listener.listen),
            ("callbacks", callbacks.listener.listen),
            ("admin", admin.listener.listen),
        ],
    );
    Some(Settings {
        server,
        callbacks,
        admin,
        log: log?,
        upstream: upstream?,
        state: state?,
        cache: cache?,
        accounts,
        tenants,
        routes,
        files: Vec::new(),
        not_in_effect: Vec::new(),
    })
}

fn server(server: &Section<'_>) -> Option<Server> {
    let listener = listener(server);
    let max_connections = server.get("max_connections", |count| count.number(1..=MAX_COUNT));
    let max_in_flight = server.get("max_in_flight", |count| count.number(1..=MAX_COUNT));
    let header_timeout = server.get("header_timeout", |time| time.duration(TIMEOUT));
    // hyper refuses to buffer less than 8 KiB.
    let max_header_bytes = server.get("max_header_bytes", |size| size.size(ByteSize::kib(8)..=ByteSize::mib(1)));
    let max_headers = server.get("max_headers", |count| count.number(1..=1000_u32));
    let drain_timeout = server.get("drain_timeout", |time| time.duration(Duration::ZERO..=HOUR));
    Some(Server {
        listener: listener?,
        max_connections: max_connections? as usize,
        max_in_flight: max_in_flight? as usize,
        header_timeout: header_timeout?,
        max_header_bytes: max_header_bytes?,
        max_headers: max_headers? as usize,
        drain_timeout: drain_timeout?,
    })
}

fn callbacks(callbacks: &Section<'_>) -> Option<Callbacks> {
    let listener = listener(callbacks);
    let public_url = callbacks.maybe("public_url", |url| url.url(&["http", "https"], UrlParts::Path));
    let retry = callbacks.get("retry", |list| {
        list.list(1..=20)?.iter().map(|wait| wait.duration(Duration::ZERO..=7 * DAY)).fold(Some(Vec::new()), gather)
    });
    Some(Callbacks { listener: listener?, public_url, retry: retry? })
}

fn admin(admin: &Section<'_>) -> Option<Admin> {
    let listener = listener(admin);
    let token = admin.maybe("token", |token| token.token(TOKEN, ""));
    Some(Admin { listener: listener?, token })
}

fn listener(section: &Section<'_>) -> Option<Listener> {
    let listen = section.get("listen", Entry::address);
    let tls = section.maybe("tls", |tls| tls::server_config(&tls.table()?));
    Some(Listener { listen: listen?, tls })
}

fn distinct_listeners(root: &Section<'_>, listeners: [(&str, SocketAddr); 3]) {
    for (place, (name, address)) in listeners.iter().enumerate() {
        let clash = listeners[..place].iter().find(|(_, other)| {
            let all = address.ip().is_unspecified() || other.ip().is_unspecified();
            address.port() != 0 && address.port() == other.port() && (all || address.ip() == other.ip())
        });
        if let Some((other, _)) = clash {
            root.section(name).fault_at("listen", format!("the same address as {other}.listen; give it another port"));
        }
    }
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
    Some(Upstream {
        base_url: base_url?,
        extra_ca,
        proxy,
        connect_timeout: connect_timeout?,
        timeout: timeout?,
        idle_timeout: idle_timeout?,
        pool_idle_timeout: pool_idle_timeout?,
        unknown_routes: unknown_routes?,
    })
}

fn state(state: &Section<'_>) -> Option<State> {
    let path = state.get("path", Entry::path_of_file);
    let missing = "missing; give { env = \"NAME\" } or { file = \"PATH\" } with 64 hex digits \
                   (iluma-gateway keygen --secret makes them)";
    let root_key = state.must("root_key", missing, Entry::key);
    let missing = "missing; give at least one { id = \"2026-11\", key = { env = \"NAME\" } } with 64 hex digits \
                   (iluma-gateway keygen --secret makes them)";
    let encryption_keys = state.must("encryption_keys", missing, encryption_keys);
    if let Some(redis) = state.entry("redis") {
        redis.fault(
            "this version keeps its state on one node and cannot share it by Redis: leave it out; \
                     it comes with a later version",
        );
        if let Some(redis) = redis.table() {
            redis.entry("url");
            redis.entry("cache_url");
        }
    }
    Some(State { path: path?, root_key: root_key?, encryption_keys: encryption_keys? })
}

fn encryption_keys(list: &Entry<'_>) -> Option<Vec<EncryptionKey>> {
    let mut ids = BTreeSet::new();
    let keys = list.list(1..=MAX_ENCRYPTION_KEYS)?.into_iter().map(|entry| {
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
                id.fault("stands twice; an id names one key");
                return None;
            }
            Some(text.to_owned())
        });
        let key = table.must("key", "missing; give { env = \"NAME\" } or { file = \"PATH\" }", Entry::key);
        Some(EncryptionKey { id: id?, key: key? })
    });
    keys.fold(Some(Vec::new()), gather)
}

fn cache(cache: &Section<'_>) -> Option<Cache> {
    let memory = cache.get("memory", |size| size.size(ByteSize::kib(0)..=ByteSize::mib(1 << 20)));
    let bank = cache.section("bank");
    let bank_found = bank.get("found", |time| time.duration(LIFETIME));
    let bank_not_found = bank.get("not_found", |time| time.duration(LIFETIME));
    let bank_stale_if_error = bank.get("stale_if_error", |time| time.duration(LIFETIME));
    let cft = cache.section("cft");
    let cft_clear = cft.get("clear", |time| time.duration(WATCHLIST_LIFETIME));
    let cft_match = cft.get("match", |time| time.duration(WATCHLIST_LIFETIME));
    cft.refuse("stale_if_error", "a watchlist answer is never served past its lifetime, whatever fails: leave it out");
    let bank_codes = cache.get("bank_codes", |time| time.duration(LIFETIME));
    Some(Cache {
        memory: memory?,
        bank_found: bank_found?,
        bank_not_found: bank_not_found?,
        bank_stale_if_error: bank_stale_if_error?,
        cft_clear: cft_clear?,
        cft_match: cft_match?,
        bank_codes: bank_codes?,
    })
}

/// The names as well, those of faulty accounts among them: a tenant of one has no fault of its own.
fn accounts(accounts: &Section<'_>) -> (BTreeSet<AccountName>, BTreeMap<AccountName, Account>) {
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
    // What Basic authentication and JSON carry without a change, so that no way of writing it escapes the scrubber.
    let api_key = account.must("api_key", missing, |key| key.token(TOKEN, ":\"'\\"));
    let callback_tokens = account.maybe("callback_token", |token| {
        if token.is_list() {
            let tokens = token.list(1..=MAX_CALLBACK_TOKENS)?;
            tokens.iter().map(|token| token.token(TOKEN, "")).fold(Some(Vec::new()), gather)
        } else {
            Some(vec![token.token(TOKEN, "")?])
        }
    });
    let requests_per_second = account.maybe("requests_per_second", |rate| rate.number(1..=MAX_COUNT));
    let max_wait = account.get("max_wait", |time| time.duration(Duration::ZERO..=MINUTE));
    let seal_references = account.get("seal_references", Entry::flag);
    Some(Account {
        api_key: api_key?,
        callback_tokens: callback_tokens.unwrap_or_default(),
        requests_per_second,
        max_wait: max_wait?,
        seal_references: seal_references?,
    })
}

fn tenants(tenants: &Section<'_>, accounts: &BTreeSet<AccountName>) -> BTreeMap<TenantName, Tenant> {
    let members = tenants.members();
    if members.len() > MAX_TENANTS {
        tenants.fault(format!("there must be at most {MAX_TENANTS} tenants"));
    }
    let mut read = BTreeMap::new();
    let mut seen = Seen::default();
    for (name, section) in members {
        let name = named::<TenantName>(&name, &section);
        if let (Some(name), Some(tenant)) = (name, tenant(&section, accounts, &mut seen)) {
            read.insert(name, tenant);
        }
    }
    read
}

/// What no two tenants may have, and the key path of the one that has it.
#[derive(Default)]
struct Seen {
    hashes: BTreeMap<[u8; 32], String>,
    owners: BTreeMap<AccountName, String>,
}

fn tenant(tenant: &Section<'_>, accounts: &BTreeSet<AccountName>, seen: &mut Seen) -> Option<Tenant> {
    let account = tenant.must("account", "missing; give the name of an account", |name| known_account(name, accounts));
    let missing = "missing; give a list of SHA-256 hashes (iluma-gateway keygen makes a key and its hash)";
    let key_sha256 = tenant.must("key_sha256", missing, |list| {
        let hashes = list.list(1..=MAX_KEYS)?;
        hashes.iter().map(|hash| key_hash(hash, &mut seen.hashes)).fold(Some(Vec::new()), gather)
    });
    let requests_per_second = tenant.maybe("requests_per_second", |rate| rate.number(1..=MAX_COUNT));
    let burst = tenant.maybe("burst", |burst| {
        if tenant.entry("requests_per_second").is_none() {
            burst.fault("is of use only with requests_per_second; give that too, or leave this out");
        }
        burst.number(1..=MAX_COUNT)
    });
    let max_in_flight = tenant.maybe("max_in_flight", |count| count.number(1..=MAX_COUNT));
    let weight = tenant.get("weight", |weight| weight.number(1..=MAX_WEIGHT));
    let upstream_calls_per_day = tenant.maybe("upstream_calls_per_day", |calls| calls.number(0..=MAX_CALLS));
    let upstream_calls_per_month = tenant.maybe("upstream_calls_per_month", |calls| calls.number(0..=MAX_CALLS));
    let routes = match tenant.entry("routes") {
        Some(list) => allowed_routes(&list),
        None => Some(RouteName::ALL.into_iter().filter(|route| *route != RouteName::Forbidden).collect()),
    };
    let share_cache = tenant.get("share_cache", Entry::flag);
    let owns_unsealed = tenant.get("owns_unsealed", |flag| {
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
    let hosts = tenant
        .maybe("callback_hosts", |list| list.list(0..=MAX_HOSTS)?.iter().map(host).fold(Some(Vec::new()), gather));
    let hosts_given = tenant.entry("callback_hosts").is_some();
    let urls = callback_urls(&tenant.section("callback_urls"), hosts.as_deref().filter(|_| hosts_given));
    let callback_hosts = match hosts {
        Some(hosts) => hosts.into_iter().collect(),
        None => urls.values().filter_map(http::Uri::host).map(str::to_ascii_lowercase).collect(),
    };
    Some(Tenant {
        account: account?,
        key_sha256: key_sha256?,
        requests_per_second,
        // As much as a second allows, if nothing is said.
        burst: burst.or(requests_per_second),
        max_in_flight: max_in_flight.map(|count| count as usize),
        weight: weight?,
        upstream_calls_per_day,
        upstream_calls_per_month,
        routes: routes?,
        share_cache: share_cache?,
        owns_unsealed: owns_unsealed?,
        callback_hosts,
        callback_urls: urls,
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

fn key_hash(entry: &Entry<'_>, seen: &mut BTreeMap<[u8; 32], String>) -> Option<[u8; 32]> {
    let Some(hash) = raw::hex32(entry.text()?) else {
        entry.fault("must be 64 hex digits: the SHA-256 of the key, not the key (iluma-gateway keygen prints both)");
        return None;
    };
    if let Some(other) = seen.get(&hash) {
        entry.fault(format!("stands twice: {other} is the same key, and a key belongs to one team"));
        return None;
    }
    seen.insert(hash, entry.path().to_owned());
    Some(hash)
}

fn allowed_routes(list: &Entry<'_>) -> Option<BTreeSet<RouteName>> {
    let named = list.list(0..=RouteName::ALL.len())?.into_iter().map(|entry| {
        let route = known_route(&entry)?;
        if route == RouteName::Forbidden {
            entry.fault("no team may use these paths: they would hand out the account's key");
            return None;
        }
        Some(route)
    });
    let mut routes: BTreeSet<RouteName> = named.fold(Some(Vec::new()), gather)?.into_iter().collect();
    let included: Vec<RouteName> = routes.iter().flat_map(|route| route.includes()).copied().collect();
    routes.extend(included);
    routes.extend(RouteName::ALL.into_iter().filter(|route| route.always_allowed()));
    Some(routes)
}

fn known_route(entry: &Entry<'_>) -> Option<RouteName> {
    let text = entry.text()?;
    let route = text.parse().ok();
    if route.is_none() {
        let names = RouteName::ALL.into_iter().filter(|route| *route != RouteName::Forbidden).map(RouteName::as_str);
        entry.fault(match raw::nearest(text, names.clone()) {
            Some(near) => format!("no such route; did you mean {near:?}?"),
            None => format!("no such route; known: {}", names.collect::<Vec<_>>().join(", ")),
        });
    }
    route
}

/// A host as URLs have it: in lower case, an IPv6 address in brackets.
fn host(entry: &Entry<'_>) -> Option<String> {
    let text = entry.text()?.to_ascii_lowercase();
    let host = if text.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{text}]") } else { text };
    let fits = host.parse::<http::uri::Authority>().is_ok_and(|authority| authority.as_str() == authority.host());
    if !fits || host.len() > 255 {
        entry.fault("must be a host name or an IP address, without scheme and port");
        return None;
    }
    refuse_link_local(entry, &host)?;
    Some(host)
}

/// Cloud metadata services live there, and they hand out credentials.
fn refuse_link_local(entry: &Entry<'_>, host: &str) -> Option<()> {
    let link_local = match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(|address| address.is_link_local())
        }
        Err(_) => false,
    };
    if link_local {
        entry.fault("callbacks are never sent to link-local addresses");
        return None;
    }
    Some(())
}

fn callback_urls(urls: &Section<'_>, hosts: Option<&[String]>) -> BTreeMap<String, http::Uri> {
    let mut read = BTreeMap::new();
    for (kind, entry) in urls.named() {
        if !CALLBACK_TYPES.contains(&kind.as_str()) {
            entry.fault(format!("no such callback type; known: {}", CALLBACK_TYPES.join(", ")));
        }
        let Some(url) = entry.url(&["http", "https"], UrlParts::Query) else { continue };
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        if refuse_link_local(&entry, &host).is_none() {
            continue;
        }
        if hosts.is_some_and(|hosts| !hosts.contains(&host)) {
            entry.fault("its host is not in callback_hosts");
        }
        read.insert(kind, url);
    }
    read
}

fn routes(list: &Entry<'_>) -> Option<Vec<CustomRoute>> {
    let mut seen = BTreeSet::new();
    let routes = list.list(0..=MAX_ROUTES)?.into_iter().map(|entry| {
        let table = entry.table()?;
        let method = table.must("method", "missing; give \"GET\" or \"POST\"", |method| method.one_of(&METHODS));
        let path = table.must("path", "missing; give a path, such as \"/v*/identity/bank_checks\"", route_path);
        let like = table.must("like", "missing; give the row whose treatment it gets, such as \"bank\"", like);
        let (method, path, like) = (method?, path?, like?);
        // Paths are matched without regard to case.
        if !seen.insert((method, path.to_ascii_lowercase())) {
            entry.fault("method and path stand twice");
            return None;
        }
        let method = http::Method::from_str(method).ok()?;
        Some(CustomRoute { method, path, like })
    });
    routes.fold(Some(Vec::new()), gather)
}

const METHODS: [(&str, &str); 5] =
    [("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];

fn route_path(entry: &Entry<'_>) -> Option<String> {
    let path = entry.text()?;
    let problem = match path.strip_prefix('/') {
        None => Some("must begin with /"),
        Some(_) if path.len() > 256 => Some("must have at most 256 characters"),
        Some(rest) => rest.split('/').find_map(segment_problem),
    };
    if let Some(problem) = problem {
        entry.fault(problem);
        return None;
    }
    Some(path.to_owned())
}

fn segment_problem(segment: &str) -> Option<&'static str> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if segment.is_empty() {
        return Some("must not have an empty segment or end with /");
    }
    if matches!(segment, "." | "..") {
        return Some("must not have a dot segment");
    }
    // They set where results go and hand out keys; no row may lead there.
    if ["callback", "businesses", "api_keys"].iter().any(|closed| segment.eq_ignore_ascii_case(closed)) {
        return Some("must not have a segment callback, businesses or api_keys: they concern the account's own keys");
    }
    let fits = match segment.strip_prefix(':') {
        Some(name) => !name.is_empty() && plain(name),
        None => segment == "v*" || plain(segment),
    };
    (!fits).then_some("each segment must be :name for any one, v* for any version, or of a-z, A-Z, 0-9, -, ., _ and ~")
}

fn like(entry: &Entry<'_>) -> Option<RouteName> {
    let route = known_route(entry)?;
    let refused =
        [RouteName::Forbidden, RouteName::Other, RouteName::CallbackUrls, RouteName::CallbackToken, RouteName::Health];
    if refused.contains(&route) {
        entry.fault(format!("must be a row of Iluma's API, and {route:?} is none", route = route.as_str()));
        return None;
    }
    Some(route)
}

fn named<N: FromStr>(name: &str, section: &Section<'_>) -> Option<N>
where
    N::Err: std::fmt::Display,
{
    name.parse().map_err(|error: N::Err| section.fault(error.to_string())).ok()
}

/// Folds to all of them or none, and unlike `collect` looks at each.
fn gather<T>(list: Option<Vec<T>>, next: Option<T>) -> Option<Vec<T>> {
    let (mut list, next) = (list?, next?);
    list.push(next);
    Some(list)
}

/// Which keys of the operator's file nothing acts on yet.
fn not_in_effect(own: &Table, settings: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in own {
        find_not_in_effect(key.clone(), value, &mut found);
    }
    // What it says is what happens.
    if settings.cache.bank_stale_if_error.is_zero() {
        found.retain(|key| key != "cache.bank.stale_if_error");
    }
    found
}

fn find_not_in_effect(path: String, value: &toml::Value, found: &mut Vec<String>) {
    let matches = |pattern: &&str| {
        pattern.split('.').count() == path.split('.').count()
            && pattern.split('.').zip(path.split('.')).all(|(wanted, part)| wanted == "*" || wanted == part)
    };
    if NOT_IN_EFFECT.iter().any(matches) {
        found.push(path);
    } else if let Some(table) = value.as_table() {
        for (key, value) in table {
            find_not_in_effect(format!("{path}.{key}"), value, found);
        }
    }
}
