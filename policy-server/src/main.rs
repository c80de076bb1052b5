//! The policy server's command line; everything else is in the library.

mod args;

use anyhow::Context;
use clap::Parser;
use policy_server::{Listeners, auth::LocalSigner, data_dir::DataDir};

use crate::args::{Args, Command, TokenArgs};

fn main() -> anyhow::Result<()> {
    service::install_crypto_provider();
    let args = Args::parse();
    match args.command {
        Some(Command::Token(args)) => token(&args),
        None => serve(&args.embedded),
    }
}

/// Answers callers and cells until a signal says stop.
#[tokio::main]
async fn serve(args: &args::EmbeddedArgs) -> anyhow::Result<()> {
    service::log::init(None);
    let shutdown = service::shutdown::on_signal();
    let listeners = Listeners::bind(args.listen, args.internal_listen).await?;
    policy_server::run(args.config()?, listeners, shutdown).await?;
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
