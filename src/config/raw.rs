//! A strict reader over a TOML table: it reads with types and collects every fault instead of stopping at the first.
//!
//! Invariants: a getter that gives `None` for a key that stands in the file, or that has to, has noted a fault; a key
//! that no getter asked for is a fault; a fault never carries a value that could be a secret, so values are not
//! repeated at all but for short names.

use crate::base::byte_size::ByteSize;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::{Table, Value};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    key: String,
    problem: String,
}

impl Fault {
    /// `key` is a key path; empty where the file as a whole is meant.
    pub(super) fn new(key: &str, problem: impl Into<String>) -> Self {
        Self { key: key.chars().take(MAX_SHOWN_PATH).collect(), problem: problem.into() }
    }

    /// The path of the key, such as `tenants.lending.account`; empty where the file as a whole is meant.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong with it, and what would be right.
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

/// Everything that is wrong with a configuration, sorted by key path; never empty. Displayed one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Sorts the faults. None at all would be a mistake of ours, and is said to be one.
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        if faults.is_empty() {
            faults.push(Fault::new("", "the configuration could not be read"));
        }
        faults.sort();
        faults.dedup();
        Self(faults)
    }

    /// The faults, sorted by key path.
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

/// Parses TOML. A fault names line and column, and not the text there, which may be a secret.
pub(super) fn parse(text: &str) -> Result<Table, Fault> {
    text.parse::<Table>().map_err(|error| {
        let place = error.span().and_then(|span| text.get(..span.start)).map(|before| {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
            format!("line {line}, column {column}: ")
        });
        Fault::new("", format!("{}not valid TOML: {}", place.unwrap_or_default(), error.message()))
    })
}

/// What all sections of one configuration share: where secrets come from, and what was found out so far.
pub(super) struct Reader<'a> {
    base: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    notes: RefCell<Notes>,
}

#[derive(Default)]
struct Notes {
    faults: Vec<Fault>,
    /// The keys that each opened table may hold, by the table's path.
    known: BTreeMap<String, BTreeSet<String>>,
    /// Every key that was asked for, with `*` for a name and `[]` for a place in a list.
    asked: BTreeSet<String>,
    files: Vec<PathBuf>,
}

/// What reading left behind beside the values.
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) files: Vec<PathBuf>,
    /// Every key that was asked for, with `*` for a name and `[]` for a place in a list.
    #[cfg_attr(not(test), allow(dead_code, reason = "a test compares it with the file of defaults"))]
    pub(super) asked: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    /// Relative file paths start at `base`; `env` looks up environment variables.
    pub(super) fn new(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { base, env, notes: RefCell::default() }
    }

    /// The outermost table: what the operator wrote, over the defaults.
    pub(super) fn root<'r>(&'r self, own: &'r Table, defaults: &'r Table) -> Section<'r> {
        Section::open(self, KeyPath::default(), Some(own), Some(defaults))
    }

    /// Adds a fault for every key of `own` that nobody asked for, and hands over what was noted.
    pub(super) fn finish(self, own: &Table) -> Findings {
        let mut notes = self.notes.into_inner();
        unknown_keys(&notes.known, &KeyPath::default(), own, &mut notes.faults);
        Findings { faults: notes.faults, files: notes.files, asked: notes.asked }
    }

    fn fault(&self, path: &KeyPath, problem: impl Into<String>) {
        self.notes.borrow_mut().faults.push(Fault::new(&path.shown, problem));
    }
}

/// A table: the operator's laid over the one with the defaults.
pub(super) struct Section<'r> {
    reader: &'r Reader<'r>,
    path: KeyPath,
    own: Option<&'r Table>,
    defaults: Option<&'r Table>,
}

impl<'r> Section<'r> {
    fn open(reader: &'r Reader<'r>, path: KeyPath, own: Option<&'r Table>, defaults: Option<&'r Table>) -> Self {
        reader.notes.borrow_mut().known.entry(path.shown.clone()).or_default();
        Self { reader, path, own, defaults }
    }

