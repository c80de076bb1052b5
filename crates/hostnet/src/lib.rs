//! The host's side of networking: namespaces ([`netns`]) and the links inside one ([`link`]).

pub mod link;
pub mod netns;
