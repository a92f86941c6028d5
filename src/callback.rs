//! Iluma's callbacks, from their arrival to each team that waits for them.
//!
//! Invariants: what was answered 200 is on disk, and is delivered at least once to everyone it is for, or shown to
//! operators; nobody gets what is not theirs; one team's dead endpoint delays no other; no wait is without a deadline and
//! no queue in memory without a bound.
//!
//! `ingress` takes them in, `relay` finds out whose they are, `dispatch` hands them to `courier`, which signs (`sign`) and
//! sends them. `settings` is what a team sees of it. What is durable is [`state`](crate::state)'s.

mod body;
mod dispatch;
mod fan_out;
mod ingress;
mod settings;
mod sign;
mod urls;
mod webhook_client;

pub use body::Malformed;
pub use dispatch::{Attempt, Skipped};
pub use ingress::{Admission, MOST_BYTES};
pub use settings::{SettingError, UrlSetting};
pub use urls::UrlError;
pub use webhook_client::Failure;

use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use crate::config::{self, Settings};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Persons;
use crate::state::{Made, Queues, State, StateError};
use arc_swap::ArcSwap;
use bytes::Bytes;
use dispatch::AdaptiveConcurrency;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use sign::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use webhook_client::WebhookClient;

/// Callbacks that were stored and that the rest of the gateway has not looked at yet. More are not told: they are delivered
/// all the same, and the cache is filled by the next answer.
const MOST_ARRIVED: usize = 1024;

/// Callbacks of hits that wait to be journalled: ten times what comes in 100 ms at 4000 hits a second.
const MOST_MADE: usize = 4096;

/// How often what is old is removed, and queues are counted.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a loop rests after state failed it.
const REST: Duration = Duration::from_secs(1);

/// Everything about callbacks.
pub struct Callbacks {
    state: State,
    live: ArcSwap<CallbackConfig>,
    courier: ArcSwap<WebhookClient>,
    lanes: AdaptiveConcurrency,
    clock: Clock,
    hooks: Hooks,
    /// Bodies that are being read.
    reading: Semaphore,
    arrived: mpsc::Sender<Arrived>,
    made: mpsc::Sender<Made>,
    connections: Tasks,
}

