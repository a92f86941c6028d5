//! The files of the portal.

use crate::iluma::routes::PORTAL_ASSETS;
use crate::pages::Assets;
use std::sync::LazyLock;

/// The files of the portal, by their paths.
pub(super) static ASSETS: LazyLock<Assets> =
    LazyLock::new(|| Assets::new(PORTAL_ASSETS, &[("portal.js", include_str!("assets/portal.js"))]));
