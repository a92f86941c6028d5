//! `[state.redis]`: the Redis that gateways share.

use super::reader::{Entry, Section};
use super::redis_target::{RedisAccess, RedisServers, RedisTarget, ServerAddress};
use super::settings::Redis;
use super::tls;
use secrecy::{ExposeSecret as _, SecretString};

/// The largest number of sentinels or nodes in a list: more than any deployment has.
const MOST_SERVERS: usize = 16;
/// The largest number of replicas: more than any deployment has.
const MOST_REPLICAS: u32 = 16;
/// The highest number that a database may have: far more than Redis' default of 16 databases.
const LAST_DATABASE: i64 = 65_535;

/// Reads `[state.redis]`: the Redis of state, and the separate Redis of the cache, if one is configured.
pub(super) fn read(redis: &Section<'_>) -> Option<Redis> {
    let extra_ca = redis.maybe("extra_ca", tls::trusted_pem);
    let replicas = redis.maybe("replicas", |number| number.number(0..=MOST_REPLICAS)).unwrap_or(0);
    let cache_url = redis.maybe("cache_url", url);
    let main = target(redis, ["state.redis.url", "state.redis.sentinel", "state.redis.cluster"], extra_ca.clone());
    let cache = redis.maybe("cache", |cache| {
        let cache = cache.table()?;
        let own = cache.maybe("extra_ca", tls::trusted_pem);
        let names = ["state.redis.cache.url", "state.redis.cache.sentinel", "state.redis.cache.cluster"];
        target(&cache, names, own)
    });
    if cache.is_some() && cache_url.is_some() {
        redis.fault_at("cache_url", "give this or [state.redis.cache], not both");
    }
    let by_url = cache_url.map(|url| RedisTarget::of_url("state.redis.cache_url", url, extra_ca));
    Some(Redis { main: main?, replicas, cache: cache.or(by_url) })
}

fn target(section: &Section<'_>, names: [&'static str; 3], extra_ca: Option<Vec<u8>>) -> Option<RedisTarget> {
    let given = ["url", "sentinel", "cluster"].map(|key| section.entry(key).is_some());
    let (url, cluster) = (section.maybe("url", url), section.maybe("cluster", servers));
    let username = section.maybe("username", |name| name.text().map(str::to_owned));
    let password = section.maybe("password", Entry::secret);
    let tls = section.maybe("tls", Entry::flag);
    let database = section.maybe("database", |number| number.number(0..=LAST_DATABASE));
    if given[0] {
        let parts = [username.is_some(), password.is_some(), tls.is_some(), database.is_some()];
        for (key, _) in ["username", "password", "tls", "database"].iter().zip(parts).filter(|(_, given)| *given) {
            section.fault_at(key, "is part of the URL: redis://user:password@host:6379/0, or rediss:// for TLS");
        }
    }
    if given[2] && database.is_some_and(|database| database != 0) {
        section.fault_at("database", "a cluster has only database 0");
    }
    let access = RedisAccess { username, password, tls: tls.unwrap_or(false), database: database.unwrap_or(0) };
    let sentinel = section.maybe("sentinel", |sentinel| sentinels(&sentinel.table()?, &access));
    let (name, servers) = match given {
        [true, false, false] => (names[0], RedisServers::Url(url?)),
        [false, true, false] => (names[1], sentinel?),
        [false, false, true] => (names[2], RedisServers::Cluster { nodes: cluster?, access }),
        [false, false, false] => {
            section.fault_at(
                "url",
                "missing; give { env = \"NAME\" } or { file = \"PATH\" } with a URL such as \
                 redis://user:password@host:6379/0, or `sentinel`, or `cluster`",
            );
            return None;
        }
        _ => {
            section.fault("give one of url, sentinel and cluster");
            return None;
        }
    };
    Some(RedisTarget { name, servers, extra_ca })
}

fn sentinels(sentinel: &Section<'_>, access: &RedisAccess) -> Option<RedisServers> {
    let missing = "missing; give the name under which the sentinels watch the primary";
    let master = sentinel.must("master", missing, |name| name.text().map(str::to_owned));
    let nodes = sentinel.must("nodes", "missing; give a list of sentinels, \"host:26379\" each", servers);
    let username = sentinel.maybe("username", |name| name.text().map(str::to_owned));
    let password = sentinel.maybe("password", Entry::secret);
    Some(RedisServers::Sentinel { master: master?, nodes: nodes?, username, password, access: access.clone() })
}

