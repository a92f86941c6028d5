//! The gateway and the simulator over real sockets, by behaviour.

#![allow(unreachable_pub, reason = "nobody outside reaches into a test binary")]

mod caching;
mod collapsing;
mod contract;
mod house;
mod journey;
mod metrics;
mod privacy;
mod simulator;
mod support;
