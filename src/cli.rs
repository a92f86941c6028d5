//! The commands, one file each.

pub mod demo;
pub mod keygen;
pub mod operator;
pub mod register;
pub mod report;
