//! Jobs that read a file: how they begin, and what they say when they end
//! (spec/policy-server.md §10, §12).

use std::{path::Path, process::ExitCode};

use policy_server::{
    config::{All, AsgSyncer, ConfigError, External, Internal, Job, PolicyServer},
    roles::{self, RunError},
};
use service::log::{self, LevelSwitch, chain};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::args::Role;

/// Runs `role` with the file at `path`.
pub fn run(role: Role, path: &Path) -> ExitCode {
    match role {
        Role::External => {
            with(Job::PolicyServer, PolicyServer::read(path), |config| match config {
                PolicyServer::External(config) => {
                    let (name, log) = (config.name(Job::PolicyServer), config.log.clone());
                    live(&name, &log, |switch, stop| roles::external::run(*config, switch, stop))
                }
                PolicyServer::Legacy(config) => {
                    let (name, log) = (Job::PolicyServer.as_str(), config.log.clone());
                    live(name, &log, |switch, stop| roles::legacy::run(*config, switch, stop))
                }
            })
        }
        Role::Internal => with(Job::Internal, Internal::read(path), |config| {
            let (name, log) = (config.name.clone(), config.log.clone());
            live(&name, &log, |switch, stop| roles::internal::run(config, switch, stop))
        }),
        Role::AsgSyncer => with(Job::AsgSyncer, AsgSyncer::read(path), |config| {
            let (name, log) = (config.name.clone(), config.log.clone());
            live(&name, &log, |_, stop| roles::asg_syncer::run(config, stop))
        }),
        Role::All => with(Job::PolicyServer, All::read(path), |config| {
            let external = &config.external;
            let (name, log) = (external.name(Job::PolicyServer), external.log.clone());
            live(&name, &log, |switch, stop| roles::all::run(config, switch, stop))
        }),
        Role::Migrate => with(Job::Migrate, External::read(path), |config| migrate(&config)),
    }
}

/// The prefix is a fixed one here: the one in the file may be what cannot be read.
fn with<C>(job: Job, read: Result<C, ConfigError>, run: impl FnOnce(C) -> ExitCode) -> ExitCode {
    match read {
        Ok(config) => run(config),
        Err(error) => {
            let (job, text) = (job.as_str(), chain(&error));
            log::give_up(&format!("cfnetworking.{job}: could not read config file: {text}"));
            if matches!(&error, ConfigError::Read { path, .. } if path.as_os_str().is_empty()) {
                eprintln!("No file was named: -config-file FILE. See policy-server --help.");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a job that lives until a signal.
fn live<Running>(
    name: &str,
    log: &log::Settings,
    role: impl FnOnce(LevelSwitch, CancellationToken) -> Running,
) -> ExitCode
where
    Running: Future<Output = Result<(), RunError>>,
{
    let switch = log::start(log);
    in_runtime(name, async {
        let ended = role(switch, service::shutdown::on_signal()).await;
        match ended {
            Ok(()) | Err(RunError::Stopped) => {
                tracing::info!(name: "exited", "Stopped.");
                ExitCode::SUCCESS
            }
            Err(error) => {
                let error = chain(&error);
                log::give_up(&format!("{name}: {error}"));
                tracing::error!(name: "exited-with-failure", { error }, "Stopped by a failure.");
                ExitCode::FAILURE
            }
        }
    })
}

#[expect(clippy::print_stdout, reason = "this is where the existing system says it")]
fn migrate(config: &External) -> ExitCode {
    let name = config.name(Job::Migrate);
    log::start(&config.log_of(Job::Migrate));
    in_runtime(&name, async {
        if roles::migrate::run(config).await {
            return ExitCode::SUCCESS;
        }
        // The spelling is the one operators know.
        println!(
            "fatal error occured, migrations and groups table population timed out after {} seconds",
            config.migration_timeout.as_secs()
        );
        ExitCode::FAILURE
    })
}

/// Does not wait for what nobody needs any more, such as a name that is being looked up.
fn in_runtime(name: &str, work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::give_up(&format!("{name}: starting threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(work);
    runtime.shutdown_background();
    code
}
