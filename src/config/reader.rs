//! A strict reader of a TOML table: it reads with types and collects all faults instead of stopping at the first.
//!
//! Invariants: a getter that returns `None` for a present or required key has recorded a fault; a key that no getter
//! requested is a fault.

use super::effective::{Shown, Step};
use super::fault::Fault;
use super::nearest::nearest;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::{Table, Value};

/// Parses TOML. A fault names line and column, but not the text there, which may be a secret.
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

/// The shared state of one configuration's sections: the sources of secrets, and the findings so far.
pub(super) struct Reader<'a> {
    base: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
    notes: RefCell<Notes>,
}

/// The treatment of secrets and certificates, which are kept outside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// Secrets and certificates are read.
    Read,
    /// Secrets and certificates are not read, and placeholders replace them. This is for a machine that must not have
    /// them.
    Skipped,
}

#[derive(Default)]
struct Notes {
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// The keys that each opened table may hold, by the table's path.
    known: BTreeMap<String, BTreeSet<String>>,
    /// The paths of all requested keys, with `*` for a name that the operator chose and `[]` for an index in a list.
    asked: BTreeSet<String>,
    files: Vec<PathBuf>,
    /// The values that `check` shows in place of the values in the file.
    shown: Vec<Shown>,
}

/// The findings of reading a whole configuration: faults, warnings, the files on which the configuration depends, and
/// the values that `check` shows.
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    pub(super) files: Vec<PathBuf>,
    /// The values that `check` shows in place of the values in the file.
    pub(super) shown: Vec<Shown>,
    /// The paths of all requested keys, with `*` for a name that the operator chose and `[]` for an index in a list.
    #[cfg_attr(not(test), allow(dead_code, reason = "a test compares it with the file of defaults"))]
    pub(super) asked: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    /// Makes a reader. Relative file paths start at `base`; `env` looks up environment variables.
    pub(super) fn new(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { base, env, secrets: Secrets::Read, notes: RefCell::default() }
    }

    /// Returns the reader with another treatment of secrets.
    pub(super) fn with(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Opens the outermost table: the operator's table, with the defaults for its missing keys.
    pub(super) fn root<'r>(&'r self, own: &'r Table, defaults: &'r Table) -> Section<'r> {
        Section::open(self, KeyPath::default(), Some(own), Some(defaults))
    }

    /// Adds a fault for every key of `own` that was not requested, and returns the findings.
    pub(super) fn finish(self, own: &Table) -> Findings {
        let mut notes = self.notes.into_inner();
        unknown_keys(&notes.known, &KeyPath::default(), own, &mut notes.faults);
        let Notes { faults, warnings, asked, files, shown, known: _ } = notes;
        Findings { faults, warnings, files, shown, asked }
    }

    fn fault(&self, path: &KeyPath, problem: impl Into<String>) {
        self.notes.borrow_mut().faults.push(Fault::new(&path.shown, problem));
    }

    fn show(&self, path: &KeyPath, value: Option<Value>) {
        self.notes.borrow_mut().shown.push((path.steps.clone(), value));
    }
}

