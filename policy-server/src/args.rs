use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use ipnet::Ipv4Net;
use policy_server::{ApiSettings, Config, data_dir::DataDir};
use policy_store::{LeasePool, StoreUrl};

/// Decides who may talk to whom, and tells the cells.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub embedded: EmbeddedArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Print a bearer token for the external API of an embedded server
    Token(TokenArgs),
}

/// The server for one machine.
#[derive(clap::Args)]
pub struct EmbeddedArgs {
    /// Run on a database, certificates and a signing key of its own, made in the data directory
    #[arg(long, required = true)]
    embedded: bool,
    /// Where they are kept; made if missing
    #[arg(long, value_name = "DIR", default_value = "./netman-data")]
    data_dir: PathBuf,
    /// Keep policies here instead; a URL such as postgres://user:password@host/netman
    #[arg(long, value_name = "URL", env = "NETMAN_DATABASE", hide_env_values = true)]
    database: Option<StoreUrl>,
    /// Address of the external API; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4002")]
    pub listen: SocketAddr,
    /// Address of the internal API, for cells
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4003")]
    pub internal_listen: SocketAddr,
    /// A DNS name or address under which cells reach the internal API; may be repeated
    #[arg(long, value_name = "NAME")]
    internal_name: Vec<String>,
    /// Addresses of all containers
    #[arg(long, value_name = "CIDR", default_value = "10.255.0.0/16")]
    overlay_network: Ipv4Net,
    /// Size of the block each cell leases from it
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    subnet_prefix_length: u8,
}

#[derive(clap::Args)]
pub struct TokenArgs {
    /// What the bearer may do: network.admin or network.write; may be repeated
    #[arg(long, required = true)]
    pub scope: Vec<String>,
    /// Who the bearer is
    #[arg(long)]
    pub subject: String,
    /// The data directory of the server that is to accept the token
    #[arg(long, value_name = "DIR", default_value = "./netman-data")]
    pub data_dir: PathBuf,
    /// How long the token is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    expires_in: u32,
}

impl EmbeddedArgs {
    pub fn config(&self) -> anyhow::Result<Config> {
        let Self {
            embedded: _,
            data_dir,
            database,
            listen: _,
            internal_listen: _,
            internal_name,
            overlay_network,
            subnet_prefix_length,
        } = self;
        Ok(Config {
            data_dir: DataDir::at(data_dir),
            database: database.clone(),
            internal_names: internal_name.clone(),
            lease_pool: LeasePool::new(*overlay_network, *subnet_prefix_length, LeasePool::EXPIRY)?,
            callers: None,
            api: ApiSettings::default(),
            metron_address: None,
        })
    }
}

impl TokenArgs {
    pub fn expires_in(&self) -> Duration {
        Duration::from_secs(self.expires_in.into())
    }
}
