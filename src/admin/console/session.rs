//! The session of a console's request.

use crate::config::Role;
use crate::pages::{self, Session, Sessions};
use crate::state::StateError;
use http::{HeaderMap, Method};

/// The name of the session's cookie.
pub(super) const COOKIE_NAME: &str = "iluma_gateway_session";

/// Returns the session of a request, if it has a valid one. `role_of` returns the role of the token with this name, if
/// its secret still has this hash.
///
/// # Errors
/// Returns an error if state can't be read.
pub(in super::super) async fn by_session(
    sessions: &Sessions,
    asked: (&Method, &HeaderMap),
    role_of: impl FnOnce(&str, &[u8; 32]) -> Option<Role>,
) -> Result<Option<Session<Role>>, StateError> {
    pages::session(sessions, COOKIE_NAME, asked, role_of).await
}
