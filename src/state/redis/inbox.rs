//! Received callbacks: stored, handed out for their fan-out, and settled.

use super::super::envelopes::CallbackName;
use super::super::error::StateError;
use super::super::model::{Awaiting, Callback, Copy, FanOutDecision, LATE, ReceiveOutcome, UNREADABLE_WAIT, Waiting};
use super::super::times::length;
use super::engine::{MOST_BYTES, MOST_TOUCHED, Redis};
use super::fields::{Fields, parsed, text_of};
use super::hand_out::{Leased, hand_out};
use super::outbox::{NewDelivery, step};
use crate::base::name::TenantName;
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use crate::redis::scripts::state::{RECEIVE, SETTLE, WAITING};
use redis::ScriptInvocation;
use std::sync::Arc;
use std::time::Duration;

impl Redis {
    pub(in super::super) async fn receive(&self, callback: Callback) -> Result<ReceiveOutcome, StateError> {
        let Callback { account, kind, id, body, tags } = callback;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.callback(&record, &body);
        let (content, id) = (self.secrecy.hide_callback(&name, &id, &body), self.secrecy.hide_id(&name.0, &id));
        let new: bool = self
            .run_replicated(&RECEIVE, |call| {
                call.arg(&name.0).arg(&record).arg(account.as_str()).arg(text_of(kind)).arg(content).arg(id);
                self.persons(call, &tags);
            })
            .await?;
        if !new {
            return Ok(ReceiveOutcome::Repeat);
        }
        self.arrived.notify_one();
        Ok(ReceiveOutcome::New)
    }

    pub(in super::super) async fn waiting(
        self: &Arc<Self>,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<Waiting>, StateError> {
        let engine = Arc::clone(self);
        hand_out(self, async move { engine.hand_out_callbacks(most, lease).await }).await
    }

    async fn hand_out_callbacks(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        let (fencing_token, rows): (i64, Vec<Fields>) = self
            .run(&WAITING, |call| {
                call.arg(most).arg(length(lease)).arg(MOST_BYTES).arg(MOST_TOUCHED);
            })
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            if let Ok(waiting) = self.shown(&row, fencing_token) {
                found.push(waiting);
                continue;
            }
            let Some(name) = row.first().and_then(|name| name.as_slice().try_into().ok()) else { continue };
            let received = row.get(5).and_then(|received| parsed(received)).unwrap_or(0);
            // If this fails, the callback is handed out again at the end of its lease.
            let _ = self.put_off(&CallbackName(name), fencing_token, received).await;
        }
        Ok(found)
    }

    /// Postpones a callback that can't be decrypted: the callback waits for its key without delaying other callbacks.
    /// If the callback is older than the retention of dead letters, it is set aside for operators.
    async fn put_off(&self, name: &CallbackName, fencing_token: i64, received: i64) -> Result<(), StateError> {
        let now = self.clock.wall();
        let age = now.duration_since(self.ours(received)).unwrap_or_default();
        let settlement = if age < self.retention.dead_letters {
            Settlement::Wait(self.theirs(now + UNREADABLE_WAIT).await?)
        } else {
            Settlement::Unowned
        };
        self.settled(name, fencing_token, &settlement).await.map(|_| ())
    }

    pub(in super::super) async fn settle(
        &self,
        waiting: &Waiting,
        decision: FanOutDecision,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        let Waiting { name, fencing_token, .. } = waiting;
        let mut dead = Vec::new();
        match decision {
            FanOutDecision::Wait(until) => {
                let until = self.theirs(until).await?;
                self.settled(name, *fencing_token, &Settlement::Wait(until)).await?;
            }
            FanOutDecision::Unowned => {
                self.settled(name, *fencing_token, &Settlement::Unowned).await?;
            }
            FanOutDecision::Deliver(kind, copies) => dead = self.fan_out(waiting, kind, copies, bounds).await?,
        }
        // An owner may have been added meanwhile, so the callback may be due again.
        self.arrived.notify_one();
        Ok(dead)
    }

