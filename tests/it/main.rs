//! Tests of the gateway and the simulator over real sockets, by behaviour.

#![recursion_limit = "256"]
#![allow(unreachable_pub, reason = "nobody outside reaches into a test binary")]
#![allow(clippy::too_many_lines, clippy::too_many_arguments, reason = "a test is a story that is read from the top")]
#![allow(clippy::print_stdout, reason = "helpers of tests say what a long run came to")]

mod backoff;
mod backup;
mod budgets;
mod caching;
mod callbacks;
mod cancellation;
mod chaos;
mod check;
mod clients;
mod collapsing;
mod contract;
mod dependencies;
mod disk_cache;
mod documents;
mod erasures;
mod failover;
mod h2_stalls;
mod h2_upstream;
mod hooks;
mod hostile;
mod house;
mod idempotency;
mod identity;
mod inbox;
mod isolation;
mod journey;
mod keys;
mod kills;
mod layouts;
mod leases;
mod limits;
mod lost_answers;
mod metrics;
mod model;
mod nodes;
mod notify;
mod openapi;
mod operator_tokens;
mod operator_views;
mod operators;
mod output;
mod owners;
mod pending;
mod portal;
mod privacy;
mod process;
mod protocols;
mod proxies;
mod redis_causes;
mod redis_client;
mod redis_faults;
mod redis_topology;
mod redis_waits;
mod references;
mod replicas;
mod routing;
mod self_service;
mod settlement;
mod shared_limits;
mod start_and_end;
mod state;
mod status;
mod support;
mod teams;
mod topologies;
mod traces;
mod unread;
mod upstream_faults;
mod usage;
