//! One agent writes the rules of a machine: two with different views would write against each other for
//! ever. What is claimed belongs to the network namespace, as the rules do, and ends with the process,
//! however it ends: a name among the kernel's abstract sockets.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener as Listener, UnixStream as Stream},
    },
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::sleep,
};

const NAME: &str = "netman-policy-agent";

/// How long an agent that ends may take, or a child of one that was killed may still have its sockets.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whoever ends by itself has mostly ended by then.
const SOON: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(20);

/// Holds for as long as it lives.
pub(crate) struct Claim(Option<JoinHandle<()>>);

/// Another agent writes the rules here.
#[derive(Debug, Error)]
#[error(
    "another policy agent, {owner}, writes the rules of this network namespace; \
     stop it first, or let whoever starts this one try again"
)]
pub struct Taken {
    owner: String,
}

/// Claims the rules of this network namespace; waits a few seconds for an owner that is about to end.
pub(crate) async fn claim() -> Result<Claim, Taken> {
    claim_as(NAME, PATIENCE).await
}

async fn claim_as(name: &str, patience: Duration) -> Result<Claim, Taken> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match listen(name) {
            Ok(listener) => return Ok(Claim(Some(tokio::spawn(attend(listener))))),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                tracing::warn!(%error, "Whether another agent writes rules here is not known.");
                return Ok(Claim(None));
            }
            Err(_) if began.elapsed() < patience => {
                if !is_told && began.elapsed() >= SOON {
                    let seconds = patience.as_secs();
                    tracing::warn!(
                        "Another policy agent is at work here; it is waited for, for {seconds} seconds."
                    );
                    is_told = true;
                }
                sleep(PAUSE).await;
            }
            Err(_) => break,
        }
    }
    match owner(name) {
        // Only who may write rules can keep us from it.
        Ok((process, user)) if user != nix::unistd::geteuid().as_raw() => {
            tracing::warn!(process, user, "Somebody else's process goes by the name of an agent.");
            Ok(Claim(None))
        }
        Ok((process, _)) => Err(Taken { owner: named(process) }),
        Err(_) => Err(Taken { owner: "which does not answer".to_owned() }),
    }
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = Listener::bind_addr(&address(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Whoever knocks wants to know who is here, which the kernel tells.
async fn attend(listener: UnixListener) {
    loop {
        if listener.accept().await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// The owner's process, 0 if it cannot be seen from here, and user.
fn owner(name: &str) -> io::Result<(i32, u32)> {
    let stream = Stream::connect_addr(&address(name)?)?;
    stream.set_nonblocking(true)?;
    let owner = UnixStream::from_std(stream)?.peer_cred()?;
    Ok((owner.pid().unwrap_or_default(), owner.uid()))
}

fn named(process: i32) -> String {
    if process == 0 {
        return "a process of another PID namespace".to_owned();
    }
    match fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(program) => format!("process {process} ({})", program.trim()),
        Err(_) => format!("process {process}"),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(attending) = self.0.take() {
            attending.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_is_told_who_is_first_and_follows_it() {
        let name = format!("netman-test-{}", std::process::id());
        let soon = Duration::from_millis(100);
        let first = claim_as(&name, soon).await.unwrap();
        let told = claim_as(&name, soon).await.err().unwrap().to_string();
        assert!(told.contains(&format!("process {} (", std::process::id())), "{told}");
        drop(first);
        claim_as(&name, PATIENCE).await.unwrap();
    }
}
