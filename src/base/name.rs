//! Names of teams and accounts, which appear in metric labels, keys and messages.
//!
//! Invariants: a name is 1 to 32 characters of `[a-z0-9-]`, so it is safe in a metric label, a log line, a URL segment
//! and before the `:` of a prefixed reference.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The error for a text that is not a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a name is 1 to 32 characters of a-z, 0-9 and -")]
pub struct NotAName;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The longest name, in characters.
            pub const LONGEST: usize = 32;

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                let fits = (1..=Self::LONGEST).contains(&text.len())
                    && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
                if fits { Ok(Self(text.into())) } else { Err(NotAName) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a team.
    TenantName
}
name! {
    /// The name of an account: an Iluma API key with its callback token.
    AccountName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_length_and_an_alphabet() {
        for good in ["a", "lending", "team-7", &"x".repeat(32)] {
            assert!(good.parse::<TenantName>().is_ok(), "{good}");
        }
        for bad in ["", "Lending", "a_b", "a:b", "é", &"x".repeat(33)] {
            assert_eq!(bad.parse::<TenantName>(), Err(NotAName), "{bad}");
        }
    }
}
