//! The way to one Redis: a connection that is kept, and a breaker that keeps its troubles away from requests.
//!
//! Invariants: a request waits for Redis no longer than its [`Budget`], whatever it asks; while Redis is out nobody asks
//! it but the keeper, which probes after a cool-off; a Redis that hangs, loads, refuses writes, is full or talks nonsense
//! is out, like one that is not there.

use crate::base::tasks::Tasks;
use crate::config;
use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, Pipeline, ProtocolVersion,
    PushInfo, PushKind, RedisError, RedisResult, ScriptInvocation, ServerErrorKind, Value,
};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long Redis is left alone after it failed, a quarter more or less so that nodes do not probe in step. With the time
/// of a probe it is far below the 5 s within which all is to be normal again.
const COOL_OFF: Duration = Duration::from_millis(500);
/// What connecting and a probe may take: name, TCP, TLS and two round trips.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection that nobody uses is looked at.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often Redis is asked for a sign of life while somebody waits for its word: with a request's budget, what such a wait
/// may be in vain.
const VIGIL: Duration = Duration::from_millis(100);
/// Messages that a slow listener may be behind before it is told that it has missed some.
const MOST_MESSAGES: usize = 1024;

/// What a request, or a piece of work, may still wait for Redis. All questions of one request share one.
#[derive(Debug)]
pub struct Budget {
    whole: Duration,
    /// Nanoseconds; more than the whole by what the machine was late.
    spent: AtomicU64,
}

impl Budget {
    /// So much, over everything that is asked with it.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        Self { whole: time, spent: AtomicU64::new(0) }
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.whole.saturating_sub(self.spent())
    }

    /// What was waited for so far.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    /// Charges for a wait that was Redis' doing.
    pub fn spend(&self, time: Duration) {
        self.spent.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits for something that Redis has to do with, within what is left; none if that was not enough.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        /// Charges also if whoever waits is dropped meanwhile.
        struct Charge<'a>(&'a Budget, Instant);
        impl Drop for Charge<'_> {
            fn drop(&mut self) {
                self.0.spend(self.1.elapsed());
            }
        }
        let left = self.left();
        if left.is_zero() {
            return None;
        }
        let _charge = Charge(self, Instant::now());
        timeout(left, work).await.ok()
    }
}

/// Why Redis gave no answer that is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is out, or the budget is spent: it was not asked, or it is not known whether it acted.
    #[error("Redis is out")]
    Out,
    /// It answered, but not with what belongs there: another program's value, or a damaged one.
    #[error("Redis holds something else there")]
    Unexpected,
}

/// A Redis. Clones share the connection.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    client: redis::Client,
    /// None while Redis is out.
    connection: ArcSwapOption<MultiplexedConnection>,
    up: watch::Sender<bool>,
    /// Tells the keeper that the connection is of no use any more.
    broken: Notify,
    channels: BTreeMap<String, broadcast::Sender<Vec<u8>>>,
}

impl RedisClient {
    /// A link that connects once it is [kept](Self::keep), and then listens to `channels`.
    ///
    /// # Errors
    /// The URL or the certificates can't be used; the configuration has checked both.
    pub fn new(target: &config::RedisTarget, channels: &[String]) -> Result<Self, RedisError> {
        let client = open(target)?;
        let channels = channels.iter().map(|name| (name.clone(), broadcast::channel(MOST_MESSAGES).0)).collect();
        Ok(Self(Arc::new(Shared {
            client,
            connection: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            broken: Notify::new(),
            channels,
        })))
    }

    /// Connects and stays connected until `tasks` are drained and `stop` ends.
    pub fn keep(&self, tasks: &Tasks, stop: tokio_util::sync::CancellationToken) {
        let shared = Arc::clone(&self.0);
        tasks.spawn(async move {
            let _: Option<()> = stop.run_until_cancelled(shared.keep()).await;
            shared.connection.store(None);
            shared.up.send_replace(false);
        });
    }

