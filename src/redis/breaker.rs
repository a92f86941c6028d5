//! The circuit breaker around a Redis: while it is open, only its own loop sends commands, which are probes.
//!
//! Invariants: at most one connection is in use; a connection that failed is never used again; a cause is logged only
//! once until Redis answers again.

use super::connection::Connector;
use super::diagnosis::{Cause, Grade};
use super::keys::RedisKey;
use crate::base::clock::Clock;
use crate::base::keyring;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{sleep, timeout};

/// The pause after a failure. It varies at random by up to a quarter, so that nodes do not probe in step. A pause and a
/// probe together take far less than the 5 s in which operation must be normal again.
const COOL_OFF: Duration = Duration::from_millis(500);
/// The interval of probes while Redis answers.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The largest number of different causes that are logged until Redis answers again: one outage has fewer.
const MOST_CAUSES: usize = 8;

/// The circuit breaker of one Redis. While the breaker is closed, it holds the connection.
pub(super) struct Breaker {
    /// The configuration key of the Redis, for the log.
    pub(super) name: &'static str,
    connector: Connector,
    /// The connection; `None` while the breaker is open.
    connection: ArcSwapOption<MultiplexedConnection>,
    up: watch::Sender<bool>,
    /// The time of the last change: Redis began to answer, or stopped answering.
    since: Mutex<SystemTime>,
    /// The different causes of the outage, since Redis last answered.
    causes: watch::Sender<Vec<Cause>>,
    /// Notifies the loop of [`keep`](Self::keep) that the connection can't be used any more.
    broken: Notify,
    channels: BTreeMap<String, broadcast::Sender<Vec<u8>>>,
}

impl Breaker {
    /// Returns an open breaker, which closes once it is [kept](Self::keep).
    pub(super) fn new(
        name: &'static str,
        connector: Connector,
        channels: BTreeMap<String, broadcast::Sender<Vec<u8>>>,
    ) -> Self {
        Self {
            name,
            connector,
            connection: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            since: Mutex::new(Clock::system().wall()),
            causes: watch::Sender::new(Vec::new()),
            broken: Notify::new(),
            channels,
        }
    }

    /// Connects, and reconnects whenever the connection is lost. It never returns.
    pub(super) async fn keep(self: &Arc<Self>) {
        loop {
            let listener = Arc::downgrade(self);
            let push =
                move |push: PushInfo| listener.upgrade().map(|breaker| breaker.hear(push)).ok_or(redis::aio::SendError);
            match self.connector.connect(push).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    self.connection.store(Some(Arc::clone(&connection)));
                    self.causes.send_replace(Vec::new());
                    self.set_up(true);
                    tracing::info!(redis = self.name, "Redis answers");
                    self.while_well(&connection).await;
                }
                Err(cause) => self.note(cause),
            }
            let [jitter] = keyring::random::<1>();
            sleep(COOL_OFF.mul_f64(0.75 + f64::from(jitter) / 512.0)).await;
        }
    }

    /// Opens the breaker permanently.
    pub(super) fn close(&self) {
        self.connection.store(None);
        self.set_up(false);
    }

    fn set_up(&self, is_up: bool) {
        if self.up.send_replace(is_up) != is_up {
            *self.since.lock() = Clock::system().wall();
        }
    }

    /// Returns the time of the last change: Redis began to answer, or stopped answering.
    pub(super) fn since(&self) -> SystemTime {
        *self.since.lock()
    }

    /// Returns the kind of the servers: `single`, `sentinel` or `cluster`.
    pub(super) const fn topology(&self) -> &'static str {
        self.connector.topology()
    }

    /// Returns the connection; `None` while the breaker is open.
    pub(super) fn connection(&self) -> Option<Arc<MultiplexedConnection>> {
        self.connection.load_full()
    }

    /// Opens another connection to the server of the current connection.
    pub(super) async fn another(&self) -> Result<MultiplexedConnection, Cause> {
        self.connector.another().await
    }

    /// Opens a connection to the cluster node that holds `key`. Returns `None` if the servers are not a cluster.
    pub(super) async fn to_owner_of(&self, key: &RedisKey) -> Option<Result<MultiplexedConnection, Cause>> {
        if self.connector.is_cluster() { Some(self.connector.to_owner_of(key).await) } else { None }
    }

    /// Opens the breaker, if `connection` is still the current one.
    pub(super) fn trip(&self, connection: &Arc<MultiplexedConnection>, cause: Cause) {
        let current = self.connection.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            self.connection.store(None);
            self.note(cause);
            self.set_up(false);
            self.broken.notify_one();
        }
    }

    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    pub(super) fn causes(&self) -> watch::Receiver<Vec<Cause>> {
        self.causes.subscribe()
    }

    pub(super) fn channel(&self, name: &str) -> Option<&broadcast::Sender<Vec<u8>>> {
        self.channels.get(name)
    }

    fn note(&self, cause: Cause) {
        let cause = self.connector.judge(cause);
        let is_new = self.causes.send_if_modified(|causes| {
            let is_new = !causes.contains(&cause) && causes.len() < MOST_CAUSES;
            if is_new {
                causes.push(cause.clone());
            }
            is_new
        });
        if is_new {
            let (redis, what) =
                (self.name, "Redis is out; requests are served without it, and it is probed twice a second");
            match cause.grade() {
                Grade::Fault => tracing::error!(redis, %cause, "{what}"),
                Grade::Warning => tracing::warn!(redis, %cause, "{what}"),
            }
        }
    }

    /// Probes the connection, and returns once it can't be used any more.
    async fn while_well(&self, connection: &Arc<MultiplexedConnection>) {
        loop {
            // The notification may be about an earlier connection.
            let _ = timeout(HEARTBEAT, self.broken.notified()).await;
            if self.connection.load().is_none() {
                return;
            }
            if let Err(cause) = self.connector.probe((**connection).clone()).await {
                return self.trip(connection, cause);
            }
        }
    }

    fn hear(&self, push: PushInfo) {
        match (push.kind, push.data.as_slice()) {
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(message)]) => {
                let channel = std::str::from_utf8(channel).ok().and_then(|name| self.channels.get(name));
                if let Some(channel) = channel {
                    // The channel may have no listener now.
                    let _ = channel.send(message.clone());
                }
            }
            (PushKind::Disconnection, _) => {
                if let Some(connection) = self.connection.load_full() {
                    self.trip(&connection, Cause::Disconnected);
                }
            }
            _ => {}
        }
    }
}
