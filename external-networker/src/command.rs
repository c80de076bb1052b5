//! The command line (spec/cell.md §A.1): Garden's extra arguments, then `--action` and `--handle`.

use std::path::PathBuf;

use gocompat::flags::{self, FlagError};
use thiserror::Error;

/// What is said to who asks.
pub(crate) const USAGE: &str = r#"Usage: external-networker --configFile FILE --action ACTION --handle HANDLE
       external-networker --configFile FILE --action repair [--handle HANDLE]
       external-networker --configFile FILE --action restore-store
       external-networker --version

A network plugin of Garden-runC (gdn server --network-plugin …): one run for each thing Garden wants done to
a container's network. Any other runtime, or a hand, may call it just so. What is wanted comes as JSON on
standard input, the answer goes to standard output as JSON, complaints to standard error.

  --configFile FILE  JSON; external-networker/README.md lists the keys
  --handle HANDLE    the container's name: letters, digits, `_`, `.` and `-`
  --action ACTION    one of these

action        what it does, and what it is told
up            connects a process's network namespace, lists it in the container store, waits for its policies
                {"Pid": 4711, "Properties": {"policy_group_id": "web"},
                 "netin": [{"host_port": 0, "container_port": 8080}],
                 "netout_rules": [{"protocol": 1, "networks": [{"start": "10.0.0.1", "end": "10.0.0.9"}],
                                   "ports": [{"start": 443, "end": 443}]}]}
down          takes all of that away; needs no input, and may be repeated
net-in        maps one more port of the host
                {"HostPort": 0, "ContainerPort": 8080}
net-out       lets the container send somewhere more
                {"netout_rule": {"protocol": 2, "networks": [{"start": "10.0.0.1", "end": "10.0.0.1"}],
                                 "ports": [{"start": 53, "end": 53}]}}
bulk-net-out  the same of many rules, {"netout_rules": [{…}, {…}]}: all or none
repair        puts right what others have done to the rules of containers that are up; needs no input
restore-store writes a container store that is lost or damaged anew from what is remembered of containers;
              needs no input. What only the store knew, such as entries made by hand, is not in the new one

Protocols: 0 all, 1 tcp, 2 udp, 3 icmp ("icmps": {"type": 8, "code": 0}), 4 icmpv6. Host port 0: any that is free.

Exit code: 0 it is done, 1 it is not, and after `up` nothing of it is left.

Example:
  ip netns add web
  ip netns exec web sleep infinity &
  printf '{"Pid": %s, "Properties": {"policy_group_id": "web"}}' "$(ip netns pids web)" |
    external-networker --configFile /etc/netman/external-networker.json --action up --handle web
"#;

/// What an action is given on standard input, and what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Up,
    Down,
    NetIn,
    NetOut,
    BulkNetOut,
}

/// What is asked for, and about which container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By Garden.
    Action(Action, String),
    /// By the policy agent, or an operator: to put rules right, of all containers if none is named.
    Repair(Option<String>),
    /// By an operator: to write the container store anew.
    RestoreStore,
}

/// The flags, as far as they can be checked without the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub config_file: PathBuf,
    rest: Vec<String>,
    handle: Option<String>,
    action: Option<String>,
}

/// A command line nothing can be done with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CommandError {
    #[error(
        "this is a network plugin of Garden-runC (gdn server --network-plugin …) and should not be run directly, \
         but to put right the rules it wrote for containers (--configFile FILE --action repair [--handle HANDLE]), \
         or in Garden's place: --help tells how"
    )]
    NotForYou,
    #[error("help is asked for")]
    Help,
    #[error(transparent)]
    Flag(FlagError),
    #[error("missing required flag '{0}'")]
    Missing(&'static str),
    #[error("unexpected extra args: {0:?}")]
    Extra(Vec<String>),
    #[error(
        "unrecognized action: {0}; there are up, down, net-in, net-out, bulk-net-out, repair and restore-store"
    )]
    Action(String),
}

