//! Faults of a configuration.
//!
//! Invariant: a fault never contains a value that could be a secret, so values are not repeated, except for short
//! names.

use std::fmt;

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    key: String,
    problem: String,
}

impl Fault {
    /// Makes a fault. `key` is the path of the faulty key, or empty if the fault concerns the file as a whole.
    #[must_use]
    pub fn new(key: &str, problem: impl Into<String>) -> Self {
        Self { key: key.chars().take(MAX_SHOWN_PATH).collect(), problem: problem.into() }
    }

    /// Returns the path of the faulty key, such as `tenants.lending.account`. It is empty if the fault concerns the
    /// file as a whole.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the text of the fault, which also says how to correct it.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

/// All faults of a configuration, sorted by key path; never empty. `Display` writes each on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Sorts the faults and removes duplicates. An empty list would be a programming error, so it becomes one fault.
    #[must_use]
    pub fn new(mut faults: Vec<Fault>) -> Self {
        if faults.is_empty() {
            faults.push(Fault::new("", "the configuration could not be read"));
        }
        faults.sort();
        faults.dedup();
        Self(faults)
    }

    /// Returns the faults, sorted by key path.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The longest key path that is shown; names have at most 32 characters and the deepest path has four keys, so real
/// paths fit.
const MAX_SHOWN_PATH: usize = 200;
