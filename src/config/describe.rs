//! Prints the effective settings as TOML, without secrets.
//!
//! Invariants: a secret is shown as `"(set)"`, a key's hash by its first digits, a callback URL without its query; an
//! omitted key is not set and has no limit.

use super::settings::{
    Account, Admin, Cache, Callbacks, FileKey, Listener, MaxAge, RedisAccess, RedisServers, RedisTarget, Server,
    ServerAddress, Settings, State, Tenant, UnknownRoutes, Upstream,
};
use crate::base::moment;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

impl Settings {
    /// Returns the settings as readable TOML, without secrets.
    #[must_use]
    pub fn describe(&self) -> Description<'_> {
        Description(self)
    }
}

/// Displays the effective settings; see [`Settings::describe`].
#[derive(Clone, Copy)]
pub struct Description<'a>(&'a Settings);

impl fmt::Debug for Description<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Display for Description<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        server(f, &self.0.server)?;
        callbacks(f, &self.0.callbacks)?;
        admin(f, &self.0.admin)?;
        writeln!(f, "\n[auth]\nmax_failures = {}", self.0.max_auth_failures)?;
        if let Some(status) = &self.0.status {
            writeln!(f, "\n[status]")?;
            listener(f, status)?;
        }
        let level = self.0.log.level.as_str().to_ascii_lowercase();
        writeln!(f, "\n[log]\nlevel = {}", quoted(level))?;
        upstream(f, &self.0.upstream)?;
        if let Some(contact) = &self.0.contact {
            writeln!(f, "\n[help]\ncontact = {}", quoted(contact))?;
        }
        writeln!(f, "\n[node]\nname = {}", quoted(&self.0.node))?;
        state(f, &self.0.state)?;
        cache(f, &self.0.cache)?;
        writeln!(f, "\n[quotas]\ntime_zone = {}", quoted(&self.0.quotas.calendar))?;
        if !self.0.prices.is_empty() {
            writeln!(f, "\n[prices]")?;
        }
        for (route, price) in &self.0.prices {
            writeln!(f, "{route} = {price}")?;
        }

        for (name, account) in &self.0.accounts {
            writeln!(f, "\n[accounts.{name}]")?;
            describe_account(f, account)?;
        }
        for (name, tenant) in &self.0.tenants {
            writeln!(f, "\n[tenants.{name}]")?;
            describe_tenant(f, tenant)?;
        }
        for route in &self.0.routes {
            writeln!(f, "\n[[routes]]\nmethod = {}\npath = {}", quoted(&route.method), quoted(&route.path))?;
            writeln!(f, "like = {}", quoted(route.like))?;
        }
        Ok(())
    }
}

fn server(f: &mut Formatter<'_>, server: &Server) -> fmt::Result {
    writeln!(f, "[server]")?;
    listener(f, &server.listener)?;
    writeln!(f, "max_connections = {}", server.max_connections)?;
    writeln!(f, "max_in_flight = {}", server.max_in_flight)?;
    writeln!(f, "max_buffered = \"{}\"", server.max_buffered)?;
    writeln!(f, "header_timeout = {}", time(server.header_timeout))?;
    writeln!(f, "keep_alive_timeout = {}", time(server.keep_alive_timeout))?;
    writeln!(f, "max_header_bytes = \"{}\"", server.max_header_bytes)?;
    writeln!(f, "max_headers = {}", server.max_headers)?;
    writeln!(f, "drain_timeout = {}", time(server.drain_timeout))?;
    Ok(())
}

fn callbacks(f: &mut Formatter<'_>, callbacks: &Callbacks) -> fmt::Result {
    writeln!(f, "\n[callbacks]")?;
    listener(f, &callbacks.listener)?;
    optional(f, "allow", callbacks.allow.as_ref().map(|allow| list(allow.iter().map(quoted))))?;
    optional(f, "public_url", callbacks.public_url.as_ref().map(quoted))?;
    writeln!(f, "retry = {}", list(callbacks.retry.iter().map(|wait| time(*wait))))?;
    writeln!(f, "timeout = {}", time(callbacks.timeout))?;
    writeln!(f, "max_queued = {}", callbacks.outbox.deliveries)?;
    writeln!(f, "max_queued_bytes = \"{}\"", callbacks.outbox.bytes)?;
    if !callbacks.extra_ca.is_empty() {
        writeln!(f, "extra_ca = \"({} certificates)\"", callbacks.extra_ca.len())?;
    }
    Ok(())
}

