//! The gateway in front of Iluma, the Indonesian KYC API.

pub mod byte_size;
pub mod cache;
pub mod call;
pub mod clock;
pub mod config;
pub mod json;
pub mod limit;
pub mod name;
pub mod route;
pub mod tasks;
pub mod telemetry;
pub mod tenant;
pub mod upstream;
