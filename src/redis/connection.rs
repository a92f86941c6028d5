//! Connects to Redis: to the right server, as the right user, with a layout that this version knows.

use super::diagnosis::{Cause, ServerInfo, Unreachable};
use super::keys::{Channel, KeySpace, RedisKey};
use super::layout;
use super::topology::{Located, Topology};
use crate::config::RedisTarget;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, RedisError, RedisResult};
use std::time::Duration;
use tokio::time::timeout;

/// The timeout of a connect or a probe. It covers the look-up of the name, TCP, TLS and a few round trips.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes connections to one Redis.
pub(super) struct Connector {
    topology: Topology,
    /// The server of the last connection.
    located: Mutex<Option<Located>>,
    keys: KeySpace,
    channels: Vec<Channel>,
}

impl Connector {
    /// Makes a connector to `target` whose connections listen to `channels`.
    ///
    /// # Errors
    /// Returns an error if the URL or the certificates can't be used; the configuration has checked both.
    pub(super) fn new(target: &RedisTarget, keys: KeySpace, channels: &[Channel]) -> Result<Self, RedisError> {
        Ok(Self { topology: Topology::new(target)?, located: Mutex::default(), keys, channels: channels.to_vec() })
    }

    /// Connects, and verifies that the server can be used. Published messages go to `push`.
    pub(super) async fn connect<P>(&self, push: P) -> Result<MultiplexedConnection, Cause>
    where
        P: Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static,
    {
        let connected = timeout(PROBE_TIMEOUT, self.verified(push)).await;
        connected.unwrap_or(Err(Cause::Unreachable(Unreachable::Timeout)))
    }

    async fn verified<P>(&self, push: P) -> Result<MultiplexedConnection, Cause>
    where
        P: Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static,
    {
        // The library's own timeouts are off: PROBE_TIMEOUT covers each step.
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None).set_push_sender(push);
        let cause = |error: RedisError| Cause::of(&error);
        let located = self.topology.locate(&self.keys.layout()).await?;
        let mut connection =
            located.client.get_multiplexed_async_connection_with_config(&settings).await.map_err(cause)?;
        // A user without the right to INFO may still have all necessary rights.
        let info: String = redis::cmd("INFO").query_async(&mut connection).await.unwrap_or_default();
        if let Some(fault) = ServerInfo(&info).fault(self.topology.is_cluster()) {
            return Err(fault);
        }
        layout::check(&mut connection, &self.keys).await?;
        for channel in &self.channels {
            connection.subscribe(channel).await.map_err(cause)?;
        }
        sign_of_life(&self.keys).query_async::<()>(&mut connection).await.map_err(cause)?;
        *self.located.lock() = Some(located);
        Ok(connection)
    }

    /// Opens another connection to the server of the last connection. The new connection receives no published
    /// messages.
    pub(super) async fn another(&self) -> Result<MultiplexedConnection, Cause> {
        let client = self.located.lock().as_ref().map(|located| located.client.clone());
        opened(&client.ok_or(Cause::Disconnected)?).await
    }

    /// Returns true if the servers are a cluster.
    pub(super) const fn is_cluster(&self) -> bool {
        self.topology.is_cluster()
    }

    /// Opens a connection to the server that holds `key`, which may be another node of a cluster. The future is boxed.
    /// Otherwise the future of each request would be as large as that of a search through a cluster.
    pub(super) fn to_owner_of<'a>(&'a self, key: &'a RedisKey) -> BoxFuture<'a, Result<MultiplexedConnection, Cause>> {
        async move { opened(&self.topology.locate(key).await?.client).await }.boxed()
    }

    /// Returns the kind of the servers: `single`, `sentinel` or `cluster`.
    pub(super) const fn topology(&self) -> &'static str {
        self.topology.name()
    }

    /// Returns the cause, or [`Cause::Failover`] if the topology can locate the new primary.
    pub(super) fn judge(&self, cause: Cause) -> Cause {
        self.topology.judge(cause)
    }

    /// Verifies that a connection can still be used.
    pub(super) async fn probe(&self, mut connection: MultiplexedConnection) -> Result<(), Cause> {
        let answer: Result<RedisResult<()>, _> =
            timeout(PROBE_TIMEOUT, sign_of_life(&self.keys).query_async(&mut connection)).await;
        match answer {
            Ok(Ok(())) => {
                let address = self.located.lock().as_ref().and_then(|located| located.address.clone());
                // A primary that is cut off from its sentinels accepts writes that are lost.
                match address {
                    Some(address) if self.topology.has_moved(&address).await => Err(Cause::Failover),
                    Some(_) | None => Ok(()),
                }
            }
            Ok(Err(error)) => Err(Cause::of(&error)),
            Err(_) => Err(Cause::Slow),
        }
    }
}

/// Opens a connection that receives no published messages. The future is boxed, because futures of requests contain it.
fn opened(client: &redis::Client) -> BoxFuture<'_, Result<MultiplexedConnection, Cause>> {
    async move {
        // The library's own timeouts are off: PROBE_TIMEOUT covers each step.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = timeout(PROBE_TIMEOUT, client.get_multiplexed_async_connection_with_config(&settings));
        let connected = connected.await.map_err(|_| Cause::Unreachable(Unreachable::Timeout))?;
        connected.map_err(|error| Cause::of(&error))
    }
    .boxed()
}

/// Returns a command that writes: a Redis that refuses writes is useless, even if it can be read.
pub(super) fn sign_of_life(keys: &KeySpace) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(keys.probe()).arg(1).arg("PX").arg(10_000);
    command
}
