//! Subjects of the answers that the cache stores.

/// The subject of a cached answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Subject {
    /// A bank account.
    Bank,
    /// One request about a bank account, by its id.
    BankGet,
    /// A person on watchlists.
    Cft,
    /// The list of bank codes.
    BankCodes,
    /// Iluma's health.
    Health,
}

impl Subject {
    /// Every subject; `ALL[subject as usize] == subject`.
    pub const ALL: [Self; 5] = [Self::Bank, Self::BankGet, Self::Cft, Self::BankCodes, Self::Health];

    /// Returns the name in Redis. It never changes, because nodes of neighbouring versions share one Redis.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::BankGet => "bank_get",
            Self::Cft => "cft",
            Self::BankCodes => "bank_codes",
            Self::Health => "health",
        }
    }
}
