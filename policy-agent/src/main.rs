//! Starts the policy agent: `policy-agent --config-file PATH`; asks the one that runs; or examines its cell.

use std::{net::SocketAddr, process::ExitCode};

use gocompat::flags;
use policy_agent::{AgentError, Explanation};
use service::{command, config::ConfigError, log, shutdown};

const USAGE: &str = "\
Usage: policy-agent --config-file PATH
       policy-agent doctor [--json] --config-file PATH
       policy-agent explain [--json] [--address HOST:PORT] [--from NAMESPACE] SOURCE DESTINATION PORT[/tcp|/udp]
       policy-agent promote [--address HOST:PORT] [default_deny|removals|security_groups]

Makes this cell's kernel enforce the network policies of the policy server, and tells the server so.
Rules stay in place when the agent stops, and when the server is away. It exits with 75 if another agent
is at work here, and names it.

doctor says what on this cell keeps policies from being enforced, or soon will, and changes nothing. It
exits with 0 if nothing is wrong, 1 if something is broken, 3 if there are only warnings.

The file is JSON with at least
  policy_server_url                                   https://host:4003; policy_server_urls if several
  ca_cert_file, client_cert_file, client_key_file     PEM, from the server's pki folder
  cni_datastore_path                                  the container store
  subnet_file                                         flannel's subnet.env, which `overlay` writes; or
                                                      overlay_network, if the VXLAN device says the rest
policy-agent/README.md lists all keys and their defaults.

networker_repair in that file, a list of a program and its arguments, has it start the networker when
something is missing of what that wrote for containers.

`explain` asks the agent of this cell what becomes of a packet between two apps or addresses, why, which
policy allows it or is missing, and whether the kernel holds the rules. It listens on 127.0.0.1:8722
unless its configuration says otherwise. With --from it is also tried, by one connection or one empty
datagram out of the network namespace of the source's container (/proc/PID/ns/net, or where the
networker keeps them); if that is not what the explanation says, the exit code is 4.

`promote` has it deny what its configuration has it only watch (`shadow`), all of it or what is named.";

/// How an agent ends that finds another one at work: what may pass by itself (`EX_TEMPFAIL`).
const TRY_AGAIN: u8 = 75;

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
        _ => {}
    }
    let path = match command::config_file_or_usage("policy-agent", USAGE) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match policy_agent::Config::load(&path) {
        Ok(config) => start(config),
        Err(error) => refuse(&error),
    }
}

/// `policy-agent doctor [--json] --config-file PATH`.
#[expect(clippy::print_stdout, reason = "what was found is the answer")]
fn doctor(words: impl Iterator<Item = String>) -> ExitCode {
    let (json, rest): (Vec<_>, Vec<_>) =
        words.partition(|word| word == "--json" || word == "-json");
    let path = match command::config_file(rest) {
        Ok(path) => path,
        Err(error) => {
            eprintln!("policy-agent: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let report = match policy_agent::Config::load(&path) {
        Ok(config) => policy_agent::doctor::examine(&config),
        Err(error) => return refuse(&error),
    };
    if json.is_empty() {
        println!("{report}");
    } else {
        println!("{}", report.to_json());
    }
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
            tracing::error!(error, "The policy agent cannot run.");
            eprintln!("policy-agent: {error}");
            code
        }
    }
}

fn explain(words: &[String]) -> ExitCode {
    let parsed = match flags::parse_with(&["address", "from"], &["json"], words.iter().cloned()) {
        Ok(parsed) => parsed,
        Err(error) => return wrong(&error.to_string()),
    };
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
        Ok(explanation) if parsed.is_on("json") => tell(Ok(explanation.to_json())),
        explained => tell(explained),
    };
    if is_contradicted { ExitCode::from(4) } else { code }
}

fn promote(words: &[String]) -> ExitCode {
    let (address, words) = match addressed(words) {
        Ok(addressed) => addressed,
        Err(why) => return wrong(&why),
    };
    let kind = match &words[..] {
        [] => None,
        [kind] => match kind.parse::<policy_agent::ShadowKind>() {
            Ok(kind) => Some(kind),
            Err(error) => return wrong(&error.to_string()),
        },
        _ => return wrong("one kind can be promoted at a time, or all"),
    };
    tell(policy_agent::promote(address, kind))
}

/// Where the agent listens, and the words beside that.
fn addressed(words: &[String]) -> Result<(SocketAddr, Vec<String>), String> {
    let parsed = flags::parse(&["address"], words.iter().cloned());
    let parsed = parsed.map_err(|error| error.to_string())?;
    Ok((address(&parsed)?, parsed.rest))
}

fn address(parsed: &flags::Parsed) -> Result<SocketAddr, String> {
    let address = parsed.value("address").unwrap_or(ADDRESS).parse();
    address.map_err(|_| "the address is none such as 127.0.0.1:8722".to_owned())
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("policy-agent: {why}\n\n{USAGE}");
    ExitCode::from(2)
}

#[expect(clippy::print_stdout, reason = "the answer is what was asked for")]
fn tell(answer: Result<impl std::fmt::Display, policy_agent::AskError>) -> ExitCode {
    match answer {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("policy-agent: {}", log::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("policy-agent: could not read config file: {}", log::chain(error));
    ExitCode::FAILURE
}
