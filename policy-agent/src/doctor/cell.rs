//! What the cell's files say, which the agent can do nothing without: its block of the overlay, and its
//! containers. And who puts back what the networker wrote for these.

use std::{env, path::Path};

use containers::{Container, Contents, Store, StoreError};
use ipnet::Ipv6Net;
use nix::unistd::{AccessFlags, access};
use policy::CellSubnet;
use service::log::chain;

use super::Finding;
use crate::{Config, world};

/// The containers in the store; `None` if there is no store, or nothing in it.
pub(super) type Stored = Option<Result<Contents, StoreError>>;

pub(super) fn stored(config: &Config) -> Stored {
    let store = Store::at(&config.datastore);
    (!store.is_blank()).then(|| store.read())
}

pub(super) fn examine(config: &Config, stored: &Stored) -> Vec<Finding> {
    let read = config.subnet.read().map_err(|error| chain(&error));
    let addresses = read.as_ref().ok().and_then(|known| addresses(known, stored));
    let mut findings = vec![subnet(read), containers(&config.datastore, stored)];
    findings.extend(addresses);
    findings.extend(disputed(stored, config.second_network));
    findings.push(repair(config.networker_repair.first().map(String::as_str)));
    findings
}

fn subnet(subnet: Result<CellSubnet, String>) -> Finding {
    match subnet {
        Ok(CellSubnet { block, overlay, .. }) => Finding::fine(
            "subnet",
            format!("containers here are in {block}, all of them in {overlay}"),
        ),
        Err(why) => Finding::broken("subnet", format!("{why}; without it no rule is written")),
    }
}

fn containers(path: &Path, stored: &Stored) -> Finding {
    const NAME: &str = "containers";
    let path = path.display();
    match stored {
        None => Finding::unknown(
            NAME,
            format!(
                "there is no store {path}, or nothing in it; the networker writes it with the first container. It is \
                 cni_datastore_path here, and datastore in the networker's configuration. If containers are here, \
                 external-networker --action restore-store writes it anew"
            ),
        ),
        Some(Err(error)) => Finding::broken(NAME, chain(error)),
        Some(Ok(Contents { containers, faults })) => match faults.first() {
            None => Finding::fine(
                NAME,
                format!("{} in {path}{}", containers.len(), anonymous(containers)),
            ),
            Some(first) => {
                let says = format!(
                    "{} in {path} can be understood, {} cannot, and get no policies: {first}",
                    containers.len(),
                    faults.len()
                );
                Finding::warning(NAME, says)
            }
        },
    }
}

/// No policy can be about a container without an app.
fn anonymous(containers: &[Container]) -> String {
    let mut anonymous = containers.iter().filter(|one| one.policy_group_id().is_none());
    match (anonymous.next(), anonymous.count()) {
        (None, _) => String::new(),
        (Some(first), 0) => format!(", of which {} has no policy_group_id", first.handle),
        (Some(first), more) => {
            format!(", of which {} and {more} more have no policy_group_id", first.handle)
        }
    }
}

/// Whether containers are where other cells look for them. Nothing if it is not known which there are,
/// which is said elsewhere.
fn addresses(subnet: &CellSubnet, stored: &Stored) -> Option<Finding> {
    const NAME: &str = "addresses";
    let Some(Ok(Contents { containers, .. })) = stored else { return None };
    let block = subnet.block;
    let mut outside = containers.iter().filter(|one| !block.contains(&one.ip));
    let Some(first) = outside.next() else {
        return Some(Finding::fine(NAME, format!("all containers are in {block}")));
    };
    let says = format!(
        "{} at {} is outside of this cell's block {block}, where other cells do not find it; in all: {}; is the \
         container store, or the subnet file, another cell's?",
        first.handle,
        first.ip,
        1 + outside.count()
    );
    Some(Finding::warning(NAME, says))
}

/// Whether several apps are said to be at one address, of which nobody can tell whose packets those are.
fn disputed(stored: &Stored, second_network: Option<Ipv6Net>) -> Option<Finding> {
    let Some(Ok(contents)) = stored else { return None };
    let disputed = world::disputed(contents, second_network);
    let (first, there) = disputed.first_key_value()?;
    let says = format!(
        "the container store has {} at {first}, so policies let nothing in or out there; such addresses in all: \
         {}; take down those that are gone",
        there.join(" and "),
        disputed.len()
    );
    Some(Finding::broken("shared addresses", says))
}

