//! The command line: arguments, one command, an exit code.

use clap::{Parser, Subcommand};
use iluma_gateway::app;
use iluma_gateway::cli::{demo, keygen, operator, register, report};
use iluma_gateway::config::Settings;
use iluma_simulator as simulator;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A usage error, as clap has it too.
const USAGE: u8 = 2;

/// Shares one Iluma (Indonesian KYC API) account between the teams of a company.
///
/// Exit codes: 0 done; 1 not done, or not everywhere, and standard error says why; 2 wrong usage.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100, after_help = "Start with: iluma-gateway demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve until SIGTERM; SIGHUP or a changed file reloads the configuration.
    #[command(after_help = "Example: iluma-gateway run --config /etc/iluma-gateway/config.toml")]
    Run {
        /// The configuration file; every key is explained in config/default.toml.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Load a configuration, resolve its secrets, and print the effective settings without them.
    ///
    /// Exits with 1 and every fault, each with its key path, if the configuration would not start.
    #[command(after_help = "Example: iluma-gateway check --config config.toml")]
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a new team key and the hash that goes into the configuration, or a root or encryption key.
    #[command(after_help = "Examples:\n  iluma-gateway keygen --tenant lending\n  iluma-gateway keygen --secret")]
    Keygen(keygen::Args),
    /// Purge stored answers from a running gateway, and from all that share with it.
    ///
    /// Prints what was removed; exits with 1 if a node was not reached.
    Purge(operator::Purge),
    /// Erase what a running gateway, and all that share with it, know about a person.
    ///
    /// Prints what was removed; exits with 1 and what is left if a node was not reached.
    Erase(operator::Erase),
    /// Point Iluma's callback URLs at this gateway, which must be running: Iluma posts a test to each before it takes it.
    ///
    /// Prints what it changed, by account and type; exits with 1 if anything failed.
    #[command(after_help = "Example: iluma-gateway register-callbacks --config /etc/iluma-gateway/config.toml")]
    RegisterCallbacks {
        /// The configuration file; callbacks.public_url says how Iluma reaches the gateway.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// A month of usage and cost by team and route, from the gateway's journal and, with Redis, those of all nodes.
    Usage(report::Args),
    /// A simulated Iluma to develop and test against.
    Simulate(Box<simulator::Args>),
    /// A guided tour: a simulated Iluma, a gateway and two teams on loopback, then it serves until Ctrl-C.
    Demo(demo::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Run { config } => runtime()?.block_on(app::run(config))?,
        Command::Check { config } => {
            let settings = Settings::load(&config)?;
            print!("{}", settings.describe());
            for concern in runtime()?.block_on(app::concerns(&settings))? {
                eprintln!("warning: state.redis: {concern}");
            }
        }
        Command::Purge(order) => println!("{}", runtime()?.block_on(operator::purge(order))?),
        Command::Erase(order) => println!("{}", runtime()?.block_on(operator::erase(order))?),
        Command::RegisterCallbacks { config } => {
            print!("{}", runtime()?.block_on(register::run(&Settings::load(&config)?))?);
        }
        Command::Usage(args) => print!("{}", runtime()?.block_on(report::run(args))?),
        Command::Simulate(args) => runtime()?.block_on(simulator::run(*args))?,
        Command::Demo(args) => runtime()?.block_on(demo::run(args))?,
        Command::Keygen(args) => print!("{}", keygen::run(&args)),
    }
    Ok(())
}

/// As many workers as the process may use processors.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
