//! The gateway in front of Iluma, the Indonesian KYC API.

pub mod admin;
pub mod alarm;
pub mod app;
pub mod byte_size;
pub mod cache;
pub mod call;
pub mod clock;
pub mod config;
pub mod demo;
pub mod gateway;
pub mod json;
pub mod keygen;
pub mod limit;
pub mod name;
pub mod reply;
pub mod route;
pub mod server;
pub mod simulator;
pub mod tasks;
pub mod telemetry;
pub mod tenant;
pub mod upstream;
