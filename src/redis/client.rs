//! The client of one Redis.
//!
//! Invariants:
//! - A request waits for Redis no longer than its [`Budget`].
//! - While Redis is out, requests send no commands. Only the loop of the [`Breaker`] sends them.
//! - A Redis that hangs, loads, refuses writes, is full or sends invalid answers counts as out, like a Redis that can't
//!   be reached.

use super::breaker::Breaker;
use super::budget::Budget;
use super::connection::{Connector, sign_of_life};
use super::diagnosis::{Cause, Grade, ServerInfo};
use super::keys::{Channel, KeySpace, RedisKey};
use crate::base::tasks::Tasks;
use crate::config;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

/// The interval between probes while a task waits for a message. If Redis hangs, the task learns of it after this
/// interval and the budget of one probe.
const VIGIL: Duration = Duration::from_millis(100);
/// The largest number of messages that a listener can be behind. A slower listener misses the oldest, and gets an error
/// that says so.
const MOST_MESSAGES: usize = 1024;

/// The reason why Redis gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedisFailure {
    /// Redis is out, or the budget is spent: the command was not sent, or its outcome is unknown.
    #[error("Redis is out")]
    Out,
    /// Redis works, and only this command failed: the value is damaged or was written by another program, or the
    /// command is refused.
    #[error("a key in Redis has a value of another type")]
    Unexpected,
}

impl RedisFailure {
    /// Converts an error to a failure.
    pub(super) fn of(error: &RedisError) -> Self {
        if is_about_the_value(error) { Self::Unexpected } else { Self::Out }
    }
}

/// The client of one Redis. Clones share the connection.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    breaker: Arc<Breaker>,
    keys: KeySpace,
}

impl RedisClient {
    /// Makes a client that connects once it is [kept](Self::keep), and then listens to `channels`.
    ///
    /// # Errors
    /// Returns an error if the URL or the certificates can't be used; the configuration has checked both.
    pub fn new(target: &config::RedisTarget, keys: KeySpace, channels: &[Channel]) -> Result<Self, RedisError> {
        let connector = Connector::new(target, keys.clone(), channels)?;
        let senders: BTreeMap<_, _> =
            channels.iter().map(|name| (name.as_str().to_owned(), broadcast::channel(MOST_MESSAGES).0)).collect();
        Ok(Self(Arc::new(Shared { breaker: Arc::new(Breaker::new(target.name, connector, senders)), keys })))
    }

    /// Connects in a task of `tasks`, and stays connected until `stop` is cancelled.
    pub fn keep(&self, tasks: &Tasks, stop: tokio_util::sync::CancellationToken) {
        let breaker = Arc::clone(&self.0.breaker);
        tasks.spawn(async move {
            let _: Option<()> = stop.run_until_cancelled(breaker.keep()).await;
            breaker.close();
        });
    }

    /// Waits until Redis answers, for `patience` at most. Returns false if it did not answer in that time.
    ///
    /// # Errors
    /// Returns the cause if Redis can't be used until an operator changes something.
    pub async fn ready(&self, patience: Duration) -> Result<bool, Cause> {
        let (mut up, mut causes) = (self.watch(), self.0.breaker.causes());
        let is_fault = |cause: &Cause| cause.grade() == Grade::Fault;
        let known = async {
            tokio::select! {
                _ = up.wait_for(|up| *up) => None,
                found = causes.wait_for(|causes| causes.iter().any(is_fault)) => {
                    found.ok().and_then(|causes| causes.iter().find(|cause| is_fault(cause)).cloned())
                }
            }
        };
        match timeout(patience, known).await {
            Ok(None) => Ok(true),
            Ok(Some(fault)) => Err(fault),
            Err(_) => Ok(false),
        }
    }

