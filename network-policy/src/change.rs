//! `add-policy` and `remove-policy`.

use std::{io::Write, time::Duration};

use policy::{Policy, Version};
use policy_client::external::Client;
use serde::Serialize;

use crate::{
    args::ChangeArgs,
    failure::{Failure, Unconfirmed},
    progress::Progress,
    receipts::Receipt,
    verb::Verb,
    wait::{Last, Waited, wait},
    watch::{self, Watch, between},
    words,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The answer for scripts. Its shape is promised.
#[derive(Serialize)]
struct Answer<'a> {
    /// `<life>.<revision>` of the change; null from a server that knows no revisions.
    revision: Option<String>,
    /// Whether there was anything to remove; only of `remove-policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    existed: Option<bool>,
    /// The cells concerned; empty without `--wait`.
    cells: &'a [Receipt],
    /// Null without `--wait`.
    waited_ms: Option<u128>,
}

pub(crate) fn run(
    client: &Client,
    verb: Verb,
    args: ChangeArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let ChangeArgs { source, destination, protocol, port, wait, timeout } = args;
    let policy = Policy { source, destination, protocol, ports: port };
    let one = std::slice::from_ref(&policy);
    // A change that is made, and then not watched, would be worse than none.
    let was_there = match wait {
        true => watch::may_ask(client, &policy).map_err(Failure::MayNotWatch)?,
        false => false,
    };
    let (version, before) = match verb {
        Verb::Add => (client.create(one), None),
        // Removing what is not there is a success to the server; a person may have meant another.
        Verb::Remove => {
            let before = client.list(&between(&policy)).map_err(Failure::Client)?;
            (client.delete(one), Some(before))
        }
    };
    let version = version.map_err(Failure::Client)?;
    let before = before.as_deref();
    let mut say = Say { json, version: version.as_ref(), was_there, before, out };
    // A reader that is gone does not shorten the waiting: others may look at the exit code.
    let told = say.change(verb, &policy);
    if !wait {
        return told.and_then(|()| say.end(&policy, None));
    }
    let Some(change) = &version else {
        told.and_then(|()| say.end(&policy, None))?;
        return Err(Failure::Unconfirmed(Unconfirmed::NoRevision));
    };
    let timeout = timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let waited = watched(client, change, verb, &policy, timeout)?;
    told.and_then(|()| say.end(&policy, Some(&waited)))?;
    match waited.last {
        Last::Confirmed(_) => Ok(()),
        Last::Standing(standing) => {
            let unconfirmed = Unconfirmed::of(verb, standing, waited.took);
            Err(Failure::Unconfirmed(unconfirmed))
        }
        Last::Silence(source) => {
            Err(Failure::Unconfirmed(Unconfirmed::Silence { took: waited.took, source }))
        }
    }
}

fn watched(
    client: &Client,
    change: &Version,
    verb: Verb,
    policy: &Policy,
    timeout: Duration,
) -> Result<Waited, Failure> {
    let mut watch = match verb {
        Verb::Add => Watch::added(client, change, policy),
        Verb::Remove => Watch::removed(client, change, policy),
    };
    let mut progress = Progress::start();
    let waited = wait(timeout, |look| watch.look(look), |look, seen| progress.show(look, seen));
    waited.map_err(|source| Failure::Watching { source })
}

/// The answer to a person or to a script.
struct Say<'a> {
    json: bool,
    version: Option<&'a Version>,
    /// Whether the policy is known to have been there before.
    was_there: bool,
    /// What there was between the two apps, if something is removed.
    before: Option<&'a [Policy]>,
    out: &'a mut dyn Write,
}

impl Say<'_> {
    /// What was done, at once; a script is told everything in the end, in one document.
    fn change(&mut self, verb: Verb, policy: &Policy) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let text = self.done(verb, policy);
        self.line(&text)
    }

    /// How the waiting ended, if there was any.
    fn end(&mut self, policy: &Policy, waited: Option<&Waited>) -> Result<(), Failure> {
        if self.json {
            let text = self.as_json(policy, waited);
            return self.line(&text);
        }
        // What is missing is for standard error to say.
        let Some(Waited { last: Last::Confirmed(receipts), took }) = waited else { return Ok(()) };
        self.line(&in_force(policy, receipts, *took))
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).map_err(Failure::Output)
    }

    fn as_json(&self, policy: &Policy, waited: Option<&Waited>) -> String {
        let cells = match waited.map(|waited| &waited.last) {
            Some(Last::Confirmed(receipts)) => receipts,
            Some(Last::Standing(standing)) => standing.receipts(),
            Some(Last::Silence(_)) | None => &[],
        };
        let answer = Answer {
            revision: self.version.map(ToString::to_string),
            existed: self.before.map(|before| before.contains(policy)),
            cells,
            waited_ms: waited.map(|waited| waited.took.as_millis()),
        };
        serde_json::to_string(&answer).expect("the answer has text keys")
    }

    fn done(&self, verb: Verb, policy: &Policy) -> String {
        let named = words::policy(policy);
        match (verb, self.before) {
            (Verb::Add, _) if self.was_there => format!("There was {named} already."),
            (Verb::Add, _) => format!("Allowed {named}."),
            (Verb::Remove, Some(before)) if !before.contains(policy) => {
                let others: Vec<_> = before.iter().map(words::policy).collect();
                let others = match &others[..] {
                    [] => "There is none between the two.".to_owned(),
                    some => format!("There is {}.", some.join("; ")),
                };
                format!("There was no {named}, so nothing was removed. {others}")
            }
            (Verb::Remove, _) => format!("Removed {named}."),
        }
    }
}

fn in_force(policy: &Policy, receipts: &[Receipt], took: Duration) -> String {
    if receipts.is_empty() {
        let [source, destination] =
            [&policy.source, &policy.destination].map(|app| words::shown(app.as_str()));
        return format!("No cell runs {source} or {destination}, so nobody need confirm it.");
    }
    format!("Enforced by {} after {}.", words::cells(receipts.len()), words::took(took))
}
