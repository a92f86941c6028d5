//! Settlements by hand: an operator reads Iluma's bill, and gives the outcome of calls whose outcome is unknown.
//!
//! Invariants:
//! - A call in flight is never settled by hand, because its own answer will decide it.
//! - Only the node that booked a call settles it, once.
//!
//! Another node leaves an order for the booking node in Redis, and finds the reply there. Each node also shows its open
//! calls in Redis.

use super::batch;
use super::charge::Outcome;
use super::closing;
use super::inner::Inner;
use super::journal::{self, Changes};
use super::published::{HandOrder, PublishedLedgers, ShownCalls};
use super::settlement::{ByHand, Call, CallNumber, Closing, End, HandError, OpenCall, SettledByHand};
use crate::base::database::DatabaseError;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest number of open calls that a node shows to the other nodes. Further calls follow when these are settled.
const MOST_SHOWN: usize = 1000;
/// The longest wait for another node's reply to an order. A node reads its orders once a second.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two checks for a reply.
const LOOK: Duration = Duration::from_millis(100);
/// The time after which a node shows its open calls again, even if nothing has changed. The other nodes forget calls
/// that were shown too long ago, because the node that showed them is gone.
const SHOW_AGAIN: Duration = Duration::from_secs(3600);

/// Settles calls of this node and of other nodes by hand. Returns the results for all calls.
pub(super) async fn settle(
    ledger: &Arc<Inner>,
    calls: BTreeMap<CallNumber, Outcome>,
) -> Result<SettledByHand, HandError> {
    let (own, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        calls.into_iter().partition(|(call, _)| call.node == ledger.name);
    // The orders for other nodes are planned first: if one names an unknown node, nothing is changed.
    let shown = match &ledger.published {
        Some(published) if !others.is_empty() => published.open().await.ok(),
        Some(_) | None => Some(BTreeMap::new()),
    };
    let Plan { orders, mut done } = plan(&others, shown.as_ref())?;
    let own: BTreeMap<_, _> =
        own.into_iter().map(|(call, outcome)| (call.number, HandOrder { outcome, booked: None })).collect();
    for (number, result) in settle_own(ledger, own).await? {
        done.note(CallNumber { node: ledger.name.clone(), number }, result);
    }
    if let Some(published) = ledger.published.as_ref().filter(|_| !orders.is_empty()) {
        order(published, orders, &mut done).await;
    }
    Ok(done)
}

/// Settles calls of this journal in one transaction. The orders and the results are indexed by the call's number.
async fn settle_own(
    ledger: &Arc<Inner>,
    orders: BTreeMap<i64, HandOrder>,
) -> Result<BTreeMap<i64, ByHand>, DatabaseError> {
    if orders.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rules = ledger.rules();
    let work = move |connection: &Connection, changes: &mut Changes| {
        let mut results = BTreeMap::new();
        for (&number, &HandOrder { outcome, booked }) in &orders {
            let result = journal::standing(connection, number, booked, rules.first_new)?;
            if result == ByHand::Settled {
                let (call, end) = (Call::Booked(number), End::Outcome(outcome, None));
                closing::close(connection, &Closing { call, end, reference: None, is_early: false }, rules, changes)?;
            }
            results.insert(number, result);
        }
        Ok(results)
    };
    batch::flush_with(ledger, work).await
}

/// The orders for other nodes, by the identity of the node. `done` has the calls that need no order, with their
/// results.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    orders: BTreeMap<String, BTreeMap<CallNumber, HandOrder>>,
    done: SettledByHand,
}

/// Finds the node of each call among the nodes that have shown their open calls. Returns an error if no node has the
/// name in a call. `shown` is `None` while Redis is out.
fn plan(
    calls: &BTreeMap<CallNumber, Outcome>,
    shown: Option<&BTreeMap<String, ShownCalls>>,
) -> Result<Plan, HandError> {
    let mut plan = Plan::default();
    for (call, outcome) in calls {
        let Some(shown) = shown else {
            plan.done.left.insert(call.node.clone());
            continue;
        };
        let mut namesakes = shown.iter().filter(|(_, shown)| shown.name == call.node).peekable();
        if namesakes.peek().is_none() {
            return Err(HandError::UnknownNode(call.node.clone()));
        }
        let found = namesakes.filter_map(|(id, shown)| {
            let open = shown.calls.iter().find(|open| open.id == call.number)?;
            Some((id, HandOrder { outcome: *outcome, booked: Some(open.booked) }))
        });
        match found.collect::<Vec<_>>().as_slice() {
            [] => drop(plan.done.not_open.insert(call.clone())),
            [(id, order)] => {
                plan.orders.entry((*id).clone()).or_default().insert(call.clone(), *order);
            }
            // Two nodes with this name both have a call with this number, so the order is ambiguous.
            _ => drop(plan.done.left.insert(call.node.clone())),
        }
    }
    Ok(plan)
}

