//! Reading bodies, but not for ever, and on the external API not any length of them
//! (spec/policy-server.md §2.4).

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use futures::stream::try_unfold;
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::timeout;

/// The longest body of those that have a longest length: 10 MiB.
const LONGEST: usize = 10 << 20;

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

/// Passes a request on whose body is no longer than is allowed: reading on fails.
pub(crate) async fn cap(request: Request, next: Next) -> Response {
    next.run(request.map(capped)).await
}

/// The whole of `body`.
pub(crate) async fn read(mut body: Body) -> Result<Vec<u8>, BodyError> {
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(data) = next_data(&mut body).await? {
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    timeout(PATIENCE, reading).await.unwrap_or(Err(BodyError::TooSlow))
}

fn capped(body: Body) -> Body {
    Body::from_stream(try_unfold((body, 0usize), async |(mut body, before)| {
        let Some(data) = next_data(&mut body).await? else { return Ok(None) };
        let length = before + data.len();
        if length <= LONGEST {
            return Ok(Some((data, (body, length))));
        }
        waste(body, length).await;
        Err(BodyError::TooLong)
    }))
}

async fn waste(mut body: Body, mut length: usize) {
    while length <= LONGEST_WASTED
        && let Ok(Some(data)) = next_data(&mut body).await
    {
        length += data.len();
    }
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// What a capped body says comes back inside the framework's error.
fn broken(error: axum::Error) -> BodyError {
    match error.into_inner().downcast::<BodyError>() {
        Ok(ours) => *ours,
        Err(theirs) => BodyError::Broken(axum::Error::new(theirs)),
    }
}
