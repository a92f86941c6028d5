//! A gateway with its upstream, started for one test.

use super::client::{Ask, ask};
use super::{folder, until};
use iluma_gateway::app::{App, Environment};
use iluma_gateway::base::clock::Clock;
use iluma_gateway::cli::keygen;
use iluma_gateway::config::{Faults, Settings};
use iluma_simulator::{self as simulator, Simulator};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A running gateway with its simulator, if it has one, and its logs.
pub struct Rig {
    pub app: App,
    pub simulator: Option<Simulator>,
    /// The gateway's clock, which the test can move.
    pub clock: Clock,
    pub log: Lines,
    /// The account's key, which no tenant may ever see.
    pub account_key: String,
    /// The folder of the gateway's state.
    pub folder: Arc<TempDir>,
    keys: BTreeMap<String, String>,
    settings_text: String,
    secrets: BTreeMap<String, String>,
}

/// A builder of a rig. By default the rig has the simulator as upstream, and the teams `lending` and `payments` on one
/// account `live`, without limits.
pub struct RigBuilder {
    options: simulator::Options,
    upstream: Option<String>,
    tenants: Vec<(String, String)>,
    sections: BTreeMap<String, String>,
    extra: String,
    account_key: Option<String>,
    folder: Option<Arc<TempDir>>,
    secrets: BTreeMap<String, String>,
}

/// The setting by which the gateway forwards `x-sim-fault`, the header with the simulator's faults, also on routes
/// whose answers teams share.
const FORWARDED: &str = "forward_headers = [\"x-sim-fault\"]";

/// The key for data at rest, unless a test sets its own keys.
const KEYS: &str = r#"encryption_keys = [{ id = "one", key = { env = "ENCRYPTION" } }]"#;

