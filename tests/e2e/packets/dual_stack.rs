//! Containers with a second address, of IPv6: as shut as the first, and opened by the same words.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use policy::SecurityGroup;
use testkit::probe::Outcome;
use testkit::world::Firewall;
use testkit::{Container, Spec, poll, story, tcp, udp};

use crate::denied_log::lines;
use crate::explains::explain;
use crate::groups::{Groups, bound, group, rule};

/// What it reaches of an address, or is refused at once.
fn reached(from: &Container, to: impl Into<IpAddr>) -> Result<Vec<String>> {
    let (to, mut open) = (to.into(), Vec::new());
    let mut tried = Vec::new();
    for port in [tcp(5432), tcp(8080), udp(5432)] {
        tried.push((port.to_string(), from.dial(to, port)?.outcome));
    }
    tried.push(("ping".to_owned(), from.ping(to)?));
    for (what, seen) in tried {
        ensure!(
            matches!(seen, Outcome::Open | Outcome::Refused),
            "{} → {to} {what}: neither open nor refused, but {seen}",
            from.name()
        );
        open.extend((seen == Outcome::Open).then_some(what));
    }
    Ok(open)
}

fn reaches(from: &Container, to: impl Into<IpAddr>, expected: &[&str]) -> Result<()> {
    let to = to.into();
    let open = reached(from, to)?;
    ensure!(open == expected, "{} → {to}: open is {open:?}, expected {expected:?}", from.name());
    Ok(())
}

fn icmp_v6(destination: Ipv6Addr) -> String {
    let text = destination.to_string();
    serde_json::json!({"protocol": "icmpv6", "destination": text, "type": 128, "code": 0})
        .to_string()
}

/// A rule for everything there is.
fn world_wide() -> SecurityGroup {
    bound("wide", &[rule("all", &"::/0", ""), rule("all", &"0.0.0.0/0", "")])
}

#[test]
fn groups_open_what_they_name_and_nothing_else() {
    story("groups open what they name and nothing else", |world| {
        let (dual, cell) = (world.dual_stack()?, world.cell(1));
        let groups = Groups::of(world)?;
        let (a, b) = (dual.outside_a(), dual.outside_b());
        let net = format!("{b}-fd00:16::1ff,{}", world.outside_b().address());
        let many: Vec<_> = (0..200).map(|n| format!("2001:db8:{n:x}::/49")).collect();
        let many = format!("{},{a}", many.join(","));
        groups.are(&[
            bound("one", &[rule("tcp", &a, "5432"), icmp_v6(a)]),
            bound("net", &[rule("udp", &net, "5000-6000")]),
            bound("many", &[rule("tcp", &many, "1-9,8080")]),
            world_wide(),
        ])?;
        let start = |space: &str| cell.start(Spec::app(space).space(space).dual());
        let one = start("one")?;
        reaches(&one, a, &["tcp/5432", "ping"])?;
        reaches(&one, b, &[])?;
        let net = start("net")?;
        reaches(&net, b, &["udp/5432"])?;
        reaches(&net, world.outside_b().address(), &["udp/5432"])?;
        reaches(&net, a, &[])?;
        let many = start("many")?;
        reaches(&many, a, &["tcp/8080"])?;
        reaches(&many, b, &[])?;

        // The whole world is neither the cell nor other containers, nor the world's way in.
        let near = cell.start(Spec::app("near").tcp(5432).tcp(8080).udp(5432).dual())?;
        let wide = start("wide")?;
        reaches(&wide, a, &["tcp/5432", "tcp/8080", "udp/5432", "ping"])?;
        reaches(&wide, world.outside_a().address(), &["tcp/5432", "tcp/8080", "udp/5432", "ping"])?;
        reaches(&wide, dual.host(), &[])?;
        reaches(&wide, near.second()?, &[])?;
        let seen = world.outside_a().dial(dual.host(), tcp(8080))?.outcome;
        ensure!(seen == Outcome::Open, "the host answers others: {seen}");
        let seen = world.outside_a().dial(near.second()?, tcp(8080))?.outcome;
        ensure!(seen == Outcome::Refused, "the world's way in is {seen}");
        let seen = cell.dial(near.second()?, tcp(8080))?.outcome;
        ensure!(seen == Outcome::Open, "the host reaches its containers, as ever: {seen}");
        Ok(())
    });
}

