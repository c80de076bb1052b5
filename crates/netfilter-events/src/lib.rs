//! What the kernel's netfilter has to say, and what it can be asked, over netlink sockets:
//!
//! - [`conntrack`]: the connections it remembers, and making it forget some;
//! - [`nflog`]: the packets its rules tell of;
//! - [`generation`]: the number of its ruleset, and who has just changed it.
//!
//! A socket belongs to the network namespace of the thread that opened it, whichever thread uses it.
//! Nothing here decides anything: the policy agent does. Foreign bytes are read in [`nfnetlink`] and
//! [`packet`], which skip what they cannot read and never fail loudly.

pub mod conntrack;
pub mod generation;
pub mod nflog;
pub mod packet;

mod listening;
mod requests;
