//! The program inside the containers ([`testkit::probe`]). One JSON document per line on stdout.

#![expect(clippy::print_stdout, reason = "its answers go to standard output")]

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, bail};
use testkit::probe::{self, Listen, Transport};

const USAGE: &str = "\
usage: probe serve [--name NAME] [--bind ADDRESS] [--tcp PORT]... [--udp PORT]... [--push yes]
       probe dial tcp|udp ADDRESS PORT [--timeout-ms 2000]
       probe hold tcp ADDRESS PORT
       probe pause";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.split_first() {
        Some((&"serve", rest)) => serve(rest),
        Some((&"dial", rest)) => dial(rest),
        Some((&"hold", rest)) => hold(rest),
        Some((&"pause", [])) => pause(),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(words: &[&str]) -> Result<()> {
    let mut name = "probe".to_owned();
    let mut listen = Listen {
        bind: Ipv4Addr::UNSPECIFIED.into(),
        tcp: Vec::new(),
        udp: Vec::new(),
        push: false,
    };
    for pair in words.chunks(2) {
        match pair {
            ["--name", value] => name = (*value).to_owned(),
            ["--bind", value] => listen.bind = value.parse().context(USAGE)?,
            ["--tcp", value] => listen.tcp.push(value.parse().context(USAGE)?),
            ["--udp", value] => listen.udp.push(value.parse().context(USAGE)?),
            ["--push", "yes"] => listen.push = true,
            _ => bail!("{USAGE}"),
        }
    }
    let (tcp, udp) = probe::serve(&name, &listen).context("cannot listen")?;
    println!("{}", serde_json::json!({"event": "listening", "tcp": tcp, "udp": udp}));
    pause()
}

fn dial(words: &[&str]) -> Result<()> {
    let (transport, to, port, patience) = match words {
        [transport, to, port] => (transport, to, port, 2000),
        [transport, to, port, "--timeout-ms", ms] => (transport, to, port, ms.parse()?),
        _ => bail!("{USAGE}"),
    };
    let transport = match *transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => bail!("{USAGE}"),
    };
    let dialled =
        probe::dial(transport, to.parse()?, port.parse()?, Duration::from_millis(patience));
    println!("{}", serde_json::to_string(&dialled)?);
    Ok(())
}

fn hold(words: &[&str]) -> Result<()> {
    let ["tcp", to, port] = words else { bail!("{USAGE}") };
    let to: IpAddr = to.parse()?;
    let opened = || println!("{}", serde_json::json!({"event": "open"}));
    let held = probe::hold(Transport::Tcp, to, port.parse()?, opened, || true)
        .context("cannot connect")?;
    println!("{}", serde_json::json!({"event": "cut", "held": held}));
    Ok(())
}

/// What a container's process does when nothing else: stays.
fn pause() -> Result<()> {
    loop {
        thread::park();
    }
}
