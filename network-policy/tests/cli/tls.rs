//! What is said of connections over which no answer comes: each text says what to do.

use std::{
    io::Read,
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::{Server, against, run};

/// An authority, whose certificate and key are in files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    files: TempDir,
}

impl Authority {
    fn new() -> Self {
        Self::named("ours")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let files = TempDir::new().unwrap();
        std::fs::write(files.path().join("ca.crt"), certificate.pem()).unwrap();
        std::fs::write(files.path().join("ca.key"), key.serialize_pem()).unwrap();
        let certificate = certificate.der().clone();
        Self { issuer: Issuer::new(params, key), certificate, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The port of a server whose certificate of ours is as `change` makes it.
    fn serving(&self, change: impl FnOnce(&mut CertificateParams)) -> u16 {
        self.serving_to(Arc::new(NoClientAuth), change)
    }

    /// The port of a server that wants to see certificates of ours.
    fn serving_cells(&self) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        self.serving_to(verifier.build().unwrap(), |_| {})
    }

    fn serving_to(
        &self,
        clients: Arc<dyn ClientCertVerifier>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> u16 {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        listening(move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let _ = stream.read(&mut [0; 4096]);
            hang_up(&mut stream.sock);
        })
    }
}

fn listening(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    port
}

/// Hangs up without losing what was said last, as the kernel does where something is left to read.
fn hang_up(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = std::io::copy(stream, &mut std::io::sink());
}

/// What is printed, without what differs from run to run.
fn said(url: &str, options: &str) -> String {
    let ran = run(&format!("policies --token x --server {url} {options}"), &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
    let text = ran.stderr.replace(url, "SERVER");
    let is_time =
        |word: &str| word.trim_matches('(').parse::<u64>().is_ok_and(|number| number > 65_535);
    let words = text.split(' ').map(|word| if is_time(word) { "N" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_certificate_that_is_not_believed_is_told_with_the_next_step() {
    let (ours, former, other) = (Authority::new(), Authority::new(), Authority::named("other"));
    let trusting =
        |authority: &Authority| format!("--ca-cert {}", authority.file("ca.crt").display());
    let said = |port, authority| said(&format!("https://127.0.0.1:{port}"), &trusting(authority));
    let of_another_name = ours.serving(|params| {
        params.subject_alt_names = CertificateParams::new(vec!["a.example".to_owned()])
            .map(|params| params.subject_alt_names)
            .unwrap();
    });
    let expired = ours.serving(|params| {
        params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    });
    let of_an_authority = ours.serving(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let texts = [
        said(ours.serving(|_| {}), &other),
        said(ours.serving(|_| {}), &former),
        said(of_another_name, &ours),
        said(expired, &ours),
        said(of_an_authority, &ours),
    ];
    insta::assert_snapshot!("certificates", texts.join("\n"));
}

#[test]
fn another_port_than_that_of_the_api_is_told_with_the_next_step() {
    let ours = Authority::new();
    let trusting = format!("--ca-cert {}", ours.file("ca.crt").display());
    let hangs_up = listening(|mut stream| hang_up(&mut stream));
    let texts = [
        said(&format!("https://127.0.0.1:{}", ours.serving_cells()), &trusting),
        said(&format!("http://127.0.0.1:{}", ours.serving(|_| {})), ""),
        said(&format!("http://127.0.0.1:{hangs_up}"), ""),
        said(&format!("https://127.0.0.1:{hangs_up}"), ""),
    ];
    insta::assert_snapshot!("ports", texts.join("\n"));

    let page = "<center>The plain HTTP request was sent to HTTPS port</center>".to_owned();
    let ran = against(&Server::saying(vec![(400, "", page)]), "policies");
    assert!(ran.stderr.contains("\nGive the address with https:// in --server"), "{}", ran.stderr);
}

#[test]
fn a_file_that_holds_no_authority_is_told_with_the_next_step() {
    let ours = Authority::new();
    let pem = std::fs::read_to_string(ours.file("ca.crt")).unwrap();
    std::fs::write(ours.file("half.crt"), &pem[..pem.len() / 2]).unwrap();
    let texts = ["ca.key", "half.crt"].map(|name| {
        let path = ours.file(name).display().to_string();
        let ran = run(&format!("policies --token x --ca-cert {path}"), &[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        ran.stderr.replace(&path, name)
    });
    insta::assert_snapshot!(texts.join("\n"), @r"
    error: ca.key holds no certificate

    Give --ca-cert a PEM file with the certificate of the authority behind the server's, not a key
    and not DER.

    error: half.crt is not a sound PEM file

    Give --ca-cert a PEM file with the certificate of the authority behind the server's, not a key
    and not DER.
    ");
}
