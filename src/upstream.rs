//! Iluma, seen from here: one pooled client.
//!
//! Invariants: a request that may change something or cost something is sent at most once, and sent again only where
//! none of it left this process; the account's credential is on every request to upstream, and
//! in no answer from it that can be looked through (a success in a content encoding passes untouched);
//! every wait has a deadline; a connection goes back to the pool only between two whole messages.

mod answer;
mod breaker;
mod connect;
mod credential;
mod exchange;
mod outgoing;
mod pool;
mod retry;

pub use answer::{AnswerBody, AnswerError, Collected, collect, decoded};
pub use breaker::{Breaker, BreakerPermit};
pub use credential::Credential;
pub use outgoing::{Outgoing, OutgoingBody, Progress};
pub use retry::{RetryBudget, may_go_better};

use crate::base::clock::Clock;
use crate::base::tasks::Tasks;
use crate::config;
use connect::Connector;
use exchange::{Failed, exchange};
use pool::{Pool, Pooled};
use std::sync::Arc;
use std::time::Duration;

/// Attempts to connect for one request: a second one meets a host that was just restarting.
const CONNECT_ATTEMPTS: usize = 2;

/// Why there is no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection: nothing was sent. A 503.
    #[error("Iluma can't be reached, nothing was sent")]
    Unreachable,
    /// Sent, and no answer in time: what became of it is unknown. A 504.
    #[error("Iluma did not answer in time, whether it acted on the request is unknown")]
    TimedOut,
    /// Sent, and the connection broke before the answer: what became of it is unknown. A 504.
    #[error("Iluma closed the connection without an answer, whether it acted on the request is unknown")]
    Broken,
    /// Sent, and answered with something that is not HTTP, or not in the encoding it claims. A 504.
    #[error("Iluma's answer can't be understood, whether it acted on the request is unknown")]
    Garbled,
    /// Sent, and answered, but the answer ended early. A 504.
    #[error("Iluma's answer was cut off, whether it acted on the request is unknown")]
    Truncated,
    /// Sent, and answered with more than is ever held. A 504.
    #[error("Iluma's answer is too large to be read, whether it acted on the request is unknown")]
    TooLarge,
    /// The client stopped sending its body: upstream got a part, and no end. A 408.
    #[error("the request body did not arrive in time")]
    ClientTooSlow,
    /// The client's body broke off: upstream got a part, and no end. A 400 that nobody may be there to read.
    #[error("the request body was cut off")]
    ClientCutOff,
}

impl CallError {
    /// A number by which another node knows the error; it stays the same over versions.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unreachable => 1,
            Self::TimedOut => 2,
            Self::Broken => 3,
            Self::Garbled => 4,
            Self::Truncated => 5,
            Self::TooLarge => 6,
            Self::ClientTooSlow => 7,
            Self::ClientCutOff => 8,
        }
    }

    /// The error of a number; what another version may know is a broken call to this one.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unreachable,
            2 => Self::TimedOut,
            4 => Self::Garbled,
            5 => Self::Truncated,
            6 => Self::TooLarge,
            7 => Self::ClientTooSlow,
            8 => Self::ClientCutOff,
            _ => Self::Broken,
        }
    }
}

/// The bounds of every wait for upstream.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the request wholly sent to the answer's head.
    pub answer: Duration,
    /// Without a byte of body, either way.
    pub idle: Duration,
}

/// The client for one upstream host.
#[derive(Debug)]
pub struct Upstream {
    connector: Connector,
    pool: Arc<Pool>,
    timeouts: Timeouts,
    /// Held by who makes a connection that many will use.
    turn: tokio::sync::Mutex<()>,
}

impl Upstream {
    /// A client that has not connected yet. `tasks` drives connections that serve several requests at once (h2).
    ///
    /// # Errors
    /// The machine has no usable trust store.
    pub fn new(settings: &config::Upstream, clock: &Clock, tasks: Tasks) -> Result<Self, rustls::Error> {
        Ok(Self {
            connector: Connector::new(settings, tasks)?,
            pool: Arc::new(Pool::new(settings.pool_idle_timeout, clock.clone())),
            timeouts: Timeouts { answer: settings.timeout, idle: settings.idle_timeout },
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The bounds of every wait.
    #[must_use]
    pub const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Closes the connections that carry no request.
    pub fn close(&self) {
        self.pool.clear();
    }

    /// Closes connections that nobody used for a while. Called from time to time.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends a request and waits for the head of its answer; the body streams.
    ///
    /// # Errors
    /// What became of the request, as far as it is known.
    pub async fn send(
        &self,
        request: Outgoing,
        credential: Option<&Arc<Credential>>,
    ) -> Result<http::Response<AnswerBody>, CallError> {
        let mut request = request;
        if let Some(credential) = credential {
            request.headers.insert(http::header::AUTHORIZATION, credential.authorization());
        }
        let mut resent = false;
        loop {
            let again = request.again();
            let kept = if resent { None } else { self.pool.take() };
            let pooled = match kept {
                Some(pooled) => pooled,
                // Rare, and large: on the heap it does not weigh on every request.
                None => Box::pin(self.connect()).await?,
            };
            let fresh = pooled.is_fresh();
            match exchange(pooled, request, &self.connector.origin, self.timeouts).await {
                Ok((head, body)) => {
                    let body = AnswerBody::new(body, Arc::clone(&self.pool), self.timeouts.idle, &head);
                    let mut response = http::Response::from_parts(head, body);
                    // Among them a reason phrase of upstream's own, which would be passed on unseen.
                    response.extensions_mut().clear();
                    if let Some(credential) = credential {
                        credential.hide(&mut response);
                    }
                    return Ok(response);
                }
                // It never left: any connection will do.
                Err(Failed::Unsent(unsent)) if !fresh => request = *unsent,
                Err(Failed::Unsent(_)) => return Err(CallError::Unreachable),
                Err(Failed::Sent(error)) => match again {
                    // A connection that upstream closes just as it is used again says nothing of upstream.
                    Some(again) if !fresh && error == CallError::Broken => {
                        resent = true;
                        request = again;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Pooled, CallError> {
        // Where one connection serves many, those who need a new one wait for whoever makes it.
        let mut turn = None;
        if self.pool.multiplexes() {
            turn = Some(self.turn.lock().await);
            if let Some(pooled) = self.pool.take() {
                return Ok(pooled);
            }
            // Nobody succeeded: from here everyone tries alone, or the last in line would wait for all before.
            turn = turn.filter(|_| self.pool.multiplexes());
        }
        for _ in 0..CONNECT_ATTEMPTS {
            match self.connector.connect().await {
                Ok(pooled) => {
                    self.pool.share(&pooled);
                    drop(turn);
                    return Ok(pooled);
                }
                Err(error) => tracing::warn!(%error, "no connection to upstream"),
            }
        }
        Err(CallError::Unreachable)
    }
}
