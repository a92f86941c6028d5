//! The engine of gateways that share a Redis: its parts, and the execution of its scripts.

use super::super::envelopes::{Record, Secrecy};
use super::super::error::StateError;
use super::super::sentinels::{KeyError, Sentinels};
use super::super::times::{length, millis, time};
use super::skew::Skew;
use crate::base::clock::Clock;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::config::{self, Retention};
use crate::iluma::person::Tag;
use crate::redis::diagnosis::Cause;
use crate::redis::scripts::state::TIME;
use crate::redis::{BACKGROUND_TIMEOUT, Budget, RedisClient, RedisFailure, ReplicatedWriter};
use redis::{FromRedisValue, Script, ScriptInvocation};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::sync::Notify;

/// The largest number of entries that one run of a script changes: about a millisecond of work. Other clients of Redis
/// wait meanwhile.
pub(super) const MOST_TOUCHED: usize = 200;

/// The number of bytes after which a script takes no more entries, in its request or in its answer. Even a slow network
/// transfers this number of bytes within the timeout.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// The engine of gateways that share a Redis.
#[derive(Debug)]
pub struct Redis {
    pub(super) redis: RedisClient,
    /// The writer for received callbacks and claims of idempotency keys. Its writes may wait for replicas.
    replicated: ReplicatedWriter,
    pub(in super::super) secrecy: Secrecy,
    pub(super) retention: Retention,
    pub(super) clock: Clock,
    pub(super) skew: Skew,
    /// The running tasks that hand out entries or give entries back.
    pub(super) tasks: Tasks,
    sentinels: Sentinels,
    /// True once the keys were verified against the fingerprints in Redis.
    verified: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) arrived: Notify,
    pub(super) due: Notify,
}

impl Redis {
    /// Makes the engine on a client of Redis. The caller maintains the client's connection.
    #[must_use]
    pub fn new(redis: RedisClient, settings: &config::State, clock: Clock) -> Self {
        let replicas = settings.redis.as_ref().map_or(0, |redis| redis.replicas);
        Self {
            replicated: ReplicatedWriter::new(redis.clone(), replicas),
            redis,
            secrecy: Secrecy::new(settings),
            retention: settings.retention,
            clock,
            skew: Skew::default(),
            tasks: Tasks::new(),
            sentinels: Sentinels::new(settings),
            verified: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            arrived: Notify::new(),
            due: Notify::new(),
        }
    }

    pub(in super::super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    pub(in super::super) async fn work(&self) {
        self.due.notified().await;
    }

    pub(in super::super) async fn close(&self) {
        self.tasks.drain(BACKGROUND_TIMEOUT).await;
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn persons(&self, call: &mut ScriptInvocation<'_>, tags: &[Tag]) {
        for tag in tags {
            call.arg(&self.secrecy.person(tag));
        }
    }

    pub(super) fn reference(
        &self,
        record: &Record,
        tenant: &TenantName,
        hidden: &[u8],
    ) -> Result<Option<bytes::Bytes>, StateError> {
        if hidden.is_empty() {
            return Ok(None);
        }
        self.secrecy.show_reference(record, tenant, hidden).map(Some)
    }

    /// Converts a time of this node's clock to Redis' clock, in milliseconds since 1970.
    pub(super) async fn theirs(&self, time: SystemTime) -> Result<i64, StateError> {
        if self.skew.ahead().is_none() {
            let _: i64 = self.run(&TIME, |_| {}).await?;
        }
        Ok(millis(time).saturating_add(self.skew.ahead().unwrap_or(0)))
    }

    /// Converts a time of Redis' clock, in milliseconds since 1970, to this node's clock.
    pub(super) fn ours(&self, millis: i64) -> SystemTime {
        time(millis.saturating_sub(self.skew.ahead().unwrap_or(0)))
    }

    /// Runs a script with the arguments that `fill` adds, and returns the script's answer.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, StateError> {
        let call = self.call(script, fill).await?;
        let answer = self.redis.script(&Budget::background(), &call).await?;
        Ok(self.noted(answer))
    }

    /// Runs a script as [`run`](Self::run) does. It returns when the configured number of replicas has the script's
    /// changes.
    pub(super) async fn run_replicated<T: FromRedisValue>(
        &self,
        script: &Script,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, StateError> {
        let call = self.call(script, fill).await?;
        let answer = self.replicated.script(&Budget::background(), &call).await?;
        Ok(self.noted(answer))
    }

    /// Returns true if [`run_replicated`](Self::run_replicated) has to wait for replicas.
    pub(super) fn waits_for_replicas(&self) -> bool {
        self.replicated.replicas() > 0
    }

    async fn call<'a>(
        &self,
        script: &'a Script,
        fill: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<ScriptInvocation<'a>, StateError> {
        self.ready().await?;
        let mut call = script.key(self.redis.keys().state());
        call.arg(length(self.clock.added()));
        fill(&mut call);
        Ok(call)
    }

    /// Measures the difference between the clocks, and returns the script's own answer. `now` is Redis' time, which is
    /// the first part of every answer.
    fn noted<T>(&self, (now, answer): (i64, T)) -> T {
        self.skew.note(now, millis(self.clock.wall()), self.clock.now());
        answer
    }

    pub(in super::super) async fn durability_warnings(&self) -> Result<Vec<Cause>, StateError> {
        Ok(self.redis.durability_warnings(self.replicated.replicas()).await?)
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StateError> {
        self.ready().await?;
        Ok(self.redis.command(&Budget::background(), command).await?)
    }

    /// Returns an error if scripts may not run: the engine is closed, or a configured key is wrong. The keys are
    /// verified once, before the first script.
    async fn ready(&self) -> Result<(), StateError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(StateError::Unavailable);
        }
        match self.verify_keys().await {
            Ok(()) => Ok(()),
            Err(KeyError::State(error)) => Err(error),
            Err(KeyError::File(..)) => Err(StateError::Unavailable),
            Err(KeyError::Wrong(error)) => {
                tracing::error!(%error, "state in Redis is not used until the key is corrected");
                Err(StateError::Refused)
            }
        }
    }

    pub(in super::super) async fn verify_keys(&self) -> Result<(), KeyError> {
        if !self.verified.load(Ordering::Relaxed) {
            // The future is boxed, because it runs only once. Otherwise it would enlarge the future of every request
            // that uses state.
            Box::pin(self.sentinels.verify(&self.redis, true)).await?;
            self.verified.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl From<RedisFailure> for StateError {
    fn from(error: RedisFailure) -> Self {
        match error {
            RedisFailure::Out => Self::Unavailable,
            RedisFailure::Unexpected => Self::Refused,
        }
    }
}
