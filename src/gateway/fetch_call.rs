//! One call for all requests that wait for it: sent, read, booked in the ledger, stored.

use super::call_guard::CallGuard;
use super::core::Gateway;
use super::fetch_request::FetchRequest;
use super::fetch_result::{FetchResult, Lead, for_other_nodes, from_callback, renewing};
use super::owners::Owned;
use super::received::Received;
use super::request_log::RequestLog;
use super::runtime::{Account, RuntimeConfig};
use crate::base::json_template::{Absent, JsonTemplate};
use crate::cache::{CacheSlot, Entry, Subject};
use crate::iluma::answer::Answer;
use crate::iluma::record_id;
use crate::iluma::route_name::RouteName;
use crate::redis::Budget;
use crate::reference::{self, Ownership, PrefixStripper, Record, ReferencePrefix, ReferencePrefixes};
use crate::reply::Rejection;
use crate::upstream::{self, CallError, Collected, Outgoing};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::HeaderMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

impl Gateway {
    /// Makes the call in a task of its own. The task finishes the call even if no request waits for it any more.
    ///
    /// The call's future is on the heap, because it is large, and a task's future is moved several times.
    pub(super) async fn call_detached(
        self: &Arc<Self>,
        config: &Arc<RuntimeConfig>,
        request: Box<FetchRequest>,
        (lead, guard): (Option<Lead>, Option<CallGuard>),
        log: &RequestLog,
    ) -> Result<Arc<FetchResult>, Rejection> {
        let (gateway, config, permit) = (Arc::clone(self), Arc::clone(config), log.permit());
        let (done, fetched) = tokio::sync::oneshot::channel();
        let redis = Arc::new(Budget::of(log.redis.left()));
        let spent = Arc::clone(&redis);
        self.tasks.spawn(async move {
            let (leader, lease) = lead.map_or((None, None), |Lead { leader, lease }| (Some(leader), lease));
            let (slot, account) = (request.slot.clone(), request.account);
            // A panic is a bug; it must not make every follower repeat the call.
            let call = AssertUnwindSafe(Box::pin(gateway.call(&config, request, guard, &redis))).catch_unwind();
            let called = renewing(call, lease.as_ref()).await;
            let answer = called.unwrap_or(Err(CallError::Broken)).map(Arc::new);
            // The rest is for other nodes, and Redis may take long. The request's slot is therefore freed first.
            drop(permit);
            if let Some(leader) = leader {
                leader.land(answer.clone());
            }
            // The client may have left.
            let _ = done.send(answer.clone());
            let fetched = answer.as_ref().ok();
            let account = account.and_then(|index| config.accounts.get(index)).map(|account| &account.name);
            match (fetched.and_then(|fetched| fetched.entry.as_ref()), lease) {
                (Some(entry), lease) => Box::pin(gateway.cache.publish(&slot, entry, account, lease)).await,
                (None, Some(lease)) => Box::pin(lease.land(&for_other_nodes(&answer))).await,
                (None, None) => {}
            }
            if let Some((slot, entry)) = fetched.and_then(|fetched| fetched.settled.as_ref()) {
                Box::pin(gateway.cache.publish(slot, entry, account, None)).await;
            }
        });
        let fetched = fetched.await;
        log.redis.spend(spent.spent());
        // The task always sends, unless the process ends.
        Ok(fetched.map_err(|_| Rejection::Internal)??)
    }

    /// Makes the call, and reads its answer. Books the outcome, stores the answer in the cache, and makes the caller an
    /// owner of the record in the answer.
    async fn call(
        &self,
        config: &RuntimeConfig,
        request: Box<FetchRequest>,
        guard: Option<CallGuard>,
        redis: &Budget,
    ) -> Result<FetchResult, CallError> {
        let FetchRequest {
            slot,
            route,
            directives,
            reference,
            account,
            outgoing,
            mut tags,
            prefix,
            bypass,
            requester,
            ..
        } = *request;
        let account = account.and_then(|index| config.accounts.get(index));
        let target = outgoing.target.clone();
        let (received, took) = self.exchange(config, (route, account), outgoing, guard).await;
        let Received { collected: mut shown, answer } = received?;
        reference::forwardable_response(&mut shown.headers);
        let read = Read::of(&mut shown, &answer, slot.subject, (reference.as_deref(), prefix.as_ref()));
        tags.extend(answer.persons());
        let names: Vec<_> = tags.iter().copied().collect();
        // The outcome is in the ledger by now, and must be written before the owner. A record with an owner counts as
        // named by an answer, so a callback does not settle its call by the reference. In the other order, a kill
        // between the two writes would leave the call unknown for ever.
        if let (Some(requester), Some(id)) = (&requester, &read.id) {
            let owned = Owned { id, reference: reference.as_deref(), awaits: true, tags: &names };
            self.owners.own(requester, owned, redis).await;
        }
        let is_kept = !directives.no_store
            && bypass.is_none()
            && read.is_shared
            && read.is_what_was_asked(slot.subject, target.path());
        let entry = if is_kept { self.store(&slot, (&shown, &answer), &read.template, tags) } else { None };
        tracing::debug!(
            no_store = directives.no_store,
            bypass,
            answers_the_request = is_kept,
            stored = entry.is_some(),
            "Iluma answered; only a final answer to this request is stored"
        );
        let settled = match (account, &entry) {
            (Some(account), Some(entry)) => {
                Box::pin(self.settle_pending(account, (&slot, entry, target.path()), (&shown, &answer), redis)).await
            }
            _ => None,
        };
        let shared = read.is_shared.then_some(read.template);
        Ok(FetchResult { answer: shown, read: Some(answer), shared, entry, id: read.id, tags: names, settled, took })
    }

