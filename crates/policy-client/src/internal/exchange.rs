//! One request and its whole answer.

use std::{sync::atomic::Ordering, time::Duration};

use gocompat::json;
use percent_encoding::percent_decode;
use policy::{
    ParseVersionError, Version,
    wire::delta::{Delta, DeltaBody, MANIPULATION},
};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Client, ClientError,
    error::{Nonsense, UnusableChanges},
    receipt::ReceiptWords,
};
use crate::refusal;

/// The most bytes of an answer that are read: some ten times the policies of the largest fleets.
const LONGEST: usize = 256 << 20;

/// What is reserved for an answer before any of it has come, however long it says that it will be.
const RESERVED: usize = 4 << 20;

/// `Prefer`, RFC 7240.
const PREFER: &str = "Prefer";
const PREFERENCE_APPLIED: &str = "Preference-Applied";

/// The headers of RFC 3229.
const A_IM: &str = "A-IM";
const IM: &str = "IM";
const DELTA_BASE: &str = "Delta-Base";

/// How many milliseconds the next question may be spread over.
const REST: &str = "Netman-Rest";

/// Why what the cell says is no receipt.
const REFUSED: &str = "Netman-Receipt-Refused";

/// That an empty list of security groups means nothing.
const GROUPS_UNKNOWN: &str = "Netman-Groups-Unknown";

/// No server may ask for more.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Who is asking; receipts are kept under this name (design §2.3).
const CELL: &str = "Netman-Cell";

/// Which process says so: two of one name are not to confirm for each other.
const AGENT: &str = "Netman-Agent";

/// How many questions it had asked before. One that was taken back may be read after the next.
const QUESTION: &str = "Netman-Question";

/// A request, named for errors without its query, which lists every app of the cell.
pub(super) struct Exchange {
    request: RequestBuilder,
    name: String,
}

/// What a question says about itself besides its address.
#[derive(Default)]
pub(super) struct Poll<'a> {
    /// What is known already.
    pub known: Option<&'a Version>,
    /// How long the server may hold the question while that is so.
    pub wait: Option<Duration>,
    /// What the receipt says, where a question is one.
    pub receipt: Option<&'a ReceiptWords>,
    /// Whether what became of the known version may be told instead of the whole.
    pub changes: bool,
}

/// The answer to a question that says what is known already.
pub(super) enum Held {
    NotModified(Version),
    Fresh {
        body: Body,
        version: Option<Version>,
    },
    /// From the known version to this.
    Changes {
        body: Body,
        version: Version,
    },
}

/// An answer, and how long the server says it would have held the question; `None` when it says
/// nothing of holding.
pub(super) struct Reply {
    pub held: Held,
    pub wait: Option<Duration>,
    /// How long the next question may be put off, as many are told the same.
    pub rest: Duration,
    /// Why the receipt is none, if the server says so.
    pub refused: Option<String>,
    /// Whether nobody has told the server of security groups.
    pub groups_unknown: bool,
}

/// A successful answer, not understood yet.
pub(super) struct Body {
    bytes: Vec<u8>,
    name: String,
}

impl Client {
    pub(super) fn get(&self, url: Url) -> Exchange {
        self.exchange(Method::GET, url, self.timeout)
    }

    pub(super) fn put<T: Serialize>(&self, url: Url, body: &T) -> Exchange {
        let exchange = self.exchange(Method::PUT, url, self.timeout);
        let request = exchange.request.header(CONTENT_TYPE, "application/json");
        Exchange { request: request.body(json::to_string(body)), ..exchange }
    }

    /// A question the server may hold for `wait` while what is asked for is still as `known`.
    pub(super) async fn ask(
        &self,
        url: Url,
        Poll { known, wait, receipt, changes }: Poll<'_>,
    ) -> Result<Reply, ClientError> {
        let Exchange { mut request, name } = self.get(url);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known.to_etag());
        }
        let base = known.filter(|_| changes);
        if base.is_some() {
            request = request.header(A_IM, MANIPULATION);
        }
        if let Some(wait) = wait {
            // The wait is whole seconds on the wire, and the server's, so ours begins after it.
            let seconds = wait.as_secs().max(1);
            request = request.header(PREFER, format!("wait={seconds}"));
            request = request.timeout(Duration::from_secs(seconds) + self.timeout);
        }
        if let (Some(words), Some(cell)) = (receipt, &self.cell) {
            let agent = self.agent.to_string();
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            request = request.header(CELL, cell).header(AGENT, agent).header(QUESTION, asked);
            request = words.on(request);
        }
        Exchange { request, name }.held(known, base).await
    }

    fn exchange(&self, method: Method, url: Url, timeout: Duration) -> Exchange {
        let mut shown = url.clone();
        shown.set_query(None);
        let name = format!("{method} {shown}");
        Exchange { request: self.door.http().request(method, url).timeout(timeout), name }
    }
}

impl Exchange {
    /// Sends, and reads a success to its end.
    pub(super) async fn body(self) -> Result<Body, ClientError> {
        let Self { request, name } = self;
        let response = send(request, &name).await?;
        Body::of(response, name).await
    }

    /// Sends, and waits for the headers of an answer, whatever it is.
    pub(super) async fn response(self) -> Result<Response, ClientError> {
        send(self.request, &self.name).await
    }

    async fn held(
        self,
        known: Option<&Version>,
        base: Option<&Version>,
    ) -> Result<Reply, ClientError> {
        let Self { request, name } = self;
        let response = send(request, &name).await?;
        let (wait, rest) = (applied_wait(response.headers()), rest(response.headers()));
        let refused = refused(response.headers());
        let groups_unknown = response.headers().contains_key(GROUPS_UNKNOWN);
        let held = match response.status() {
            StatusCode::IM_USED => changes(response, name, base).await,
            _ => answer(response, name, known).await,
        };
        Ok(Reply { held: held?, wait, rest, refused, groups_unknown })
    }
}

