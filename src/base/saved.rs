//! The reasons why a request needed no call to Iluma.
//!
//! The ledger counts the rupiah that these requests saved, and metrics count the requests.

/// The reason why a request needed no call of its own to Iluma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Saved {
    /// A stored answer served the request.
    Hit,
    /// The request got the answer to an identical request, for which it waited.
    Collapsed,
    /// The request got the "pending" answer of an identical request that Iluma has not finished.
    Shared,
}

impl Saved {
    /// All reasons. The index of a reason is its number: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 3] = [Self::Hit, Self::Collapsed, Self::Shared];

    /// Returns the name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Collapsed => "collapsed",
            Self::Shared => "shared",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_at_its_place() {
        for (place, reason) in Saved::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.as_str());
        }
    }
}
