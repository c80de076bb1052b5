//! docs/bare-host.md, word for word: its commands are run, what they print is what it says, and what they
//! made is gone after the last of them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

const DOCUMENT: &str = include_str!("../../../docs/bare-host.md");

/// Where the commands are run, and where the files of the page are, below an empty `/run`.
const FOLDER: &str = "/run/host";

/// The host: it has its own network, and one address besides loopback, at the end of a cable; and rules of
/// somebody else, some of which look like the agent's.
const HOST: &str = r#"
mount -t tmpfs netman /run
mkdir -p /run/host/etc /run/host/var/lib
cd /run/host
ip link set lo up
ip link add eth0 type veth peer name out
ip addr add 192.0.2.10/24 dev eth0
ip link set eth0 up
ip link set out up
echo 0 > /proc/sys/net/ipv4/ip_forward
for iptables in iptables ip6tables; do
  $iptables -N theirs
  $iptables -A theirs -i eth7 -j DROP
  $iptables -A INPUT -j theirs
  $iptables -A FORWARD -i eth7 -m comment --comment "not for -j vpa--forward" -j DROP
  $iptables -A FORWARD -i eth7 -m comment --comment "nor -j vpa--forward"
  $iptables -t nat -A POSTROUTING -o eth7 -j MASQUERADE
done
nft 'table inet theirs { chain forward { type filter hook forward priority 10; iifname "eth7" drop; }; }'
"#;

/// Everything the page could leave behind; and a look at it while nothing of the page is there.
const BEFORE: &str = r#"
inventory() {
  ip -o link | sed 's/^[0-9]*: \([^:]*\):.*/link \1/'
  ip -4 route show table all
  ip netns list | sed 's/^/namespace /'
  for table in filter nat mangle raw; do
    iptables -t $table -S
    ip6tables -t $table -S
  done
  nft list tables | grep -v -e ' ip ' -e ' ip6 '
  nft list table inet theirs
  ps -e -o comm= | sed 's/^/process /'
  # `ip netns` keeps its folder, and that it is a mount.
  find /run | grep -v '^/run/netns$'
  # Mounts of other tests, below what is hidden here, go when those end.
  grep -v -e ' /run/netns ' -e ' /run/netns/w[0-9]' -e ' /run/tmp/' /proc/self/mounts
  sed 's/^/forwarding /' /proc/sys/net/ipv4/ip_forward
}
before=$(inventory)
"#;

/// What is in the inventory while the page is at work, or its absence afterwards would prove nothing.
const DURING: &str = r#"
during=$(inventory)
for seen in "link veth-log" "10.255.30.2 dev veth" "namespace web" "namespace db" "namespace log" "$RULES" \
  "process policy-server" "process policy-agent" "process sleep" "process python3" \
  /run/netman-netns/ /run/netman.lock /run/host/etc/netman/ /run/host/var/lib/netman/server/ /run/host/web.json \
  "forwarding 1"; do
  grep -q -e "$seen" <<< "$during" || { echo "not in the inventory: $seen; it is: $during" >&2; exit 1; }
done
"#;

/// Fails with what is different from before; a namespace ends a moment after its last process.
const AFTER: &str = r#"
for _ in $(seq 100); do
  after=$(inventory)
  [[ $after == "$before" ]] && break
  sleep 0.1
done
diff <(echo "$before") <(echo "$after") >&2
"#;

/// The text of all blocks of the kind.
fn blocks(document: &str, kind: &str) -> String {
    let fence = format!("```{kind}\n");
    let begun = document.split(&fence).skip(1);
    begun.filter_map(|rest| rest.split("```").next()).collect()
}

/// Whether `line` is what the document says, where `…` stands for anything.
fn is(line: &str, said: &str) -> bool {
    match said.split_once('…') {
        Some((begin, end)) => {
            line.len() >= begin.len() + end.len() && line.starts_with(begin) && line.ends_with(end)
        }
        None => line == said,
    }
}

#[test]
fn the_page_about_hosts_without_garden_is_true_and_leaves_nothing() -> Result<()> {
    testkit::sandbox::require()?;
    let backend = std::env::var("NETMAN_BACKEND").unwrap_or_else(|_| "iptables".to_owned());
    let rules = if backend == "nftables" { "table inet netman" } else { "-j vpa--forward$" };
    let (up, down) = DOCUMENT
        .split_once("\n## Taking it down\n")
        .context("the page does not say how it is taken down")?;
    let [up, down] = [up, down].map(|part| {
        blocks(part, "sh")
            .replace("/etc/netman", &format!("{FOLDER}/etc/netman"))
            .replace("/var/lib/netman", &format!("{FOLDER}/var/lib/netman"))
            .replace("\"backend\": \"iptables\"", &format!("\"backend\": \"{backend}\""))
    });
    let printed = run(&format!("RULES='{rules}'\n{HOST}{BEFORE}{up}{DURING}{down}{AFTER}"))?;
    let (said, mut lines) = (blocks(DOCUMENT, "text"), printed.lines());
    ensure!(said.lines().count() > 20, "the page says little of what is printed");
    for said in said.lines() {
        let found = lines.any(|line| is(line, said));
        ensure!(found, "{said:?} is not printed where the page says it; printed was:\n{printed}");
    }
    Ok(())
}

/// What the commands print, in a namespace of their own; whatever they started ends with the sandbox.
fn run(commands: &str) -> Result<String> {
    let agent = testkit::binaries::path("policy-agent")?;
    let programs = agent.parent().context("a program is in a folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["timeout", "100", "bash", "-eu", "-c", commands])
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .context("cannot run the commands")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {complaints}\nprinted was:\n{printed}", output.status);
    Ok(printed)
}