/// Whether there is the program that is started to repair.
fn repair(program: Option<&str>) -> Finding {
    const NAME: &str = "networker repair";
    let Some(program) = program else {
        let says = "networker_repair names no program, so what somebody takes away of the networker's rules is \
                    told, and not put back";
        return Finding::unknown(NAME, says);
    };
    let folders = match program.contains('/') {
        true => Vec::new(),
        false => env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect(),
    };
    let mut places: Vec<_> = folders.iter().map(|folder| folder.join(program)).collect();
    if places.is_empty() {
        places.push(program.into());
    }
    let can_run = |place: &&std::path::PathBuf| {
        place.is_file() && access(place.as_path(), AccessFlags::X_OK).is_ok()
    };
    match places.iter().find(can_run) {
        Some(found) => Finding::fine(NAME, format!("{} is started for it", found.display())),
        None => {
            let says = format!(
                "networker_repair names {program}, which cannot be run; nothing is put back"
            );
            Finding::broken(NAME, says)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn without_its_block_a_cell_is_broken() {
        assert_eq!(subnet(Err("there is no subnet file".into())).verdict, Verdict::Broken);
        let block = "10.255.30.0/24".parse().unwrap();
        let known = CellSubnet::new("10.255.0.0/16".parse().unwrap(), block, 1450);
        let told = subnet(Ok(known));
        assert_eq!(told.verdict, Verdict::Fine);
        assert!(told.says.contains("10.255.30.0/24"), "{}", told.says);
    }

    #[test]
    fn a_store_is_missing_damaged_doubtful_or_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.json");
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            containers(&path, &Some(Store::at(&path).read()))
        };
        assert_eq!(containers(&path, &None).verdict, Verdict::Unknown);
        assert_eq!(told("{\"web\":").verdict, Verdict::Broken);
        let doubtful = told(r#"{"web": 7}"#);
        assert_eq!(doubtful.verdict, Verdict::Warning);
        assert!(doubtful.says.contains("1 cannot"), "{}", doubtful.says);
        assert_eq!(told("{}").verdict, Verdict::Fine);
        let shut = told(r#"{"web": {"handle": "web", "ip": "10.255.30.2", "metadata": {}}}"#);
        assert!(shut.says.ends_with("of which web has no policy_group_id"), "{}", shut.says);
    }

    #[test]
    fn containers_outside_of_the_block_are_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.json");
        let block = "10.255.30.0/24".parse().unwrap();
        let subnet = CellSubnet::new("10.255.0.0/16".parse().unwrap(), block, 1450);
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            addresses(&subnet, &Some(Store::at(&path).read()))
        };
        assert_eq!(addresses(&subnet, &None), None);
        assert_eq!(told("{\"web\":"), None);
        let inside = r#""in": {"handle": "in", "ip": "10.255.30.2"}"#;
        assert_eq!(told(&format!("{{{inside}}}")).unwrap().verdict, Verdict::Fine);
        let outside = r#""a": {"handle": "a", "ip": "10.255.31.2"},
            "b": {"handle": "b", "ip": "10.255.31.3"}"#;
        let told = told(&format!("{{{inside}, {outside}}}")).unwrap();
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.says.starts_with("a at 10.255.31.2 is outside of"), "{}", told.says);
        assert!(told.says.contains("in all: 2;"), "{}", told.says);
    }

    #[test]
    fn an_address_of_several_apps_is_told_with_who_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.json");
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            disputed(&Some(Store::at(&path).read()), None)
        };
        let one = |handle: &str, app: &str| {
            let metadata = format!(r#"{{"policy_group_id": "{app}"}}"#);
            let entry =
                format!(r#"{{"handle": "{handle}", "ip": "10.255.30.2", "metadata": {metadata}}}"#);
            format!(r#""{handle}": {entry}"#)
        };
        assert_eq!(told(&format!("{{{}, {}}}", one("a", "web"), one("b", "web"))), None);
        let two = told(&format!("{{{}, {}}}", one("a", "web"), one("b", "db"))).unwrap();
        assert_eq!(two.verdict, Verdict::Broken);
        let there = "the container store has a of app web and b of app db at 10.255.30.2,";
        assert!(two.says.starts_with(there), "{}", two.says);
    }

    #[test]
    fn a_program_that_cannot_be_run_repairs_nothing() {
        assert_eq!(repair(None).verdict, Verdict::Unknown);
        assert_eq!(repair(Some("sh")).verdict, Verdict::Fine);
        assert_eq!(repair(Some("/bin/sh")).verdict, Verdict::Fine);
        assert_eq!(repair(Some("/does/not/exist")).verdict, Verdict::Broken);
        assert_eq!(repair(Some("/etc/passwd")).verdict, Verdict::Broken);
    }
}
