//! Sessions of people in a browser. A person opens a session with an operator's token or with a team's key.
//!
//! Invariants: only keyed hashes of session ids are stored; a session ends half an hour after its last request, and at
//! the latest twelve hours after it was opened; a holder has at most [`MOST_SESSIONS`] sessions: a further session
//! replaces the session that ends first.

use std::time::Duration;
use strum::IntoStaticStr;

/// The time after which a session without a further request ends.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);

/// The longest lifetime of a session, however often it is used: a working day.
pub(super) const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);

/// The largest number of sessions of one token or team at a time. A hundred people may share a token or a key.
pub const MOST_SESSIONS: usize = 100;

/// The stored name of a session: a keyed hash of its id.
pub(super) type SessionName = [u8; 32];

/// The kind of a session: the pages for which it is valid.
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
    /// The name of the token or the team that opened the session.
    pub holder: String,
    /// The 32 bytes that the caller derived from the holder's secret when the session was opened.
    pub secret: [u8; 32],
    /// The time until the session ends if no further request comes.
    pub left: Duration,
}

impl SessionKind {
    /// Returns the text that engines store for a holder with this name: the kind, a colon, and the name.
    pub(super) fn holder(self, name: &str) -> String {
        format!("{}:{name}", <&str>::from(self))
    }

    /// Returns the holder's name from a text that [`holder`](Self::holder) made; `None` if the text belongs to a
    /// session of another kind.
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
