//! Which job a command line asks for: by the name the program was started by, by its first word, or by
//! `--embedded`. Jobs of the existing system have Go's flags (spec/policy-server.md §1, §10).

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use gocompat::flags::{self, FlagError};
use ipnet::Ipv4Net;
use policy_server::{ApiSettings, Config, data_dir::DataDir};
use policy_store::{InvalidPool, LeasePool, StoreUrl};

const EXIT_CODES: &str = "\
Exit codes: 0 done, or stopped by a signal; 1 failed, with the reason on standard error; 2 the command
line cannot be used.";

/// What is to be done.
pub enum Invocation {
    /// One of the jobs that read a file.
    Job(Role, PathBuf),
    Embedded(EmbeddedArgs),
    Token(TokenArgs),
    Restored(RestoredArgs),
}

/// Jobs that read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    External,
    Internal,
    AsgSyncer,
    Migrate,
    All,
}

/// Decides who may talk to whom, and tells the cells.
///
/// A drop-in for cf-networking's policy-server, policy-server-internal, policy-server-asg-syncer and
/// migrate-db: with `-config-file FILE` alone it is the external API, and under the names of the
/// others (or by the commands below) it is one of them. With --embedded it needs nothing at all.
#[derive(Parser)]
#[command(
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "policy-server -config-file FILE\n       \
                      policy-server COMMAND -config-file FILE\n       \
                      policy-server --embedded [OPTIONS]\n       \
                      policy-server token --scope SCOPE --subject NAME [OPTIONS]\n       \
                      policy-server restored (-config-file FILE | --embedded [OPTIONS])"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    embedded: EmbeddedArgs,
}

#[derive(Subcommand)]
enum Command {
    /// The internal API, for cells; also by the name policy-server-internal
    #[command(disable_help_flag = true)]
    Internal(Flags),
    /// Keep security groups as Cloud Controller has them; also by the name policy-server-asg-syncer
    #[command(disable_help_flag = true)]
    AsgSyncer(Flags),
    /// Make the tables, or bring them up to date, and end; also by the name migrate-db
    #[command(disable_help_flag = true)]
    Migrate(Flags),
    /// With --all, every job in one process, from one file that has the keys of all their files
    #[command(disable_help_flag = true)]
    Serve(Flags),
    /// Print a bearer token for the external API of an embedded server
    Token(TokenArgs),
    /// Say that the database was restored from a backup, so that no cell takes what it enforces for
    /// newer than that; says which life the database begins. Servers may be running
    Restored(RestoredArgs),
}

/// Flags by Go's rules, which are not read here.
#[derive(clap::Args)]
struct Flags {
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "-config-file FILE",
        required = false
    )]
    words: Vec<String>,
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
    #[arg(long, value_name = "CIDR", default_value_t = LeasePool::USUAL_NETWORK)]
    overlay_network: Ipv4Net,
    /// Size of the block each cell leases from it
    #[arg(long, value_name = "BITS", default_value_t = LeasePool::USUAL_BLOCK_LENGTH)]
    subnet_prefix_length: u8,
}

#[derive(clap::Args)]
pub struct TokenArgs {
    /// What the bearer may do; may be repeated
    #[arg(long, required = true)]
    scope: Vec<Scope>,
    /// Who the bearer is: the name in the audit trail and in the log
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub subject: String,
    /// The data directory of the server that is to accept the token
    #[arg(long, value_name = "DIR", default_value = "./netman-data")]
    pub data_dir: PathBuf,
    /// How long the token is valid; it cannot be revoked
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    expires_in: u32,
}

/// The scopes a policy server knows (spec/policy-server.md §3.2).
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    /// Everything, for all apps
    #[value(name = "network.admin")]
    Admin,
    /// Policies of apps in spaces of one's own; an embedded server knows of no spaces
    #[value(name = "network.write")]
    Write,
}

fn name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("somebody must have a name") } else { Ok(text.to_owned()) }
}

/// Which database was restored.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("which").required(true).args(["config_file", "embedded"])))]
pub struct RestoredArgs {
    /// That of the policy-server with this file; spelled with one dash as well
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// That of an embedded server
    #[arg(long)]
    embedded: bool,
    /// The embedded server's data directory
    #[arg(long, value_name = "DIR", default_value = "./netman-data", requires = "embedded")]
    data_dir: PathBuf,
    /// The URL it keeps policies at, if it is not in its data directory
    #[arg(
        long,
        value_name = "URL",
        env = "NETMAN_DATABASE",
        hide_env_values = true,
        conflicts_with = "config_file"
    )]
    database: Option<StoreUrl>,
}

/// What `line` asks for, its first word being the name of the program; or the code to exit with, the
/// reason having been told.
pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Invocation, ExitCode> {
    let mut words = line.into_iter().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let words: Vec<_> = words.collect();
    match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("policy-server-internal") => job(Role::Internal, words),
        Some("policy-server-asg-syncer") => job(Role::AsgSyncer, words),
        Some("migrate-db") => job(Role::Migrate, words),
        _ if has_a_word_of_ours(&words) => by_words(words),
        _ => job(Role::External, words),
    }
}