impl Rig {
    pub fn builder() -> RigBuilder {
        RigBuilder {
            options: simulator::Options { pending_first: false, ..simulator::Options::default() },
            upstream: None,
            tenants: vec![("lending".into(), String::new()), ("payments".into(), String::new())],
            sections: BTreeMap::new(),
            extra: String::new(),
            account_key: None,
            folder: None,
            secrets: BTreeMap::new(),
        }
    }

    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Returns the URL of a path at the gateway.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.server_address())
    }

    /// Returns the URL of a path at the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.admin_address())
    }

    /// Returns the URL of a path at the listener for callbacks.
    pub fn callbacks_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.callbacks_address())
    }

    /// Returns a callback of Iluma's for the account `live`.
    pub fn callback(&self, kind: &str, body: impl Into<String>) -> Ask {
        let url = self.callbacks_url(&format!("/callbacks/live/{kind}"));
        ask("POST", url).header("x-callback-token", self.secret("CALLBACK")).json(body)
    }

    /// Returns the secret that the settings name by this environment variable.
    pub fn secret(&self, name: &str) -> &str {
        &self.secrets[name]
    }

    /// Returns a request of an operator.
    pub fn operator(&self, method: &str, path: &str) -> Ask {
        ask(method, self.admin_url(path)).header("authorization", format!("Bearer {}", self.secrets["ADMIN"]))
    }

    /// Returns the key of a team.
    pub fn key(&self, team: &str) -> &str {
        &self.keys[team]
    }

    /// Ends the gateway and starts it again with its files.
    pub async fn restart(self) -> Self {
        self.restart_after(async |_| {}).await
    }

    /// Restarts the gateway, with a change of its folder while it is down.
    pub async fn restart_after(self, change: impl AsyncFnOnce(&std::path::Path)) -> Self {
        self.restarted(change, Clock::adjustable()).await
    }

    /// Restarts the gateway with a database that refuses every entry of the audit log.
    pub async fn restart_without_audit(self) -> Self {
        self.restart_after(async |folder| {
            let database = rusqlite::Connection::open(folder.join("iluma-gateway.db")).expect("a database");
            let trigger = "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'no'); END";
            database.execute_batch(trigger).expect("a trigger");
        })
        .await
    }

    /// Restarts the gateway with a clock that is ahead of the machine's clock by `ahead`.
    pub async fn restart_at(self, ahead: std::time::Duration) -> Self {
        let clock = Clock::adjustable();
        clock.advance(ahead);
        self.restarted(async |_| {}, clock).await
    }

    async fn restarted(self, change: impl AsyncFnOnce(&std::path::Path), clock: Clock) -> Self {
        self.app.shutdown().await;
        change(self.folder.path()).await;
        let text = self.settings_text.clone();
        let settings = Settings::parse(&text, self.folder.path(), &|name| self.secrets.get(name).cloned());
        let (app, clock, log) = started_at(&settings.expect("settings"), clock).await;
        Self { app, clock, log, ..self }
    }

    /// Returns the same gateway with a change made to its configuration, for its next start.
    pub fn changed(self, change: impl FnOnce(String) -> String) -> Self {
        let settings_text = change(self.settings_text.clone());
        Self { settings_text, ..self }
    }

    /// Returns a request of a team.
    pub fn ask(&self, team: &str, method: &str, path: &str) -> Ask {
        ask(method, self.url(path)).key(self.key(team))
    }

    /// Returns a JSON POST of a team.
    pub fn post(&self, team: &str, path: &str, body: impl Into<String>) -> Ask {
        self.ask(team, "POST", path).json(body)
    }

    /// Returns the simulator.
    pub fn sim(&self) -> &Simulator {
        self.simulator.as_ref().expect("a rig with a simulator")
    }

    /// Returns the value of a metric with exactly these labels, as `name{a="b"}`; 0 if it is absent.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = ask("GET", self.admin_url("/metrics")).send().await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Returns the access log's lines, once there are `count` of them.
    pub async fn logged(&self, count: usize) -> Vec<serde_json::Value> {
        until(&format!("{count} log lines"), || self.log.lines().len() >= count).await;
        self.log.lines().iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Returns settings like this rig's, with `change` made to their text.
    ///
    /// # Errors
    /// Returns the faults of the changed text.
    pub fn settings(&self, change: impl FnOnce(String) -> String) -> Result<Settings, Faults> {
        let text = change(self.settings_text.clone());
        Settings::parse(&text, self.folder.path(), &|name| self.secrets.get(name).cloned())
    }

    /// Starts another node with the same configuration: same teams, same secrets, same upstream. It has its own clock
    /// and log.
    pub async fn another(&self) -> Self {
        self.another_with(|text| text).await
    }

    /// Starts another node, with a change of its configuration.
    pub async fn another_with(&self, change: impl FnOnce(String) -> String) -> Self {
        let text = change(self.settings_text.clone());
        // Each gateway needs a database of its own.
        let folder = Arc::new(folder());
        let settings =
            Settings::parse(&text, folder.path(), &|name| self.secrets.get(name).cloned()).expect("settings");
        let (app, clock, log) = started(&settings).await;
        Self {
            app,
            simulator: None,
            clock,
            log,
            account_key: self.account_key.clone(),
            folder,
            keys: self.keys.clone(),
            settings_text: text,
            secrets: self.secrets.clone(),
        }
    }

    /// Ends the gateway and the simulator.
    pub async fn stop(self) {
        self.app.shutdown().await;
        if let Some(simulator) = self.simulator {
            simulator.stop().await;
        }
    }
}

