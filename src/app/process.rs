//! A process that serves: signals, changed files, and the end.

use super::environment::Environment;
use super::error::StartError;
use super::node::App;
use super::notify;
use super::preflight;
use crate::config::{Faults, Settings};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a gateway until SIGTERM or SIGINT. SIGHUP or a changed file reloads the configuration.
///
/// # Errors
/// Returns an error if the configuration has faults, or if the gateway can't start.
pub async fn run(path: PathBuf) -> Result<(), StartError> {
    // The watch for signals and changed files begins before the gateway serves, so no change is missed. The first load
    // only names the files to watch. The second load reads changes that were made before the watch began.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut files = crate::config::watch::Watch::new(&Settings::load(&path)?.files);
    let settings = Settings::load(&path)?;
    files.set_files(&settings.files);
    let findings = preflight::look(&settings).await;
    findings.refuse()?;
    let app = App::start(&settings, Environment::of_process()).await?;
    for warning in &findings.warnings {
        tracing::warn!(key = warning.key(), "{}", warning.problem());
    }
    notify::keep_alive(&app.stages.admin);
    notify::ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {}
            () = files.changed() => {}
        }
        notify::reloading();
        let outcome = match Settings::load(&path) {
            Ok(settings) => match app.reload(&settings) {
                Ok(()) => {
                    files.set_files(&settings.files);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
            Err(faults) => Err(one_line(&faults)),
        };
        app.reloaded(outcome);
        notify::ready();
    }
    notify::stopping();
    app.shutdown().await;
    Ok(())
}

/// Joins the faults into one line.
fn one_line(faults: &Faults) -> String {
    faults.to_string().trim().replace('\n', "; ")
}
