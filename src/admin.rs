//! The API and the console of platform operators.
//!
//! Invariants: every path that names a team needs the admin token, compared in constant time; metrics contain nothing
//! personal and are open; an order that was begun runs to its end, and is in the audit log before it begins and after
//! it has ended.
//!
//! `operations` declares every path with its description, of which `router` makes a service and `openapi` a document; `context`
//! holds the shared parts of handlers, `answer` is the shape of every answer.
//! `nodes` shows the nodes and their `alarms`, which `node_watch` makes from `facts` and publishes; `live` follows the access log.
//! `callbacks`, `erasures`, `keys`, `order_routes` and `usage` handle the paths, `auth` and `tokens` check tokens, `audit` runs orders and
//! records them, `orders` is the data that they change.

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
