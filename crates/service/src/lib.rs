//! The chassis of a daemon, the same under each of them: configuration that shows every mistake at
//! once ([`config`]), mutual TLS ([`tls`]), listeners that drain ([`serve`]), logs ([`log`]) and
//! signals ([`shutdown`]).
//!
//! A program's `main` reads: install the provider, read the configuration, start the log, listen,
//! run until the signal. Start reading at [`serve`].

pub mod command;
pub mod config;
pub mod debug;
pub mod log;
pub mod serve;
pub mod shutdown;
pub mod tls;

/// Makes aws-lc-rs the process's one crypto provider. First thing in `main`; calling it again, as
/// tests do, changes nothing.
pub fn install_crypto_provider() {
    // The error only says that a provider is installed already, and all of ours install this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
