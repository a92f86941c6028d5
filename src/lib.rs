//! The gateway in front of Iluma, the Indonesian KYC API.
//!
//! `README.md` says what it does, `ARCHITECTURE.md` how it is built. The map, from the top down:
//!
//! - [`app`] wires the parts together and serves; [`demo`] and [`simulator`] show and test it; [`register`] tells Iluma
//!   where callbacks go, [`report`] prints a month of the books.
//! - [`server`] knows sockets, TLS and drain, and nothing of what is asked. [`admin`] answers operators.
//! - [`gateway`] is the path of a request: `Gateway::handle` leaves one record of each, `Gateway::serve` is its stages.
//! - The features, which never know each other: [`route`] (path to row), [`tenant`] (key to team), [`limit`] (may it ask
//!   now), [`call`] (the request, parsed once, its reference sealed), [`callback`] (results on their way to teams),
//!   [`cache`] (keys, entries, flights; what nodes share of them), [`ledger`] (who called, what it cost and saved),
//!   [`upstream`] (connections to Iluma), [`telemetry`] (logs, metrics, scrubber).
//! - [`operator`] is the command line's way to a gateway that runs.
//! - [`reply`] turns every feature's refusal into HTTP; no other part of the request path makes up an error.
//! - The base, which knows nothing of the gateway: [`config`] (text to valid settings), [`name`], [`clock`], [`tasks`],
//!   [`alarm`], [`calendar`], [`json`], [`splice`], [`whole`], [`byte_size`], [`request_id`], [`keygen`], [`trust`],
//!   [`person`]; on top of it [`vault`] (key material), [`link`] (Redis), [`database`] (the embedded one), and [`state`]
//!   (what must not be lost).

pub mod admin;
pub mod alarm;
pub mod app;
pub mod byte_size;
pub mod cache;
pub mod calendar;
pub mod call;
pub mod callback;
pub mod clock;
pub mod config;
pub mod database;
pub mod demo;
pub mod gateway;
pub mod json;
pub mod keygen;
pub mod ledger;
pub mod limit;
pub mod link;
pub mod name;
pub mod operator;
pub mod person;
pub mod register;
pub mod reply;
pub mod report;
pub mod request_id;
pub mod route;
pub mod server;
pub mod simulator;
pub mod splice;
pub mod state;
pub mod tasks;
pub mod telemetry;
pub mod tenant;
pub mod trust;
pub mod upstream;
pub mod vault;
pub mod whole;
