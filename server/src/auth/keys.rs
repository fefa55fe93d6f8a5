//! Keys that sign tokens, from the configuration and from a JSON Web Key Set.

use std::{fs, io, path::PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::{AuthKey, TokenAlgorithm};

/// Least bytes of a secret of HS256 (RFC 7518, section 3.2): as many as its hash has.
const MIN_SECRET: usize = 32;

/// Least bytes of an RSA modulus (RFC 7518, section 3.3): 2,048 bits.
const MIN_MODULUS: usize = 256;

/// An uncompressed point of P-256.
const P256_POINT: usize = 65;

const ED25519_KEY: usize = 32;

/// A key, and the one algorithm that it is for: a token's header chooses among keys, and never what is done with one.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) key: DecodingKey,
}

/// Why the keys of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The file of a key cannot be read.
    #[error("auth.keys: {} cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A key is none of its algorithm.
    #[error("auth.keys: {name} cannot be used: {problem}")]
    Key {
        /// Its file, or its place in the list.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What fetches `auth.jwks_url` cannot be set up.
    #[error("auth.jwks_url: {0}")]
    Jwks(String),
}

impl Key {
    /// The key that stands in place `index` of the list. Reads its file.
    pub(super) fn open(index: usize, config: &AuthKey) -> Result<Self, AuthError> {
        let file = config.secret_file.as_ref().or(config.public_key_file.as_ref());
        let text = config.secret.as_ref().map(|secret| secret.expose()).or(config.public_key.as_deref());
        let (bytes, name) = match (text, file) {
            (Some(text), _) => (text.as_bytes().to_vec(), format!("key {}", index + 1)),
            (None, Some(path)) => {
                let bytes = fs::read(path).map_err(|error| AuthError::Read { path: path.clone(), error })?;
                (bytes, path.display().to_string())
            }
            (None, None) => (Vec::new(), format!("key {}", index + 1)),
        };
        let key = match config.algorithm {
            TokenAlgorithm::HS256 => secret(if text.is_some() { &bytes } else { without_line_break(&bytes) }),
            algorithm => public(algorithm, &bytes),
        };
        let key = key.map_err(|problem| AuthError::Key { name, problem })?;
        Ok(Self { algorithm: config.algorithm.into(), kid: config.kid.clone(), key })
    }

    /// The key of a set; none when it is not for signatures, or for none that is accepted here. A secret is not accepted from there.
    pub(super) fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let is_for_it = jwk.common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
        let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let fine = is_for_it && is_for_signatures && is_strong(algorithm, &key);
        fine.then(|| Self { algorithm, kid: jwk.common.key_id.clone(), key })
    }
}

impl From<TokenAlgorithm> for Algorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::HS256 => Self::HS256,
            TokenAlgorithm::ES256 => Self::ES256,
            TokenAlgorithm::RS256 => Self::RS256,
            TokenAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

fn secret(bytes: &[u8]) -> Result<DecodingKey, &'static str> {
    if bytes.len() < MIN_SECRET {
        return Err("a secret has at least 32 bytes");
    }
    // Who can check with it can sign with it: a public key here would be anybody's.
    if bytes.starts_with(b"-----BEGIN ") {
        return Err("it is a key in PEM, and no secret");
    }
    Ok(DecodingKey::from_secret(bytes))
}

fn public(algorithm: TokenAlgorithm, pem: &[u8]) -> Result<DecodingKey, &'static str> {
    let text = str::from_utf8(pem).map_err(|_| "it is not in PEM")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("it is a private key; the public one is wanted here");
    }
    if !text.contains("PUBLIC KEY-----") {
        return Err("it is not a public key in PEM");
    }
    let key = match algorithm {
        TokenAlgorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        TokenAlgorithm::ES256 => DecodingKey::from_ec_pem(pem),
        _ => DecodingKey::from_ed_pem(pem),
    };
    let key = key.ok().filter(|key| is_strong(algorithm.into(), key));
    key.ok_or(match algorithm {
        TokenAlgorithm::RS256 => "it is no RSA key of at least 2048 bits",
        TokenAlgorithm::ES256 => "it is no key on P-256",
        _ => "it is no Ed25519 key",
    })
}

/// Whether the key is as long as its algorithm wants it. The library would take others, and then refuse every token.
fn is_strong(algorithm: Algorithm, key: &DecodingKey) -> bool {
    match (algorithm, key.kind()) {
        (_, jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. }) => {
            n.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS
        }
        // The rest of the DER is a few bytes.
        (Algorithm::RS256, jsonwebtoken::DecodingKeyKind::SecretOrDer(der)) => der.len() > MIN_MODULUS,
        (Algorithm::ES256, jsonwebtoken::DecodingKeyKind::SecretOrDer(point)) => point.len() == P256_POINT,
        (_, jsonwebtoken::DecodingKeyKind::SecretOrDer(key)) => key.len() == ED25519_KEY,
    }
}

fn without_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
