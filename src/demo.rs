//! A guided tour: a simulated Iluma, a gateway and two teams on loopback, with real sockets and nothing to set up.
//!
//! What it prints happened: answers, cache statuses and log lines are those of the running gateway, the counts are
//! the simulator's own.

use crate::app::{App, StartError, Surroundings};
use crate::clock::Clock;
use crate::config::{Faults, Settings};
use crate::keygen::{self, TeamKey};
use crate::name::TenantName;
use crate::simulator::{self, Simulator};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::ExposeSecret as _;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const CONFIGURATION: &str = include_str!("../config/demo.toml");
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_name/validations";

/// Identical questions asked at once: as many as a busy minute at a payout team brings.
const CROWD: u32 = 50;

/// What the log's writer may take to write what was logged: it wakes ten times a second.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway demo --exit")]
pub struct Args {
    /// End after the tour instead of serving until Ctrl-C.
    #[arg(long)]
    exit: bool,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The compiled-in configuration.
    #[error("the demo's configuration is faulty:\n{0}")]
    Configuration(#[from] Faults),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A request to the own gateway.
    #[error("a request failed: {0}")]
    Request(Box<dyn std::error::Error + Send + Sync>),
    /// Something did not happen as the tour says it does.
    #[error("not as it should be: {0}")]
    Unexpected(String),
}

/// Shows what the gateway does, then serves it until Ctrl-C.
///
/// # Errors
/// What the machine refuses, or a step that did not go as it should.
pub async fn run(args: Args) -> Result<(), DemoError> {
    let options = simulator::Options {
        // Development keys cost nothing at Iluma; here it is the counting that matters.
        charge_development: true,
        callback_delay: Duration::from_millis(200),
        latency: Duration::from_millis(150),
        ..simulator::Options::default()
    };
    let simulator = Simulator::start(([127, 0, 0, 1], 0).into(), options).await?;
    let (lending, payments) = (Team::new("lending"), Team::new("payments"));
    let folder = Folder::new()?;
    let settings = settings(&simulator, &lending, &payments, &folder)?;
    let log = Lines::default();
    let surroundings = Surroundings { access_log: Box::new(log.clone()), clock: Clock::system(), diagnostics: true };
    let app = App::start(&settings, surroundings).await?;

    let mut tour =
        Tour { client: Client::builder(TokioExecutor::new()).build_http(), app: &app, clock: Clock::system() };
    tour.go(&simulator, &lending, &payments, &log).await?;
    if !args.exit {
        farewell(&app, &simulator, &lending, &payments);
        tokio::signal::ctrl_c().await?;
    }
    app.shutdown().await;
    simulator.stop().await;
    Ok(())
}

/// Where the demo's state is, for as long as it runs.
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
        // What is left there is encrypted under keys that are gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A team and its key, made for this run.
struct Team {
    name: &'static str,
    key: TeamKey,
}

impl Team {
    fn new(name: &'static str) -> Self {
        // The names above are names.
        let tenant: Result<TenantName, _> = name.parse();
        let key = tenant.map(|tenant| keygen::team_key(&tenant));
        Self { name, key: key.unwrap_or_else(|_| unreachable!("the demo's teams have proper names")) }
    }

