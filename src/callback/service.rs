//! The shared state of the callback feature, on which the other files work.

use super::concurrency::AdaptiveConcurrency;
use super::config::CallbackConfig;
use super::events::{Arrived, Hooks, Note, Skipped};
use super::webhook_client::WebhookClient;
use crate::base::clock::Clock;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::config::Settings;
use crate::state::{Made, State};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// The largest number of stored callbacks that wait until the cache learns from them. Further callbacks are not
/// announced to the cache. They are still delivered, and the cache gets their results from Iluma's next answers.
const MOST_ARRIVED: usize = 1024;

/// The largest number of callbacks of cache hits that wait to be stored. This is ten times the number that 4000 hits a
/// second make in 100 ms.
const MOST_MADE: usize = 4096;

/// The largest number of callbacks whose bodies are read at once: 64 MiB in all.
const MOST_READING: usize = 64;

/// The largest number of test deliveries at once, of all teams together.
const MOST_TESTING: usize = 16;

/// The pause of a background loop after state returned an error.
pub(super) const REST: Duration = Duration::from_secs(1);

/// The callback feature: its configuration, its client for teams' endpoints, its bounds and its channels.
pub struct Callbacks {
    pub(super) state: State,
    pub(super) config: ArcSwap<CallbackConfig>,
    pub(super) client: ArcSwap<WebhookClient>,
    pub(super) concurrency: AdaptiveConcurrency,
    pub(super) clock: Clock,
    pub(super) hooks: Hooks,
    /// The slots for bodies that are being read.
    pub(super) reading: Semaphore,
    /// The slots for test deliveries.
    pub(super) testing: Semaphore,
    pub(super) arrived: mpsc::Sender<Arrived>,
    made: mpsc::Sender<Made>,
    connections: Tasks,
}

/// The receiver of the callbacks of cache hits, which [`Callbacks::run`] stores.
#[derive(Debug)]
pub struct Inflow {
    pub(super) made: mpsc::Receiver<Made>,
}

/// New settings of the callback feature, ready to be applied: every step that can fail is done.
pub struct PreparedReload {
    config: CallbackConfig,
    /// The new client for teams' endpoints; `None` if the client does not change.
    client: Option<WebhookClient>,
}

impl Callbacks {
    /// Returns the callback feature for `settings`; the receiver that [`Callbacks::run`] consumes; and the receiver of
    /// arrived callbacks, for the cache, which learns results from them.
    ///
    /// # Errors
    /// Returns an error if the machine has no usable trust store.
    pub fn new(
        settings: &Settings,
        state: State,
        hooks: Hooks,
        clock: Clock,
    ) -> Result<(Arc<Self>, Inflow, mpsc::Receiver<Arrived>), rustls::Error> {
        let (config, connections) = (CallbackConfig::new(settings), Tasks::new());
        let (arrived, arrivals) = mpsc::channel(MOST_ARRIVED);
        let (made, journal) = mpsc::channel(MOST_MADE);
        let client = WebhookClient::new(&config.extra_ca, clock.clone(), connections.clone())?;
        let callbacks = Self {
            state,
            config: ArcSwap::from_pointee(config),
            client: ArcSwap::from_pointee(client),
            concurrency: AdaptiveConcurrency::default(),
            clock,
            hooks,
            reading: Semaphore::new(MOST_READING),
            testing: Semaphore::new(MOST_TESTING),
            arrived,
            made,
            connections,
        };
        Ok((Arc::new(callbacks), Inflow { made: journal }, arrivals))
    }

    /// Prepares [`Callbacks::reload`]. Nothing changes yet.
    ///
    /// # Errors
    /// Returns the errors of [`Callbacks::new`].
    pub fn prepare(&self, settings: &Settings) -> Result<PreparedReload, rustls::Error> {
        let config = CallbackConfig::new(settings);
        let is_same = config.extra_ca == self.config.load().extra_ca;
        let client = || WebhookClient::new(&config.extra_ca, self.clock.clone(), self.connections.clone());
        let client = if is_same { None } else { Some(client()?) };
        Ok(PreparedReload { config, client })
    }

    /// Applies prepared settings. Deliveries in progress finish under the old settings.
    pub fn reload(&self, PreparedReload { config, client }: PreparedReload) {
        if let Some(client) = client {
            self.client.store(Arc::new(client));
        }
        self.config.store(Arc::new(config));
    }

    /// Accepts a callback that the gateway itself makes for an answer from the cache. The callback is stored within 100
    /// ms, and delivered if the team has a URL for its type. It is dropped if too many callbacks wait.
    pub fn hit(&self, made: Made) {
        if let Err(mpsc::error::TrySendError::Full(made) | mpsc::error::TrySendError::Closed(made)) =
            self.made.try_send(made)
        {
            (self.hooks.note)(Note::Skipped(&made.copy.tenant, Skipped::Overflow));
        }
    }

    /// Returns true if the team may have callback URLs. A team without allowed hosts may have none, so no callback is
    /// made for it.
    #[must_use]
    pub fn may_listen(&self, tenant: &TenantName) -> bool {
        self.config.load().teams.get(tenant).is_some_and(|team| !team.hosts.is_empty())
    }
}

impl std::fmt::Debug for PreparedReload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedReload").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").field("state", &self.state).finish_non_exhaustive()
    }
}
