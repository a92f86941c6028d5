//! Data invented from the input: the same request always gets the same answer, in every process.
//!
//! Invariants: no name of a real person or company stands in the lists.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Given names that nobody bears.
const GIVEN: [&str; 24] = [
    "ARUNIKA",
    "BAYUNDRA",
    "CAKRAWATI",
    "DEWANTARI",
    "ELOKSARI",
    "FIRANDYA",
    "GANTARI",
    "HARSAWAN",
    "INDRAYASA",
    "JENARIKA",
    "KALANDRA",
    "LINTANGSA",
    "MAHESWANA",
    "NILAMSARI",
    "OKTAVINDA",
    "PRAMESTA",
    "RAKASURYA",
    "SEKARLATI",
    "TIRTAWANGI",
    "UTAMINING",
    "WIDARASA",
    "YUDANTARA",
    "ZAMRUDIN",
    "ANGGARASA",
];

/// Surnames that nobody bears.
const SURNAMES: [&str; 24] = [
    "LENGKARASA",
    "MANGGALATI",
    "NUSAWIDARI",
    "PANDANWULAN",
    "QUINTARASA",
    "RANDUJATI",
    "SAMODRANI",
    "TALAGAWENING",
    "UMBULSARI",
    "WARINGINTAN",
    "DIYANKARA",
    "SIRAITAMA",
    "KEMUNINGTYAS",
    "BIMASENATA",
    "CENDANAWATI",
    "GUNTURBAYA",
    "HASTABUMI",
    "JALADRITAMA",
    "KARTIKAYU",
    "LAZUARDIN",
    "MERAKNINGSIH",
    "PUTRASEGARA",
    "SANGGABUANA",
    "WANAJATI",
];

/// A source of values that all depend on one input.
#[derive(Clone)]
pub(super) struct Seed([u8; 32]);

impl Seed {
    /// Makes a seed of texts. They are length-prefixed, so `("a", "bc")` and `("ab", "c")` differ.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash.finalize().into())
    }

    /// Returns a number below `bound`. `which` selects the bytes of the seed from which the number is made.
    pub(super) fn number(&self, which: usize, bound: u64) -> u64 {
        let mut eight = [0; 8];
        for (i, byte) in eight.iter_mut().enumerate() {
            *byte = self.0[(which * 5 + i) % 32];
        }
        u64::from_be_bytes(eight) % bound.max(1)
    }

    /// Returns `digits` decimal digits; the first one is not zero.
    pub(super) fn digits(&self, which: usize, digits: usize) -> String {
        let mut text: String = (0..digits).map(|i| char::from(b'0' + (self.number(which + i * 3, 10) as u8))).collect();
        if text.starts_with('0') {
            text.replace_range(..1, "3");
        }
        text
    }

    pub(super) fn pick<'a>(&self, which: usize, from: &[&'a str]) -> &'a str {
        usize::try_from(self.number(which, from.len() as u64)).ok().and_then(|i| from.get(i)).copied().unwrap_or("")
    }

    pub(super) fn given_name(&self) -> &'static str {
        self.pick(0, &GIVEN)
    }

    pub(super) fn surname(&self) -> &'static str {
        self.pick(1, &SURNAMES)
    }

    /// Returns an invented person's name, in capitals as banks write it.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.given_name(), self.surname())
    }

    /// Returns a UUID that is made of the seed. The same seed always has the same UUID.
    pub(super) fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// Returns the first `digits` hexadecimal digits of the seed.
    pub(super) fn hex(&self, digits: usize) -> String {
        let mut text = hex(&self.0);
        text.truncate(digits);
        text
    }
}

/// Returns bytes as lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// Returns a fresh id of 24 hexadecimal digits, the form of Iluma's older records.
pub(super) fn short_id() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(24);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_is_always_the_same_person() {
        assert_eq!(Seed::of(&["BCA", "1234567890"]).name(), Seed::of(&["BCA", "1234567890"]).name());
        assert_ne!(Seed::of(&["a", "bc"]).hex(64), Seed::of(&["ab", "c"]).hex(64));
        assert_eq!(Seed::of(&["x"]).digits(0, 16).len(), 16);
        assert_eq!(short_id().len(), 24);
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }
}
