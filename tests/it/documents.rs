//! The documents: what is generated agrees with the code, what is shown runs, and what is cited is there.

mod citations;
mod console;
pub mod generated;
mod pages;
