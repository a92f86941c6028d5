//! Iluma's callbacks, from their arrival to each team that waits for them.
//!
//! Invariants: a callback that was answered 200 is durable, and is delivered at least once to each of its owners, or shown
//! to operators; no team gets a callback of another; one team's dead endpoint delays no other; every wait has a deadline,
//! and every queue in memory a bound.
//!
//! `inbox` takes callbacks in, `fan_out` finds their `recipients`, `hits` journals those of cache hits, `dispatch` hands
//! deliveries to `webhook_client`, which signs (`sign`) and sends them. `settings` is what a team sees of it. Durable state
//! is [`state`](crate::state)'s.

mod admission;
mod background;
mod concurrency;
mod config;
mod dispatch;
mod events;
mod fan_out;
mod hits;
mod inbox;
mod recipients;
mod resolver;
mod retry;
mod service;
mod settings;
mod sign;
mod tokens;
mod webhook_client;

pub use admission::Admission;
pub use config::secrets;
pub use events::{Arrived, Attempt, Hooks, Note, Skipped};
pub use inbox::{MOST_BYTES, inbox};
pub use service::{Callbacks, Inflow};
pub use settings::{SettingError, UrlSetting};
