//! Reading bodies, but not any length of them, and not for ever (spec/policy-server.md §2.4).

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::timeout;

/// The longest body: 10 MiB.
pub(crate) const LONGEST: usize = 10 << 20;

/// What is read and thrown away beyond that, so that a client that sends all before it reads gets
/// its answer and not a broken pipe.
const LONGEST_WASTED: usize = 64 << 20;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// A body that could not be taken in.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    #[error("the body is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the body took longer than {} s to arrive", PATIENCE.as_secs())]
    TooSlow,
    #[error("the body ended early")]
    Broken(#[source] axum::Error),
}

pub(crate) async fn read(body: Body) -> Result<Vec<u8>, BodyError> {
    timeout(PATIENCE, read_all(body)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn read_all(mut body: Body) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(BodyError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= LONGEST {
            bytes.extend_from_slice(&data);
        } else if length > LONGEST_WASTED {
            break;
        }
    }
    if length > LONGEST { Err(BodyError::TooLong) } else { Ok(bytes) }
}