    /// The value of a key that has a default.
    pub(super) fn get<T>(&self, key: &str, read: impl FnOnce(&Entry<'r>) -> Option<T>) -> Option<T> {
        self.must(key, "missing", read)
    }

    /// The value of a key that has none and has to be there; `missing` says what to give.
    pub(super) fn must<T>(&self, key: &str, missing: &str, read: impl FnOnce(&Entry<'r>) -> Option<T>) -> Option<T> {
        let entry = self.entry(key);
        if entry.is_none() {
            self.fault_at(key, missing);
        }
        entry.as_ref().and_then(read)
    }

    /// The value of a key that may be left out.
    pub(super) fn maybe<T>(&self, key: &str, read: impl FnOnce(&Entry<'r>) -> Option<T>) -> Option<T> {
        self.entry(key).as_ref().and_then(read)
    }

    /// A key that may be left out, before it is read.
    pub(super) fn entry(&self, key: &str) -> Option<Entry<'r>> {
        let path = self.path.join(key);
        self.knows(key);
        self.reader.notes.borrow_mut().asked.insert(path.pattern.clone());
        let value = self.own.and_then(|own| own.get(key)).or_else(|| self.defaults.and_then(|all| all.get(key)))?;
        Some(Entry { reader: self.reader, path, value })
    }

    /// A table in this one, its defaults merged key by key.
    pub(super) fn section(&self, key: &str) -> Section<'r> {
        let path = self.path.join(key);
        self.knows(key);
        self.reader.notes.borrow_mut().asked.insert(path.pattern.clone());
        let own = self.own.and_then(|own| own.get(key)).and_then(|value| {
            let table = value.as_table();
            if table.is_none() {
                self.reader.fault(&path, wrong_type("a table", value));
            }
            table
        });
        let defaults = self.defaults.and_then(|all| all.get(key)).and_then(Value::as_table);
        Section::open(self.reader, path, own, defaults)
    }

    /// The tables in this one whose names the operator chose. The defaults' table `"*"` serves each of them.
    pub(super) fn members(&self) -> Vec<(String, Section<'r>)> {
        let defaults = self.defaults.and_then(|all| all.get("*")).and_then(Value::as_table);
        self.named()
            .into_iter()
            .filter_map(|(name, entry)| {
                let own = entry.value.as_table();
                if own.is_none() {
                    entry.fault(wrong_type("a table", entry.value));
                }
                Some((name, Section::open(self.reader, entry.path, Some(own?), defaults)))
            })
            .collect()
    }

    /// The values in this table whose names the operator chose.
    pub(super) fn named(&self) -> Vec<(String, Entry<'r>)> {
        let own = self.own.into_iter().flatten();
        own.map(|(name, value)| {
            let path = self.path.member(name);
            self.knows(name);
            self.reader.notes.borrow_mut().asked.insert(path.pattern.clone());
            (name.clone(), Entry { reader: self.reader, path, value })
        })
        .collect()
    }

    /// A key that must not be there, for a reason the operator should know.
    pub(super) fn refuse(&self, key: &str, why: &str) {
        self.knows(key);
        if self.own.is_some_and(|own| own.contains_key(key)) {
            self.fault_at(key, why);
        }
    }

    /// Notes a fault of the table as a whole.
    pub(super) fn fault(&self, problem: impl Into<String>) {
        self.reader.fault(&self.path, problem);
    }

    /// Notes a fault of one key in it.
    pub(super) fn fault_at(&self, key: &str, problem: impl Into<String>) {
        self.reader.fault(&self.path.join(key), problem);
    }

    fn knows(&self, key: &str) {
        let mut notes = self.reader.notes.borrow_mut();
        notes.known.entry(self.path.shown.clone()).or_default().insert(key.to_owned());
    }
}

/// A value and where it stands.
pub(super) struct Entry<'r> {
    reader: &'r Reader<'r>,
    path: KeyPath,
    value: &'r Value,
}

impl<'r> Entry<'r> {
    /// Notes a fault of this value.
    pub(super) fn fault(&self, problem: impl Into<String>) {
        self.reader.fault(&self.path, problem);
    }

    /// The path as faults show it.
    pub(super) fn path(&self) -> &str {
        &self.path.shown
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&'r str> {
        self.typed("a string", self.value.as_str())
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        self.typed("true or false", self.value.as_bool())
    }