    fn hash(&self) -> String {
        self.key.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn settings(simulator: &Simulator, lending: &Team, payments: &Team, folder: &Folder) -> Result<Settings, Faults> {
    let text = CONFIGURATION
        .replace("{upstream}", &simulator.addr().to_string())
        .replace("{lending_sha256}", &lending.hash())
        .replace("{payments_sha256}", &payments.hash());
    let secret = |name: &str| match name {
        "ILUMA_DEMO_ROOT_KEY" | "ILUMA_DEMO_ENCRYPTION_KEY" | "ILUMA_DEMO_ADMIN_TOKEN" => {
            Some(keygen::secret().expose_secret().to_owned())
        }
        "ILUMA_DEMO_API_KEY" => Some(format!("iluma_development_{}", &keygen::secret().expose_secret()[..24])),
        _ => None,
    };
    Settings::parse(&text, &folder.0, &secret)
}

struct Tour<'a> {
    client: Client<HttpConnector, Full<Bytes>>,
    app: &'a App,
    clock: Clock,
}

/// An answer as the tour shows it.
struct Answer {
    status: u16,
    cache_status: String,
    body: String,
    took: Duration,
}

impl Tour<'_> {
    async fn go(
        &mut self,
        simulator: &Simulator,
        lending: &Team,
        payments: &Team,
        log: &Lines,
    ) -> Result<(), DemoError> {
        println!("A simulated Iluma, one account, and two teams behind one gateway: {}\n", lending.name_with(payments));

        println!("1. Both teams ask about the same bank account.\n");
        let question = |reference: &str| {
            format!(r#"{{"bank_account_number":"1234567855","bank_code":"BCA","reference_id":"{reference}"}}"#)
        };
        let first = self.show(lending, BANK, question("loan-17")).await?;
        let second = self.show(payments, BANK, question("payout-9")).await?;
        expect(first.cache_status.ends_with("stored"), "the first answer is stored")?;
        expect(second.cache_status.contains("; hit;"), "the second team is answered from the cache")?;
        expect(
            second.body.contains("payout-9") && !second.body.contains("loan-17"),
            "each team sees its own reference",
        )?;
        let calls = simulator.stats().requests;
        expect(calls == 1, "two questions make one call")?;
        println!("   Two teams, two answers, each with its own reference_id: {calls} upstream call.\n");

        println!("2. {CROWD} identical questions at the same time, about an account that nobody asked about yet.\n");
        let crowd = self.crowd(lending, payments).await?;
        let calls = simulator.stats().requests - calls;
        println!("   {crowd} answers, {calls} call to Iluma: the others waited for it.\n");
        expect(calls == 1, "identical questions in flight make one call")?;

        println!("3. A watchlist question, then the same from the other team.\n");
        let person = r#"{"given_name":"Contoh","surname":"Demo"}"#.to_owned();
        self.show(payments, CFT, person.clone()).await?;
        let again = self.show(lending, CFT, person).await?;
        expect(again.cache_status.contains("; hit;"), "a watchlist answer is shared too")?;

        println!("4. What the gateway does not let through.\n");
        let refused = self.show(payments, KTP, r#"{"nik":"3171234567890123","name":"CONTOH"}"#.to_owned()).await?;
        expect(refused.status == 403, "a team's routes are kept")?;
        let stranger = Team::new("stranger");
        let unknown = self.show(&stranger, BANK, question("x")).await?;
        expect(unknown.status == 401, "an unknown key is refused")?;

        let served = 2 + CROWD + 2 + 2;
        let lines = self.logged(log, usize::try_from(served).unwrap_or(usize::MAX)).await?;
        println!("5. What the log says of all this: no account number, no name, no reference, no key.\n");
        for line in lines.iter().take(2).chain(lines.iter().rev().take(2).rev()) {
            println!("   {line}");
        }
        let telling = ["1234567855", "Contoh", "CONTOH", "3171234567890123", "loan-17", "payout-9"];
        expect(!lines.iter().any(|line| telling.iter().any(|word| line.contains(word))), "the log tells nothing")?;

        let stats = simulator.stats();
        let asked = 2 + CROWD + 2;
        let price = stats.rupiah / stats.charged.max(1);
        println!("\n6. The bill.\n");
        println!("   questions that Iluma would have charged   {asked:>6}");
        println!("   calls it did charge                       {:>6}   Rp {}", stats.charged, stats.rupiah);
        let saved = u64::from(asked).saturating_sub(stats.charged);
        println!("   calls saved                               {saved:>6}   about Rp {}", saved * price);
        println!("   (invented prices of the simulator)\n");
        Ok(())
    }

    /// Asks, and prints what was asked and what came back.
    async fn show(&self, team: &Team, path: &str, body: String) -> Result<Answer, DemoError> {
        println!("   {:<9} POST {path}", team.name);
        println!("             {body}");
        let answer = self.ask(team, path, body).await?;
        println!("         ->  {} {}", answer.status, answer.body);
        let cache = if answer.cache_status.is_empty() { "none" } else { &answer.cache_status };
        println!("             {:.1} ms, cache-status: {cache}\n", answer.took.as_secs_f64() * 1000.0);
        Ok(answer)
    }

    async fn ask(&self, team: &Team, path: &str, body: String) -> Result<Answer, DemoError> {
        let basic = STANDARD.encode(format!("{}:", team.key.key.expose_secret()));
        let request = Request::post(format!("http://{}{path}", self.app.server_address()))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .map_err(|error| DemoError::Request(error.into()))?;
        let started = self.clock.now();
        let response: Response<_> =
            self.client.request(request).await.map_err(|error| DemoError::Request(error.into()))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| DemoError::Request(error.into()))?.to_bytes();
        let took = self.clock.now() - started;
        let cache_status = head.headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            cache_status: cache_status.to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
            took,
        })
    }