impl RigBuilder {
    /// Changes the simulator's options.
    pub fn simulator(mut self, change: impl FnOnce(&mut simulator::Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Sets another upstream than the simulator.
    pub fn upstream(mut self, base_url: impl Into<String>) -> Self {
        self.upstream = Some(base_url.into());
        self
    }

    /// Adds TOML lines to a team's table, or adds the team.
    pub fn tenant(mut self, name: &str, lines: &str) -> Self {
        match self.tenants.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.push_str(&format!("{lines}\n")),
            None => self.tenants.push((name.into(), format!("{lines}\n"))),
        }
        self
    }

    /// Uses the folder of a rig that ended, with its state. The secrets must be the same.
    pub fn in_folder(mut self, folder: &Arc<TempDir>) -> Self {
        self.folder = Some(Arc::clone(folder));
        self
    }

    /// Adds TOML lines to the account's table.
    pub fn account(self, lines: &str) -> Self {
        self.section("accounts.live", lines)
    }

    /// Adds TOML lines to a section: `server`, `callbacks`, `upstream`, `state`, `cache`, `admin`, `log`,
    /// `accounts.live`.
    pub fn section(mut self, name: &str, lines: &str) -> Self {
        self.sections.entry(name.into()).or_default().push_str(&format!("{lines}\n"));
        self
    }

    /// Adds whole tables at the end.
    pub fn extra(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    /// Gives the account `live` this API key.
    pub fn account_key(mut self, key: &str) -> Self {
        self.account_key = Some(key.into());
        self
    }

    /// Keeps the gateway's state and cache in this Redis, with timeouts for a busy machine.
    pub fn redis(self, redis: &super::Redis) -> Self {
        self.redis_at(&redis.url())
    }

    /// Keeps the gateway's state and cache in the Redis of a URL.
    pub fn redis_at(self, url: &str) -> Self {
        self.secret("REDIS", url).section("state", "redis = { url = { env = \"REDIS\" } }\nredis_timeout = \"1s\"")
    }

    /// Keeps the gateway's state and cache in these servers. `more` has further keys of `state.redis`, as `, a = 1`.
    pub fn topology(self, topology: &super::Topology, more: &str) -> Self {
        let (form, url) = topology.form();
        let redis = format!("redis = {{ {form}{more} }}\nredis_timeout = \"1s\"");
        self.secret("REDIS", &url).section("state", &redis)
    }

    /// Adds a secret that the settings can name as `{ env = "NAME" }`.
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    pub async fn start(self) -> Rig {
        let simulator = match &self.upstream {
            Some(_) => None,
            None => {
                Some(Simulator::start(([127, 0, 0, 1], 0).into(), self.options.clone()).await.expect("a simulator"))
            }
        };
        let base_url = match (&self.upstream, &simulator) {
            (Some(url), _) => url.clone(),
            (None, Some(simulator)) => simulator.url(),
            (None, None) => unreachable!("no upstream"),
        };
        let random_key = || format!("iluma_live_{}", &keygen::secret().expose_secret()[..32]);
        let account_key = self.account_key.clone().unwrap_or_else(random_key);
        let mut secrets = self.secrets.clone();
        secrets.insert("ACCOUNT".into(), account_key.clone());
        for name in ["ROOT", "ENCRYPTION", "ADMIN", "CALLBACK"] {
            secrets.entry(name.into()).or_insert_with(|| keygen::secret().expose_secret().to_owned());
        }
        let section = |name: &str| self.sections.get(name).cloned().unwrap_or_default();
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n{}\n[callbacks]\nlisten = \"127.0.0.1:0\"\n{}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\ntoken = {{ env = \"ADMIN\" }}\n{}\n\
             [log]\n{}\n[upstream]\nbase_url = \"{base_url}\"\n{}\n{}\n\
             [state]\nroot_key = {{ env = \"ROOT\" }}\n\
             {}\n{}\n[cache]\n{}\n\
             [accounts.live]\napi_key = {{ env = \"ACCOUNT\" }}\n\
             callback_token = {{ env = \"CALLBACK\" }}\n{}\n",
            section("server"),
            section("callbacks"),
            section("admin"),
            section("log"),
            if section("upstream").contains("forward_headers") { "" } else { FORWARDED },
            section("upstream"),
            if section("state").contains("encryption_keys") { "" } else { KEYS },
            section("state"),
            section("cache"),
            section("accounts.live"),
        );
        let mut keys = BTreeMap::new();
        for (name, lines) in &self.tenants {
            let key = keygen::team_key(&name.parse().expect("a name"));
            let hash: String = key.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            let account = if lines.contains("account =") { "" } else { "account = \"live\"\n" };
            text.push_str(&format!("[tenants.{name}]\n{account}key_sha256 = [\"{hash}\"]\n{lines}\n"));
            keys.insert(name.clone(), key.key.expose_secret().to_owned());
        }
        text.push_str(&self.extra);
        let folder = self.folder.clone().unwrap_or_else(|| Arc::new(folder()));
        let settings = Settings::parse(&text, folder.path(), &|name| secrets.get(name).cloned());
        let settings = settings.unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        let (app, clock, log) = started(&settings).await;
        Rig { app, simulator, clock, log, account_key, folder, keys, settings_text: text, secrets }
    }
}

async fn started(settings: &Settings) -> (App, Clock, Lines) {
    started_at(settings, Clock::adjustable()).await
}

async fn started_at(settings: &Settings, clock: Clock) -> (App, Clock, Lines) {
    let log = Lines::default();
    let surroundings = Environment { access_log: Box::new(log.clone()), clock: clock.clone(), diagnostics: false };
    (App::start(settings, surroundings).await.expect("a gateway"), clock, log)
}

/// A log that keeps the lines that were written so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().expect("a log")).lines().map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
