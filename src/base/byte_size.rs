//! Amounts of bytes as people write them: `"256MiB"`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// Returns `n` kibibytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// Returns `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Returns the number of bytes as a `usize`; `usize::MAX` if it does not fit.
    #[must_use]
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The error for a text that is not an amount of bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a size is a whole number with a unit, such as \"256MiB\" (B, KiB, MiB, GiB)")]
pub struct NotASize;

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or(NotASize)?;
        let digits = text[..text.len() - unit.len()].trim_end();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotASize);
        }
        let count: u64 = digits.parse().map_err(|_| NotASize)?;
        count.checked_mul(*factor).map(Self).ok_or(NotASize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = fits.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_write_the_same() {
        for (text, bytes) in [("0B", 0), ("512B", 512), ("64KiB", 65536), ("256MiB", 256 << 20), ("3GiB", 3 << 30)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes);
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("1025B".parse::<ByteSize>().unwrap().to_string(), "1025B");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "12", "MiB", "-1MiB", "1.5MiB", "1MB", "99999999999999GiB", "1 0KiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(NotASize), "{text}");
        }
    }
}
