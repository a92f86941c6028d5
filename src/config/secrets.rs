//! Secrets and files outside of the configuration file.
//!
//! Invariant: no fault shows a secret, or a text that may be a secret in the wrong place.

use super::nearest::MAX_SHOWN_NAME;
use super::reader::Entry;
use crate::base::byte_size::ByteSize;
use hex::FromHex as _;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

impl Entry<'_> {
    /// Reads the path of a file. A relative path starts at the configuration file's folder.
    pub(super) fn path_of_file(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() || text.contains('\0') {
            self.fault("must be the path of a file");
            return None;
        }
        let path = self.resolve(text);
        self.show(path.display().to_string());
        Some(path)
    }

    /// Reads the file that this value names, `limit` bytes at most. A fault shows the path that was tried, and never
    /// the file's content.
    pub(super) fn content(&self, limit: ByteSize) -> Option<Vec<u8>> {
        let path = self.path_of_file()?;
        let place = path.display().to_string();
        self.read(path, limit, &place)
    }

    fn read(&self, path: PathBuf, limit: ByteSize, place: &str) -> Option<Vec<u8>> {
        let read = read_bounded(&path, limit);
        self.depends_on(path);
        match read {
            Ok(content) => Some(content),
            Err(problem) => {
                self.fault(format!(
                    "cannot read {place}: {problem}; a relative path starts at the configuration file's folder"
                ));
                None
            }
        }
    }

    /// Reads a secret, which the configuration gives as `{ env = "NAME" }` or `{ file = "PATH" }`.
    pub(super) fn secret(&self) -> Option<SecretString> {
        if !self.value().is_table() {
            self.fault(if self.value().is_str() {
                format!("a secret must not stand in the file; give {SECRET}")
            } else {
                format!("must be a secret, {SECRET}")
            });
            return None;
        }
        self.show("(set)");
        let secret = match (self.part("env"), self.part("file")) {
            (Some(name), None) if self.skips_secrets() => self.placeholder(name.text()?),
            (None, Some(file)) if self.skips_secrets() => self.placeholder(file.text()?),
            (Some(name), None) => name.secret_variable()?,
            (None, Some(file)) => file.secret_file()?,
            _ => {
                self.fault(format!("must be exactly one of {SECRET}"));
                return None;
            }
        };
        if secret.expose_secret().is_empty() {
            self.fault("the secret is empty");
            return None;
        }
        Some(secret)
    }

    /// Returns a placeholder for a secret that is not read. It has 64 hex digits, so it is valid as a key and as a
    /// token, and it differs for each configuration key.
    fn placeholder(&self, named: &str) -> SecretString {
        hex::encode(Sha256::digest(format!("{} {named}", self.path()))).into()
    }

    /// Reads a secret of bounded length that consists of printable ASCII without the characters in `without`.
    pub(super) fn token(&self, without: &str) -> Option<SecretString> {
        self.secret_of(TOKEN, without)
    }

    /// Reads a token for the admin API.
    pub(super) fn admin_token(&self) -> Option<SecretString> {
        self.secret_of(ADMIN_TOKEN, "")
    }

    fn secret_of(&self, length: RangeInclusive<usize>, without: &str) -> Option<SecretString> {
        let secret = self.secret()?;
        let text = secret.expose_secret();
        if !length.contains(&text.len()) {
            self.fault(format!("the secret must have {} to {} characters", length.start(), length.end()));
            return None;
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && !without.as_bytes().contains(&b)) {
            let mut rule = "the secret must be printable ASCII without space".to_owned();
            for forbidden in without.chars() {
                rule.push_str(", ");
                rule.push(forbidden);
            }
            self.fault(rule);
            return None;
        }
        Some(secret)
    }

    /// Reads a secret of exactly 64 hex digits.
    pub(super) fn key(&self) -> Option<SecretBox<[u8; 32]>> {
        let secret = self.secret()?;
        let key = hex32(secret.expose_secret());
        if key.is_none() {
            self.fault("the secret must be exactly 64 hex digits (iluma-gateway keygen --secret makes one)");
        }
        key.map(|key| SecretBox::new(Box::new(key)))
    }

    fn secret_variable(&self) -> Option<SecretString> {
        let name = self.text()?;
        // A secret may be here by mistake, so the fault shows the name only if it is plainly a variable's.
        let plain = !name.is_empty()
            && name.len() <= MAX_SHOWN_NAME
            && name.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        let value = if name.is_empty() || name.contains(['=', '\0']) { None } else { self.variable(name) };
        if value.is_none() {
            self.fault(if plain {
                format!("the environment variable {name} is not set")
            } else {
                "the environment variable with this name is not set".to_owned()
            });
        }
        value.map(SecretString::from)
    }

    fn secret_file(&self) -> Option<SecretString> {
        let path = self.path_of_file()?;
        // A secret may be here by mistake, so the fault shows the path only if the text has a slash or a dot.
        let place = if self.text()?.contains(['/', '.']) {
            path.display().to_string()
        } else {
            format!("the file, in {}", self.resolve("").display())
        };
        let content = self.read(path, MAX_SECRET_FILE, place.trim_end_matches('/'))?;
        let Ok(mut text) = String::from_utf8(content) else {
            self.fault("the file is not UTF-8 text");
            return None;
        };
        // Editors and `kubectl` add a line end that is no part of the secret.
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        Some(text.into())
    }
}