async fn answer(
    response: Response,
    name: String,
    known: Option<&Version>,
) -> Result<Held, ClientError> {
    let version = match version(response.headers()) {
        Ok(version) => version,
        Err(error) => return Err(nonsense(name, error)),
    };
    if response.status() != StatusCode::NOT_MODIFIED {
        return Ok(Held::Fresh { body: Body::of(response, name).await?, version });
    }
    match known {
        Some(known) if version.as_ref().is_none_or(|version| version == known) => {
            Ok(Held::NotModified(known.clone()))
        }
        _ => Err(nonsense(name, Nonsense::NotOurs)),
    }
}

/// `226 IM Used`, RFC 3229: only what became of `base`.
async fn changes(
    response: Response,
    name: String,
    base: Option<&Version>,
) -> Result<Held, ClientError> {
    match led_to(response.headers(), base) {
        Ok(version) => Ok(Held::Changes { body: Body::of(response, name).await?, version }),
        Err(source) => Err(ClientError::Changes { request: name, source }),
    }
}

/// The version that changes to `base` lead to.
fn led_to(headers: &HeaderMap, base: Option<&Version>) -> Result<Version, UnusableChanges> {
    let base = base.ok_or(UnusableChanges::NotAsked)?;
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let named = |name: &str| name.trim().eq_ignore_ascii_case(MANIPULATION);
    if !text(IM).is_some_and(|manipulations| manipulations.split(',').any(named)) {
        return Err(UnusableChanges::Header(IM));
    }
    let start = text(DELTA_BASE).and_then(|etag| Version::from_etag(etag).ok());
    match start.ok_or(UnusableChanges::Header(DELTA_BASE))? {
        start if start == *base => {}
        start => return Err(UnusableChanges::Base { start, base: base.clone() }),
    }
    version(headers).ok().flatten().ok_or(UnusableChanges::Header("ETag"))
}

impl Body {
    async fn of(mut response: Response, name: String) -> Result<Self, ClientError> {
        let status = response.status();
        let mut bytes = Vec::with_capacity(reserved(response.content_length()));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > LONGEST => {
                    return Err(ClientError::TooLong { request: name, limit: LONGEST });
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(source) => return Err(unreachable(source, &name)),
            }
        }
        if status.is_success() {
            return Ok(Self { bytes, name });
        }
        let (status, reason) = (status.as_u16(), refusal::text(&bytes));
        Err(ClientError::Refused { request: name, status, reason })
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(test)]
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), name: "GET nowhere".to_owned() }
    }

    /// What became of a list.
    pub(super) fn into_delta(self) -> Result<Delta, ClientError> {
        let Self { bytes, name: request } = self;
        let body = json::from_slice::<DeltaBody>(&bytes).map_err(UnusableChanges::Json);
        let delta = body.and_then(|body| body.into_delta().map_err(UnusableChanges::Policy));
        delta.map_err(|source| ClientError::Changes { request, source })
    }

    /// Reads the JSON, then makes sense of it; neither by halves.
    pub(super) fn understand<Wire: DeserializeOwned, T, E: Into<Nonsense>>(
        self,
        understand: impl FnOnce(Wire) -> Result<T, E>,
    ) -> Result<T, ClientError> {
        let Self { bytes, name } = self;
        match json::from_slice(&bytes) {
            Ok(wire) => understand(wire).map_err(|error| nonsense(name, error)),
            Err(source) => Err(ClientError::Json { request: name, source }),
        }
    }
}

/// How much room is made for an answer that is said to be so long.
fn reserved(announced: Option<u64>) -> usize {
    announced.map_or(0, |length| usize::try_from(length).unwrap_or(RESERVED).min(RESERVED))
}

async fn send(request: RequestBuilder, name: &str) -> Result<Response, ClientError> {
    request.send().await.map_err(|source| unreachable(source, name))
}

fn unreachable(source: reqwest::Error, name: &str) -> ClientError {
    ClientError::Unreachable { request: name.to_owned(), source: source.without_url() }
}

fn nonsense(request: String, source: impl Into<Nonsense>) -> ClientError {
    ClientError::Nonsense { request, source: source.into() }
}

/// What the server made of our `Prefer`; whatever cannot be read is no word.
fn applied_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFERENCE_APPLIED).iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split([',', ';'])).find_map(|applied| {
        let (name, seconds) = applied.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("wait");
        named.then(|| seconds.trim().trim_matches('"').parse().ok()).flatten()
    })?;
    Some(Duration::from_secs(seconds))
}

/// Whatever cannot be read asks for none.
fn rest(headers: &HeaderMap) -> Duration {
    let millis = headers.get(REST).and_then(|value| value.to_str().ok()?.parse().ok());
    millis.map(Duration::from_millis).unwrap_or_default().min(LONGEST_REST)
}

fn refused(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get(REFUSED)?.as_bytes();
    Some(percent_decode(sent).decode_utf8_lossy().into_owned())
}

fn version(headers: &HeaderMap) -> Result<Option<Version>, ParseVersionError> {
    let Some(value) = headers.get(ETAG) else {
        return Ok(None);
    };
    Version::from_etag(&String::from_utf8_lossy(value.as_bytes())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_alone_takes_no_memory_to_speak_of() {
        assert_eq!([None, Some(700), Some(u64::MAX)].map(reserved), [0, 700, RESERVED]);
        const { assert!(RESERVED < LONGEST) };
    }
}
