//! The host's side of networking: namespaces ([`netns`]) and the links inside one ([`link`]). And what
//! else only the C library can be asked for ([`heap`]).

pub mod heap;
pub mod link;
pub mod netns;