#[test]
fn what_a_group_names_no_more_is_cut() {
    story("what a group names no more is cut", |world| {
        let dual = world.dual_stack()?;
        let groups = Groups::of(world)?;
        let (a, b) = (dual.outside_a(), dual.outside_b());
        let to_b = bound("x", &[rule("tcp", &b, "5432")]);
        let to_b = SecurityGroup { guid: "sg-b".into(), ..to_b };
        groups.are(&[bound("x", &[rule("tcp", &a, "5432")]), to_b.clone()])?;
        let x = world.cell(1).start(Spec::app("x").space("x").dual())?;
        let (to_a, kept) = (x.connect_to(a, 5432)?, x.connect_to(b, 5432)?);
        groups.are(&[to_b])?;
        to_a.cut()?;
        reaches(&x, a, &[])?;
        kept.unharmed()?;
        Ok(())
    });
}

#[test]
fn policies_hold_between_containers_of_a_cell() {
    story("policies hold between containers of a cell", |world| {
        let (_dual, cell) = (world.dual_stack()?, world.cell(1));
        let db = cell.start(Spec::app("db").tcp(5432).tcp(8080).udp(5432).dual())?;
        let web = cell.start(Spec::app("web").dual())?;
        let (first, second) = (db.address(), db.second()?);
        reaches(&web, second, &[])?;
        world.allow(&web, &db, tcp(5432))?;
        reaches(&web, second, &["tcp/5432"])?;
        reaches(&web, first, &["tcp/5432"])?;
        let other = cell.start(Spec::app("other").dual())?;
        reaches(&other, second, &[])?;
        let held = web.connect_to(second, 5432)?;
        world.revoke(&web, &db, tcp(5432))?;
        held.cut()?;
        reaches(&web, second, &[])
    });
}

/// Without an agent that keeps groups, the rules Garden brings are what there is; with one firewall alone,
/// too.
#[test]
fn what_garden_brings_opens_what_it_says() {
    story("what Garden brings opens what it says", |world| {
        let (dual, cell) = (world.dual_stack()?, world.cell(1));
        let x = cell.start(Spec::app("x").net_out(dual.outside_a(), 5432).dual())?;
        reaches(&x, dual.outside_a(), &["tcp/5432"])?;
        reaches(&x, dual.outside_b(), &[])?;
        x.net_out(cell, dual.outside_b(), 8080)?;
        reaches(&x, dual.outside_b(), &["tcp/8080"])?;
        reaches(&x, dual.outside_a(), &["tcp/5432"])?;
        // Turned off, it is for those who come later that there is none.
        cell.configure_networker("dual_stack", false)?;
        let later = cell.start(Spec::app("later"))?;
        ensure!(later.reply().second.is_none(), "{:?}", later.reply());
        x.net_out(cell, world.outside_a().address(), 8080)?;
        reaches(&x, dual.outside_a(), &["tcp/5432"])?;
        x.stop(cell)?;
        let left = cell.netns().run("ip6tables-save", [""; 0])?;
        ensure!(!left.contains("--x"), "{left}");
        let left = cell.rules()?;
        ensure!(!left.contains("--x"), "{left}");
        Ok(())
    });
}

