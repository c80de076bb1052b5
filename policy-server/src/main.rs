//! The policy server's command line: which job, from which file; everything else is in the library.

mod args;
mod job;

use std::process::ExitCode;

use anyhow::Context;
use policy_server::{
    Listeners, auth::LocalSigner, config::PolicyServer, data_dir::DataDir, roles::restored,
};

use crate::args::{EmbeddedArgs, Invocation, RestoredArgs, TokenArgs};

fn main() -> ExitCode {
    service::install_crypto_provider();
    match args::read(std::env::args_os()) {
        Ok(Invocation::Job(role, path)) => job::run(role, &path),
        Ok(Invocation::Embedded(args)) => told(serve(&args)),
        Ok(Invocation::Token(args)) => told(token(&args)),
        Ok(Invocation::Restored(args)) => told(another_life(&args)),
        Err(code) => code,
    }
}

/// Answers callers and cells until a signal says stop.
#[tokio::main]
async fn serve(args: &EmbeddedArgs) -> anyhow::Result<()> {
    service::log::init(None);
    let shutdown = service::shutdown::on_signal();
    let listeners = Listeners::bind(args.listen, args.internal_listen).await?;
    policy_server::run(args.config()?, listeners, shutdown).await?;
    tracing::info!("Stopped.");
    Ok(())
}

/// Prints a token that the server of the same data directory accepts.
#[expect(clippy::print_stdout, reason = "the token is the answer")]
fn token(args: &TokenArgs) -> anyhow::Result<()> {
    let dir = DataDir::at(&args.data_dir);
    let signer = LocalSigner::load(&dir).context(
        "no key to sign with; `policy-server --embedded` makes one in its data directory",
    )?;
    println!("{}", signer.sign(&args.subject, &args.scope, args.expires_in())?);
    Ok(())
}

/// Prints the life that a restored database begins.
#[tokio::main]
#[expect(clippy::print_stdout, reason = "the life is the answer")]
async fn another_life(args: &RestoredArgs) -> anyhow::Result<()> {
    let version = match &args.config_file {
        Some(path) => restored::of_file(&PolicyServer::read(path)?).await?,
        None => restored::of_embedded(&args.embedded_database()).await?,
    };
    println!("{}", version.life.as_str());
    Ok(())
}

fn told(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}
