//! Packet tests: real programs, real kernels, real packets ([`testkit`]). Run them with `scripts/test`,
//! or `scripts/test --packets NAME` for some of them.
//!
//! Each test is a story told in a world of its own. Every "may" comes with its "may not", which the
//! matrix sees to; what is open is open under traffic, what is closed is refused at once.

mod allows;
mod alone;
mod bandwidth;
mod bare_host;
mod container_store;
mod crowd;
mod denied_log;
mod denies_by_default;
mod dual_stack;
mod endpoints;
mod explains;
mod full_example;
mod garden_rules;
mod groups;
mod host_access;
mod kills;
mod locks;
mod mapped_ports;
mod masquerade;
mod net_in_out;
mod predecessors_keys;
mod repairs;
mod revokes;
mod same_cell;
mod security_groups;
mod server_away;
mod shadow;
mod survives_restart;
mod switches_firewalls;
mod takes_over;
mod three;
mod vandals;
mod wiring;
