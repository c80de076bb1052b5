//! What the running agent says of security groups, if it keeps them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Finding, agent};
use crate::Config;

const NAME: &str = "groups";

/// Of `/status/security-groups`, what matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    held: Option<String>,
    server_failure: Option<String>,
    containers: BTreeMap<String, Value>,
}

/// Nothing of an agent that does not answer: that is told already.
pub(super) fn examine(config: &Config) -> Option<Finding> {
    let is_kept = config.enable_groups;
    is_kept.then(|| agent::ask(config.admin_address, "/status/security-groups"))?.ok().map(judge)
}

fn judge(body: Body) -> Finding {
    let Body { held, server_failure, containers } = body;
    if let Some(held) = held {
        let says = format!("security groups are left as they are: {held}");
        return Finding::broken(NAME, says);
    }
    let failed = containers.iter().filter_map(|(handle, standing)| {
        // `{"kept": why}` or `{"unplaced": why}`.
        let why = standing.as_object()?.values().next()?;
        Some(format!("{handle}: {}", why.as_str().unwrap_or_default()))
    });
    let failed: Vec<_> = failed.collect();
    if let Some(first) = failed.first() {
        let says = format!(
            "security groups are not enforced for {} of {} containers, which keep what they have: {first}",
            failed.len(),
            containers.len()
        );
        return Finding::broken(NAME, says);
    }
    if let Some(why) = server_failure {
        let says =
            format!("the agent enforces the security groups it knows; no news of them: {why}");
        return Finding::warning(NAME, says);
    }
    let unknown = containers.values().filter(|standing| *standing == "unknown").count();
    if unknown > 0 {
        let says = format!(
            "the security groups of {unknown} containers are not told yet; they keep what they have"
        );
        return Finding::warning(NAME, says);
    }
    let says = format!("security groups are enforced for {} containers", containers.len());
    Finding::fine(NAME, says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_container_whose_groups_are_not_enforced_is_named() {
        let judged = |text: &str| {
            let Finding { verdict, says, .. } = judge(serde_json::from_str(text).unwrap());
            (verdict, says)
        };
        let (verdict, says) = judged(
            r#"{"containers":{"a":"enforced","b":{"kept":"group 7: no address"},"c":"unknown"}}"#,
        );
        assert_eq!(verdict, Verdict::Broken);
        assert!(
            says.contains("1 of 3 containers") && says.ends_with("b: group 7: no address"),
            "{says}"
        );
        assert_eq!(judged(r#"{"held":"no lock"}"#).0, Verdict::Broken);
        assert_eq!(judged(r#"{"server_failure":"no answer"}"#).0, Verdict::Warning);
        assert_eq!(judged(r#"{"containers":{"a":"unknown"}}"#).0, Verdict::Warning);
        assert_eq!(judged(r#"{"containers":{"a":"enforced"}}"#).0, Verdict::Fine);
    }
}
