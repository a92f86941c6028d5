//! The connections to Redis.

use super::error::StartError;
use super::stage::{LAST_MOMENT, Stage};
use crate::base::clock::Clock;
use crate::cache::Cache;
use crate::config::Settings;
use crate::redis::{KeySpace, RedisClient};
use crate::state::{self, Sentinels, State};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;

/// Time that a start waits for Redis: where all is well it is there at once, and where it is not the gateway serves without.
pub(super) const REDIS_PATIENCE: Duration = Duration::from_secs(1);

/// The clients of Redis: none where a gateway serves alone.
#[derive(Debug)]
pub(super) struct Links {
    /// The one of state, limits and books.
    pub(super) main: Option<RedisClient>,
    /// The cache's, which may be an instance of its own.
    pub(super) cache: Option<RedisClient>,
}

impl Links {
    /// Returns clients of every Redis that the settings name. They connect once they are kept.
    pub(super) fn new(settings: &Settings) -> Result<Self, redis::RedisError> {
        let Some(redis) = &settings.state.redis else { return Ok(Self { main: None, cache: None }) };
        let keys = KeySpace::new(settings.state.root_key.expose_secret());
        let channels = Cache::channels(&keys);
        let cache = RedisClient::new(redis.cache.as_ref().unwrap_or(&redis.main), keys.clone(), &channels)?;
        let main = if redis.cache.is_some() { RedisClient::new(&redis.main, keys, &[])? } else { cache.clone() };
        Ok(Self { main: Some(main), cache: Some(cache) })
    }

    /// Returns each client once.
    pub(super) fn all(&self) -> impl Iterator<Item = &RedisClient> {
        // One that serves for both is one.
        let main = self.main.iter().filter(|main| self.cache.as_ref().is_none_or(|cache| !cache.is(main)));
        main.chain(&self.cache)
    }

    /// Keeps connections until the stage ends.
    pub(super) fn keep(&self, stage: &Stage) {
        self.all().for_each(|link| link.keep(stage.tasks(), stage.stop()));
    }

    /// Returns the reasons why state may be lost, each with the key of its Redis.
    pub(super) async fn concerns(&self, state: &State) -> Vec<String> {
        let out = self.all().filter(|link| !link.is_up());
        let mut concerns: Vec<String> = out
            .map(|link| match link.cause() {
                Some(cause) => format!("{}: {cause}", link.name()),
                None => format!("{}: Redis does not answer yet", link.name()),
            })
            .collect();
        if let Some(main) = self.main.as_ref().filter(|main| main.is_up()) {
            let warnings = state.concerns().await.unwrap_or_default();
            concerns.extend(warnings.iter().map(|cause| format!("{}: {cause}", main.name())));
        }
        concerns
    }

    /// Waits until they answer. One that is out for now is tried again by its client.
    pub(super) async fn await_them(&self) -> Result<(), StartError> {
        for link in self.all() {
            let ready = link.ready(REDIS_PATIENCE).await;
            ready.map_err(|cause| StartError::UnusableRedis { key: link.name(), cause })?;
        }
        Ok(())
    }
}

/// Returns the reasons why the Redis that `settings` name may lose state: persistence that is off, a policy that evicts, or no
/// answer. There are none where a gateway serves alone.
///
/// # Errors
/// A Redis cannot work: its address or certificates, or what it answers.
pub async fn concerns(settings: &Settings) -> Result<Vec<String>, StartError> {
    state::verify_file(&settings.state)?;
    let links = Links::new(settings)?;
    let Some(main) = links.main.clone() else { return Ok(Vec::new()) };
    let stage = Stage::default();
    links.keep(&stage);
    let ready = links.await_them().await;
    match Sentinels::new(&settings.state).verify(&main, false).await {
        Err(error @ state::KeyError::Wrong(_)) => return Err(error.into()),
        // A Redis that does not answer is a warning below.
        Err(state::KeyError::State(_)) | Ok(()) => {}
    }
    let state = State::Redis(Arc::new(state::Redis::new(main, &settings.state, Clock::system())));
    let concerns = links.concerns(&state).await;
    stage.end(LAST_MOMENT).await;
    ready.map(|()| concerns)
}
