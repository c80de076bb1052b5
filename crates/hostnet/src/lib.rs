//! hostnet
