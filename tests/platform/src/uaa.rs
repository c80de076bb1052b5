//! UAA: says whom a token speaks for, gives other parts tokens of their own, and publishes the keys it
//! signs with (spec/policy-server.md §3.1, §3.3, §14.1).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::stage::{Answer, Stage, lock};
pub use crate::stage::{Asked, Trouble};

/// `test:test`, the client that other parts are.
const BASIC: &str = "Basic dGVzdDp0ZXN0";

/// The token it gives to that client.
pub const SERVER_TOKEN: &str = "valid-token";

/// Who it says it is in the tokens it signs.
pub const ISSUER: &str = "https://uaa.test/oauth/token";

/// A UAA on loopback. Ends when dropped.
pub struct Uaa {
    stage: Stage,
    state: Arc<Mutex<State>>,
}

struct State {
    tokens: HashMap<String, Value>,
    server_token: Value,
    /// Made when first needed, as that takes a while.
    keys: Option<Keys>,
    generation: u32,
}

/// The keys of the moment.
struct Keys {
    rsa: (String, EncodingKey),
    ec: (String, EncodingKey),
}

impl Uaa {
    /// Starts it, knowing the tokens the peer's suite uses.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub async fn start() -> Self {
        let tokens = [
            ("valid-token", json!({"scope": ["network.admin"], "user_name": "some-user"})),
            ("valid-client-token", json!({"scope": ["network.admin"], "sub": "some-client-id"})),
            (
                "space-dev-with-network-write-token",
                json!({"scope": ["network.write"], "user_name": "some-user",
                       "sub": "some-user-or-client-id"}),
            ),
            (
                "space-dev-token",
                json!({"scope": [], "user_name": "some-user", "sub": "some-user-or-client-id"}),
            ),
        ];
        let state = Arc::new(Mutex::new(State {
            tokens: tokens.map(|(token, who)| (token.to_owned(), who)).into(),
            server_token: json!({"access_token": SERVER_TOKEN, "token_type": "bearer",
                                 "expires_in": 43_199}),
            keys: None,
            generation: 1,
        }));
        let told = state.clone();
        let stage = Stage::start(move |asked| lock(&told).answer(asked)).await;
        Self { stage, state }
    }

    /// Scheme, host and port.
    pub fn url(&self) -> String {
        self.stage.url()
    }

    /// Vouches for `token` from now on: `check_token` answers `who`.
    pub fn knows(&self, token: &str, who: Value) {
        lock(&self.state).tokens.insert(token.to_owned(), who);
    }

    /// Vouches for `token` no longer.
    pub fn revokes(&self, token: &str) {
        lock(&self.state).tokens.remove(token);
    }

    /// Answers this to the next who want a token of their own.
    pub fn gives(&self, answer: Value) {
        lock(&self.state).server_token = answer;
    }

    /// Throws its keys away and makes others, with other ids.
    pub fn rotates(&self) {
        let mut state = lock(&self.state);
        state.generation += 1;
        state.keys = None;
    }

    /// A token signed with the key of the moment for `algorithm`, RS256 or ES256. Its claims are
    /// those of a user with `network.admin`, some of them changed; `null` removes one.
    pub fn signs(&self, algorithm: Algorithm, changed: &Value) -> String {
        let mut state = lock(&self.state);
        let (id, key) = state.keys().of(algorithm);
        sign(&Header { kid: Some(id.clone()), ..Header::new(algorithm) }, changed, key)
    }

    /// The same with a header of the caller's making.
    pub fn signs_with(&self, header: &Header, changed: &Value) -> String {
        let mut state = lock(&self.state);
        let (_, key) = state.keys().of(header.alg);
        sign(header, changed, key)
    }

    /// The id of the key of the moment for `algorithm`.
    pub fn key_id(&self, algorithm: Algorithm) -> String {
        lock(&self.state).keys().of(algorithm).0.clone()
    }

    /// What `/token_keys` answers.
    pub fn token_keys(&self) -> Value {
        lock(&self.state).keys().published()
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.stage.asked()
    }

    /// How often it was asked for `path`.
    pub fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path == path).count()
    }

    /// Forgets what it was asked.
    pub fn forgets(&self) {
        self.stage.forget();
    }

    /// Fails like this until told otherwise.
    pub fn trouble(&self, trouble: impl Into<Option<Trouble>>) {
        self.stage.trouble(trouble);
    }

    /// Closes its listener and all connections.
    pub async fn leaves(&mut self) {
        self.stage.leave().await;
    }

    /// Listens again where it listened before.
    pub async fn comes_back(&mut self) {
        self.stage.come_back().await;
    }
}

impl State {
    fn keys(&mut self) -> &Keys {
        self.keys.get_or_insert_with(|| Keys::new(self.generation))
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/check_token" | "/oauth/token") if asked.authorization != BASIC => {
                Answer(401, String::new())
            }
            ("POST", "/check_token") => {
                // As the peer's suite reads it.
                let token = asked.body.split('=').nth(1).unwrap_or_default();
                match self.tokens.get(token) {
                    Some(who) => Answer::json(who.clone()),
                    None => Answer(400, r#"{"error":"invalid_token"}"#.to_owned()),
                }
            }
            ("POST", "/oauth/token") => {
                let wanted = "client_id=test&grant_type=client_credentials";
                if asked.body == wanted {
                    Answer::json(self.server_token.clone())
                } else {
                    Answer(400, r#"{"error":"invalid_request"}"#.to_owned())
                }
            }
            ("GET", "/token_keys") => Answer::json(self.keys().published()),
            _ => Answer(404, String::new()),
        }
    }
}

impl Keys {
    fn new(generation: u32) -> Self {
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("RSA keys can be made");
        let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("EC keys can be made");
        let rsa = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes());
        let ec = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes());
        Self {
            rsa: (format!("rsa-{generation}"), rsa.expect("it was just made")),
            ec: (format!("ec-{generation}"), ec.expect("it was just made")),
        }
    }

    fn of(&self, algorithm: Algorithm) -> &(String, EncodingKey) {
        match algorithm {
            Algorithm::RS256 => &self.rsa,
            Algorithm::ES256 => &self.ec,
            other => panic!("this UAA has no key for {other:?}"),
        }
    }

    fn published(&self) -> Value {
        let keys = [Algorithm::RS256, Algorithm::ES256].map(|algorithm| {
            let (id, key) = self.of(algorithm);
            let mut jwk = Jwk::from_encoding_key(key, algorithm).expect("it is a key");
            jwk.common.key_id = Some(id.clone());
            let mut jwk = serde_json::to_value(jwk).expect("it is JSON");
            jwk["use"] = json!("sig");
            jwk
        });
        json!({ "keys": keys })
    }
}

fn sign(header: &Header, changed: &Value, key: &EncodingKey) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
    let mut claims = json!({
        "jti": "a6c2", "iss": ISSUER, "aud": ["network", "openid"], "sub": "alice-guid",
        "user_name": "alice", "client_id": "cf", "scope": ["openid", "network.admin"],
        "iat": now, "exp": now + 600,
    });
    let claims_of = claims.as_object_mut().expect("claims are an object");
    for (name, value) in changed.as_object().expect("changes are an object") {
        match value {
            Value::Null => drop(claims_of.remove(name)),
            value => drop(claims_of.insert(name.clone(), value.clone())),
        }
    }
    jsonwebtoken::encode(header, &claims, key).expect("claims can be signed")
}