    async fn crowd(&self, lending: &Team, payments: &Team) -> Result<usize, DemoError> {
        let asks = (0..CROWD).map(|n| {
            let team = if n % 2 == 0 { lending } else { payments };
            let reference = format!("crowd-{n}");
            let body =
                format!(r#"{{"bank_account_number":"9876543255","bank_code":"BRI","reference_id":"{reference}"}}"#);
            async move { self.ask(team, BANK, body).await.map(|answer| (answer, reference)) }
        });
        let answers = futures_util::future::join_all(asks).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let own = answers.iter().all(|(answer, reference)| {
            answer.status == 200 && answer.body.contains(&format!("\"reference_id\":\"{reference}\""))
        });
        expect(own, "everyone in the crowd gets an answer with its own reference")?;
        Ok(answers.len())
    }

    /// The log's lines, once all that were logged are written.
    async fn logged(&self, log: &Lines, count: usize) -> Result<Vec<String>, DemoError> {
        let started = self.clock.now();
        loop {
            let lines = log.lines();
            if lines.len() >= count {
                return Ok(lines);
            }
            expect(self.clock.now() - started < LOG_PATIENCE, "every request leaves a line in the log")?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Team {
    fn name_with(&self, other: &Self) -> String {
        format!("{} and {}.", self.name, other.name)
    }
}

fn expect(so: bool, what: &str) -> Result<(), DemoError> {
    if so { Ok(()) } else { Err(DemoError::Unexpected(what.to_owned())) }
}

fn farewell(app: &App, simulator: &Simulator, lending: &Team, payments: &Team) {
    let url = format!("http://{}", app.server_address());
    let keys = (lending.key.key.expose_secret(), payments.key.key.expose_secret());
    println!("Everything still runs. Paste one of these into another terminal (Ctrl-C here ends it):\n");
    println!(
        "curl -i -u {}: -H 'content-type: application/json' -d '{{\"bank_account_number\":\"1234567855\",\"bank_code\":\"BCA\",\"reference_id\":\"mine\"}}' {url}{BANK}",
        keys.0
    );
    println!("curl -i -u {}: {url}/bank/available_bank_codes", keys.1);
    println!("curl -s http://{}/metrics | grep -v '^#'\n", app.admin_address());
    println!("The simulator's own view: curl -s {}/_sim/stats", simulator.url());
}

/// A log that the tour can read back.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn lines(&self) -> Vec<String> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).lines().map(str::to_owned).collect()
    }
}

impl Write for Lines {
    /// Keeps a megabyte: the tour reads far less, and the demo may serve for days.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() + bytes.len() <= 1 << 20 {
            written.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