    /// Stores a callback's deliveries, in one or more runs of a script. Returns the team of each delivery that became a
    /// dead letter because the team's outbox was full.
    async fn fan_out(
        &self,
        waiting: &Waiting,
        kind: CallbackType,
        copies: Vec<Copy>,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        let Waiting { name, account, id, fencing_token, .. } = waiting;
        let record = self.secrecy.record(account, id);
        let prepared = |copy: Copy| {
            let reference = self.secrecy.reference(&record, &copy.tenant, copy.reference.as_ref());
            self.prepared(self.secrecy.delivery(name, &reference), (account, id), kind, copy)
        };
        let deliveries: Vec<_> = copies.into_iter().map(prepared).collect();
        let (mut rest, mut dead) = (deliveries.as_slice(), Vec::new());
        loop {
            let (step, after) = rest.split_at(step(rest, |delivery| delivery.content.len()));
            rest = after;
            let is_last = rest.is_empty();
            let settlement = Settlement::Deliver { deliveries: step, is_last, bounds };
            let (made, full) = self.settled(name, *fencing_token, &settlement).await?;
            dead.extend(full.iter().filter_map(|tenant| parsed(tenant)));
            if made > 0 {
                self.due.notify_one();
            }
            // The number is negative if another holder has the callback, or if the callback was erased. Then nothing is
            // left to deliver here.
            if made < 0 || is_last {
                return Ok(dead);
            }
        }
    }

    fn shown(&self, row: &[Vec<u8>], fencing_token: i64) -> Result<Waiting, StateError> {
        let refused = StateError::Refused;
        let ([name, record, account, kind, content, received], owners) = row.split_first_chunk().ok_or(refused)?;
        let name = CallbackName(name.as_slice().try_into().map_err(|_| refused)?);
        let record = record.as_slice().try_into().map_err(|_| refused)?;
        let (id, body) = self.secrecy.show_callback(&name, content)?;
        let mut kind = parsed(kind);
        let mut awaiting = Vec::with_capacity(owners.len() / 4);
        for [tenant, hidden, owners_kind, erased] in owners.as_chunks().0 {
            let Some(tenant) = parsed(tenant) else { continue };
            kind = kind.or_else(|| parsed(owners_kind));
            let reference = self.reference(&record, &tenant, hidden)?;
            awaiting.push(Awaiting { tenant, reference, erased: !erased.is_empty() });
        }
        let received = self.ours(parsed(received).ok_or(refused)?);
        let account = parsed(account).ok_or(refused)?;
        Ok(Waiting { name, account, kind, id, body, received, awaiting, fencing_token, lease: 0 })
    }

    /// Stores a decision about a callback, or a part of the decision. Returns the number of queued deliveries, and the
    /// team of each delivery that became a dead letter. The number is negative if another holder has the callback, or
    /// if the callback does not wait any more.
    async fn settled(
        &self,
        name: &CallbackName,
        fencing_token: i64,
        settlement: &Settlement<'_>,
    ) -> Result<(i64, Vec<Vec<u8>>), StateError> {
        let settle = |call: &mut ScriptInvocation<'_>| {
            call.arg(&name.0).arg(fencing_token);
            let dead_letters = length(self.retention.dead_letters);
            match settlement {
                Settlement::Wait(until) => call.arg("wait").arg(0).arg(*until).arg(0).arg(0),
                Settlement::Unowned => call.arg("unowned").arg(dead_letters).arg(0).arg(0).arg(0),
                Settlement::Deliver { is_last, bounds, .. } => {
                    let decision = if *is_last { "deliver" } else { "more" };
                    call.arg(decision).arg(length(LATE)).arg(0).arg(bounds.deliveries).arg(bounds.bytes.bytes())
                }
            };
            if let Settlement::Deliver { deliveries, .. } = settlement {
                deliveries.iter().for_each(|delivery| delivery.write(call));
            }
        };
        self.run(&SETTLE, settle).await
    }
}

/// A decision about a callback, or the part of a decision that one run of the script stores.
enum Settlement<'a> {
    /// The callback waits until this time of Redis' clock.
    Wait(i64),
    /// The callback is set aside for operators.
    Unowned,
    /// These deliveries are made. If `is_last` is false, another run makes further deliveries.
    Deliver { deliveries: &'a [NewDelivery], is_last: bool, bounds: &'a OutboxBounds },
}

impl Leased for Waiting {
    async fn give_back(&self, engine: &Redis) -> Result<(), StateError> {
        let now = engine.theirs(engine.clock.wall()).await?;
        engine.settled(&self.name, self.fencing_token, &Settlement::Wait(now)).await?;
        engine.arrived.notify_one();
        Ok(())
    }
}
