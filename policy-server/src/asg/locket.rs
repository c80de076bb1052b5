//! Locket: the lock service of Cloud Foundry's Diego, spoken to as the existing syncer does
//! (spec/policy-server.md §7): gRPC service `models.Locket` over mutual TLS.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use thiserror::Error;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use super::leader::{LeadError, Leadership, NAME};

/// How long the lock lasts.
const LIFETIME: Duration = Duration::from_secs(15);

/// How long the connection may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Where Locket is and who we are to it.
#[derive(Debug, Clone)]
pub struct LocketSettings {
    /// `host:port`.
    pub address: String,
    /// The authority of Locket's certificate.
    pub authority: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// How long a connection may be silent before it is tried.
    pub keepalive_time: Duration,
    /// How long the answer to that may take.
    pub keepalive_timeout: Duration,
    /// The name under which this process holds the lock; no other has it.
    pub owner: String,
    /// How long the lock lasts; `None` for what everyone uses.
    pub lifetime: Option<Duration>,
}

/// Locket cannot be reached.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each text says what the variant means")]
pub enum LocketError {
    #[error("locket_address is empty")]
    NoAddress,
    #[error("{address:?} is no address of a Locket")]
    Address {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("reading {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("preparing TLS for Locket")]
    Tls(#[source] tonic::transport::Error),
    #[error("connecting to Locket at {address}")]
    Connect {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("Locket at {address} was not ready within {} s", READY_WITHIN.as_secs())]
    NotReady { address: String },
}

/// The lock, through one connection.
pub struct Locket {
    channel: Channel,
    owner: String,
    lifetime: Duration,
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

/// Message `models.LockRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct LockRequest {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(int64, tag = "2")]
    ttl_in_seconds: i64,
}

/// Message `models.ReleaseRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct ReleaseRequest {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
}

/// Messages `models.LockResponse` and `models.ReleaseResponse`, which hold nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct Done {}

/// `models.LOCK`.
const TYPE_CODE_LOCK: i32 = 1;

impl Locket {
    /// Connects, or says why not within [`READY_WITHIN`].
    pub async fn connect(settings: LocketSettings) -> Result<Self, LocketError> {
        let LocketSettings {
            address,
            authority,
            certificate,
            key,
            keepalive_time,
            keepalive_timeout,
            owner,
            lifetime,
        } = settings;
        if address.is_empty() {
            return Err(LocketError::NoAddress);
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&authority)?))
            .identity(Identity::from_pem(read(&certificate)?, read(&key)?));
        let lifetime = lifetime.unwrap_or(LIFETIME);
        let mut endpoint = Endpoint::from_shared(format!("https://{address}"))
            .map_err(|source| LocketError::Address { address: address.clone(), source })?
            .timeout(lifetime)
            .tls_config(tls)
            .map_err(LocketError::Tls)?;
        if !keepalive_time.is_zero() {
            endpoint = endpoint
                .http2_keep_alive_interval(keepalive_time)
                .keep_alive_timeout(keepalive_timeout)
                .keep_alive_while_idle(true);
        }
        let channel = tokio::time::timeout(READY_WITHIN, endpoint.connect())
            .await
            .map_err(|_| LocketError::NotReady { address: address.clone() })?
            .map_err(|source| LocketError::Connect { address, source })?;
        Ok(Self { channel, owner, lifetime })
    }

    fn resource(&self) -> Resource {
        Resource {
            key: NAME.to_owned(),
            owner: self.owner.clone(),
            value: String::new(),
            r#type: "lock".to_owned(),
            type_code: TYPE_CODE_LOCK,
        }
    }

    async fn call<M>(&self, method: &'static str, message: M) -> Result<(), Status>
    where
        M: prost::Message + 'static,
    {
        let mut request = Request::new(message);
        let id = Uuid::new_v4().to_string();
        let id = MetadataValue::try_from(id).expect("a UUID has only digits, letters and dashes");
        request.metadata_mut().insert("uuid", id);
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<M, Done>::default();
        grpc.unary(request, PathAndQuery::from_static(method), codec).await.map(drop)
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, LocketError> {
    std::fs::read(path).map_err(|source| LocketError::File { path: path.to_owned(), source })
}

#[async_trait]
impl Leadership for Locket {
    async fn hold(&self) -> Result<bool, LeadError> {
        let ttl_in_seconds = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        let request = LockRequest { resource: Some(self.resource()), ttl_in_seconds };
        match self.call("/models.Locket/Lock", request).await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => Err(LeadError::Locket(status)),
        }
    }

    async fn release(&self) -> Result<(), LeadError> {
        let request = ReleaseRequest { resource: Some(self.resource()) };
        self.call("/models.Locket/Release", request).await.map_err(LeadError::Locket)
    }

    fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

#[cfg(test)]
mod tests;
