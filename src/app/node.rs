//! A serving gateway, and its parts.

use super::node_facts::NodeEvents;
use super::stage::Stage;
use super::storage::Storage;
use crate::admin::Admin;
use crate::base::auth_failures::AuthFailures;
use crate::base::clock::Clock;
use crate::base::tasks::Tasks;
use crate::callback::Callbacks;
use crate::config::Settings;
use crate::gateway::Gateway;
use crate::server::ListenerHandle;
use crate::telemetry::logs::LogWriter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact::Redactor;
use crate::telemetry::traces::Tracer;
use parking_lot::Mutex;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A serving gateway.
#[derive(Debug)]
pub struct App {
    pub(super) gateway: Arc<Gateway>,
    pub(super) admin: Arc<Admin>,
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) failures: AuthFailures,
    pub(super) metrics: Metrics,
    pub(super) tracer: Tracer,
    pub(super) clock: Clock,
    pub(super) redactor: Redactor,
    /// The secrets of the active settings, which logs hide.
    pub(super) known_secrets: Mutex<Vec<SecretString>>,
    pub(super) sockets: Sockets,
    /// The records of events from which the node's report is made.
    pub(super) events: NodeEvents,
    pub(super) drain_timeout: Duration,
    /// The settings that only a restart changes, with their values at the start.
    pub(super) fixed: Vec<(&'static str, String)>,
    pub(super) storage: Storage,
    pub(super) stages: Stages,
    pub(super) logs: Vec<LogWriter>,
}

/// A listener's address, and the handle that changes its settings.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) address: SocketAddr,
    pub(super) handle: ListenerHandle,
}

/// The listeners' sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) server: Socket,
    pub(super) admin: Socket,
    pub(super) callbacks: Socket,
    pub(super) status: Option<Socket>,
}

impl Sockets {
    /// Returns the name and the handle of each listener.
    pub(super) fn handles(&self) -> Vec<(&'static str, ListenerHandle)> {
        let sockets = [("server", &self.server), ("callbacks", &self.callbacks), ("admin", &self.admin)];
        let status = self.status.iter().map(|status| ("status", status));
        sockets.into_iter().chain(status).map(|(name, socket)| (name, socket.handle.clone())).collect()
    }

    /// Applies changed settings of the listeners to new connections.
    pub(super) fn replace(&self, settings: &Settings) {
        self.server.handle.replace(&settings.server.listener);
        self.callbacks.handle.replace(&settings.callbacks.listener);
        self.admin.handle.replace(&settings.admin.listener);
        if let (Some(socket), Some(listener)) = (&self.status, &settings.status) {
            socket.handle.replace(listener);
        }
    }
}

/// The tasks of a gateway, in the order in which a shutdown ends them.
#[derive(Debug, Default)]
pub(super) struct Stages {
    /// The listeners of teams and callbacks.
    pub(super) servers: Stage,
    /// The calls that outlive their requests.
    pub(super) leftovers: Tasks,
    /// The fan-out and delivery of callbacks. These tasks stop together with `servers`.
    pub(super) deliveries: Tasks,
    /// The background work, which ends after the last request.
    pub(super) background: Stage,
    /// The connections to Redis. They end late, because the node still needs them to leave the group of nodes.
    pub(super) redis_clients: Stage,
    /// The listeners of operators and of probes: readiness and metrics are served until the end.
    pub(super) admin: Stage,
}

impl App {
    /// Returns the address of the tenants' listener.
    #[must_use]
    pub const fn server_address(&self) -> SocketAddr {
        self.sockets.server.address
    }

    /// Returns the address of the operators' listener.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.sockets.admin.address
    }

    /// Returns the address of the listener for Iluma's callbacks.
    #[must_use]
    pub const fn callbacks_address(&self) -> SocketAddr {
        self.sockets.callbacks.address
    }

    /// Returns the address of the listener for probes; `None` if it is not configured.
    #[must_use]
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.sockets.status.as_ref().map(|socket| socket.address)
    }

    /// Returns the gateway, for callers that pass requests without a socket.
    #[must_use]
    pub const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
}