/// A table of the operator's file, with the defaults for its missing keys.
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

    /// Reads the value of a key that has a default.
    pub(super) fn get<T>(&self, key: &str, read: impl FnOnce(&Entry<'r>) -> Option<T>) -> Option<T> {
        self.must(key, "missing", read)
    }

    /// Reads the value of a key that has a default and an old name, `before`. The old name still works, with a warning.
    pub(super) fn get_renamed<T>(
        &self,
        key: &str,
        before: &str,
        read: impl FnOnce(&Entry<'r>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.own.and_then(|own| own.get(before)) else { return self.get(key, read) };
        self.knows(before);
        if self.own.is_some_and(|own| own.contains_key(key)) {
            self.fault_at(before, format!("the old name of {key}, which is there too: leave this one out"));
            return self.get(key, read);
        }
        self.knows(key);
        let path = self.path.join(before);
        let mut notes = self.reader.notes.borrow_mut();
        notes.asked.insert(self.path.join(key).pattern);
        notes.warnings.push(Fault::new(&path.shown, format!("the old name of {key}: write {key} instead")));
        drop(notes);
        self.show(key, value.clone());
        self.reader.show(&path, None);
        read(&Entry { reader: self.reader, path, value })
    }

    /// Reads the value of a required key; `missing` is the text of the fault if the key is missing.
    pub(super) fn must<T>(&self, key: &str, missing: &str, read: impl FnOnce(&Entry<'r>) -> Option<T>) -> Option<T> {
        let entry = self.entry(key);
        if entry.is_none() {
            self.fault_at(key, missing);
        }
        entry.as_ref().and_then(read)
    }

    /// Reads the value of an optional key. Returns `None` if the key is missing, or after a fault.
    pub(super) fn maybe<T>(&self, key: &str, read: impl FnOnce(&Entry<'r>) -> Option<T>) -> Option<T> {
        self.entry(key).as_ref().and_then(read)
    }

    /// Returns the entry of an optional key without reading its value. Returns `None` if the key is missing.
    pub(super) fn entry(&self, key: &str) -> Option<Entry<'r>> {
        let path = self.path.join(key);
        self.knows(key);
        self.reader.notes.borrow_mut().asked.insert(path.pattern.clone());
        let value = self.own.and_then(|own| own.get(key)).or_else(|| self.defaults.and_then(|all| all.get(key)))?;
        Some(Entry { reader: self.reader, path, value })
    }

    /// Opens the table `key` in this table. Each key that the operator's table lacks has its default.
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

    /// Opens the tables in this table whose names the operator chose, and returns each with its name. The defaults of
    /// each of them are in the table `"*"` of the defaults.
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

    /// Returns the values in this table whose names the operator chose, each with its name.
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

    /// Records a fault if the operator gave a key that is not allowed here. `why` is the text of the fault.
    pub(super) fn refuse(&self, key: &str, why: &str) {
        self.knows(key);
        if self.own.is_some_and(|own| own.contains_key(key)) {
            self.fault_at(key, why);
        }
    }

    /// Returns true if secrets and certificates are not read.
    pub(super) fn skips_secrets(&self) -> bool {
        self.reader.secrets == Secrets::Skipped
    }

    /// Records a fault of the table as a whole.
    pub(super) fn fault(&self, problem: impl Into<String>) {
        self.reader.fault(&self.path, problem);
    }

    /// Records a fault of one key of the table.
    pub(super) fn fault_at(&self, key: &str, problem: impl Into<String>) {
        self.reader.fault(&self.path.join(key), problem);
    }

    /// Shows a computed value for a key among the effective settings.
    pub(super) fn show(&self, key: &str, value: impl Into<Value>) {
        self.reader.show(&self.path.join(key), Some(value.into()));
    }

    fn knows(&self, key: &str) {
        let mut notes = self.reader.notes.borrow_mut();
        notes.known.entry(self.path.shown.clone()).or_default().insert(key.to_owned());
    }
}

/// A value of the configuration, and its position.
pub(super) struct Entry<'r> {
    reader: &'r Reader<'r>,
    path: KeyPath,
    value: &'r Value,
}

impl<'r> Entry<'r> {
    /// Records a fault of this value.
    pub(super) fn fault(&self, problem: impl Into<String>) {
        self.reader.fault(&self.path, problem);
    }

    /// Shows another value in place of this one among the effective settings, such as `(set)` for a secret or the
    /// absolute path of a file.
    pub(super) fn show(&self, value: impl Into<Value>) {
        self.reader.show(&self.path, Some(value.into()));
    }

    /// Returns true if secrets and certificates are not read.
    pub(super) fn skips_secrets(&self) -> bool {
        self.reader.secrets == Secrets::Skipped
    }

    /// Returns the path that faults show.
    pub(super) fn path(&self) -> &str {
        &self.path.shown
    }

    /// Reads a string.
    pub(super) fn text(&self) -> Option<&'r str> {
        self.typed("a string", self.value.as_str())
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        self.typed("true or false", self.value.as_bool())
    }

    /// Reads a whole number in a range. The number has the type of the range's bounds.
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

    /// Reads a number of things, or a number per second, from 1 to [`MAX_COUNT`].
    pub(super) fn count(&self) -> Option<u32> {
        self.number(1..=MAX_COUNT)
    }

    /// Reads a string and parses it as `T`. The error of `T` becomes the text of the fault.
    pub(super) fn parsed<T>(&self) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.text()?.parse().map_err(|error: T::Err| self.fault(error.to_string())).ok()
    }

    /// Reads a string that must be one of `words`, and returns the value that belongs to this word.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.fault(format!("must be one of {}", known.join(", ")));
        }
        found
    }

    /// Reads a list whose length is in a range. All members are read, so that the fault of one member hides no other
    /// fault.
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

    /// Returns true if the value is a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Opens this value as a table without defaults.
    pub(super) fn table(&self) -> Option<Section<'r>> {
        let own = self.typed("a table", self.value.as_table())?;
        Some(Section::open(self.reader, self.path.clone(), Some(own), None))
    }

    fn typed<T>(&self, what: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.fault(wrong_type(what, self.value));
        }
        value
    }

    /// Returns the value as it is in the file.
    pub(super) fn value(&self) -> &'r Value {
        self.value
    }

    /// Returns the entry of a key inside this value, such as `env` of a secret. The key is a part of the value, and not
    /// a setting of its own. Returns `None` if the value is no table or has no such key.
    pub(super) fn part(&self, key: &str) -> Option<Entry<'r>> {
        let table = self.value.as_table()?;
        // The key is not added to `asked`.
        Section::open(self.reader, self.path.clone(), Some(table), None).knows(key);
        table.get(key).map(|value| Entry { reader: self.reader, path: self.path.join(key), value })
    }

    /// Returns the path that a text names. A relative path starts at the base folder.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.reader.base.join(path)
    }

    /// Records a file on which the configuration depends.
    pub(super) fn depends_on(&self, file: PathBuf) {
        self.reader.notes.borrow_mut().files.push(file);
    }

    /// Returns the value of an environment variable; `None` if it is not set.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.reader.env)(name)
    }
}