impl Command {
    /// Reads the words after the program's name.
    pub fn parse(words: Vec<String>) -> Result<Self, CommandError> {
        if words.is_empty() {
            return Err(CommandError::NotForYou);
        }
        let parsed = match flags::parse(&["action", "handle", "configFile"], words) {
            Ok(parsed) => parsed,
            Err(FlagError::Help) => return Err(CommandError::Help),
            Err(error) => return Err(CommandError::Flag(error)),
        };
        let given = |flag| parsed.value(flag).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            config_file: given("configFile").ok_or(CommandError::Missing("configFile"))?.into(),
            handle: given("handle"),
            action: given("action"),
            rest: parsed.rest,
        })
    }

    /// What is to be done to which container; only to repair, none need be named. Asked for once the configuration has been read, which
    /// is the order in which the predecessor complains.
    pub fn asked(self) -> Result<Asked, CommandError> {
        if !self.rest.is_empty() {
            return Err(CommandError::Extra(self.rest));
        }
        match (self.action.as_deref(), &self.handle) {
            (Some("repair"), _) => return Ok(Asked::Repair(self.handle)),
            (Some("restore-store"), None) => return Ok(Asked::RestoreStore),
            (Some("restore-store"), Some(handle)) => {
                return Err(CommandError::Extra(vec!["--handle".to_owned(), handle.clone()]));
            }
            _ => {}
        }
        let handle = self.handle.ok_or(CommandError::Missing("handle"))?;
        let action = match self.action.ok_or(CommandError::Missing("action"))?.as_str() {
            "up" => Action::Up,
            "down" => Action::Down,
            "net-in" => Action::NetIn,
            "net-out" => Action::NetOut,
            "bulk-net-out" => Action::BulkNetOut,
            other => return Err(CommandError::Action(other.to_owned())),
        };
        Ok(Asked::Action(action, handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(PathBuf, Asked), String> {
        let words = line.split_whitespace().map(str::to_owned).collect();
        let command = Command::parse(words).map_err(|error| error.to_string())?;
        let config_file = command.config_file.clone();
        let asked = command.asked().map_err(|error| error.to_string())?;
        Ok((config_file, asked))
    }

    #[test]
    fn extra_arguments_come_first() {
        assert_eq!(
            read("--configFile=/etc/a.json --action up --handle web"),
            Ok(("/etc/a.json".into(), Asked::Action(Action::Up, "web".into())))
        );
        assert_eq!(
            read("-configFile a -action bulk-net-out -handle h"),
            Ok(("a".into(), Asked::Action(Action::BulkNetOut, "h".into())))
        );
    }

    #[test]
    fn all_containers_can_be_repaired_and_nothing_else_be_done_to_all() {
        let all = Ok(("a".into(), Asked::Repair(None)));
        assert_eq!(read("--configFile a --action repair"), all);
        let one = Ok(("a".into(), Asked::Repair(Some("h".into()))));
        assert_eq!(read("--configFile a --action repair --handle h"), one);
        assert_eq!(
            read("--configFile a --action restore-store"),
            Ok(("a".into(), Asked::RestoreStore))
        );
        assert!(read("--configFile a --action restore-store --handle h").is_err());
        let missing = Err("missing required flag 'handle'".to_owned());
        assert_eq!(read("--configFile a --action down"), missing);
    }

    #[test]
    fn complaints_are_worded_as_before() {
        let complaint = |line| read(line).unwrap_err();
        assert!(complaint("").contains("should not be run directly"));
        assert_eq!(complaint("--banana x"), "flag provided but not defined: -banana");
        assert_eq!(complaint("--action up"), "missing required flag 'configFile'");
        assert_eq!(complaint("--configFile x x y"), "unexpected extra args: [\"x\", \"y\"]");
        assert_eq!(complaint("--configFile x --action up"), "missing required flag 'handle'");
        assert_eq!(complaint("--configFile x --handle h"), "missing required flag 'action'");
        assert_eq!(
            complaint("--configFile x --handle h --action hop"),
            "unrecognized action: hop; there are up, down, net-in, net-out, bulk-net-out, repair and \
             restore-store"
        );
    }
}
