//! Sets of public keys as issuers publish them (RFC 7517), and as UAA does.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// The keys that can verify tokens.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// From the kind of key, never from a token.
    algorithm: Algorithm,
    key: DecodingKey,
}

/// An answer without a key for us. It does not replace keys known before.
#[derive(Debug, Error)]
#[error("none of {0} keys is RSA or P-256 and for signing")]
pub(super) struct NoUsableKey(usize);

/// The answer's shape.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireKeys {
    keys: Vec<Value>,
}

/// One key. What else there is does not matter to us.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// PEM; UAAs that give neither `n` nor `e` give this.
    value: Option<String>,
}

impl KeySet {
    /// The usable keys of an answer. Others are passed over: issuers also publish keys for
    /// algorithms that do not concern us, and UAA may show a shared secret.
    pub(super) fn of(wire: WireKeys) -> Result<Self, NoUsableKey> {
        let count = wire.keys.len();
        let keys: Vec<_> = wire
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<WireKey>(key).ok()?.usable())
            .collect();
        if keys.is_empty() { Err(NoUsableKey(count)) } else { Ok(Self(keys)) }
    }

    /// The key with this id and for this algorithm. A token that names no key means the only one.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let found = match (id, self.0.as_slice()) {
            (None, [only]) => Some(only).filter(|key| key.algorithm == algorithm),
            (None, _) => None,
            (Some(id), keys) => {
                keys.iter().find(|key| key.id.as_deref() == Some(id) && key.algorithm == algorithm)
            }
        };
        found.map(|found| &found.key)
    }
}

impl WireKey {
    fn usable(self) -> Option<Key> {
        let Self { kty, kid, usage, key_ops, alg, n, e, crv, x, y, value } = self;
        let signs = usage.is_none_or(|usage| usage == "sig")
            && key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs {
            return None;
        }
        let (algorithm, key) = match (kty.as_str(), alg.as_deref()) {
            ("RSA", None | Some("RS256" | "SHA256withRSA")) => {
                let key = match (n, e, value) {
                    (Some(n), Some(e), _) => DecodingKey::from_rsa_components(&n, &e),
                    (_, _, Some(pem)) => DecodingKey::from_rsa_pem(pem.as_bytes()),
                    _ => return None,
                };
                (Algorithm::RS256, key.ok()?)
            }
            ("EC", None | Some("ES256")) if crv.as_deref() == Some("P-256") => {
                (Algorithm::ES256, DecodingKey::from_ec_components(&x?, &y?).ok()?)
            }
            _ => return None,
        };
        Some(Key { id: kid, algorithm, key })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A modulus of 2048 bits; what it is does not matter here, but for ending with whole bytes.
    fn rsa(changed: &Value) -> Value {
        key(
            json!({"kty": "RSA", "kid": "a", "use": "sig", "alg": "RS256", "n": format!("{}Q", "q".repeat(341)),
            "e": "AQAB"}),
            changed,
        )
    }

    /// The generator of P-256, which is a point on the curve.
    fn ec(changed: &Value) -> Value {
        key(
            json!({"kty": "EC", "kid": "b", "crv": "P-256",
            "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}),
            changed,
        )
    }

    fn key(mut key: Value, changed: &Value) -> Value {
        for (name, value) in changed.as_object().unwrap() {
            match value {
                Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
                value => key[name] = value.clone(),
            }
        }
        key
    }

    fn set(keys: &[Value]) -> Result<KeySet, NoUsableKey> {
        KeySet::of(serde_json::from_value(json!({ "keys": keys })).unwrap())
    }

    #[test]
    fn keys_are_found_by_id_and_algorithm() {
        let set = set(&[rsa(&json!({})), ec(&json!({}))]).unwrap();
        assert!(set.find(Some("a"), Algorithm::RS256).is_some());
        assert!(set.find(Some("b"), Algorithm::ES256).is_some());
        for (id, algorithm) in [
            (Some("a"), Algorithm::ES256),
            (Some("b"), Algorithm::RS256),
            (Some("a"), Algorithm::HS256),
            (Some("A"), Algorithm::RS256),
            (Some(""), Algorithm::RS256),
            (None, Algorithm::RS256),
            (None, Algorithm::ES256),
        ] {
            assert!(set.find(id, algorithm).is_none(), "{id:?} {algorithm:?}");
        }
    }

    #[test]
    fn a_token_that_names_no_key_means_the_only_one() {
        let set = set(&[rsa(&json!({"kid": null}))]).unwrap();
        assert!(set.find(None, Algorithm::RS256).is_some());
        assert!(set.find(None, Algorithm::ES256).is_none());
        assert!(set.find(Some("a"), Algorithm::RS256).is_none());
    }

    #[test]
    fn keys_that_are_no_use_are_passed_over() {
        for bad in [
            rsa(&json!({"use": "enc"})),
            rsa(&json!({"key_ops": ["encrypt"]})),
            rsa(&json!({"alg": "PS256"})),
            rsa(&json!({"alg": "HS256"})),
            rsa(&json!({"n": null})),
            rsa(&json!({"n": "!"})),
            ec(&json!({"crv": "P-384"})),
            ec(&json!({"crv": null})),
            ec(&json!({"y": null})),
            json!({"kty": "MAC", "alg": "HS256", "value": "secret", "kid": "c"}),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({}),
            json!(null),
            json!("RSA"),
        ] {
            assert!(set(std::slice::from_ref(&bad)).is_err(), "{bad}");
            let set = set(&[bad.clone(), rsa(&json!({"kid": "good"}))]).unwrap();
            assert!(set.find(Some("good"), Algorithm::RS256).is_some(), "{bad}");
        }
        assert!(set(&[]).is_err());
    }

    #[test]
    fn optional_fields_may_be_missing() {
        assert!(set(&[rsa(&json!({"use": null, "alg": null}))]).is_ok());
        assert!(set(&[rsa(&json!({"key_ops": ["sign", "verify"]}))]).is_ok());
        assert!(set(&[rsa(&json!({"alg": "SHA256withRSA"}))]).is_ok());
        assert!(set(&[ec(&json!({"alg": "ES256", "use": "sig"}))]).is_ok());
    }

    proptest! {
        #[test]
        fn any_answer_is_a_set_or_an_error(answer: Vec<u8>, n in ".*", e in ".*", id in ".*") {
            if let Ok(wire) = gocompat::json::from_slice::<WireKeys>(&answer) {
                let _ = KeySet::of(wire);
            }
            let _ = set(&[rsa(&json!({"n": n, "e": e, "kid": id})), ec(&json!({"x": n, "y": e}))]);
        }
    }
}
