//! A team's keys as the file has them: a hash, or a table with a hash, an expiry and a note.

use super::reader::Entry;
use super::secrets::hex32;
use super::settings::FileKey;
use crate::base::moment;
use std::collections::BTreeMap;
use std::time::SystemTime;
use toml::Value;

/// The longest note of a key, in characters.
const MAX_NOTE: usize = 200;

/// Reads one member of the list `key_sha256`. Returns `None` if it has a fault, which is recorded. `seen` maps the hash
/// of each key that was read before, of any team, to its path in the configuration. A hash that is in `seen` already is
/// a fault; a new one is added.
pub(super) fn file_key(entry: &Entry<'_>, seen: &mut BTreeMap<[u8; 32], String>) -> Option<FileKey> {
    if !entry.value().is_table() {
        return Some(FileKey { sha256: hash(entry, entry.path(), seen)?, expires: None, note: None });
    }
    let (sha256, expires, note) = (entry.part("sha256"), entry.part("expires"), entry.part("note"));
    if sha256.is_none() {
        entry.fault("has no sha256; give { sha256 = \"…\", expires = 2026-12-31, note = \"…\" }, or the hash alone");
    }
    let sha256 = sha256.and_then(|sha256| hash(&sha256, entry.path(), seen));
    let expires = expires.map(|expires| end(&expires));
    let note = note.map(|note| text(&note));
    Some(FileKey {
        sha256: sha256?,
        expires: expires.map_or(Some(None), |end| end.map(Some))?,
        note: note.map_or(Some(None), |note| note.map(Some))?,
    })
}

fn hash(entry: &Entry<'_>, path: &str, seen: &mut BTreeMap<[u8; 32], String>) -> Option<[u8; 32]> {
    let Some(hash) = hex32(entry.text()?) else {
        entry.fault("must be 64 hex digits: the SHA-256 of the key, not the key (iluma-gateway keygen prints both)");
        return None;
    };
    entry.show(format!("{}…", hex::encode(&hash[..4])));
    if let Some(other) = seen.get(&hash) {
        entry.fault(format!("is given twice; {other} is the same key, and a key belongs to one team"));
        return None;
    }
    seen.insert(hash, path.to_owned());
    Some(hash)
}

/// Reads the time at which a key expires: a date, which means its first moment in UTC, or a time with an offset. The
/// entry may be a TOML date or time, or a string.
fn end(entry: &Entry<'_>) -> Option<SystemTime> {
    let text = match entry.value() {
        // TOML allows a space between date and time, and lower case.
        Value::Datetime(time) => time.to_string(),
        Value::String(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_) => String::new(),
    };
    let time = moment::parse_or_date(&text);
    if time.is_none() {
        entry.fault("must be a date, such as 2026-12-31, or a time with an offset, such as 2026-12-31T18:00:00+07:00");
    }
    time
}

fn text(entry: &Entry<'_>) -> Option<String> {
    let text = entry.text()?.trim();
    if text.is_empty() || text.chars().count() > MAX_NOTE || text.chars().any(char::is_control) {
        entry.fault("must be one line of 1 to 200 characters");
        return None;
    }
    Some(text.to_owned())
}