    /// A whole number in a range, of the type that the range has.
    pub(super) fn number<N>(&self, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let number = self.typed("a whole number", self.value.as_integer())?;
        let fits = N::try_from(number).ok().filter(|number| range.contains(number));
        if fits.is_none() {
            self.fault(format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        fits
    }

    /// How many of something, or how many a second.
    pub(super) fn count(&self) -> Option<u32> {
        self.number(1..=MAX_COUNT)
    }

    /// A time span in a range, such as `"1h 30m"`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Ok(duration) = humantime::parse_duration(self.text()?) else {
            self.fault("must be a time span with units, such as \"500ms\", \"30s\" or \"1h 30m\"");
            return None;
        };
        if !range.contains(&duration) {
            let [from, to] = [*range.start(), *range.end()].map(humantime::format_duration);
            self.fault(format!("must be from {from} to {to}"));
            return None;
        }
        Some(duration)
    }

    /// An amount of bytes in a range, such as `"256MiB"`.
    pub(super) fn size(&self, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        let size = self.parsed::<ByteSize>()?;
        if !range.contains(&size) {
            self.fault(format!("must be from {} to {}", range.start(), range.end()));
            return None;
        }
        Some(size)
    }

    /// An address and a port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let address = self.text()?.parse().ok();
        if address.is_none() {
            self.fault("must be an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"");
        }
        address
    }

    /// A URL of one of the schemes, with nothing secret in it.
    pub(super) fn url(&self, schemes: &[&str], parts: UrlParts) -> Option<http::Uri> {
        let text = self.text()?;
        match url(text, schemes, parts) {
            Ok(url) => Some(url),
            Err(problem) => {
                self.fault(problem);
                None
            }
        }
    }

