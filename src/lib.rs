//! The gateway in front of Iluma, the Indonesian KYC API.

pub mod byte_size;
pub mod clock;
pub mod config;
pub mod name;
pub mod simulator;
