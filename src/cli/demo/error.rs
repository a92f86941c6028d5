//! The reasons why the demo ends early.

use crate::app::StartError;
use crate::cli::output::OutputError;
use crate::cli::register::RegisterError;
use crate::config::Faults;
use http::uri::InvalidUri;
use std::io;

/// The reason why the demo failed.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum DemoError {
    /// The compiled-in configuration.
    #[error("the demo's configuration is faulty:\n{0}")]
    Configuration(#[from] Faults),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Iluma's callback URLs.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The gateway's own address.
    #[error(transparent)]
    Address(#[from] InvalidUri),
    /// A socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The standard output.
    #[error("{0}")]
    Output(#[from] OutputError),
    /// A request to the own gateway.
    #[error("a request failed: {0}")]
    Request(Box<dyn std::error::Error + Send + Sync>),
    /// Something did not happen as the tour says it does.
    #[error("not as it should be: {0}")]
    Unexpected(String),
}

/// Returns an error that names `what` if it did not happen.
pub(super) fn expect(so: bool, what: &str) -> Result<(), DemoError> {
    if so { Ok(()) } else { Err(DemoError::Unexpected(what.to_owned())) }
}
