//! Sessions: browsers that have shown a secret once, a token or a team's key.
//!
//! Invariants: only hashes of session ids are kept; a session ends after half an hour without a request, after twelve hours in
//! all, and with the secret that opened it. Their number has a bound: the session that was idle the longest makes room.

use crate::base::clock::Clock;
use crate::base::keyring;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// The longest time between two requests of a session.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// The longest time of a session: a working day.
const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);
/// The most sessions at once: a large operations team, or every team, with several browsers each.
const MOST: usize = 1000;

/// SHA-256 of a secret.
type Hash = [u8; 32];

/// A session, as the page of a request sees it. `T` is the standing of its secret: a role, or a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session<T> {
    /// The name of the token or the team that opened it.
    pub holder: Arc<str>,
    /// The standing of the secret now.
    pub standing: T,
    /// The value that the page's orders carry.
    pub csrf: Arc<str>,
}

impl<T> Session<T> {
    /// Returns true if a form or a header has the session's value.
    #[must_use]
    pub fn has_value(&self, given: &[u8]) -> bool {
        given.ct_eq(self.csrf.as_bytes()).into()
    }
}

#[derive(Debug)]
struct Kept {
    holder: Arc<str>,
    /// The hash of the secret: a secret that was replaced ends its sessions.
    secret: Hash,
    csrf: Arc<str>,
    opened: Instant,
    seen: Instant,
}

/// The sessions of this node.
#[derive(Debug)]
pub struct Sessions {
    kept: Mutex<HashMap<Hash, Kept>>,
    clock: Clock,
}

impl Sessions {
    /// Returns an empty set of sessions.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { kept: Mutex::default(), clock }
    }

    /// Opens a session for the holder of the secret with this hash. Returns the session's id: the cookie's value, 64 hex digits.
    pub fn open(&self, holder: &str, secret: Hash) -> String {
        let (id, now) = (random(), self.clock.now());
        let mut kept = self.kept.lock();
        kept.retain(|_, session| !session.is_over(now));
        if kept.len() >= MOST
            && let Some(oldest) = kept.iter().min_by_key(|(_, session)| session.seen).map(|(id, _)| *id)
        {
            kept.remove(&oldest);
        }
        let session = Kept { holder: holder.into(), secret, csrf: random().into(), opened: now, seen: now };
        kept.insert(hash(&id), session);
        id
    }

    /// Returns the session with this id, and restarts its idle time. `standing` returns the standing of the holder with this name,
    /// if its secret still has this hash.
    pub fn find<T>(&self, id: &str, standing: impl FnOnce(&str, &Hash) -> Option<T>) -> Option<Session<T>> {
        let (id, now) = (hash(id), self.clock.now());
        let mut kept = self.kept.lock();
        let session = kept.get_mut(&id)?;
        let standing = if session.is_over(now) { None } else { standing(&session.holder, &session.secret) };
        let Some(standing) = standing else {
            kept.remove(&id);
            return None;
        };
        session.seen = now;
        Some(Session { holder: Arc::clone(&session.holder), standing, csrf: Arc::clone(&session.csrf) })
    }

    /// Ends a session.
    pub fn close(&self, id: &str) {
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

    fn find(sessions: &Sessions, id: &str, secret: u8) -> Option<Session<&'static str>> {
        sessions.find(id, |name, hash| (name == "ops" && *hash == [secret; 32]).then_some("operator"))
    }

    #[test]
    fn a_session_ends_when_it_is_idle_old_closed_or_its_secret_changed() {
        let clock = Clock::adjustable();
        let sessions = Sessions::new(clock.clone());
        let open = || sessions.open("ops", [1; 32]);
        let changed = open();
        let session = find(&sessions, &changed, 1).expect("it is open");
        assert_eq!((&*session.holder, session.standing, session.csrf.len()), ("ops", "operator", 64));
        assert!(session.has_value(session.csrf.as_bytes()) && !session.has_value(b"") && !session.has_value(&[0; 64]));
        assert_eq!(find(&sessions, "another", 1), None);
        assert_eq!(find(&sessions, &changed, 2), None, "the secret was replaced");
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
        let first = sessions.open("ops", [1; 32]);
        clock.advance(Duration::from_secs(1));
        for _ in 0..MOST {
            sessions.open("ops", [1; 32]);
        }
        assert_eq!(sessions.kept.lock().len(), MOST);
        assert_eq!(find(&sessions, &first, 1), None, "the one that was idle the longest made room");
    }
}
