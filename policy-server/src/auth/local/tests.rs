use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

struct World {
    _temp: tempfile::TempDir,
    dir: DataDir,
    verifier: LocalVerifier,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::at(temp.path());
        dir.create().unwrap();
        let verifier = LocalVerifier::load_or_make(&dir).unwrap();
        Self { _temp: temp, dir, verifier }
    }

    fn key(&self) -> EncodingKey {
        LocalSigner::load(&self.dir).unwrap().0
    }

    /// What becomes of a token with the usual claims, some of them changed (`null` removes one).
    async fn verdict(&self, changed: Value) -> Result<Identity, String> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut claims = json!({"iss": "netman", "aud": "network-policy", "sub": "alice",
            "scope": ["network.admin"], "iat": now, "exp": now + 60});
        for (name, value) in changed.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key()).unwrap();
        self.verify(&token).await
    }

    async fn verify(&self, token: &str) -> Result<Identity, String> {
        let verdict = self.verifier.verify(token).await;
        verdict.map(|verified| verified.identity).map_err(|error| service::log::chain(&error))
    }
}

#[tokio::test]
async fn what_is_signed_here_is_believed_here() {
    let world = World::new();
    let scopes = ["network.write".to_owned()];
    let signer = LocalSigner::load(&world.dir).unwrap();
    let token = signer.sign("alice", &scopes, Duration::from_secs(60)).unwrap();
    let identity = world.verify(&token).await.unwrap();
    assert_eq!((identity.subject.as_str(), identity.scopes), ("alice", scopes.to_vec()));
    // The key survives a restart, and another server's key is another.
    let again = LocalVerifier::load_or_make(&world.dir).unwrap();
    assert!(again.verify(&token).await.is_ok());
    assert!(World::new().verify(&token).await.is_err());
}

#[tokio::test]
async fn each_claim_counts() {
    let world = World::new();
    assert!(world.verdict(json!({})).await.is_ok());
    assert!(world.verdict(json!({"nbf": 1_000_000_000})).await.is_ok());
    for changed in [
        json!({"iss": "other"}),
        json!({"iss": null}),
        json!({"aud": "other"}),
        json!({"aud": null}),
        json!({"exp": 1_000_000_000}),
        json!({"exp": null}),
        json!({"nbf": 10_000_000_000u64}),
        json!({"sub": null}),
        json!({"scope": null}),
        json!({"scope": "network.admin"}),
    ] {
        assert!(world.verdict(changed.clone()).await.is_err(), "{changed} was accepted");
    }
}

#[tokio::test]
async fn other_algorithms_are_refused() {
    let world = World::new();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({"iss": "netman", "aud": "network-policy", "sub": "alice",
        "scope": ["network.admin"], "iat": now, "exp": now + 60});
    // The public key used as a shared secret, as in the well-known attack.
    let public = data_dir::read(&world.dir.pki().join("token-signing.pub")).unwrap().unwrap();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
    assert!(world.verify(&token).await.is_err());
    // And no signature at all.
    let none = token.rsplit_once('.').unwrap().0;
    assert!(world.verify(&format!("{none}.")).await.is_err());
}

proptest! {
    #[test]
    fn any_text_is_a_token_or_refused_without_repeating_it(text in "[ -~]{12,60}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let world = World::new();
        let refusal = runtime.block_on(world.verify(&text)).unwrap_err();
        prop_assert!(!refusal.contains(&text));
    }

    #[test]
    fn a_token_with_any_byte_changed_is_refused(position: prop::sample::Index, change in 1u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let world = World::new();
        let signer = LocalSigner::load(&world.dir).unwrap();
        let token = signer.sign("alice", &[], Duration::from_secs(60)).unwrap();
        let mut bytes = token.clone().into_bytes();
        let index = position.index(bytes.len());
        bytes[index] ^= change;
        if let Ok(changed) = String::from_utf8(bytes) {
            // The last characters of base64 may carry bits that mean nothing; jsonwebtoken refuses
            // those too, since it decodes strictly.
            prop_assert!(runtime.block_on(world.verify(&changed)).is_err());
        }
    }
}
