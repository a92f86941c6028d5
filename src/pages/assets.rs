//! Style sheets, modules and icons, which are compiled in.
//!
//! A file's name contains a part of the hash of its content, so a browser may keep the file.

use sha2::{Digest as _, Sha256};

/// The files of a set of pages: the files that all pages share, and the set's own modules.
#[derive(Debug)]
pub struct Assets(Vec<Served>);

/// A file in the form that is served.
#[derive(Debug, PartialEq, Eq)]
pub struct Served {
    /// The path.
    pub path: String,
    /// The media type.
    pub media_type: &'static str,
    /// The content.
    pub content: String,
}

/// The files that all pages share. The style sheet and the icon come first. A module comes after the modules that it
/// imports.
const SHARED: [(&str, &str); 5] = [
    ("pages.css", include_str!("assets/pages.css")),
    ("icon.svg", include_str!("assets/icon.svg")),
    ("dom.js", include_str!("assets/dom.js")),
    ("api.js", include_str!("assets/api.js")),
    ("orders.js", include_str!("assets/orders.js")),
];

impl Assets {
    /// Makes the files that are served below the path `below`: the shared files, then the files `own`, given as names
    /// and contents. A module must come after the modules that it imports. The last file is the main module of the
    /// pages.
    #[must_use]
    pub fn new(below: &str, own: &[(&'static str, &str)]) -> Self {
        let mut served: Vec<(&str, Served)> = Vec::new();
        for (name, content) in SHARED.iter().chain(own) {
            let mut content = (*content).to_owned();
            // A module imports other modules by the paths at which they are served.
            for (other, Served { path, .. }) in &served {
                content = content.replace(&format!("'./{other}'"), &format!("'{path}'"));
            }
            served.push((name, Served::new(below, name, content)));
        }
        Self(served.into_iter().map(|(_, served)| served).collect())
    }

    /// Returns the path of the style sheet.
    #[must_use]
    pub fn style(&self) -> &str {
        &self.0[0].path
    }

    /// Returns the path of the icon.
    #[must_use]
    pub fn icon(&self) -> &str {
        &self.0[1].path
    }

    /// Returns the path of the pages' main module, which imports the others.
    #[must_use]
    pub fn module(&self) -> &str {
        &self.0[self.0.len() - 1].path
    }

    /// Returns the file at a path; `None` if there is none.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Served> {
        self.0.iter().find(|served| served.path == path)
    }
}

impl Served {
    fn new(below: &str, name: &str, content: String) -> Self {
        let digest = Sha256::digest(&content);
        let mark: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
        let media_type = match ending {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        };
        Self { path: format!("{below}/{stem}-{mark}.{ending}"), media_type, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_imports_what_is_served_and_a_changed_file_has_another_path() {
        let own = "import { ask } from './api.js';\nimport { el } from './dom.js';\n";
        let assets = Assets::new("/x/assets", &[("own.js", own)]);
        assert_eq!(assets.0.len(), SHARED.len() + 1);
        for served in &assets.0 {
            assert_eq!(assets.at(&served.path), Some(served));
            for line in served.content.lines().filter(|line| line.starts_with("import ")) {
                let path = line.split('\'').nth(1).expect("a path");
                assert!(assets.at(path).is_some(), "{}: {line}", served.path);
            }
        }
        assert!(assets.module().starts_with("/x/assets/own-") && assets.module().ends_with(".js"));
        assert!(assets.style().ends_with(".css") && assets.icon().ends_with(".svg"));
        assert_eq!(assets.at("/x/assets/none.js"), None);
        let changed = Assets::new("/x/assets", &[("own.js", "another")]);
        assert_ne!(changed.module(), assets.module());
        assert_eq!(changed.style(), assets.style());
    }
}