    /// Sends the call, reads its answer whole, and records the call's outcome. Returns the answer, and the duration of
    /// the call.
    async fn exchange(
        &self,
        config: &RuntimeConfig,
        (route, account): (RouteName, Option<&Account>),
        outgoing: Outgoing,
        mut guard: Option<CallGuard>,
    ) -> (Result<Received, CallError>, Duration) {
        let started = self.clock.now();
        let (credential, total) = (account.map(|account| &account.credential), config.upstream.timeouts().answer);
        let sent = match &mut guard {
            Some(guard) => {
                guard.start(None);
                guard.send(outgoing).await
            }
            None => config.upstream.send(outgoing, None).await,
        };
        let received = match sent {
            Ok(response) => upstream::collect(response, credential, total).await,
            Err(error) => Err(error),
        };
        let received = received.map(|collected| Received::new(collected, &self.persons));
        let took = self.clock.now().saturating_duration_since(started);
        if let Some(account) = account {
            let status = received.as_ref().ok().map(|received| received.collected.status.as_u16());
            account.metrics.request(route, status, took);
        }
        if let Some(guard) = guard {
            match &received {
                Ok(received) => guard.answered(received),
                Err(error) => guard.failed(*error),
            }
            // The outcome is in the ledger before the client sees the answer, so a kill loses nothing. An outcome that
            // can't be written now is kept in memory, and the answer is still sent.
            let _ = self.ledger.settled().await;
        }
        (received, took)
    }

    /// Stores the result of a pending bank request in the request's cache slot. It acts after "pending" was stored, and
    /// after the final answer to a GET was stored. Returns the slot and its new entry; `None` if the pending request or
    /// its result is not known here, and for any other answer.
    async fn settle_pending(
        &self,
        account: &Account,
        (slot, entry, path): (&CacheSlot, &Arc<Entry>, &str),
        (collected, answer): (&Collected, &Answer),
        redis: &Budget,
    ) -> Option<(CacheSlot, Arc<Entry>)> {
        match (entry.pending, &entry.id, slot.subject) {
            (true, Some(id), Subject::Bank) => {
                self.cache.await_result(&account.name, slot, path, entry);
                // `learn` does the same two steps in the other order: it stores the callback, then looks up the waiting
                // request. So whichever of the two runs later always finds the data of the earlier one.
                let overtaking = self.overtaking.remove(&(account.name.clone(), id.to_string()))?;
                let result = Received::new(from_callback(overtaking), &self.persons);
                self.settle(&account.name, (None, id), (&result.collected, &result.answer), redis).await
            }
            (false, _, Subject::BankGet) => {
                let (path, id) = path.rsplit_once('/')?;
                self.settle(&account.name, (Some(path), id), (collected, answer), redis).await
            }
            (_, _, Subject::Bank | Subject::BankGet | Subject::Cft | Subject::BankCodes | Subject::Health) => None,
        }
    }
}

/// The parts of an answer that other waiting requests, the cache and state need.
struct Read {
    /// The body as a template for any caller's reference.
    template: JsonTemplate,
    /// False if the answer quotes data of the request that made the call. No other request may get such an answer.
    is_shared: bool,
    /// Iluma's id, if the answer is a record.
    id: Option<String>,
}

impl Read {
    /// Reads an answer, and changes `shown` to the view of the request's caller: with the caller's own reference,
    /// without the prefix.
    fn of(
        shown: &mut Collected,
        answer: &Answer,
        subject: Subject,
        (reference, prefix): (Option<&[u8]>, Option<&ReferencePrefix>),
    ) -> Self {
        let success = shown.status.is_success();
        let is_record = matches!(subject, Subject::Bank | Subject::BankGet) && success;
        // A bank answer echoes the reference of its request. If the request had a reference and the answer has none, no
        // reference is inserted for other callers. With prefixes a reference is always sent.
        let given = reference.is_some() || prefix.is_some();
        let absent = if is_record && !given { Absent::Insert } else { Absent::Leave };
        let split = answer.template(absent).filter(|_| success);
        let is_whole = split.is_none();
        if let Some(prefix) = prefix {
            shown.body = for_caller((&mut shown.headers, answer), split.as_ref(), reference, prefix);
        }
        let template = split.unwrap_or_else(|| JsonTemplate::whole(&shown.body));
        // An answer may quote the reference outside of its member: an error in its message, a record in another member.
        let others = template.with(None);
        let has_prefix = |prefix: &ReferencePrefix| {
            memchr::memmem::find(&others, format!("{}:", prefix.tenant()).as_bytes()).is_some()
        };
        let is_own = prefix.is_some_and(has_prefix)
            || (is_whole && reference.is_some_and(|reference| quotes(&others, reference)));
        let id = answer.id().filter(|_| is_record).map(str::to_owned);
        Self { template, is_shared: !is_own, id }
    }
}

