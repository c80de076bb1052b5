use thiserror::Error;

/// Why a request to create or delete policies is refused. The texts are part of the API
/// (spec/policy-server.md §2.8); callers' scripts match on them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum InvalidPolicy {
    #[error("missing policies")]
    NoPolicies,
    #[error("missing source id")]
    NoSource,
    #[error("missing destination id")]
    NoDestination,
    #[error("invalid destination protocol, specify either udp or tcp")]
    Protocol,
    #[error("invalid port range {start}-{end}, start must be less than or equal to end")]
    ReversedRange { start: i64, end: i64 },
    #[error("invalid start port {0}, must be in range 1-65535")]
    StartPort(i64),
    #[error("missing start port")]
    NoStartPort,
    #[error("invalid end port {0}, must be in range 1-65535")]
    EndPort(i64),
    #[error("invalid port {0}, must be in range 1-65535")]
    Port(i64),
    #[error("missing port")]
    NoPort,
    #[error("tags may not be specified")]
    Tagged,
}
