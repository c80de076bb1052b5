//! overlay

fn main() {}
