//! A server for one request.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use tempfile::TempDir;

pub struct Server {
    pub url: String,
    asked: mpsc::Receiver<String>,
    _files: Option<TempDir>,
}

/// An answer as bytes; `headers` are whole lines.
pub fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

impl Server {
    /// Answers the first request, then hangs up and listens no more.
    pub fn answering(answer: &str) -> Self {
        Self::start("http", answer, None, |stream| stream)
    }

    /// The same over TLS, and the file with the authority to trust.
    pub fn answering_over_tls(answer: &str) -> (Self, PathBuf) {
        let (files, config) = certificates();
        let authority = files.path().join("ca.crt");
        let wrap = move |stream| {
            let connection = ServerConnection::new(config).unwrap();
            StreamOwned::new(connection, stream)
        };
        (Self::start("https", answer, Some(files), wrap), authority)
    }

    fn start<S: Read + Write>(
        scheme: &str,
        answer: &str,
        files: Option<TempDir>,
        wrap: impl FnOnce(TcpStream) -> S + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::channel();
        let answer = answer.to_owned();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            drop(listener);
            let mut stream = wrap(stream);
            // A caller that does not like our certificate hangs up.
            let Some(request) = read(&mut stream) else { return };
            stream.write_all(answer.as_bytes()).unwrap();
            stream.flush().unwrap();
            tell.send(request).unwrap();
        });
        Self { url, asked, _files: files }
    }

    /// The request that was answered.
    pub fn asked(&self) -> String {
        self.asked.recv_timeout(Duration::from_secs(10)).expect("a request has been answered")
    }

    pub fn was_left_alone(&self) -> bool {
        self.asked.try_recv().is_err()
    }
}

/// Reads one request to the end of its body.
fn read(stream: &mut impl Read) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ").map(|length| length.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

fn certificates() -> (TempDir, Arc<ServerConfig>) {
    let files = TempDir::new().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    std::fs::write(files.path().join("ca.crt"), authority.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (files, Arc::new(config))
}
