//! Authentication: by the key of a request, or below `/_gateway/` by a session of the team portal.
//!
//! Invariants: a session never opens Iluma's routes; it ends with the key that opened it; only wrong keys are counted.

use super::core::Gateway;
use super::request_log::RequestLog;
use super::runtime::RuntimeConfig;
use crate::base::auth_failures::Authenticating;
use crate::iluma::routes::PORTAL;
use crate::pages::{self, Session};
use crate::reply::Rejection;
use crate::state::KeyTable;
use crate::tenant::{Authenticated, Unauthenticated};
use http::{HeaderMap, Method};
use std::time::SystemTime;

/// The name of the cookie of the portal's sessions.
pub(super) const COOKIE: &str = "iluma_gateway_portal";

/// The parts of a request that authenticate it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credentials<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// The path in normal form.
    pub(super) path: &'a str,
    pub(super) time: SystemTime,
}

/// Returns the team of a request, also if the team is suspended. A key counts before a session.
pub(super) fn authenticate<'t, 'k>(
    gateway: &Gateway,
    config: &'t RuntimeConfig,
    given: Credentials<'_>,
    keys: &'k KeyTable,
) -> Result<Authenticated<'t, 'k>, Unauthenticated> {
    match config.tenants.authenticate(given.headers, keys, given.time) {
        Err(Unauthenticated::Missing) if is_own(given.path) => {
            let session = session(gateway, config, given, keys);
            session.map(|session| session.standing).ok_or(Unauthenticated::Missing)
        }
        known => known,
    }
}

/// Returns the portal's session of a request, if it has one whose key still works.
pub(super) fn session<'t, 'k>(
    gateway: &Gateway,
    config: &'t RuntimeConfig,
    given: Credentials<'_>,
    keys: &'k KeyTable,
) -> Option<Session<Authenticated<'t, 'k>>> {
    pages::session(&gateway.sessions, COOKIE, (given.method, given.headers), |name, sha256| {
        let known = config.tenants.with_key(sha256, keys, given.time).ok();
        known.filter(|known| known.tenant.name.as_str() == name)
    })
}

/// Counts a wrong key, and returns its refusal. A request without a key is no attempt to guess one.
pub(super) fn unauthenticated(gateway: &Gateway, log: &RequestLog, error: Unauthenticated) -> Rejection {
    let client = log.client.filter(|_| error != Unauthenticated::Missing);
    match client.map(|client| gateway.failures.note(Authenticating::Server, client)) {
        Some(Err(wait)) => Rejection::TooManyFailures(wait),
        Some(Ok(())) | None => error.into(),
    }
}

/// Returns true for the paths below the portal: the team's own API.
fn is_own(path: &str) -> bool {
    path.strip_prefix(PORTAL).is_some_and(|rest| rest.starts_with('/'))
}
