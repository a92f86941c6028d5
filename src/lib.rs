//! The gateway in front of Iluma, the Indonesian KYC API.
//!
//! `README.md` says what the gateway does, and `ARCHITECTURE.md` says how it is built. The parts, from the top down:
//!
//! - [`cli`] has one file for each command; [`app`] wires the parts together and serves.
//! - [`server`] knows sockets, TLS and drain, and nothing about requests. [`admin`] answers operators.
//! - [`gateway`] is the path of a request. `Gateway::handle` runs the stages, and writes one log record for each
//!   request.
//! - [`iluma`] has everything about Iluma: the route table, answers, persons.
//! - The features, which never import each other: [`tenant`] (key to team), [`limit`] (rates, quotas, fair queue),
//!   [`mod@reference`] (the request, parsed once, and its reference prefix), [`callback`] (results for teams),
//!   [`cache`] (keys, entries, single-flight, and the parts of the cache that nodes share), [`ledger`] (calls, costs
//!   and savings), [`upstream`] (connections to Iluma), [`telemetry`] (logs, metrics, scrubber), [`pages`] (sessions,
//!   guard and frame of the pages in a browser).
//! - [`reply`] turns every feature's refusal into HTTP; no other part of the request path makes an error.
//! - [`config`] turns text into valid settings; [`state`] is durable state; [`redis`] is the access to Redis; [`base`]
//!   has tools with no opinion about Iluma.

pub mod admin;
pub mod app;
pub mod base;
pub mod cache;
pub mod callback;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod iluma;
pub mod ledger;
pub mod limit;
pub mod pages;
pub mod redis;
pub mod reference;
pub mod reply;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod tenant;
pub mod upstream;
