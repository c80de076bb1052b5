//! What the parts that speak HTTP have in common: a listener on loopback, a memory of what was asked,
//! and troubles on request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

/// No request to these parts is longer.
const LONGEST: usize = 64 << 20;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Such as `GET`.
    pub method: String,
    /// Such as `/v3/apps`, still encoded.
    pub path: String,
    /// What came after the `?`, still encoded; empty if nothing did.
    pub query: String,
    /// The header `Authorization`; empty without.
    pub authorization: String,
    /// The header `Content-Type`; empty without.
    pub content_type: String,
    /// The body.
    pub body: String,
    /// Where the connection came from: requests on the same one have the same.
    pub from: SocketAddr,
}

/// How a part can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It answers with this status, and nothing else.
    Status(u16),
    /// It answers 200 with this body.
    Says(Vec<u8>),
    /// It takes requests and never answers.
    Silence,
}

/// What a part answers with.
#[derive(Debug)]
pub(crate) struct Answer(pub u16, pub String);

/// A part on its stage.
pub(crate) struct Stage {
    address: SocketAddr,
    act: Arc<Act>,
    playing: Option<Playing>,
}

struct Playing {
    curtain: CancellationToken,
    serving: JoinHandle<()>,
}

struct Act {
    memory: Mutex<Vec<Asked>>,
    /// The trouble, and for how many more requests; `None` means until told otherwise.
    trouble: Mutex<Option<(Trouble, Option<usize>)>>,
    answer: Box<dyn Fn(&Asked) -> Answer + Send + Sync>,
}

impl Answer {
    /// A 200 that says `body`.
    #[expect(clippy::needless_pass_by_value, reason = "answers are made where they are given")]
    pub(crate) fn json(body: serde_json::Value) -> Self {
        Self(200, body.to_string())
    }
}

impl Stage {
    /// Starts answering, on a port of its own.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let act = Arc::new(Act {
            memory: Mutex::default(),
            trouble: Mutex::default(),
            answer: Box::new(answer),
        });
        let playing = Some(act.clone().play(listener));
        Self { address, act, playing }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.act.memory).clone()
    }

    pub(crate) fn forget(&self) {
        lock(&self.act.memory).clear();
    }

    pub(crate) fn trouble(&self, trouble: impl Into<Option<Trouble>>) {
        *lock(&self.act.trouble) = trouble.into().map(|trouble| (trouble, None));
    }

    pub(crate) fn trouble_for(&self, trouble: Trouble, requests: usize) {
        *lock(&self.act.trouble) = Some((trouble, Some(requests)));
    }

    /// Closes the listener and every connection.
    pub(crate) async fn leave(&mut self) {
        if let Some(Playing { curtain, serving }) = self.playing.take() {
            curtain.cancel();
            serving.await.expect("serving does not panic");
        }
    }

    /// Listens again where it listened before.
    pub(crate) async fn come_back(&mut self) {
        if self.playing.is_none() {
            let listener = TcpListener::bind(self.address).await.expect("the port is still free");
            self.playing = Some(self.act.clone().play(listener));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(playing) = &self.playing {
            playing.curtain.cancel();
        }
    }
}

impl Act {
    fn play(self: Arc<Self>, listener: TcpListener) -> Playing {
        let curtain = CancellationToken::new();
        let falls = curtain.clone();
        let routes = Router::new().fallback(move |request: Request| {
            let (act, falls) = (self.clone(), falls.clone());
            async move {
                tokio::select! {
                    answer = act.respond(request) => answer,
                    // Whoever still waits gets a word, so that connections can be closed.
                    () = falls.cancelled() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                }
            }
        });
        let service = routes.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, service)
            .with_graceful_shutdown(curtain.clone().cancelled_owned());
        let serving = tokio::spawn(async move {
            serving.await.expect("serving does not fail");
        });
        Playing { curtain, serving }
    }

    async fn respond(&self, request: Request) -> Response {
        let asked = Asked::of(request).await;
        lock(&self.memory).push(asked.clone());
        match self.next_trouble() {
            Some(Trouble::Silence) => std::future::pending().await,
            Some(Trouble::Status(status)) => answer(status, Body::empty()),
            Some(Trouble::Says(body)) => answer(200, Body::from(body)),
            None => {
                let Answer(status, body) = (self.answer)(&asked);
                answer(status, Body::from(body))
            }
        }
    }

    fn next_trouble(&self) -> Option<Trouble> {
        let mut held = lock(&self.trouble);
        let (trouble, left) = held.clone()?;
        *held = match left {
            None => Some((trouble.clone(), None)),
            Some(left) if left > 1 => Some((trouble.clone(), Some(left - 1))),
            Some(_) => None,
        };
        Some(trouble)
    }
}

fn answer(status: u16, body: Body) -> Response {
    const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];
    let status = StatusCode::from_u16(status).expect("tests ask for statuses there are");
    (status, JSON, body).into_response()
}

impl Asked {
    async fn of(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let header = |name: HeaderName| {
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            parts.headers.get(name).map(text).unwrap_or_default()
        };
        let from = parts.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        let body = to_bytes(body, LONGEST).await.unwrap_or_default();
        Self {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            authorization: header(AUTHORIZATION),
            content_type: header(CONTENT_TYPE),
            body: String::from_utf8_lossy(&body).into_owned(),
            from: from.expect("the service tells it").0,
        }
    }

    /// Each value of parameter `name`, decoded.
    pub fn values(&self, name: &str) -> Vec<String> {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// The first value of parameter `name`, decoded.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }

    /// Path and query together.
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        format!("{}?{}", self.path, self.query)
    }
}

/// Waits until `holds`, for parts that are asked in the background.
///
/// # Panics
/// After ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "gave up waiting until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