    /// What the text stands for; the type says what is wrong with other texts.
    pub(super) fn parsed<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.text()?.parse().map_err(|error: T::Err| self.fault(error.to_string())).ok()
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.fault(format!("must be one of {}", known.join(", ")));
        }
        found
    }

    /// A list with so many members, all of them read, so that a fault of one hides no other.
    pub(super) fn each<T>(
        &self,
        length: RangeInclusive<usize>,
        mut read: impl FnMut(&Entry<'r>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = self.typed("a list", self.value.as_array())?;
        if !length.contains(&list.len()) {
            self.fault(format!("must have {} to {} members, has {}", length.start(), length.end(), list.len()));
            return None;
        }
        let mut members = Some(Vec::new());
        for (place, value) in list.iter().enumerate() {
            let member = read(&Entry { reader: self.reader, path: self.path.item(place), value });
            members = members.zip(member).map(|(mut members, member)| {
                members.push(member);
                members
            });
        }
        members
    }

    /// Whether it is a list at all.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// A table without defaults.
    pub(super) fn table(&self) -> Option<Section<'r>> {
        let own = self.typed("a table", self.value.as_table())?;
        Some(Section::open(self.reader, self.path.clone(), Some(own), None))
    }

    /// A file's path; a relative one starts at the configuration file's folder.
    pub(super) fn path_of_file(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() || text.contains('\0') {
            self.fault("must be the path of a file");
            return None;
        }
        Some(self.reader.base.join(text))
    }

    /// A file's content, which the fault does not show, nor the path, in case a secret was put in its place.
    pub(super) fn content(&self, limit: ByteSize) -> Option<Vec<u8>> {
        let path = self.path_of_file()?;
        let read = read_bounded(&path, limit);
        self.reader.notes.borrow_mut().files.push(path);
        match read {
            Ok(content) => Some(content),
            Err(problem) => {
                self.fault(format!(
                    "cannot read the file: {problem}; a relative path starts at the configuration file's folder"
                ));
                None
            }
        }
    }

    /// A secret: `{ env = "NAME" }` or `{ file = "PATH" }`.
    pub(super) fn secret(&self) -> Option<SecretString> {
        let Some(table) = self.value.as_table() else {
            self.fault(if self.value.is_str() {
                format!("a secret must not stand in the file; give {SECRET}")
            } else {
                format!("must be a secret, {SECRET}")
            });
            return None;
        };
        // The two keys are the shape of a secret, not settings of their own: nothing is added to `asked`.
        let section = Section::open(self.reader, self.path.clone(), Some(table), None);
        section.knows("env");
        section.knows("file");
        let inner = |key| table.get(key).map(|value| Entry { reader: self.reader, path: self.path.join(key), value });
        let secret = match (inner("env"), inner("file")) {
            (Some(name), None) => name.variable()?,
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

    /// A secret whose text has a bounded length and nothing but printable ASCII that is not in `without`.
    pub(super) fn token(&self, without: &str) -> Option<SecretString> {
        let secret = self.secret()?;
        let text = secret.expose_secret();
        if !TOKEN.contains(&text.len()) {
            self.fault(format!("the secret must have {} to {} characters", TOKEN.start(), TOKEN.end()));
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

    /// A secret of exactly 64 hex digits.
    pub(super) fn key(&self) -> Option<SecretBox<[u8; 32]>> {
        let secret = self.secret()?;
        let key = hex32(secret.expose_secret());
        if key.is_none() {
            self.fault("the secret must be exactly 64 hex digits (iluma-gateway keygen --secret makes one)");
        }
        key.map(|key| SecretBox::new(Box::new(key)))
    }

    fn variable(&self) -> Option<SecretString> {
        let name = self.text()?;
        // A secret put here by mistake must not be printed, so only what is plainly a variable's name is.
        let plain = !name.is_empty()
            && name.len() <= MAX_SHOWN_NAME
            && name.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        let value = if name.is_empty() || name.contains(['=', '\0']) { None } else { (self.reader.env)(name) };
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
        let content = self.content(MAX_SECRET_FILE)?;
        let Ok(mut text) = String::from_utf8(content) else {
            self.fault("the file is not UTF-8 text");
            return None;
        };
        // Editors and `kubectl` leave a line end that is no part of the secret.
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        Some(text.into())
    }

    fn typed<T>(&self, what: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.fault(wrong_type(what, self.value));
        }
        value
    }
}

/// What a URL may have after its authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlParts {
    /// Nothing.
    Authority,
    /// A path.
    Path,
    /// A path and a query.
    Query,
}

/// 32 bytes from 64 hex digits of either case.
pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The content of a regular file of at most `limit` bytes. A FIFO would block, and a device might never end.
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

/// The problem never repeats the text: user names, passwords and tokens stand in URLs.
fn url(text: &str, schemes: &[&str], parts: UrlParts) -> Result<http::Uri, String> {
    let shape = || format!("must be a URL with a host, beginning with {}", schemes.join(":// or ") + "://");
    // http::Uri drops a fragment silently.
    if text.len() > MAX_URL || text.contains('#') {
        return Err(format!("must be a URL of at most {MAX_URL} characters, without #"));
    }
    let url: http::Uri = text.parse().map_err(|_| shape())?;
    let authority = url.authority().ok_or_else(shape)?;
    if !url.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        return Err(shape());
    }
    if authority.as_str().contains('@') {
        return Err("must not have a user name or password in it".to_owned());
    }
    if authority.host().is_empty() || (authority.port_u16().is_none() && authority.as_str() != authority.host()) {
        return Err(shape());
    }
    if parts == UrlParts::Authority && (!matches!(url.path(), "" | "/") || url.query().is_some()) {
        return Err("must end after the host and port: no path, no query".to_owned());
    }
    if parts == UrlParts::Path && url.query().is_some() {
        return Err("must not have a query".to_owned());
    }
    Ok(url)
}

fn unknown_keys(known: &BTreeMap<String, BTreeSet<String>>, path: &KeyPath, table: &Table, faults: &mut Vec<Fault>) {
    // A table nobody opened stands where another type was wanted: its fault is noted.
    let Some(keys) = known.get(&path.shown) else { return };
    for (key, value) in table {
        let path = path.join(key);
        if !keys.contains(key) {
            faults.push(Fault::new(&path.shown, unknown_key(key, keys)));
            continue;
        }
        match value {
            Value::Table(table) => unknown_keys(known, &path, table, faults),
            Value::Array(list) => {
                for (place, table) in
                    list.iter().enumerate().filter_map(|(place, item)| Some((place, item.as_table()?)))
                {
                    unknown_keys(known, &path.item(place), table, faults);
                }
            }
            _ => {}
        }
    }
}

fn unknown_key(key: &str, known: &BTreeSet<String>) -> String {
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("unknown key; did you mean {near:?}?"),
        None => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            format!("unknown key; known here: {}", known.join(", "))
        }
    }
}

