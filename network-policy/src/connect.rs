//! From arguments to a client.

use std::{fs, path::Path, time::Duration};

use policy_client::external::{Client, Settings, Token};

use crate::{args::ServerArgs, failure::Failure};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn client(args: ServerArgs) -> Result<Client, Failure> {
    let ServerArgs { server, token, token_file, ca_cert } = args;
    let token = match (token_file, token) {
        (Some(path), _) => from_file(&path)?,
        (None, Some(token)) => token.parse().map_err(Failure::Token)?,
        (None, None) => return Err(Failure::NoToken),
    };
    let settings = Settings { url: server, token, ca_cert_file: ca_cert, timeout: PATIENCE };
    Client::new(&settings).map_err(Failure::Settings)
}

fn from_file(path: &Path) -> Result<Token, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|source| Failure::TokenFile { path: path.to_owned(), source })?;
    text.parse().map_err(Failure::Token)
}
