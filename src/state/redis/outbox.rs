//! Deliveries: queued, handed out, and concluded.

use super::super::attempts::{EndpointNews, extended};
use super::super::envelopes::DeliveryId;
use super::super::error::StateError;
use super::super::model::{Conclusion, Copy, Delivery, DeliveryOutcome, Made, UNREADABLE_WAIT};
use super::super::pauses::{FAILING, PROBE_INTERVAL};
use super::super::times::length;
use super::engine::{MOST_BYTES, MOST_TOUCHED, Redis};
use super::fields::{Fields, parsed};
use super::hand_out::{Leased, hand_out};
use crate::base::name::{AccountName, TenantName};
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use crate::redis::scripts::state::{CLAIM, CONCLUDE, ENQUEUE};
use redis::ScriptInvocation;
use std::sync::Arc;
use std::time::Duration;

impl Redis {
    pub(in super::super) async fn enqueue(
        &self,
        made: Vec<Made>,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        let prepared = |made: Made| {
            let Made { account, id, kind, copy, tags } = made;
            let record = self.secrecy.record(&account, &id);
            (record, self.prepared(DeliveryId::fresh(), (&account, &id), kind, copy), tags)
        };
        let made: Vec<_> = made.into_iter().map(prepared).collect();
        let (mut rest, mut dropped) = (made.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (step, after) = rest.split_at(step(rest, |(_, delivery, _)| delivery.content.len()));
            rest = after;
            let enqueue = |call: &mut ScriptInvocation<'_>| {
                call.arg(bounds.deliveries).arg(bounds.bytes.bytes());
                for (record, delivery, tags) in step {
                    call.arg(record).arg(tags.len());
                    delivery.write(call);
                    self.persons(call, tags);
                }
            };
            let full: Vec<Vec<u8>> = self.run(&ENQUEUE, enqueue).await?;
            dropped.extend(full.iter().filter_map(|tenant| parsed(tenant)));
            self.due.notify_one();
        }
        Ok(dropped)
    }

    pub(in super::super) async fn claim(
        self: &Arc<Self>,
        wanted: &[(TenantName, usize)],
        lease: Duration,
    ) -> Result<Vec<Delivery>, StateError> {
        let (engine, wanted) = (Arc::clone(self), wanted.to_vec());
        hand_out(self, async move { engine.hand_out_deliveries(wanted, lease).await }).await
    }

    async fn hand_out_deliveries(
        &self,
        mut wanted: Vec<(TenantName, usize)>,
        lease: Duration,
    ) -> Result<Vec<Delivery>, StateError> {
        let mut claimed = Vec::new();
        while !wanted.is_empty() {
            let claim = |call: &mut ScriptInvocation<'_>| {
                call.arg(length(lease)).arg(MOST_BYTES).arg(MOST_TOUCHED).arg(length(PROBE_INTERVAL));
                for (tenant, most) in &wanted {
                    call.arg(tenant.as_str()).arg(*most);
                }
            };
            let answer: Result<(i64, i64, Vec<Fields>), StateError> = self.run(&CLAIM, claim).await;
            let (fencing_token, enough, rows) = match answer {
                Ok(answer) => answer,
                // The deliveries that are claimed already are returned: otherwise they would wait for the end of their
                // lease.
                Err(_) if !claimed.is_empty() => break,
                Err(error) => return Err(error),
            };
            // The next run continues with the team at which this run ended. That team has some of its deliveries
            // already.
            let place = usize::try_from(enough).unwrap_or(wanted.len());
            wanted.drain(..place.min(wanted.len()));
            for row in rows {
                if let Some((tenant, left)) = wanted.first_mut()
                    && row.get(1).is_some_and(|field| field == tenant.as_str().as_bytes())
                {
                    *left = left.saturating_sub(1);
                }
                match self.delivery(&row, fencing_token) {
                    Ok(delivery) => claimed.push(delivery),
                    // If this fails, the delivery is handed out again at the end of its lease.
                    Err(_) => drop(self.put_off_delivery(&row, fencing_token).await),
                }
            }
        }
        Ok(claimed)
    }

    /// Postpones a delivery that can't be decrypted: the delivery waits for its key, without an attempt. If the
    /// delivery is older than the retention of dead letters, it becomes a dead letter.
    async fn put_off_delivery(&self, row: &[Vec<u8>], fencing_token: i64) -> Result<(), StateError> {
        let [id, _, _, _, _, attempts, received, probes, history, _]: &[_; 10] =
            row.try_into().map_err(|_| StateError::Refused)?;
        let id = DeliveryId(id.as_slice().try_into().map_err(|_| StateError::Refused)?);
        let counts = (parsed(attempts).unwrap_or(0), parsed(probes).unwrap_or(0));
        let (history, now) = (parsed(history).unwrap_or_default(), self.clock.wall());
        let age = now.duration_since(self.ours(parsed(received).unwrap_or(0))).unwrap_or_default();
        let (name, at) = if age < self.retention.dead_letters {
            ("retry", self.theirs(now + UNREADABLE_WAIT).await?)
        } else {
            ("dead", 0)
        };
        self.concluded(&id, fencing_token, &StoredConclusion { name, at, counts, history, news: EndpointNews::None })
            .await
    }

    pub(in super::super) async fn conclude(
        &self,
        delivery: &Delivery,
        conclusion: Conclusion,
    ) -> Result<(), StateError> {
        let Conclusion { outcome, attempt } = conclusion;
        let (name, at) = match outcome {
            DeliveryOutcome::Delivered => ("delivered", 0),
            DeliveryOutcome::Dead => ("dead", 0),
            DeliveryOutcome::Retry(at) => ("retry", self.theirs(at).await?),
            DeliveryOutcome::Probed => ("probed", 0),
            DeliveryOutcome::Untried => ("untried", 0),
        };
        let stored = StoredConclusion {
            name,
            at,
            counts: outcome.counts(delivery),
            history: extended(&delivery.history, attempt.as_ref()),
            news: attempt.map_or(EndpointNews::None, |attempt| attempt.news()),
        };
        self.concluded(&delivery.id, delivery.fencing_token, &stored).await
    }

    pub(super) fn prepared(
        &self,
        id: DeliveryId,
        (account, upstream_id): (&AccountName, &str),
        kind: CallbackType,
        copy: Copy,
    ) -> NewDelivery {
        let content = self.secrecy.hide_delivery(&id, upstream_id, &copy.body);
        let upstream_id = self.secrecy.hide_id(&id.0, upstream_id);
        NewDelivery { id, tenant: copy.tenant, account: account.clone(), kind, content, upstream_id }
    }

    fn delivery(&self, row: &[Vec<u8>], fencing_token: i64) -> Result<Delivery, StateError> {
        let refused = StateError::Refused;
        let [id, tenant, account, kind, content, attempts, received, probes, history, is_probe]: &[_; 10] =
            row.try_into().map_err(|_| refused)?;
        let id = DeliveryId(id.as_slice().try_into().map_err(|_| refused)?);
        let (_, body) = self.secrecy.show_delivery(&id, content)?;
        Ok(Delivery {
            id,
            tenant: parsed(tenant).ok_or(refused)?,
            account: parsed(account).ok_or(refused)?,
            kind: parsed(kind).ok_or(refused)?,
            body,
            attempts: parsed(attempts).ok_or(refused)?,
            probes: parsed(probes).ok_or(refused)?,
            is_probe: !is_probe.is_empty(),
            received: self.ours(parsed(received).ok_or(refused)?),
            history: parsed(history).unwrap_or_default(),
            fencing_token,
        })
    }

    /// Stores the conclusion of a hand-out: the outcome, counts and attempts of the delivery, the time of its next
    /// attempt, and the news about its endpoint.
    async fn concluded(
        &self,
        id: &DeliveryId,
        fencing_token: i64,
        stored: &StoredConclusion,
    ) -> Result<(), StateError> {
        let (attempts, probes) = stored.counts;
        let news = match stored.news {
            EndpointNews::None => "",
            EndpointNews::Success => "success",
            EndpointNews::Failure => "failure",
            EndpointNews::Gone => "gone",
        };
        let _: bool = self
            .run(&CONCLUDE, |call| {
                call.arg(&id.0).arg(fencing_token).arg(stored.name).arg(attempts).arg(stored.at).arg(probes);
                call.arg(&stored.history).arg(news).arg(length(FAILING)).arg(length(PROBE_INTERVAL));
            })
            .await?;
        Ok(())
    }
}

