//! The gateway's metrics, in Prometheus' text format.
//!
//! Invariants: labels come from the configuration and from enums, so the number of series has a bound; on the path of
//! a request a metric is an array look-up and an atomic addition, and no label is formatted.

mod account;
mod all;
pub mod families;
mod labels;
mod read;
mod shared;
mod status;
mod tenant;

pub use account::AccountMetrics;
pub use all::Metrics;
pub use labels::{Listener, OutboxSize, Period, Reload};
pub use shared::Counted;
pub use tenant::TenantMetrics;
