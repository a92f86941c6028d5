//! The reload: applies changed settings while the gateway serves.

use super::node::App;
use super::observe::{DELIVERIES, secrets};
use crate::admin::ReloadFact;
use crate::config::{RedisTarget, Settings};
use crate::telemetry::metrics::Reload;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

impl App {
    /// Applies changed settings, all of them or none. A change of a setting in [`fixed`] is only logged, because it
    /// takes effect at the next start.
    ///
    /// # Errors
    /// Returns an error if the machine has no usable trust store for the certificates of Iluma and of teams' endpoints.
    pub fn reload(&self, settings: &Settings) -> Result<(), rustls::Error> {
        // Logs hide the new secrets before any part can use them, and the old ones until the next reload.
        let new = secrets(settings);
        let mut known = self.known_secrets.lock();
        self.redactor.replace(known.iter().chain(&new).cloned().collect());
        let callbacks = self.callbacks.prepare(settings)?;
        self.gateway.reload(settings)?;
        self.callbacks.reload(callbacks);
        self.storage.registry.reload(settings);
        self.events.configured(settings);
        *known = new;
        self.admin.reload(settings);
        self.failures.reload(settings.max_auth_failures);
        self.metrics.callback_outcomes(settings.tenants.keys(), &DELIVERIES);
        self.sockets.replace(settings);
        for (now, (key, value)) in fixed(settings).into_iter().zip(&self.fixed) {
            if now.1 != *value {
                tracing::warn!(key, "the change of this key takes effect at the next start");
            }
        }
        Ok(())
    }

    /// Counts and logs the outcome of a reload.
    pub(super) fn reloaded(&self, outcome: Result<(), String>) {
        self.events.reloaded(ReloadFact { time: self.clock.wall(), fault: outcome.clone().err() });
        match outcome {
            Ok(()) => {
                self.metrics.config_reload(Reload::Applied);
                self.metrics.config_applied(self.clock.wall());
                tracing::info!("the configuration was reloaded");
            }
            Err(why) => {
                self.metrics.config_reload(Reload::Refused);
                tracing::error!(
                    why,
                    "the changed configuration has faults, so the old one stays in effect; correct it, and test it with iluma-gateway check"
                );
            }
        }
    }
}

/// Returns the settings that are read only at the start, as pairs of the key and the value as text. The text for a
/// secret is its hash.
#[must_use]
pub fn fixed(settings: &Settings) -> Vec<(&'static str, String)> {
    let (server, state, kept) = (&settings.server, &settings.state, &settings.state.retention);
    let targets = state.redis.iter().flat_map(|redis| [Some(&redis.main), redis.cache.as_ref()]).flatten();
    let replicas = state.redis.iter().map(|redis| redis.replicas.to_be_bytes().to_vec());
    vec![
        ("server.listen", server.listener.listen.to_string()),
        ("server.max_connections", server.max_connections.to_string()),
        ("server.header_timeout", format!("{:?}", server.header_timeout)),
        ("server.keep_alive_timeout", format!("{:?}", server.keep_alive_timeout)),
        ("server.max_header_bytes", server.max_header_bytes.to_string()),
        ("server.max_headers", server.max_headers.to_string()),
        ("server.drain_timeout", format!("{:?}", server.drain_timeout)),
        ("admin.listen", settings.admin.listener.listen.to_string()),
        ("callbacks.listen", settings.callbacks.listener.listen.to_string()),
        ("status.listen", settings.status.as_ref().map_or_else(String::new, |status| status.listen.to_string())),
        ("state.path", settings.state.path.display().to_string()),
        ("state.root_key", digest([&state.root_key.expose_secret()[..]])),
        (
            "state.encryption_keys",
            digest(state.encryption_keys.iter().flat_map(|key| [key.id.as_bytes(), &key.key.expose_secret()[..]])),
        ),
        (
            "state.redis",
            digest(targets.flat_map(RedisTarget::parts).chain(replicas).collect::<Vec<_>>().iter().map(Vec::as_slice)),
        ),
        ("state.retention.owners", format!("{:?}", kept.owners)),
        ("state.retention.delivered_callbacks", format!("{:?}", kept.delivered_callbacks)),
        ("state.retention.dead_letters", format!("{:?}", kept.dead_letters)),
        ("node.name", settings.node.clone()),
        ("state.disk_reserve", state.disk_reserve.to_string()),
        ("log.level", settings.log.level.to_string()),
        ("telemetry.otlp", settings.otlp.as_ref().map_or_else(String::new, |otlp| format!("{otlp:?}"))),
        ("cache.memory", settings.cache.memory.to_string()),
        ("cache.disk", settings.cache.disk.to_string()),
    ]
}

/// Returns a text that changes if any of the parts changes. The text does not reveal the parts.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    format!("{:?}", digest.finalize())
}