/// The conclusion of a hand-out, in the form that the script takes.
struct StoredConclusion {
    name: &'static str,
    /// The time of the next attempt by Redis' clock, in milliseconds since 1970; 0 if there is none.
    at: i64,
    /// The number of failed attempts, and the number of probes among them.
    counts: (u32, u32),
    history: String,
    news: EndpointNews,
}

impl Leased for Delivery {
    async fn give_back(&self, engine: &Redis) -> Result<(), StateError> {
        engine.conclude(self, DeliveryOutcome::Untried.into()).await?;
        engine.due.notify_one();
        Ok(())
    }
}

/// A delivery that is to be stored.
pub(super) struct NewDelivery {
    pub(super) id: DeliveryId,
    pub(super) tenant: TenantName,
    pub(super) account: AccountName,
    pub(super) kind: CallbackType,
    pub(super) content: Vec<u8>,
    pub(super) upstream_id: Vec<u8>,
}

impl NewDelivery {
    /// Adds the delivery as arguments, in the order in which the Lua function `insert_delivery` reads them.
    pub(super) fn write(&self, call: &mut ScriptInvocation<'_>) {
        call.arg(&self.id.0).arg(self.tenant.as_str()).arg(self.account.as_str()).arg(self.kind.as_str());
        call.arg(&self.content).arg(&self.upstream_id);
    }
}

/// Returns the number of entries at the beginning of `entries` that one run of a script takes. Both their number and
/// the sum of their bytes are bounded; `bytes` returns the size of one entry.
pub(super) fn step<T>(entries: &[T], bytes: impl Fn(&T) -> usize) -> usize {
    let mut sum = 0;
    let fits = entries.iter().take(MOST_TOUCHED / 2).take_while(|entry| {
        sum += bytes(entry);
        sum <= MOST_BYTES
    });
    // A run takes at least one entry, however large.
    fits.count().max(1).min(entries.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bounded_by_number_and_by_bytes_and_never_empty() {
        let take = |sizes: &[usize]| step(sizes, |size| *size);
        assert_eq!(take(&[]), 0);
        assert_eq!(take(&[1; 1000]), MOST_TOUCHED / 2);
        assert_eq!(take(&[MOST_BYTES / 2, MOST_BYTES / 2, 1]), 2);
        assert_eq!(take(&[MOST_BYTES + 1, 1]), 1);
    }
}
