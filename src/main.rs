//! The command line: arguments, one command, an exit code.

fn main() {}
