//! A look at a Redis before it is used: the faults that make it of no use, told apart by their cause.

use super::client;
use crate::config::RedisTarget;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult};
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// The longest time that a look takes: where all is well it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The oldest version that has every command that the gateway uses (GETEX, COPY and the arguments of EXPIRE).
const OLDEST: (u32, u32) = (6, 2);

/// What speaks against a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// It cannot work, today or tomorrow.
    Fault(String),
    /// It does not work now.
    Warning(String),
}

/// Looks at a Redis; returns what speaks against it, if anything does.
pub async fn look(target: &RedisTarget) -> Option<Objection> {
    let place = place(target);
    match tokio::time::timeout(PATIENCE, ask(target)).await {
        Ok(Ok(info)) => unusable(&info).map(|problem| Objection::Fault(format!("Redis at {place}: {problem}"))),
        Ok(Err(error)) => Some(match cause(error.code(), &error.to_string()) {
            Objection::Fault(problem) => Objection::Fault(format!("Redis at {place}: {problem}")),
            Objection::Warning(problem) => Objection::Warning(format!("Redis at {place}: {problem}")),
        }),
        Err(_) => {
            let problem =
                format!("Redis at {place}: no answer within {} s: is a firewall between?", PATIENCE.as_secs());
            Some(Objection::Warning(problem))
        }
    }
}

/// Returns host and port, without user and password.
fn place(target: &RedisTarget) -> String {
    let url = redis::parse_redis_url(target.url.expose_secret());
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or("its socket").to_owned();
    let port = url.as_ref().and_then(|url| url.port()).unwrap_or(6379);
    format!("{host}:{port}")
}

/// Connects, runs a script, and returns what Redis says of itself.
async fn ask(target: &RedisTarget) -> RedisResult<String> {
    let client = client::open(target)?;
    let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection: MultiplexedConnection = client.get_multiplexed_async_connection_with_config(&settings).await?;
    let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
    let script = redis::cmd("EVAL").arg("return 1").arg(0).query_async::<i64>(&mut connection).await;
    script.map_err(|error| match error.code() {
        // A replica or a busy server runs it later.
        Some("NOPERM" | "ERR") | None => RedisError::from((redis::ErrorKind::InvalidClientConfig, NO_SCRIPTS)),
        Some(_) => error,
    })?;
    Ok(info)
}

/// The description of a Redis that runs no scripts.
const NO_SCRIPTS: &str = "it runs no scripts";

/// Tells an error's cause.
fn cause(code: Option<&str>, text: &str) -> Objection {
    let fault = |problem: &str| Objection::Fault(problem.to_owned());
    match code {
        Some("NOAUTH") => fault(
            "NOAUTH: it wants a password, and the URL has none; write redis://:PASSWORD@HOST:6379/0, with a user before the \
             colon if it has users",
        ),
        Some("WRONGPASS") => fault("WRONGPASS: the URL's user or password is wrong, or the user is switched off"),
        Some("NOPERM") => fault("NOPERM: its user may not do this; allow +@all on the keys of the gateway"),
        Some("LOADING") => {
            Objection::Warning("LOADING: it reads its data from the disk and is not ready yet".to_owned())
        }
        Some("READONLY") => fault("READONLY: it is a replica, which takes no writes; give the URL of its primary"),
        Some(code @ ("MOVED" | "CLUSTERDOWN" | "CROSSSLOT")) => {
            Objection::Fault(format!("{code}: it is a cluster, and the URL must be that of one Redis"))
        }
        _ if text.contains(NO_SCRIPTS) => {
            fault("it runs no scripts (EVAL), which the gateway needs; allow +@scripting to its user")
        }
        _ if text.contains("HELLO") => fault("it does not know HELLO: the gateway needs version 6.2 or newer"),
        _ if text.contains("switch database") => fault("it has no database of the number at the end of the URL"),
        _ if text.contains("certificate") || text.contains("UnknownIssuer") || text.contains("NotValidForName") => {
            fault(
                "its certificate is not trusted, or is not for this host; give the CA's file as state.redis.extra_ca, and the \
             name that stands in the certificate as the host",
            )
        }
        _ if text.contains("AuthenticationFailed") || text.contains("authentication failed") => {
            fault("its user or password is wrong")
        }
        Some(code) => Objection::Warning(format!("it answers {code}")),
        None => Objection::Warning("it can't be reached: is it running, and is this its address?".to_owned()),
    }
}

