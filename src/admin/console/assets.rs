//! The console's style sheet, modules and icon, compiled in. A name has a part of its content's hash, so a browser may keep it.

use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// A file of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asset {
    /// The style sheet.
    Style,
    /// The module of the views.
    Console,
    /// The module that asks the API.
    Api,
    /// The module that makes elements.
    Dom,
    /// The icon of a tab.
    Icon,
}

/// A file as it is served.
#[derive(Debug)]
struct Served {
    path: String,
    content: String,
}

static SERVED: LazyLock<[Served; 5]> = LazyLock::new(|| {
    let dom = Served::new("dom", "js", include_str!("assets/dom.js").to_owned());
    let api = Served::new("api", "js", include_str!("assets/api.js").to_owned());
    // The module imports the others by the names that they are served under.
    let console = include_str!("assets/console.js").replace("./api.js", &api.path).replace("./dom.js", &dom.path);
    [
        Served::new("console", "css", include_str!("assets/console.css").to_owned()),
        Served::new("console", "js", console),
        api,
        dom,
        Served::new("icon", "svg", include_str!("assets/icon.svg").to_owned()),
    ]
});

impl Asset {
    const ALL: [Self; 5] = [Self::Style, Self::Console, Self::Api, Self::Dom, Self::Icon];

    /// Returns the path that the asset is served at.
    pub(super) fn path(self) -> &'static str {
        &SERVED[self as usize].path
    }

    /// Returns the content.
    pub(super) fn content(self) -> &'static str {
        &SERVED[self as usize].content
    }

    /// Returns the media type.
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Style => "text/css; charset=utf-8",
            Self::Console | Self::Api | Self::Dom => "text/javascript; charset=utf-8",
            Self::Icon => "image/svg+xml",
        }
    }

    /// Returns the asset that is served at a path.
    pub(super) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asset| asset.path() == path)
    }
}

impl Served {
    fn new(name: &str, ending: &str, content: String) -> Self {
        let digest = Sha256::digest(&content);
        let mark: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/console/assets/{name}-{mark}.{ending}"), content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_is_found_at_its_path_and_imports_what_is_served() {
        for (place, asset) in Asset::ALL.into_iter().enumerate() {
            assert_eq!(asset as usize, place);
            assert_eq!(Asset::at(asset.path()), Some(asset), "{}", asset.path());
        }
        let imported = Asset::Console.content().lines().filter(|line| line.starts_with("import ")).count();
        assert_eq!(imported, 2);
        for asset in [Asset::Api, Asset::Dom] {
            assert!(Asset::Console.content().contains(asset.path()), "{}", asset.path());
        }
        assert_eq!(Asset::at("/console/assets/none.js"), None);
    }
}
