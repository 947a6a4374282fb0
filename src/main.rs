//! The program `threadq`.

fn main() {}
