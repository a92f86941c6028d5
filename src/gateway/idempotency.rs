//! Requests that may carry an `Idempotency-Key`: one call, however often the request is sent.
//!
//! A key is claimed before the request is served. A repeated request passes the same stages as the first one, and gets
//! the stored answer instead of a call. Invariant: keys change nothing for a request without a key.

use super::claim::{ClaimGuard, ClaimedRequest, Idempotency, Repetition};
use super::exchange::Exchange;
use super::kept_answer::KeptAnswer;
use super::persons_in::persons_in_path;
use super::{streamed, submission};
use crate::base::keyring::random;
use crate::iluma::routes::Kind;
use crate::reference::{FingerprintedBody, Fingerprinting, IDEMPOTENT_REPLAYED, IdempotencyKey, content_class};
use crate::reply::{KeyConflict, Rejection, ReplyBody};
use crate::state::{Claimed, Claiming};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// The longest time for which an answer waits until the end of its claim is in state.
const CLAIM_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves a request. If it has an idempotency key, and its row of the route table takes keys, the key is claimed first.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let takes_keys = exchange.route.name.spec().idempotent;
    let key = if takes_keys { IdempotencyKey::of(request.headers()).map_err(KeyConflict::from)? } else { None };
    let Some(key) = key else { return handle(&mut exchange, request.map(FingerprintedBody::plain)).await };
    let claiming = Claiming {
        tenant: exchange.tenant.name.clone(),
        key: key.as_bytes().into(),
        request: identity(request.method(), &exchange, request.headers()),
        holder: exchange.gateway.holder.clone(),
        token: random(),
    };
    let gateway = Arc::clone(exchange.gateway);
    let (mut claim, written) =
        ClaimGuard::before((&gateway.state, &gateway.persons), &gateway.tasks, &claiming, exchange.log.asked());
    let claimed = gateway.state.claim_key(&claiming).await.map_err(|_| KeyConflict::Unavailable)?;
    let (request, body) = fingerprinted(&exchange, request);
    match claimed {
        Claimed::New => {
            let content_type = request.headers().get(CONTENT_TYPE).cloned();
            let in_path = persons_in_path(&exchange.gateway.persons, exchange.route.target.path());
            claim.request = ClaimedRequest { body, content_type, in_path };
            exchange.idempotency = Some(Idempotency::Claim(Box::new(claim)));
            let response = handle(&mut exchange, request).await;
            // A client that has its answer may send the request again at once.
            let _ = tokio::time::timeout(CLAIM_END_TIMEOUT, written).await;
            response
        }
        claimed => {
            claim.forget();
            let kept = repeated(claimed)?;
            exchange.idempotency = Some(Idempotency::Repetition(Repetition { kept, body }));
            let mut response = handle(&mut exchange, request).await?;
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
    }
}

async fn handle(
    exchange: &mut Exchange<'_>,
    request: Request<FingerprintedBody<Incoming>>,
) -> Result<Response<ReplyBody>, Rejection> {
    if exchange.route.kind == Kind::Submission {
        submission::serve(exchange, request).await
    } else {
        streamed::forward(exchange, request).await
    }
}

/// Returns the hash of a request without its body. A repetition must have the same hash.
fn identity(method: &Method, exchange: &Exchange<'_>, headers: &HeaderMap) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), exchange.route.target.as_str().as_bytes(), &content_class(headers)] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Returns the request with a body that is fingerprinted while it is read. The second value gets the fingerprint at the
/// end of the body.
fn fingerprinted(
    exchange: &Exchange<'_>,
    request: Request<Incoming>,
) -> (Request<FingerprintedBody<Incoming>>, Arc<Fingerprinting>) {
    let (parts, body) = request.into_parts();
    let permit = exchange.log.permit();
    let room = Box::new(move |bytes| permit.as_ref().is_some_and(|permit| permit.hold(bytes)));
    let (body, fingerprint) = FingerprintedBody::new(&parts.headers, body, room);
    (Request::from_parts(parts, body), fingerprint)
}

/// Returns the stored answer for a repetition. The caller must still compare the bodies of the two requests. Returns an
/// error if no answer is stored.
fn repeated(claimed: Claimed) -> Result<KeptAnswer, KeyConflict> {
    match claimed {
        Claimed::Answered(content) => KeptAnswer::decode(content).ok_or(KeyConflict::NotKept),
        Claimed::New | Claimed::InFlight => Err(KeyConflict::InFlight),
        Claimed::Unknown => Err(KeyConflict::OutcomeUnknown),
        Claimed::NotKept => Err(KeyConflict::NotKept),
        Claimed::Erased => Err(KeyConflict::Erased),
        Claimed::OtherRequest => Err(KeyConflict::Reused),
    }
}
