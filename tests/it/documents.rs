//! Tests of the documents: generated parts agree with the code, shown commands run, and cited files exist.

mod citations;
mod console;
pub mod generated;
mod pages;
