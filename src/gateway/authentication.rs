//! Authentication: by the key of a request, or below `/_gateway/` by a session of the team portal.
//!
//! Invariants:
//! - A session gives no access to Iluma's routes.
//! - A session ends when the key that opened it ends.
//! - A wrong or malformed key counts as a failure of the client. A missing key does not.

use super::core::Gateway;
use super::request_log::RequestLog;
use super::runtime::RuntimeConfig;
use crate::base::auth_failures::Authenticating;
use crate::iluma::routes::PORTAL;
use crate::pages::{self, Session};
use crate::reply::Rejection;
use crate::state::KeyTable;
use crate::tenant::{Authenticated, Unauthenticated};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use std::time::SystemTime;

/// The name of the cookie of the portal's sessions.
pub(super) const COOKIE: &str = "iluma_gateway_portal";

/// A session of the team portal. Its `standing` is the SHA-256 of the key that opened it.
pub(super) type KeySession = Session<[u8; 32]>;

/// The parts of a request that authenticate it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credentials<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// The path in normal form.
    pub(super) path: &'a str,
    pub(super) time: SystemTime,
}

/// Returns the team and the key of a request, even if the team is suspended. The session counts only if the request has
/// no key.
pub(super) fn authenticate<'t, 'k>(
    config: &'t RuntimeConfig,
    given: Credentials<'_>,
    session: Option<&KeySession>,
    keys: &'k KeyTable,
) -> Result<Authenticated<'t, 'k>, Unauthenticated> {
    match (config.tenants.authenticate(given.headers, keys, given.time), session) {
        (Err(Unauthenticated::Missing), Some(session)) => {
            let known = config.tenants.with_key(&session.standing, keys, given.time);
            known.map_err(|_| Unauthenticated::Missing)
        }
        (known, _) => known,
    }
}

/// Returns the portal session of a request for the team's own API; `None` if the request has no valid session. During
/// the look-up the request counts as a request without a key. The number of such requests in flight is limited.
///
/// # Errors
/// Returns a refusal if too many requests without a key are in flight, or if state can't be read.
pub(super) async fn own_session(
    gateway: &Gateway,
    config: &RuntimeConfig,
    given: Credentials<'_>,
) -> Result<Option<KeySession>, Rejection> {
    let _place = config.limits.admit_anonymous()?;
    session(gateway, config, given).await
}

/// Returns true if a session may authenticate the request: the request is for the team's own API, and has no
/// `authorization` header.
pub(super) fn may_have_session(given: Credentials<'_>) -> bool {
    is_own(given.path) && !given.headers.contains_key(AUTHORIZATION)
}

/// Returns the portal session of a request. `None` if there is no session, or if the key of the session no longer
/// works.
///
/// # Errors
/// Returns a refusal if the request has a session, and state can't be read.
pub(super) async fn session(
    gateway: &Gateway,
    config: &RuntimeConfig,
    given: Credentials<'_>,
) -> Result<Option<KeySession>, Rejection> {
    let standing = |name: &str, sha256: &[u8; 32]| {
        let keys = gateway.registry.table();
        let known = config.tenants.with_key(sha256, &keys, given.time).ok()?;
        (known.tenant.name.as_str() == name).then_some(*sha256)
    };
    let session = pages::session(&gateway.sessions, COOKIE, (given.method, given.headers), standing).await;
    session.map_err(|_| Rejection::SessionsUnavailable)
}

/// Counts a wrong or malformed key as a failure of its client. A request without a key is not counted, because it does
/// not guess a key. Returns the refusal of the request.
pub(super) fn unauthenticated(gateway: &Gateway, log: &RequestLog, error: Unauthenticated) -> Rejection {
    let client = log.client.filter(|_| error != Unauthenticated::Missing);
    match client.map(|client| gateway.failures.note(Authenticating::Server, client)) {
        Some(Err(wait)) => Rejection::TooManyFailures(wait),
        Some(Ok(())) | None => error.into(),
    }
}

/// Returns true for a path below `/_gateway/`: such a path belongs to the team's own API.
fn is_own(path: &str) -> bool {
    path.strip_prefix(PORTAL).is_some_and(|rest| rest.starts_with('/'))
}
