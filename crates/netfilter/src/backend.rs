//! Which firewall is written, and what the kernel can do. Nothing is concluded from versions: each
//! thing is tried, in a transaction that leaves nothing behind, and believed if the kernel takes it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use thiserror::Error;

use crate::{Engine, Iptables, Kernel, KernelError, Nftables, kernel::run};

/// What an operator chose (the configuration's `backend`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// nftables if it works here, else iptables.
    Auto,
    /// What all the predecessors wrote.
    #[default]
    Iptables,
    /// One table of our own.
    Nftables,
}

/// The text names no firewall we write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown backend {0:?}, expected \"auto\", \"iptables\" or \"nftables\"")]
pub struct UnknownBackend(pub String);

/// The firewall that was chosen does not work here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the backend {backend} does not work here: {}", said.as_deref().unwrap_or("it was not found"))]
pub struct BackendUnavailable {
    /// The one that was chosen.
    pub backend: Backend,
    /// What was said when it was tried.
    pub said: Option<String>,
}

/// What can be had of the kernel, by trying.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether nftables takes what we would write.
    pub nftables: bool,
    /// Which engine iptables drives, if it works.
    pub iptables: Option<Engine>,
    /// Whether ip6tables works.
    pub ip6tables: bool,
    /// Whether iptables can tell a program of ours about packets.
    pub nflog: bool,
    /// Whether iptables can count connections to each address and port.
    pub hashlimit: bool,
    /// Whether iptables sees the ports of bridges.
    pub physdev: bool,
    /// What was said to everything that cannot be had.
    pub refusals: BTreeMap<&'static str, String>,
}

/// Everything the nftables renderer may say. Checked, never committed.
const NFTABLES: &str = "\
add table inet netman-probe
add set inet netman-probe a { type mark . inet_proto . inet_service; }
add set inet netman-probe r { type mark . inet_proto . inet_service; flags interval; }
add set inet netman-probe n { type ipv6_addr . inet_proto; flags interval; }
add set inet netman-probe m { type ipv4_addr . inet_service; size 65535; flags dynamic,timeout; timeout 1s; }
add map inet netman-probe t { type ipv4_addr : mark; }
add map inet netman-probe d { type ipv4_addr : verdict; }
add chain inet netman-probe nat { type nat hook prerouting priority -100; policy accept; }
add chain inet netman-probe f { type filter hook forward priority filter; policy accept; }
add rule inet netman-probe f meta mark set ip saddr map @t
add rule inet netman-probe f ip daddr vmap @d
add rule inet netman-probe f meta mark . meta l4proto . th dport @a accept
add rule inet netman-probe f meta mark . meta l4proto . th dport @r accept
add rule inet netman-probe f ip6 daddr . meta l4proto @n ct state established,related ct mark set meta mark
add rule inet netman-probe f add @m { ip daddr . tcp dport limit rate over 5/second } drop
add rule inet netman-probe f limit rate 5/second log prefix \"x\" group 5
add rule inet netman-probe f counter reject with icmpx port-unreachable
add table bridge netman-probe
add chain bridge netman-probe p { type filter hook prerouting priority -300; policy accept; }
";

/// Tries everything. Takes a tenth of a second or so; must be root in the cell's own network.
pub fn probe() -> Capabilities {
    let mut found = Capabilities::default();
    let nftables = run("nft", &["-c", "-f", "-"], NFTABLES);
    found.nftables = found.took("nftables", nftables.map(drop));
    match engine() {
        Ok(engine) => {
            found.iptables = found.tries("iptables", engine, "-j RETURN").then_some(engine);
        }
        Err(error) => drop(found.took("iptables", Err(error))),
    }
    if let Some(engine) = found.iptables {
        found.ip6tables = found.tries("ip6tables", engine, "-j RETURN");
        found.nflog = found.tries("nflog", engine, "-j NFLOG --nflog-prefix x --nflog-group 5");
        let hashlimit = "-p tcp -m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 \
                         --hashlimit-mode dstip,dstport --hashlimit-name netman-probe -j DROP";
        found.hashlimit = found.tries("hashlimit", engine, hashlimit);
        found.physdev = found.tries("physdev", engine, "-m physdev --physdev-in netman0 -j DROP");
    }
    found
}

/// What plain `iptables` drives.
pub(crate) fn engine() -> Result<Engine, KernelError> {
    let output = run("iptables-restore", &["--version"], "")?;
    let version = String::from_utf8_lossy(&output.stdout);
    Ok(if version.contains("nf_tables") { Engine::Nft } else { Engine::Legacy })
}