/// What the rest of the gateway is asked and told.
pub struct Hooks {
    /// Finds the persons that a callback's body is about.
    pub persons: Persons,
    /// Something happened that is counted.
    pub note: Box<dyn Fn(Note<'_>) + Send + Sync>,
}

/// Something that is counted. Nothing in it comes from input.
#[derive(Debug, Clone, Copy)]
pub enum Note<'a> {
    /// A callback came; account and type if they are known.
    Received(Option<&'a AccountName>, Option<CallbackType>, Admission),
    /// A delivery was attempted.
    Attempted(&'a TenantName, Attempt),
    /// No delivery was made.
    Skipped(&'a TenantName, Skipped),
    /// The queues were counted, at this time.
    Queues(&'a Queues, std::time::SystemTime),
}

/// A callback that came and was stored, for whoever learns from it. It may come again after a crash.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The account.
    pub account: AccountName,
    /// Its type, where the path named it.
    pub kind: Option<CallbackType>,
    /// Iluma's id.
    pub id: String,
    /// What it says, with the reference as Iluma knows it.
    pub body: Bytes,
}

/// What [`Callbacks::run`] consumes, and the rest of the gateway.
#[derive(Debug)]
pub struct Inflow {
    made: mpsc::Receiver<Made>,
}

/// What the configuration says of callbacks.
struct CallbackConfig {
    accounts: BTreeMap<AccountName, Account>,
    teams: BTreeMap<TenantName, Team>,
    retry: Vec<Duration>,
    extra_ca: Vec<CertificateDer<'static>>,
}

struct Account {
    tokens: Vec<SecretString>,
    seals: bool,
    /// Who gets what nobody is known to own.
    owns_unsealed: Option<TenantName>,
}

struct Team {
    account: AccountName,
    hosts: BTreeSet<String>,
    urls: BTreeMap<CallbackType, String>,
    credentials: Credentials,
}

impl CallbackConfig {
    fn new(settings: &Settings) -> Self {
        let root = settings.state.root_key.expose_secret();
        let team = |(name, tenant): (&TenantName, &config::Tenant)| {
            let team = Team {
                account: tenant.account.clone(),
                hosts: tenant.callback_hosts.clone(),
                urls: tenant.callback_urls.iter().map(|(kind, url)| (*kind, url.to_string())).collect(),
                credentials: Credentials::new(root, name, tenant),
            };
            (name.clone(), team)
        };
        let account = |(name, account): (&AccountName, &config::Account)| {
            let owner = settings.tenants.iter().find(|(_, tenant)| tenant.account == *name && tenant.owns_unprefixed);
            let account = Account {
                tokens: account.callback_tokens.clone(),
                seals: account.prefix_references,
                owns_unsealed: owner.map(|(name, _)| name.clone()),
            };
            (name.clone(), account)
        };
        Self {
            accounts: settings.accounts.iter().map(account).collect(),
            teams: settings.tenants.iter().map(team).collect(),
            retry: settings.callbacks.retry.clone(),
            extra_ca: settings.callbacks.extra_ca.clone(),
        }
    }
}

/// What teams are told apart and signed for with, given or derived, for whoever has to hide it.
#[must_use]
pub fn secrets(settings: &Settings) -> Vec<SecretString> {
    let teams = CallbackConfig::new(settings).teams.into_values();
    teams.flat_map(|team| std::iter::once(team.credentials.token).chain(team.credentials.secrets)).collect()
}

impl Callbacks {
    /// Callbacks as `settings` say. The second is for [`Callbacks::run`], the third for whoever learns from what arrives.
    ///
    /// # Errors
    /// The machine has no usable trust store.
    pub fn new(
        settings: &Settings,
        state: State,
        hooks: Hooks,
        clock: Clock,
    ) -> Result<(Arc<Self>, Inflow, mpsc::Receiver<Arrived>), rustls::Error> {
        let (live, connections) = (CallbackConfig::new(settings), Tasks::new());
        let (arrived, arrivals) = mpsc::channel(MOST_ARRIVED);
        let (made, journal) = mpsc::channel(MOST_MADE);
        let courier = WebhookClient::new(&live.extra_ca, clock.clone(), connections.clone())?;
        let callbacks = Self {
            state,
            live: ArcSwap::from_pointee(live),
            courier: ArcSwap::from_pointee(courier),
            lanes: AdaptiveConcurrency::default(),
            clock,
            hooks,
            reading: Semaphore::new(ingress::MOST_READING),
            arrived,
            made,
            connections,
        };
        Ok((Arc::new(callbacks), Inflow { made: journal }, arrivals))
    }

    /// Goes over to other settings; deliveries under way end under the old ones.
    ///
    /// # Errors
    /// As [`Callbacks::new`]; then everything stays as it is.
    pub fn reload(&self, settings: &Settings) -> Result<(), rustls::Error> {
        let live = CallbackConfig::new(settings);
        if live.extra_ca != self.live.load().extra_ca {
            let courier = WebhookClient::new(&live.extra_ca, self.clock.clone(), self.connections.clone())?;
            self.courier.store(Arc::new(courier));
        }
        self.live.store(Arc::new(live));
        Ok(())
    }

    /// Works until `stop`: fans out, delivers, journals, sweeps, counts. Deliveries under way then end; what is queued
    /// stays queued.
    pub fn run(self: &Arc<Self>, inflow: Inflow, tasks: &Tasks, stop: &CancellationToken) {
        let [relay, dispatch, sweep, count] = std::array::from_fn(|_| Arc::clone(self));
        tasks.spawn_until(stop, async move { relay.relay().await });
        let deliveries = tasks.clone();
        tasks.spawn_until(stop, async move { dispatch.dispatch(&deliveries).await });
        tasks.spawn_until(stop, async move { sweep.sweep().await });
        tasks.spawn_until(stop, async move { count.count().await });
        let (journal, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { journal.journal(inflow.made, stop).await });
    }

    /// Takes in a callback of the gateway's own, for an answer that came from the cache. It is journalled within 100 ms and
    /// delivered if the team has a URL for it; with so many waiting that there is no room it is not.
    pub fn hit(&self, made: Made) {
        if let Err(mpsc::error::TrySendError::Full(made) | mpsc::error::TrySendError::Closed(made)) =
            self.made.try_send(made)
        {
            (self.hooks.note)(Note::Skipped(&made.copy.tenant, Skipped::Overflow));
        }
    }

    /// Whether it may be that the team has a URL for this type: if not, nothing need be made for it. A URL's host is one of
    /// the team's hosts, so a team without any has none.
    #[must_use]
    pub fn may_listen(&self, tenant: &TenantName) -> bool {
        self.live.load().teams.get(tenant).is_some_and(|team| !team.hosts.is_empty())
    }

    /// Where a team's callbacks of a type go: its own URL beats the configuration's.
    async fn url(&self, tenant: &TenantName, team: &Team, kind: CallbackType) -> Result<Option<String>, StateError> {
        let own = self.state.urls(tenant).await?.into_iter().find(|(known, _)| *known == kind);
        Ok(own.map(|(_, url)| url).or_else(|| team.urls.get(&kind).cloned()))
    }

    async fn sweep(&self) {
        loop {
            match self.state.sweep().await {
                // There may be more of it.
                Ok(1..) => continue,
                Ok(0) => {}
                Err(error) => tracing::warn!(%error, "what is old can't be removed"),
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    async fn count(&self) {
        loop {
            match self.state.queues().await {
                Ok(queues) => (self.hooks.note)(Note::Queues(&queues, self.clock.wall())),
                Err(error) => tracing::warn!(%error, "callbacks can't be counted"),
            }
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
    }
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").field("state", &self.state).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks(…)")
    }
}
