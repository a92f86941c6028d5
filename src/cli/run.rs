//! `iluma-gateway run`: serves.

use crate::app::{self, StartError};
use std::path::PathBuf;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway run --config /etc/iluma-gateway/config.toml")]
pub(super) struct Args {
    /// The configuration file; every key is explained in config/default.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Serves until a signal ends it.
///
/// # Errors
/// Returns an error if the configuration has faults, or if the gateway can't start.
pub(super) async fn run(args: Args) -> Result<(), StartError> {
    app::run(args.config).await
}
