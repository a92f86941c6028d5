//! Iluma as the gateway knows it, and nowhere else: its routes, its answers, and who is named in them.

pub mod callback_type;
pub mod person;
pub mod route_name;
pub mod routes;
pub mod subject;
