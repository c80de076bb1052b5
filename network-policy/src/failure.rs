//! What can go wrong, what to do about it, and what a script is told: the one place with exit codes.

use std::{error::Error, fmt::Write, io, path::PathBuf, process::ExitCode, time::Duration};

use policy_client::external::{ClientError, SettingsError, TokenError};
use thiserror::Error;

use crate::{
    connection,
    receipts::{Receipt, Standing},
    stragglers,
    verb::Verb,
    words,
};

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NOT_AUTHORIZED: u8 = 4;
const UNCONFIRMED: u8 = 5;

/// The code for arguments that cannot be used.
pub(crate) fn usage() -> ExitCode {
    ExitCode::from(USAGE)
}

/// Why the program did not do what it was asked. `--verbose` adds the causes.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("there is no token to say who you are")]
    NoToken,
    #[error("{0}")]
    Token(TokenError),
    #[error("the token cannot be read from {}: {source}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("{}", unusable(.0))]
    Settings(#[source] SettingsError),
    #[error("{}", in_short(.0))]
    Client(#[source] ClientError),
    /// Nothing was changed, since nobody would be told who enforces it.
    #[error("{}", not_watched(.0))]
    MayNotWatch(#[source] ClientError),
    /// The change is made, but the server does not tell who enforces it.
    #[error("the change is stored, but who enforces it is not known: {}", in_short(source))]
    Watching { source: ClientError },
    #[error("{0}")]
    Unconfirmed(#[source] Unconfirmed),
    #[error("the answer cannot be written: {0}")]
    Output(#[source] io::Error),
}

/// The change is stored; this is why it cannot be said to be in force.
#[derive(Debug, Error)]
pub(crate) enum Unconfirmed {
    #[error("the change is stored, but this server does not say which cells enforce it")]
    NoRevision,
    #[error(
        "the change was stored, but the server's database was replaced while waiting: \
         it may be lost"
    )]
    OtherLife,
    #[error("the change is stored, but the server did not take it in within {}", words::took(*took))]
    ServerBehind { took: Duration },
    #[error(
        "the change is stored, but since the server started it has not heard of every cell; waited \
         for {}",
        words::took(*took)
    )]
    Incomplete { took: Duration },
    #[error("the change is stored, but the server fell silent for the rest of {}", words::took(*took))]
    Silence {
        took: Duration,
        #[source]
        source: ClientError,
    },
    #[error("{}", stragglers::named(receipts, *took))]
    Stragglers { verb: Verb, receipts: Vec<Receipt>, took: Duration },
}

impl Unconfirmed {
    pub(crate) fn of(verb: Verb, standing: Standing, took: Duration) -> Self {
        match standing {
            Standing::OtherLife => Self::OtherLife,
            // The last look is at each cell, so nobody is only counted in the end.
            Standing::ServerBehind | Standing::Counted(_) => Self::ServerBehind { took },
            Standing::Incomplete(receipts) if receipts.iter().all(|cell| cell.confirmed) => {
                Self::Incomplete { took }
            }
            Standing::Incomplete(receipts) | Standing::Cells(receipts) => {
                Self::Stragglers { verb, receipts, took }
            }
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::NoRevision => {
                "The server is older than --wait. Its cells poll every few seconds."
            }
            Self::OtherLife => "See what there is with `network-policy policies`, and repeat it.",
            Self::ServerBehind { .. } | Self::Silence { .. } => {
                "The same command again changes nothing and waits anew."
            }
            Self::Incomplete { .. } => {
                "A cell that holds a lease is waited for until it is heard of, or has not renewed it for 24\n\
                 hours; how to end that sooner is in docs/policy-server.md, \"Cells that are gone\".\n\
                 The same command again changes nothing and waits anew."
            }
            Self::Stragglers { verb, receipts, .. } => return stragglers::advice(*verb, receipts),
        };
        advice.to_owned()
    }
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NoToken | Self::Token(TokenError::Empty) => NOT_AUTHORIZED,
            Self::Token(_) | Self::TokenFile { .. } | Self::Settings(_) => USAGE,
            Self::Client(error) | Self::MayNotWatch(error) | Self::Watching { source: error } => {
                code(error)
            }
            Self::Unconfirmed(_) => UNCONFIRMED,
            Self::Output(error) if is_broken_pipe(error) => return ExitCode::SUCCESS,
            Self::Output(_) => REFUSED,
        })
    }

    /// What to print; nothing when nobody is left to read.
    pub(crate) fn text(&self, verbose: bool) -> Option<String> {
        if matches!(self, Self::Output(error) if is_broken_pipe(error)) {
            return None;
        }
        let mut text = format!("error: {self}");
        let mut cause = self.source().filter(|_| verbose);
        while let Some(error) = cause {
            let _ = write!(text, "\n  caused by: {}", words::shown(&error.to_string()));
            cause = error.source();
        }
        if let Some(advice) = self.advice() {
            let _ = write!(text, "\n\n{advice}");
        }
        Some(text)
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NoToken | Self::Token(_) | Self::TokenFile { .. } => {
                HOW_TO_GET_A_TOKEN.to_owned()
            }
            Self::Settings(SettingsError::Url { .. } | SettingsError::UrlWithPassword) => {
                "Give --server (or NETWORK_POLICY_SERVER) an address such as\n\
                 http://127.0.0.1:4002 or https://api.example.org."
                    .to_owned()
            }
            Self::Settings(SettingsError::ReadAuthority { .. }) => {
                "Give --ca-cert a PEM file with the authority behind the server's certificate."
                    .to_owned()
            }
            Self::Settings(_) => {
                "Give --ca-cert a PEM file with the certificate of the authority behind the server's, not a key\n\
                 and not DER."
                    .to_owned()
            }
            Self::MayNotWatch(ClientError::Refused { status: 403, .. }) | Self::Output(_) => {
                return None;
            }
            Self::Client(error) | Self::MayNotWatch(error) | Self::Watching { source: error } => {
                return advice(error);
            }
            Self::Unconfirmed(unconfirmed) => unconfirmed.advice(),
        })
    }
}

