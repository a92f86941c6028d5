//! The client for one upstream host.

use super::answer::AnswerBody;
use super::connect::Connector;
use super::connection::Pooled;
use super::credential::Credential;
use super::deadline::Timeouts;
use super::error::CallError;
use super::exchange::{Failed, SendOutcome, exchange};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::reachability::Reachability;
use crate::base::clock::Clock;
use crate::base::tasks::Tasks;
use crate::config;
use std::sync::Arc;

/// The number of attempts to connect for one request. A host that was restarting accepts the second attempt.
const CONNECT_ATTEMPTS: usize = 2;

/// The largest number of times that one request is sent. A server that restarts refuses once or twice; a server that
/// refuses more often is busy.
const MOST_SENDS: usize = 4;

/// The client for one upstream host.
#[derive(Debug)]
pub struct Upstream {
    connector: Connector,
    host: Arc<str>,
    pool: Arc<Pool>,
    timeouts: Timeouts,
    reachability: Reachability,
    /// The lock that a request holds while it opens a connection that several requests will share (HTTP/2). The other
    /// requests wait for that connection.
    connecting: tokio::sync::Mutex<()>,
}

impl Upstream {
    /// Makes a client that has not connected yet. `tasks` runs a task for each h2 connection, which serves several
    /// requests at once.
    ///
    /// # Errors
    /// Returns an error if TLS can't be set up, for example because there is no usable trust store.
    pub fn new(settings: &config::Upstream, clock: &Clock, tasks: Tasks) -> Result<Self, rustls::Error> {
        let connector = Connector::new(settings, clock.clone(), tasks)?;
        let host: Arc<str> = connector.origin.authority.as_str().into();
        Ok(Self {
            reachability: Reachability::new(&host),
            connector,
            host,
            pool: Arc::new(Pool::new(settings.pool_idle_timeout, clock.clone())),
            timeouts: Timeouts { answer: settings.timeout, idle: settings.idle_timeout },
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the time limits for answers and bodies.
    #[must_use]
    pub const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Returns the host and port for log lines.
    #[must_use]
    pub const fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Closes the connections that carry no request. Every h2 connection closes after its current requests.
    pub fn close(&self) {
        self.pool.clear();
    }

    /// Closes connections that were unused for too long, or can't be used any more. The gateway calls this from time to
    /// time.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends a request and waits for the head of its answer. The answer's body is streamed.
    ///
    /// The request is sent again only in three cases: no byte of it left this process; Iluma proved that it processed
    /// nothing of the request; or a kept connection broke, and the request changes and costs nothing.
    ///
    /// # Errors
    /// Returns an error if no answer arrived. It says what is known about the outcome of the request.
    pub async fn send(
        &self,
        request: Outgoing,
        credential: Option<&Arc<Credential>>,
    ) -> Result<http::Response<AnswerBody>, CallError> {
        let mut request = request;
        if let Some(credential) = credential {
            request.headers.insert(http::header::AUTHORIZATION, credential.authorization());
        }
        let (mut sends, mut only_fresh) = (0, false);
        loop {
            let kept = if only_fresh { None } else { self.pool.take() };
            let pooled = match kept {
                Some(pooled) => pooled,
                // A connect is rare, and its future is large. It is on the heap, so that it does not enlarge the future
                // of every request.
                None => Box::pin(self.connect()).await?,
            };
            let fresh = pooled.is_fresh();
            tracing::debug!(fresh, protocol = pooled.protocol(), "took a connection to Iluma");
            let failed = match exchange(pooled, request, &self.connector.origin, self.timeouts).await {
                Ok((head, body)) => {
                    let body = AnswerBody::new(body, Arc::clone(&self.pool), self.timeouts.idle, &head);
                    let mut response = http::Response::from_parts(head, body);
                    // The extensions may have Iluma's own reason phrase, which would be passed on without a search for
                    // secrets.
                    response.extensions_mut().clear();
                    if let Some(credential) = credential {
                        AnswerBody::hide(&mut response, credential);
                    }
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            sends += usize::from(failed.outcome != SendOutcome::Unsent);
            only_fresh |= matches!(failed.outcome, SendOutcome::Sent(_));
            request = next(failed, fresh, sends)?;
        }
    }

    async fn connect(&self) -> Result<Pooled, CallError> {
        // Several requests can share one h2 connection. So if Iluma speaks h2, only one request connects, and the
        // others wait for its connection.
        let mut turn = None;
        if self.pool.multiplexes() {
            turn = Some(self.connecting.lock().await);
            if let Some(pooled) = self.pool.take() {
                return Ok(pooled);
            }
            // No kept connection has room. If no h2 connection is kept any more, all requests connect at the same time.
            // If they connected one after the other, the last request would wait for the timeouts of all others.
            turn = turn.filter(|_| self.pool.multiplexes());
        }
        for _ in 0..CONNECT_ATTEMPTS {
            match self.connector.connect().await {
                Ok(pooled) => {
                    self.reachability.connected();
                    self.pool.share(&pooled);
                    drop(turn);
                    return Ok(pooled);
                }
                Err(error) => self.reachability.failed(&error),
            }
        }
        Err(CallError::Unreachable)
    }
}

/// Decides about a request that got no answer. Returns the request if it may be sent again, else the error that ends
/// the call. `fresh` is true if the connection had carried no request before. `sends` is the number of sends so far in
/// which a part of the request may have left.
fn next(failed: Failed, fresh: bool, sends: usize) -> Result<Outgoing, CallError> {
    let error = match failed.outcome {
        // A kept connection had closed: the request takes another connection. A new connection that takes no byte
        // counts as a failed connect.
        SendOutcome::Unsent if !fresh => return failed.request.map(|request| *request).ok_or(CallError::Unreachable),
        SendOutcome::Unsent => return Err(CallError::Unreachable),
        SendOutcome::NotProcessed => CallError::NotProcessed,
        // A kept connection that closes just as it is used again is not Iluma's fault.
        SendOutcome::Sent(CallError::Broken) if !fresh && sends == 1 && is_repeatable(&failed) => CallError::Broken,
        SendOutcome::Sent(error) => return Err(error),
    };
    if sends >= MOST_SENDS {
        return Err(error);
    }
    failed.request.map(|request| *request).ok_or(error)
}

fn is_repeatable(failed: &Failed) -> bool {
    failed.request.as_ref().is_some_and(|request| request.again().is_some())
}

#[cfg(test)]
mod tests {
    use super::super::outgoing::OutgoingBody;
    use super::*;
    use http::{HeaderMap, Method};

    fn failed(outcome: SendOutcome, repeatable: bool, kept: bool) -> Failed {
        let request = Outgoing {
            method: Method::POST,
            target: "/".parse().unwrap(),
            headers: HeaderMap::new(),
            body: OutgoingBody::Empty,
            repeatable,
        };
        Failed { outcome, request: kept.then(|| Box::new(request)) }
    }

    #[test]
    fn a_request_is_sent_again_only_where_that_is_harmless() {
        let (repeatable, once) = (true, false);
        let (fresh, kept) = (true, false);
        let broken = SendOutcome::Sent(CallError::Broken);
        for (outcome, repeats, connection, sends, expected) in [
            (SendOutcome::Unsent, once, kept, 0, None),
            (SendOutcome::Unsent, once, fresh, 0, Some(CallError::Unreachable)),
            (SendOutcome::NotProcessed, once, fresh, 1, None),
            (SendOutcome::NotProcessed, once, kept, MOST_SENDS - 1, None),
            (SendOutcome::NotProcessed, once, kept, MOST_SENDS, Some(CallError::NotProcessed)),
            (broken, once, kept, 1, Some(CallError::Broken)),
            (broken, repeatable, kept, 1, None),
            (broken, repeatable, kept, 2, Some(CallError::Broken)),
            (broken, repeatable, fresh, 1, Some(CallError::Broken)),
            (SendOutcome::Sent(CallError::TimedOut), repeatable, kept, 1, Some(CallError::TimedOut)),
            (SendOutcome::Sent(CallError::Garbled), repeatable, kept, 1, Some(CallError::Garbled)),
        ] {
            let step = next(failed(outcome, repeats, true), connection, sends);
            assert_eq!(step.err(), expected, "{outcome:?}, {repeats}, fresh {connection}, {sends} sends");
        }
        let lost = next(failed(SendOutcome::NotProcessed, once, false), kept, 1);
        assert_eq!(lost.err(), Some(CallError::NotProcessed), "a body that was not kept is not sent again");
    }
}
