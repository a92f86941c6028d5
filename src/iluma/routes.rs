//! Iluma's routes: the route table, the normal form of paths, and the router that finds a request's row.

mod path;
mod router;
mod table;

pub use path::{NormalPath, PathError};
pub use router::{CollectionPlace, CustomRoute, Route, Table};
pub use table::{
    Charge, INDEX, Kind, OPENAPI, OWN_CALLBACKS, ROTATE_KEY, ROUTES, References, RouteSpec, WEBHOOK_SECRET, documented,
};
