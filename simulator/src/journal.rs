//! The last requests as they were received, so that tests can compare what arrived.
//!
//! Invariants: the number of requests and the bytes of each body are bounded; no raw API key is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use serde_json::{Value, json};

use super::{key, time};
use parking_lot::Mutex;

/// One request as received.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    at: SystemTime,
    method: String,
    path: String,
    version: String,
    headers: Vec<(String, String)>,
    pub(super) route: &'static str,
    pub(super) key: Option<Arc<str>>,
    pub(super) faults: Vec<String>,
    /// The status of the answer, or the status that it would have had without a fault. `None` until it is known.
    pub(super) status: Option<u16>,
    pub(super) charged: bool,
    pub(super) body_size: u64,
    /// True if the whole body was received.
    pub(super) body_complete: bool,
    pub(super) body_sha256: String,
    /// The beginning of the body.
    pub(super) body: Vec<u8>,
}

impl Entry {
    fn shown(&self) -> Value {
        let mut shown = json!({
            "number": self.number,
            "at": time::iso8601(self.at),
            "method": self.method,
            "path": self.path,
            "http": self.version,
            "headers": self.headers,
            "route": self.route,
            "key": self.key.as_deref(),
            "faults": self.faults,
            "status": self.status,
            "charged": self.charged,
            "body_size": self.body_size,
            "body_complete": self.body_complete,
            "body_sha256": self.body_sha256,
        });
        if self.body.len() as u64 == self.body_size && self.body_size > 0 {
            match std::str::from_utf8(&self.body) {
                Ok(text) => shown["body"] = text.into(),
                Err(_) => shown["body_base64"] = STANDARD.encode(&self.body).into(),
            }
        }
        shown
    }
}

/// The last requests.
#[derive(Debug)]
pub(super) struct Journal {
    max: usize,
    next: u64,
    entries: VecDeque<Arc<Mutex<Entry>>>,
}

impl Journal {
    pub(super) fn new(max: usize) -> Self {
        Self { max, next: 0, entries: VecDeque::new() }
    }

    pub(super) fn open(&mut self, parts: &Parts, route: &'static str) -> Arc<Mutex<Entry>> {
        let headers = parts.headers.iter().map(|(name, value)| {
            let value = match name.as_str() {
                "authorization" => key::masked(&parts.headers),
                "proxy-authorization" | "cookie" => "…".into(),
                _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            };
            (name.as_str().to_owned(), value)
        });
        let entry = Arc::new(Mutex::new(Entry {
            number: self.next,
            at: time::wall(),
            method: parts.method.as_str().into(),
            path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            version: format!("{:?}", parts.version),
            headers: headers.collect(),
            route,
            key: None,
            faults: Vec::new(),
            status: None,
            charged: false,
            body_size: 0,
            body_complete: false,
            body_sha256: String::new(),
            body: Vec::new(),
        }));
        self.next += 1;
        self.entries.push_back(Arc::clone(&entry));
        while self.entries.len() > self.max {
            self.entries.pop_front();
        }
        entry
    }

    /// Returns as JSON the last `limit` requests whose path begins with `prefix`, oldest first.
    pub(super) fn shown(&self, prefix: &str, limit: usize) -> Value {
        let mut newest: Vec<Value> = self
            .entries
            .iter()
            .rev()
            .map(|entry| entry.lock())
            .filter(|entry| entry.path.starts_with(prefix))
            .take(limit)
            .map(|entry| entry.shown())
            .collect();
        newest.reverse();
        json!({ "requests": newest })
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
