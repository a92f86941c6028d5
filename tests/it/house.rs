//! The architecture: which part may know which.
//!
//! Read from the source: every `crate::` path of a module, outside its tests. Whoever needs a new edge writes it down here,
//! where it is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and all that it may name, from the bottom up. `lib` declares modules and `main` starts `app`'s commands.
const EDGES: [(&str, &[&str]); 37] = [
    // The base: newtypes and tools that know nothing of the gateway.
    ("alarm", &[]),
    ("byte_size", &[]),
    ("clock", &[]),
    ("database", &[]),
    ("json", &[]),
    ("name", &[]),
    ("request_id", &[]),
    ("splice", &["json"]),
    ("tasks", &[]),
    ("trust", &[]),
    ("calendar", &[]),
    ("whole", &[]),
    ("config", &["byte_size", "calendar", "name"]),
    ("keygen", &["name"]),
    ("vault", &["config"]),
    ("link", &["config", "tasks", "vault"]),
    ("person", &["json", "vault"]),
    ("state", &["clock", "config", "database", "link", "name", "person", "vault"]),
    // The features, which never know each other.
    ("cache", &["byte_size", "clock", "config", "json", "link", "name", "person", "splice", "tasks", "vault"]),
    ("call", &["json", "name", "splice", "whole"]),
    (
        "callback",
        &[
            "clock",
            "config",
            "json",
            "name",
            "person",
            "request_id",
            "splice",
            "state",
            "tasks",
            "trust",
            "vault",
            "whole",
        ],
    ),
    ("ledger", &["calendar", "clock", "config", "database", "link", "name", "vault"]),
    ("limit", &["calendar", "clock", "config", "link", "name", "tasks", "vault"]),
    ("route", &["config", "name"]),
    ("telemetry", &["clock", "name"]),
    ("tenant", &["config", "name"]),
    ("upstream", &["alarm", "clock", "config", "tasks", "trust", "whole"]),
    // Errors of the features to HTTP.
    ("reply", &["call", "callback", "limit", "route", "tenant", "upstream"]),
    // The request path hands each feature its slice.
    (
        "gateway",
        &[
            "cache",
            "call",
            "callback",
            "clock",
            "config",
            "ledger",
            "limit",
            "link",
            "name",
            "person",
            "reply",
            "request_id",
            "route",
            "splice",
            "state",
            "tasks",
            "telemetry",
            "tenant",
            "upstream",
            "vault",
        ],
    ),
    ("admin", &["cache", "calendar", "config", "ledger", "name", "person", "request_id", "state", "telemetry"]),
    ("operator", &["config", "trust"]),
    ("server", &["alarm", "config", "tasks"]),
    // What wires parts together, and what uses the whole.
    (
        "app",
        &[
            "admin",
            "cache",
            "callback",
            "clock",
            "config",
            "database",
            "gateway",
            "ledger",
            "limit",
            "link",
            "person",
            "server",
            "state",
            "tasks",
            "telemetry",
        ],
    ),
    ("register", &["clock", "config", "name", "tasks", "upstream"]),
    ("report", &["calendar", "config", "ledger", "link", "tasks"]),
    ("demo", &["app", "clock", "config", "keygen", "name", "register", "simulator", "tasks"]),
    // Shares nothing with the gateway: a mistake in one must not hide in the other.
    ("simulator", &[]),
];

const FEATURES: [&str; 9] =
    ["cache", "call", "callback", "ledger", "limit", "route", "telemetry", "tenant", "upstream"];
const BASE: [&str; 17] = [
    "alarm",
    "byte_size",
    "calendar",
    "clock",
    "config",
    "database",
    "json",
    "link",
    "name",
    "request_id",
    "person",
    "splice",
    "state",
    "tasks",
    "trust",
    "vault",
    "whole",
];
const WHOLE: [&str; 4] = ["admin", "app", "gateway", "server"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The Rust files below a folder, with the module that each belongs to.
fn files() -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(source()).expect("inside");
                let first = inside.components().next().expect("a name").as_os_str().to_str().expect("text");
                files.push((first.trim_end_matches(".rs").to_owned(), path));
            }
        }
    }
    files
}

/// The code of a file without its comments and without what stands behind `#[cfg(test)]`, where tests are by the style.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a file");
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first names behind each `crate::` (or another root), in groups too.
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(firsts(group)),
            None => names.extend(first(rest)),
        }
    }
    names
}