    /// Whether both are clones of one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.0.up.borrow()
    }

    /// To wait for it to come or go.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.up.subscribe()
    }

    /// Ends when Redis is out. For who waits for a word from it, and could not tell a Redis that hangs from one that has
    /// nothing to say: it is asked for signs of life, each of which may take as long as `budget` was at first.
    pub async fn out(&self, budget: &Budget) {
        let mut up = self.watch();
        loop {
            tokio::select! {
                _ = up.wait_for(|up| !*up) => return,
                () = sleep(VIGIL) => {}
            }
            let _: Result<(), LinkError> = self.command(&Budget::of(budget.whole), &sign_of_life()).await;
        }
    }

    /// What is published on one of the channels from now on. What was published while Redis was out is lost.
    ///
    /// # Panics
    /// The channel was not named when the link was made: a mistake in the program.
    #[must_use]
    pub fn listen(&self, channel: &str) -> broadcast::Receiver<Vec<u8>> {
        match self.0.channels.get(channel) {
            Some(sender) => sender.subscribe(),
            None => panic!("nobody listens to this channel"),
        }
    }

    /// Asks by one command.
    ///
    /// # Errors
    /// Redis is out, or holds something else there.
    pub async fn command<T: FromRedisValue>(&self, budget: &Budget, command: &Cmd) -> Result<T, LinkError> {
        self.ask(budget, |mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Asks by several commands in one round trip.
    ///
    /// # Errors
    /// Redis is out, or holds something else there.
    pub async fn pipeline<T: FromRedisValue>(&self, budget: &Budget, pipeline: &Pipeline) -> Result<T, LinkError> {
        self.ask(budget, |mut connection| async move { pipeline.query_async(&mut connection).await }).await
    }

    /// Asks by a script, which Redis runs as one step.
    ///
    /// # Errors
    /// Redis is out, or holds something else there.
    pub async fn script<T: FromRedisValue>(
        &self,
        budget: &Budget,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, LinkError> {
        self.ask(budget, |mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    async fn ask<T, A, F>(&self, budget: &Budget, asking: A) -> Result<T, LinkError>
    where
        T: FromRedisValue,
        A: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = RedisResult<T>>,
    {
        let Some(connection) = self.0.connection.load_full() else { return Err(LinkError::Out) };
        let (whole, mut up) = (budget.spent().is_zero(), self.watch());
        let asked = async {
            tokio::select! {
                biased;
                answer = asking((*connection).clone()) => Some(answer),
                // Somebody else has found out: nobody has to wait as long as they did.
                _ = up.wait_for(|up| !*up) => None,
            }
        };
        match budget.wait(asked).await {
            Some(Some(Ok(value))) => Ok(value),
            Some(Some(Err(error))) if is_about_the_value(&error) => Err(LinkError::Unexpected),
            Some(Some(Err(error))) => {
                // The code alone: a message may quote what was asked.
                self.0.trip(&connection, error.code().unwrap_or("connection"));
                Err(LinkError::Out)
            }
            Some(None) => Err(LinkError::Out),
            None => {
                // Less than a whole budget proves nothing: what was asked before may have taken it.
                if whole && !budget.spent().is_zero() {
                    self.0.trip(&connection, "slow");
                }
                Err(LinkError::Out)
            }
        }
    }
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisClient").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Leaves Redis alone from now on, if `connection` is still the one in use.
    fn trip(&self, connection: &Arc<MultiplexedConnection>, why: &str) {
        let current = self.connection.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            self.connection.store(None);
            self.up.send_replace(false);
            tracing::warn!(why, "Redis is out");
            self.broken.notify_one();
        }
    }

    async fn keep(self: &Arc<Self>) {
        let mut told = false;
        loop {
            match timeout(PROBE_TIMEOUT, self.connect()).await {
                Ok(Ok(connection)) => {
                    let connection = Arc::new(connection);
                    self.connection.store(Some(Arc::clone(&connection)));
                    self.up.send_replace(true);
                    tracing::info!("Redis is there");
                    told = true;
                    self.while_well(&connection).await;
                }
                // Once: it may be out for hours.
                failed if !told => {
                    told = true;
                    let why = failed.ok().and_then(|failed| failed.err()).map(|error| error.code().map(str::to_owned));
                    tracing::warn!(why = why.flatten().as_deref().unwrap_or("connection"), "Redis is out");
                }
                _ => {}
            }
            let [jitter] = crate::base::keyring::random::<1>();
            sleep(COOL_OFF.mul_f64(0.75 + f64::from(jitter) / 512.0)).await;
        }
    }

    /// Returns when the connection is of no use any more.
    async fn while_well(&self, connection: &Arc<MultiplexedConnection>) {
        loop {
            // What woke us may have been about a connection before this one.
            let _ = timeout(HEARTBEAT, self.broken.notified()).await;
            if self.connection.load().is_none() {
                return;
            }
            match timeout(PROBE_TIMEOUT, probe(&mut (**connection).clone())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.trip(connection, error.code().unwrap_or("connection")),
                Err(_) => return self.trip(connection, "slow"),
            }
        }
    }

    async fn connect(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        let listeners = Arc::downgrade(self);
        // None of the library's own times: those of this file cover each step.
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None).set_push_sender(
                move |push: PushInfo| listeners.upgrade().map(|shared| shared.hear(push)).ok_or(redis::aio::SendError),
            );
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        for channel in self.channels.keys() {
            connection.subscribe(channel).await?;
        }
        probe(&mut connection).await?;
        Ok(connection)
    }

    fn hear(&self, push: PushInfo) {
        match (push.kind, push.data.as_slice()) {
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(message)]) => {
                let channel = std::str::from_utf8(channel).ok().and_then(|name| self.channels.get(name));
                if let Some(channel) = channel {
                    // Nobody may listen just now.
                    let _ = channel.send(message.clone());
                }
            }
            (PushKind::Disconnection, _) => {
                if let Some(connection) = self.connection.load_full() {
                    self.trip(&connection, "disconnected");
                }
            }
            _ => {}
        }
    }
}

