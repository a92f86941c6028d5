//! The claim of an idempotency key. Its guard is made before the claim, and writes the claim's end to state.
//!
//! Invariants:
//! - A claim has one guard, and ends when the guard is dropped, also if the request is cancelled.
//! - A claim whose call was not sent ends as free.
//! - Once the call may have been sent, the claim ends as unknown. Exceptions: the answer decides the end, or Iluma is
//!   known to have processed nothing.

use super::kept_answer::{Decision, KeptAnswer, decide};
use super::persons_in::persons_in;
use super::received::Received;
use crate::base::tasks::Tasks;
use crate::iluma::person::{Persons, Tag};
use crate::iluma::route_name::RouteName;
use crate::reference::{Fingerprinting, Readable};
use crate::state::{ClaimEnd, ClaimId, Claiming, State, StateError};
use http::HeaderValue;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// The pause after a failed attempt to write a claim's end, before the next attempt.
const REST: Duration = Duration::from_secs(1);
/// The largest number of attempts to write the end. Without an end in state the key is refused until its retention
/// ends.
const MOST_ATTEMPTS: usize = 30;

/// The role of a request with an idempotency key.
#[derive(Debug)]
pub(super) enum Idempotency {
    /// The request is the first with its key, and makes the call.
    Claim(Box<ClaimGuard>),
    /// The request repeats an earlier one. It gets the stored answer if both requests have the same body.
    Repetition(Repetition),
}

/// The stored answer to the first request, and the fingerprint of the second request's body, which is made while that
/// body is read.
#[derive(Debug)]
pub(super) struct Repetition {
    pub(super) kept: KeptAnswer,
    pub(super) body: Arc<Fingerprinting>,
}

/// The facts about a request that its claim needs once the answer has arrived.
#[derive(Debug, Default)]
pub(super) struct ClaimedRequest {
    pub(super) body: Arc<Fingerprinting>,
    pub(super) content_type: Option<HeaderValue>,
    /// The persons that the request's path names.
    pub(super) in_path: BTreeSet<Tag>,
}

/// The guard of a claim. When it is dropped, it writes the end of the claim.
#[derive(Debug)]
pub(super) struct ClaimGuard {
    state: State,
    tasks: Tasks,
    persons: Persons,
    id: ClaimId,
    asked: SystemTime,
    pub(super) request: ClaimedRequest,
    /// The end that is written if the guard is dropped now; `None` if another request has the key, so that nothing is
    /// written.
    end: Option<ClaimEnd>,
    ended: Option<oneshot::Sender<()>>,
}

impl ClaimGuard {
    /// Creates the guard before the claim is stored, so that the claim ends even if the request is cancelled meanwhile.
    /// The returned receiver completes once the guard has written the claim's end, or has stopped trying.
    pub(super) fn before(
        (state, persons): (&State, &Persons),
        tasks: &Tasks,
        claiming: &Claiming,
        asked: SystemTime,
    ) -> (Self, oneshot::Receiver<()>) {
        let (ended, written) = oneshot::channel();
        let guard = Self {
            state: state.clone(),
            tasks: tasks.clone(),
            persons: persons.clone(),
            id: state.claim_of(claiming),
            asked,
            request: ClaimedRequest::default(),
            end: Some(ClaimEnd::Free),
            ended: Some(ended),
        };
        (guard, written)
    }

    /// Drops the guard and writes no end, because another request has the key.
    pub(super) fn forget(mut self) {
        self.end = None;
    }

    /// Returns the claim's id, which the ledger stores.
    pub(super) fn bytes(&self) -> [u8; 48] {
        self.id.bytes()
    }

    /// Records that the call may be sent from now on.
    pub(super) fn sent(&mut self) {
        self.end = Some(ClaimEnd::Unknown);
    }

    /// Records that nothing of the call was processed.
    pub(super) fn unsent(&mut self) {
        self.end = Some(ClaimEnd::Free);
    }

    /// Ends the claim. The answer decides the end.
    pub(super) fn answered(mut self, route: RouteName, received: &Received) {
        self.end = Some(match decide(route, received) {
            Decision::Keep => self.kept(received),
            Decision::Free => ClaimEnd::Free,
            Decision::Unknown => ClaimEnd::Unknown,
        });
    }

    /// Returns the claim's end for an answer that repetitions should get. The answer is stored only if it is not too
    /// large, the request's whole body was read, and the persons in that body are known.
    fn kept(&self, received: &Received) -> ClaimEnd {
        let asks = self.request.body.made();
        if asks.is_none() && !received.is_success() {
            // Iluma refused the request before it had read the whole body.
            return ClaimEnd::Free;
        }
        let Some(made) = asks else { return ClaimEnd::NotKept };
        let mut tags = match &made.readable {
            Readable::Text(text) => persons_in(&self.persons, self.request.content_type.as_ref(), text),
            Readable::Fields(fields) => {
                // A curl example in Iluma's API document puts quotes around values.
                let plain = fields.iter().map(|(name, value)| (name.as_str(), value.trim_matches('"')));
                self.persons.in_fields(plain)
            }
            Readable::Nothing => return ClaimEnd::NotKept,
        };
        tags.extend(received.answer.persons());
        tags.extend(&self.request.in_path);
        let kept = KeptAnswer { hash: made.hash, length: made.length, answer: received.collected.clone() };
        match kept.encode() {
            Some(content) => ClaimEnd::Answered { content, tags: tags.into_iter().collect(), asked: self.asked },
            None => ClaimEnd::NotKept,
        }
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the claim's end can't be written. The key is then refused until its
        // retention ends.
        if let Some(end) = self.end.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let (state, id, ended) = (self.state.clone(), self.id, self.ended.take());
            self.tasks.spawn(async move {
                write_end(&state, &id, &end).await;
                drop(ended);
            });
        }
    }
}

/// Writes the end of a claim to state. While state is unavailable, retries for half a minute.
pub(super) async fn write_end(state: &State, id: &ClaimId, end: &ClaimEnd) {
    for _ in 0..MOST_ATTEMPTS {
        match state.end_claim(id, end.clone()).await {
            Ok(_) => return,
            Err(StateError::Refused) => break,
            Err(StateError::Unavailable) => tokio::time::sleep(REST).await,
        }
    }
    tracing::warn!(
        "cannot store the outcome of a request with an Idempotency-Key: further requests with this key are refused for 24 h"
    );
}