/// The candidate that few typing mistakes lead to, if there is one.
pub(super) fn nearest<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // More than a third of the letters wrong is another word, not a mistake.
    let most = (typed.chars().count() / 3).clamp(1, 3);
    if typed.len() > MAX_SHOWN_NAME {
        return None;
    }
    candidates
        .map(|known| (distance(typed, known), known))
        .filter(|(far, _)| *far <= most)
        .min()
        .map(|(_, known)| known)
}

/// Letters to insert, remove or replace to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (left, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[to.len()]
}

fn wrong_type(wanted: &str, value: &Value) -> String {
    let is = match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    };
    format!("must be {wanted}, is {is}")
}

/// Where a value stands: as faults show it, and with what the operator named replaced by `*`.
#[derive(Clone, Default)]
struct KeyPath {
    shown: String,
    pattern: String,
}

impl KeyPath {
    fn join(&self, key: &str) -> Self {
        self.with(key, key)
    }

    fn member(&self, name: &str) -> Self {
        self.with(name, "*")
    }

    fn item(&self, place: usize) -> Self {
        Self { shown: format!("{}[{place}]", self.shown), pattern: format!("{}[]", self.pattern) }
    }

    fn with(&self, key: &str, pattern: &str) -> Self {
        let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let key = if bare { key.to_owned() } else { format!("{key:?}") };
        let dot = if self.shown.is_empty() { "" } else { "." };
        Self { shown: format!("{}{dot}{key}", self.shown), pattern: format!("{}{dot}{pattern}", self.pattern) }
    }
}

const SECRET: &str = "{ env = \"NAME\" } or { file = \"PATH\" }";
/// Of a key path; names are 32 characters and the deepest path has four keys, so real ones fit.
const MAX_SHOWN_PATH: usize = 200;
/// Of a name that somebody typed.
const MAX_SHOWN_NAME: usize = 64;
/// What browsers and proxies agree to carry.
const MAX_URL: usize = 2048;
/// Secrets are hundreds of bytes; a larger file is the wrong file.
const MAX_SECRET_FILE: ByteSize = ByteSize::kib(16);
/// Beyond it something else is the limit: memory, the kernel's files.
const MAX_COUNT: u32 = 1_000_000;
/// Short tokens can be guessed, and cannot be told from other text when logs are scrubbed; long ones do not fit the
/// headers they travel in.
const TOKEN: RangeInclusive<usize> = 8..=512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_faults_have_a_place_and_no_text() {
        let fault = parse("[server]\nlisten = hunter2\n").unwrap_err();
        assert!(fault.to_string().starts_with("line 2, column 10: not valid TOML: "), "{fault}");
        assert!(!fault.to_string().contains("hunter2"));
        let fault = parse("[a]\n[a]\n").unwrap_err();
        assert!(fault.to_string().starts_with("line 2, column "), "{fault}");
    }

    #[test]
    fn the_nearest_key_is_few_letters_away() {
        let known = ["listen", "max_headers", "tls"];
        for (typed, near) in
            [("lisen", Some("listen")), ("max_header", Some("max_headers")), ("tsl", None), ("colour", None)]
        {
            assert_eq!(nearest(typed, known.into_iter()), near, "{typed}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn urls_have_a_scheme_a_host_and_only_allowed_parts() {
        for (text, parts) in [
            ("https://api.iluma.ai", UrlParts::Authority),
            ("http://127.0.0.1:9/", UrlParts::Authority),
            ("http://[::1]:80", UrlParts::Authority),
            ("https://a.example/b", UrlParts::Path),
            ("https://a.example/b?c=d", UrlParts::Query),
        ] {
            assert!(url(text, &["http", "https"], parts).is_ok(), "{text}");
        }
        for (text, parts) in [
            ("", UrlParts::Query),
            ("api.iluma.ai", UrlParts::Query),
            ("/path", UrlParts::Query),
            ("ftp://a.example", UrlParts::Query),
            ("https://", UrlParts::Query),
            ("https://:443", UrlParts::Query),
            ("https://a.example:99999", UrlParts::Query),
            ("https://user:word@a.example", UrlParts::Query),
            ("https://a.example#part", UrlParts::Query),
            ("https://a.example/?q", UrlParts::Path),
            ("https://a.example/v1", UrlParts::Authority),
        ] {
            assert!(url(text, &["http", "https"], parts).is_err(), "{text}");
        }
    }

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