fn first(path: &str) -> Option<String> {
    let name: String = path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of the paths in a group, which begins behind its brace.
fn firsts(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                names.extend(first(&group[start..at]));
                return names;
            }
            ',' if depth == 0 => {
                names.extend(first(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// Every module of the crate with what it names.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let mut edges = BTreeMap::<_, BTreeSet<_>>::new();
    for (module, path) in files() {
        let names = named(&code(&path), "crate::");
        edges.entry(module.clone()).or_default().extend(names.into_iter().filter(|name| *name != module));
    }
    edges.remove("lib");
    edges.remove("main");
    edges
}

#[test]
fn every_module_names_exactly_what_it_may() {
    let edges = edges();
    let allowed: BTreeMap<_, BTreeSet<_>> = EDGES
        .iter()
        .map(|(module, may)| ((*module).to_owned(), may.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    let mut faults = Vec::new();
    for (module, names) in &edges {
        let Some(may) = allowed.get(module) else {
            faults.push(format!("{module} has no place in the house yet"));
            continue;
        };
        faults.extend(names.difference(may).map(|name| format!("{module} names {name}, which it may not")));
        faults.extend(may.difference(names).map(|name| format!("{module} may name {name}, but does not: take it out")));
    }
    faults.extend(allowed.keys().filter(|module| !edges.contains_key(*module)).map(|module| format!("no {module}")));
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The rules behind the table, so that a careless entry there does not undo them.
#[test]
fn the_table_keeps_the_layers_apart() {
    for (module, may) in EDGES {
        for name in may {
            let about = format!("{module} -> {name}");
            assert!(*name != "simulator" || module == "demo", "{about}: only the demo has both");
            if FEATURES.contains(&module) {
                assert!(!FEATURES.contains(name), "{about}: features never know each other");
            }
            if BASE.contains(&module) {
                assert!(BASE.contains(name), "{about}: the base knows nothing above it");
            }
            if WHOLE.contains(name) {
                assert!(["app", "demo"].contains(&module), "{about}: only app and demo wire parts together");
            }
        }
    }
    let (_, simulator) = EDGES.iter().find(|(module, _)| *module == "simulator").expect("the simulator");
    assert!(simulator.is_empty());
    // Nothing goes round: from the bottom up each names only what stands before it.
    for (at, (module, may)) in EDGES.iter().enumerate() {
        for name in *may {
            let known = EDGES[..at].iter().any(|(before, _)| before == name);
            assert!(known || *name == "simulator", "{module} -> {name} goes up");
        }
    }
}

#[test]
fn the_simulator_shares_nothing_and_nobody_reaches_around() {
    for (module, path) in files() {
        let code = code(&path);
        let about = path.display();
        assert!(!code.contains("iluma_gateway::") || module == "main", "{about} goes through the library's own name");
        assert!(!code.contains("#[path"), "{about} has a module from elsewhere");
        assert!(!code.contains("include!("), "{about} includes code");
        // One `super` leads to the module itself, as many as there are folders to its root; more would leave it.
        let depth = path.strip_prefix(source()).expect("inside").components().count() - 1;
        assert!(!code.contains(&"super::".repeat(depth + 1)), "{about} leaves its module");
    }
}

#[test]
fn the_binary_is_thin() {
    let main = fs::read_to_string(source().join("main.rs")).expect("main.rs");
    let may = ["app", "config", "demo", "keygen", "operator", "register", "report", "simulator"].map(str::to_owned);
    let names = named(&main, "iluma_gateway::");
    assert!(names.iter().all(|name| may.contains(name)), "{names:?}");
    assert!(main.lines().count() < 200, "arguments, one command, an exit code");
    let lib = code(&source().join("lib.rs"));
    assert!(lib.lines().all(|line| line.trim().is_empty() || line.starts_with("pub mod ")), "lib.rs is the map alone");
}

#[test]
fn the_scanner_sees_what_it_should() {
    let code = "use crate::{a::{x, y}, b, c::z};\nlet _ = crate::d::e();\n$crate::not; subcrate::no; use crate::f;";
    assert_eq!(named(code, "crate::").into_iter().collect::<String>(), "abcdf");
}
