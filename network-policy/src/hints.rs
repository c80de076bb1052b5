//! What people say who know `cf`, its former plugin or other programs, and what it is called here. What
//! is only misspelt, the parser knows by itself.

use clap::error::{ContextKind, ContextValue, Error};

/// Names of commands elsewhere. By their letters, the parser takes `network-policies` for `remove-policy`.
const ELSEWHERE: [(&str, &str); 12] = [
    ("add-network-policy", "add-policy"),
    ("allow-access", "add-policy"),
    ("allow", "add-policy"),
    ("create-policy", "add-policy"),
    ("remove-network-policy", "remove-policy"),
    ("remove-access", "remove-policy"),
    ("deny-access", "remove-policy"),
    ("deny", "remove-policy"),
    ("delete-policy", "remove-policy"),
    ("network-policies", "policies"),
    ("list-access", "policies"),
    ("list", "policies"),
];

/// The same error, with the command that was meant in the place of the parser's guess.
pub(crate) fn with_hint(mut error: Error) -> Error {
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if let Some((_, meant)) = ELSEWHERE.iter().find(|(elsewhere, _)| elsewhere == said) {
        let meant = ContextValue::Strings(vec![(*meant).to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, meant);
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::Args;

    fn hint(line: &[&str]) -> String {
        let line = ["network-policy"].iter().chain(line);
        let error = with_hint(Args::try_parse_from(line).err().unwrap());
        let text = error.to_string();
        text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).unwrap_or("").to_owned()
    }

    #[test]
    fn names_from_elsewhere_are_translated() {
        for (said, meant) in ELSEWHERE {
            assert!(Args::command().find_subcommand(meant).is_some(), "there is no {meant}");
            assert_eq!(hint(&[said]), format!("a similar subcommand exists: '{meant}'"));
        }
    }

    #[test]
    fn misspelt_words_are_recognised() {
        assert_eq!(hint(&["add-polcy"]), "a similar subcommand exists: 'add-policy'");
        assert_eq!(hint(&["statu", "web"]), "a similar subcommand exists: 'status'");
        let with_flag = |flag| hint(&["add-policy", "web", "db", flag]);
        assert_eq!(with_flag("--protocl"), "a similar argument exists: '--protocol'");
        assert_eq!(with_flag("--ports"), "a similar argument exists: '--port'");
        assert_eq!(with_flag("--jsn"), "a similar argument exists: '--json'");
        assert_eq!(hint(&["completions", "bsh"]), "a similar value exists: 'bash'");
        assert_eq!(hint(&["sing"]), "", "there is nothing like it");
    }
}
