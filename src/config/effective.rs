//! The effective settings as TOML, without secrets.
//!
//! Invariants:
//! - Each key of the operator's file and of the defaults is shown, without work for the code that reads the key.
//! - Code that reads a secret shows `"(set)"` in place of the secret.
//! - Code that computes a value shows the computed value.
//! - A key that is not shown is not set.

use super::settings::Settings;
use std::fmt::{self, Display, Formatter};
use toml::{Table, Value};

/// A step from a table or a list to one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The key of a table.
    Key(String),
    /// The index in a list.
    Item(usize),
}

/// A path, and the value that is shown there instead of the value in the file; `None` hides the key.
pub(super) type Shown = (Vec<Step>, Option<Value>);

/// The name of a table in `default.toml`. Its keys are the defaults of every table whose name the operator chooses,
/// such as `[tenants.lending]`.
const ANY: &str = "*";

/// Returns the operator's table with the defaults for its missing keys. Each value in `shown` replaces the value at its
/// path.
pub(super) fn table(own: &Table, defaults: &Table, shown: Vec<Shown>) -> Table {
    let mut table = merged(Some(own), Some(defaults));
    for (path, value) in shown {
        place(&mut table, &path, value);
    }
    table
}

fn merged(own: Option<&Table>, defaults: Option<&Table>) -> Table {
    let member = |key: &str| defaults.and_then(|all| all.get(key).or_else(|| all.get(ANY))).and_then(Value::as_table);
    let own_value = |key: &str| own.and_then(|own| own.get(key));
    let keys = defaults.into_iter().flat_map(Table::keys).filter(|key| *key != ANY);
    let added = own.into_iter().flat_map(Table::keys).filter(|key| defaults.is_none_or(|all| !all.contains_key(*key)));
    let mut table = Table::new();
    for key in keys.chain(added) {
        let value = match (own_value(key), defaults.and_then(|all| all.get(key))) {
            (Some(Value::Table(own)), _) => Value::Table(merged(Some(own), member(key))),
            (Some(own), _) => own.clone(),
            (None, Some(Value::Table(defaults))) => Value::Table(merged(None, Some(defaults))),
            (None, Some(default)) => default.clone(),
            (None, None) => continue,
        };
        table.insert(key.clone(), value);
    }
    table
}

/// Puts a value at a path, or removes the key there if the value is `None`. A path that leads through a value without
/// members, such as `"(set)"`, changes nothing.
fn place(table: &mut Table, path: &[Step], value: Option<Value>) {
    let Some((Step::Key(key), rest)) = path.split_first() else { return };
    if rest.is_empty() {
        match value {
            Some(value) => drop(table.insert(key.clone(), value)),
            None => drop(table.remove(key)),
        }
        return;
    }
    let mut next = table.get_mut(key);
    let mut rest = rest;
    while let [Step::Item(index), others @ ..] = rest {
        next = next.and_then(|list| list.as_array_mut()).and_then(|list| list.get_mut(*index));
        rest = others;
    }
    match (next, rest.is_empty(), value) {
        (Some(next), true, Some(value)) => *next = value,
        (Some(Value::Table(table)), false, value) => place(table, rest, value),
        _ => {}
    }
}

impl Settings {
    /// Returns the settings as readable TOML, without secrets.
    #[must_use]
    pub fn describe(&self) -> Description<'_> {
        Description(&self.effective)
    }
}

/// The effective settings, which `Display` writes as TOML; see [`Settings::describe`].
#[derive(Debug, Clone, Copy)]
pub struct Description<'a>(&'a Table);

impl Display for Description<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(own: &str, defaults: &str, shown: Vec<Shown>) -> Table {
        table(&own.parse().unwrap(), &defaults.parse().unwrap(), shown)
    }

    #[test]
    fn the_operators_values_lie_over_the_defaults() {
        let defaults = "[a]\nx = 1\ny = 2\n[b.\"*\"]\nz = 3\n[b.\"*\".c]\nd = 4";
        let own = "[a]\ny = 5\n[b.mine]\nw = 6\n[e]\nlist = [1]";
        let expected = "[a]\nx = 1\ny = 5\n[b.mine]\nz = 3\nw = 6\n[b.mine.c]\nd = 4\n[e]\nlist = [1]";
        assert_eq!(effective(own, defaults, Vec::new()), expected.parse().unwrap());
    }

    #[test]
    fn a_shown_value_takes_the_place_of_a_secret_wherever_it_stands() {
        let key = |key: &str| Step::Key(key.to_owned());
        let set = || Some(Value::from("(set)"));
        let own = "token = { env = \"T\" }\nkeys = [{ id = \"a\", key = { env = \"K\" } }, { file = \"f\" }]\nold = 1";
        let shown = vec![
            (vec![key("token")], set()),
            (vec![key("keys"), Step::Item(0), key("key")], set()),
            (vec![key("keys"), Step::Item(1)], set()),
            (vec![key("token"), key("env")], set()),
            (vec![key("new")], Some(Value::from(1))),
            (vec![key("old")], None),
        ];
        let expected = "token = \"(set)\"\nkeys = [{ id = \"a\", key = \"(set)\" }, \"(set)\"]\nnew = 1";
        assert_eq!(effective(own, "", shown), expected.parse().unwrap());
    }
}