fn unknown_keys(known: &BTreeMap<String, BTreeSet<String>>, path: &KeyPath, table: &Table, faults: &mut Vec<Fault>) {
    // A table that was not opened is in the place of a value of another type, and this fault is recorded already.
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

/// The position of a value, in three forms: as steps; as faults show it; as a pattern, with `*` for a name that the
/// operator chose and `[]` for an index.
#[derive(Clone, Default)]
struct KeyPath {
    steps: Vec<Step>,
    shown: String,
    pattern: String,
}

impl KeyPath {
    fn join(&self, key: &str) -> Self {
        self.with(key, None)
    }

    fn member(&self, name: &str) -> Self {
        self.with(name, Some("*"))
    }

    fn item(&self, place: usize) -> Self {
        Self {
            steps: self.steps.iter().cloned().chain([Step::Item(place)]).collect(),
            shown: format!("{}[{place}]", self.shown),
            pattern: format!("{}[]", self.pattern),
        }
    }

    fn with(&self, key: &str, pattern: Option<&str>) -> Self {
        let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let spelt = if bare { key.to_owned() } else { format!("{key:?}") };
        let dot = if self.shown.is_empty() { "" } else { "." };
        Self {
            steps: self.steps.iter().cloned().chain([Step::Key(key.to_owned())]).collect(),
            shown: format!("{}{dot}{spelt}", self.shown),
            pattern: format!("{}{dot}{}", self.pattern, pattern.unwrap_or(key)),
        }
    }
}

/// The largest count. Beyond it, memory and the kernel's file handles are the limit.
const MAX_COUNT: u32 = 1_000_000;

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
}
