//! Everything that the gateway knows about Iluma: routes, answers, callbacks, and the persons in their bodies.

pub mod answer;
pub mod callback_body;
pub mod callback_type;
pub mod callback_url;
pub mod error_body;
pub mod mentions;
pub mod openapi;
pub mod person;
pub mod record_id;
pub mod route_name;
pub mod routes;
pub mod subject;
