//! Starts the policy agent: `policy-agent --config-file PATH`; asks the one that runs; or examines its cell.

mod usage;

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    process::ExitCode,
};

use gocompat::flags;
use policy_agent::{AgentError, AskError, Explanation};
use service::{command, config::ConfigError, log, shutdown};

/// How an agent ends that finds another one at work: what may pass by itself (`EX_TEMPFAIL`).
const TRY_AGAIN: u8 = 75;

const NAME: &str = "policy-agent";

/// Where the agent listens by default.
const ADDRESS: &str = "127.0.0.1:8722";

fn main() -> ExitCode {
    hostnet::heap::give_back();
    service::install_crypto_provider();
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((verb, words)) if verb == "doctor" => return doctor(words.iter().cloned()),
        Some((verb, words)) if verb == "explain" => return explain(words),
        Some((verb, words)) if verb == "promote" => return promote(words),
        Some((word, _)) if !word.starts_with('-') => {
            let why = format!("there is no {word}; there are doctor, explain and promote");
            return wrong(&why, usage::AGENT);
        }
        _ => {}
    }
    let path = match command::config_file_or_usage(NAME, usage::AGENT) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match policy_agent::Config::load(&path) {
        Ok(config) => start(config),
        Err(error) => refuse(&error),
    }
}

/// `policy-agent doctor [--json] --config-file PATH`.
fn doctor(words: impl Iterator<Item = String>) -> ExitCode {
    let (json, rest): (Vec<_>, Vec<_>) =
        words.partition(|word| word == "--json" || word == "-json");
    let path = match command::config_file_of(rest, NAME, usage::DOCTOR) {
        Ok(path) => path,
        Err(code) => return code,
    };
    let report = match policy_agent::Config::load(&path) {
        Ok(config) => policy_agent::doctor::examine(&config),
        Err(error) => return refuse(&error),
    };
    // What was found is told by the exit code as well, whoever reads the rest.
    command::answer(&if json.is_empty() { report.to_string() } else { report.to_json() });
    report.exit_code()
}

fn start(config: policy_agent::Config) -> ExitCode {
    // The configuration has been checked.
    let level = config.log_level.parse().unwrap_or_default();
    let level = log::start(&log::Settings { level, format: log::Format::Plain, crates: &[] });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a process may start two threads");
    let ended =
        runtime.block_on(async { policy_agent::run(config, level, shutdown::on_signal()).await });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = match error {
                AgentError::Taken(_) => ExitCode::from(TRY_AGAIN),
                _ => ExitCode::FAILURE,
            };
            let error = log::chain(&error);
            // Once: to whoever sits before it as a line, to whoever keeps the log as one of the log.
            if io::stdout().is_terminal() {
                eprintln!("{NAME}: {error}");
            } else {
                tracing::error!(error, "The policy agent cannot run.");
            }
            code
        }
    }
}

fn explain(words: &[String]) -> ExitCode {
    let parsed = match flags::parse_anywhere(&["address", "from"], &["json"], words.iter().cloned())
    {
        Ok(parsed) => parsed,
        Err(error) => return command::explain(&error, NAME, usage::EXPLAIN),
    };
    let wrong = |why: &str| wrong(why, usage::EXPLAIN);
    let address = match address(&parsed) {
        Ok(address) => address,
        Err(why) => return wrong(&why),
    };
    let [source, destination, port] = &parsed.rest[..] else {
        return wrong("a source, a destination and a port are needed");
    };
    let explained = policy_agent::explain(address, source, destination, port);
    let explained = explained.and_then(|explanation| match parsed.value("from") {
        Some(container) => {
            let words = [source.as_str(), destination, port];
            policy_agent::probe(address, container.as_ref(), words, explanation)
        }
        None => Ok(explanation),
    });
    let is_contradicted = explained.as_ref().is_ok_and(Explanation::is_contradicted);
    let code = match explained {
        Err(AskError::Words(why)) => return wrong(&why),
        Ok(explanation) if parsed.is_on("json") => tell(Ok(explanation.to_json())),
        explained => tell(explained),
    };
    if is_contradicted { ExitCode::from(4) } else { code }
}

fn promote(words: &[String]) -> ExitCode {
    let parsed = match flags::parse_anywhere(&["address"], &[], words.iter().cloned()) {
        Ok(parsed) => parsed,
        Err(error) => return command::explain(&error, NAME, usage::PROMOTE),
    };
    let wrong = |why: &str| wrong(why, usage::PROMOTE);
    let address = match address(&parsed) {
        Ok(address) => address,
        Err(why) => return wrong(&why),
    };
    let kind = match &parsed.rest[..] {
        [] => None,
        [kind] => match kind.parse::<policy_agent::ShadowKind>() {
            Ok(kind) => Some(kind),
            Err(error) => return wrong(&error.to_string()),
        },
        _ => return wrong("one kind can be promoted at a time, or all"),
    };
    tell(policy_agent::promote(address, kind))
}

fn address(parsed: &flags::Parsed) -> Result<SocketAddr, String> {
    let address = parsed.value("address").unwrap_or(ADDRESS).parse();
    address.map_err(|_| "the address is none such as 127.0.0.1:8722".to_owned())
}

fn wrong(why: &str, usage: &str) -> ExitCode {
    eprintln!("{NAME}: {why}\n\n{usage}");
    ExitCode::from(2)
}

fn tell(answer: Result<impl std::fmt::Display, AskError>) -> ExitCode {
    match answer {
        Ok(answer) => command::answer(&answer.to_string()),
        Err(error) => {
            eprintln!("{NAME}: {}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{NAME}: could not read config file: {}", log::chain(error));
    ExitCode::FAILURE
}
