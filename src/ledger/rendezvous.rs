//! Settlements by reference over nodes: Redis matches reported outcomes with lost calls of all nodes.
//!
//! Invariants:
//! - A reported outcome is given to one call, the oldest lost call of all nodes with the reference.
//! - This happens only after a pause, in which the node of the record's own call may take the outcome by the record's
//!   id.
//! - An outcome that Redis has not taken stays in the journal.

use super::charge::Outcome;
use super::inner::Inner;
use super::published::PublishedLedgers;
use super::references::{self, Lost, Report};
use super::settlement::CallName;
use crate::redis::scripts::ledger as scripts;
use crate::redis::{Budget, RedisFailure};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The time for which a reported outcome waits before Redis may match it with a lost call. Meanwhile the node of the
/// record's own call can take the outcome by the record's id, usually within two seconds.
const PAUSE: Duration = Duration::from_secs(4);
/// The largest number of reported outcomes that one exchange sends to Redis. The next exchange sends more.
const MOST_SENT: usize = 500;
/// The largest number of lost calls that a node offers. A day with a million calls has this number if one answer in a
/// hundred is lost.
const MOST_OFFERED: usize = 10_000;

/// The lost calls of this node that Redis has, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Offered(BTreeMap<i64, Lost>);

/// A message to the script in Redis that matches reported outcomes with lost calls.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// This outcome was reported for the record with this name. The last value is the time of the report, in
    /// milliseconds since 1970.
    Tell(CallName, Outcome, i64),
    /// This call is lost.
    Offer(Lost),
    /// The call of the record with this name is settled by the record's id.
    Named(CallName),
}

/// Sends new reported outcomes and new lost calls from the journal to Redis.
pub(super) async fn exchange(ledger: &Arc<Inner>, published: &PublishedLedgers, offered: &mut Offered) {
    let _ = tell(ledger, published).await;
    let _ = offer(ledger, published, offered).await;
}

/// Removes a record's reported outcome from Redis, and marks the record as used. The record's id has settled its call,
/// so the outcome must not settle a second call.
pub(super) async fn named(
    ledger: &Inner,
    published: &PublishedLedgers,
    reference: CallName,
    name: CallName,
) -> Result<(), RedisFailure> {
    meet(ledger, published, reference, Step::Named(name)).await
}

/// Sends the reported outcomes that have waited long enough to Redis.
async fn tell(ledger: &Arc<Inner>, published: &PublishedLedgers) -> Result<(), RedisFailure> {
    let rules = ledger.rules();
    let until = rules.now - i64::try_from(PAUSE.as_millis()).unwrap_or_default();
    let unsent = move |connection: &Connection| references::unsent(connection, until, MOST_SENT);
    for (Report { name, reference, outcome }, at) in ledger.database.read(unsent).await.unwrap_or_default() {
        let Some(reference) = reference else { continue };
        meet(ledger, published, reference, Step::Tell(name, outcome, at)).await?;
        // If this can't be written, the outcome is sent again, which changes nothing.
        let _ = ledger.database.write(move |connection| references::mark_sent(connection, name, rules.now)).await;
    }
    Ok(())
}

/// Offers calls that are lost now to Redis, and withdraws offered calls that are not lost any more.
async fn offer(ledger: &Arc<Inner>, published: &PublishedLedgers, offered: &mut Offered) -> Result<(), RedisFailure> {
    let rules = ledger.rules();
    let lost = move |connection: &Connection| references::lost(connection, rules, MOST_OFFERED);
    let Ok(lost) = ledger.database.read(lost).await else { return Ok(()) };
    let lost: BTreeMap<_, _> = lost.into_iter().map(|lost| (lost.number, lost)).collect();
    let gone: Vec<_> = offered.0.values().filter(|known| !lost.contains_key(&known.number)).copied().collect();
    for call in gone {
        let redis = published.redis();
        let mut command = redis::cmd("ZREM");
        command.arg(redis.keys().ledger_lost(&call.reference)).arg(published.member(call));
        redis.command::<i64>(&Budget::background(), &command).await?;
        offered.0.remove(&call.number);
    }
    let new: Vec<_> = lost.into_values().filter(|call| !offered.0.contains_key(&call.number)).collect();
    for call in new {
        meet(ledger, published, call.reference, Step::Offer(call)).await?;
        offered.0.insert(call.number, call);
    }
    Ok(())
}

/// Runs one step in Redis. The script there matches reported outcomes with lost calls, and announces the matches to all
/// nodes.
async fn meet(
    ledger: &Inner,
    published: &PublishedLedgers,
    reference: CallName,
    step: Step,
) -> Result<(), RedisFailure> {
    let (redis, kept) = (published.redis(), ledger.live.load().retention);
    let keys = redis.keys();
    let mut script = scripts::MEET.key(keys.ledger_lost(&reference));
    script.key(keys.ledger_said(&reference)).key(keys.ledger_used(&reference)).key(keys.ledger_settlements());
    script.key(keys.ledger_reports()).key(keys.ledger_report_times());
    script.arg(kept.as_secs()).arg(PublishedLedgers::MOST_SETTLEMENTS);
    match step {
        Step::Tell(name, outcome, at) => {
            script.arg("tell").arg(&name[..]).arg(format!("{}:{at}", references::code(outcome)))
        }
        Step::Offer(lost) => script.arg("offer").arg(published.member(lost)).arg(lost.booked),
        Step::Named(name) => script.arg("named").arg(&name[..]),
    };
    redis.script::<i64>(&Budget::background(), &script).await.map(|_| ())
}
