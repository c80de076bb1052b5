//! The host's side of networking: namespaces ([`netns`]).

pub mod netns;
