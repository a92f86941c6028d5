//! The gateway and the simulator over real sockets, by behaviour.

#![allow(unreachable_pub, reason = "nobody outside reaches into a test binary")]

mod h2_stalls;
mod hostile;
mod journey;
mod limits;
mod process;
mod protocols;
mod routing;
mod simulator;
mod start_and_end;
mod support;
mod unread;
mod upstream_faults;
