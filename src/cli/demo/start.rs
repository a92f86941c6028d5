//! The parts of the demo: a simulated Iluma, a gateway, two teams, and the tour.

use super::error::DemoError;
use super::log::Lines;
use super::team::Team;
use super::tour::{BANK, Tour, URLS, bank_request};
use crate::app::{App, Environment};
use crate::base::clock::Clock;
use crate::cli::keygen;
use crate::cli::output::{self, OutputError};
use crate::config::{Faults, Settings};
use iluma_simulator::{self as simulator, Simulator};
use secrecy::{ExposeSecret as _, SecretString};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

const CONFIGURATION: &str = include_str!("../../../config/demo.toml");

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway demo --exit")]
pub(in super::super) struct Args {
    /// End after the tour instead of serving until Ctrl-C.
    #[arg(long)]
    exit: bool,
}

/// Shows the gateway's functions, then serves until Ctrl-C. With `--exit` it ends after the tour.
///
/// # Errors
/// Returns an error if the gateway or the simulator does not start, or if a step of the tour has an unexpected result.
pub(in super::super) async fn run(args: Args) -> Result<(), DemoError> {
    let token = keygen::secret();
    let options = simulator::Options {
        callback_delay: Duration::from_millis(200),
        callback_token: Some(token.expose_secret().to_owned()),
        latency: Duration::from_millis(150),
        ..simulator::Options::default()
    };
    let simulator = Simulator::start(([127, 0, 0, 1], 0).into(), options).await?;
    let (lending, payments) = (Team::new("lending").await?, Team::new("payments").await?);
    let folder = Folder::new()?;
    let mut settings = settings(&simulator, [&lending, &payments], &token, &folder)?;
    let log = Lines::default();
    let surroundings = Environment { access_log: Box::new(log.clone()), clock: Clock::system(), diagnostics: true };
    let app = App::start(&settings, surroundings).await?;
    // The port is known only after the start.
    settings.callbacks.public_url = Some(format!("http://{}", app.callbacks_address()).parse()?);

    let tour = Tour::new(&app, &simulator, &settings);
    tour.go(&lending, &payments, &log).await?;
    if !args.exit {
        farewell(&app, &simulator, &settings, [&lending, &payments])?;
        tokio::signal::ctrl_c().await?;
    }
    app.shutdown().await;
    simulator.stop().await;
    lending.endpoint.stop().await;
    payments.endpoint.stop().await;
    Ok(())
}

fn settings(
    simulator: &Simulator,
    [lending, payments]: [&Team; 2],
    token: &SecretString,
    folder: &Folder,
) -> Result<Settings, Faults> {
    let text = CONFIGURATION
        .replace("{upstream}", &simulator.addr().to_string())
        .replace("{lending_sha256}", &lending.hash())
        .replace("{payments_sha256}", &payments.hash());
    let secret = |name: &str| match name {
        "ILUMA_DEMO_ROOT_KEY" | "ILUMA_DEMO_ENCRYPTION_KEY" | "ILUMA_DEMO_ADMIN_TOKEN" => {
            Some(keygen::secret().expose_secret().to_owned())
        }
        // The key is a live one, so that calls are charged; the simulator accepts any.
        "ILUMA_DEMO_API_KEY" => Some(format!("iluma_live_{}", &keygen::secret().expose_secret()[..24])),
        "ILUMA_DEMO_CALLBACK_TOKEN" => Some(token.expose_secret().to_owned()),
        _ => None,
    };
    Settings::parse(&text, &folder.0, &secret)
}

fn farewell(
    app: &App,
    simulator: &Simulator,
    settings: &Settings,
    [lending, payments]: [&Team; 2],
) -> Result<(), OutputError> {
    let (url, admin) = (format!("http://{}", app.server_address()), format!("http://{}", app.admin_address()));
    let keys = (lending.key.key.expose_secret(), payments.key.key.expose_secret());
    let token = settings.admin.token.as_ref().map_or("", |token| token.expose_secret());
    output::line(format_args!(
        "Everything still runs. Paste one of these into another terminal (Ctrl-C here ends it):\n"
    ))?;
    output::line(format_args!(
        "curl -i -u {}: -H 'content-type: application/json' -d '{}' {url}{BANK}",
        keys.0,
        bank_request("1234567855", "mine")
    ))?;
    output::line(format_args!("curl -i -u {}: {url}/bank/available_bank_codes", keys.1))?;
    output::line(format_args!("curl -s -u {}: {url}/_gateway/usage", keys.0))?;
    output::line(format_args!("curl -s -u {}: {url}{URLS}", keys.0))?;
    output::line(format_args!("curl -s -H 'authorization: Bearer {token}' '{admin}/v1/callbacks?state=delivered'"))?;
    output::line(format_args!("curl -s -H 'authorization: Bearer {token}' -H 'accept: text/csv' {admin}/v1/usage"))?;
    output::line(format_args!(
        "curl -s -H 'authorization: Bearer {token}' -d '{{\"route\":\"cft\"}}' {admin}/v1/cache/purge"
    ))?;
    output::line(format_args!("curl -s {admin}/metrics | grep -v '^#'\n"))?;
    output::line(format_args!("The simulator's own view: curl -s {}/_sim/stats", simulator.url()))
}

/// The folder of the demo's state. Dropping it removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("iluma-gateway-demo-{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The remaining data is encrypted under keys that no longer exist.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
