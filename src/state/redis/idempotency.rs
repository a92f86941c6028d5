//! Idempotency keys, stored in Redis.

use super::super::error::StateError;
use super::super::idempotency::{ClaimEnd, ClaimId, Claimed, Claiming, KEPT, KeyRow, KeyStatus};
use super::super::times::length;
use super::engine::Redis;
use super::fields::{Fields, parsed};
use crate::redis::scripts::state::{CLAIM_KEY, END_CLAIM};
use redis::ScriptInvocation;
use std::time::Duration;

impl Redis {
    pub(in super::super) async fn claim_key(&self, claiming: &Claiming, id: ClaimId) -> Result<Claimed, StateError> {
        let request = self.secrecy.claimed_request(&id.name, &claiming.request);
        let claim = |call: &mut ScriptInvocation<'_>| {
            call.arg(&id.name).arg(&id.token).arg(&request).arg(claiming.holder.text());
            call.arg(<&str>::from(KeyStatus::InFlight)).arg(length(KEPT));
        };
        let mut row: Fields = self.run(&CLAIM_KEY, claim).await?;
        if row.is_empty() && self.waits_for_replicas() {
            // A failover must not lose the claim of a call that was sent. So the script writes the claim again, and
            // returns when enough replicas have it.
            row = self.run_replicated(&CLAIM_KEY, claim).await?;
        }
        if row.is_empty() {
            return Ok(Claimed::New);
        }
        let [token, request_of_key, holder, standing, content, age]: [_; 6] =
            row.try_into().map_err(|_| StateError::Refused)?;
        let row = KeyRow {
            token,
            request: request_of_key,
            holder: String::from_utf8(holder).map_err(|_| StateError::Refused)?,
            standing: parsed(&standing),
            content: Some(content).filter(|content| !content.is_empty()),
            age: Duration::from_millis(parsed(&age).unwrap_or(0)),
        };
        let claimed = row.met_by(claiming, &request);
        let Claimed::Answered(hidden) = claimed else { return Ok(claimed) };
        self.secrecy.show_kept_answer(&id.name, &hidden).map(Claimed::Answered)
    }

    pub(in super::super) async fn end_claim(&self, id: &ClaimId, end: ClaimEnd) -> Result<bool, StateError> {
        let standing = end.standing().map_or("", Into::into);
        let (content, tags, asked) = match end {
            ClaimEnd::Answered { content, tags, asked } => {
                (self.secrecy.hide_kept_answer(&id.name, &content), tags, self.theirs(asked).await?)
            }
            ClaimEnd::Free | ClaimEnd::NotKept | ClaimEnd::Unknown => (Vec::new(), Vec::new(), 0),
        };
        self.run(&END_CLAIM, |call| {
            call.arg(&id.name).arg(&id.token).arg(standing).arg(<&str>::from(KeyStatus::Erased));
            call.arg(content).arg(asked);
            self.persons(call, &tags);
        })
        .await
    }
}
