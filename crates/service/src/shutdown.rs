//! Signals become a token that everything long-running watches.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT or SIGTERM. Call it inside a runtime.
///
/// # Panics
/// If the process may not have signal handlers, which no supported system forbids.
pub fn on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let listen = |kind| signal(kind).expect("a process may handle its own signals");
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal = name, "Stopping, as asked by a signal.");
        cancelled.cancel();
    });
    token
}