fn admin(f: &mut Formatter<'_>, admin: &Admin) -> fmt::Result {
    writeln!(f, "\n[admin]")?;
    listener(f, &admin.listener)?;
    optional(f, "token", admin.token.as_ref().map(set))?;
    let named =
        admin.tokens.iter().filter(|(_, (token, _))| admin.token.as_ref().is_none_or(|main| !same(main, token)));
    let named: Vec<String> = named
        .map(|(name, (token, role))| {
            format!("{} = {{ token = {}, role = \"{}\" }}", quoted(name), set(token), role.as_str())
        })
        .collect();
    if !named.is_empty() {
        writeln!(f, "tokens = {{ {} }}", named.join(", "))?;
    }
    Ok(())
}

fn upstream(f: &mut Formatter<'_>, upstream: &Upstream) -> fmt::Result {
    writeln!(f, "\n[upstream]\nbase_url = {}", quoted(&upstream.base_url))?;
    if !upstream.extra_ca.is_empty() {
        writeln!(f, "extra_ca = \"({} certificates)\"", upstream.extra_ca.len())?;
    }
    optional(f, "proxy", upstream.proxy.as_ref().map(quoted))?;
    writeln!(f, "connect_timeout = {}", time(upstream.connect_timeout))?;
    writeln!(f, "timeout = {}", time(upstream.timeout))?;
    writeln!(f, "idle_timeout = {}", time(upstream.idle_timeout))?;
    writeln!(f, "pool_idle_timeout = {}", time(upstream.pool_idle_timeout))?;
    let unknown_routes = match upstream.unknown_routes {
        UnknownRoutes::Post => "post",
        UnknownRoutes::Forward => "forward",
        UnknownRoutes::Deny => "deny",
    };
    writeln!(f, "unknown_routes = {}", quoted(unknown_routes))?;
    writeln!(f, "forward_headers = {}", list(upstream.forward_headers.iter().map(quoted)))?;
    Ok(())
}

fn state(f: &mut Formatter<'_>, state: &State) -> fmt::Result {
    writeln!(f, "\n[state]\npath = {}", quoted(state.path.display()))?;
    writeln!(f, "root_key = {}", set(&state.root_key))?;
    let keys = state.encryption_keys.iter();
    let keys = keys.map(|key| format!("{{ id = {}, key = {} }}", quoted(&key.id), set(&key.key)));
    writeln!(f, "encryption_keys = {}", list(keys))?;
    if let Some(redis) = &state.redis {
        let cache = redis.cache.as_ref().map_or(String::new(), |cache| match &cache.servers {
            RedisServers::Url(url) if cache.name == "state.redis.cache_url" => format!(", cache_url = {}", set(url)),
            RedisServers::Url(_) | RedisServers::Sentinel { .. } | RedisServers::Cluster { .. } => {
                format!(", cache = {{ {} }}", redis_target(cache))
            }
        });
        writeln!(f, "redis = {{ {}, replicas = {}{cache} }}", redis_target(&redis.main), redis.replicas)?;
    }
    writeln!(f, "redis_timeout = {}", time(state.redis_timeout))?;
    writeln!(f, "disk_reserve = \"{}\"", state.disk_reserve)?;
    let kept = &state.retention;
    writeln!(
        f,
        "retention = {{ owners = {}, delivered_callbacks = {}, dead_letters = {}, ledger = {} }}",
        time(kept.owners),
        time(kept.delivered_callbacks),
        time(kept.dead_letters),
        time(kept.ledger)
    )?;
    Ok(())
}

fn cache(f: &mut Formatter<'_>, cache: &Cache) -> fmt::Result {
    writeln!(f, "\n[cache]\nmemory = \"{}\"\ndisk = \"{}\"", cache.memory, cache.disk)?;
    writeln!(
        f,
        "bank = {{ found = {}, need_review = {}, not_found = {}, stale_if_error = {} }}",
        time(cache.bank_found),
        time(cache.bank_need_review),
        time(cache.bank_not_found),
        time(cache.bank_stale_if_error)
    )?;
    writeln!(f, "cft = {{ clear = {}, match = {} }}", time(cache.cft_clear), time(cache.cft_match))?;
    writeln!(f, "bank_codes = {}", time(cache.bank_codes))?;
    Ok(())
}

fn listener(f: &mut Formatter<'_>, listener: &Listener) -> fmt::Result {
    writeln!(f, "listen = \"{}\"", listener.listen)?;
    optional(f, "tls", listener.tls.as_ref().map(|_| quoted("(set)")))?;
    writeln!(f, "trusted_proxies = {}", list(listener.trusted_proxies.iter().map(quoted)))?;
    writeln!(f, "proxy_protocol = {}", listener.proxy_protocol)
}

