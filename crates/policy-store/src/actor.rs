use std::net::IpAddr;

/// Who asks for a change, as the audit trail will tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user or client a token speaks for, or the part of this system that acts by itself.
    pub subject: String,
    /// Where the request came from; `None` for what this system does by itself.
    pub address: Option<IpAddr>,
    /// The id the request has in the log; empty where there is no request.
    pub request: String,
}

impl Actor {
    /// A part of this system, such as `policy-cleaner`.
    pub fn system(part: &str) -> Self {
        Self { subject: part.to_owned(), address: None, request: String::new() }
    }
}
