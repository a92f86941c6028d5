//! Tests of the pages' links and sizes, and of the files that pages and comments cite.

use super::pages::{Page, files, pages, root};
use std::collections::BTreeMap;
use std::path::Path;

/// Folders to which a cited path may be relative. For example, pages and comments leave `src/` out.
const BASES: [&str; 5] = ["", "src", "tests/it", "simulator", "simulator/src"];

/// Endings of files that are cited by their path in the repository. Files in examples have other endings:
/// `gateway.toml`, `cert.pem`.
const CITED: [&str; 4] = [".rs", ".md", ".lua", ".txt"];

/// Names that look like a cited file of the repository. They are examples, or files of another project.
const EXAMPLES: [&str; 1] = ["NAME.rs"];

/// Words of a comment that send the reader to a text that is not in the repository.
const ELSEWHERE: [&str; 6] = ["the design", "(design", "by design,", "DESIGN", "of the contract", "the contract's"];

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut faults = Vec::new();
    for page in &pages {
        for (line, target) in links(page) {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(&page.name).parent().unwrap_or(Path::new(""));
            let name = if file.is_empty() { page.name.clone() } else { normal(&folder.join(file)) };
            if !root().join(&name).exists() {
                faults.push(format!("{}:{line}: there is no {name}", page.name));
            }
            let linked = pages.iter().find(|page| page.name == name);
            if !anchor.is_empty() && linked.is_none_or(|page| !page.anchors().iter().any(|one| one == anchor)) {
                faults.push(format!("{}:{line}: {name} has no heading #{anchor}", page.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Returns the targets of a page's links, each with its line.
fn links(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in page.prose() {
        for part in text.split("](").skip(1) {
            found.extend(part.split_once(')').map(|(target, _)| (line, target.to_owned())));
        }
    }
    found
}

/// Returns a relative path without `.` and `..`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().expect("text").split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_file_that_a_page_cites_is_there() {
    let mut faults = Vec::new();
    for page in pages() {
        for (line, text) in page.prose() {
            let code = text.split('`').skip(1).step_by(2);
            for word in code.flat_map(|code| code.split([' ', ',', '(', ')'])) {
                let fault = missing(&page.name, word);
                faults.extend(fault.map(|word| format!("{}:{line}: there is no {word}", page.name)));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_file_that_a_comment_cites_is_there_and_no_comment_cites_a_text_that_is_not() {
    let mut faults = Vec::new();
    let folders = ["src", "simulator", "tests", "config", "deploy"];
    let endings = [".rs", ".lua", ".py", ".toml", ".service", ".yaml", ".yml"];
    for (name, text) in folders.iter().flat_map(|folder| files(folder, &endings)) {
        // This file contains the words that the test refuses.
        if name.ends_with("documents/citations.rs") {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = comment(&name, line) else { continue };
            let at = format!("{name}:{}", at + 1);
            let elsewhere = ELSEWHERE.iter().filter(|words| comment.contains(**words));
            faults.extend(elsewhere.map(|words| format!("{at}: \"{words}\" is not in the repository")));
            let words = comment.split(|c: char| c.is_whitespace() || "`\"',;:()[]<>".contains(c));
            let missing = words.filter_map(|word| missing(&name, word.trim_end_matches('.')));
            faults.extend(missing.map(|word| format!("{at}: there is no {word}")));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Returns the comment of a line, if it has one.
fn comment<'a>(file: &str, line: &'a str) -> Option<&'a str> {
    let mark = match file.rsplit_once('.').map(|(_, ending)| ending) {
        Some("rs") => "//",
        Some("lua") => "--",
        _ => "#",
    };
    let (before, comment) = line.split_once(mark)?;
    // A mark inside an address or a string begins no comment.
    let is_comment = before.trim().is_empty() || before.ends_with(' ') && before.matches('"').count() % 2 == 0;
    is_comment.then_some(comment)
}

/// Returns the word if it is the path of a file that is not in the repository.
fn missing<'a>(cited_in: &str, word: &'a str) -> Option<&'a str> {
    let is_path = CITED.iter().any(|ending| word.ends_with(ending))
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !word.starts_with('.');
    let own = Path::new(cited_in).parent().unwrap_or(Path::new(""));
    let is_there =
        BASES.iter().any(|base| root().join(base).join(word).exists()) || root().join(own).join(word).exists();
    (is_path && !is_there && !EXAMPLES.contains(&word)).then_some(word)
}

#[test]
fn the_first_pages_are_short() {
    for (page, kib) in [("README.md", 8), ("ARCHITECTURE.md", 14)] {
        let bytes = std::fs::metadata(root().join(page)).expect("a page").len();
        assert!(bytes <= kib << 10, "{page} has {bytes} bytes, more than {kib} KiB");
    }
}

#[test]
fn the_index_of_the_documents_has_every_page_once() {
    let pages = pages();
    let index = pages.iter().find(|page| page.name == "docs/README.md").expect("an index");
    let linked: Vec<String> = links(index).into_iter().map(|(_, target)| target).collect();
    for (name, _) in files("docs", &[".md"]) {
        let name = name.strip_prefix("docs/").expect("inside");
        let times = linked.iter().filter(|target| *target == name).count();
        assert!(name == "README.md" || times == 1, "docs/README.md links {name} {times} times");
    }
}

/// Checks that the map names each file in the paragraph of its part. The files of `cli/` are the
/// commands.
#[test]
fn the_map_names_every_file() {
    let pages = pages();
    let text = &pages.iter().find(|page| page.name == "ARCHITECTURE.md").expect("a page").text;
    let map = text.split("## Map").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a map");
    // A part begins with its layer and its name: **6 `cache/`**.
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    for beginning in map.split("**").collect::<Vec<_>>().windows(3).step_by(2).map(|three| (three[1], three[2])) {
        let name = beginning.0.split('`').nth(1).expect("a name").trim_end_matches('/').trim_end_matches(".rs");
        parts.insert(name, beginning.1);
    }
    let mut missing = Vec::new();
    for (file, _) in files("src", &[".rs"]) {
        let path = file.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")).expect("a file of src/");
        let (part, below) = path.split_once('/').unwrap_or((path, ""));
        let stem = below.rsplit('/').next().unwrap_or(below);
        let is_name =
            |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == stem);
        if !["main", "lib", "cli"].contains(&part)
            && !parts.get(part).is_some_and(|text| stem.is_empty() || is_name(text))
        {
            missing.push(file);
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}
