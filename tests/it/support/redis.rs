//! A real redis-server for one test, on a port that was free, and what can go wrong with it.

use super::until;
use redis::{Cmd, Connection, FromRedisValue};
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
    /// Starts one that keeps nothing over a restart.
    pub async fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts one with these arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self { folder: TempDir::new().expect("a folder"), port: 0, arguments, child: None };
        // Between finding a free port and its use somebody else may take it.
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

    /// Runs it again at the same port, after [`Redis::kill`].
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

    /// A plain connection of the test's own.
    pub fn connection(&self) -> Connection {
        redis::Client::open(self.url()).expect("a URL").get_connection().expect("a connection")
    }

    /// Asks it something.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.connection()).expect("an answer")
    }

    /// Keeps it from doing anything; its sockets stay open.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a process").id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -$0 $1", name, &id]).status().expect("a shell").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