fn describe_account(f: &mut Formatter<'_>, account: &Account) -> fmt::Result {
    writeln!(f, "api_key = {}", set(&account.api_key))?;
    if !account.callback_tokens.is_empty() {
        writeln!(f, "callback_token = {}", list(account.callback_tokens.iter().map(set)))?;
    }
    optional(f, "requests_per_second", account.requests_per_second)?;
    writeln!(f, "max_wait = {}", time(account.max_wait))?;
    writeln!(f, "prefix_references = {}", account.prefix_references)
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn key(key: &FileKey) -> String {
    let digits: String = key.sha256[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = quoted(format!("{digits}…"));
    let expires = key.expires.map(|time| format!(", expires = {}", moment::seconds(time)));
    let note = key.note.as_ref().map(|note| format!(", note = {}", quoted(note)));
    if expires.is_none() && note.is_none() {
        return hash;
    }
    format!("{{ sha256 = {hash}{}{} }}", expires.unwrap_or_default(), note.unwrap_or_default())
}

fn describe_tenant(f: &mut Formatter<'_>, tenant: &Tenant) -> fmt::Result {
    writeln!(f, "account = \"{}\"", tenant.account)?;
    writeln!(f, "key_sha256 = {}", list(tenant.key_sha256.iter().map(key)))?;
    // TOML has no null: a limit that is not set is omitted.
    f.write_str(&toml::to_string(&tenant.limits).map_err(|_| fmt::Error)?)?;
    writeln!(f, "routes = {}", list(tenant.routes.iter().map(quoted)))?;
    writeln!(f, "share_cache = {}", tenant.share_cache)?;
    let MaxAge { bank, cft } = tenant.max_age;
    let ages = [("bank", bank), ("cft", cft)].into_iter().filter_map(|(name, age)| Some((name, age?)));
    let ages: Vec<String> = ages.map(|(name, age)| format!("{name} = {}", time(age))).collect();
    if !ages.is_empty() {
        writeln!(f, "max_age = {{ {} }}", ages.join(", "))?;
    }
    writeln!(f, "owns_unprefixed = {}", tenant.owns_unprefixed)?;
    writeln!(f, "callback_hosts = {}", list(tenant.callback_hosts.iter().map(quoted)))?;
    let urls: Vec<String> =
        tenant.callback_urls.iter().map(|(kind, url)| format!("{kind} = {}", quoted(without_query(url)))).collect();
    if !urls.is_empty() {
        writeln!(f, "callback_urls = {{ {} }}", urls.join(", "))?;
    }
    optional(f, "callback_token", tenant.callback_token.as_ref().map(set))?;
    if !tenant.webhook_secrets.is_empty() {
        writeln!(f, "webhook_secret = {}", list(tenant.webhook_secrets.iter().map(set)))?;
    }
    Ok(())
}

fn optional(f: &mut Formatter<'_>, key: &str, value: Option<impl Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| writeln!(f, "{key} = {value}"))
}

/// Returns the text for a secret. It takes the secret as a proof that there is one, and shows nothing of it.
fn set<S: secrecy::zeroize::Zeroize + ?Sized>(_: &SecretBox<S>) -> String {
    quoted("(set)")
}

/// Formats whole days as days: `humantime` would make months of 30.44 days.
fn time(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match duration.as_secs() {
        seconds if seconds > 0 && seconds % DAY == 0 && duration.subsec_nanos() == 0 => {
            quoted(format_args!("{}d", seconds / DAY))
        }
        _ => quoted(humantime::format_duration(duration)),
    }
}

fn list(members: impl Iterator<Item = String>) -> String {
    format!("[{}]", members.collect::<Vec<_>>().join(", "))
}

/// Returns a URL without its query, which may contain a team's token.
fn without_query(url: &http::Uri) -> String {
    let text = url.to_string();
    match text.split_once('?') {
        Some((before, _)) => format!("{before}?(set)"),
        None => text,
    }
}

fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// Returns the keys of one Redis, in the form of the configuration.
fn redis_target(target: &RedisTarget) -> String {
    let nodes = |nodes: &[ServerAddress]| list(nodes.iter().map(quoted));
    let credentials = |username: &Option<String>, password: &Option<SecretString>| {
        let username = username.as_ref().map(|name| format!(", username = {}", quoted(name)));
        let password = password.as_ref().map(|password| format!(", password = {}", set(password)));
        [username, password].into_iter().flatten().collect::<String>()
    };
    let beside = |access: &RedisAccess| {
        let RedisAccess { username, password, tls, database } = access;
        format!("{}, tls = {tls}, database = {database}", credentials(username, password))
    };
    let servers = match &target.servers {
        RedisServers::Url(url) => format!("url = {}", set(url)),
        RedisServers::Sentinel { master, nodes: sentinels, username, password, access } => format!(
            "sentinel = {{ master = {}, nodes = {}{} }}{}",
            quoted(master),
            nodes(sentinels),
            credentials(username, password),
            beside(access)
        ),
        RedisServers::Cluster { nodes: seeds, access } => format!("cluster = {}{}", nodes(seeds), beside(access)),
    };
    let ca = target.extra_ca.as_ref().map_or(String::new(), |_| format!(", extra_ca = {}", quoted("(set)")));
    format!("{servers}{ca}")
}
