//! `iluma-gateway check`: reports the faults and warnings that `run` would report, and does not serve.

use super::output::{self, OutputError};
use crate::app::{self, StartError, preflight};
use crate::config::{Fault, Faults, Settings};
use crate::state;
use clap::ValueEnum;
use std::path::PathBuf;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  iluma-gateway check --config config.toml\n  \
                        iluma-gateway check --config config.toml --without-secrets --format json")]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the file alone, without secrets, certificates, the database and Redis. For pull requests, on a machine
    /// without them.
    #[arg(long)]
    without_secrets: bool,
    /// The form of the result: text for people, or one JSON object with faults and warnings.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The effective settings on standard output, faults and warnings on standard error.
    Text,
    /// One JSON object on standard output.
    Json,
}

/// The reason why a configuration would not work, or why the result was not printed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Configuration(#[from] Faults),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Output(#[from] OutputError),
    /// The configuration has faults, which standard output shows already.
    #[error("the configuration would not work; the faults are on standard output")]
    Told,
}

/// Prints the effective settings, the warnings, and "ok" at the end. With `--format json` it prints faults and warnings
/// as JSON.
///
/// # Errors
/// Returns an error with all faults of the configuration, or an error of the output.
pub(super) async fn run(args: &Args) -> Result<(), CheckError> {
    match args.format {
        Format::Text => {
            let checked = examine(args, true).await?;
            checked.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
            output::line("\nok")?;
            Ok(())
        }
        Format::Json => {
            let (faults, warnings) = match examine(args, false).await {
                Ok(warnings) => (Vec::new(), warnings),
                Err(CheckError::Configuration(faults)) => (faults.iter().cloned().collect(), Vec::new()),
                Err(CheckError::Start(error)) => (vec![keyed(&error.to_string())], Vec::new()),
                Err(other) => return Err(other),
            };
            output::line(json(&faults, &warnings))?;
            if faults.is_empty() { Ok(()) } else { Err(CheckError::Told) }
        }
    }
}

/// Returns the warnings about a valid configuration. If `shown` is true, also prints the effective settings.
async fn examine(args: &Args, shown: bool) -> Result<Vec<Fault>, CheckError> {
    let load = if args.without_secrets { Settings::load_without_secrets } else { Settings::load };
    let settings = load(&args.config)?;
    if shown {
        output::print(settings.describe())?;
    }
    if args.without_secrets {
        return Ok(settings.warnings);
    }
    let mut findings = preflight::look(&settings).await;
    if let (false, Err(faults)) = (findings.faults.is_empty(), findings.refuse()) {
        // Warnings are printed in addition to the faults.
        if shown {
            findings.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
        }
        return Err(faults.into());
    }
    state::verify_file(&settings.state).map_err(StartError::from)?;
    // A Redis that can't be reached is in the warnings already.
    if !findings.warnings.iter().any(|warning| warning.key().starts_with("state.redis")) {
        let durability = app::durability_warnings(&settings).await?;
        findings.warnings.extend(durability.iter().map(|warning| keyed(warning)));
    }
    Ok(findings.warnings)
}

/// Turns a message into a fault. If the message begins with a configuration key, the fault has that key.
fn keyed(message: &str) -> Fault {
    let is_key = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match message.split_once(": ") {
        Some((key, problem)) if is_key(key) => Fault::new(key, problem),
        _ => Fault::new("", message),
    }
}

/// Returns faults and warnings as one JSON object.
fn json(faults: &[Fault], warnings: &[Fault]) -> serde_json::Value {
    let list = |faults: &[Fault]| {
        let faults = faults.iter().map(|fault| serde_json::json!({ "key": fault.key(), "problem": fault.problem() }));
        faults.collect::<Vec<_>>()
    };
    serde_json::json!({ "ok": faults.is_empty(), "faults": list(faults), "warnings": list(warnings) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_begins_with_a_key_is_that_keys() {
        for (message, key, problem) in [
            ("state.path: the folder does not exist", "state.path", "the folder does not exist"),
            ("upstream: no trust store: none", "upstream", "no trust store: none"),
            ("no key here", "", "no key here"),
            ("a sentence: with a colon", "", "a sentence: with a colon"),
        ] {
            let fault = keyed(message);
            assert_eq!((fault.key(), fault.problem()), (key, problem));
        }
    }
}
