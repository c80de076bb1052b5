//! Command lines by the rules of Go's `flag` package: `-x v`, `--x v`, `-x=v` and `--x=v` all mean the
//! same; parsing ends at the first word that is no flag, or after `--`.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// What a command line said: the value of each known flag (the last one wins) and what was left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    values: BTreeMap<&'static str, String>,
    switches: BTreeSet<&'static str>,
    /// The words after the flags.
    pub rest: Vec<String>,
}

/// A command line Go would refuse, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlagError {
    /// `-h` or `--help`, where no such flag is known.
    #[error("flag: help requested")]
    Help,
    /// A flag nobody declared.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// A flag at the end of the line, its value missing.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A switch that is neither on nor off.
    #[error("invalid boolean value {value:?} for -{switch}: parse error")]
    Switch {
        /// Which switch.
        switch: &'static str,
        /// What it was set to.
        value: String,
    },
    /// A word such as `---` or `-=x`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
}

impl Parsed {
    /// The value of `flag`, if it was given.
    pub fn value(&self, flag: &str) -> Option<&str> {
        self.values.get(flag).map(String::as_str)
    }

    /// Whether `switch` is on.
    pub fn is_on(&self, switch: &str) -> bool {
        self.switches.contains(switch)
    }
}

/// Reads `words` (without the program's name), knowing `flags`, each of which takes a value.
pub fn parse(
    flags: &[&'static str],
    words: impl IntoIterator<Item = String>,
) -> Result<Parsed, FlagError> {
    parse_with(flags, &[], words)
}

/// [`parse`], knowing `switches`, too, which take a value only after `=`: `-x` is `-x=true`.
pub fn parse_with(
    flags: &[&'static str],
    switches: &[&'static str],
    words: impl IntoIterator<Item = String>,
) -> Result<Parsed, FlagError> {
    let mut parsed = Parsed::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(dashed) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            parsed.rest.push(word);
            break;
        };
        let flag = dashed.strip_prefix('-').unwrap_or(dashed);
        if flag.is_empty() {
            break; // the word was `--`
        }
        if flag.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(word));
        }
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if let Some(switch) = switches.iter().find(|known| **known == name) {
            if is_true(switch, inline.as_deref())? {
                parsed.switches.insert(switch);
            } else {
                parsed.switches.remove(switch);
            }
            continue;
        }
        let Some(known) = flags.iter().find(|known| **known == name) else {
            let help = matches!(name, "h" | "help");
            return Err(if help { FlagError::Help } else { FlagError::Unknown(name.to_owned()) });
        };
        let value = inline.or_else(|| words.next());
        parsed.values.insert(known, value.ok_or_else(|| FlagError::NoValue(name.to_owned()))?);
    }
    parsed.rest.extend(words);
    Ok(parsed)
}

/// [`parse_with`] for commands of our own, whose flags may stand among and behind the other words.
pub fn parse_anywhere(
    flags: &[&'static str],
    switches: &[&'static str],
    words: impl IntoIterator<Item = String>,
) -> Result<Parsed, FlagError> {
    let mut words: Vec<_> = words.into_iter().collect();
    let dashes = words.iter().position(|word| word == "--");
    let behind = dashes.map(|place| words.split_off(place)).unwrap_or_default();
    let mut all = Parsed::default();
    while !words.is_empty() {
        let Parsed { values, switches, rest } = parse_with(flags, switches, words)?;
        all.values.extend(values);
        all.switches.extend(switches);
        let mut rest = rest.into_iter();
        all.rest.extend(rest.next());
        words = rest.collect();
    }
    all.rest.extend(behind.into_iter().skip(1));
    Ok(all)
}

/// The words Go's `strconv.ParseBool` knows.
fn is_true(switch: &'static str, value: Option<&str>) -> Result<bool, FlagError> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(FlagError::Switch { switch, value: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Parsed, FlagError> {
        parse(&["action", "configFile"], line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_four_spellings_mean_the_same() {
        for line in ["-action up", "--action up", "-action=up", "--action=up"] {
            assert_eq!(read(line).unwrap().value("action"), Some("up"), "{line}");
        }
        assert_eq!(read("--action= x").unwrap().value("action"), Some(""));
        assert_eq!(read("-action a -action b").unwrap().value("action"), Some("b"));
    }

    #[test]
    fn parsing_ends_at_the_first_other_word() {
        let parsed = read("-action up extra -configFile x").unwrap();
        assert_eq!(parsed.rest, ["extra", "-configFile", "x"]);
        assert_eq!(parsed.value("configFile"), None);
        assert_eq!(read("-- -action up").unwrap().rest, ["-action", "up"]);
        assert_eq!(read("-").unwrap().rest, ["-"]);
    }

    #[test]
    fn flags_of_our_own_commands_may_stand_anywhere() {
        let read = |line: &str| {
            parse_anywhere(&["from"], &["json"], line.split_whitespace().map(str::to_owned))
        };
        let parsed = read("--from x web db --json 8080 -from=y -- --z").unwrap();
        assert_eq!(parsed.rest, ["web", "db", "8080", "--z"]);
        assert_eq!((parsed.value("from"), parsed.is_on("json")), (Some("y"), true));
        assert_eq!(read("web db 80 --bogus"), Err(FlagError::Unknown("bogus".into())));
        assert_eq!(read("web db 80 --from"), Err(FlagError::NoValue("from".into())));
        assert_eq!(read("web --help"), Err(FlagError::Help));
    }

    #[test]
    fn faults_are_told_in_gos_words() {
        let fault = |line| read(line).unwrap_err().to_string();
        assert_eq!(fault("--bogus"), "flag provided but not defined: -bogus");
        assert_eq!(fault("--Action x"), "flag provided but not defined: -Action");
        assert_eq!(fault("--action"), "flag needs an argument: -action");
        assert_eq!(fault("---action"), "bad flag syntax: ---action");
        assert_eq!(read("-h"), Err(FlagError::Help));
        assert_eq!(read("--help"), Err(FlagError::Help));
    }

    #[test]
    fn a_switch_takes_no_word_after_it() {
        let read = |line: &str| {
            let words = line.split_whitespace().map(str::to_owned);
            parse_with(&["config-file"], &["all"], words)
        };
        let parsed = read("--all -config-file x").unwrap();
        assert!(parsed.is_on("all"));
        assert_eq!(parsed.value("config-file"), Some("x"));
        assert!(!read("-all -all=false").unwrap().is_on("all"));
        assert!(!read("").unwrap().is_on("all"));
        assert_eq!(
            read("-all=maybe").unwrap_err().to_string(),
            "invalid boolean value \"maybe\" for -all: parse error"
        );
    }
}
