//! `iluma-gateway check`: reports the faults and warnings that `run` would report, without serving.

use super::output::{self, OutputError};
use crate::app::{self, StartError, preflight};
use crate::config::{Faults, Settings};
use crate::state;
use std::path::PathBuf;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway check --config config.toml")]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The reason why a configuration would not work, or was not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Configuration(#[from] Faults),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Output(#[from] OutputError),
}

/// Prints the effective settings, warnings, and "ok" at the end.
///
/// # Errors
/// Returns an error that lists all faults of the configuration.
pub(super) async fn run(args: &Args) -> Result<(), CheckError> {
    let settings = Settings::load(&args.config)?;
    output::print(settings.describe())?;
    let findings = preflight::look(&settings).await;
    for warning in &findings.warnings {
        output::complain(format_args!("warning: {warning}"));
    }
    findings.refuse()?;
    state::verify_file(&settings.state).map_err(StartError::from)?;
    // A Redis that can't be reached is reported already.
    if !findings.warnings.iter().any(|warning| warning.key().starts_with("state.redis")) {
        for warning in app::durability_warnings(&settings).await? {
            output::complain(format_args!("warning: {warning}"));
        }
    }
    output::line("\nok")?;
    Ok(())
}
