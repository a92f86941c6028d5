//! The result of one upstream call that several requests may share.

use crate::base::json_template::JsonTemplate;
use crate::base::name::AccountName;
use crate::cache::{CacheSlot, Entry, Hit, LEASE_RENEWAL, Leader, Lease, SharedResult};
use crate::iluma::answer::Answer;
use crate::iluma::person::Tag;
use crate::upstream::{CallError, Collected};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// The time for which the body of a callback is kept, because a callback may arrive before the answer to its POST.
const OVERTAKING_LIFETIME: Duration = Duration::from_secs(5);
/// The largest total size in bytes of the kept bodies of callbacks.
const MOST_OVERTAKING_BYTES: u64 = 16 << 20;

/// The result of one call, for every request that waits for it.
#[derive(Debug)]
pub(super) struct FetchResult {
    pub(super) answer: Collected,
    /// The parsed answer; `None` if another node read it.
    pub(super) read: Option<Answer>,
    /// The body as a template for requests with other references; `None` if the body quotes the reference of the
    /// request that made the call.
    pub(super) shared: Option<JsonTemplate>,
    /// The cache entry of the result; `None` if the result is not stored.
    pub(super) entry: Option<Arc<Entry>>,
    /// Iluma's id, if the answer is a record.
    pub(super) id: Option<String>,
    /// The persons that the answer names.
    pub(super) tags: Vec<Tag>,
    /// The cache slot of the pending request that this answer settles, and the new entry of that slot; `None` if the
    /// answer settles no such request.
    pub(super) settled: Option<(CacheSlot, Arc<Entry>)>,
    pub(super) took: Duration,
}

/// The outcome of one call, for every request that waits for it.
pub(super) type Fetched = Result<Arc<FetchResult>, CallError>;

/// The answer to a request, by its source: the cache, the request's own call, or another request's call.
pub(super) enum Joined {
    Hit(Hit),
    /// The answer to the request's own call.
    Led(Arc<FetchResult>),
    /// The answer to another request's call, with the body for any caller.
    Shared(Arc<FetchResult>, JsonTemplate),
}

impl FetchResult {
    /// Returns true if the answer is stored, and is not "pending".
    pub(super) fn is_stored(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| !entry.pending)
    }

    /// Returns true if the answer is a 5xx: Iluma failed.
    pub(super) fn is_failure(&self) -> bool {
        self.answer.status.is_server_error()
    }
}

/// The bodies of recent callbacks, by account and record id. A callback may arrive before the answer to its POST. The
/// bodies are personal data that an erasure does not delete, so they are kept for a few seconds only.
pub(super) type OvertakingCallbacks = moka::sync::Cache<(AccountName, String), Bytes>;

/// Builds an empty store for the bodies of recent callbacks.
pub(super) fn no_overtaking_callbacks() -> OvertakingCallbacks {
    let weight = |_: &(AccountName, String), body: &Bytes| u32::try_from(body.len()).unwrap_or(u32::MAX);
    OvertakingCallbacks::builder()
        .weigher(weight)
        .max_capacity(MOST_OVERTAKING_BYTES)
        .time_to_live(OVERTAKING_LIFETIME)
        .build()
}

/// Returns a callback's body as an answer to a GET.
pub(super) fn from_callback(body: Bytes) -> Collected {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Collected { status: StatusCode::OK, headers, body }
}

/// Returns the result of another node's call in the form that this node's calls have.
pub(super) fn from_other_node(result: SharedResult) -> Fetched {
    match result {
        SharedResult::Failed(reason) => Err(CallError::from_number(reason)),
        SharedResult::Answer(status, content_type, shared) => {
            let status = StatusCode::from_u16(status).map_err(|_| CallError::Garbled)?;
            let content_type = content_type.and_then(|value| HeaderValue::from_bytes(&value).ok());
            let headers = content_type.map(|value| (CONTENT_TYPE, value)).into_iter().collect();
            let answer = Collected { status, headers, body: Bytes::new() };
            let read = shared
                .as_ref()
                .filter(|_| answer.status.is_success())
                .map(|body| Answer::parse(&body.with(None), None));
            let id = read.and_then(|read| read.id().map(str::to_owned));
            Ok(Arc::new(FetchResult {
                answer,
                read: None,
                shared,
                entry: None,
                settled: None,
                id,
                tags: Vec::new(),
                took: Duration::ZERO,
            }))
        }
    }
}

/// Returns a call's result in the form that is sent to other nodes.
pub(super) fn for_other_nodes(outcome: &Fetched) -> SharedResult {
    match outcome {
        Err(error) => SharedResult::Failed(error.number()),
        Ok(fetched) => {
            let content_type = fetched.answer.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
            SharedResult::Answer(fetched.answer.status.as_u16(), content_type, fetched.shared.clone())
        }
    }
}

/// The role of the leader. It makes the call, and then passes the result to all requests that wait for it, here and at
/// other nodes.
pub(super) struct Lead {
    pub(super) leader: Leader<Fetched>,
    /// The lease that keeps other nodes from making the same call; `None` if this node has no lease, for example while
    /// Redis is out.
    pub(super) lease: Option<Lease>,
}

/// Runs a call, and renews its lease until the call has ended.
pub(super) async fn renewing<T>(call: impl Future<Output = T>, lease: Option<&Lease>) -> T {
    let Some(lease) = lease else { return call.await };
    let renew = async {
        loop {
            tokio::time::sleep(LEASE_RENEWAL).await;
            lease.renew().await;
        }
    };
    tokio::select! {
        answer = call => answer,
        () = renew => unreachable!("renewing has no end"),
    }
}
