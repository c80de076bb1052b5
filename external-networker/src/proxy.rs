//! What is sent to a proxy that runs inside the container, by rules in the container's own namespace
//! (spec/cell.md §B.7). They end with it.

use std::{net::Ipv4Addr, num::NonZeroU16};

use ipnet::Ipv4Net;
use netfilter::{Action, Builtin, Place, Rule, Ruleset, Scope, Table, Transport};

/// Rules of ours are known by this comment.
pub(crate) const COMMENT: &str = "netman-proxy";

/// Which TCP connections are the proxy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Those the container opens to here.
    pub outward: Option<Ipv4Net>,
    /// Those that come to it.
    pub inward: bool,
    /// Where it listens.
    pub port: NonZeroU16,
}

/// What belongs to us in a container's namespace.
pub(crate) fn scope() -> Scope {
    Scope::named([]).with_comment(COMMENT)
}

impl Proxy {
    /// The rules inside the container that has address `ip`.
    pub fn rules(&self, ip: Ipv4Addr) -> Ruleset {
        let redirect = |to: Ipv4Addr| {
            let rule = Rule::new(Action::Dnat(to.into(), self.port.get()));
            rule.transport(Transport::Tcp).comment(COMMENT)
        };
        let mut rules = Ruleset::new();
        if let Some(net) = self.outward {
            let rule = redirect(Ipv4Addr::LOCALHOST).to(net);
            rules.hook(Table::Nat, Builtin::Output, Place::Last, rule);
        }
        if self.inward {
            rules.hook(Table::Nat, Builtin::Prerouting, Place::Last, redirect(ip));
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_proxy_as_far_as_they_are_its() {
        let proxy = |outward: Option<&str>, inward| Proxy {
            outward: outward.map(|net| net.parse().unwrap()),
            inward,
            port: 15001.try_into().unwrap(),
        };
        let rules = |proxy: Proxy| proxy.rules("10.255.30.2".parse().unwrap()).to_string();
        insta::assert_snapshot!(rules(proxy(Some("10.0.0.0/8"), true)), @r#"
        *nat
        -A OUTPUT -d 10.0.0.0/8 -p tcp -m comment --comment netman-proxy -j DNAT --to-destination 127.0.0.1:15001
        -A PREROUTING -p tcp -m comment --comment netman-proxy -j DNAT --to-destination 10.255.30.2:15001
        "#);
        assert_eq!(rules(proxy(None, true)).lines().count(), 2);
    }
}