/// Tells why a Redis that says this of itself is of no use.
fn unusable(info: &str) -> Option<String> {
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match value("redis_mode") {
        Some("sentinel") => return Some("it is a sentinel, not a Redis: give the URL of its primary".to_owned()),
        Some("cluster") => return Some("it is a cluster, and the URL must be that of one Redis".to_owned()),
        _ => {}
    }
    if value("role") == Some("slave") {
        return Some("it is a replica, which takes no writes; give the URL of its primary".to_owned());
    }
    let version = value("redis_version")?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let known = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (known < OLDEST)
        .then(|| format!("version {version} is too old: the gateway needs {}.{} or newer", OLDEST.0, OLDEST.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    #[test]
    fn a_cause_is_named() {
        for (code, text, expected) in [
            (Some("NOAUTH"), "", "NOAUTH: it wants a password"),
            (Some("WRONGPASS"), "", "WRONGPASS: the URL's user or password is wrong"),
            (Some("READONLY"), "", "READONLY: it is a replica"),
            (Some("MOVED"), "", "MOVED: it is a cluster"),
            (None, "invalid peer certificate: UnknownIssuer", "its certificate is not trusted"),
            (None, NO_SCRIPTS, "it runs no scripts"),
            (None, "Redis Server doesn't support HELLO command", "it does not know HELLO"),
            (Some("ERR"), "Redis server refused to switch database", "it has no database of the number"),
        ] {
            let Objection::Fault(told) = cause(code, text) else { panic!("no fault: {code:?} {text}") };
            assert!(told.starts_with(expected), "{told}");
        }
        for (code, expected) in
            [(Some("LOADING"), "LOADING"), (Some("BUSY"), "it answers BUSY"), (None, "it can't be reached")]
        {
            let Objection::Warning(told) = cause(code, "Connection refused (os error 111)") else { panic!("{code:?}") };
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_from_what_redis_says_of_itself() {
        for (info, expected) in [
            ("redis_version:7.2.4\r\nredis_mode:standalone\r\nrole:master\r\n", None),
            ("redis_version:6.2.0\r\nrole:master\r\n", None),
            ("redis_version:6.0.16\r\nrole:master\r\n", Some("version 6.0.16 is too old")),
            ("redis_version:7.2.4\r\nrole:slave\r\n", Some("it is a replica")),
            ("redis_version:7.2.4\r\nredis_mode:cluster\r\nrole:master\r\n", Some("it is a cluster")),
            ("redis_version:7.2.4\r\nredis_mode:sentinel\r\n", Some("it is a sentinel")),
        ] {
            let told = unusable(info);
            match expected {
                Some(expected) => assert!(told.as_deref().is_some_and(|told| told.starts_with(expected)), "{told:?}"),
                None => assert_eq!(told, None, "{info}"),
            }
        }
    }

    #[tokio::test]
    async fn one_that_is_not_there_is_a_warning_with_its_place_and_without_its_password() {
        let url = SecretString::from("redis://user:5ec5e7@127.0.0.1:1/0");
        let told = look(&RedisTarget { url, extra_ca: None }).await;
        let Some(Objection::Warning(told)) = told else { panic!("{told:?}") };
        assert!(told.starts_with("Redis at 127.0.0.1:1: it can't be reached") && !told.contains("5ec5e7"), "{told}");
    }
}
