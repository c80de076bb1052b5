//! Others write to the kernel by hand.

use std::process::Command;

use netfilter::{Action, Builtin, Family, Place, Rule, Ruleset, Table};

use crate::{Which, chain, on_each_kernel, settle, settled, shapes::every_shape};

#[test]
fn vandalised_rules_are_put_right_and_others_left_alone() {
    on_each_kernel(|which, kernel| {
        let wanted = every_shape();
        settle(kernel, &wanted);
        let healthy = kernel.observe().unwrap();
        let foreign = match which {
            Which::Iptables(_, Family::V6) => "-s 2001:db8::9/128 -j ACCEPT",
            _ => "-s 192.0.2.1/32 -j ACCEPT",
        };

        which.by_hand("-F vpa--other", "flush chain inet netman filter/vpa--other");
        which.by_hand(
            "-I vpa--forward 1 -j ACCEPT",
            "insert rule inet netman filter/vpa--forward accept",
        );
        which.by_hand(
            &format!("-I FORWARD 1 {foreign}"),
            "insert rule inet netman filter/FORWARD ip saddr 192.0.2.1 accept",
        );
        which.by_hand("-t nat -F POSTROUTING", "flush chain inet netman nat/POSTROUTING");
        which.by_hand(
            "-A FORWARD -j vpa--other",
            "add rule inet netman filter/FORWARD jump filter/vpa--other",
        );
        if which == Which::Nftables {
            let by_hand = |nft| which.by_hand("", nft);
            by_hand("delete element inet netman vpa--web { 1 . tcp . 80 }");
            by_hand("add element inet netman vpa--web { 9 . udp . 99 }");
            by_hand("add element inet netman vpa--web { 9 . 99 . 99 }");
            by_hand("flush set inet netman vpa--nets");
            by_hand("add element inet netman vpa--nets { 10.9.0.0/16 . 6 }");
            by_hand("add element inet netman vpa--nets { 172.16.0.1-172.16.0.5 . 0-255 }");
            by_hand("delete element inet netman vpa--tags { 10.255.30.3 }");
            by_hand("add element inet netman vpa--tags { 10.255.30.3 : 0x99 }");
            by_hand("delete element inet netman filter/vpa--doors { 10.255.30.4 }");
            by_hand("add element inet netman filter/vpa--doors { 10.255.30.9 : accept }");
            by_hand("add set inet netman vpa--leftover { type ifname; }");
        }
        settle(kernel, &wanted);

        let repaired = kernel.observe().unwrap();
        let forward = repaired.rules(Table::Filter, "FORWARD").unwrap();
        match which {
            Which::Iptables(..) | Which::Dual(_) => {
                assert_eq!(forward, ["-j vpa--forward", foreign]);
            }
            Which::Nftables => {
                assert_eq!(forward, ["jump filter/vpa--forward", "ip saddr 192.0.2.1 accept"]);
            }
        }
        match which {
            Which::Iptables(..) | Which::Dual(_) => {
                which.by_hand(&format!("-D FORWARD {foreign}"), "");
            }
            Which::Nftables => return,
        }
        assert_eq!(kernel.observe().unwrap(), healthy);
    });
}

/// A dormant table is there, and no packet comes to it.
#[test]
fn a_table_put_to_sleep_is_woken_and_what_others_keep_in_it_stays() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let wanted = every_shape();
        settle(kernel, &wanted);
        let healthy = kernel.observe().unwrap();
        which.by_hand("", "add counter inet netman theirs { comment \"one of theirs\"; }");
        which.by_hand("", "add table inet netman { flags dormant; }");
        assert_ne!(kernel.observe().unwrap(), healthy);
        settle(kernel, &wanted);
        assert_eq!(kernel.observe().unwrap(), healthy);

        // Nothing can be hooked while a table wakes.
        which.by_hand("", "flush chain inet netman filter/FORWARD");
        which.by_hand("", "delete chain inet netman filter/FORWARD");
        which.by_hand("", "add table inet netman { flags dormant; }");
        settle(kernel, &wanted);
        assert_eq!(kernel.observe().unwrap(), healthy);
    });
}

#[test]
fn a_set_made_for_something_else_is_replaced() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let wanted = every_shape();
        settle(kernel, &wanted);
        which.by_hand("", "flush chain inet netman filter/vpa--to-web");
        which.by_hand("", "delete set inet netman vpa--web");
        which.by_hand("", "add set inet netman vpa--web { type ifname; }");
        settle(kernel, &wanted);
        settled(kernel, &wanted);
    });
}

#[test]
fn what_the_operators_put_in_front_stays_there() {
    on_each_kernel(|which, kernel| {
        if which != Which::Nftables {
            return;
        }
        let mut wanted = every_shape();
        let jump = Rule::new(Action::Jump(chain("vpa--other")));
        wanted.hook(Table::Filter, Builtin::Input, Place::Last, jump);
        settle(kernel, &wanted);
        settled(kernel, &wanted);
        which.by_hand("", "add rule inet netman operator-input tcp dport 22 accept");
        settled(kernel, &wanted);
        settle(kernel, &Ruleset::new());
        let listing = Command::new("nft").args(["list", "table", "inet", "netman"]).output();
        let listing = String::from_utf8(listing.unwrap().stdout).unwrap();
        assert!(listing.contains("tcp dport 22 accept"), "{listing}");
    });
}
