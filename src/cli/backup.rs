//! `iluma-gateway backup` and `iluma-gateway restore`: copies of a node's state.

use crate::app::backup::{self, BackupError, RestoreOrder, Restored};
use crate::config::{Faults, Settings};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Options of `backup`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway backup --config config.toml --to iluma-gateway.backup")]
pub(super) struct BackupArgs {
    /// The configuration file of the gateway.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The new file; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Options of `restore`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway restore iluma-gateway.backup --config config.toml")]
pub(super) struct RestoreArgs {
    /// The file that `backup` has written.
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The configuration file of the gateway, which must not run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Receipts that `erasures` has exported, or a later backup or database. Their erasures are applied as well as
    /// those of the state that is replaced.
    #[arg(long, value_name = "FILE")]
    erasures: Option<PathBuf>,
    /// Keep the keys that were made by the API, including those that were revoked after the copy was made.
    #[arg(long)]
    keep_keys: bool,
}

/// The reason why a copy was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error(transparent)]
    Configuration(#[from] Faults),
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Makes a copy of the state. Returns the text to print.
///
/// # Errors
/// Returns an error if the configuration has faults, or if no copy could be made.
pub(super) fn back_up(args: &BackupArgs) -> Result<String, CopyError> {
    let settings = Settings::load(&args.config)?;
    backup::back_up(&settings, &args.to)?;
    let mut said =
        format!("{} holds the state of {}, without the cache\n", args.to.display(), settings.state.path.display());
    if settings.state.redis.is_some() {
        said.push_str("callbacks and owners are in Redis: back that up as well\n");
    }
    Ok(said)
}

/// Restores a copy. Returns the text to print.
///
/// # Errors
/// Returns an error if the configuration has faults, or if the copy could not be restored. The state is unchanged then,
/// unless an error occurs while the files are renamed.
pub(super) async fn restore(args: &RestoreArgs) -> Result<String, CopyError> {
    let settings = Settings::load(&args.config)?;
    let order = RestoreOrder { from: &args.from, erasures: args.erasures.as_deref(), keep_keys: args.keep_keys };
    let done = backup::restore(&settings, order).await?;
    Ok(report(&done, args))
}

fn report(done: &Restored, args: &RestoreArgs) -> String {
    let mut said = String::new();
    let erased = &done.erased;
    let sum = erased.owners + erased.callbacks + erased.deliveries + erased.answers;
    // Writing to a string does not fail.
    let _ = writeln!(said, "restored {}; stored answers are not used any more", args.from.display());
    let _ = writeln!(said, "erased again: {} means of identification, {sum} entries", done.persons);
    let _ = match args.keep_keys {
        true => writeln!(said, "kept: the keys made by the API"),
        false => writeln!(said, "dropped: {} keys made by the API", done.keys),
    };
    if let Some(aside) = &done.aside {
        let _ = writeln!(said, "the replaced state is {}: delete it once all is well", aside.display());
    }
    if done.is_former_unreadable {
        said.push_str(
            "warning: the replaced state can't be read, so erasures since the backup are not known; give --erasures\n",
        );
    }
    said
}
