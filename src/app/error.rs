//! The reasons why a gateway does not start.

use crate::base::database::{DatabaseError, OpenError};
use crate::config::Faults;
use crate::redis::diagnosis::Cause;
use crate::state;
use crate::telemetry::traces::TracesError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The reason why an app does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be bound.
    #[error("{key}: can't listen on {address}: {source}")]
    Bind {
        /// The configuration key of the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The configuration has faults.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// The machine's trust store can't be used.
    #[error("upstream: TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Spans can't be exported.
    #[error("telemetry.otlp: {0}")]
    Traces(#[from] TracesError),
    /// The embedded database can't be read or written.
    #[error("state.path: {0}")]
    Database(#[from] DatabaseError),
    /// No client can be made for a Redis, because its address or its certificates can't be used.
    #[error("state.redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// A Redis can't be used until an operator changes something.
    #[error("{key}: {cause}")]
    UnusableRedis {
        /// The configuration key of the Redis.
        key: &'static str,
        /// The cause.
        cause: Cause,
    },
    /// The file of the embedded database can't be opened.
    #[error("state.path: {path}: {source}", path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: OpenError,
    },
    /// A configured key is not the key of the stored state.
    #[error(transparent)]
    Keys(#[from] state::KeyError),
    /// Another running process has this node's identity.
    #[error("state.path: {0}")]
    Identity(#[from] state::IdentityTaken),
    /// The operating system refuses another operation.
    #[error(transparent)]
    Io(#[from] io::Error),
}
