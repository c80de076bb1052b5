//! What to do about a connection that brought no answer.

use std::error::Error;

const OTHER_END: &str =
    "Is the policy server running, and is --server (or NETWORK_POLICY_SERVER) its address?";

/// What an error says, and what there is to do about it. The texts are those of rustls and ureq, whose types
/// are no part of what the client promises; tests meet them in real connections.
const ADVICE: [(&str, &str); 9] = [
    (
        "CertificateRequired",
        "This is the server's internal API, for cells. --server (or NETWORK_POLICY_SERVER) must be\n\
         the address of the external one, port 4002 by custom.",
    ),
    (
        "InvalidContentType",
        "What answers there does not speak TLS. Try the same address with http:// in --server (or\n\
         NETWORK_POLICY_SERVER).",
    ),
    ("UnknownIssuer", OTHER_AUTHORITY),
    // What another authority of the same name has signed, for instance the server's of before.
    ("BadSignature", OTHER_AUTHORITY),
    (
        "not valid for name",
        "Give --server (or NETWORK_POLICY_SERVER) a name that the certificate is valid for, or the server\n\
         a certificate (server_cert_file in its configuration) that is valid for this one.",
    ),
    ("certificate expired", OUT_OF_TIME),
    ("certificate not valid yet", OUT_OF_TIME),
    (
        "CaUsedAsEndEntity",
        "The server's certificate (server_cert_file in its configuration) is that of an authority: make\n\
         one with CA:FALSE, and give --ca-cert the authority that this one is from.",
    ),
    (
        "certificate",
        "Is --ca-cert the authority behind the server's certificate, and is the address in\n\
         --server one of the names in it?",
    ),
];

const OTHER_AUTHORITY: &str = "\
Give --ca-cert the authority that the server's certificate is from, unless --server (or
NETWORK_POLICY_SERVER) has the port for cells in the place of the external one, 4002 by custom.";

const OUT_OF_TIME: &str = "\
Give the server a new certificate (server_cert_file in its configuration), unless it is the clock of
this machine that is wrong.";

/// What becomes of a request in clear text where TLS is expected.
const HUNG_UP: [&str; 3] = ["Peer disconnected", "reset by peer", "protocol: "];

/// What to do when `error` came in the place of an answer to `request`.
pub(crate) fn advice(request: &str, error: &dyn Error) -> &'static str {
    let text = error.to_string();
    if let Some((_, advice)) = ADVICE.iter().find(|(says, _)| text.contains(says)) {
        return advice;
    }
    // The other way round, nobody is told to send a token in clear text because a server hung up.
    if request.contains("http://") && HUNG_UP.iter().any(|says| text.contains(says)) {
        return "Is the policy server running, and is --server (or NETWORK_POLICY_SERVER) its address? If so, try\n\
                https:// in the place of http://.";
    }
    OTHER_END
}

/// What servers say in clear text where they expect TLS: Go's and ours, nginx, Apache and Tomcat.
pub(crate) fn wants_tls(reason: &str) -> bool {
    [
        "HTTP request to an HTTPS server",
        "HTTP request was sent to HTTPS port",
        "plain HTTP to an SSL-enabled server port",
        "combination of host and port requires TLS",
    ]
    .iter()
    .any(|says| reason.contains(says))
}
