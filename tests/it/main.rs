//! The gateway and the simulator over real sockets, by behaviour.

#![allow(unreachable_pub, reason = "nobody outside reaches into a test binary")]

mod hostile;
mod journey;
mod limits;
mod process;
mod protocols;
mod routing;
mod simulator;
mod support;
mod upstream_faults;
