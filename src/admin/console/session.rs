//! Finds the session of a request to the console.

use crate::config::Role;
use crate::pages::{self, Session, Sessions};
use crate::state::StateError;
use http::{HeaderMap, Method};

/// The name of the session's cookie.
pub(super) const COOKIE_NAME: &str = "iluma_gateway_session";

/// Returns the session of the request with the method and headers `asked`; `None` if the request has no valid session.
/// `role_of` gets the name of the token that opened the session, and the hash of the token's secret. It returns the
/// token's role, or `None` if no configured token has that name and hash.
///
/// # Errors
/// Returns an error if state can't be read, and this node has no recent copy of the session.
pub(in super::super) async fn by_session(
    sessions: &Sessions,
    asked: (&Method, &HeaderMap),
    role_of: impl FnOnce(&str, &[u8; 32]) -> Option<Role>,
) -> Result<Option<Session<Role>>, StateError> {
    pages::session(sessions, COOKIE_NAME, asked, role_of).await
}
