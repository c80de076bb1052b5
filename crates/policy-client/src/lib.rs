//! policy-client
