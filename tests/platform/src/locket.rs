//! Locket: locks with a lifetime, by gRPC over mutual TLS (spec/policy-server.md §7).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::http;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::certificates::Certificates;

/// A Locket on loopback.
pub struct Locket {
    /// What to show it, and what it shows.
    pub certificates: Certificates,
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    serving: JoinHandle<()>,
}

/// A call, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `Lock`, `Release` or `Fetch`.
    pub method: String,
    /// The resource's key.
    pub key: String,
    /// Who wants it.
    pub owner: String,
    /// The resource's type.
    pub kind: String,
    /// The same as a number; a lock is 1.
    pub type_code: i32,
    /// For how many seconds; 0 where the call says nothing about it.
    pub ttl_in_seconds: i64,
    /// The metadata `uuid`.
    pub uuid: String,
}

#[derive(Default)]
struct Memory {
    calls: Vec<Call>,
    held: BTreeMap<String, Held>,
    away: bool,
}

struct Held {
    resource: Resource,
    until: Instant,
}

/// Message `models.Resource`.
#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    owner: String,
    #[prost(string, tag = "3")]
    value: String,
    #[prost(string, tag = "4")]
    r#type: String,
    #[prost(int32, tag = "5")]
    type_code: i32,
}

/// Message `models.LockRequest`, and `models.ReleaseRequest`, which is its first field.
#[derive(Clone, PartialEq, prost::Message)]
struct LockRequest {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(int64, tag = "2")]
    ttl_in_seconds: i64,
}

/// Message `models.FetchRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct FetchRequest {
    #[prost(string, tag = "1")]
    key: String,
}

/// Message `models.FetchResponse`; the answers to the other calls are empty, which this can be, too.
#[derive(Clone, PartialEq, prost::Message)]
struct FetchResponse {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
}

impl Locket {
    /// Starts one.
    ///
    /// # Panics
    /// If it cannot listen on loopback.
    pub async fn start() -> Self {
        service::install_crypto_provider();
        let certificates = Certificates::new();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(
                certificates.pem("server.crt"),
                certificates.pem("server.key"),
            ))
            .client_ca_root(Certificate::from_pem(certificates.pem("ca.crt")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a listener has an address");
        let memory = Arc::<Mutex<Memory>>::default();
        let server = Server::builder()
            .tls_config(tls)
            .expect("the certificates were just made")
            .add_service(Locks(memory.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let serving = tokio::spawn(async move {
            server.await.expect("it serves until it is dropped");
        });
        Self { certificates, address, memory, serving }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What it was asked so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.memory).calls.clone()
    }

    /// Who holds `key`.
    pub fn owner(&self, key: &str) -> Option<String> {
        let mut memory = lock(&self.memory);
        memory.expire();
        memory.held.get(key).map(|held| held.resource.owner.clone())
    }

    /// Gives `key` to somebody else for as long as anyone cares, as an operator would.
    pub fn take_away(&self, key: &str) {
        let resource = Resource {
            key: key.to_owned(),
            owner: "somebody else".to_owned(),
            ..Resource::default()
        };
        let until = Instant::now() + Duration::from_secs(3600);
        lock(&self.memory).held.insert(key.to_owned(), Held { resource, until });
    }

    /// Lets the time of `key` pass.
    pub fn lapse(&self, key: &str) {
        lock(&self.memory).held.remove(key);
    }

    /// Whether it answers every call that it is away.
    pub fn be_away(&self, away: bool) {
        lock(&self.memory).away = away;
    }
}

impl Drop for Locket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Memory {
    fn expire(&mut self) {
        let now = Instant::now();
        self.held.retain(|_, held| held.until > now);
    }

    /// Takes or keeps a lock. Whoever holds it by another name keeps others out.
    fn lock(&mut self, request: LockRequest) -> Result<FetchResponse, Status> {
        let LockRequest { resource, ttl_in_seconds } = request;
        let resource = resource.filter(|resource| !resource.key.is_empty());
        let resource = resource.ok_or_else(|| Status::invalid_argument("no resource"))?;
        let ttl = u64::try_from(ttl_in_seconds).ok().filter(|ttl| *ttl > 0);
        let ttl = ttl.ok_or_else(|| Status::invalid_argument("invalid ttl"))?;
        if self.held.get(&resource.key).is_some_and(|held| held.resource.owner != resource.owner) {
            return Err(Status::new(Code::AlreadyExists, "lock-collision"));
        }
        let until = Instant::now() + Duration::from_secs(ttl);
        self.held.insert(resource.key.clone(), Held { resource, until });
        Ok(FetchResponse::default())
    }

    /// Lets a lock go, if whoever asks holds it.
    fn release(&mut self, request: LockRequest) -> FetchResponse {
        let resource = request.resource.unwrap_or_default();
        self.held.retain(|key, held| *key != resource.key || held.resource.owner != resource.owner);
        FetchResponse::default()
    }

    fn fetch(&self, request: &FetchRequest) -> Result<FetchResponse, Status> {
        let held = self.held.get(&request.key).ok_or_else(|| Status::not_found("no such lock"))?;
        Ok(FetchResponse { resource: Some(held.resource.clone()) })
    }

    fn remember(&mut self, method: &str, uuid: &str, request: &LockRequest) {
        let resource = request.resource.clone().unwrap_or_default();
        self.calls.push(Call {
            method: method.to_owned(),
            key: resource.key,
            owner: resource.owner,
            kind: resource.r#type,
            type_code: resource.type_code,
            ttl_in_seconds: request.ttl_in_seconds,
            uuid: uuid.to_owned(),
        });
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gRPC service.
#[derive(Clone)]
struct Locks(Arc<Mutex<Memory>>);

impl NamedService for Locks {
    const NAME: &'static str = "models.Locket";
}

impl Service<http::Request<Body>> for Locks {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let memory = self.0.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "Fetch" => {
                    let codec = ProstCodec::<FetchResponse, FetchRequest>::default();
                    Grpc::new(codec).unary(Fetch(memory), request).await
                }
                _ => {
                    let codec = ProstCodec::<FetchResponse, LockRequest>::default();
                    Grpc::new(codec).unary(Change { memory, method }, request).await
                }
            })
        })
    }
}

struct Change {
    memory: Arc<Mutex<Memory>>,
    method: String,
}

impl UnaryService<LockRequest> for Change {
    type Response = FetchResponse;
    type Future = BoxFuture<Response<FetchResponse>, Status>;

    fn call(&mut self, request: Request<LockRequest>) -> Self::Future {
        let uuid = request.metadata().get("uuid").and_then(|uuid| uuid.to_str().ok());
        let uuid = uuid.unwrap_or_default().to_owned();
        let request = request.into_inner();
        let mut memory = lock(&self.memory);
        memory.expire();
        memory.remember(&self.method, &uuid, &request);
        let done = match self.method.as_str() {
            _ if memory.away => Err(Status::unavailable("away")),
            "Lock" => memory.lock(request),
            "Release" => Ok(memory.release(request)),
            other => Err(Status::unimplemented(format!("no method {other}"))),
        };
        Box::pin(std::future::ready(done.map(Response::new)))
    }
}

struct Fetch(Arc<Mutex<Memory>>);

impl UnaryService<FetchRequest> for Fetch {
    type Response = FetchResponse;
    type Future = BoxFuture<Response<FetchResponse>, Status>;

    fn call(&mut self, request: Request<FetchRequest>) -> Self::Future {
        let mut memory = lock(&self.0);
        memory.expire();
        let fetched = memory.fetch(&request.into_inner());
        Box::pin(std::future::ready(fetched.map(Response::new)))
    }
}