/// With iptables, IPv6 has tables of its own, which nobody writes any more.
#[test]
fn what_the_agent_said_of_second_addresses_goes_when_they_are_turned_off() {
    story("what the agent said of second addresses goes when they are turned off", |world| {
        let (dual, cell) = (world.dual_stack()?, world.cell(1));
        let groups = Groups::of(world)?;
        let (a, b) = (dual.outside_a(), dual.outside_b());
        groups.are(&[bound("web", &[rule("tcp", &a, "5432")])])?;
        let brings = |spec: Spec| spec.net_out(b, 5432).dual();
        let web = cell.start(brings(Spec::app("web").space("web")))?;
        let db = cell.start(brings(Spec::app("db").tcp(5432).tcp(8080).udp(5432)))?;
        world.allow(&web, &db, tcp(5432))?;
        reaches(&web, db.second()?, &["tcp/5432"])?;
        let (first, second) = (web.connect(&db, 5432)?, web.connect_to(db.second()?, 5432)?);
        let by_hand = ["-A", "FORWARD", "-s", "fd00:99::/64", "-j", "ACCEPT"];
        cell.netns().run("ip6tables", by_hand)?;

        cell.configure_agent("dual_stack", false)?;
        cell.configure_networker("dual_stack", false)?;
        cell.restart_agent()?;
        poll::until("policies no longer speak of second addresses", || {
            let (left, about) = match Firewall::of_this_run() {
                Firewall::Iptables => (cell.netns().run("ip6tables-save", [""; 0])?, "vpa--"),
                Firewall::Nftables => {
                    let words = ["list", "chain", "inet", "netman", "filter/vpa--forward"];
                    (cell.netns().run("nft", words)?, "fd00:255:")
                }
            };
            ensure!(!left.contains(about), "{left}");
            Ok(())
        })?;
        reaches(&web, db.second()?, &[])?;
        second.cut()?;
        reaches(&web, db.address(), &["tcp/5432"])?;
        first.unharmed()?;
        // Who has such an address keeps it, and what its groups say of it; no more.
        reaches(&web, a, &["tcp/5432"])?;
        reaches(&web, b, &[])?;
        reaches(&db, b, &[])?;

        web.stop(cell)?;
        reaches(&db, b, &[])?;
        db.stop(cell)?;
        let later = cell.start(Spec::app("later").space("web"))?;
        ensure!(later.reply().second.is_none(), "{:?}", later.reply());
        poll::until("nothing of ours is left in ip6tables", || {
            let left = cell.netns().run("ip6tables-save", [""; 0])?;
            ensure!(
                !["vpa--", "asg-", "netout--"].iter().any(|ours| left.contains(ours)),
                "{left}"
            );
            ensure!(left.contains("-s fd00:99::/64 -j ACCEPT"), "{left}");
            Ok(())
        })
    });
}

#[test]
fn nobody_sends_under_an_address_that_is_not_its_own() {
    for bridge in [false, true] {
        story("nobody sends under an address that is not its own", |world| {
            let (dual, cell) = (world.dual_stack()?, world.cell(1));
            if bridge {
                dual.use_a_bridge()?;
            }
            let a = dual.outside_a();
            let x = cell.start(Spec::app("x").net_out(a, 5432).dual())?;
            let y = cell.start(Spec::app("y").net_out(a, 8080).tcp(5432).dual())?;
            reaches(&x, a, &["tcp/5432"])?;
            if bridge {
                // Nor does one container find another there: what is asked of neighbours is for the host.
                let seen = x.dial(y.second()?, tcp(5432))?.outcome;
                ensure!(seen != Outcome::Open, "the neighbour on the bridge is {seen}");
            } else {
                reaches(&x, y.second()?, &[])?;
            }
            reaches(&y, a, &["tcp/8080"])?;
            let address = |verb, ip: &str| {
                let ip = format!("{ip}/128");
                x.netns().run("ip", ["-6", "address", verb, &ip, "dev", "eth0", "nodad"])
            };
            let own = x.second()?.to_string();
            // Of the neighbour's rules, of nobody's, and of the host's view of links.
            for forged in [y.second()?.to_string(), "fd00:99::9".to_owned()] {
                address("add", &forged)?;
                let route = x.netns().run("ip", ["-6", "route", "show", "default"])?;
                let route = route.lines().next().context("there is a default route")?;
                let words = format!("-6 route replace {route} src {forged}");
                x.netns().run("ip", words.split_whitespace())?;
                for (to, port) in [(a, tcp(8080)), (a, tcp(5432)), (dual.host(), tcp(8080))] {
                    let seen = x.dial(to, port)?.outcome;
                    ensure!(seen == Outcome::Timeout, "{to} {port} as {forged}: {seen}");
                }
                let words = format!("-6 route replace {route} src {own}");
                x.netns().run("ip", words.split_whitespace())?;
                x.netns()
                    .run("ip", ["-6", "address", "del", &format!("{forged}/128"), "dev", "eth0"])?;
            }
            reaches(&x, a, &["tcp/5432"])
        });
    }
}

