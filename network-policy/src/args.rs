//! What can be said on the command line, and the help that teaches it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use policy::{AppGuid, PortRange, Protocol};

use crate::words;

const OVERVIEW: &str = "\
Says which apps may open connections to which, and asks who enforces it.

Nothing is allowed between containers that no policy allows. A policy names a source app, a
destination app, a protocol and one port, or a range of ports, of the destination. It is in force
for all containers of both apps, on all cells, within moments; --wait says when.

Apps are named by their GUIDs, or by whatever else the server knows them by.";

const EXAMPLES: &str = "\
Examples:
  # Tell network-policy where the server is and who you are, once:
  export NETWORK_POLICY_SERVER=http://127.0.0.1:4002
  export NETWORK_POLICY_TOKEN=$(policy-server token --scope network.admin --subject me)

  # Let web open connections to db, and return when every cell concerned enforces it:
  network-policy add-policy web db --protocol tcp --port 5432 --wait

  # What may web talk to?
  network-policy policies --source web

  # Take it back:
  network-policy remove-policy web db --protocol tcp --port 5432

  # On Cloud Foundry, with the apps' GUIDs:
  export NETWORK_POLICY_SERVER=https://api.example.org NETWORK_POLICY_TOKEN=$(cf oauth-token)
  network-policy add-policy $(cf app web --guid) $(cf app db --guid) --protocol tcp --port 5432";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the server refused, or answered something that makes no sense
  2  the arguments cannot be used
  3  the server cannot be reached
  4  not authorized: no token, an empty one, or one that is not good for this
  5  --wait: the change is stored, but not every cell confirmed it in time";

// Usages are written out: by itself, the parser counts what the environment gives among what is needed.
const ADD_USAGE: &str =
    "network-policy add-policy [OPTIONS] --protocol <tcp|udp> --port <N[-M]> <SRC> <DST>";
const REMOVE_USAGE: &str =
    "network-policy remove-policy [OPTIONS] --protocol <tcp|udp> --port <N[-M]> <SRC> <DST>";

const ADD_EXAMPLES: &str = "\
Examples:
  # One port:
  network-policy add-policy web db --protocol tcp --port 5432

  # A range, and wait at most ten seconds until it is in force everywhere:
  network-policy add-policy web cache --protocol udp --port 7000-7010 --wait --timeout 10

  # For scripts: {\"revision\":\"…\",\"cells\":[…],\"waited_ms\":42}
  network-policy add-policy web db --protocol tcp --port 5432 --wait --json

Adding a policy that exists changes nothing and succeeds.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  network-policy remove-policy web db --protocol tcp --port 5432

  # Return when no cell lets it through any more, open connections included:
  network-policy remove-policy web db --protocol tcp --port 5432 --wait

The protocol and the ports must be those of the policy: removing port 7005 takes nothing away from
a policy for 7000-7010. Removing a policy that does not exist changes nothing and succeeds.
`network-policy policies` shows what there is.";

const POLICIES_EXAMPLES: &str = "\
Examples:
  # Everything you may see:
  network-policy policies

  # What web may talk to; who may talk to db; both ends at once:
  network-policy policies --source web
  network-policy policies --destination db
  network-policy policies --source web --destination db

  # Everything about web, as the JSON of the server's API:
  network-policy policies --app web --json

The scope network.admin sees all policies, network.write those between apps in spaces of yours. A
server without Cloud Controller knows of no spaces, and shows network.write none.";

const STATUS_EXAMPLES: &str = "\
Examples:
  # On how many cells is each policy of web in force, which ones are late, and why?
  network-policy status web

  # How are the cells that run web or db: what do they enforce, and what troubles them?
  network-policy status web db --cells

  # For scripts: the JSON of the server's API
  network-policy status --json

Needs the scope network.admin. A policy concerns the cells that run one of its two apps.";

const AUDIT_EXAMPLES: &str = "\
Examples:
  # The last twenty changes:
  network-policy audit

  # Who opened what to db, lately?
  network-policy audit --last 1000 | grep ' created .* db '

  # For scripts: the JSON of the server's API, with ids, revisions and the ids of requests
  network-policy audit --json

