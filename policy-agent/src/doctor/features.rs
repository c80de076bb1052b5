//! What the kernel and its programs can do, found out by trying, in a network namespace made for it and
//! gone with it: lists of modules say little where modules are built in, or loaded on demand.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use hostnet::link::{Links, NewVxlan, Vxlan};
use netfilter::{Backend, Kernel, Nftables};
use netfilter_events::{
    conntrack::{Connections, Conntrack},
    nflog::Listener,
};
use nix::sched::{CloneFlags, unshare};
use service::log::chain;

use super::Finding;
use crate::denied;

/// What rules of ours and of the networker say, and whether policies can do without.
const MATCHES: [(&str, &str, bool); 11] = [
    (
        "marks",
        "-t filter -A FORWARD -s 10.0.0.1 -m mark ! --mark 0x1 -j MARK --set-xmark 0x1/0xffffffff",
        true,
    ),
    (
        "saved marks",
        "-t filter -A FORWARD -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        true,
    ),
    ("states", "-t filter -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", true),
    ("comments", "-t filter -A FORWARD -m comment --comment netman -j ACCEPT", true),
    ("resets", "-t filter -A FORWARD -p tcp -j REJECT --reject-with tcp-reset", true),
    ("ranges", "-t filter -A FORWARD -m iprange --dst-range 10.0.0.1-10.0.0.9 -j ACCEPT", true),
    (
        "translation",
        "-t nat -A PREROUTING -p tcp --dport 61000 -j DNAT --to-destination 10.0.0.1:80",
        true,
    ),
    ("masquerading", "-t nat -A POSTROUTING -s 10.0.0.1 -j MASQUERADE", true),
    (
        "telling of packets",
        "-t filter -A FORWARD -m limit --limit 1/sec -j NFLOG --nflog-group 1",
        false,
    ),
    ("port lists", "-t filter -A FORWARD -p tcp -m multiport --dports 1,2:3 -j ACCEPT", false),
    (
        "connection rates",
        "-t filter -A FORWARD -p tcp -m hashlimit --hashlimit-above 9/sec --hashlimit-mode dstip --hashlimit-name doctor -j REJECT",
        false,
    ),
];

/// What the nftables back end is made of.
const TABLE: &str = "\
table inet netman-doctor {
  set allowed { type mark . inet_proto . inet_service; }
  map tags { type ipv4_addr : mark; }
  chain door { }
  map doors { type ipv4_addr : verdict; elements = { 10.0.0.1 : goto door } }
  chain forward { type filter hook forward priority 0;
    meta mark set ip saddr map @tags
    ip daddr vmap @doors
    meta mark . meta l4proto . th dport @allowed accept
    limit rate 1/second log group 1
  }
}
";

pub(super) fn examine(backend: Backend) -> Vec<Finding> {
    let own_network = move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
            format!("no network namespace can be made ({errno}); is this root?")
        })?;
        Ok::<_, String>(tried(backend))
    };
    // A thread that has moved must not be used for anything else.
    match thread::spawn(own_network).join() {
        Ok(Ok(findings)) => findings,
        Ok(Err(says)) => vec![Finding::broken("privileges", says)],
        Err(_) => vec![Finding::broken("privileges", "trying the kernel's features failed")],
    }
}

fn tried(backend: Backend) -> Vec<Finding> {
    let mut findings = vec![engine()];
    findings.extend(MATCHES.map(|(name, rule, is_needed)| {
        match run("iptables", &format!("-w 5 {rule}"), "") {
            Ok(_) => Finding::fine(name, "iptables can say it, and the kernel do it"),
            Err(error) if is_needed => Finding::broken(name, error),
            Err(error) => Finding::warning(name, error),
        }
    }));
    findings.push(nftables(backend, run("nft", "-f -", TABLE).map(drop)));
    findings.push(match run("ipset", "create doctor hash:net", "") {
        Ok(_) => Finding::fine("ipset", "could be used for long lists of networks"),
        Err(error) => Finding::unknown("ipset", format!("cannot be used: {error}")),
    });
    findings.push(match Conntrack::default().list() {
        Ok(_) => Finding::fine("revocation", "connections can be listed and forgotten"),
        Err(error) => Finding::broken("revocation", chain(&error)),
    });
    findings.push(match Nftables::open().and_then(|mut kernel| kernel.generation()) {
        Ok(_) => Finding::fine("noticing changes", "the kernel numbers its rulesets"),
        Err(error) => {
            let says = format!("only by looking from time to time: {}", chain(&error));
            Finding::unknown("noticing changes", says)
        }
    });
    findings.extend(with_sockets());
    findings
}

/// What it means that nftables works here, or does not.
fn nftables(backend: Backend, tried: Result<(), String>) -> Finding {
    const NAME: &str = "nftables";
    match (backend, tried) {
        (Backend::Nftables, Ok(())) => Finding::fine(NAME, "works, and is the backend"),
        (Backend::Auto, Ok(())) => Finding::fine(NAME, "works, so it is the backend (auto)"),
        (Backend::Iptables, Ok(())) => Finding::fine(NAME, "could be used in place of iptables"),
        (Backend::Nftables, Err(error)) => {
            Finding::broken(NAME, format!("is the backend, and cannot be used: {error}"))
        }
        (_, Err(error)) => Finding::unknown(NAME, format!("cannot be used: {error}")),
    }
}

/// Which of the two programs by this name it is.
fn engine() -> Finding {
    match run("iptables", "--version", "") {
        Ok(version) if version.contains("legacy") => Finding::fine(
            "iptables",
            format!("{version}: one change costs as much as all rules; nf_tables' is faster"),
        ),
        Ok(version) => Finding::fine("iptables", version),
        Err(error) => Finding::broken("iptables", error),
    }
}

fn with_sockets() -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return vec![Finding::unknown("hearing of packets", error.to_string())],
    };
    runtime.block_on(async {
        let hearing = match Listener::open(denied::GROUP).await {
            Ok(_) => Finding::fine("hearing of packets", "denied packets can be told of"),
            Err(error) => Finding::warning("hearing of packets", error.to_string()),
        };
        vec![hearing, tags_between_cells().await]
    })
}

async fn tags_between_cells() -> Finding {
    let vxlan =
        Vxlan { vni: 1, local: None, underlay: None, port: 4789, learning: false, gbp: true };
    let device = NewVxlan { name: "doctor", mac: [0xee, 0xee, 0, 0, 0, 1], vxlan };
    let made = match Links::open() {
        Ok(links) => links.create_vxlan(&device).await,
        Err(error) => Err(error),
    };
    match made {
        Ok(link) if link.vxlan.is_some_and(|vxlan| vxlan.gbp) => {
            Finding::fine("tags between cells", "VXLAN carries them")
        }
        Ok(_) => Finding::broken("tags between cells", "this kernel's VXLAN does not carry them"),
        Err(error) => Finding::broken("tags between cells", chain(&error)),
    }
}

/// What a program says, on one line.
fn run(program: &str, args: &str, input: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{program} cannot be run: {error}");
    let mut child = Command::new(program)
        .args(args.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A program that ends without reading says why itself.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    let said = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    };
    if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(format!("{program}: {}", said(&output.stderr)))
    }
}
