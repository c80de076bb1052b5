//! policy-store
