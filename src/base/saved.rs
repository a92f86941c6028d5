//! The reasons why a request needed no upstream call.
//!
//! The ledger counts the saved rupiah, and metrics count the requests.

/// The reason why a request needed no upstream call of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Saved {
    /// A stored answer served the request.
    Hit,
    /// An identical request in flight served the request.
    Collapsed,
    /// An identical request that is pending upstream served the request.
    Shared,
}

impl Saved {
    /// Every reason; `ALL[reason as usize] == reason`.
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