/// Leaves orders for other nodes in Redis, and waits for their replies. An order that its node has not read stays there
/// until the node runs. A repeated order changes nothing.
async fn order(
    published: &PublishedLedgers,
    orders: BTreeMap<String, BTreeMap<CallNumber, HandOrder>>,
    done: &mut SettledByHand,
) {
    let reply = uuid::Uuid::new_v4().simple().to_string();
    let mut waiting = BTreeSet::new();
    for (node, orders) in orders {
        match published.order(&node, &reply, &orders).await {
            Ok(()) => waiting.extend(orders.into_keys().map(|call| (node.clone(), call))),
            Err(_) => done.left.extend(orders.into_keys().map(|call| call.node)),
        }
    }
    let replies = async {
        while !waiting.is_empty() {
            tokio::time::sleep(LOOK).await;
            let Ok(results) = published.replies(&reply).await else { continue };
            waiting.retain(|(node, call)| match results.get(&(node.clone(), call.number)) {
                Some(result) => {
                    done.note(call.clone(), *result);
                    false
                }
                None => true,
            });
        }
    };
    let _ = tokio::time::timeout(REPLY_TIMEOUT, replies).await;
    done.left.extend(waiting.into_iter().map(|(_, call)| call.node));
}

/// The open calls that this node last published for the other nodes, and the time of this publication; `None` before
/// the first publication.
#[derive(Debug, Default)]
pub(super) struct Shown(Option<(Instant, Vec<OpenCall>)>);

/// Carries out the orders that other nodes left for this node, and shows the other nodes this node's open calls.
pub(super) async fn exchange(ledger: &Arc<Inner>, published: &PublishedLedgers, last: &mut Shown) {
    if let Ok(orders) = published.orders().await
        && !orders.is_empty()
    {
        let own = orders.iter().map(|(number, (order, _))| (*number, *order)).collect();
        if let Ok(results) = settle_own(ledger, own).await {
            // If the reply can't be written, the order stays. It is taken again, and finds nothing to settle.
            let _ = published.reply(&orders, &results).await;
        }
    }
    let first_new = ledger.first_new;
    let open = move |connection: &Connection| journal::unknown_calls(connection, first_new, MOST_SHOWN);
    let Ok(calls) = ledger.database.read(open).await else { return };
    let now = ledger.clock.now();
    let is_shown =
        last.0.as_ref().is_some_and(|(at, shown)| *shown == calls && now.saturating_duration_since(*at) < SHOW_AGAIN);
    if !is_shown {
        let shown = ShownCalls { name: ledger.name.clone(), at: ledger.clock.wall(), calls };
        if published.show_open(&shown).await.is_ok() {
            last.0 = Some((now, shown.calls));
        }
    }
}

/// Returns the calls that the other nodes show, each with the name of its node. They are ordered by this name and their
/// number. Returns `None` while Redis is out.
pub(super) async fn elsewhere(ledger: &Inner) -> Option<Vec<(String, OpenCall)>> {
    let Some(published) = &ledger.published else { return Some(Vec::new()) };
    let others = published.open().await.ok()?.into_values();
    let calls =
        others.flat_map(|ShownCalls { name, calls, .. }| calls.into_iter().map(move |call| (name.clone(), call)));
    let mut calls: Vec<_> = calls.collect();
    calls.sort_by(|(one, call), (other, next)| (one, call.id).cmp(&(other, next.id)));
    Some(calls)
}

#[cfg(test)]
mod tests {
    use super::super::settlement::Why;
    use super::*;
    use std::time::SystemTime;

    fn call(node: &str, number: i64) -> CallNumber {
        CallNumber { node: node.to_owned(), number }
    }

    fn shown(name: &str, numbers: &[i64]) -> ShownCalls {
        let text = || "x".to_owned();
        let open = |id: &i64| OpenCall {
            id: *id,
            booked: SystemTime::UNIX_EPOCH + Duration::from_secs(id.unsigned_abs()),
            day: text(),
            tenant: text(),
            route: text(),
            why: Why::Lost,
        };
        ShownCalls { name: name.to_owned(), at: SystemTime::UNIX_EPOCH, calls: numbers.iter().map(open).collect() }
    }

    #[test]
    fn each_call_is_ordered_from_the_one_node_that_shows_it() {
        let nodes = BTreeMap::from([
            ("id1".to_owned(), shown("b", &[1, 2])),
            ("id2".to_owned(), shown("c", &[1])),
            ("id3".to_owned(), shown("c", &[1, 4])),
        ]);
        let planned = |calls: &[CallNumber], nodes| {
            let calls = calls.iter().map(|call| (call.clone(), Outcome::Billable)).collect();
            plan(&calls, nodes)
        };
        let found = planned(&[call("b", 2), call("b", 3), call("c", 1), call("c", 4)], Some(&nodes)).unwrap();
        let order = |number| {
            let booked = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(number));
            HandOrder { outcome: Outcome::Billable, booked }
        };
        let orders = BTreeMap::from([
            ("id1".to_owned(), BTreeMap::from([(call("b", 2), order(2))])),
            ("id3".to_owned(), BTreeMap::from([(call("c", 4), order(4))])),
        ]);
        assert_eq!(found.orders, orders);
        assert_eq!(found.done.not_open, BTreeSet::from([call("b", 3)]), "the node does not show it");
        assert_eq!(found.done.left, BTreeSet::from(["c".to_owned()]), "two nodes of this name show the number 1");
        let unknown = planned(&[call("b", 1), call("nobody", 1)], Some(&nodes));
        assert!(matches!(unknown, Err(HandError::UnknownNode(name)) if name == "nobody"));
        let out = planned(&[call("b", 1)], None).unwrap();
        assert_eq!((out.orders.len(), out.done.left), (0, BTreeSet::from(["b".to_owned()])), "Redis is out");
    }
}
