//! What a cell adds to its receipt.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::RequestBuilder;

/// What enforces the policies.
const BACKEND: &str = "Netman-Backend";

/// Why the kernel is not as it should be.
const ERROR: &str = "Netman-Error";

/// That the version is known, but not enforced.
const WATCHES: &str = "Netman-Watches-Only";

/// The longest error, as sent: enough for an operator to know where to look.
const LONGEST: usize = 512;

/// What a header cannot carry, and the sign that says so.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// What a cell says about itself besides the version its kernel enforces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiptWords {
    /// What enforces the policies there.
    pub backend: Option<Backend>,
    /// Why the kernel was left as it is, if it was. Any text; a long one is cut.
    pub error: Option<String>,
    /// Whether what the version does not allow is only watched: it is then no receipt.
    pub watches_only: bool,
}

/// How a cell's kernel is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Through `iptables`.
    Iptables,
    /// Through `nft`.
    Nftables,
}

impl Backend {
    /// The name servers know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl ReceiptWords {
    pub(super) fn on(&self, mut request: RequestBuilder) -> RequestBuilder {
        let Self { backend, error, watches_only } = self;
        if let Some(backend) = backend {
            request = request.header(BACKEND, backend.as_str());
        }
        if let Some(error) = error {
            request = request.header(ERROR, escaped(error));
        }
        if *watches_only {
            request = request.header(WATCHES, "true");
        }
        request
    }
}

/// `text` for a header, cut between characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let mut letters = [0; 4];
    for letter in text.trim().chars() {
        let letter: &str = letter.encode_utf8(&mut letters);
        let pieces = utf8_percent_encode(letter, ESCAPED).collect::<String>();
        if escaped.len() + pieces.len() > LONGEST {
            break;
        }
        escaped += &pieces;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn an_error_stays_readable() {
        assert_eq!(escaped(" no iptables: 100%\nwrong "), "no iptables: 100%25%0Awrong");
    }

    proptest! {
        #[test]
        fn any_error_fits_a_header_and_comes_back_or_is_cut(text in ".{0,700}") {
            let sent = escaped(&text);
            prop_assert!(sent.len() <= LONGEST);
            prop_assert!(HeaderValue::from_str(&sent).unwrap().to_str().is_ok());
            let back = percent_decode_str(&sent).decode_utf8().unwrap();
            prop_assert!(text.trim().starts_with(&*back));
        }
    }
}
