//! policy-server

fn main() {}
