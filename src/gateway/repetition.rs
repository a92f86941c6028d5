//! The repetition of a request with an idempotency key: its body is compared, and the stored answer is returned.

use super::claim::Repetition;
use super::exchange::Exchange;
use super::received::Received;
use crate::reference::BodyError;
use crate::reply::{KeyConflict, Rejection};
use crate::telemetry::CacheOutcome;
use crate::upstream::{Outgoing, OutgoingBody};
use http_body_util::BodyExt as _;
use std::time::Duration;

/// The number of bytes by which a repetition may be longer than the first request. The boundaries and part headers of
/// multipart bodies may differ.
const FRAMING: u64 = 64 << 10;

impl Exchange<'_> {
    /// Returns the stored answer of the first request, if the bodies are the same. Nothing is sent to Iluma.
    pub(super) async fn repeat(&mut self, repetition: Repetition, outgoing: Outgoing) -> Result<Received, Rejection> {
        read(outgoing.body, &repetition, self.config.upstream.timeouts().idle).await?;
        // A refused body has no fingerprint. The caller then reports the refusal instead of this error.
        let made = repetition.body.made().ok_or(BodyError::CutOff)?;
        if made.hash != repetition.kept.hash {
            return Err(KeyConflict::Reused.into());
        }
        self.log.cache = CacheOutcome::Replayed;
        Ok(Received::new(repetition.kept.answer, &self.gateway.persons))
    }
}

/// Reads a body to its end without storing it, so that its fingerprint is made. `idle` bounds each pause of the client,
/// as for a body that is forwarded.
async fn read(mut body: OutgoingBody, repetition: &Repetition, idle: Duration) -> Result<(), Rejection> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::TooSlow)?;
        match frame {
            None => return Ok(()),
            Some(Err(_)) => return Err(BodyError::CutOff.into()),
            Some(Ok(_)) if repetition.body.length() > repetition.kept.length.saturating_add(FRAMING) => {
                return Err(KeyConflict::Reused.into());
            }
            Some(Ok(_)) => {}
        }
    }
}