fn servers(list: &Entry<'_>) -> Option<Vec<ServerAddress>> {
    list.each(1..=MOST_SERVERS, Entry::parsed)
}

fn url(entry: &Entry<'_>) -> Option<SecretString> {
    let url = entry.secret()?;
    if entry.skips_secrets() {
        return Some("redis://localhost".to_owned().into());
    }
    // The library's own error may quote the password.
    if ::redis::parse_redis_url(url.expose_secret()).is_none() {
        entry.fault("the secret must be a URL such as redis://user:password@host:6379/0, or rediss:// for TLS");
        return None;
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use std::path::Path;

    fn parsed(redis: &str) -> Result<Redis, String> {
        let text = format!(
            "[state]\nroot_key = {{ env = \"K\" }}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"DATA\" }} }}]\n\
             [state.redis]\n{redis}\n[accounts.live]\napi_key = {{ env = \"A\" }}\n"
        );
        let env = |name: &str| match name {
            "K" => Some("1a".repeat(32)),
            "DATA" => Some("2b".repeat(32)),
            "URL" => Some("redis://:a-secret@127.0.0.1:6379/2".to_owned()),
            _ => Some("a-secret".to_owned()),
        };
        match Settings::parse(&text, Path::new("."), &env) {
            Ok(settings) => Ok(settings.state.redis.expect("a Redis")),
            Err(faults) => Err(faults.to_string()),
        }
    }

    #[test]
    fn each_form_is_read_and_named() {
        for (text, name) in [
            ("url = { env = \"URL\" }", "state.redis.url"),
            ("sentinel = { master = \"m\", nodes = [\"a:1\"] }\ntls = true\ndatabase = 3", "state.redis.sentinel"),
            ("cluster = [\"a:1\", \"[::1]:2\"]\nusername = \"u\"\npassword = { env = \"P\" }", "state.redis.cluster"),
        ] {
            let redis = parsed(text).expect("good");
            assert_eq!((redis.main.name, redis.cache.is_none(), redis.replicas), (name, true, 0), "{text}");
        }
        let redis = parsed("cluster = [\"a:1\"]\nreplicas = 2").expect("good");
        assert_eq!(redis.replicas, 2);
        let redis = parsed("url = { env = \"URL\" }\n[state.redis.cache]\ncluster = [\"[::1]:2\"]").expect("good");
        let cache = redis.cache.expect("a cache");
        assert_eq!(cache.name, "state.redis.cache.cluster");
        let RedisServers::Cluster { nodes, access } = cache.servers else { panic!("a cluster") };
        assert_eq!(nodes, [ServerAddress { host: "::1".to_owned(), port: 2 }]);
        assert_eq!((access.tls, access.database), (false, 0));
    }

    #[test]
    fn what_does_not_fit_together_is_a_fault_with_its_key() {
        for (text, fault) in [
            ("tls = true", "state.redis.url: missing"),
            ("url = { env = \"URL\" }\ncluster = [\"a:1\"]", "state.redis: give one of url, sentinel and cluster"),
            ("url = { env = \"URL\" }\ndatabase = 1", "state.redis.database: is part of the URL"),
            ("cluster = [\"a:1\"]\ndatabase = 1", "state.redis.database: a cluster has only database 0"),
            ("cluster = [\"a\"]", "state.redis.cluster[0]: must be a host and a port"),
            ("cluster = [\"a:1\"]\nreplicas = -1", "state.redis.replicas: must be a whole number from 0 to 16"),
            ("cluster = []", "state.redis.cluster: must have 1 to 16 members"),
            ("sentinel = { nodes = [\"a:1\"] }", "state.redis.sentinel.master: missing"),
            (
                "sentinel = { master = \"m\", nodes = [\"redis://a:1\"] }",
                "state.redis.sentinel.nodes[0]: must be a host",
            ),
            (
                "url = { env = \"URL\" }\ncache_url = { env = \"URL\" }\n[state.redis.cache]\nurl = { env = \"URL\" }",
                "state.redis.cache_url: give this or [state.redis.cache]",
            ),
        ] {
            let faults = parsed(text).expect_err(text);
            assert!(faults.lines().any(|line| line.trim_start().starts_with(fault)), "{fault}: {faults}");
            assert!(!faults.contains("a-secret"), "{faults}");
        }
    }
}
