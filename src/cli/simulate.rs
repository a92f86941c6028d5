//! `iluma-gateway simulate`: a simulated Iluma.

pub(super) use iluma_simulator::{Args, run};
