//! The files of the console.

use crate::pages::Assets;
use std::sync::LazyLock;

/// The files of the console, by their paths.
pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let own = [
        ("operator.js", include_str!("assets/operator.js")),
        ("overview.js", include_str!("assets/overview.js")),
        ("teams.js", include_str!("assets/teams.js")),
        ("live.js", include_str!("assets/live.js")),
        ("cache.js", include_str!("assets/cache.js")),
        ("callbacks.js", include_str!("assets/callbacks.js")),
        ("erasure.js", include_str!("assets/erasure.js")),
        ("money.js", include_str!("assets/money.js")),
        ("nodes.js", include_str!("assets/nodes.js")),
        ("console.js", include_str!("assets/console.js")),
    ];
    Assets::new("/console/assets", &own)
});
