//! Checks the token or the session of each request for a path of the API that needs one.

use super::answer::Refusal;
use super::console;
use super::context::Context;
use super::tokens::Token;
use crate::base::auth_failures::Authenticating;
use crate::base::peer::Client;
use crate::config::Role;
use crate::state::StateError;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The operator who sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name of the operator's token.
    pub(super) token: Arc<str>,
    pub(super) role: Role,
    pub(super) peer: Option<IpAddr>,
    /// True once the request's order is in the audit log.
    recorded: Arc<AtomicBool>,
}

impl Caller {
    pub(super) fn record(&self) {
        self.recorded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }
}

/// Returns the name and the role of a request's token. The request carries the token itself, or has a session that the
/// token opened. Returns `None` if the request has neither.
///
/// # Errors
/// Returns an error if the request has a session, and state can't be read.
pub(super) async fn identify(
    context: &Context,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<(Arc<str>, Role)>, StateError> {
    let config = context.config();
    if let Some(Token { name, role, .. }) = config.tokens.find(headers) {
        return Ok(Some((Arc::clone(name), *role)));
    }
    let role_of = |name: &str, hash: &[u8; 32]| config.tokens.role_of(name, hash);
    let session = console::by_session(&context.sessions, (method, headers), role_of).await?;
    Ok(session.map(|session| (session.holder, session.standing)))
}

/// Lets requests with a valid token or session pass, and adds the [`Caller`] to them. Refuses other requests, and
/// counts wrong tokens by the client's address.
pub(super) async fn needs_token(State(context): State<Arc<Context>>, mut request: Request, next: Next) -> Response {
    let config = context.config();
    if config.tokens.is_empty() {
        return Refusal::Off.into_response();
    }
    let peer = request.extensions().get::<Client>().map(|client| client.address);
    let known = match identify(&context, request.method(), request.headers()).await {
        Ok(known) => known,
        Err(error) => return Refusal::sessions(error).into_response(),
    };
    let Some((token, role)) = known else {
        let client = peer.filter(|_| request.headers().contains_key(AUTHORIZATION));
        let noted = client.map(|client| context.orders.failures.note(Authenticating::Admin, client));
        return match noted {
            Some(Err(wait)) => Refusal::TooManyFailures(wait).into_response(),
            Some(Ok(())) | None => Refusal::Unauthorized.into_response(),
        };
    };
    let caller = Caller { token, role, peer, recorded: Arc::default() };
    request.extensions_mut().insert(caller);
    next.run(request).await
}
