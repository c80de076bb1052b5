use std::{fs, path::PathBuf, process::Stdio};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};

use crate::world::{World, answer};

const POLICIES: &str = "/networking/v1/internal/policies";

/// A certificate of the world's own authority, as `adjust` makes it.
fn issue(world: &World, adjust: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
    let read = |file: &str| fs::read_to_string(world.pki(file)).unwrap();
    let authority = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), authority).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "policy-agent");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    adjust(&mut params);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let files = (world.dir.path().join("test.crt"), world.dir.path().join("test.key"));
    fs::write(&files.0, certificate.pem()).unwrap();
    fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

async fn admitted(world: &World, files: Option<(PathBuf, PathBuf)>) -> bool {
    let files = files.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let cell = world.caller(files).build().unwrap();
    match cell.get(format!("{}{POLICIES}", world.internal)).send().await {
        Ok(response) => {
            assert_eq!(response.status(), 200);
            true
        }
        Err(error) => {
            assert!(!error.is_timeout(), "{error:?}");
            false
        }
    }
}

#[tokio::test]
async fn the_certificate_made_for_cells_is_admitted() {
    let world = World::start().await;
    assert!(admitted(&world, Some((world.pki("agent.crt"), world.pki("agent.key")))).await);
    assert!(admitted(&world, Some(issue(&world, |_| {}))).await, "any of the authority's is");
}

#[tokio::test]
async fn callers_without_a_certificate_are_refused() {
    let world = World::start().await;
    assert!(!admitted(&world, None).await);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let world = World::start().await;
    let expired = issue(&world, |params| params.not_after = date_time_ymd(2020, 1, 1));
    assert!(!admitted(&world, Some(expired)).await);
}

#[tokio::test]
async fn a_certificate_that_is_not_for_clients_is_refused() {
    let world = World::start().await;
    assert!(!admitted(&world, Some((world.pki("server.crt"), world.pki("server.key")))).await);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (world, other) = (World::start().await, World::start().await);
    // Both authorities have the same name.
    assert!(!admitted(&world, Some((other.pki("agent.crt"), other.pki("agent.key")))).await);
}

#[tokio::test]
async fn the_server_shows_the_names_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start_in(dir, &["cells.example"], "10.255.0.0/16").await;
    let port = world.internal.rsplit_once(':').unwrap().1;
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    for (name, good) in [
        ("cells.example", true),
        ("policy-server.service.cf.internal", true),
        ("localhost", true),
        ("other.example", false),
    ] {
        let client = world.cell_builder().resolve(name, address).build().unwrap();
        let sent = client.get(format!("https://{name}:{port}{POLICIES}")).send().await;
        assert_eq!(sent.is_ok(), good, "{name}");
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_answered_400() {
    let world = World::start().await;
    let url = world.internal.replace("https://", "http://");
    let answer = answer(reqwest::Client::new().get(url)).await;
    assert_eq!(answer.status, 400);
}

/// Not every client speaks as ours do: the platform's health check is curl.
#[tokio::test]
async fn curl_is_admitted_too() {
    let world = World::start().await;
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "--http1.1", "--cacert"])
        .arg(world.pki("ca.crt"))
        .arg("--cert")
        .arg(world.pki("agent.crt"))
        .arg("--key")
        .arg(world.pki("agent.key"))
        .arg(format!("{}{POLICIES}", world.internal))
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), r#"{"total_policies":0,"policies":[]}"#);
}
