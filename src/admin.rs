//! The API and the console of platform operators.
//!
//! Invariants: every path below `/v1/` needs a token, or a session that a token opened; tokens are compared in constant
//! time; metrics need no token and contain no personal data; an order that has begun runs to its end; the audit log has
//! an order's intent before the order begins, and its result after the order has ended.
//!
//! `operations` declares every path with its description. `router` serves these paths, and `openapi` makes the document
//! that describes them. `context` holds the shared parts of handlers, and `answer` is the shape of every answer.
//! `nodes` shows the nodes and their `alarms`. `node_watch` makes the alarms from `facts`, and publishes them. `live`
//! follows the access log. `callbacks`, `erasures`, `keys`, `order_routes`, `unknown_calls` and `usage` handle the
//! paths. `auth` and `tokens` check tokens. `audit` runs orders and records them, and `orders` has the parts that
//! orders change.

mod alarms;
mod answer;
mod audit;
mod auth;
mod callbacks;
mod console;
mod context;
mod erasures;
mod facts;
mod health;
mod keys;
mod live;
mod log_pages;
mod node_report;
mod node_watch;
mod nodes;
mod openapi;
mod operation;
mod operations;
mod order_routes;
mod orders;
mod outcome;
mod router;
mod tenant_list;
mod tenants;
mod tokens;
mod unknown_calls;
mod usage;

pub use alarms::{ALARMS, Alarm, AlarmSpec, SOON, Severity};
pub use facts::{BackoffFact, CertificateFact, Facts, KeyFact, PauseFact, QuotaFact, RedisFact, ReloadFact};
pub use node_report::{Build, NodeReport};
pub use node_watch::Collect;
pub use operation::Operation;
pub use operations::operations;
pub use orders::{BudgetUse, Orders};
pub use router::Admin;
