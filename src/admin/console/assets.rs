//! The files of the console.

use crate::pages::Assets;
use std::sync::LazyLock;

/// The files of the console, by their paths.
pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let own = [("operator.js", include_str!("assets/operator.js")), ("console.js", include_str!("assets/console.js"))];
    Assets::new("/console/assets", &own)
});
