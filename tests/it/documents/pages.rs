//! Reads the pages of the repository, which are Markdown files.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose pages are not the project's own.
const FOREIGN: [&str; 3] = ["target", "corpus", "seeds"];

/// One Markdown file.
pub(super) struct Page {
    /// The path from the root of the repository.
    pub(super) name: String,
    pub(super) text: String,
}

/// A block of code between two fences, which are lines with three backquotes.
pub(super) struct Fence {
    /// The line of the first fence, from 1 on.
    pub(super) line: usize,
    pub(super) language: String,
    /// The lines inside, without the indentation of the fence.
    pub(super) lines: Vec<String>,
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns the files below a folder whose names end with one of `endings`: the path from the root of the repository,
/// and the text. The files are sorted by path.
pub(super) fn files(below: &str, endings: &[&str]) -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
            if name.starts_with('.') || FOREIGN.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let inside = path.strip_prefix(&root).expect("inside").to_str().expect("text").to_owned();
                found.push((inside, fs::read_to_string(&path).expect("a file of text")));
            }
        }
    }
    found.sort();
    found
}

/// Returns every page, sorted by name.
pub(super) fn pages() -> Vec<Page> {
    files("", &[".md"]).into_iter().map(|(name, text)| Page { name, text }).collect()
}

impl Page {
    /// Returns the blocks between fences.
    pub(super) fn fences(&self) -> Vec<Fence> {
        self.parts().1
    }

    /// Returns the lines that stand in no block, each with its number from 1 on.
    pub(super) fn prose(&self) -> Vec<(usize, &str)> {
        self.parts().0
    }

    fn parts(&self) -> (Vec<(usize, &str)>, Vec<Fence>) {
        let (mut prose, mut fences) = (Vec::new(), Vec::new());
        let mut open: Option<(Fence, usize)> = None;
        for (at, line) in self.text.lines().enumerate() {
            let inside = line.trim_start();
            let indent = line.len() - inside.len();
            match (&mut open, inside.strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some((Fence { line: at + 1, language: language.to_owned(), lines: Vec::new() }, indent));
                }
                (None, None) => prose.push((at + 1, line)),
                (Some(_), Some(_)) => fences.extend(open.take().map(|(fence, _)| fence)),
                (Some((fence, indent)), None) => fence.lines.push(line.get(*indent..).unwrap_or("").to_owned()),
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.name);
        (prose, fences)
    }

    /// Returns the anchors of the headings, as GitHub makes them.
    pub(super) fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose.iter().filter(|(_, line)| line.starts_with('#'));
        headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}
