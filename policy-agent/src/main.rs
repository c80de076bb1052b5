//! Starts the policy agent: `policy-agent --config-file PATH`; or asks the one that runs.

use std::process::ExitCode;

use gocompat::flags;
use service::{command, config::ConfigError, log, shutdown};

const USAGE: &str = "\
Usage: policy-agent --config-file PATH
       policy-agent explain [--address HOST:PORT] SOURCE DESTINATION PORT[/tcp|/udp]

Makes this cell's kernel enforce the network policies of the policy server, and tells the server so.
Rules stay in place when the agent stops, and when the server is away.

The file is JSON with at least
  policy_server_url                                   https://host:4003; policy_server_urls if several
  ca_cert_file, client_cert_file, client_key_file     PEM, from the server's pki folder
  cni_datastore_path                                  the container store
  subnet_file                                         flannel's subnet.env, which `overlay` writes
policy-agent/README.md lists all keys and their defaults.

`explain` asks the agent of this cell what becomes of a packet between two apps or addresses, why, which
policy allows it or is missing, and whether the kernel holds the rules. It listens on 127.0.0.1:8722
unless its configuration says otherwise.";

/// Where the agent listens by default.
const ADDRESS: &str = "127.0.0.1:8722";

fn main() -> ExitCode {
    service::install_crypto_provider();
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let Some((verb, words)) = words.split_first()
        && verb == "explain"
    {
        return explain(words);
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

fn start(config: policy_agent::Config) -> ExitCode {
    log::init(Some(&config.log_level));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a process may start two threads");
    let ended = runtime.block_on(async { policy_agent::run(config, shutdown::on_signal()).await });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = log::chain(&error);
            tracing::error!(error, "The policy agent cannot run.");
            eprintln!("policy-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the explanation is what was asked for")]
fn explain(words: &[String]) -> ExitCode {
    let parsed = flags::parse(&["address"], words.iter().cloned());
    let wrong = |why: &str| {
        eprintln!("policy-agent: {why}\n\n{USAGE}");
        ExitCode::from(2)
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return wrong(&error.to_string()),
    };
    let Ok(address) = parsed.value("address").unwrap_or(ADDRESS).parse() else {
        return wrong("the address is none such as 127.0.0.1:8722");
    };
    let [source, destination, port] = &parsed.rest[..] else {
        return wrong("a source, a destination and a port are needed");
    };
    match policy_agent::explain(address, source, destination, port) {
        Ok(explanation) => {
            println!("{explanation}");
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
