//! A hasher for keys that are uniformly distributed already.

use std::hash::{BuildHasherDefault, Hasher};

/// The builder of [`Uniform`] hashers.
pub type BuildUniform = BuildHasherDefault<Uniform>;

/// A hasher for keys that write one `u64`. It returns this number unchanged, because the number is a hash already.
#[derive(Debug, Default)]
pub struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys write one u64. Other input gets a hash too, of lower quality.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
