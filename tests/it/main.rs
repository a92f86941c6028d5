//! Integration tests over real sockets, one module for each part.

mod simulator;
