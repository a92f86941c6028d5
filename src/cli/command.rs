//! The commands, and the dispatch to one of them.

use super::{
    backup, callbacks, check, demo, erase, erasures, generated, healthcheck, keygen, keys, output, purge, register,
    run, simulate, usage,
};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::io;
use std::process::ExitCode;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a usage error, the same as clap's.
const USAGE: u8 = 2;
/// The exit code of a comparison that found differences. A comparison that failed exits with 1.
const DIFFERENT: u8 = 3;

/// Shares one Iluma (Indonesian KYC API) account between the teams of a company.
///
/// Exit codes: 0 done; 1 not done, or not everywhere, and standard error says why; 2 wrong usage; 3 a bill differs from
/// the ledger.
#[derive(Parser, Debug)]
#[command(name = "iluma-gateway", version, max_term_width = 100, after_help = "Start with: iluma-gateway demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve until SIGTERM; SIGHUP or a changed file reloads the configuration.
    Run(run::Args),
    /// Load a configuration, resolve its secrets, and print the effective settings without them.
    ///
    /// Faults keep the gateway from working: each is named with its key path, and the exit code is 1. Warnings are
    /// about valid but probably unintended settings: they are named too, and the exit code is 0.
    Check(check::Args),
    /// Exit with 0 if the running gateway is ready, else with 1 and the reason.
    ///
    /// Asks the status listener of the configuration, or the admin listener if there is no status listener. For health
    /// checks of containers without curl.
    Healthcheck(healthcheck::Args),
    /// Make a new team key and the hash that goes into the configuration, or a root or encryption key.
    #[command(after_help = "Examples:\n  iluma-gateway keygen --tenant lending\n  iluma-gateway keygen --secret")]
    Keygen(keygen::Args),
    /// Create, list, rotate and revoke teams' keys at a running gateway, and on all nodes that share its Redis.
    ///
    /// Prints the result; exits with 1 if a node was not reached.
    Keys(Box<keys::Args>),
    /// Purge stored answers from a running gateway, and from all gateways that share its cache.
    ///
    /// Prints the removed entries; exits with 1 if a node was not reached.
    Purge(purge::Args),
    /// Erase a person's data from a running gateway, and from all gateways that share its state.
    ///
    /// Prints the receipt; exits with 1 and the remaining nodes if a node was not reached.
    Erase(erase::Args),
    /// Export the receipts of erasures as JSON lines, of a running gateway and of all that share its state.
    ///
    /// They have keyed tags of the persons, and no personal data. `restore --erasures` reads them.
    Erasures(erasures::Args),
    /// List, replay, pause, resume and test callbacks of a running gateway.
    Callbacks(Box<callbacks::Args>),
    /// Point Iluma's callback URLs at this gateway, which must be running: Iluma posts a test to each URL before it
    /// accepts it.
    ///
    /// Prints the changes by account and type; exits with 1 if anything failed.
    RegisterCallbacks(register::Args),
    /// Print a month's usage and cost by team and route: of this gateway, or with Redis of all nodes.
    Usage(usage::Args),
    /// Copy the state of a gateway to a new file, also while it serves; the cache is not copied.
    Backup(backup::BackupArgs),
    /// Restore a copy of the state, and repeat the erasures that the replaced state and --erasures have. The gateway must
    /// not run.
    ///
    /// The replaced state is set aside. Stored answers are not used any more, browser sessions end, and keys that were
    /// made by the API are dropped, unless --keep-keys is given.
    Restore(backup::RestoreArgs),
    /// Run a simulated Iluma to develop and test against.
    Simulate(Box<simulate::Args>),
    /// Run a guided tour: a simulated Iluma, a gateway and two teams on loopback; then serve until Ctrl-C.
    Demo(demo::Args),
    /// Print completions for a shell.
    Completions(generated::Args),
    /// Print the manual page, in roff.
    #[command(after_help = "Example: iluma-gateway man | man --local-file -")]
    Man,
}

/// Runs the command that the process's arguments name. Returns the exit code of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results, not errors.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) if output::behind(&*error).is_some_and(output::OutputError::is_gone) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Run(args) => runtime()?.block_on(run::run(args))?,
        Command::Check(args) => runtime()?.block_on(check::run(&args))?,
        Command::Healthcheck(args) => runtime()?.block_on(healthcheck::run(&args))?,
        Command::Completions(args) => output::print(generated::completions(&args, Cli::command()))?,
        Command::Man => output::print(generated::manual(Cli::command())?)?,
        Command::Keys(args) => output::line(runtime()?.block_on(keys::run(*args))?)?,
        Command::Purge(args) => output::line(runtime()?.block_on(purge::run(args))?)?,
        Command::Erase(args) => output::line(runtime()?.block_on(erase::run(args))?)?,
        Command::Erasures(args) => output::print(runtime()?.block_on(erasures::run(args))?)?,
        Command::Callbacks(args) => output::line(runtime()?.block_on(callbacks::run(*args))?)?,
        Command::RegisterCallbacks(args) => output::print(runtime()?.block_on(register::run(&args))?)?,
        Command::Usage(args) => {
            let usage::Report { text, differs } = runtime()?.block_on(usage::run(args))?;
            output::print(text)?;
            if differs {
                return Ok(ExitCode::from(DIFFERENT));
            }
        }
        Command::Backup(args) => output::print(backup::back_up(&args)?)?,
        Command::Restore(args) => output::print(runtime()?.block_on(backup::restore(&args))?)?,
        Command::Simulate(args) => runtime()?.block_on(simulate::run(*args))?,
        Command::Demo(args) => runtime()?.block_on(demo::run(args))?,
        Command::Keygen(args) => output::print(keygen::run(&args))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a runtime with one worker for each processor that the process may use. After this call, SIGUSR1 and SIGUSR2
/// do nothing; before it, they would end the process. SIGPIPE does nothing in any Rust program.
fn runtime() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let entered = runtime.enter();
    // The handler stays after its listener is dropped.
    for harmless in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        drop(signal(harmless)?);
    }
    drop(entered);
    Ok(runtime)
}
