//! What the running agent says of itself.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};

use super::Finding;
use crate::{
    Config,
    shadow::{Report, Shadow},
};

const PATIENCE: Duration = Duration::from_secs(5);

/// Of `/status`, what matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    enforcement: Enforcement,
    networker_repair: Option<Repairs>,
    server_failure: Option<String>,
    receipt_refused: Option<String>,
    state_file_failure: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Enforcement {
    held: Option<String>,
    enforced: Option<serde_json::Value>,
    of_former_run: bool,
    containers_failure: Option<String>,
    containers: u64,
    repairs: u64,
    policies_disabled: bool,
    shadow: Report,
    unguarded: Vec<String>,
    bypassed: Vec<String>,
    bypassed_in_part: Vec<String>,
    waiting: Option<Waiting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Repairs {
    failure: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    lock: String,
    holder: String,
    seconds: u64,
}

pub(super) fn examine(config: &Config) -> Finding {
    let foreseen = Shadow::foreseen(config.shadow, config.shadow_file());
    at(config.admin_address, &foreseen)
}

/// Of an agent that would watch what is `foreseen`, were it started now.
fn at(address: SocketAddr, foreseen: &Report) -> Finding {
    match ask(address, "/status") {
        Ok(body) => judge(&body, foreseen),
        Err(error) => Finding::broken(
            "agent",
            format!("{address} does not answer: {error}; does the agent run?"),
        ),
    }
}

/// What the agent that listens on `address` answers there.
pub(super) fn ask<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, ureq::Error> {
    // The agent is on this machine: a proxy in the environment is meant for something else.
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .proxy(None)
        .build()
        .new_agent();
    agent.get(format!("http://{address}{path}")).call()?.body_mut().read_json()
}

fn judge(body: &Body, foreseen: &Report) -> Finding {
    let Enforcement { held, enforced, containers, repairs, unguarded, waiting, .. } =
        &body.enforcement;
    if let Some(Waiting { lock, holder, seconds }) = waiting {
        let says =
            format!("it has waited {seconds} seconds for the lock {lock}, which {holder} holds");
        return Finding::broken("agent", says);
    }
    if let Some(held) = held {
        return Finding::broken("agent", format!("it leaves the rules as they are: {held}"));
    }
    if let Some(why) = &body.enforcement.containers_failure {
        let says = format!("it does not know which containers are here now: {why}");
        return Finding::broken("agent", says);
    }
    let failure = body.networker_repair.as_ref().and_then(|repairs| repairs.failure.as_deref());
    if let Some(first) = unguarded.first() {
        let failed = failure.map(|why| format!("; the networker it started could not: {why}"));
        let says = format!(
            "what the networker wrote is not whole; external-networker --action repair puts it right, \
             which the agent starts if networker_repair says how: {first}; in all: {}{}",
            unguarded.len(),
            failed.unwrap_or_default()
        );
        return Finding::broken("agent", says);
    }
    if let Some(first) = body.enforcement.bypassed.first() {
        return Finding::broken("agent", format!("containers may be open to the world: {first}"));
    }
    if let Some(why) = &body.receipt_refused {
        let says = format!(
            "the policy server confirms nothing of what it enforces: {why}; give each cell a cell_id of its own"
        );
        return Finding::broken("agent", says);
    }
    let modes =
        |report: &Report| (report.default_deny, report.later_removals, report.security_groups);
    if modes(&body.enforcement.shadow) != modes(foreseen) {
        let says = "it was started with another configuration: what it only watches (shadow) is not what the file \
                    says; restart it";
        return Finding::warning("agent", says);
    }
    if body.enforcement.policies_disabled {
        let says = "it runs with disable_container_network_policy: containers reach each other whatever policies say";
        return Finding::warning("agent", says);
    }
    let groups = "shadow mode: what no security group allows is let through".to_owned();
    let groups = body.enforcement.shadow.security_groups.then_some(groups);
    if let Some(lenient) = body.enforcement.shadow.policies_are_lenient().or(groups) {
        return Finding::warning("agent", format!("it runs in {lenient}"));
    }
    if body.enforcement.of_former_run {
        let failure = body.server_failure.as_deref().unwrap_or("it has not answered yet");
        let says = format!(
            "rules of a former run are in force until the policy server answers for the first time: {failure}"
        );
        return Finding::warning("agent", says);
    }
    if let Some(failure) = &body.server_failure {
        let says = format!("it enforces what it knows; no news of policies: {failure}");
        return Finding::warning("agent", says);
    }
    if let Some(failure) = &body.state_file_failure {
        let says = format!("what it enforces is not on disk, so a restart may undo it: {failure}");
        return Finding::warning("agent", says);
    }
    if let Some(why) = failure {
        let says = format!(
            "the networker, which it starts to repair what that wrote for containers (networker_repair), failed: {why}"
        );
        return Finding::warning("agent", says);
    }
    if enforced.is_none() {
        return Finding::warning("agent", "it has had no answer of the policy server yet");
    }
    if let Some(first) = body.enforcement.bypassed_in_part.first() {
        let says = format!("some packets of containers may go past their rules: {first}");
        return Finding::warning("agent", says);
    }
    let says = format!("it enforces the policies of {containers} containers; repairs: {repairs}");
    Finding::fine("agent", says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn judged(text: &str) -> Finding {
        let body: Body = serde_json::from_str(text).unwrap();
        let foreseen = body.enforcement.shadow.clone();
        judge(&body, &foreseen)
    }

    #[test]
    fn an_agent_that_holds_back_is_broken_and_one_without_news_is_not() {
        let held = judged(r#"{"enforcement":{"held":"no iptables","enforced":null}}"#);
        assert_eq!(held.verdict, Verdict::Broken);
        assert!(held.says.contains("no iptables"));
        let open = judged(r#"{"enforcement":{"enforced":{},"unguarded":["container web: gone"]}}"#);
        assert_eq!(open.verdict, Verdict::Broken);
        assert!(open.says.contains("container web: gone; in all: 1"), "{}", open.says);
        let failed = r#"{"enforcement":{"enforced":{},"unguarded":["container web: gone"]},"networker_repair":{"failure":"exit status: 3"}}"#;
        assert!(judged(failed).says.ends_with("could not: exit status: 3"), "{failed}");
        let failed =
            r#"{"enforcement":{"enforced":{}},"networker_repair":{"failure":"exit status: 3"}}"#;
        assert_eq!(judged(failed).verdict, Verdict::Warning);
        let bypassed =
            judged(r#"{"enforcement":{"enforced":{},"bypassed":["`-j ACCEPT` in FORWARD"]}}"#);
        assert_eq!(bypassed.verdict, Verdict::Broken);
        assert!(bypassed.says.ends_with("`-j ACCEPT` in FORWARD"), "{}", bypassed.says);
        let two = judged(
            r#"{"enforcement":{"enforced":{}},"receipt_refused":"two agents say they are cell-1"}"#,
        );
        assert_eq!(two.verdict, Verdict::Broken);
        assert!(two.says.contains("two agents say they are cell-1"), "{}", two.says);
        let in_part =
            judged(r#"{"enforcement":{"enforced":{},"bypassed_in_part":["`-p tcp -j ACCEPT`"]}}"#);
        assert_eq!(in_part.verdict, Verdict::Warning);
        assert!(in_part.says.ends_with("`-p tcp -j ACCEPT`"), "{}", in_part.says);
        let waits = judged(
            r#"{"enforcement":{"waiting":{"lock":"/l","holder":"process 7 (sh)","seconds":9}}}"#,
        );
        assert_eq!(waits.verdict, Verdict::Broken);
        assert!(waits.says.contains("9 seconds for the lock /l"), "{}", waits.says);
        let away = judged(r#"{"enforcement":{"enforced":{}},"server_failure":"no answer"}"#);
        assert_eq!(away.verdict, Verdict::Warning);
        assert_eq!(judged("{}").verdict, Verdict::Warning);
        let former = judged(r#"{"enforcement":{"of_former_run":true},"server_failure":"gone"}"#);
        assert_eq!(former.verdict, Verdict::Warning);
        assert!(former.says.contains("former run") && former.says.ends_with("gone"));
        let blind = judged(r#"{"enforcement":{"enforced":{},"containers_failure":"no JSON"}}"#);
        assert_eq!(blind.verdict, Verdict::Broken);
        let disk = judged(r#"{"enforcement":{"enforced":{}},"state_file_failure":"full"}"#);
        assert_eq!(disk.verdict, Verdict::Warning);
        let open = judged(r#"{"enforcement":{"enforced":{},"shadow":{"default_deny":true}}}"#);
        assert_eq!(open.verdict, Verdict::Warning);
        assert!(open.says.contains("what no policy allows is let through"), "{}", open.says);
        let open = judged(r#"{"enforcement":{"enforced":{},"policies_disabled":true}}"#);
        assert_eq!(open.verdict, Verdict::Warning);
        let well = judged(r#"{"enforcement":{"held":null,"enforced":{},"containers":3}}"#);
        assert_eq!(well.verdict, Verdict::Fine);
        assert!(well.says.contains("3 containers"));
    }

    #[test]
    fn an_agent_of_another_configuration_is_told() {
        let body: Body = serde_json::from_str(
            r#"{"enforcement":{"enforced":{},"shadow":{"later_removals":true}}}"#,
        )
        .unwrap();
        let told = judge(&body, &Report::default());
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.says.contains("started with another configuration"), "{}", told.says);
        let well: Body = serde_json::from_str(r#"{"enforcement":{"enforced":{}}}"#).unwrap();
        let foreseen = Report { default_deny: true, ..Report::default() };
        assert!(judge(&well, &foreseen).says.contains("another configuration"));
    }

    #[test]
    fn an_agent_that_does_not_run_is_told() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        assert_eq!(at(address, &Report::default()).verdict, Verdict::Broken);
    }
}
