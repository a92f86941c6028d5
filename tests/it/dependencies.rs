//! Tests that `deny.toml` has exactly the exceptions that are needed. An unneeded exception would hide a later fault.
//!
//! The test reads `Cargo.lock` and cargo's metadata, without the network.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::Path;
use std::process::Command;
use std::str::SplitWhitespace;

/// A package of the gateway as it is built for Linux.
struct Package {
    name: String,
    version: String,
    license: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deny() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml").parse().expect("TOML")
}

fn packages() -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(root());
    let output = cargo.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |of: &serde_json::Value| of.as_array().cloned().unwrap_or_default();
    let text = |of: &serde_json::Value| of.as_str().unwrap_or_default().to_owned();
    let used: BTreeSet<String> = list(&metadata["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
    let packages = list(&metadata["packages"]).into_iter().filter(|package| used.contains(&text(&package["id"])));
    let package = |package: serde_json::Value| Package {
        name: text(&package["name"]),
        version: text(&package["version"]),
        license: text(&package["license"]),
    };
    packages.map(package).collect()
}

/// Returns the names of licences in an expression.
fn licenses(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '/'));
    words.filter(|word| !["", "AND", "OR", "WITH"].contains(word)).collect()
}

/// Returns true if the licences in `allowed` satisfy an SPDX expression: one side of each OR, both sides of each AND.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    any(&mut spaced.split_whitespace().peekable(), allowed)
}

type Words<'a> = Peekable<SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut so = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        so |= all(words, allowed);
    }
    so
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut so = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        so &= one(words, allowed);
    }
    so
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    match words.next() {
        Some("(") => {
            let so = any(words, allowed);
            words.next();
            so
        }
        Some(license) => {
            // An exception (WITH) only adds permissions to a licence.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            allowed.contains(license)
        }
        None => false,
    }
}

fn strings(list: &toml::Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(toml::Value::as_str).collect()
}

#[test]
fn every_licence_that_is_allowed_is_some_crates() {
    let (deny, packages) = (deny(), packages());
    let found: BTreeSet<&str> = packages.iter().flat_map(|package| licenses(&package.license)).collect();
    let unused: Vec<_> =
        strings(&deny["licenses"]["allow"]).into_iter().filter(|license| !found.contains(license)).collect();
    assert!(unused.is_empty(), "deny.toml: take these out of licenses.allow, no crate has them: {unused:?}");
}

#[test]
fn every_exception_for_a_licence_is_needed_and_none_is_missing() {
    let (deny, packages) = (deny(), packages());
    let allowed: BTreeSet<&str> = strings(&deny["licenses"]["allow"]).into_iter().collect();
    let exceptions = deny["licenses"].get("exceptions").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let excepted: BTreeSet<&str> = exceptions.iter().filter_map(|exception| exception["crate"].as_str()).collect();
    let needed: BTreeSet<&str> = packages
        .iter()
        .filter(|package| !is_allowed(&package.license, &allowed))
        .map(|package| package.name.as_str())
        .collect();
    let stale: Vec<_> = excepted.difference(&needed).collect();
    assert!(stale.is_empty(), "deny.toml: take these out of licenses.exceptions, they are not needed: {stale:?}");
    let missing: Vec<_> = needed.difference(&excepted).collect();
    assert!(missing.is_empty(), "the licences of these crates are not allowed by deny.toml: {missing:?}");
}

#[test]
fn every_duplicate_that_is_let_through_is_one() {
    let (deny, packages) = (deny(), packages());
    let skips = deny["bans"].get("skip").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    for skip in &skips {
        let spec = skip["crate"].as_str().expect("a crate");
        let (name, version) = spec.split_once('@').unwrap_or((spec, ""));
        let versions: BTreeSet<&str> =
            packages.iter().filter(|package| package.name == name).map(|package| package.version.as_str()).collect();
        let is_there = versions.iter().any(|known| *known == version || known.starts_with(&format!("{version}.")));
        assert!(is_there && versions.len() > 1, "deny.toml: take {spec} out of bans.skip, there is {versions:?}");
    }
}

#[test]
fn licence_expressions_are_read_as_cargo_deny_does() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "ISC", "BSD-3-Clause"]);
    for (expression, expected) in [
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (Apache-2.0 OR GPL-3.0)", true),
        ("ISC AND (GPL-2.0 OR GPL-3.0) AND MIT", false),
        ("(Apache-2.0 OR MIT) AND BSD-3-Clause", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("BSL-1.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