/// Returns a client of the library for a target.
pub(super) fn open(target: &config::RedisTarget) -> Result<redis::Client, RedisError> {
    let info = target.url.expose_secret().into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.set_redis_settings(settings);
    match &target.extra_ca {
        Some(pem) => {
            let tls = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
            redis::Client::build_with_tls(info, tls)
        }
        None => redis::Client::open(info),
    }
}

async fn probe(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    sign_of_life().query_async(connection).await
}

/// Writes something: a Redis that does not take writes is of no use, however well it reads.
fn sign_of_life() -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg("iluma-gateway:probe").arg(1).arg("PX").arg(10_000);
    command
}

/// Whether the error says something of one value, and nothing of Redis.
fn is_about_the_value(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedReturnType => true,
        ErrorKind::Server(ServerErrorKind::ResponseError) => error.code() == Some("ERR"),
        // One command that is not allowed: whether writing is, the probe finds out.
        _ => matches!(error.code(), Some("WRONGTYPE" | "NOPERM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    const REQUEST: Duration = Duration::from_millis(50);

    /// What a server answers to a word once it has taken a write.
    type Later = fn(&str) -> &'static str;

    const HANGS: Later = |_| "";
    const READS_ONLY: Later = |word| match word {
        "PING" => "+PONG\r\n",
        "SET" => "-READONLY You can't write against a read only replica.\r\n",
        _ => "",
    };

    /// A server that says hello like Redis, takes one write, and leaves everything else to `later`.
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

    fn link(addr: std::net::SocketAddr) -> RedisClient {
        let url = SecretString::from(format!("redis://{addr}/"));
        RedisClient::new(&config::RedisTarget { url, extra_ca: None }, &[]).unwrap()
    }

    /// A link to a server that turns bad once it is up, kept until the guard is dropped.
    async fn to_one_that(later: Later) -> (RedisClient, tokio_util::sync::DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let link = link(listener.local_addr().unwrap());
        tasks.spawn(async move {
            if let Ok((stream, _)) = listener.accept().await {
                turning_bad(stream, later).await;
            }
        });
        link.keep(&tasks, stop.clone());
        link.watch().wait_for(|up| *up).await.unwrap();
        (link, stop.drop_guard())
    }

    #[tokio::test]
    async fn one_request_waits_for_a_hanging_redis_no_longer_than_its_budget_and_the_next_not_at_all() {
        let (link, _kept) = to_one_that(HANGS).await;
        // From here time is what the test says: it moves only when everybody waits, straight to the next deadline.
        tokio::time::pause();
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        let get = redis::cmd("GET").arg("x").clone();
        for _ in 0..3 {
            let answer: Result<Option<String>, LinkError> = link.command(&budget, &get).await;
            assert_eq!(answer, Err(LinkError::Out));
        }
        assert!(started.elapsed() <= REQUEST + Duration::from_millis(1), "{:?}", started.elapsed());
        assert!(!link.is_up());
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        let answer: Result<Option<String>, LinkError> = link.command(&budget, &get).await;
        assert_eq!((answer, started.elapsed()), (Err(LinkError::Out), Duration::ZERO));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends_with_the_first_request_that_finds_out() {
        let (link, _kept) = to_one_that(HANGS).await;
        tokio::time::pause();
        let started = Instant::now();
        let get = redis::cmd("GET").arg("x").clone();
        let (background, request) = (Budget::of(Duration::from_secs(2)), Budget::of(REQUEST));
        let (first, second): (Result<(), _>, Result<(), _>) =
            tokio::join!(link.command(&background, &get), link.command(&request, &get));
        assert_eq!((first, second), (Err(LinkError::Out), Err(LinkError::Out)));
        assert!(started.elapsed() <= REQUEST + Duration::from_millis(1), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn who_waits_for_a_word_learns_soon_that_there_will_be_none() {
        let (link, _kept) = to_one_that(HANGS).await;
        tokio::time::pause();
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        link.out(&budget).await;
        assert!(started.elapsed() <= VIGIL + REQUEST + Duration::from_millis(2), "{:?}", started.elapsed());
        assert_eq!(budget.spent(), Duration::ZERO);
    }

    /// It answers, but the node whose word is waited for can't say it there.
    #[tokio::test]
    async fn who_waits_for_a_word_learns_soon_that_nothing_is_written_any_more() {
        let (link, _kept) = to_one_that(READS_ONLY).await;
        tokio::time::pause();
        let (budget, started) = (Budget::of(REQUEST), Instant::now());
        link.out(&budget).await;
        assert!(started.elapsed() <= VIGIL + REQUEST + Duration::from_millis(2), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn waiting_for_whatever_is_charged_even_if_it_is_given_up() {
        tokio::time::pause();
        let budget = Budget::of(REQUEST);
        let waited = timeout(Duration::from_millis(20), budget.wait(std::future::pending::<()>())).await;
        assert!(waited.is_err());
        // Tokio's clock counts whole milliseconds.
        assert!((18..=22).contains(&budget.spent().as_millis()), "{budget:?}");
        assert_eq!(budget.wait(std::future::pending::<()>()).await, None);
        assert_eq!(budget.left(), Duration::ZERO);
        let started = Instant::now();
        assert_eq!(budget.wait(std::future::pending::<()>()).await, None);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[test]
    fn a_budget_is_spent_and_tells_all_that_was_waited() {
        let budget = Budget::of(REQUEST);
        budget.spend(Duration::from_millis(30));
        assert_eq!(budget.left(), Duration::from_millis(20));
        budget.spend(Duration::from_secs(1));
        assert_eq!((budget.left(), budget.spent()), (Duration::ZERO, Duration::from_millis(1030)));
    }
}
