//! The inbox: it checks, stores and answers the callbacks that Iluma posts.
//!
//! Invariants: the answer is 200 only once the callback is durable, and 503 if it can't be stored; no body is read from
//! a peer without a valid token; an answer reveals nothing of the configuration except that a path exists.

use super::admission::Admission;
use super::events::{Arrived, Note};
use super::service::Callbacks;
use crate::base::auth_failures::Authenticating;
use crate::base::name::AccountName;
use crate::base::peer::Client;
use crate::base::web::{self, Bounds, whole_body};
use crate::iluma::callback_body::CallbackBody;
use crate::iluma::callback_type::CallbackType;
use crate::state::{Callback, ReceiveOutcome, StateError};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::HeaderMap;
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq as _};

/// The largest body that is accepted, in bytes: results have some kilobytes, and pictures are links.
pub const MOST_BYTES: usize = 1 << 20;

/// The longest wait for a slot to read a callback, and also the longest time to store a callback. Iluma itself gives up
/// after some 10 s.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The header with the token.
const TOKEN: &str = "x-callback-token";

/// The bounds of a request.
const BOUNDS: Bounds = Bounds {
    body: MOST_BYTES,
    // The time for a body of any size.
    body_deadline: Duration::from_secs(10),
    // This is longer than waiting for a slot, reading and storing together.
    answer_deadline: Duration::from_secs(25),
};

/// Returns the router of the `callbacks` listener, with all its layers. It serves `/callbacks/<account>` and
/// `/callbacks/<account>/<TYPE>`.
pub fn inbox(callbacks: Arc<Callbacks>) -> Router {
    let mut paths = Router::new();
    for path in
        ["/callbacks/{account}", "/callbacks/{account}/", "/callbacks/{account}/{type}", "/callbacks/{account}/{type}/"]
    {
        paths = paths.route(path, post(receive));
    }
    let router = paths.layer(from_fn_with_state(Arc::clone(&callbacks), allowed)).with_state(Arc::clone(&callbacks));
    let router = web::layered(
        router,
        BOUNDS,
        |status| Admission::of(status).into_response(),
        |fault| Admission::Host(fault).into_response(),
    );
    router.layer(from_fn_with_state(callbacks, counted))
}

/// Counts the result of a request.
async fn counted(State(callbacks): State<Arc<Callbacks>>, request: Request, next: Next) -> Response {
    let place = callbacks.place(request.uri().path());
    let response = next.run(request).await;
    let admission = response.extensions().get::<Admission>().copied();
    let admission = admission.unwrap_or_else(|| Admission::of(response.status()));
    let (account, kind) = place.as_ref().map_or((None, None), |(account, kind)| (Some(account), *kind));
    (callbacks.hooks.note)(Note::Received(account, kind, admission));
    response
}

/// Lets a request pass if its client is in one of the networks that callbacks may come from. Refuses every other
/// request.
async fn allowed(State(callbacks): State<Arc<Callbacks>>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().map(|client| client.address);
    if !is_allowed(callbacks.config.load().allow.as_deref(), client) {
        return Admission::Address.into_response();
    }
    next.run(request).await
}

/// Returns true if callbacks may come from an address: it is in one of the networks, or no networks are configured.
fn is_allowed(networks: Option<&[IpNet]>, client: Option<IpAddr>) -> bool {
    let Some(networks) = networks else { return true };
    client.is_some_and(|client| networks.iter().any(|network| network.contains(&client)))
}

/// Receives one callback.
async fn receive(State(callbacks): State<Arc<Callbacks>>, request: Request) -> Result<Admission, Admission> {
    let (account, kind) = callbacks.place(request.uri().path()).ok_or(Admission::Unknown)?;
    callbacks.admit(account, kind, request).await
}

impl Callbacks {
    /// Returns the account and the callback type that a path names; the type is `None` if the path has none. Returns
    /// `None` if there is no such path or account.
    fn place(&self, path: &str) -> Option<(AccountName, Option<CallbackType>)> {
        let rest = path.strip_prefix("/callbacks/")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (account, kind) = match rest.split_once('/') {
            Some((account, kind)) => (account, Some(kind.parse().ok()?)),
            None => (rest, None),
        };
        let account = account.parse().ok()?;
        self.config.load().accounts.contains_key(&account).then_some((account, kind))
    }

    /// Returns the refusal of a request without a valid token, and counts a wrong token against its client.
    fn unauthorized(&self, request: &Request) -> Admission {
        let client = request.extensions().get::<Client>().filter(|_| request.headers().contains_key(TOKEN));
        match client.map(|client| self.hooks.failures.note(Authenticating::Callbacks, client.address)) {
            Some(Err(wait)) => Admission::TooManyFailures(wait.as_secs() + 1),
            Some(Ok(())) | None => Admission::Unauthorized,
        }
    }

    async fn admit(
        &self,
        account: AccountName,
        kind: Option<CallbackType>,
        request: Request,
    ) -> Result<Admission, Admission> {
        let config = self.config.load_full();
        let tokens = config.accounts.get(&account).map_or(&[][..], |account| &account.tokens);
        if !carries(request.headers(), tokens) {
            return Err(self.unauthorized(&request));
        }
        let place = tokio::time::timeout(STORE_TIMEOUT, self.reading.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(Admission::Overloaded)?;
        let bytes = whole_body(request).await?;
        let CallbackBody { id, any_id: Some(any_id), .. } = CallbackBody::parse(&bytes)? else {
            return Ok(Admission::Test);
        };
        let tags = self.hooks.persons.in_json(&bytes).into_iter().collect();
        let callback = Callback { account: account.clone(), kind, id: any_id, body: bytes.clone(), tags };
        // A peer that gets no answer in time sends the callback again, and it is recognised as a repeat.
        let stored = tokio::time::timeout(STORE_TIMEOUT, self.state.receive(callback)).await;
        match stored.unwrap_or(Err(StateError::Unavailable)) {
            Ok(outcome) => {
                // If the channel is full, the cache learns the result later; the callback is delivered all the same.
                // The cache learns nothing from a body that has its id in an unusual place. It also learns from a
                // repeat, because the first copy may not have been acknowledged.
                if let Some(id) = id {
                    let _ = self.arrived.try_send(Arrived { account, kind, id, body: bytes });
                }
                Ok(match outcome {
                    ReceiveOutcome::New => Admission::Stored,
                    ReceiveOutcome::Repeat => Admission::Repeat,
                })
            }
            Err(_) => Err(Admission::NotStored),
        }
    }
}

/// Returns true if the request has exactly one token header, and its value is one of `tokens`. The value is compared
/// with all tokens, by hashes and in constant time, so that not even a length is revealed.
fn carries(headers: &HeaderMap, tokens: &[SecretString]) -> bool {
    let mut values = headers.get_all(TOKEN).iter();
    let (Some(given), None) = (values.next(), values.next()) else { return false };
    let hash = |text: &[u8]| -> [u8; 32] { Sha256::digest(text).into() };
    let given = hash(given.as_bytes());
    let known = tokens.iter().map(|token| hash(token.expose_secret().as_bytes()).ct_eq(&given));
    known.fold(Choice::from(0), |found, same| found | same).into()
}
