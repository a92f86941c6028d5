//! Sessions of people in a browser. A person opens one with a secret: an operator's token, or a team's key.
//!
//! Invariants: only keyed hashes of session ids are stored; a session ends half an hour after its last request, and
//! twelve hours after its first; a holder has at most [`MOST_SESSIONS`]: a further one replaces the one that ends
//! first.

use std::time::Duration;
use strum::IntoStaticStr;

/// The longest time between two requests of a session.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);

/// The longest time of a session: a working day.
pub(super) const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);

/// The largest number of sessions of one token or team at a time: a hundred people may share it.
pub const MOST_SESSIONS: usize = 100;

/// The stored name of a session.
pub(super) type SessionName = [u8; 32];

/// The pages that a session opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum SessionKind {
    /// The operators' console.
    Console,
    /// The team portal.
    Portal,
}

/// A session as state stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The name of the token or the team that opened it.
    pub holder: String,
    /// The 32 bytes that the caller derived from the holder's secret when the session was opened.
    pub secret: [u8; 32],
    /// The time until the session ends, if no request comes.
    pub left: Duration,
}

impl SessionKind {
    /// Returns the text that engines store for a holder with this name.
    pub(super) fn holder(self, name: &str) -> String {
        format!("{}:{name}", <&str>::from(self))
    }

    /// Returns the holder's name in such a text, if the text is of this kind.
    pub(super) fn holder_in(self, text: &str) -> Option<String> {
        Some(text.strip_prefix(<&str>::from(self))?.strip_prefix(':')?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_back_by_its_own_kind_alone() {
        let stored = SessionKind::Console.holder("ops");
        assert_eq!(SessionKind::Console.holder_in(&stored).as_deref(), Some("ops"));
        assert_eq!(SessionKind::Portal.holder_in(&stored), None);
        assert_eq!(SessionKind::Console.holder_in("console"), None);
    }
}