#[test]
fn without_dual_stack_there_is_no_ipv6_at_all() {
    story("without dual_stack there is no IPv6 at all", |world| {
        let (dual, cell) = (world.with_ipv6()?, world.cell(1));
        let groups = Groups::of(world)?;
        let first = world.outside_a().address();
        groups.are(&[
            world_wide(),
            bound("x", &[rule("tcp", &format!("{first},{}", dual.outside_a()), "5432")]),
        ])?;
        for space in ["wide", "x"] {
            let x = cell.start(Spec::app(space).space(space).tcp(8080))?;
            ensure!(x.reply().second.is_none(), "{:?}", x.reply());
            for to in [dual.outside_a(), dual.host()] {
                let seen = x.dial(to, tcp(5432))?.outcome;
                ensure!(seen == Outcome::Unreachable, "{to}: {seen}");
            }
            // What a group says of IPv4 is in force nonetheless.
            let seen = x.dial(first, tcp(5432))?.outcome;
            ensure!(seen == Outcome::Open, "{first}: {seen}");
        }
        let log = cell.agent().tail(1000);
        let told = log.matches("speak of IPv6").count();
        ensure!(told == 1, "told {told} times:\n{log}");
        Ok(())
    });
}

#[test]
fn without_ip6tables_neither_program_pretends() {
    story("without ip6tables neither program pretends", |world| {
        if Firewall::of_this_run() == Firewall::Nftables {
            // One firewall of both families: there is nothing to be without.
            world.dual_stack()?;
            return Ok(());
        }
        let (_dual, cell) = (world.with_ipv6()?, world.cell(1));
        let bin = cell.file("bin");
        fs::create_dir(&bin)?;
        for verb in ["restore", "save"] {
            let broken = bin.join(format!("ip6tables-{verb}"));
            fs::write(&broken, "#!/bin/sh\necho no such table >&2\nexit 3\n")?;
            fs::set_permissions(&broken, fs::Permissions::from_mode(0o755))?;
        }
        for key in ["dual_stack", "container_network_v6"] {
            let value = if key == "dual_stack" { true.into() } else { "fd00:255::/48".into() };
            let value: serde_json::Value = value;
            cell.configure_agent(key, value.clone())?;
            cell.configure_networker(key, value)?;
        }
        let refused = cell.start(Spec::app("x")).err().context("the networker pretends")?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains("dual_stack needs a firewall for both families"), "{refused}");
        cell.agent().kill()?;
        let mut agent = cell.agent_program([])?;
        let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
        let output = agent.env("PATH", path).output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(!output.status.success(), "the agent pretends: {said}");
        ensure!(said.contains("dual_stack needs ip6tables as well"), "{said}");
        Ok(())
    });
}

#[test]
fn a_group_that_is_bound_later_holds_for_both_addresses() {
    story("a group that is bound later holds for both addresses", |world| {
        let dual = world.dual_stack()?;
        let groups = Groups::of(world)?;
        groups.are(&[group("nobody", &[rule("tcp", &dual.outside_a(), "5432")])])?;
        let x = world.cell(1).start(Spec::app("x").space("x").dual())?;
        reaches(&x, dual.outside_a(), &[])?;
        let both = format!("{},{}", dual.outside_a(), world.outside_a().address());
        groups.are(&[bound("x", &[rule("tcp", &both, "5432")])])?;
        reaches(&x, dual.outside_a(), &["tcp/5432"])?;
        reaches(&x, world.outside_a().address(), &["tcp/5432"])?;
        // Killed, and started again, the agent leaves it as it is.
        let calls = x.keep_calling_at(dual.outside_a(), tcp(5432));
        world.cell(1).restart_agent()?;
        calls.unharmed()?;
        Ok(())
    });
}

