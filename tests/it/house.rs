//! The house rules: the imports that each part may have, and the language of comments and messages.
//!
//! Imports are read from the source: every `crate::`, `super::` and child path of a file, outside its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The parts from the bottom up. A part imports parts of lower layers only: never its own layer, never a higher one.
const LAYERS: [&[&str]; 10] = [
    // Tools with no opinion about Iluma.
    &["base"],
    // Everything about Iluma.
    &["iluma"],
    &["config"],
    &["redis"],
    &["state"],
    // The features, which never import each other; `gateway` passes each its data.
    &["cache", "callback", "ledger", "limit", "pages", "reference", "server", "telemetry", "tenant", "upstream"],
    // Every feature's refusal, as HTTP.
    &["reply"],
    &["admin", "gateway"],
    // Wires the parts together.
    &["app"],
    &["cli"],
];

/// Parts whose files may import each other in circles. The list must stay empty.
const PARTS_WITH_CIRCLES: &[&str] = &[];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn simulator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("simulator/src")
}

/// Returns the code of each module of a crate, by its path (`cache::redis`), without comments and tests.
fn modules(source: &Path) -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(source).expect("inside").with_extension("");
                let name = inside.to_str().expect("text").replace('/', "::");
                modules.insert(name, code(&fs::read_to_string(&path).expect("a file")));
            }
        }
    }
    modules
}

/// Returns a file's code without comments and tests. By the project's style, the tests begin at `#[cfg(test)]` and end
/// the file.
fn code(text: &str) -> String {
    // An indented `#[cfg(test)]` does not count: it belongs to a method for tests in the middle of the code.
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Returns every path that begins with `root` in `code`, groups spelled out: `crate::a::{b, c::d}` is `a::b` and
/// `a::c::d`.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')) {
            continue;
        }
        expand("", &code[at + root.len()..], &mut found);
    }
    found
}

/// Reads the path or group at the beginning of `rest`, and adds each path with `prefix` to `found`. Returns the text
/// after it.
fn expand<'a>(prefix: &str, rest: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let mut rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        rest = group;
        loop {
            rest = expand(prefix, rest, found).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                _ => return rest.trim_start_matches([',', ' ', '\n']).strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match after.strip_prefix("::") {
        Some(more) if !name.is_empty() => expand(&path, more, found),
        _ => {
            found.insert(path);
            after
        }
    }
}

/// Returns the modules that each module of a crate imports.
fn imports(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules(source);
    let mut imports = BTreeMap::new();
    for (module, code) in &modules {
        let mut names = paths(code, "crate::");
        let parents: Vec<&str> = module.split("::").collect();
        for up in 1..=parents.len() {
            let root = format!("{}::", vec!["super"; up].join("::"));
            let parent = parents[..parents.len() - up].join("::");
            let from_there = paths(code, &root).into_iter().filter(|path| !path.starts_with("super"));
            names.extend(from_there.map(|path| if parent.is_empty() { path } else { format!("{parent}::{path}") }));
        }
        // A parent imports a child if it uses the child's items.
        for child in modules.keys().filter_map(|other| other.strip_prefix(&format!("{module}::"))) {
            if !child.contains("::") && !paths(code, &format!("{child}::")).is_empty() {
                names.insert(format!("{module}::{child}"));
            }
        }
        let files = names.iter().filter_map(|name| {
            let parts: Vec<&str> = name.split("::").collect();
            (1..=parts.len()).rev().map(|length| parts[..length].join("::")).find(|name| modules.contains_key(name))
        });
        let files: BTreeSet<String> = files.filter(|file| file != module && file != "lib").collect();
        imports.insert(module.clone(), files);
    }
    imports
}

