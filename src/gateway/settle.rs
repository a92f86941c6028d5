//! Results of pending requests, from a callback or a GET: they replace "pending" in the cache.

use super::core::Gateway;
use super::fetch_result::from_callback;
use super::received::Received;
use crate::base::json_template::{Absent, JsonTemplate};
use crate::base::name::AccountName;
use crate::cache::{CacheCandidate, CacheSlot, Entry};
use crate::callback::Arrived;
use crate::iluma::answer::Answer;
use crate::iluma::person::Tag;
use crate::redis::Budget;
use crate::upstream::Collected;
use http::header::CONTENT_TYPE;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The longest wait for Redis when a callback has arrived, to find the cache slot of the pending request that the
/// callback answers. The wait may be long, because no request waits for it.
const SETTLING: Duration = Duration::from_secs(1);

impl Gateway {
    /// Stores an answer in L1 if the cache's policy allows it. Returns the new entry; `None` if the answer is not
    /// stored.
    pub(super) fn store(
        &self,
        slot: &CacheSlot,
        (collected, answer): (&Collected, &Answer),
        template: &JsonTemplate,
        tags: BTreeSet<Tag>,
    ) -> Option<Arc<Entry>> {
        let content_type = collected.headers.get(CONTENT_TYPE);
        self.cache
            .offer(slot, CacheCandidate { status: collected.status, content_type, answer, spliced: template, tags })
    }

    /// Stores the results in callbacks as they arrive: a final answer replaces "pending" in the cache. Returns once
    /// `arrivals` is closed.
    pub async fn learn(&self, mut arrivals: mpsc::Receiver<Arrived>) {
        while let Some(Arrived { account, id, body, .. }) = arrivals.recv().await {
            let received = Received::new(from_callback(body.clone()), &self.persons);
            let about = (account, id);
            self.overtaking.insert(about.clone(), body);
            let (account, id) = &about;
            if let Some((slot, entry)) =
                self.settle(account, (None, id), (&received.collected, &received.answer), &Budget::of(SETTLING)).await
            {
                self.overtaking.invalidate(&about);
                self.cache.publish(&slot, &entry, Some(account), None).await;
            }
        }
    }

    /// Stores the final answer to a pending request in the cache slot of that request. Returns the slot and the new
    /// entry; `None` if nothing is stored. `path` is the path of the GET without the id, if the answer came from a GET.
    pub(super) async fn settle(
        &self,
        account: &AccountName,
        (path, id): (Option<&str>, &str),
        (collected, answer): (&Collected, &Answer),
        redis: &Budget,
    ) -> Option<(CacheSlot, Arc<Entry>)> {
        let awaited = self.cache.awaited(account, id, redis).await?;
        // Another version of the API returns the same content in another shape.
        if path.is_some_and(|path| awaited.path != path) {
            return None;
        }
        let template = answer.template(Absent::Insert).unwrap_or_else(|| JsonTemplate::whole(answer.body()));
        let mut tags = awaited.tags;
        tags.extend(answer.persons());
        let entry = self.store(&awaited.place, (collected, answer), &template, tags)?;
        Some((awaited.place, entry))
    }
}
