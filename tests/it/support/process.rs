//! The built program as a process of its own, as an operator starts, signals and reads it.

use super::{folder, until};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_iluma-gateway");

/// A folder with a configuration, and the environment variables of the programs that use it.
pub struct Folder {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

/// A running program, which is killed when it is dropped.
pub struct Program {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// The output of a program that ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Folder {
    /// Writes a configuration for `upstream` with valid secrets, and the team `lending` with the key [`Folder::KEY`].
    pub fn new(upstream: &str) -> Self {
        let folder = Self { dir: folder(), env: BTreeMap::new() };
        let folder = folder.env("ROOT", &"1a".repeat(32)).env("ENCRYPTION", &"2b".repeat(32));
        let folder = folder.env("ADMIN", "a-token-of-operators").env("ACCOUNT", "iluma_live_0123456789");
        folder.write("config.toml", &Self::text(upstream));
        folder
    }

    pub const KEY: &str = "a-key-of-the-team-lending";

    /// Returns the text of the configuration that [`Folder::new`] writes.
    pub fn text(upstream: &str) -> String {
        let hash = Self::hash(Self::KEY);
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[callbacks]\nlisten = \"127.0.0.1:0\"\n[admin]\n\
             listen = \"127.0.0.1:0\"\ntoken = {{ env = \"ADMIN\" }}\n[upstream]\nbase_url = \"{upstream}\"\n\
             forward_headers = [\"x-sim-fault\"]\n\
             [state]\npath = \"state.db\"\nroot_key = {{ env = \"ROOT\" }}\n\
             encryption_keys = [{{ id = \"one\", key = {{ env = \"ENCRYPTION\" }} }}]\n\
             [accounts.live]\napi_key = {{ env = \"ACCOUNT\" }}\n\
             [tenants.lending]\naccount = \"live\"\nkey_sha256 = [\"{hash}\"]\n"
        )
    }

    /// Returns the hash of a key in the form of the configuration.
    pub fn hash(key: &str) -> String {
        use sha2::Digest as _;
        sha2::Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file in one step, as deployments do.
    pub fn write(&self, name: &str, text: &str) {
        let (new, path) = (self.path(&format!("{name}.new")), self.path(name));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(&new, &path).expect("a file in its place");
    }

    /// Returns the arguments of a command with the option `--config` for this configuration.
    fn command(&self, command: &str) -> Vec<String> {
        let config = ["--config".to_owned(), self.path("config.toml").display().to_string()];
        command.split(' ').map(str::to_owned).chain(config).collect()
    }

    /// Runs `command --config FILE` to its end.
    pub async fn once(&self, command: &str) -> Said {
        Program::start(&self.command(command), &self.env, self.dir.path()).said().await
    }

    /// Runs `command --config` on another file of the folder.
    pub async fn with(&self, command: &str, file: &str) -> Said {
        let args = [command.into(), "--config".into(), self.path(file).display().to_string()];
        Program::start(&args, &self.env, self.dir.path()).said().await
    }

    /// Runs `command --config FILE` with more arguments, and nothing in its environment: no secret can be read.
    pub async fn bare(&self, command: &str, more: &[&str]) -> Said {
        let mut args = self.command(command);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        Program::start(&args, &BTreeMap::new(), self.dir.path()).said().await
    }

    /// Runs `command --config FILE` with more arguments, and a text on its standard input.
    pub async fn order(&self, command: &str, more: &[&str], input: &str) -> Said {
        let mut args = self.command(command);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        std::fs::write(self.path("input"), input).expect("a file");
        let input = std::fs::File::open(self.path("input")).expect("a file");
        Program::start_with(&args, &self.env, self.dir.path(), input.into()).said().await
    }

    /// Returns a command on this configuration, whose standard input, output and error the test sets.
    pub fn prepared(&self, command: &str) -> Command {
        let mut prepared = Command::new(PROGRAM);
        prepared.args(self.command(command)).env_clear().envs(&self.env).current_dir(self.dir.path());
        prepared
    }

    /// Starts `run --config FILE`.
    pub fn run(&self) -> Program {
        Program::start(&self.command("run"), &self.env, self.dir.path())
    }

    /// Starts `run --config FILE` with a limit of open files, given as the arguments of `ulimit`.
    pub fn run_with_files(&self, limit: &str) -> Program {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\"")).arg(PROGRAM);
        Program::spawn(shell, &self.command("run"), &self.env, self.dir.path(), Stdio::null())
    }
}

