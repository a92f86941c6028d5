//! The state of the simulator, behind short locks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use super::callback::Urls;
use super::fault::Rules;
use super::journal::Journal;
use super::limit::Limiter;
use super::options::Options;
use super::record::Records;
use super::stats::{Stats, Tally};
use super::tasks::Tracked;
use super::webhook_client::WebhookClient;
use parking_lot::Mutex;

/// The largest number of single-use tokens that are remembered as used. Once it is reached, all of them are forgotten.
const MAX_TOKENS: usize = 10_000;

/// The state of one simulator.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) tally: Tally,
    pub(super) records: Mutex<Records>,
    pub(super) asked: Mutex<Asked>,
    pub(super) journal: Mutex<Journal>,
    pub(super) faults: Mutex<Rules>,
    pub(super) limiter: Mutex<Limiter>,
    pub(super) urls: Mutex<Urls>,
    pub(super) used_tokens: Mutex<HashSet<String>>,
    pub(super) webhooks: WebhookClient,
}

impl World {
    pub(super) fn new(options: Options, executor: Tracked) -> Self {
        Self {
            tally: Tally::default(),
            records: Mutex::new(Records::new(options.max_records)),
            asked: Mutex::new(Asked { max: options.max_records, ..Asked::default() }),
            journal: Mutex::new(Journal::new(options.max_requests)),
            faults: Mutex::default(),
            limiter: Mutex::default(),
            urls: Mutex::default(),
            used_tokens: Mutex::default(),
            webhooks: WebhookClient::new(executor),
            options,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let records = self.records.lock().len();
        self.tally.snapshot(records)
    }

    /// Restores the state that the simulator had after its start, except that requests in flight stay counted.
    pub(super) fn reset(&self) {
        self.webhooks.reset();
        self.records.lock().clear();
        self.asked.lock().clear();
        self.journal.lock().clear();
        self.faults.lock().clear();
        *self.limiter.lock() = Limiter::default();
        self.urls.lock().clear();
        self.used_tokens.lock().clear();
        self.tally.reset();
    }

    /// Marks a token as used. Returns false if it was used before.
    pub(super) fn use_token(&self, token: String) -> bool {
        let mut used = self.used_tokens.lock();
        if used.len() >= MAX_TOKENS {
            used.clear();
        }
        used.insert(token)
    }
}

/// The bank accounts that were requested, each with the time at which the bank's answer is ready.
#[derive(Debug, Default)]
pub(super) struct Asked {
    max: usize,
    ready: HashMap<String, Instant>,
    order: VecDeque<String>,
}

impl Asked {
    pub(super) fn ready_at(&self, account: &str) -> Option<Instant> {
        self.ready.get(account).copied()
    }

    pub(super) fn note(&mut self, account: String, ready: Instant) {
        if self.ready.insert(account.clone(), ready).is_none() {
            self.order.push_back(account);
        }
        while self.ready.len() > self.max.max(1) {
            let Some(oldest) = self.order.pop_front() else { return };
            self.ready.remove(&oldest);
        }
    }

    fn clear(&mut self) {
        self.ready.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::now;
    use super::*;

    #[test]
    fn the_accounts_asked_for_have_a_bound() {
        let mut asked = Asked { max: 2, ..Asked::default() };
        for account in ["a", "b", "a", "c"] {
            asked.note(account.into(), now());
        }
        assert_eq!(asked.ready_at("a"), None);
        assert!(asked.ready_at("c").is_some());
        assert_eq!((asked.ready.len(), asked.order.len()), (2, 2));
    }
}
