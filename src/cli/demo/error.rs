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
    /// The compiled-in configuration has faults.
    #[error("the demo's configuration is faulty:\n{0}")]
    Configuration(#[from] Faults),
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Iluma's callback URLs could not be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The gateway's own address is invalid.
    #[error(transparent)]
    Address(#[from] InvalidUri),
    /// A socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The standard output failed.
    #[error("{0}")]
    Output(#[from] OutputError),
    /// A request to the demo's gateway failed.
    #[error("a request failed: {0}")]
    Request(Box<dyn std::error::Error + Send + Sync>),
    /// A step did not have the result that the tour describes.
    #[error("the demo found an unexpected result, expected: {0}")]
    Unexpected(String),
}

/// Returns an error that names the expectation `what` if `so` is false.
pub(super) fn expect(so: bool, what: &str) -> Result<(), DemoError> {
    if so { Ok(()) } else { Err(DemoError::Unexpected(what.to_owned())) }
}
