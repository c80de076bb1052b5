//! `overlay --config-file PATH`; see the library for what it does.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use overlay::Config;
use service::{command, config, log, shutdown};

#[tokio::main]
async fn main() -> ExitCode {
    let path = match command::config_file(std::env::args().skip(1)) {
        Ok(path) => path,
        Err(error) => {
            eprintln!("{error}\nusage: overlay --config-file PATH");
            return ExitCode::from(2);
        }
    };
    match overlay(&path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn overlay(path: &Path) -> anyhow::Result<()> {
    service::install_crypto_provider();
    let raw: overlay::config::File = config::read(path)?;
    let config = Config::check(&raw).with_context(|| path.display().to_string())?;
    log::init(Some(&raw.log_level));
    overlay::run(config, shutdown::on_signal()).await?;
    Ok(())
}
