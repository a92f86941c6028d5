//! The check of the admin token, before all paths that name a team.

use super::answer::Refusal;
use super::context::Context;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// Passes requests that carry the admin token on.
pub(super) async fn needs_token(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let refusal = match context.token() {
        None => Refusal::Off,
        Some(token) if !bears(request.headers(), &token) => Refusal::Unauthorized,
        Some(_) => return next.run(request).await,
    };
    refusal.into_response()
}

/// Returns true if the request carries the token, once. Hashes are compared, so that not even the token's length is
/// revealed.
fn bears(headers: &HeaderMap, token: &SecretString) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let given = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let hash = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
    given.is_some_and(|given| hash(given).ct_eq(&hash(token.expose_secret())).into())
}