const HOW_TO_GET_A_TOKEN: &str = "\
Get a token and put it into NETWORK_POLICY_TOKEN, or into a file for --token-file:
  policy-server token --scope network.admin --subject me     # a server of your own
  cf oauth-token                                             # Cloud Foundry";

fn not_watched(error: &ClientError) -> String {
    match error {
        ClientError::Refused { status: 403, .. } => {
            "nothing was changed: --wait needs the scope network.admin, which your token lacks; use \
             one that has it, or leave out --wait (cells enforce the change all the same)"
                .to_owned()
        }
        other => in_short(other),
    }
}

/// What the server said, in one line: which request it was is for `--verbose`.
pub(crate) fn in_short(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { request, source } => {
            let address = request.split_whitespace().last().unwrap_or_default();
            let host = address.split_inclusive('/').take(3).collect::<String>();
            let cause = source.to_string();
            let cause = cause.strip_prefix("io: ").unwrap_or(&cause);
            format!("no answer from {}: {cause}", host.trim_end_matches('/'))
        }
        ClientError::Refused { status: 401, reason, .. } => {
            format!("the server does not know who you are: {reason}")
        }
        ClientError::Refused { status: 403, reason, .. } => {
            format!("you may not do that: {reason}")
        }
        ClientError::Refused { status, reason, request_id, .. } => {
            let request = request_id.as_ref().map_or(String::new(), |id| {
                format!(" (request {} in the server's log)", words::shown(id))
            });
            format!("the server refused with status {status}: {reason}{request}")
        }
        ClientError::Json { source, .. } => {
            format!("the answer is not that of a policy server: {source}")
        }
        ClientError::Nonsense { source, .. } => {
            format!("the answer makes no sense: {}", with_cause(source))
        }
    }
}

fn advice(error: &ClientError) -> Option<String> {
    Some(match error {
        ClientError::Unreachable { request, source } => {
            connection::advice(request, source).to_owned()
        }
        ClientError::Refused { status: 400, reason, .. } if connection::wants_tls(reason) => {
            "Give the address with https:// in --server (or NETWORK_POLICY_SERVER), unless it has the port\n\
             for cells in the place of the external one, 4002 by custom."
                .to_owned()
        }
        ClientError::Refused { status: 401, .. } => {
            format!("Your token may have expired.\n{HOW_TO_GET_A_TOKEN}")
        }
        ClientError::Refused { status: 403, reason, .. } => forbidden(reason),
        ClientError::Refused { status: 404 | 405, .. }
        | ClientError::Json { .. }
        | ClientError::Nonsense { .. } => {
            "Is --server (or NETWORK_POLICY_SERVER) the address of a policy server?".to_owned()
        }
        ClientError::Refused { status: 502..=504, .. } => {
            "What answered is a proxy; the policy server behind it is away. Try again.".to_owned()
        }
        ClientError::Refused { .. } => return None,
    })
}

fn forbidden(reason: &str) -> String {
    if reason.contains("scopes") {
        return "You need a token with the scope network.admin; network.write will do for apps in\n\
                spaces of yours, but not for --wait, status and audit."
            .to_owned();
    }
    if reason.contains("quota") {
        return "Remove policies of this source app that are not needed, or ask an administrator."
            .to_owned();
    }
    "Do both apps exist, in spaces you may see? See the GUID of an app with `cf app NAME --guid`.\n\
     A server without Cloud Controller takes changes only with the scope network.admin."
        .to_owned()
}

fn code(error: &ClientError) -> u8 {
    match error {
        ClientError::Unreachable { .. } | ClientError::Refused { status: 502..=504, .. } => {
            UNREACHABLE
        }
        ClientError::Refused { status: 401 | 403, .. } => NOT_AUTHORIZED,
        ClientError::Refused { .. } | ClientError::Json { .. } | ClientError::Nonsense { .. } => {
            REFUSED
        }
    }
}

/// Where a PEM file is damaged is said in numbers: for `--verbose`.
fn unusable(error: &SettingsError) -> String {
    match error {
        SettingsError::Authority { path, .. } => {
            format!("{} is not a sound PEM file", path.display())
        }
        other => with_cause(other),
    }
}

/// An error and its direct cause, which says why.
fn with_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Whoever read our output has seen enough; that is no failure of ours.
fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
