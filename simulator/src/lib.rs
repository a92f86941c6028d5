//! A simulated Iluma to develop and test against: every route of its API document with schemas, validation, error
//! codes, callbacks and lists, on invented data; faults on demand; and a count of what it would have cost.
//!
//! It is a separate product. It shares no types or code with the gateway, so a mistake in one does not hide in the
//! other.
//!
//! ## The data
//! Everything is invented from the input: the same request always has the same result, and no name is a real person's.
//! The last two digits of a bank account number decide what the bank says:
//!
//! | ends in | answer |
//! |---|---|
//! | 00 | not found: v1 `FAILED` + `BANK_ACCOUNT_NOT_FOUND_ERROR`, later `COMPLETED` + `is_found: false` |
//! | 99 | `FAILED` + `TEMPORARY_NETWORK_ERROR`, not charged |
//! | 88 | a virtual account |
//! | 77 | found, `need_review` |
//! | 66 | `PENDING` for ever, no callback |
//! | 55 | known at once, never `PENDING` |
//! | 33 | booleans written as strings |
//! | 22 | the status in lower case |
//! | other | found, a normal account |
//!
//! A second request about an account is `WAITING_ON_BANK` while the first request is pending. The same endings 00 and
//! 99 work on NIKs, NPWPs and phone numbers. A KTP that ends in 11 belongs to another name. An id card verification
//! that ends in 01 to 10 fails with the documented reasons in their order. A watchlist name with the word `HANTUMALAM`
//! has one match, and a name with `HANTULAUT` has two. For files a word in the file name decides (`unreadable`,
//! `unrecognized`, `neterror`, `noface`, `mismatch`). For captures a word in the reference decides (`sim-review`,
//! `sim-fail`, `sim-abandon`).
//!
//! ## Invariants
//! Everything is bounded: records, faults, the last requests, bodies, waiting callbacks, connections. Every task ends
//! with the simulator. Raw API keys are in no answer except the answer of `GET /businesses/:id/api_keys`.

mod answer;
mod api_keys;
mod bank;
mod bank_codes;
mod body;
mod call;
mod callback;
mod callback_settings;
mod capture;
mod cft;
mod check;
mod control;
mod delivery;
mod document;
mod drawdown;
mod face;
mod fault;
mod id_card;
mod journal;
mod key;
mod ktp;
mod limit;
mod line;
mod list;
mod npwp;
mod ocr;
mod options;
mod phone;
mod picture;
mod problem;
mod record;
mod reply;
mod route;
mod seed;
mod server;
mod stats;
mod tasks;
mod time;
mod webhook_client;
mod world;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

pub use options::{Alias, Args, Options};
pub use stats::{CallbackStats, KeyStats, RouteStats, Stats};

use tasks::Tracked;
use world::World;

/// A running server. Dropping it without [`Simulator::stop`] stops it too, without waiting for its tasks.
pub struct Simulator {
    addr: SocketAddr,
    world: Arc<World>,
    tasks: TaskTracker,
    shutdown: DropGuard,
}

impl Simulator {
    /// Binds the address and serves in the background. Port 0 takes a free port.
    ///
    /// # Errors
    /// Returns an error if the address can't be bound.
    pub async fn start(listen: SocketAddr, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let executor = Tracked::default();
        let world = Arc::new(World::new(options, executor.clone()));
        executor.spawn(server::accept(listener, Arc::clone(&world), executor.clone()));
        let (tasks, shutdown) = (executor.tasks, executor.shutdown.drop_guard());
        Ok(Self { addr, world, tasks, shutdown })
    }

    /// Returns the address on which the simulator listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the base URL: `http://127.0.0.1:PORT`, or https with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.world.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Returns the statistics that `GET /_sim/stats` answers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// Stops accepting, ends every connection and callback, and waits for the tasks.
    pub async fn stop(self) {
        drop(self.shutdown);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Runs the command: starts, prints the address, serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// Returns an error if a certificate can't be read or the address can't be bound.
pub async fn run(args: Args) -> io::Result<()> {
    let mut options = Options::from(&args);
    if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
        options.tls = Some(tls(cert, key)?);
    }
    let simulator = Simulator::start(args.listen, options).await?;
    let url = simulator.url();
    // The simulator serves even if nobody reads standard output.
    let _ = writeln!(
        io::stdout(),
        "simulated Iluma on {url}\n  \
         any key that begins with iluma_development_ or iluma_live_ is accepted, unless --key names others\n  \
         curl -u iluma_development_me: {url}/bank/available_bank_codes\n  \
         {url}/_sim says how to see what arrived and how to ask for faults; --help has the data rules"
    );
    terminated().await?;
    simulator.stop().await;
    Ok(())
}

async fn terminated() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn tls(cert: &Path, key: &Path) -> io::Result<Arc<rustls::ServerConfig>> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(io::Error::other)?.collect();
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs.map_err(other_tls)?, key))
        .map(Arc::new)
        .map_err(io::Error::other)
}

fn other_tls(error: rustls::pki_types::pem::Error) -> rustls::Error {
    rustls::Error::General(error.to_string())
}
