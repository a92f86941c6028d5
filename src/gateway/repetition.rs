//! The repetition of a request with an idempotency key: its body is read and compared, and the kept answer is given.

use super::claim::Repetition;
use super::exchange::Exchange;
use super::received::Received;
use crate::reference::BodyError;
use crate::reply::{KeyConflict, Rejection};
use crate::telemetry::CacheOutcome;
use crate::upstream::{Outgoing, OutgoingBody};
use http_body_util::BodyExt as _;
use std::time::Duration;

/// The bytes by which a repetition may be longer than the request: the framing of multipart bodies differs.
const FRAMING: u64 = 64 << 10;

impl Exchange<'_> {
    /// Gives the kept answer for a request that is not sent, if its body is the same.
    pub(super) async fn repeat(&mut self, repetition: Repetition, outgoing: Outgoing) -> Result<Received, Rejection> {
        read(outgoing.body, &repetition, self.config.upstream.timeouts().idle).await?;
        // A body that was refused has no fingerprint; the refusal is the reason then.
        let made = repetition.body.made().ok_or(BodyError::CutOff)?;
        if made.hash != repetition.kept.hash {
            return Err(KeyConflict::Reused.into());
        }
        self.log.cache = CacheOutcome::Replayed;
        Ok(Received::new(repetition.kept.answer, &self.gateway.persons))
    }
}

/// Reads a body to its end, and keeps nothing of it. `idle` bounds each pause of the client, as for a body that is
/// forwarded.
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
