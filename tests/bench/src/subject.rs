//! The server that is measured: a process of its own, as operators run it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{client::Door, process::Process};

/// The server must listen within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is held or under way must have ended within this.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(70);

/// So many lines of them are shown.
const COMPLAINTS: usize = 5;

/// A server with a directory of its own. Both are gone when it is dropped.
pub(crate) struct Subject {
    pub external: Door,
    pub internal: Door,
    pub process: Process,
    child: Child,
    place: Place,
}

/// What stays when the server is started again.
struct Place {
    program: PathBuf,
    database: Option<String>,
    /// Where it listens, when that is known.
    listen: [SocketAddr; 2],
    directory: TempDir,
}

/// What the server writes when it listens.
#[derive(Deserialize)]
struct Addresses {
    external: String,
    internal: String,
}

impl Subject {
    /// Starts `program` on the database at `url`, or on a file of its own.
    pub(crate) async fn start(program: &Path, url: Option<&str>) -> Result<Self> {
        Self::at(Place::of(program, url)?).await
    }

    /// The same on a file of its own, where others reach it: at `address`.
    pub(crate) async fn start_at(program: &Path, address: Ipv4Addr) -> Result<Self> {
        let place = Place { listen: [(address, 0).into(); 2], ..Place::of(program, None)? };
        Self::at(place).await
    }

    /// Starts another server on the same database, with the same certificates and keys.
    pub(crate) async fn beside(&self) -> Result<Self> {
        let Place { program, database, .. } = &self.place;
        let place = Place::of(program, database.as_deref())?;
        fs::create_dir_all(place.pki())?;
        for file in fs::read_dir(self.pki()).context("reading certificates")? {
            let file = file?;
            fs::copy(file.path(), place.pki().join(file.file_name()))?;
        }
        Self::at(place).await
    }

    /// Tells it to stop, waits until it has, and starts it where it was.
    pub(crate) async fn restart(mut self) -> Result<Self> {
        self.process.signal("TERM")?;
        let ended = timeout(PATIENCE_AT_THE_END, self.child.wait()).await;
        ended.context("the server does not stop")??;
        Self::at(self.place).await
    }

    async fn at(mut place: Place) -> Result<Self> {
        let mut child = place.run()?;
        let addresses = place.listening(&mut child).await?;
        let internal = address(&addresses.internal)?;
        place.listen = [address(&addresses.external)?, internal];
        let token = token(&place.program, &place.data()).await?;
        Ok(Self {
            external: Door::external(place.listen[0], &token),
            internal: Door::internal(internal, &place.pki())?,
            process: Process(child.id().context("the server has ended")?),
            child,
            place,
        })
    }

    /// Where cells ask.
    pub(crate) fn internal_url(&self) -> String {
        format!("https://{}", self.place.listen[1])
    }

    /// Where certificates and keys are.
    pub(crate) fn pki(&self) -> PathBuf {
        self.place.pki()
    }
}

impl Place {
    fn of(program: &Path, database: Option<&str>) -> Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            database: database.map(str::to_owned),
            listen: [(Ipv4Addr::LOCALHOST, 0).into(); 2],
            directory: tempfile::tempdir().context("making a directory for the server")?,
        })
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn pki(&self) -> PathBuf {
        self.data().join("pki")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn run(&self) -> Result<Child> {
        let mut command = Command::new(&self.program);
        let [external, internal] = self.listen;
        command.args(["--embedded", &format!("--listen={external}")]);
        command.arg(format!("--internal-listen={internal}"));
        command.arg("--data-dir").arg(self.data());
        if let Some(url) = &self.database {
            command.env("NETMAN_DATABASE", url);
        }
        let output = File::options().create(true).append(true).open(self.log())?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))
    }

    async fn listening(&self, child: &mut Child) -> Result<Addresses> {
        let file = self.data().join("addresses.json");
        let began = Instant::now();
        loop {
            let json = fs::read(&file).ok();
            if let Some(addresses) = json.and_then(|json| serde_json::from_slice(&json).ok()) {
                return Ok(addresses);
            }
            if child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("the server does not listen:\n{log}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Subject {
    /// The last of what the server complained about, for whoever asks why something failed.
    pub(crate) fn complaints(&self) -> String {
        let log = fs::read_to_string(self.place.log()).unwrap_or_default();
        let complaints =
            log.lines().filter(|line| line.contains("ERROR") || line.contains("error"));
        let complaints: Vec<_> = complaints.rev().take(COMPLAINTS).collect();
        complaints.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

fn address(url: &str) -> Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("the server listens at no URL")?;
    address.parse().with_context(|| format!("the server listens at {url}"))
}

/// A token for an administrator, by the server's own tool.
async fn token(program: &Path, data: &Path) -> Result<String> {
    let output = Command::new(program)
        .args(["token", "--scope", "network.admin", "--subject", "bench", "--expires-in", "86400"])
        .arg("--data-dir")
        .arg(data)
        .output()
        .await
        .context("asking for a token")?;
    if !output.status.success() {
        bail!("no token: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
