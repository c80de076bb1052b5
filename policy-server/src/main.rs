//! The policy server's command line: which job, from which file; everything else is in the library.

mod args;
mod failure;
mod job;

use std::process::ExitCode;

use policy_server::{
    Listeners, RunError, auth::LocalSigner, config::PolicyServer, data_dir::DataDir,
    roles::restored,
};

use crate::{
    args::{EmbeddedArgs, Invocation, RestoredArgs, TokenArgs},
    failure::Failure,
};

fn main() -> ExitCode {
    hostnet::heap::share();
    service::install_crypto_provider();
    let done = match args::read(std::env::args_os()) {
        Ok(Invocation::Job(role, path)) => return job::run(role, &path),
        Ok(Invocation::Embedded(args)) => serve(&args),
        Ok(Invocation::Token(args)) => token(&args),
        Ok(Invocation::Restored(args)) => another_life(&args),
        Err(code) => return code,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// Answers callers and cells until a signal says stop.
#[tokio::main]
async fn serve(args: &EmbeddedArgs) -> Result<(), Failure> {
    let config = args.config()?;
    service::log::init(None);
    let shutdown = service::shutdown::on_signal();
    let listeners = Listeners::bind(args.listen, args.internal_listen).await?;
    match policy_server::run(config, listeners, shutdown).await {
        Ok(()) | Err(RunError::Stopped) => {}
        Err(error) => return Err(Failure::Serve(error)),
    }
    tracing::info!("Stopped.");
    Ok(())
}

/// Prints a token that the server of the same data directory accepts.
#[expect(clippy::print_stdout, reason = "the token is the answer")]
fn token(args: &TokenArgs) -> Result<(), Failure> {
    let dir = DataDir::at(&args.data_dir);
    let token = LocalSigner::load(&dir)
        .and_then(|signer| signer.sign(&args.subject, &args.scopes(), args.expires_in()));
    println!("{}", token.map_err(Failure::Token)?);
    Ok(())
}

/// Says which life a restored database begins, and what comes of it.
#[tokio::main]
#[expect(clippy::print_stdout, reason = "that is the answer")]
async fn another_life(args: &RestoredArgs) -> Result<(), Failure> {
    let begun = match &args.config_file {
        Some(path) => restored::of_file(&PolicyServer::read(path)?).await,
        None => restored::of_embedded(&args.embedded_database()).await,
    };
    let life = begun.map_err(Failure::Restored)?.life;
    println!(
        "Another life of the database has begun: {}\n\
         Cells take everything anew, by themselves; servers need not be started again.",
        life.as_str()
    );
    Ok(())
}
