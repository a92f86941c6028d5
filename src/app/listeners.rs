//! Binds the listeners and serves them.

use super::error::StartError;
use super::node::{App, Socket, Sockets};
use super::stage::LAST_MOMENT;
use crate::base::peer::Peer;
use crate::base::web;
use crate::callback;
use crate::config::{self, Settings};
use crate::server::{Bounds, Events, Server};
use crate::telemetry::metrics::{Counted, Listener, Metrics};
use crate::telemetry::traces::traced;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::sync::Arc;
use std::time::Duration;

/// The time between two sweeps. A sweep closes idle connections to Iluma, and updates metrics that change with time.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The listeners, bound but not served yet.
pub(super) struct Listeners {
    server: Server,
    admin: Server,
    callbacks: Server,
    status: Option<Server>,
}

impl Listeners {
    /// Binds all listeners of the settings.
    pub(super) async fn bind(settings: &Settings) -> Result<Self, StartError> {
        let bounds = Bounds::new(&settings.server, &settings.upstream);
        Ok(Self {
            server: bind("server.listen", &settings.server.listener, bounds).await?,
            admin: bind("admin.listen", &settings.admin.listener, bounds).await?,
            callbacks: bind("callbacks.listen", &settings.callbacks.listener, bounds).await?,
            status: match &settings.status {
                Some(status) => Some(bind("status.listen", status, bounds).await?),
                None => None,
            },
        })
    }

    /// Returns the sockets of the listeners.
    pub(super) fn sockets(&self) -> Result<Sockets, StartError> {
        let socket = |server: &Server| -> Result<Socket, StartError> {
            Ok(Socket { address: server.address()?, handle: server.handle() })
        };
        Ok(Sockets {
            server: socket(&self.server)?,
            admin: socket(&self.admin)?,
            callbacks: socket(&self.callbacks)?,
            status: self.status.as_ref().map(socket).transpose()?,
        })
    }
}

async fn bind(key: &'static str, listener: &config::Listener, bounds: Bounds) -> Result<Server, StartError> {
    let bound = Server::bind(key.trim_end_matches(".listen"), listener, bounds).await;
    bound.map_err(|source| StartError::Bind { key, address: listener.listen, source })
}

impl App {
    /// Serves each listener until its stage ends. Also starts the sweeps of the gateway.
    pub(super) fn serve(&self, listeners: Listeners) {
        let Listeners { server, admin: admin_server, callbacks: callbacks_server, status } = listeners;
        let (servers, drain) = (&self.stages.servers, self.drain_timeout);
        let noted = |listener| ConnectionCounts(self.metrics.clone(), listener);
        let (gateway, events, stop) = (Arc::clone(&self.gateway), noted(Listener::Server), servers.stop());
        servers.spawn(async move {
            let services = move |peer: Peer| {
                let gateway = Arc::clone(&gateway);
                service_fn(move |request: Request<Incoming>| {
                    let client = peer.client(request.headers());
                    Arc::clone(&gateway).handle((request, client))
                })
            };
            server.serve(services, events, stop, drain).await;
        });
        let (admin, events, stop) = (Arc::clone(&self.admin), noted(Listener::Admin), self.stages.admin.stop());
        let (tracer, clock) = (self.tracer.clone(), self.clock.clone());
        self.stages.admin.spawn(async move {
            admin_server
                .serve(web::services(traced(admin.router(), &tracer, &clock)), events, stop, LAST_MOMENT / 2)
                .await;
        });
        if let Some(status) = status {
            let (admin, events, stop) = (Arc::clone(&self.admin), noted(Listener::Status), self.stages.admin.stop());
            self.stages.admin.spawn(async move {
                status.serve(web::services(admin.status_router()), events, stop, LAST_MOMENT / 2).await;
            });
        }
        let (callbacks, events, stop) = (Arc::clone(&self.callbacks), noted(Listener::Callbacks), servers.stop());
        let (tracer, clock) = (self.tracer.clone(), self.clock.clone());
        servers.spawn(async move {
            let inbox = traced(callback::inbox(callbacks), &tracer, &clock);
            callbacks_server.serve(web::services(inbox), events, stop, drain).await;
        });
        let gateway = Arc::clone(&self.gateway);
        servers.spawn_until_end(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                gateway.sweep();
            }
        });
    }
}

/// Counts the events of a listener's connections.
#[derive(Clone)]
struct ConnectionCounts(Metrics, Listener);

impl Events for ConnectionCounts {
    type Guard = Counted;

    fn connected(&self) -> Counted {
        self.0.connection(self.1)
    }

    fn handshake_failed(&self) {
        self.0.handshake_failed(self.1);
    }
}
