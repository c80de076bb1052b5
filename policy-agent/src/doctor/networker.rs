//! Whether the networker's configuration, of which `networker_repair` tells, is about the same cell as
//! ours, and about this host. Each file is right by itself, so neither program can tell.
//!
//! What the networker's file does not say, a CNI wrapper in the plugins' configuration may, so it is not
//! compared; but for `backend`, of which wrappers know nothing.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use netfilter::Backend;
use nix::{errno::Errno, ifaddrs::getifaddrs};
use serde::Deserialize;
use service::{config::read_noting, log::chain};

use super::Finding;
use crate::{Config, backend};

const NAME: &str = "networker's file";

/// Of the networker's file, what matters here; names and defaults are in its README.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Theirs {
    datastore: String,
    iptables_lock_file: String,
    backend: String,
    overlay_network: String,
    instance_address: String,
    underlay_interfaces: Vec<String>,
    temporary_underlay_interface_names: Vec<String>,
}

/// The same of ours, and what it comes to.
struct Ours<'a> {
    datastore: &'a Path,
    lock_file: Option<&'a Path>,
    backend: Backend,
    overlay: Option<Ipv4Net>,
}

/// What can be reached, and through what.
#[derive(Debug, Default)]
struct Host {
    interfaces: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
}

/// Of a cell whose rules are in `written`. Nothing where the agent does not start the networker.
pub(super) fn examine(config: &Config, written: Backend) -> Vec<Finding> {
    let Some((_, words)) = config.networker_repair.split_first() else { return Vec::new() };
    let Some(path) = config_file(words) else {
        let says = "networker_repair names no --configFile, so whether the networker's says what ours says is not known";
        return vec![Finding::unknown(NAME, says)];
    };
    let theirs: Theirs = match read_noting(&path, &[]) {
        // Other keys are the networker's own affair.
        Ok((theirs, _)) => theirs,
        Err(error) => {
            let says = format!("{}; networker_repair names it", chain(&error));
            return vec![Finding::warning(NAME, says)];
        }
    };
    let ours = Ours {
        datastore: &config.datastore,
        lock_file: config.iptables_lock_file.as_deref(),
        backend: written,
        // That it cannot be read is said elsewhere.
        overlay: config.subnet.read().ok().map(|subnet| subnet.overlay),
    };
    let mut findings = compare(&path, &theirs, &ours);
    findings.extend(match Host::look() {
        Ok(host) => reach(&path, &theirs, &host),
        Err(errno) => {
            let says = format!("the addresses of this host cannot be listed: {errno}");
            vec![Finding::unknown(NAME, says)]
        }
    });
    if findings.is_empty() {
        let says = format!("{} says of this cell what ours says", path.display());
        findings.push(Finding::fine(NAME, says));
    }
    findings
}

/// The file the networker is told to read: of several, the last, as it takes them. Its words may stand
/// behind those of another program, such as `nice`.
fn config_file(words: &[String]) -> Option<PathBuf> {
    let mut found = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some(value) = flag.and_then(|flag| flag.strip_prefix("configFile")) else { continue };
        match value.strip_prefix('=') {
            Some(path) => found = Some(path.into()),
            None if value.is_empty() => found = words.next().map(PathBuf::from),
            None => {}
        }
    }
    found
}

/// What both must say alike.
fn compare(path: &Path, theirs: &Theirs, ours: &Ours<'_>) -> Vec<Finding> {
    let of_each = [
        datastore(&theirs.datastore, ours.datastore),
        lock_file(&theirs.iptables_lock_file, ours.lock_file),
        firewall(&theirs.backend, ours.backend),
        overlay(&theirs.overlay_network, ours.overlay),
    ];
    let told = of_each.into_iter().flatten();
    told.map(|says| Finding::broken(NAME, format!("in {} {says}", path.display()))).collect()
}

fn datastore(theirs: &str, ours: &Path) -> Option<String> {
    (!theirs.is_empty() && !is_same(Path::new(theirs), ours)).then(|| {
        format!(
            "datastore is {theirs}, and cni_datastore_path is {} here: the agent never hears of the containers \
             the networker connects, so they stay shut whatever policies say; name one store in both",
            ours.display()
        )
    })
}