/// Whether the line is more than the existing system would understand.
fn has_a_word_of_ours(words: &[String]) -> bool {
    let first = words.first().is_some_and(|word| {
        !word.starts_with('-') || matches!(word.as_str(), "-h" | "--help" | "-V" | "--version")
    });
    first || words.iter().any(|word| word == "--embedded")
}

fn by_words(words: Vec<String>) -> Result<Invocation, ExitCode> {
    if words[0].starts_with('-') && words.iter().any(|word| is_config_file(word)) {
        eprintln!(
            "policy-server: --embedded needs no file, and -config-file makes no embedded server: give \
             one of the two\n\nSee policy-server --help."
        );
        return Err(ExitCode::from(2));
    }
    let line = std::iter::once("policy-server".to_owned()).chain(dashed(words));
    let Args { command, embedded } = Args::parse_from(line);
    match command {
        None => Ok(Invocation::Embedded(embedded)),
        Some(Command::Token(token)) => Ok(Invocation::Token(token)),
        Some(Command::Restored(restored)) => Ok(Invocation::Restored(restored)),
        Some(Command::Internal(Flags { words })) => job(Role::Internal, words),
        Some(Command::AsgSyncer(Flags { words })) => job(Role::AsgSyncer, words),
        Some(Command::Migrate(Flags { words })) => job(Role::Migrate, words),
        Some(Command::Serve(Flags { words })) => job(Role::All, words),
    }
}

/// Whether `word` is the flag that names a file, in any of its spellings.
fn is_config_file(word: &str) -> bool {
    let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
    flag.is_some_and(|flag| flag == "config-file" || flag.starts_with("config-file="))
}

/// `words`, with the flag that all jobs have spelled as a command of ours spells flags.
fn dashed(mut words: Vec<String>) -> Vec<String> {
    if words.first().is_some_and(|first| first == "restored") {
        for word in words.iter_mut().filter(|word| word.starts_with("-config-file")) {
            word.insert(0, '-');
        }
    }
    words
}

/// Reads the flags of `role`. What comes after them is ignored, as in the existing system.
fn job(role: Role, words: Vec<String>) -> Result<Invocation, ExitCode> {
    let switches: &[_] = if role == Role::All { &["all"] } else { &[] };
    let parsed = match flags::parse_with(&["config-file"], switches, words) {
        Ok(parsed) => parsed,
        Err(FlagError::Help) => return Err(help(role)),
        Err(FlagError::Unknown(flag)) if flag == "version" => return Err(version(role)),
        Err(error) => return Err(refuse(role, &error.to_string())),
    };
    if role == Role::All && !parsed.is_on("all") {
        return Err(refuse(role, "serve needs --all"));
    }
    // Without a file, it is the file that is missing, not the flag.
    let path = parsed.value("config-file").unwrap_or_default();
    Ok(Invocation::Job(role, path.into()))
}

#[expect(clippy::print_stdout, reason = "the version is the answer")]
fn version(role: Role) -> ExitCode {
    println!("{} {}", program(role), env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "help that was asked for is an answer")]
fn help(role: Role) -> ExitCode {
    println!("{}", usage(role));
    ExitCode::SUCCESS
}

fn refuse(role: Role, why: &str) -> ExitCode {
    eprintln!("{why}\n{}", usage(role));
    ExitCode::from(2)
}

fn usage(role: Role) -> String {
    let name = program(role);
    let more = match role {
        Role::All => "  -all\n    \tevery job in one process\n",
        _ => "",
    };
    format!(
        "Usage of {name}:\n{more}  -config-file string\n    \tpath to config file\n\
         See policy-server --help for all it can do."
    )
}

/// What `role` is started as.
fn program(role: Role) -> &'static str {
    match role {
        Role::External => "policy-server",
        Role::Internal => "policy-server-internal",
        Role::AsgSyncer => "policy-server-asg-syncer",
        Role::Migrate => "migrate-db",
        Role::All => "policy-server serve",
    }
}

impl EmbeddedArgs {
    pub fn config(&self) -> Result<Config, InvalidPool> {
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

impl RestoredArgs {
    /// Where an embedded server keeps policies.
    pub fn embedded_database(&self) -> StoreUrl {
        let in_directory = || StoreUrl::Sqlite(DataDir::at(&self.data_dir).database());
        self.database.clone().unwrap_or_else(in_directory)
    }
}

impl TokenArgs {
    /// As the token spells them.
    pub fn scopes(&self) -> Vec<String> {
        let spelled = self.scope.iter().filter_map(ValueEnum::to_possible_value);
        spelled.map(|scope| scope.get_name().to_owned()).collect()
    }

    pub fn expires_in(&self) -> Duration {
        Duration::from_secs(self.expires_in.into())
    }
}
