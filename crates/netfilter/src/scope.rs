use std::collections::BTreeSet;

use crate::{ChainName, observed::target, render::iptables::quoted};

/// What belongs to one writer: it may create, change and remove these and nothing else.
///
/// Everything in scope can be recognised by a process with no memory: chains and sets by their names,
/// rules in shared chains by the chain they lead to, or by their comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    chains: Chains,
    /// Chains that are called alike, and not owned.
    but: Option<&'static str>,
    comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Chains {
    Prefixes(Vec<&'static str>),
    Named(BTreeSet<ChainName>),
}

impl Scope {
    /// All chains and sets whose names begin with `prefix`.
    pub fn prefix(prefix: &'static str) -> Self {
        Self::prefixes([prefix])
    }

    /// All chains and sets whose names begin with one of `prefixes`.
    pub fn prefixes(prefixes: impl IntoIterator<Item = &'static str>) -> Self {
        Self { chains: Chains::Prefixes(prefixes.into_iter().collect()), but: None, comment: None }
    }

    /// Just these chains.
    pub fn named(chains: impl IntoIterator<Item = ChainName>) -> Self {
        Self { chains: Chains::Named(chains.into_iter().collect()), but: None, comment: None }
    }

    /// Without the chains whose names begin with `prefix`.
    #[must_use]
    pub fn but(mut self, prefix: &'static str) -> Self {
        self.but = Some(prefix);
        self
    }

    /// And the rules in shared chains that carry this comment.
    #[must_use]
    pub fn with_comment(mut self, comment: &str) -> Self {
        self.comment = Some(comment.to_owned());
        self
    }

    pub(crate) fn owns_chain(&self, name: &str) -> bool {
        if self.but.is_some_and(|prefix| name.starts_with(prefix)) {
            return false;
        }
        match &self.chains {
            Chains::Prefixes(prefixes) => prefixes.iter().any(|prefix| name.starts_with(prefix)),
            Chains::Named(names) => names.contains(name),
        }
    }

    /// Sets are called as chains are; one may be about IPv6, or ranges, only, and a map may name the
    /// table whose chains it leads to.
    pub(crate) fn owns_set(&self, name: &str) -> bool {
        let name = name.split_once('/').map_or(name, |(_, name)| name);
        let name = name.strip_suffix("-6").or(name.strip_suffix("-r")).unwrap_or(name);
        self.owns_chain(name)
    }

    pub(crate) fn owns_rule(&self, rule: &str) -> bool {
        let says_so = |comment: &String| {
            rule.contains(&format!("--comment {} ", quoted(comment)))
                || rule.ends_with(&format!("comment \"{comment}\""))
        };
        target(rule).is_some_and(|chain| self.owns_chain(chain))
            || self.comment.as_ref().is_some_and(says_so)
    }
}