fn lock_file(theirs: &str, ours: Option<&Path>) -> Option<String> {
    if theirs.is_empty() || ours.is_some_and(|ours| is_same(Path::new(theirs), ours)) {
        return None;
    }
    let here = ours.map_or_else(|| "not set".to_owned(), |ours| ours.display().to_string());
    Some(format!(
        "iptables_lock_file is {theirs}, and it is {here} here: neither waits for the other, so one may be \
         writing rules while the other reads them; name one file in both"
    ))
}

fn firewall(theirs: &str, ours: Backend) -> Option<String> {
    let wish = if theirs.is_empty() { Ok(Backend::Iptables) } else { theirs.parse() };
    let wish = match wish {
        Ok(wish) => wish,
        Err(error) => {
            return Some(format!("backend names none, so no container comes up: {error}"));
        }
    };
    let found = backend::as_found(wish);
    let said = match wish {
        _ if theirs.is_empty() => format!("not set, which is {found}"),
        Backend::Auto => format!("auto, which is {found}"),
        wish => wish.to_string(),
    };
    (found != ours).then(|| {
        format!(
            "backend is {said}, and it is {ours} here: what the networker writes for containers is not in the \
             firewall the agent keeps, which looks there for it in vain; name one firewall in both"
        )
    })
}

fn overlay(theirs: &str, ours: Option<Ipv4Net>) -> Option<String> {
    if theirs.is_empty() {
        return None;
    }
    let Ok(net) = theirs.parse::<Ipv4Net>() else {
        return Some(format!(
            "overlay_network is {theirs:?}, no network, so no container comes up"
        ));
    };
    let ours = ours.filter(|ours| *ours != net.trunc())?;
    Some(format!(
        "overlay_network is {theirs}, and the subnet here is of {ours}: what only one of them holds is other \
         containers to one program and the world to the other, so packets are refused, or lose their tags; name \
         one network in both"
    ))
}

/// Whether the host has what mapped ports are reached by.
fn reach(path: &Path, theirs: &Theirs, host: &Host) -> Vec<Finding> {
    let (key, names) = match &theirs.underlay_interfaces {
        none if none.is_empty() => {
            ("temporary_underlay_interface_names", &theirs.temporary_underlay_interface_names)
        }
        names => ("underlay_interfaces", names),
    };
    let missing = names.iter().filter(|name| !host.interfaces.contains(*name));
    let mut told: Vec<_> = missing
        .map(|name| {
            format!(
                "{key} names {name}, which this host does not have: what comes to ports of containers through the one \
                 that is meant is refused; `ip link` lists those there are"
            )
        })
        .collect();
    let address = &theirs.instance_address;
    let is_here = |address: Ipv4Addr| host.addresses.contains(&address);
    if !address.is_empty() && !address.parse().is_ok_and(is_here) {
        told.push(format!(
            "instance_address is {address}, which no interface of this host has: ports of containers are not \
             reached there; `ip -4 address` lists those there are"
        ));
    }
    told.iter()
        .map(|says| Finding::warning(NAME, format!("in {} {says}", path.display())))
        .collect()
}

impl Host {
    /// Asked of the kernel, as `/sys` may be another network namespace's.
    fn look() -> Result<Self, Errno> {
        let mut host = Self::default();
        for at in getifaddrs()? {
            host.addresses
                .extend(at.address.as_ref().and_then(|ip| Some(ip.as_sockaddr_in()?.ip())));
            host.interfaces.insert(at.interface_name);
        }
        Ok(host)
    }
}

/// Whether two paths lead to one file, which need not be there yet.
fn is_same(one: &Path, other: &Path) -> bool {
    resolved(one) == resolved(other)
}

fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let beside = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    fs::canonicalize(&path).ok().or_else(beside).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const ALIKE: &str = r#"{"datastore": "/s/store.json", "iptables_lock_file": "/s/lock",
        "overlay_network": "10.255.0.0/16", "instance_address": "192.0.2.10", "underlay_interfaces": ["eth0"]}"#;

    fn findings(text: &str) -> Vec<Finding> {
        let theirs: Theirs = serde_json::from_str(text).unwrap();
        let ours = Ours {
            datastore: Path::new("/s/store.json"),
            lock_file: Some(Path::new("/s/lock")),
            backend: Backend::Iptables,
            overlay: Some("10.255.0.0/16".parse().unwrap()),
        };
        let host = Host {
            interfaces: ["eth0".to_owned()].into(),
            addresses: ["192.0.2.10".parse().unwrap()].into(),
        };
        let path = Path::new("/n.json");
        let mut findings = compare(path, &theirs, &ours);
        findings.extend(reach(path, &theirs, &host));
        findings
    }

    /// The only thing that is told once `from` is `to`.
    fn told(from: &str, to: &str) -> (Verdict, String) {
        let changed = ALIKE.replacen(from, to, 1);
        assert_ne!(changed, ALIKE);
        let mut found = findings(&changed);
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { verdict, says, .. } = found.remove(0);
        (verdict, says)
    }

    #[test]
    fn what_both_must_agree_on_and_do_not_is_broken() {
        assert_eq!(findings(ALIKE), []);
        assert_eq!(findings("{}"), [], "a CNI wrapper may say it");
        for (from, to, says) in [
            (
                "/store",
                "/other",
                "in /n.json datastore is /s/other.json, and cni_datastore_path is /s/store.json here",
            ),
            ("/lock", "/key", "in /n.json iptables_lock_file is /s/key, and it is /s/lock here"),
            (
                "255.0.0/16",
                "254.0.0/16",
                "in /n.json overlay_network is 10.254.0.0/16, and the subnet here is of 10.255.0.0/16",
            ),
            (
                "255.0.0/16",
                "255.0.0/33",
                "in /n.json overlay_network is \"10.255.0.0/33\", no network",
            ),
            (
                "{",
                r#"{"backend": "nftables", "#,
                "in /n.json backend is nftables, and it is iptables here",
            ),
            ("{", r#"{"backend": "ipfw", "#, "in /n.json backend names none, so no"),
        ] {
            let (verdict, told) = told(from, to);
            assert_eq!(verdict, Verdict::Broken, "{told}");
            assert!(told.starts_with(says), "{told}");
        }
    }

    #[test]
    fn defaults_that_differ_are_told() {
        assert!(
            firewall("", Backend::Nftables)
                .unwrap()
                .contains("backend is not set, which is iptables")
        );
        assert_eq!(firewall("", Backend::Iptables), None);
        assert!(lock_file("/s/lock", None).unwrap().contains("it is not set here"));
    }

    #[test]
    fn what_this_host_does_not_have_is_a_warning() {
        let (verdict, says) = told("eth0", "eth9");
        assert_eq!(verdict, Verdict::Warning);
        assert!(says.starts_with("in /n.json underlay_interfaces names eth9,"), "{says}");
        let former = r#"underlay_interfaces": [], "temporary_underlay_interface_names": ["eth9"]"#;
        let (_, says) = told(r#"underlay_interfaces": ["eth0"]"#, former);
        assert!(says.contains("temporary_underlay_interface_names names eth9,"), "{says}");
        for address in ["192.0.2.11", "here"] {
            let (verdict, says) = told("192.0.2.10", address);
            assert_eq!(verdict, Verdict::Warning);
            assert!(says.contains(&format!("instance_address is {address}, which no")), "{says}");
        }
        assert!(Host::look().unwrap().interfaces.contains("lo"));
    }

    #[test]
    fn the_networkers_file_is_found_however_it_is_spelt() {
        let found = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            config_file(&words).map(|path| path.display().to_string())
        };
        for line in [
            "--configFile=/n.json --action repair",
            "--configFile /n.json --action repair",
            "-action repair -configFile=/n.json",
            "-configFile /n.json",
            "10 external-networker --configFile=/old.json --configFile=/n.json",
        ] {
            assert_eq!(found(line).as_deref(), Some("/n.json"), "{line}");
        }
        for line in
            ["", "--action repair", "configFile /n.json", "--configFiles=/n", "--configFile"]
        {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn paths_are_the_same_if_they_lead_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("run")).unwrap();
        std::os::unix::fs::symlink(at("run"), at("var-run")).unwrap();
        assert!(is_same(&at("run/lock"), &at("var-run/lock")), "nobody has made it yet");
        fs::write(at("run/lock"), "").unwrap();
        assert!(is_same(&at("run/lock"), &at("var-run/lock")));
        assert!(!is_same(&at("run/lock"), &at("run/other")));
    }
}
