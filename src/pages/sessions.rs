//! The sessions of browsers that have sent a secret once: an operator's token or a team's key.
//!
//! Sessions are in state, so that every node knows them and a restart ends none. While state can't be read, a node uses
//! its copies of sessions that it has read recently, because operators need the console most during an outage.
//!
//! Invariants:
//! - State has only a keyed hash of a session's id. It has the hash of the secret in a form that can't be read without
//!   the id.
//! - A session ends when the secret that opened it is removed or replaced.
//! - A node's copy of a session ends when the session would end without further requests.

use crate::base::clock::Clock;
use crate::base::keyring;
use crate::state::{SessionKind, State, StateError, StoredSession};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq as _;

/// The largest number of copies that a node keeps: they take about 200 KiB. A session without a copy still works while
/// state can be read.
const MOST_COPIES: usize = 1000;
/// The number of hex digits in a session's id.
const DIGITS: usize = 64;

/// SHA-256 of a secret.
type Hash = [u8; 32];

/// The session of a request. `T` is an operator's role in the console, and the SHA-256 of a team's key in the team
/// portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session<T> {
    /// The name of the token that opened the session, or of the team whose key opened it.
    pub holder: Arc<str>,
    /// The role or the key that belongs to the session's secret at the time of this request.
    pub standing: T,
    /// The secret value that orders from the session's pages must carry. It protects against cross-site request
    /// forgery.
    pub csrf: Arc<str>,
}

impl<T> Session<T> {
    /// Returns true if `given`, from a form or a header, is the session's secret value, `csrf`.
    #[must_use]
    pub fn has_value(&self, given: &[u8]) -> bool {
        given.ct_eq(self.csrf.as_bytes()).into()
    }
}

/// The sessions of one kind of pages.
#[derive(Debug)]
pub struct Sessions {
    kind: SessionKind,
    state: State,
    clock: Clock,
    /// The copies of sessions by the hash of the id, each with the time at which it ends.
    copies: Mutex<HashMap<Hash, (StoredSession, Instant)>>,
}

impl Sessions {
    /// Makes the sessions of one kind of pages, which `state` stores.
    #[must_use]
    pub fn new(kind: SessionKind, state: State, clock: Clock) -> Self {
        Self { kind, state, clock, copies: Mutex::default() }
    }

    /// Opens a session for `holder`: the name of an operator's token or of a team. `secret` is the hash of the holder's
    /// secret. Returns the session's id, 64 hex digits, which is the value of the cookie.
    ///
    /// # Errors
    /// Returns an error if state can't be written.
    pub async fn open(&self, holder: &str, secret: Hash) -> Result<String, StateError> {
        let id = hex::encode(keyring::random::<32>());
        self.state.open_session(self.kind, &id, (holder, masked(&id, &secret))).await?;
        Ok(id)
    }

