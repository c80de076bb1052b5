//! Firewall rules as values, and the kernel made to agree with them.
//!
//! Three layers, each usable without the next:
//!
//! - the vocabulary: [`Rule`], [`ChainName`], [`Table`], gathered in a [`Ruleset`], which is what
//!   somebody wants the kernel to hold;
//! - the [`Plan`]: a pure function of what is wanted and what was [`Observed`], touching only what
//!   differs, and only what its [`Scope`] owns;
//! - the [`Kernel`]: observes and commits, one transaction per table; [`Iptables`] for real, and
//!   [`FakeKernel`], which remembers and fails on request.
//!
//! Rules are rendered in exactly the form `iptables-save` prints them, so that wanted and observed
//! are compared as text and any tampering shows. Start reading at [`Plan::new`].

pub mod conntrack;
pub mod egress;
mod kernel;
mod name;
mod observed;
mod plan;
mod rule;
mod ruleset;

pub use kernel::{FakeKernel, Iptables, Kernel, KernelError};
pub use name::{ChainName, InvalidChainName};
pub use observed::{Observed, UnreadableRuleset};
pub use plan::{Plan, Scope, Step};
pub use rule::{
    Action, AddressRange, ConnectionState, Icmp, Interface, InvalidInterface, Mark, RejectWith,
    Rule, Transport,
};
pub use ruleset::{Builtin, Hook, Parent, Place, Ruleset, Table};