/// Returns the 32 bytes of 64 hex digits in either case; `None` if the text is anything else.
pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    <[u8; 32]>::from_hex(text).ok()
}

/// Returns the content of a regular file of at most `limit` bytes. Other files are refused: a FIFO would block, and a
/// device might never end.
fn read_bounded(path: &Path, limit: ByteSize) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| error.kind().to_string();
    if !path.metadata().map_err(told)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut content = Vec::new();
    std::fs::File::open(path).map_err(told)?.take(limit.bytes() + 1).read_to_end(&mut content).map_err(told)?;
    if content.len() > limit.to_usize() {
        return Err(format!("larger than {limit}"));
    }
    Ok(content)
}

const SECRET: &str = "{ env = \"NAME\" } or { file = \"PATH\" }";
/// The largest file that may hold a secret. Secrets have hundreds of bytes, so a larger file is the wrong one.
const MAX_SECRET_FILE: ByteSize = ByteSize::kib(16);
/// The length of a token in characters. Shorter tokens can be guessed, and the scrubber of logs can't distinguish them
/// from other text. Longer tokens do not fit into headers.
const TOKEN: RangeInclusive<usize> = 8..=512;
/// The length of an admin token in characters. The minimum is higher than for other tokens: people choose this token,
/// and it gives access to every team's data.
const ADMIN_TOKEN: RangeInclusive<usize> = 16..=512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_exact() {
        assert_eq!(hex32(&"0aF".repeat(21)), None);
        assert_eq!(hex32(&"aB".repeat(32)), Some([0xab; 32]));
        assert_eq!(hex32(&"+1".repeat(32)), None);
        assert_eq!(hex32(&"é".repeat(32)), None);
    }

    #[test]
    fn secret_files_are_small_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, vec![b'x'; MAX_SECRET_FILE.to_usize() + 1]).unwrap();
        assert_eq!(read_bounded(&path, MAX_SECRET_FILE), Err("larger than 16KiB".to_owned()));
        assert_eq!(read_bounded(folder.path(), MAX_SECRET_FILE), Err("not a regular file".to_owned()));
        assert_eq!(read_bounded(&folder.path().join("none"), MAX_SECRET_FILE), Err("entity not found".to_owned()));
        std::fs::write(&path, b"x\n").unwrap();
        assert_eq!(read_bounded(&path, MAX_SECRET_FILE), Ok(b"x\n".to_vec()));
    }
}