/// Runs the program to its end, with nothing in its environment.
pub async fn once(args: &[&str]) -> Said {
    started(args).said().await
}

/// Starts the program with nothing in its environment.
pub fn started(args: &[&str]) -> Program {
    let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
    Program::start(&args, &BTreeMap::new(), Path::new("/"))
}

impl Program {
    fn start(args: &[String], env: &BTreeMap<String, String>, folder: &Path) -> Self {
        Self::start_with(args, env, folder, Stdio::null())
    }

    fn start_with(args: &[String], env: &BTreeMap<String, String>, folder: &Path, input: Stdio) -> Self {
        Self::spawn(Command::new(PROGRAM), args, env, folder, input)
    }

    fn spawn(
        mut command: Command,
        args: &[String],
        env: &BTreeMap<String, String>,
        folder: &Path,
        input: Stdio,
    ) -> Self {
        command.args(args).env_clear().envs(env).current_dir(folder);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let stdout = read(child.stdout.take().expect("its output"));
        let stderr = read(child.stderr.take().expect("its errors"));
        Self { child, stdout, stderr }
    }

    /// Returns the addresses of `server` and `admin` in its log.
    pub async fn listening(&self) -> (SocketAddr, SocketAddr) {
        (self.address("server").await, self.address("admin").await)
    }

    /// Returns the address of one of its listeners.
    pub async fn address(&self, listener: &str) -> SocketAddr {
        let line = self.stderr_line(r#""message":"listening""#).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
        line["fields"][listener].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Waits for a line of the standard error with this text, and returns it.
    pub async fn stderr_line(&self, with: &str) -> String {
        line(&self.stderr, with).await
    }

    /// Returns the lines of the standard error with this text so far.
    pub fn stderr_lines(&self, with: &str) -> Vec<String> {
        self.stderr.lock().expect("lines").iter().filter(|line| line.contains(with)).cloned().collect()
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the standard output with this text, and returns it.
    pub async fn stdout_line(&self, with: &str) -> String {
        line(&self.stdout, with).await
    }

    /// Waits until the program handles a signal, and sends it by its name.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id();
        let number = match name {
            "HUP" => 1,
            "INT" => 2,
            "TERM" => 15,
            "USR1" => 10,
            "USR2" => 12,
            _ => panic!("a signal of which the number is not known here"),
        };
        until(&format!("it listens for {name}"), || catches(id, number)).await;
        self.signal_at_once(name);
    }

    /// Sends a signal by its name, whether the program handles it or not.
    pub fn signal_at_once(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -$0 $1", name, &id]).status().expect("a shell");
        assert!(sent.success());
    }

    /// Waits for the end, and returns the exit status.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().expect("a status");
            status.is_some()
        })
        .await;
        status.expect("a status")
    }

    /// Waits for the end, and returns the output.
    pub async fn said(mut self) -> Said {
        let code = self.ended().await.code();
        // A reader thread ends with its pipe, and then no other thread holds the lines.
        until("its last words", || Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&self.stderr) == 1).await;
        let text = |lines: &Lines| lines.lock().expect("lines").join("\n");
        Said { code, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns true if a process handles a signal, as the kernel shows it (proc(5), SigCgt).
fn catches(process: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
    u64::from_str_radix(mask, 16).expect("a mask") >> (signal - 1) & 1 == 1
}

fn read(from: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            kept.lock().expect("lines").push(line);
        }
    });
    lines
}

async fn line(lines: &Lines, with: &str) -> String {
    let find = || lines.lock().expect("lines").iter().find(|line| line.contains(with)).cloned();
    until(&format!("a line with {with}"), || find().is_some()).await;
    find().expect("a line")
}
