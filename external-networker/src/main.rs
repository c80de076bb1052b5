//! external-networker

fn main() {}