#[test]
fn a_second_address_is_taken_along_to_the_other_firewall() {
    story("a second address is taken along to the other firewall", |world| {
        let (dual, cell) = (world.dual_stack()?, world.cell(1));
        let a = dual.outside_a();
        let web = cell.start(Spec::app("web").net_out(a, 5432).dual())?;
        let db = cell.start(Spec::app("db").tcp(5432).tcp(8080).udp(5432).dual())?;
        world.allow(&web, &db, tcp(5432))?;
        let as_ever = || -> Result<()> {
            reaches(&web, a, &["tcp/5432"])?;
            reaches(&web, db.second()?, &["tcp/5432"])?;
            reaches(&web, dual.host(), &[])
        };
        as_ever()?;
        let calls =
            [(a, 5432), (db.second()?, 5432)].map(|(to, port)| web.keep_calling_at(to, tcp(port)));
        let other = match Firewall::of_this_run() {
            Firewall::Iptables => "nftables",
            Firewall::Nftables => "iptables",
        };
        cell.configure_agent("backend", other)?;
        cell.configure_networker("backend", other)?;
        cell.restart_agent()?;
        as_ever()?;
        // Whoever comes next takes all along.
        let near = cell.start(Spec::app("near").dual())?;
        as_ever()?;
        let former = || match Firewall::of_this_run() {
            Firewall::Iptables => cell.netns().run("ip6tables-save", [""; 0]),
            Firewall::Nftables => cell.netns().run("nft", ["list", "ruleset", "inet"]),
        };
        poll::until("nothing is left in the former firewall", || {
            let left = former()?;
            ensure!(!left.contains("--web") && !left.contains("vpa--"), "{left}");
            Ok(())
        })?;
        for calls in calls {
            ensure!(calls.unharmed()? > 0, "nothing was called");
        }
        reaches(&near, a, &[])?;
        web.stop(cell)?;
        for program in ["iptables-save", "ip6tables-save"] {
            let left = cell.netns().run(program, [""; 0])?;
            ensure!(!left.contains("--web"), "{left}");
        }
        Ok(())
    });
}

#[test]
fn what_is_said_of_second_addresses_is_so() {
    story("what is said of second addresses is so", |world| {
        let (_dual, cell) = (world.dual_stack()?, world.cell(1));
        let web = cell.start(Spec::app("web").dual())?;
        let db = cell.start(Spec::app("db").tcp(5432).tcp(8080).dual())?;
        world.allow(&web, &db, tcp(5432))?;
        let container = web.netns().path().to_string_lossy().into_owned();
        let (from, to) = (web.second()?.to_string(), db.second()?.to_string());
        for (port, verdict, met) in [
            ("5432", "It passes.", ": answered"),
            ("8080", "It is refused.", "denied by a rule of this cell (no_policy)"),
        ] {
            for source in ["web", &from] {
                let told = explain(cell, &["--from", &container, source, &to, port])?;
                let words = [verdict, met, "kernel   holds the rules this follows from"];
                let all = words.iter().all(|word| told.contains(word));
                ensure!(all && told.contains(&format!("[{from}]")), "{source} {port}:\n{told}");
            }
        }
        let line = poll::until("the packet is told of", || {
            let mut told = lines(cell, 8080).into_iter();
            told.find(|line| line["destination.ip"] == to.as_str()).context("there is no line")
        })?;
        let apps = [&line["source.app"], &line["destination.app"]];
        ensure!(apps == ["web", "db"] && line["source.ip"] == from.as_str(), "{line:#}");

        let status = cell.agent_status()?;
        let status = &status["enforcement"];
        let network = &status["container_network_v6"];
        ensure!(network == "fd00:255::/48" && status["containers"] == 2, "{status:#}");
        ensure!(status["unguarded"].as_array().is_some_and(Vec::is_empty), "{status:#}");
        let doctor = cell.agent_program(["doctor"])?.output()?;
        let said = String::from_utf8_lossy(&doctor.stdout);
        ensure!(said.contains("2 of 2 containers have one, in fd00:255::/48"), "{said}");
        Ok(())
    });
}

#[test]
fn the_old_engine_of_iptables_filters_second_addresses_too() {
    story("the old engine of iptables filters second addresses too", |world| {
        if Firewall::of_this_run() == Firewall::Nftables {
            return Ok(());
        }
        let cell = world.cell(1);
        cell.use_legacy_iptables()?;
        let dual = world.dual_stack()?;
        let groups = Groups::of(world)?;
        groups.are(&[bound("x", &[rule("tcp", &dual.outside_a(), "5432")]), world_wide()])?;
        let x = cell.start(Spec::app("x").space("x").dual())?;
        reaches(&x, dual.outside_a(), &["tcp/5432"])?;
        reaches(&x, dual.outside_b(), &[])?;
        let wide = cell.start(Spec::app("wide").space("wide").dual())?;
        reaches(&wide, dual.host(), &[])?;
        reaches(&wide, x.second()?, &[])?;
        x.stop(cell)?;
        wide.stop(cell)?;
        let left = cell.netns().run("ip6tables-legacy-save", [""; 0])?;
        ensure!(left.contains("vpa--") && !left.contains("--x"), "{left}");
        Ok(())
    });
}
