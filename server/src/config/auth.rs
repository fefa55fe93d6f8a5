//! Who may come in with which token.

use std::{fmt, path::PathBuf, time::Duration};

use documented::DocumentedFields;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::duration;

/// Tokens: JSON Web Tokens (RFC 7519), signed by a key that stands here or at `jwks_url`. For `throughline serve`, and for programs that use
/// `Tokens`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Whether clients may come in without a token, as nobody in particular: they may do what namespaces allow everybody. Default no: what is open to
    /// everybody should be opened on purpose. A token that is wrong is refused in spite of it.
    pub anonymous: bool,
    /// Keys that sign tokens. Default none.
    pub keys: Vec<AuthKey>,
    /// Where further keys are, as a JSON Web Key Set (RFC 7517): `https`, or `http` on this machine. Default none. While it cannot be reached, the keys that it
    /// had last go on counting.
    pub jwks_url: Option<String>,
    /// How old the keys of `jwks_url` may become. Default 15 minutes: so long does a key count that was withdrawn. A new key counts sooner, since a token with a key id that is not
    /// known makes the server look.
    #[serde(with = "duration")]
    pub jwks_refresh: Duration,
    /// Audiences of which a token must name one (`aud`). Default none: then a token that names any is refused, since it was made for somebody else.
    pub audience: Vec<String>,
    /// Issuers of which a token must name one (`iss`). Default none: the key says enough, if only one issuer has it.
    pub issuer: Vec<String>,
    /// How far the clock of who signs may be from this one, for `exp` and `nbf`. Default 30 s: clocks that are set by the network differ by less than one.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// Whether a token must end at some time (`exp`). Default yes: one that does not can be taken back only together with its key.
    pub require_expiry: bool,
    /// A cookie that has the token when an opening has none. Default none. Only pages whose Origin is allowed can use it.
    pub cookie: Option<String>,
    /// The names of the claims.
    pub claims: ClaimNames,
}

/// What the claims are called, for tokens that another system makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimNames {
    /// The user, a string. Default `sub`, as in RFC 7519. A token without it is refused.
    pub user: String,
    /// What other clients see of the user in presence: any JSON. Default `info`.
    pub info: String,
    /// The channels that the user may use, beyond what their namespaces allow everybody. Default `channels`.
    pub channels: String,
}

/// A key that signs tokens: HS256 has `secret` or `secret_file`, the others have `public_key` or `public_key_file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct AuthKey {
    /// `HS256`, `ES256`, `RS256` or `EdDSA`. The key counts for tokens of this algorithm only.
    pub algorithm: TokenAlgorithm,
    /// Its name in the header of tokens. Default none: it is tried for every token of its algorithm whose key id is not known.
    #[serde(default)]
    pub kid: Option<String>,
    /// The secret of HS256, as text: at least 32 bytes, as RFC 7518 wants it. Default none.
    #[serde(default, skip_serializing)]
    pub secret: Option<Secret>,
    /// A file with the secret of HS256; a line break at its end does not count. Default none.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The public key of the other algorithms, in PEM. Default none.
    #[serde(default)]
    pub public_key: Option<String>,
    /// A file with the public key, in PEM. Default none.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
}

/// How tokens may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256: who can check a token can make one.
    HS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, of at least 2,048 bits.
    RS256,
    /// Ed25519.
    EdDSA,
}

/// A text that is not for logs: its `Debug` shows nothing, and it cannot be written into a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Its errors do not say what was found instead of a text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| de::Error::custom("a text is wanted, between quotes"))
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            anonymous: false,
            keys: Vec::new(),
            jwks_url: None,
            jwks_refresh: Duration::from_secs(15 * 60),
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: Duration::from_secs(30),
            require_expiry: true,
            cookie: None,
            claims: ClaimNames::default(),
        }
    }
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self { user: "sub".to_owned(), info: "info".to_owned(), channels: "channels".to_owned() }
    }
}

impl AuthKey {
    /// A key of HS256. `secret` has at least 32 bytes.
    pub fn secret(secret: impl Into<String>) -> Self {
        Self { secret: Some(Secret::new(secret)), ..Self::new(TokenAlgorithm::HS256) }
    }

    /// A key of another algorithm, in PEM.
    pub fn public(algorithm: TokenAlgorithm, pem: impl Into<String>) -> Self {
        Self { public_key: Some(pem.into()), ..Self::new(algorithm) }
    }

    /// With nothing to check with yet.
    pub(super) fn new(algorithm: TokenAlgorithm) -> Self {
        Self { algorithm, kid: None, secret: None, secret_file: None, public_key: None, public_key_file: None }
    }
}