impl Read {
    /// Returns true if the record has the requested id. Other subjects have no requested id, and return true.
    fn is_what_was_asked(&self, subject: Subject, path: &str) -> bool {
        match subject {
            Subject::BankGet => {
                let asked = path.rsplit('/').next().unwrap_or_default();
                self.id.as_deref().is_some_and(|id| record_id::is_named_by(id, asked))
            }
            Subject::Bank | Subject::Cft | Subject::BankCodes | Subject::Health => true,
        }
    }
}

/// Returns the body for the request's caller, and removes the prefix from the head.
fn for_caller(
    (headers, answer): (&mut HeaderMap, &Answer),
    split: Option<&JsonTemplate>,
    reference: Option<&[u8]>,
    prefix: &ReferencePrefix,
) -> Bytes {
    let text = reference.and_then(reference::reference_text);
    let stripper = PrefixStripper::new(prefix.clone(), text.as_deref());
    reference::forget_body(headers);
    stripper.head(headers);
    let Some(split) = split else { return stripper.error(answer.body()) };
    // The reference in this body is spelled as Iluma spells it, without the prefix.
    let own = Record::of_answer(answer, &ReferencePrefixes::of([prefix.tenant().clone()]));
    stripper.success(match own.filter(|record| record.ownership(prefix) == Ownership::Own) {
        Some(own) => own.made_with(reference),
        None => split.with(reference),
    })
}

/// Returns true if a body contains the text of a reference. `reference` is JSON text; the search leaves out its quotes.
/// A reference of one or two bytes would match by chance, and is ignored.
fn quotes(body: &[u8], reference: &[u8]) -> bool {
    let bare = reference.get(1..reference.len().saturating_sub(1)).unwrap_or_default();
    bare.len() > 2 && memchr::memmem::find(body, bare).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iluma::answer::PARSED;
    use crate::iluma::person::Persons;
    use crate::ledger;
    use http::StatusCode;

    fn read(status: u16, body: &str, reference: Option<&str>, prefix: Option<&str>) -> (Collected, Read) {
        let collected = Collected {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let Received { collected: mut shown, answer } = Received::new(collected, &Persons::new(&[4; 32]));
        // The ledger uses the same parsed answer.
        let _ = ledger::charge_outcome(RouteName::Bank, status, Some(&answer));
        let prefix = prefix.map(|team| ReferencePrefix::of(&team.parse().unwrap()));
        let read = Read::of(&mut shown, &answer, Subject::Bank, (reference.map(str::as_bytes), prefix.as_ref()));
        (shown, read)
    }

    #[test]
    fn the_table_of_what_is_shown_and_shared() {
        let found = r#"{"id":"a","status":"COMPLETED","reference_id":"lending:r","result":{"is_found":true}}"#;
        let own = r#"{"id":"a","status":"COMPLETED","reference_id":"r","result":{"is_found":true}}"#;
        let bare = r#"{"id":"a","status":"COMPLETED","result":{"is_found":true}}"#;
        let error = r#"{"error_code":"X","message":"reference lending:r and rrr"}"#;
        let nested = r#"{"id":"a","reference_id":"lending:r","echo":{"reference_id":"lending:r"}}"#;
        let own_nested = r#"{"id":"a","reference_id":"r","echo":{"reference_id":"r"}}"#;
        for (status, body, reference, prefix, shown, is_shared, id) in [
            (200, found, Some(r#""r""#), Some("lending"), own, true, Some("a")),
            (200, own, Some(r#""r""#), None, own, true, Some("a")),
            (200, bare, None, None, bare, true, Some("a")),
            (
                400,
                error,
                Some(r#""r""#),
                Some("lending"),
                r#"{"error_code":"X","message":"reference r and rrr"}"#,
                true,
                None,
            ),
            (400, error, Some(r#""rrr""#), Some("lending"), error, false, None),
            (200, "<html>", Some(r#""r""#), Some("lending"), "<html>", true, None),
            (200, nested, Some(r#""r""#), Some("lending"), own_nested, false, Some("a")),
        ] {
            let (answer, read) = read(status, body, reference, prefix);
            let what = format!("{status} {body} {reference:?}");
            assert_eq!(answer.body, shown, "{what}");
            assert_eq!(read.is_shared, is_shared, "{what}");
            assert_eq!(read.id.as_deref(), id, "{what}");
        }
    }

    #[test]
    fn an_answer_is_parsed_once() {
        let before = PARSED.get();
        let found = r#"{"id":"a","status":"COMPLETED","reference_id":"lending:r","result":{"is_found":true}}"#;
        let (_, read) = read(200, found, Some(r#""r""#), Some("lending"));
        assert_eq!((PARSED.get() - before, read.id.as_deref()), (1, Some("a")));
    }
}
