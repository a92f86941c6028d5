//! The gateway and the simulator over real sockets, by behaviour.

#![allow(unreachable_pub, reason = "nobody outside reaches into a test binary")]

mod hostile;
mod journey;
mod routing;
mod simulator;
mod support;