Needs the scope network.admin. Adding what exists and removing what does not is no change.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  network-policy completions bash > /etc/bash_completion.d/network-policy
  network-policy completions zsh > \"${fpath[1]}/_network-policy\"
  network-policy completions fish > ~/.config/fish/completions/network-policy.fish";

/// Says which apps may open connections to which, and asks who enforces it
#[derive(Parser)]
#[command(
    name = "network-policy",
    version,
    override_usage = "network-policy [OPTIONS] <COMMAND>",
    long_about = OVERVIEW,
    after_help = EXIT_CODES,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}")
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print the answer as JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print the causes of an error as well
    #[arg(long, short, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
}

/// Where the server is, and who is asking.
#[derive(clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Address of the policy server
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "NETWORK_POLICY_SERVER",
        default_value = "http://127.0.0.1:4002"
    )]
    pub(crate) server: String,
    /// Bearer token; better in the environment, since others can see arguments
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "NETWORK_POLICY_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// File with the bearer token; goes before --token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with the authority behind the server's certificate, instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Let one app open connections to another
    #[command(override_usage = ADD_USAGE, after_help = ADD_EXAMPLES)]
    AddPolicy(ChangeArgs),
    /// Take a policy back, and cut the connections it allowed
    #[command(override_usage = REMOVE_USAGE, after_help = REMOVE_EXAMPLES)]
    RemovePolicy(ChangeArgs),
    /// List policies
    #[command(override_usage = "network-policy policies [OPTIONS]", after_help = POLICIES_EXAMPLES)]
    Policies(PoliciesArgs),
    /// Tell where policies are in force, and where not yet
    #[command(override_usage = "network-policy status [OPTIONS] [APP]...", after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Tell who changed what, when and from where
    #[command(override_usage = "network-policy audit [OPTIONS]", after_help = AUDIT_EXAMPLES)]
    Audit(AuditArgs),
    /// Print a script that completes commands and options in your shell
    #[command(override_usage = "network-policy completions <SHELL>", after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(clap::Args)]
pub(crate) struct ChangeArgs {
    /// The app that opens connections
    #[arg(value_name = "SRC", value_parser = words::app)]
    pub(crate) source: AppGuid,
    /// The app that is connected to
    #[arg(value_name = "DST", value_parser = words::app)]
    pub(crate) destination: AppGuid,
    /// tcp or udp
    #[arg(long, value_name = "tcp|udp", value_parser = words::Protocols, hide_possible_values = true)]
    pub(crate) protocol: Protocol,
    /// Port of the destination, or a range of ports such as 7000-7010
    #[arg(long, value_name = "N[-M]", value_parser = words::ports)]
    pub(crate) port: PortRange,
    /// Return when every cell concerned enforces the change; needs the scope network.admin
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long [default: 60]
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "wait",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub(crate) timeout: Option<u64>,
}

#[derive(clap::Args)]
pub(crate) struct PoliciesArgs {
    /// Only policies from this app; may be repeated
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    pub(crate) source: Vec<AppGuid>,
    /// Only policies to this app; may be repeated
    #[arg(long, value_name = "APP", value_delimiter = ',')]
    pub(crate) destination: Vec<AppGuid>,
    /// Only policies with this app at either end; may be repeated
    #[arg(long, value_name = "APP", value_delimiter = ',', conflicts_with_all = ["source", "destination"])]
    pub(crate) app: Vec<AppGuid>,
}

#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// Only policies with one of these apps at either end
    #[arg(value_name = "APP", value_delimiter = ',')]
    pub(crate) apps: Vec<AppGuid>,
    /// Tell of cells instead: all, or those that run one of the apps
    #[arg(long)]
    pub(crate) cells: bool,
}

#[derive(Clone, Copy, clap::Args)]
pub(crate) struct AuditArgs {
    /// How many changes to tell of, the newest first
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub(crate) last: u32,
    /// Only changes older than this one, by its id
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) before: Option<u64>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
