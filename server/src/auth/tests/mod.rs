#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod jwks;
mod tokens;

use std::time::SystemTime;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use serde_json::json;

use super::*;

pub(super) const SECRET: &str = "a secret of thirty-two bytes and more";

/// Who signs tokens.
pub(super) struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public key in PEM; of HS256 the secret.
    public: String,
    /// The public key's bytes.
    raw: Vec<u8>,
}

impl Signer {
    pub(super) fn new(algorithm: TokenAlgorithm) -> Self {
        let pair = |kind: &'static SignatureAlgorithm| KeyPair::generate_for(kind).unwrap();
        let (pair, key) = match algorithm {
            TokenAlgorithm::HS256 => {
                let key = EncodingKey::from_secret(SECRET.as_bytes());
                return Self { algorithm: algorithm.into(), key, public: SECRET.to_owned(), raw: Vec::new() };
            }
            TokenAlgorithm::ES256 => {
                let pair = pair(&PKCS_ECDSA_P256_SHA256);
                let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes());
                (pair, key)
            }
            TokenAlgorithm::RS256 => {
                let pair = pair(&PKCS_RSA_SHA256);
                let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes());
                (pair, key)
            }
            TokenAlgorithm::EdDSA => {
                let pair = pair(&PKCS_ED25519);
                let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes());
                (pair, key)
            }
        };
        let (public, raw) = (pair.public_key_pem(), pair.public_key_raw().to_vec());
        Self { algorithm: algorithm.into(), key: key.unwrap(), public, raw }
    }

    pub(super) fn auth_key(&self, algorithm: TokenAlgorithm) -> AuthKey {
        match algorithm {
            TokenAlgorithm::HS256 => AuthKey::secret(&self.public),
            _ => AuthKey::public(algorithm, &self.public),
        }
    }

    pub(super) fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            // The library makes none of a key as rcgen writes it.
            let x = BASE64_URL_SAFE_NO_PAD.encode(&self.raw);
            return json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x });
        }
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn claims() -> Value {
    json!({ "sub": "ada", "exp": now() + 3_600 })
}

/// `claims` with others, of which null ones are left out.
pub(super) fn claims_with(others: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in others.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// A token with any header and any signature.
pub(super) fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

pub(super) fn config(keys: Vec<AuthKey>) -> AuthConfig {
    AuthConfig { keys, ..AuthConfig::default() }
}
