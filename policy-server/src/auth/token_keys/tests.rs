use platform::uaa::{ISSUER, Trouble, Uaa};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOTHING: Value = Value::Null;

struct World {
    uaa: Uaa,
    verifier: TokenKeys,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl Fn(&mut Settings)) -> Self {
        service::install_crypto_provider();
        let uaa = Uaa::start().await;
        let url = format!("{}/token_keys", uaa.url()).parse().unwrap();
        let mut settings = Settings::new(url, vec![ISSUER.into()], vec!["network".into()]);
        settings.floor = Duration::ZERO;
        change(&mut settings);
        let http = outbound::client(Client::builder()).unwrap();
        let verifier = TokenKeys::start(settings, http).unwrap();
        Self { uaa, verifier }
    }

    async fn verify(&self, token: &str) -> Result<Verified, TokenRefused> {
        self.verifier.verify(token).await
    }

    /// Why a token with these claims changed is refused; empty if it is not.
    async fn refusal(&self, changed: &Value) -> String {
        self.refusal_of(&self.uaa.signs(Algorithm::RS256, changed)).await
    }

    async fn refusal_of(&self, token: &str) -> String {
        self.verify(token).await.map_or_else(|error| service::log::chain(&error), |_| String::new())
    }
}

#[tokio::test]
async fn both_kinds_of_signature_are_believed() {
    let world = World::start().await;
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let verified = world.verify(&world.uaa.signs(algorithm, &json!({}))).await.unwrap();
        let identity = Identity {
            subject: "alice".into(),
            guid: UserGuid::new("alice-guid"),
            client: Some("cf".into()),
            scopes: vec!["openid".into(), "network.admin".into()],
        };
        assert_eq!(verified.identity, identity);
        assert!(verified.expires.unwrap() > SystemTime::now() + Duration::from_secs(500));
    }
    assert_eq!(world.uaa.count("/token_keys"), 1, "the keys are remembered");
}

#[tokio::test]
async fn scopes_may_be_one_text() {
    let world = World::start().await;
    let token =
        world.uaa.signs(Algorithm::RS256, &json!({"scope": " a  network.write", "user_name": ""}));
    let identity = world.verify(&token).await.unwrap().identity;
    assert_eq!((identity.subject.as_str(), identity.scopes.len()), ("alice-guid", 2));
}

#[tokio::test]
async fn every_claim_must_be_right() {
    let world = World::start().await;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert_eq!(world.refusal(&json!({"aud": "network"})).await, "");
    for wrong in [
        json!({"exp": now - 60}),
        json!({"exp": NOTHING}),
        json!({"exp": "never"}),
        json!({"nbf": now + 60}),
        json!({"iss": "https://elsewhere.test/oauth/token"}),
        json!({"iss": NOTHING}),
        json!({"aud": ["openid"]}),
        json!({"aud": NOTHING}),
        json!({"sub": NOTHING}),
        json!({"scope": NOTHING}),
        json!({"jti": "a6c2-r"}),
    ] {
        assert_ne!(world.refusal(&wrong).await, "", "{wrong}");
    }
}

#[tokio::test]
async fn a_public_key_is_never_a_shared_secret() {
    let world = World::start().await;
    let rsa = world.uaa.key_id(Algorithm::RS256);
    let keys = world.uaa.token_keys();
    let published = keys["keys"][0]["n"].as_str().unwrap();
    let secret = jsonwebtoken::EncodingKey::from_secret(published.as_bytes());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({"iss": ISSUER, "aud": "network", "sub": "eve", "exp": now + 60,
                        "scope": ["network.admin"]});
    let header = Header { kid: Some(rsa.clone()), ..Header::new(Algorithm::HS256) };
    let forged = jsonwebtoken::encode(&header, &claims, &secret).unwrap();
    assert!(world.refusal_of(&forged).await.contains("not signed with RS256 or ES256"));
    // Nor is a key used for another algorithm than its own.
    let header = Header { kid: Some(rsa), ..Header::new(Algorithm::ES256) };
    let crossed = world.uaa.signs_with(&header, &json!({}));
    assert!(world.refusal_of(&crossed).await.contains("has no key"));
    // Nor does a token go without a signature.
    let token = world.uaa.signs(Algorithm::RS256, &json!({}));
    let payload = token.split('.').nth(1).unwrap();
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0"] {
        assert_ne!(world.refusal_of(&format!("{header}.{payload}.")).await, "");
    }
}

