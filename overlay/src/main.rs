//! `overlay --config-file PATH`; see the library for what it does.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use overlay::Config;
use service::{
    command,
    config::{self, ConfigError},
    log, shutdown,
};

const USAGE: &str = "\
Usage: overlay --config-file PATH

Leases a block of the overlay for this cell, keeps its VXLAN device, and the routes to the other cells.
All of that stays in place when the daemon stops, and when the server is away.

The file is JSON with at least
  connectivity_server_url                             https://host:4003
  ca_cert_file, client_cert_file, client_key_file     PEM, from the server's pki folder
  underlay_ip, overlay_network                        this cell's address; the whole overlay
  subnet_file                                         where subnet.env is written
overlay/README.md lists all keys and their defaults.";

#[tokio::main]
async fn main() -> ExitCode {
    let path = match command::config_file_or_usage("overlay", USAGE) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match overlay(&path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay: {}", log::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn overlay(path: &Path) -> anyhow::Result<()> {
    service::install_crypto_provider();
    let (raw, strays) =
        config::read_noting::<overlay::config::File>(path, &overlay::config::FOR_OTHERS)?;
    let checked = Config::check(&raw).map_err(|faults| ConfigError::from(faults).beside(&strays));
    let config = checked.with_context(|| path.display().to_string())?;
    log::init(Some(&raw.log_level));
    for stray in &strays {
        tracing::warn!(key = stray.key, "The configuration says what nobody reads: {stray}");
    }
    overlay::run(config, shutdown::on_signal()).await?;
    Ok(())
}