    /// Returns true if both are clones of the same client.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the key of the configuration that names this Redis.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.breaker.name
    }

    /// Returns the names of the gateways' keys in this Redis.
    #[must_use]
    pub fn keys(&self) -> &KeySpace {
        &self.0.keys
    }

    /// Returns true while Redis answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.breaker.is_up()
    }

    /// Returns the time of the last change: Redis began to answer, or stopped answering.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.0.breaker.since()
    }

    /// Returns the kind of the servers: `single`, `sentinel` or `cluster`.
    #[must_use]
    pub fn topology(&self) -> &'static str {
        self.0.breaker.topology()
    }

    /// Returns the last cause of an outage; `None` if Redis answers or was not asked yet.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.0.breaker.causes().borrow().last().cloned()
    }

    /// Returns the connection; `None` while Redis is out.
    pub(super) fn current(&self) -> Option<Arc<MultiplexedConnection>> {
        self.0.breaker.connection()
    }

    /// Opens another connection to the same server, for a single user.
    pub(super) async fn another(&self) -> Result<MultiplexedConnection, Cause> {
        self.0.breaker.another().await
    }

    /// Returns a receiver that shows whether Redis answers.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.breaker.up()
    }

    /// Waits until Redis is out. A task that waits for a message can't distinguish a Redis that hangs from a Redis that
    /// has no messages. So this method probes Redis meanwhile. Each probe may take the whole time that `budget` had at
    /// its beginning. It spends nothing from `budget`.
    pub async fn out(&self, budget: &Budget) {
        let mut up = self.watch();
        loop {
            tokio::select! {
                _ = up.wait_for(|up| !*up) => return,
                () = sleep(VIGIL) => {}
            }
            let alive = sign_of_life(&self.0.keys);
            let _: Result<(), RedisFailure> = self.command(&Budget::of(budget.whole()), &alive).await;
        }
    }

    /// Returns a receiver of the messages on one of the channels from now on. Messages during an outage are lost.
    ///
    /// # Panics
    /// Panics if the channel was not named when the client was made: a programming error.
    #[must_use]
    pub fn listen(&self, channel: &Channel) -> broadcast::Receiver<Vec<u8>> {
        match self.0.breaker.channel(channel.as_str()) {
            Some(sender) => sender.subscribe(),
            None => panic!("the client does not listen to this channel"),
        }
    }

    /// Returns a warning for each setting of this Redis that may lose state. `replicas` is the number of replicas that
    /// a callback needs.
    ///
    /// # Errors
    /// Returns an error if Redis is out.
    pub async fn durability_warnings(&self, replicas: u32) -> Result<Vec<Cause>, RedisFailure> {
        let info: Result<String, _> = self.command(&Budget::background(), &redis::cmd("INFO")).await;
        // The user may not be allowed to run INFO.
        let info = match info {
            Err(RedisFailure::Out) => return Err(RedisFailure::Out),
            info => info.unwrap_or_default(),
        };
        // Some hosted Redis services forbid CONFIG.
        let setting = async |name: &str| {
            let ask = redis::cmd("CONFIG").arg("GET").arg(name).clone();
            let pairs: Result<BTreeMap<String, String>, _> = self.command(&Budget::background(), &ask).await;
            pairs.ok().and_then(|mut pairs| pairs.remove(name))
        };
        let (save, fsync) = (setting("save").await, setting("appendfsync").await);
        let mut warnings = ServerInfo(&info).durability_warnings(save.as_deref(), fsync.as_deref());
        warnings.extend(ServerInfo(&info).replication_warning(replicas));
        if replicas > 0 {
            // A WAIT for no replica returns at once.
            let wait = redis::cmd("WAIT").arg(0).arg(1).clone();
            let allowed: Result<u32, _> = self.command(&Budget::background(), &wait).await;
            warnings.extend((allowed == Err(RedisFailure::Unexpected)).then_some(Cause::WaitForbidden));
        }
        Ok(warnings)
    }

    /// Sends one command.
    ///
    /// # Errors
    /// Returns an error if Redis is out, or if it answers with an unexpected value.
    pub async fn command<T: FromRedisValue>(&self, budget: &Budget, command: &Cmd) -> Result<T, RedisFailure> {
        self.ask(budget, |mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Sends one command about a key that may be in another slot than all other keys. In a cluster, the command goes to
    /// the node that holds the key.
    ///
    /// # Errors
    /// Returns an error if that node does not answer, or if it answers with an unexpected value.
    pub async fn command_at<T: FromRedisValue>(
        &self,
        key: &RedisKey,
        budget: &Budget,
        command: &Cmd,
    ) -> Result<T, RedisFailure> {
        let asked = async {
            let Ok(mut connection) = self.0.breaker.to_owner_of(key).await? else {
                return Some(Err(RedisFailure::Out));
            };
            Some(command.query_async(&mut connection).await.map_err(|error| RedisFailure::of(&error)))
        };
        match budget.wait(asked).await {
            Some(Some(answer)) => answer,
            Some(None) => self.command(budget, command).await,
            None => Err(RedisFailure::Out),
        }
    }

    /// Sends several commands in one round trip.
    ///
    /// # Errors
    /// Returns an error if Redis is out, or if it answers with an unexpected value.
    pub async fn pipeline<T: FromRedisValue>(&self, budget: &Budget, pipeline: &Pipeline) -> Result<T, RedisFailure> {
        self.ask(budget, |mut connection| async move { pipeline.query_async(&mut connection).await }).await
    }

    /// Runs a script, which Redis executes atomically.
    ///
    /// # Errors
    /// Returns an error if Redis is out, or if it answers with an unexpected value.
    pub async fn script<T: FromRedisValue>(
        &self,
        budget: &Budget,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        self.ask(budget, |mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    async fn ask<T, A, F>(&self, budget: &Budget, asking: A) -> Result<T, RedisFailure>
    where
        T: FromRedisValue,
        A: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = RedisResult<T>>,
    {
        let Some(connection) = self.0.breaker.connection() else { return Err(RedisFailure::Out) };
        let (whole, mut up) = (budget.spent().is_zero(), self.watch());
        let asked = async {
            tokio::select! {
                biased;
                answer = asking((*connection).clone()) => Some(answer),
                // Another task may find the outage first. Then this task need not wait for its own timeout.
                _ = up.wait_for(|up| !*up) => None,
            }
        };
        match budget.wait(asked).await {
            Some(Some(Ok(value))) => Ok(value),
            Some(Some(Err(error))) => {
                let failure = RedisFailure::of(&error);
                if failure == RedisFailure::Out {
                    self.0.breaker.trip(&connection, Cause::of(&error));
                }
                Err(failure)
            }
            Some(None) => Err(RedisFailure::Out),
            None => {
                // Less than a whole budget proves nothing: earlier commands may have spent the rest.
                if whole && !budget.spent().is_zero() {
                    self.0.breaker.trip(&connection, Cause::Slow);
                }
                Err(RedisFailure::Out)
            }
        }
    }
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisClient").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

/// Connects to a Redis once. Returns the reason why this Redis can't be used, or `None` if it can be used.
pub async fn examine(target: &config::RedisTarget, keys: KeySpace) -> Option<Cause> {
    match Connector::new(target, keys, &[]) {
        Ok(connector) => connector.connect(|_| Ok(())).await.err(),
        Err(error) => Some(Cause::of(&error)),
    }
}

/// Returns true if the error concerns one value or one command, and not Redis itself.
fn is_about_the_value(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedReturnType => true,
        ErrorKind::Server(ServerErrorKind::ResponseError) => error.code() == Some("ERR"),
        // Only this command is refused. A probe finds out if writes are refused too.
        _ => matches!(error.code(), Some("WRONGTYPE" | "NOPERM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    const REQUEST: Duration = Duration::from_millis(50);

    /// The server's answer to a word of a command, after it has accepted one write.
    type Later = fn(&str) -> &'static str;

    const HANGS: Later = |_| "";
    const READS_ONLY: Later = |word| match word {
        "PING" => "+PONG\r\n",
        "SET" => "-READONLY You can't write against a read only replica.\r\n",
        _ => "",
    };

    /// Serves like a Redis that accepts one write. From then on `later` answers.
    async fn turning_bad(mut stream: TcpStream, later: Later) {
        let (mut heard, mut written) = (Vec::new(), false);
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            heard.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&heard).into_owned();
            let mut answer = String::new();
            for word in text.split("\r\n") {
                match word {
                    "HELLO" => answer.push_str("%1\r\n$5\r\nproto\r\n:3\r\n"),
                    "CLIENT" => answer.push_str("+OK\r\n"),
                    "INFO" => answer.push_str("$0\r\n\r\n"),
                    "EVALSHA" => answer.push_str("$1\r\n1\r\n"),
                    "EXISTS" => answer.push_str(":0\r\n"),
                    "SET" if !written => {
                        written = true;
                        answer.push_str("+OK\r\n");
                    }
                    word => answer.push_str(later(word)),
                }
            }
            heard.clear();
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn redis(addr: std::net::SocketAddr) -> RedisClient {
        let url = SecretString::from(format!("redis://{addr}/"));
        RedisClient::new(&config::RedisTarget::of_url("state.redis.url", url, None), KeySpace::new(&[1; 32]), &[])
            .unwrap()
    }

    /// Returns a client that is up, whose server answers by `later` from then on. The client stays connected until the
    /// guard is dropped.
    async fn to_one_that(later: Later) -> (RedisClient, tokio_util::sync::DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let redis = redis(listener.local_addr().unwrap());
        tasks.spawn(async move {
            if let Ok((stream, _)) = listener.accept().await {
                turning_bad(stream, later).await;
            }
        });
        redis.keep(&tasks, stop.clone());
        redis.watch().wait_for(|up| *up).await.unwrap();
        (redis, stop.drop_guard())
    }

    #[tokio::test]
    async fn one_request_waits_for_a_hanging_redis_no_longer_than_its_budget_and_the_next_not_at_all() {
        let (redis, _kept) = to_one_that(HANGS).await;
        // From here the test controls time: it moves only when all tasks wait, directly to the next deadline.
        tokio::time::pause();
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        let get = redis::cmd("GET").arg("x").clone();
        for _ in 0..3 {
            let answer: Result<Option<String>, RedisFailure> = redis.command(&budget, &get).await;
            assert_eq!(answer, Err(RedisFailure::Out));
        }
        assert!(started.elapsed() <= REQUEST + Duration::from_millis(1), "{:?}", started.elapsed());
        assert!(!redis.is_up());
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        let answer: Result<Option<String>, RedisFailure> = redis.command(&budget, &get).await;
        assert_eq!((answer, started.elapsed()), (Err(RedisFailure::Out), Duration::ZERO));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends_with_the_first_request_that_finds_out() {
        let (redis, _kept) = to_one_that(HANGS).await;
        tokio::time::pause();
        let started = Instant::now();
        let get = redis::cmd("GET").arg("x").clone();
        let (background, request) = (Budget::of(Duration::from_secs(2)), Budget::of(REQUEST));
        let (first, second): (Result<(), _>, Result<(), _>) =
            tokio::join!(redis.command(&background, &get), redis.command(&request, &get));
        assert_eq!((first, second), (Err(RedisFailure::Out), Err(RedisFailure::Out)));
        assert!(started.elapsed() <= REQUEST + Duration::from_millis(1), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn who_waits_for_a_word_learns_soon_that_there_will_be_none() {
        let (redis, _kept) = to_one_that(HANGS).await;
        tokio::time::pause();
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        redis.out(&budget).await;
        assert!(started.elapsed() <= VIGIL + REQUEST + Duration::from_millis(2), "{:?}", started.elapsed());
        assert_eq!(budget.spent(), Duration::ZERO);
    }

    /// Redis answers, but refuses writes: the node whose message is awaited can't publish it.
    #[tokio::test]
    async fn who_waits_for_a_word_learns_soon_that_nothing_is_written_any_more() {
        let (redis, _kept) = to_one_that(READS_ONLY).await;
        tokio::time::pause();
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        redis.out(&budget).await;
        assert!(started.elapsed() <= VIGIL + REQUEST + Duration::from_millis(2), "{:?}", started.elapsed());
    }
}