fn part(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

#[test]
fn a_part_imports_only_parts_below_it() {
    let layer = |part: &str| LAYERS.iter().position(|parts| parts.contains(&part));
    let mut faults = Vec::new();
    for (module, names) in imports(&source()) {
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(own) = layer(part(&module)) else {
            faults.push(format!("{module} is in no layer: give its part a place in LAYERS"));
            continue;
        };
        for name in names.iter().filter(|name| part(name) != part(&module)) {
            if layer(part(name)).is_none_or(|other| other >= own) {
                faults.push(format!("{module} imports {name}, which is not below it"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let (of_simulator, of_gateway) = (imports(&simulator()), imports(&source()));
    assert_eq!(circles(&of_simulator), BTreeSet::new(), "of the simulator");
    let circles = circles(&of_gateway);
    let parts: BTreeSet<&str> = circles.iter().flatten().map(|module| part(module)).collect();
    let known = BTreeSet::from_iter(PARTS_WITH_CIRCLES.iter().copied());
    assert_eq!(parts, known, "files import each other in a circle (or no more: shorten the list): {circles:#?}");
}

/// Returns the sets of modules that reach each other by imports.
fn circles(imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|module| (module.as_str(), reached(imports, module))).collect();
    let mut circles = BTreeSet::new();
    for (module, others) in &reached {
        let back = |other: &&&str| reached.get(**other).is_some_and(|reached| reached.contains(module));
        let circle: BTreeSet<&str> = others.iter().filter(back).copied().collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles
}

/// Returns the modules to which a chain of imports leads from the module `from`.
fn reached<'a>(imports: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let (mut seen, mut waiting) = (BTreeSet::new(), Vec::from_iter(imports.get_key_value(from)));
    while let Some((_, names)) = waiting.pop() {
        for name in names {
            if seen.insert(name.as_str()) {
                waiting.extend(imports.get_key_value(name));
            }
        }
    }
    seen
}

/// Texts that only files in `src/redis` may contain: Lua, the names of keys, and the label by which they derive from
/// the root key.
const ONLY_REDIS_SPELLS: [&str; 9] = [
    "redis.call",
    "redis.pcall",
    "KEYS[",
    "ARGV[",
    "Script::new",
    ".lua\"",
    "{iluma-gateway:",
    "\"iluma-gateway:",
    "namespace v",
];

#[test]
fn lua_and_the_names_of_keys_stand_in_the_redis_part_alone() {
    let mut faults = Vec::new();
    for (module, code) in modules(&source()) {
        if part(&module) != "redis" {
            let spelled = ONLY_REDIS_SPELLS.iter().filter(|text| code.contains(**text));
            faults.extend(spelled.map(|text| format!("{module} spells {text}: use src/redis/keys.rs or scripts.rs")));
        }
    }
    let loader = fs::read_to_string(source().join("redis/scripts.rs")).expect("the loader of scripts");
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(source()).expect("inside").to_str().expect("text").to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "lua") {
                match name.strip_prefix("redis/scripts/") {
                    None => faults.push(format!("{name} is not below redis/scripts")),
                    Some(script) if !loader.contains(&format!("\"{script}\"")) => {
                        faults.push(format!("{name} is loaded by nothing in redis/scripts.rs"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_simulator_shares_no_code_with_the_gateway() {
    let manifest = fs::read_to_string(source().join("../simulator/Cargo.toml")).expect("the simulator's manifest");
    assert!(!manifest.contains("iluma-gateway"), "the simulator depends on the gateway");
    for (module, code) in modules(&source()) {
        let may = part(&module) == "cli" || module == "main";
        assert!(may || !code.contains("iluma_simulator"), "{module} uses the simulator: only commands do");
        assert!(!code.contains("#[path"), "{module} has a module from elsewhere");
        assert!(!code.contains("include!("), "{module} includes code");
    }
}

#[test]
fn locks_are_parking_lots() {
    for (module, code) in modules(&source()) {
        let locks = ["sync::Mutex", "sync::MutexGuard", "sync::RwLock", "sync::PoisonError"];
        let found: Vec<_> = paths(&code, "std::").into_iter().filter(|path| locks.contains(&path.as_str())).collect();
        assert!(found.is_empty(), "{module} has {found:?}: parking_lot's locks have no poison to handle");
    }
}

#[test]
fn the_binary_is_thin() {
    let main = fs::read_to_string(source().join("main.rs")).expect("main.rs");
    assert!(main.lines().count() < 200, "arguments, one command, an exit code");
    let lib = code(&fs::read_to_string(source().join("lib.rs")).expect("lib.rs"));
    assert!(
        lib.lines().all(|line| line.trim().is_empty() || line.starts_with("pub mod ")),
        "lib.rs has nothing but modules"
    );
}

/// Words with which no paragraph of a doc comment may begin. A sentence with such a beginning does not say at once what
/// the thing is.
const INTERROGATIVES: [&str; 15] =
    ["What", "Who", "Whom", "Whose", "Why", "How", "Which", "Where", "When", "Whether", "As", "Of", "By", "If", "That"];

/// Turns of phrase that readers have to decode, in lower case. Say who does what, in the field's terms.
const BANNED_TURNS: [&str; 39] = [
    "left alone",
    "can't be told",
    "cannot be told",
    "of before",
    "whose hands",
    "in the hands of",
    "somebody's hands",
    "looks at results",
    "is told at least",
    "goes on leading",
    "just now",
    "anew",
    "once more",
    "asks too much",
    "comes to own",
    "goes over to",
    "takes note",
    "looked for",
    "looked through",
    "tells nothing",
    "says nothing of",
    "so long as",
    "whoever",
    "somebody",
    "but for",
    "all but",
    "under way",
    "wholly",
    "stands twice",
    "stand twice",
    "gives way",
    "one of ours",
    "what becomes of",
    "what became of",
    "what is to be",
    "no matter here",
    "in its place by now",
    "sealed reference",
    "seal ",
];

/// Returns every line of the project's files with these extensions: the file, the line's number from 1 on, and the
/// text. The lines are sorted by file and number.
fn written(extensions: &[&str]) -> Vec<(String, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = ["src", "simulator/src", "simulator/tests", "tests"].map(|name| root.join(name)).to_vec();
    let mut lines = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
                let name = path.strip_prefix(root).expect("inside").to_str().expect("text").to_owned();
                let text = fs::read_to_string(&path).expect("a file");
                lines.extend(text.lines().enumerate().map(|(at, line)| (name.clone(), at + 1, line.to_owned())));
            }
        }
    }
    lines.sort();
    lines
}

/// Returns the text of a line of a doc comment; `None` for any other line.
fn doc(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim)
}

#[test]
fn a_doc_comment_says_what_the_thing_is() {
    let mut faults = Vec::new();
    let mut before = String::new();
    for (file, at, line) in written(&["rs"]) {
        let begins = doc(&before).is_none_or(str::is_empty);
        let first = doc(&line).and_then(|text| text.split_whitespace().next());
        if let Some(word) = first.filter(|word| begins && INTERROGATIVES.contains(word)) {
            faults.push(format!("{file}:{at} begins with {word:?}: begin with a verb or a noun, such as \"Returns\""));
        }
        before = line;
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Checks that the first line of a file is a whole sentence, because ARCHITECTURE.md lists files by their first lines.
#[test]
fn the_first_line_of_a_file_says_what_it_is_for() {
    let lines = written(&["rs"]);
    let first = lines.iter().filter(|(file, at, _)| *at == 1 && file.starts_with("src/"));
    let is_whole = |line: &str| line.starts_with("//! ") && line.ends_with(['.', ':', ';']);
    let faults: Vec<_> = first.filter(|(_, _, line)| !is_whole(line)).map(|(file, ..)| file).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Checks that a file has less than 500 lines before its tests.
#[test]
fn files_are_short() {
    let mut lengths: BTreeMap<String, usize> = BTreeMap::new();
    let mut tests = BTreeSet::new();
    for (file, _, line) in written(&["rs"]).into_iter().filter(|(file, ..)| file.contains("src/")) {
        if line == "#[cfg(test)]" {
            tests.insert(file.clone());
        }
        if !tests.contains(&file) {
            *lengths.entry(file).or_default() += 1;
        }
    }
    lengths.retain(|_, lines| *lines >= 500);
    assert!(lengths.is_empty(), "{lengths:#?}");
}

#[test]
fn a_section_about_errors_says_what_is_returned() {
    let mut faults = Vec::new();
    let mut begins = false;
    for (file, at, line) in written(&["rs"]) {
        let text = doc(&line).unwrap_or_default();
        if begins && !text.is_empty() && !text.starts_with("Returns ") {
            faults.push(format!("{file}:{at}: begin with \"Returns an error if\""));
        }
        begins = text == "# Errors";
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn comments_and_messages_are_plain() {
    let mut faults = Vec::new();
    for (file, at, line) in written(&["rs", "lua"]) {
        if file == "tests/it/house.rs" {
            continue;
        }
        let text = prose(&line).to_lowercase();
        let found = BANNED_TURNS.iter().filter(|turn| text.contains(**turn));
        faults.extend(found.map(|turn| format!("{file}:{at} has {turn:?}: say it in the field's terms")));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Returns the comment and the strings of a line, or the whole line if it continues a string.
fn prose(line: &str) -> String {
    let comment =
        line.find("// ").or_else(|| line.find("/// ")).or_else(|| line.find("//! ")).or_else(|| line.find("-- "));
    let (code, comment) = line.split_at(comment.unwrap_or(line.len()));
    let strings: String = code.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ");
    let continues = line.trim_end().ends_with('\\') || !code.contains(['(', ')', '{', '}', ';', '=']);
    if continues { line.to_owned() } else { format!("{strings} {comment}") }
}

#[test]
fn the_scanner_sees_what_it_should() {
    let code = "use crate::{a::{x, y}, b, c::z};\nlet _ = crate::d::e();\n$crate::not; subcrate::no; use crate::f;";
    let expected = ["a::x", "a::y", "b", "c::z", "d::e", "f"].map(str::to_owned);
    assert_eq!(paths(code, "crate::"), BTreeSet::from(expected));
}

#[test]
fn the_image_is_built_on_named_bases_and_runs_without_root_and_shell() {
    let file = fs::read_to_string(source().join("../Dockerfile")).expect("the Dockerfile");
    let lines: Vec<&str> = file.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let after = |word: &str| lines.iter().filter_map(|line| line.strip_prefix(word)).collect::<Vec<_>>();
    let bases = after("ARG ").into_iter().filter(|argument| argument.contains("_IMAGE="));
    for base in bases {
        let (_, tag) = base.rsplit_once(':').unwrap_or((base, ""));
        assert!(!["", "latest"].contains(&tag), "the base image {base} has no version");
    }
    let stages: BTreeSet<&str> = after("FROM ").iter().filter_map(|from| Some(from.split_once(" AS ")?.1)).collect();
    for from in after("FROM ") {
        let base = from.split(' ').next().unwrap_or_default();
        assert!(base.starts_with("${") || stages.contains(base), "{base} is neither an ARG nor a stage");
    }
    let (_, last) = file.rsplit_once("\nFROM ").expect("a last stage");
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "the user is {user}");
    for word in ["ENTRYPOINT ", "CMD "] {
        let command = last.lines().find_map(|line| line.strip_prefix(word)).expect("a command");
        assert!(command.starts_with('['), "{word}{command} needs a shell");
    }
    assert!(!last.lines().any(|line| line.starts_with("RUN ")), "there is no shell to run anything");
}
