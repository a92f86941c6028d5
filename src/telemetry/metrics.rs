//! The gateway's metrics, in the text format of Prometheus.
//!
//! Invariants: labels come from the configuration and from enums, so the number of series is bounded; on the request
//! path a metric is an array look-up and an atomic addition, without formatting labels.

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
pub use read::Sample;
pub use shared::Counted;
pub use tenant::TenantMetrics;
