//! The parts of a process that live as long as it does.

use std::error::Error;

use axum::Router;
use futures::future::select_all;
use service::tls::Live;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::CancellationToken;

/// Parts that run side by side. When the process is to stop, each is told to in turn, the last one
/// first, and the next only when it has ended (spec/policy-server.md §12.3).
#[derive(Default)]
pub(super) struct Members(Vec<Member>);

struct Member {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Ended>,
}

type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// A part that ended although nobody told it to. A process without one of its parts is worse than
/// none, which is started again.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum MemberError {
    #[error("{name} ended by itself")]
    Ended { name: &'static str },
    #[error("{name} failed")]
    Failed {
        name: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{name} broke down")]
    Broken {
        name: &'static str,
        #[source]
        source: JoinError,
    },
}

impl Members {
    /// Starts a part, which ends in its own time once the token is cancelled.
    pub(super) fn start<Work>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> Work,
    ) where
        Work: Future<Output = Ended> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(stop.clone()));
        self.0.push(Member { name, stop, task });
    }

    /// Starts a part that can be dropped at any moment.
    pub(super) fn start_endless(
        &mut self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start(name, |stop| async move {
            stop.run_until_cancelled(work).await;
            Ok(())
        });
    }

    /// Serves `routes` without TLS, from now on.
    pub(super) fn serve(&mut self, name: &'static str, listener: TcpListener, routes: Router) {
        self.start(name, |stop| async move {
            service::serve::http(listener, routes, stop).await;
            Ok(())
        });
    }

    /// Serves `routes` over TLS, from now on.
    pub(super) fn serve_tls(
        &mut self,
        name: &'static str,
        listener: TcpListener,
        tls: Live,
        routes: Router,
    ) {
        self.start(name, |stop| async move {
            service::serve::https(listener, tls, routes, stop).await;
            Ok(())
        });
    }

    /// Runs until `shutdown`, or until a part ends; then stops the others. `shutdown` is cancelled in
    /// either case, for those who wait for it elsewhere.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), MemberError> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            (ended, index, _) = select_all(self.0.iter_mut().map(|member| &mut member.task)) => {
                Some((index, ended))
            }
        };
        shutdown.cancel();
        let failure = ended.map(|(index, ended)| self.0.remove(index).failure(ended));
        for member in self.0.into_iter().rev() {
            member.stop().await;
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Member {
    fn failure(self, ended: Result<Ended, JoinError>) -> MemberError {
        let name = self.name;
        match ended {
            Ok(Ok(())) => MemberError::Ended { name },
            Ok(Err(source)) => MemberError::Failed { name, source },
            Err(source) => MemberError::Broken { name, source },
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        let error = match self.task.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => service::log::chain(&*error),
            Err(error) => service::log::chain(&error),
        };
        tracing::error!(error, "{} did not stop well.", self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Parts that note when they end.
    fn members(noted: &Arc<Mutex<Vec<&'static str>>>) -> Members {
        let mut members = Members::default();
        for name in ["first", "second", "third"] {
            let noted = noted.clone();
            members.start(name, |stop| async move {
                stop.cancelled().await;
                noted.lock().unwrap().push(name);
                Ok(())
            });
        }
        members
    }

    #[tokio::test]
    async fn parts_stop_one_after_the_other_the_last_one_first() {
        let noted = Arc::default();
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        members(&noted).run(shutdown).await.unwrap();
        assert_eq!(*noted.lock().unwrap(), ["third", "second", "first"]);
    }

    #[tokio::test]
    async fn a_part_that_ends_ends_the_others() {
        let noted = Arc::default();
        let mut parts = members(&noted);
        parts.start("feeder", |_| async { Err("no database".into()) });
        let shutdown = CancellationToken::new();
        let error = parts.run(shutdown.clone()).await.unwrap_err();
        assert_eq!(service::log::chain(&error), "feeder failed: no database");
        assert_eq!(noted.lock().unwrap().len(), 3);
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn one_that_panics_or_just_ends_is_named_too() {
        let ended = async |work: fn()| {
            let mut parts = Members::default();
            parts.start_endless("the cleaner", async move { work() });
            parts.run(CancellationToken::new()).await.unwrap_err().to_string()
        };
        assert_eq!(ended(|| {}).await, "the cleaner ended by itself");
        assert_eq!(ended(|| panic!("at a test's wish")).await, "the cleaner broke down");
    }
}
