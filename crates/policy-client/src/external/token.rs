use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// A bearer token: never printed, wiped when dropped.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

/// The text is no token; it is not repeated, since it may be half of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("the token is empty")]
    Empty,
    /// Line breaks, spaces or other characters a header cannot carry.
    #[error("the token has characters no token has")]
    Characters,
}

impl Token {
    /// What the `Authorization` header says.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0.expose_secret())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Takes a token as files and other programs give it: white space around it and a leading
    /// `bearer` are left away.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let token = match text.split_at_checked("bearer ".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest.trim_start(),
            _ => text,
        };
        match token {
            "" => Err(TokenError::Empty),
            token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(token.into())),
            _ => Err(TokenError::Characters),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<String, TokenError> {
        text.parse::<Token>().map(|token| token.header())
    }

    #[test]
    fn tokens_are_taken_as_they_come() {
        for text in ["ey.J.x", " ey.J.x\n", "bearer ey.J.x", "Bearer  ey.J.x\n"] {
            assert_eq!(header(text), Ok("Bearer ey.J.x".to_owned()));
        }
        assert_eq!(header(" \n"), Err(TokenError::Empty));
        assert_eq!(header("a\r\nX-Other: b"), Err(TokenError::Characters));
    }

    #[test]
    fn a_token_does_not_show() {
        let token: Token = "geheim".parse().unwrap();
        assert!(!format!("{token:?}").contains("geheim"));
    }
}