impl Capabilities {
    /// Has the kernel take a rule, in a chain that nothing leads to and that is gone afterwards.
    fn tries(&mut self, what: &'static str, engine: Engine, rule: &str) -> bool {
        let program = if what == "ip6tables" { "ip6tables-restore" } else { "iptables-restore" };
        let chain = format!("netman-probe-{}", std::process::id());
        let put = format!("*filter\n:{chain} - [0:0]\n-A {chain} {rule}\n");
        let take = format!("-F {chain}\n-X {chain}\nCOMMIT\n");
        let restore = |text: &str| run(program, &["--noflush", "--wait", "10"], text).map(drop);
        let result = match engine {
            // The kernel takes the rule, and then takes it away, in one transaction.
            Engine::Nft => restore(&format!("{put}{take}")),
            // Here it sees only how a transaction ends.
            Engine::Legacy => restore(&format!("{put}COMMIT\n"))
                .and_then(|()| restore(&format!("*filter\n{take}"))),
        };
        self.took(what, result)
    }

    fn took(&mut self, what: &'static str, result: Result<(), KernelError>) -> bool {
        result.map_err(|error| self.refusals.insert(what, error.to_string())).is_ok()
    }
}

impl Backend {
    /// The one to use, as far as it works here.
    ///
    /// # Errors
    /// If it does not work; what was said is part of the error.
    pub fn choose(self, found: &Capabilities) -> Result<Self, BackendUnavailable> {
        let works = |backend: Self| match backend {
            Self::Nftables => found.nftables,
            _ => found.iptables.is_some(),
        };
        let choice = match self {
            Self::Auto if found.nftables => Self::Nftables,
            Self::Auto => Self::Iptables,
            chosen => chosen,
        };
        let said = || match choice {
            Self::Nftables => found.refusals.get("nftables").cloned(),
            _ => found.refusals.get("iptables").cloned(),
        };
        works(choice)
            .then_some(choice)
            .ok_or_else(|| BackendUnavailable { backend: choice, said: said() })
    }

    /// The same, where IPv6 is written as well.
    ///
    /// # Errors
    /// If it does not work, or not for both families.
    pub fn choose_dual(self, found: &Capabilities) -> Result<Self, BackendUnavailable> {
        let backend = self.choose(found)?;
        if backend == Self::Nftables || found.ip6tables {
            return Ok(backend);
        }
        let said = found.refusals.get("ip6tables").map_or("it was not found", String::as_str);
        let said = Some(format!("dual_stack needs ip6tables as well: {said}"));
        Err(BackendUnavailable { backend, said })
    }

    /// Its kernel, for IPv4 and, with nftables, IPv6 as well. `Auto` is iptables here; see
    /// [`Backend::choose`].
    ///
    /// # Errors
    /// If its programs or its socket cannot be used.
    pub fn open(
        self,
        lock_file: Option<std::path::PathBuf>,
    ) -> Result<Box<dyn Kernel>, KernelError> {
        Ok(match self {
            Self::Nftables => Box::new(Nftables::open()?.with_lock_file(lock_file)),
            Self::Auto | Self::Iptables => {
                Box::new(Iptables::installed()?.with_lock_file(lock_file))
            }
        })
    }

    /// Its kernel, for both families.
    ///
    /// # Errors
    /// As [`Backend::open`].
    pub fn open_dual(
        self,
        lock_file: Option<std::path::PathBuf>,
    ) -> Result<Box<dyn Kernel>, KernelError> {
        match self {
            Self::Nftables => self.open(lock_file),
            Self::Auto | Self::Iptables => {
                Ok(Box::new(Iptables::installed()?.dual().with_lock_file(lock_file)))
            }
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        let all = [Self::Auto, Self::Iptables, Self::Nftables];
        let found = all.into_iter().find(|backend| backend.to_string() == text);
        found.ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_prints_it_can_be_read_from() {
        for backend in [Backend::Auto, Backend::Iptables, Backend::Nftables] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!("ipchains".parse::<Backend>(), Err(UnknownBackend("ipchains".into())));
    }

    #[test]
    fn what_does_not_work_is_not_chosen() {
        let iptables = Capabilities {
            iptables: Some(Engine::Legacy),
            refusals: [("nftables", "no such program".to_owned())].into(),
            ..Capabilities::default()
        };
        assert_eq!(Backend::Auto.choose(&iptables), Ok(Backend::Iptables));
        assert_eq!(
            Backend::Nftables.choose(&iptables).unwrap_err().to_string(),
            "the backend nftables does not work here: no such program"
        );
        let both = Capabilities { nftables: true, ..iptables };
        assert_eq!(Backend::Auto.choose(&both), Ok(Backend::Nftables));
        assert_eq!(Backend::default().choose(&both), Ok(Backend::Iptables));
        assert!(Backend::Auto.choose(&Capabilities::default()).is_err());
    }
}
