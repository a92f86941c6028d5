//! Sessions of the console: a browser that has shown a token once.
//!
//! Invariants: only hashes of session ids are kept; a session ends after half an hour without a request, after twelve hours in
//! all, and with the token that opened it. Their number has a bound: the session that was idle the longest makes room.

use crate::base::clock::Clock;
use crate::base::keyring;
use crate::config::Role;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest time between two requests of a session.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// The longest time of a session: a working day.
const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);
/// The most sessions at once: a large operations team, with several browsers each.
const MOST: usize = 1000;

/// SHA-256 of a secret.
type Hash = [u8; 32];

/// A session, as the page of a request sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Session {
    /// The name of the token that opened it.
    pub(in super::super) token: Arc<str>,
    /// The role of that token now.
    pub(in super::super) role: Role,
    /// The value that the page's orders carry.
    pub(in super::super) csrf: Arc<str>,
}

#[derive(Debug)]
struct Kept {
    token: Arc<str>,
    /// The token's own hash: a token that was replaced ends its sessions.
    secret: Hash,
    csrf: Arc<str>,
    opened: Instant,
    seen: Instant,
}

/// The sessions of this node.
#[derive(Debug)]
pub(in super::super) struct Sessions {
    kept: Mutex<HashMap<Hash, Kept>>,
    clock: Clock,
}

impl Sessions {
    /// Returns an empty set of sessions.
    pub(in super::super) fn new(clock: Clock) -> Self {
        Self { kept: Mutex::default(), clock }
    }

    /// Opens a session for the token of this name and hash. Returns the session's id: the cookie's value, 64 hex digits.
    pub(in super::super) fn open(&self, token: &Arc<str>, secret: Hash) -> String {
        let (id, now) = (random(), self.clock.now());
        let mut kept = self.kept.lock();
        kept.retain(|_, session| !session.is_over(now));
        if kept.len() >= MOST
            && let Some(oldest) = kept.iter().min_by_key(|(_, session)| session.seen).map(|(id, _)| *id)
        {
            kept.remove(&oldest);
        }
        let session = Kept { token: Arc::clone(token), secret, csrf: random().into(), opened: now, seen: now };
        kept.insert(hash(&id), session);
        id
    }

    /// Returns the session with this id, and restarts its idle time. `role_of` returns the role of the token with this name, if its
    /// secret still has this hash.
    pub(in super::super) fn find(
        &self,
        id: &str,
        role_of: impl FnOnce(&str, &Hash) -> Option<Role>,
    ) -> Option<Session> {
        let (id, now) = (hash(id), self.clock.now());
        let mut kept = self.kept.lock();
        let session = kept.get_mut(&id)?;
        let role = role_of(&session.token, &session.secret).filter(|_| !session.is_over(now));
        let Some(role) = role else {
            kept.remove(&id);
            return None;
        };
        session.seen = now;
        Some(Session { token: Arc::clone(&session.token), role, csrf: Arc::clone(&session.csrf) })
    }

    /// Ends a session.
    pub(in super::super) fn close(&self, id: &str) {
        self.kept.lock().remove(&hash(id));
    }
}

impl Kept {
    fn is_over(&self, now: Instant) -> bool {
        let since = |then| now.saturating_duration_since(then);
        since(self.seen) >= IDLE || since(self.opened) >= ABSOLUTE
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

/// Returns 256 random bits as hex digits.
fn random() -> String {
    keyring::random::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(sessions: &Sessions, id: &str, secret: u8) -> Option<Session> {
        sessions.find(id, |name, hash| (name == "ops" && *hash == [secret; 32]).then_some(Role::Operator))
    }

    #[test]
    fn a_session_ends_when_it_is_idle_old_closed_or_its_token_changed() {
        let clock = Clock::adjustable();
        let sessions = Sessions::new(clock.clone());
        let open = || sessions.open(&"ops".into(), [1; 32]);
        let changed = open();
        let session = find(&sessions, &changed, 1).expect("it is open");
        assert_eq!((&*session.token, session.role, session.csrf.len()), ("ops", Role::Operator, 64));
        assert_eq!(find(&sessions, "another", 1), None);
        assert_eq!(find(&sessions, &changed, 2), None, "the token was replaced");
        assert_eq!(find(&sessions, &changed, 1), None, "and the session is gone");

        let idle = open();
        clock.advance(IDLE);
        assert_eq!(find(&sessions, &idle, 1), None);

        let old = open();
        let step = Duration::from_secs(20 * 60);
        for time in 1..ABSOLUTE.as_secs() / step.as_secs() {
            clock.advance(step);
            assert!(find(&sessions, &old, 1).is_some(), "after {time} times 20 minutes");
        }
        clock.advance(step);
        assert_eq!(find(&sessions, &old, 1), None);

        let closed = open();
        sessions.close(&closed);
        assert_eq!(find(&sessions, &closed, 1), None);
    }

    #[test]
    fn the_number_of_sessions_has_a_bound() {
        let clock = Clock::adjustable();
        let sessions = Sessions::new(clock.clone());
        let first = sessions.open(&"ops".into(), [1; 32]);
        clock.advance(Duration::from_secs(1));
        for _ in 0..MOST {
            sessions.open(&"ops".into(), [1; 32]);
        }
        assert_eq!(sessions.kept.lock().len(), MOST);
        assert_eq!(find(&sessions, &first, 1), None, "the one that was idle the longest made room");
    }
}
