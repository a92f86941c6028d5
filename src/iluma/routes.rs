//! Iluma's routes: the route table, the normal form of paths, and the router that finds a request's row.

mod kind;
mod path;
mod router;
mod samples;
mod table;

pub use kind::{Charge, Kind, References};
pub use path::{NormalPath, PathError};
pub use router::{ACCOUNT_WORDS, CollectionPlace, CustomRoute, OWN_WORD, Route, Table};
pub use samples::{Sample, SampleBody};
pub use table::{
    INDEX, OPENAPI, OWN_CALLBACKS, PORTAL, PORTAL_ASSETS, PORTAL_LOG_IN, PORTAL_LOG_OUT, ROTATE_KEY, ROUTES, RouteSpec,
    WEBHOOK_SECRET, documented,
};