#[tokio::test]
async fn a_new_key_is_learned_when_a_token_names_it_and_the_old_one_forgotten() {
    let world = World::start().await;
    let old = world.uaa.signs(Algorithm::RS256, &json!({}));
    assert!(world.verify(&old).await.is_ok());
    world.uaa.rotates();
    let new = world.uaa.signs(Algorithm::RS256, &json!({}));
    assert!(world.verify(&new).await.is_ok());
    assert!(world.refusal_of(&old).await.contains("the issuer has no key"));
}

#[tokio::test]
async fn ids_made_up_by_callers_do_not_make_us_fetch_again_and_again() {
    let world = World::start_with(|settings| settings.floor = Duration::from_secs(3600)).await;
    assert!(world.verify(&world.uaa.signs(Algorithm::RS256, &json!({}))).await.is_ok());
    for number in 0..20 {
        let header =
            Header { kid: Some(format!("made-up-{number}")), ..Header::new(Algorithm::RS256) };
        let token = world.uaa.signs_with(&header, &json!({}));
        assert!(world.refusal_of(&token).await.contains("the issuer has no key"));
    }
    assert_eq!(world.uaa.count("/token_keys"), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_is_found_when_it_is_there() {
    let mut world = World::start().await;
    world.uaa.leaves().await;
    let url = format!("{}/token_keys", world.uaa.url()).parse().unwrap();
    let settings = Settings {
        floor: Duration::ZERO,
        ..Settings::new(url, vec![ISSUER.into()], vec!["network".into()])
    };
    let http = outbound::client(Client::builder()).unwrap();
    let verifier = TokenKeys::start(settings, http).unwrap();
    let token = world.uaa.signs(Algorithm::ES256, &json!({}));
    assert!(matches!(verifier.verify(&token).await, Err(TokenRefused::Unknown(_))));
    world.uaa.comes_back().await;
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test]
async fn known_keys_serve_while_the_issuer_fails() {
    let world = World::start().await;
    let token = world.uaa.signs(Algorithm::ES256, &json!({}));
    assert!(world.verify(&token).await.is_ok());
    for trouble in [
        Trouble::Status(500),
        Trouble::Says(b"[]".to_vec()),
        Trouble::Says(br#"{"keys":[]}"#.to_vec()),
        Trouble::Says(br#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"rsa-1"}]}"#.to_vec()),
    ] {
        world.uaa.trouble(trouble.clone());
        let unknown = Header { kid: Some("x".into()), ..Header::new(Algorithm::RS256) };
        let unknown = world.uaa.signs_with(&unknown, &json!({}));
        assert!(
            matches!(world.verify(&unknown).await, Err(TokenRefused::Unknown(_))),
            "{trouble:?}"
        );
        assert!(world.verify(&token).await.is_ok(), "{trouble:?}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_for_long_are_no_good_any_more() {
    let world = World::start_with(|settings| settings.keep_for = Duration::ZERO).await;
    platform::until("the keys are there", || world.uaa.count("/token_keys") > 0).await;
    world.uaa.trouble(Trouble::Status(500));
    let token = world.uaa.signs(Algorithm::RS256, &json!({}));
    assert!(matches!(world.verify(&token).await, Err(TokenRefused::Unknown(_))));
}

#[tokio::test]
async fn nobody_and_anybody_are_no_settings() {
    service::install_crypto_provider();
    let url: Url = "http://127.0.0.1:1/token_keys".parse().unwrap();
    let start = |issuers: &[&str], audiences: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let settings = Settings::new(url.clone(), owned(issuers), owned(audiences));
        TokenKeys::start(settings, Client::new()).err()
    };
    assert_eq!(start(&[], &["network"]), Some(SettingsError::NoIssuer));
    assert_eq!(start(&[ISSUER], &[]), Some(SettingsError::NoAudience));
    assert_eq!(start(&[ISSUER], &["network"]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_refused(text in "\\PC{0,80}", dotted in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            service::install_crypto_provider();
            let url = "http://127.0.0.1:1/token_keys".parse().unwrap();
            let settings = Settings::new(url, vec![ISSUER.into()], vec!["network".into()]);
            let verifier = TokenKeys::start(settings, Client::new()).unwrap();
            assert!(verifier.verify(&text).await.is_err());
            assert!(verifier.verify(&dotted).await.is_err());
        });
    }
}
