//! The connections to Redis.

use super::error::StartError;
use super::stage::{LAST_MOMENT, Stage};
use crate::base::clock::Clock;
use crate::cache::Cache;
use crate::config::Settings;
use crate::limit::Nodes;
use crate::redis::{KeySpace, RedisClient};
use crate::state::{self, Sentinels, State};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;

/// The longest time that a start waits for Redis. A healthy Redis answers at once, and the gateway also serves while
/// Redis is out.
pub(super) const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// The clients of Redis. Both are `None` for a gateway without Redis.
#[derive(Debug)]
pub(super) struct RedisClients {
    /// The client of state, limits and the ledger.
    pub(super) main: Option<RedisClient>,
    /// The client of the cache. It is a clone of `main`, unless the cache has a Redis of its own.
    pub(super) cache: Option<RedisClient>,
}

impl RedisClients {
    /// Makes clients of every configured Redis. They connect once [`RedisClients::keep`] is called.
    pub(super) fn new(settings: &Settings) -> Result<Self, redis::RedisError> {
        let Some(redis) = &settings.state.redis else { return Ok(Self { main: None, cache: None }) };
        let keys = KeySpace::new(settings.state.root_key.expose_secret());
        let (of_cache, of_limits) = (Cache::channels(&keys), Nodes::channels(&keys));
        let (main, cache) = match &redis.cache {
            Some(target) => {
                let cache = RedisClient::new(target, keys.clone(), &of_cache)?;
                (RedisClient::new(&redis.main, keys, &of_limits)?, cache)
            }
            None => {
                let both = RedisClient::new(&redis.main, keys, &[of_cache, of_limits].concat())?;
                (both.clone(), both)
            }
        };
        Ok(Self { main: Some(main), cache: Some(cache) })
    }

    /// Returns all clients. A client that is both `main` and `cache` is returned once.
    pub(super) fn all(&self) -> impl Iterator<Item = &RedisClient> {
        // A client that serves both purposes is returned once.
        let main = self.main.iter().filter(|main| self.cache.as_ref().is_none_or(|cache| !cache.is(main)));
        main.chain(&self.cache)
    }

    /// Keeps the clients connected until the stage ends.
    pub(super) fn keep(&self, stage: &Stage) {
        self.all().for_each(|redis| redis.keep(stage.tasks(), stage.stop()));
    }

    /// Returns the reasons why state may be lost. Each reason begins with the configuration key of its Redis.
    pub(super) async fn durability_warnings(&self, state: &State) -> Vec<String> {
        let out = self.all().filter(|redis| !redis.is_up());
        let mut all: Vec<String> = out
            .map(|redis| match redis.cause() {
                Some(cause) => format!("{}: {cause}", redis.name()),
                None => format!("{}: Redis does not answer yet", redis.name()),
            })
            .collect();
        if let Some(main) = self.main.as_ref().filter(|main| main.is_up()) {
            let warnings = state.durability_warnings().await.unwrap_or_default();
            all.extend(warnings.iter().map(|cause| format!("{}: {cause}", main.name())));
        }
        all
    }

    /// Waits until every Redis answers, at most [`REDIS_TIMEOUT`] for each. A client without an answer keeps trying.
    /// Returns an error if a Redis can't be used until an operator changes something.
    pub(super) async fn await_them(&self) -> Result<(), StartError> {
        for redis in self.all() {
            let ready = redis.ready(REDIS_TIMEOUT).await;
            ready.map_err(|cause| StartError::UnusableRedis { key: redis.name(), cause })?;
        }
        Ok(())
    }
}

/// Returns the reasons why the configured Redis may lose state: its persistence is off, its eviction policy deletes
/// keys, or it does not answer. The list is empty for a gateway without Redis.
///
/// # Errors
/// Returns an error if a Redis can't be used because its address, certificates or answers are wrong, or if a configured
/// key is not the key of the state.
pub async fn durability_warnings(settings: &Settings) -> Result<Vec<String>, StartError> {
    state::verify_file(&settings.state)?;
    let redis_clients = RedisClients::new(settings)?;
    let Some(main) = redis_clients.main.clone() else { return Ok(Vec::new()) };
    let stage = Stage::default();
    redis_clients.keep(&stage);
    let ready = redis_clients.await_them().await;
    match Sentinels::new(&settings.state).verify(&main, false).await {
        Err(error @ state::KeyError::Wrong(_)) => return Err(error.into()),
        // A Redis that does not answer is a warning below.
        Err(state::KeyError::State(_) | state::KeyError::File(..)) | Ok(()) => {}
    }
    let state = State::Redis(Arc::new(state::Redis::new(main, &settings.state, Clock::system())));
    let warnings = redis_clients.durability_warnings(&state).await;
    stage.end(LAST_MOMENT).await;
    ready.map(|()| warnings)
}
