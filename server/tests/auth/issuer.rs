//! Who makes tokens, good ones and others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use throughline::auth::{AuthKey, TokenAlgorithm};

const SECRET: &str = "a secret that is as long as it has to be";

/// Signs with a secret, and with an RSA key.
pub(crate) struct Issuer {
    rsa: KeyPair,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self { rsa: KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap() }
    }

    pub(crate) fn keys(&self) -> Vec<AuthKey> {
        vec![AuthKey::secret(SECRET), AuthKey::public(TokenAlgorithm::RS256, self.rsa.public_key_pem())]
    }

    /// A good token for `ada`, with these claims in place of its own; null ones are left out.
    pub(crate) fn token(&self, claims: &Value) -> String {
        sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &claims_with(claims))
    }

    /// The same, signed with RS256.
    pub(crate) fn rsa_token(&self) -> String {
        let key = EncodingKey::from_rsa_pem(self.rsa.serialize_pem().as_bytes()).unwrap();
        sign(Algorithm::RS256, &key, &claims_with(&json!({})))
    }

    /// Tokens that are not good, each with a part of the reason that is told.
    pub(crate) fn bad(&self) -> Vec<(String, &'static str)> {
        let good = self.token(&json!({}));
        let (_, signature) = good.rsplit_once('.').unwrap();
        let claims = claims_with(&json!({ "sub": "eve" }));
        let hs = |secret: &[u8]| sign(Algorithm::HS256, &EncodingKey::from_secret(secret), &claims);
        let stranger = Self::new();
        vec![
            (self.token(&json!({ "exp": now() - 60 })), "has expired"),
            (self.token(&json!({ "exp": null })), "`exp` is missing"),
            (self.token(&json!({ "nbf": now() + 60 })), "not valid yet"),
            (self.token(&json!({ "aud": "shop" })), "another audience"),
            (self.token(&json!({ "aud": null })), "`aud` is missing"),
            (self.token(&json!({ "iss": "https://other.test" })), "another issuer"),
            (self.token(&json!({ "sub": null })), "`sub` is missing"),
            (self.token(&json!({ "channels": ["*:1"] })), "`channels`"),
            // Somebody else's claims under a good signature.
            (unsigned(&json!({ "alg": "HS256", "typ": "JWT" }), &claims) + signature, "signature is wrong"),
            (unsigned(&json!({ "alg": "none" }), &claims), "no token"),
            (unsigned(&json!({ "alg": "NONE" }), &claims) + signature, "no token"),
            (hs(b"a secret that somebody else has thought of"), "signature is wrong"),
            // Who knows the public key would be an issuer.
            (hs(self.rsa.public_key_pem().as_bytes()), "signature is wrong"),
            (hs(self.rsa.public_key_raw()), "signature is wrong"),
            (stranger.rsa_token(), "signature is wrong"),
            (good.replace('.', ""), "no token"),
            ("x".to_owned(), "no token"),
        ]
    }
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

/// Ends where the signature would begin.
fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}.")
}

fn claims_with(others: &Value) -> Value {
    let mut claims = json!({ "sub": "ada", "exp": now() + 3_600, "aud": "chat", "iss": "https://issuer.test" });
    for (name, value) in others.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// The time that many seconds after the Unix epoch.
pub(crate) fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}
