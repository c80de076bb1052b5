//! The programs, used as the test-suites of the existing system use theirs (spec/policy-server.md
//! §14): started by name with a configuration file, asked over real sockets, told to stop by signals.
//! Databases are real; the platform around them is played.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod database;
mod deployment;
mod program;
