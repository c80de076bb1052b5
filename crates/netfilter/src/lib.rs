//! Firewall rules as values, and the kernel made to agree with them.
//!
//! Four layers, each usable without the next:
//!
//! - the vocabulary: [`Rule`], [`ChainName`], [`Table`], [`SetBody`], [`MapBody`], gathered in a
//!   [`Ruleset`], which is what somebody wants the kernel to hold;
//! - [`Rendered`]: the same in the words of one kernel, iptables or nftables, by pure functions;
//! - the [`Plan`]: a pure function of what is wanted and what was [`Observed`], touching only what
//!   differs, and only what its [`Scope`] owns;
//! - the [`Kernel`]: observes and commits, one transaction; [`Iptables`] and [`Nftables`] for real, and
//!   [`FakeKernel`], which remembers and fails on request. A [`Firewall`] is a kernel and what is known
//!   of it, so that a change costs what it changes.
//!
//! Which kernel it is, [`Backend`] says, and [`probe`] whether it can be had.
//!
//! What rules mean is said once more by [`judge`], for tests and for explanations. Start reading at
//! [`Plan::new`].

mod backend;
mod clash;
mod drift;
pub mod egress;
mod element;
mod family;
mod firewall;
pub mod judge;
mod kernel;
mod name;
mod netlink;
mod observed;
mod plan;
mod render;
mod rule;
mod ruleset;
mod scope;
mod set;

pub use backend::{Backend, BackendUnavailable, Capabilities, UnknownBackend, probe};
pub use drift::Drift;
pub use element::{Element, SetKind};
pub use family::Family;
pub use firewall::{Firewall, Settled};
pub use kernel::{Engine, FakeKernel, Intruder, Iptables, Kernel, KernelError, Nftables};
pub use name::{ChainName, InvalidChainName, MapName, SetName};
pub use observed::{Observed, UnreadableRuleset};
pub use plan::{Plan, SetStep, Step};
pub use render::{Dialect, Rendered};
pub use rule::{
    Action, AddressRange, Addresses, ConnectionState, Icmp, Interface, InvalidInterface, Limit,
    Log, LogPrefix, Mark, RejectWith, Rule, Side, TooMany, Transport,
};
pub use ruleset::{Builtin, Hook, Parent, Place, Ruleset, Table};
pub use scope::Scope;
pub use set::{Allow, MapBody, Nets, SetBody};
