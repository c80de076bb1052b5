//! network-policy

fn main() {}