    /// Returns the session with this id, and restarts its idle time. Returns `None` if there is no valid session.
    /// `standing` is a function of the holder's name and the hash of the secret that opened the session. The function
    /// returns the role or the key that belongs to the secret now. If it returns `None`, the secret is no longer valid,
    /// and the session ends.
    ///
    /// # Errors
    /// Returns an error if state can't be read, and this node has no recent copy of the session.
    pub async fn find<T>(
        &self,
        id: &str,
        standing: impl FnOnce(&str, &Hash) -> Option<T>,
    ) -> Result<Option<Session<T>>, StateError> {
        // The gateway makes no id of another length, so state is not asked.
        if id.len() != DIGITS {
            return Ok(None);
        }
        let Some(stored) = self.stored(id).await? else { return Ok(None) };
        let Some(standing) = standing(&stored.holder, &masked(id, &stored.secret)) else {
            // If this fails, the next request finds that the secret is gone.
            let _ = self.close(id).await;
            return Ok(None);
        };
        let csrf = hex::encode(derived(id, "order")).into();
        Ok(Some(Session { holder: stored.holder.into(), standing, csrf }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// Returns an error if state can't be written. Other nodes may still accept the session then.
    pub async fn close(&self, id: &str) -> Result<(), StateError> {
        self.copies.lock().remove(&derived(id, "copy"));
        self.state.close_session(self.kind, id).await
    }

    /// Returns the session in state; `None` if state has no such session. If state can't be read, returns this node's
    /// copy of the session, or an error if there is no copy.
    async fn stored(&self, id: &str) -> Result<Option<StoredSession>, StateError> {
        let name = derived(id, "copy");
        match self.state.session(self.kind, id).await {
            Ok(Some(stored)) => {
                self.keep(name, &stored);
                Ok(Some(stored))
            }
            Ok(None) => {
                self.copies.lock().remove(&name);
                Ok(None)
            }
            Err(error) => {
                let copies = self.copies.lock();
                let copy = copies.get(&name).filter(|(_, end)| *end > self.clock.now());
                copy.map(|(stored, _)| Some(stored.clone())).ok_or(error)
            }
        }
    }

    fn keep(&self, name: Hash, stored: &StoredSession) {
        let (now, mut copies) = (self.clock.now(), self.copies.lock());
        if copies.len() >= MOST_COPIES && !copies.contains_key(&name) {
            copies.retain(|_, (_, end)| *end > now);
            let first = copies.iter().min_by_key(|(_, (_, end))| *end).map(|(name, _)| *name);
            if let Some(first) = first.filter(|_| copies.len() >= MOST_COPIES) {
                copies.remove(&first);
            }
        }
        copies.insert(name, (stored.clone(), now + stored.left));
    }
}

/// Hides a secret's hash, or reveals a hidden hash, by XOR with 32 bytes that are derived from the session's id. State
/// does not contain the id. So a person with a copy of state can't guess a weak token.
fn masked(id: &str, secret: &Hash) -> Hash {
    let mask = derived(id, "secret");
    std::array::from_fn(|at| secret[at] ^ mask[at])
}

/// Returns bytes that are derived from an id for one purpose. They do not reveal the id.
fn derived(id: &str, purpose: &str) -> Hash {
    Sha256::digest([purpose, ":", id].concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{MOST_SESSIONS, fixtures};
    use std::time::Duration;

    const IDLE: Duration = Duration::from_secs(30 * 60);
    const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);

    fn sessions(clock: &Clock) -> Sessions {
        Sessions::new(SessionKind::Console, fixtures::in_memory(clock.clone()), clock.clone())
    }

    async fn find(sessions: &Sessions, id: &str, secret: u8) -> Result<Option<Session<&'static str>>, StateError> {
        sessions.find(id, |name, hash| (name == "ops" && *hash == [secret; 32]).then_some("operator")).await
    }

    async fn open(sessions: &Sessions) -> String {
        sessions.open("ops", [1; 32]).await.expect("a session")
    }

    #[tokio::test]
    async fn a_session_ends_when_it_is_idle_old_closed_or_its_secret_changed() {
        let clock = Clock::adjustable();
        let sessions = sessions(&clock);
        let changed = open(&sessions).await;
        let session = find(&sessions, &changed, 1).await.unwrap().expect("it is open");
        assert_eq!((&*session.holder, session.standing, session.csrf.len()), ("ops", "operator", 64));
        assert!(session.has_value(session.csrf.as_bytes()) && !session.has_value(b"") && !session.has_value(&[0; 64]));
        assert!(!session.has_value(changed.as_bytes()), "the value does not show the id");
        assert_eq!(find(&sessions, "another", 1).await, Ok(None));
        assert_eq!(find(&sessions, &changed, 2).await, Ok(None), "the secret was replaced");
        assert_eq!(find(&sessions, &changed, 1).await, Ok(None), "and the session is gone");

        let idle = open(&sessions).await;
        clock.advance(IDLE);
        assert_eq!(find(&sessions, &idle, 1).await, Ok(None));

        let old = open(&sessions).await;
        let step = Duration::from_secs(20 * 60);
        for time in 1..ABSOLUTE.as_secs() / step.as_secs() {
            clock.advance(step);
            assert!(find(&sessions, &old, 1).await.unwrap().is_some(), "after {time} times 20 minutes");
        }
        clock.advance(step);
        assert_eq!(find(&sessions, &old, 1).await, Ok(None));

        let closed = open(&sessions).await;
        sessions.close(&closed).await.unwrap();
        assert_eq!(find(&sessions, &closed, 1).await, Ok(None));
    }

    #[tokio::test]
    async fn the_number_of_sessions_has_a_bound() {
        let clock = Clock::adjustable();
        let sessions = sessions(&clock);
        let (first, other) = (open(&sessions).await, sessions.open("others", [1; 32]).await.unwrap());
        clock.advance(Duration::from_secs(1));
        let mut last = String::new();
        for _ in 0..MOST_SESSIONS {
            last = open(&sessions).await;
        }
        assert_eq!(find(&sessions, &first, 1).await, Ok(None), "the one that was idle the longest made room");
        assert!(find(&sessions, &last, 1).await.unwrap().is_some());
        assert!(sessions.find(&other, |_, _| Some(())).await.unwrap().is_some(), "that of another holder");
        let mut ids = vec![last];
        for at in 0..MOST_COPIES {
            if at.is_multiple_of(MOST_SESSIONS) {
                clock.advance(Duration::from_secs(1));
            }
            ids.push(sessions.open(&at.to_string(), [1; 32]).await.unwrap());
            sessions.find(&ids[at + 1], |_, _| Some(())).await.unwrap();
        }
        assert_eq!(sessions.copies.lock().len(), MOST_COPIES);
    }

    #[tokio::test]
    async fn while_state_is_out_a_session_that_was_read_lately_goes_on_until_its_end() {
        let clock = Clock::adjustable();
        let sessions = sessions(&clock);
        let (known, unknown, closed) = (open(&sessions).await, open(&sessions).await, open(&sessions).await);
        for read in [&known, &closed] {
            assert!(find(&sessions, read, 1).await.unwrap().is_some());
        }
        sessions.state.close().await;
        let out = Err(StateError::Unavailable);
        assert_eq!(sessions.open("ops", [1; 32]).await, Err(StateError::Unavailable));
        assert_eq!(find(&sessions, &unknown, 1).await, out);
        assert_eq!(sessions.close(&closed).await, Err(StateError::Unavailable));
        assert_eq!(find(&sessions, &closed, 1).await, out, "it has ended here");
        clock.advance(IDLE - Duration::from_secs(1));
        assert!(find(&sessions, &known, 1).await.unwrap().is_some());
        clock.advance(Duration::from_secs(1));
        assert_eq!(find(&sessions, &known, 1).await, out, "its idle time does not start again");
    }
}
