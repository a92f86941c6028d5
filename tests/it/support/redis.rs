//! A real redis-server for one test, on a free port, with its faults.

use super::{folder, until};
use redis::{Cmd, Connection, FromRedisValue, Value};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A server that runs until it is dropped.
pub struct Redis {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts a server that keeps nothing over a restart.
    pub async fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server with these arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self { folder: folder(), port: 0, arguments, child: None };
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

    async fn try_run(&mut self) -> bool {
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--dir"])
            .arg(self.folder.path())
            .args(["--daemonize", "no", "--enable-debug-command", "yes"])
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
