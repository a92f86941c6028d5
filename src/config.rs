//! The configuration, as types that can't hold invalid values.
//!
//! Text becomes [`Settings`] in one place ([`Settings::load`]); all later code gets checked values.

mod effective;
mod fault;
mod keys;
mod limits;
mod listener;
mod load;
mod nearest;
mod probe;
mod reader;
mod redis;
mod redis_target;
mod routes;
mod secrets;
mod settings;
mod teams;
mod tls;
mod values;
mod warnings;
pub mod watch;

pub use effective::Description;
pub use fault::{Fault, Faults};
pub use limits::{Limit, QuotaMode, TenantLimits};
pub use probe::{Probe, ProbeTls};
pub use redis_target::{RedisAccess, RedisServers, RedisTarget, ServerAddress};
pub use settings::{
    Account, Admin, Cache, Callbacks, FileKey, Listener, Log, MaxAge, Otlp, OutboxBounds, Quotas, Redis, Retention,
    Role, Server, ServerTls, Settings, State, Tenant, UnknownRoutes, Upstream,
};
