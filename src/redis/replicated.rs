//! Writes that count as done only once replicas have them, so that a failover does not lose them.
//!
//! Invariants:
//! - Redis' WAIT covers only the writes of its own connection. So a write and its WAIT have a connection for
//!   themselves.
//! - A connection that failed, or whose answer was not awaited, is never used again.
//! - A write is done only if the primary is still the same after its WAIT.

use super::budget::Budget;
use super::client::{RedisClient, RedisFailure};
use crate::base::log_throttle::LogThrottle;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, ScriptInvocation};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The largest number of connections, and so of writes at once. A write takes two round trips and a replica's answer:
/// at a millisecond each, eight connections carry more than 2,000 callbacks a second.
const MOST_CONNECTIONS: usize = 8;
/// The longest wait for replicas. They usually answer within a round trip; a whole operation of state may take twice
/// this time.
const REPLICATION: Duration = Duration::from_secs(1);

/// Runs scripts on connections of its own, and waits for replicas.
#[derive(Debug)]
pub struct ReplicatedWriter {
    client: RedisClient,
    replicas: u32,
    slots: Semaphore,
    idle: Mutex<Vec<Dedicated>>,
    throttle: LogThrottle,
}

/// A connection for one write at a time.
struct Dedicated {
    connection: MultiplexedConnection,
    /// The client's connection at the time when this connection was opened. A later connection of the client may lead
    /// to another server.
    main: Arc<MultiplexedConnection>,
}

impl ReplicatedWriter {
    /// Makes a writer whose writes need `replicas` replicas. With 0, it writes on the client's own connection.
    #[must_use]
    pub fn new(client: RedisClient, replicas: u32) -> Self {
        let (slots, idle) = (Semaphore::new(MOST_CONNECTIONS), Mutex::default());
        Self { client, replicas, slots, idle, throttle: LogThrottle::default() }
    }

    /// Returns the number of replicas that a write needs.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Runs a script, and returns its answer once enough replicas have what it wrote. The script may run twice, and has
    /// to write each time.
    ///
    /// # Errors
    /// Returns an error if Redis is out, if too few replicas have the write (the primary may have it then), or if Redis
    /// answers with an unexpected value.
    pub async fn script<T: FromRedisValue>(
        &self,
        budget: &Budget,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        if self.replicas == 0 {
            return self.client.script(budget, script).await;
        }
        budget.wait(self.replicated(script)).await.unwrap_or(Err(RedisFailure::Out))
    }

    async fn replicated<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisFailure> {
        let _slot = self.slots.acquire().await.map_err(|_| RedisFailure::Out)?;
        let main = self.client.current().ok_or(RedisFailure::Out)?;
        // The server may have closed an idle connection and still work. Then the script runs on a new one.
        if let Some(connection) = self.idle(&main)
            && let Ok(answer) = self.write(connection, &main, script).await
        {
            return answer;
        }
        let connection = self.client.another().await.map_err(|_| RedisFailure::Out)?;
        self.write(connection, &main, script).await.unwrap_or_else(|error| Err(RedisFailure::of(&error)))
    }

    /// Runs the script on a connection, and waits for the replicas. The outer error means that the connection failed, or
    /// that Redis answered with an error. The inner error means that the write does not count as done.
    async fn write<T: FromRedisValue>(
        &self,
        mut connection: MultiplexedConnection,
        main: &Arc<MultiplexedConnection>,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<Result<T, RedisFailure>> {
        let answer = script.invoke_async(&mut connection).await?;
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.replicas).arg(u64::try_from(REPLICATION.as_millis()).unwrap_or(u64::MAX));
        let replicas: u32 = wait.query_async(&mut connection).await?;
        if !self.client.current().is_some_and(|current| Arc::ptr_eq(&current, main)) {
            return Ok(Err(RedisFailure::Out));
        }
        self.idle.lock().push(Dedicated { connection, main: Arc::clone(main) });
        if replicas >= self.replicas {
            return Ok(Ok(answer));
        }
        if let Some(events) = self.throttle.pass() {
            let (redis, wanted) = (self.client.name(), self.replicas);
            let what = "fewer replicas than wanted have a callback, or the claim of a key: it is answered 503";
            tracing::warn!(redis, replicas, wanted, events, "{what}");
        }
        Ok(Err(RedisFailure::Out))
    }

    /// Takes an idle connection to the server of `main`, and drops idle connections to earlier servers.
    fn idle(&self, main: &Arc<MultiplexedConnection>) -> Option<MultiplexedConnection> {
        let mut idle = self.idle.lock();
        idle.retain(|dedicated| Arc::ptr_eq(&dedicated.main, main));
        idle.pop().map(|dedicated| dedicated.connection)
    }
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dedicated").finish_non_exhaustive()
    }
}
