//! The Container Network Interface, the runtime's side of it: finding the network's configuration,
//! running its plugins, remembering what they answered (spec/cell.md §B.3).
//!
//! It does what libcni does, with four differences: every plugin has a deadline; what a plugin wrote
//! on stderr is part of the error; the configuration an attachment was made with is kept beside its
//! result, so that taking it down does not depend on the configuration of the day; and taking down
//! carries on past the first plugin that fails.
//!
//! Start reading at [`Runtime`].

mod attachment;
mod cache;
mod network;
mod plugin;
mod runtime;
mod version;

pub use attachment::{Address, Attachment, AttachmentError, Dns, Interface, Route};
pub use cache::CacheError;
pub use network::{Discovered, Network, NetworkError};
pub use plugin::{Fault, PluginError};
pub use runtime::{AddError, DelError, Runtime, Target, TargetError};
pub use version::{SpecVersion, UnknownVersion};
