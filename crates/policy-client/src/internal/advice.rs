//! What there is to do about a question that brought no answer, by the keys agents and overlay daemons have
//! in their configuration.

use std::{error::Error, iter::successors};

use super::ClientError;

/// What an error says somewhere, and what to do. The texts are those of rustls, hyper and the kernel, whose types
/// are no part of what the client promises; tests meet the commonest in real connections.
const STEPS: [(&str, &str); 11] = [
    ("UnknownIssuer", OTHER_AUTHORITY),
    // What another authority of the same name has signed.
    ("BadSignature", OTHER_AUTHORITY),
    (
        "InvalidContentType",
        "what listens there speaks no TLS; the internal API is meant, port 4003 by custom",
    ),
    ("not valid for name", "the server's certificate must name the host in the server's address"),
    ("certificate expired", OUT_OF_TIME),
    ("certificate not valid yet", OUT_OF_TIME),
    ("alert: ProtocolVersion", NO_COMMON_TLS),
    ("alert: HandshakeFailure", NO_COMMON_TLS),
    ("received fatal alert", NOT_ACCEPTED),
    ("Connection refused", "is the policy server running there?"),
    ("failed to lookup address", "does the name in the server's address resolve here?"),
];

const OTHER_AUTHORITY: &str = "ca_cert_file must be the authority that has signed the server's certificate (ca.crt in the server's pki folder)";

const OUT_OF_TIME: &str = "the server needs a new certificate, unless a clock is wrong";

const NO_COMMON_TLS: &str =
    "is that a policy server? what listens there speaks no TLS 1.2 or 1.3 that is spoken here";

const NOT_ACCEPTED: &str = "client_cert_file must be a certificate for clients, signed by the authority the server trusts (agent.crt in the server's pki folder)";

/// Ends of connections that tell nothing, by which a server may also refuse a certificate.
const HUNG_UP: [&str; 4] = ["connection closed", "broken pipe", "Canceled", "reset by peer"];

impl ClientError {
    /// What to do next, if that can be told. `never_answered`: no question was ever answered, so that an end
    /// without a word is no restart but may well be a refusal.
    pub fn next_step(&self, never_answered: bool) -> Option<&'static str> {
        let Self::Unreachable { source, .. } = self else { return None };
        let source: &dyn Error = source;
        let texts: Vec<_> =
            successors(Some(source), |&error| error.source()).map(ToString::to_string).collect();
        let says = |what: &str| texts.iter().any(|text| text.contains(what));
        if let Some((_, step)) = STEPS.iter().find(|(what, _)| says(what)) {
            return Some(step);
        }
        let may_be_refused = never_answered && HUNG_UP.iter().any(|what| says(what));
        may_be_refused.then_some(NOT_ACCEPTED)
    }
}
