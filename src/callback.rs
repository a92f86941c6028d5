//! Iluma's callbacks, from their receipt to their delivery to each owner.
//!
//! Invariants:
//! - A callback that was answered 200 is durable. It is delivered at least once to each of its owners, or shown to
//!   operators.
//! - No team gets a callback of another team.
//! - One team's dead endpoint delays no other team.
//! - Every wait has a deadline.
//! - Every queue in memory has a bound.
//!
//! `inbox` receives callbacks, `fan_out` finds their `recipients`, `hits` stores the callbacks of cache hits,
//! `dispatch` passes deliveries to `webhook_client`, which signs (`sign`) and sends them. `settings` serves a team's
//! own settings. `listing` shows deliveries and their attempts, and `operations` carries out `orders` about them.
//! [`state`](crate::state) keeps everything durable.

mod admission;
mod background;
mod concurrency;
mod config;
mod dispatch;
mod events;
mod fan_out;
mod hits;
mod inbox;
mod listing;
mod operations;
mod orders;
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
pub use orders::{Endpoints, OrderError, endpoints, replay};
pub use service::{Callbacks, Inflow};
pub use settings::{SettingError, UrlSetting};
