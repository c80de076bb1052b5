//! Measures the programs as operators run them: as processes, over the network, on real databases.
//! `scripts/bench` sets up what it needs.
//!
//! The load comes from one thread that shares the machine with what it measures, so it does as little
//! as possible: requests are made before the clock runs, connections stay open, answers are read and
//! not looked into.

mod client;
mod database;
mod dataplane;
mod feed;
mod fleet;
mod load;
mod machine;
mod outcome;
mod plot;
mod process;
mod server;
mod subject;
mod table;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    Dataplane(dataplane::DataplaneArgs),
    Feed(feed::FeedArgs),
    Server(server::ServerArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    service::install_crypto_provider();
    match Args::parse().bench {
        Bench::Dataplane(args) => dataplane::bench(&args),
        Bench::Feed(args) => feed::bench(args).await,
        Bench::Server(args) => server::bench(args).await,
    }
}
