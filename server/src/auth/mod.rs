//! Tokens: who a client is, and what he may do, as a JSON Web Token says (RFC 7519).
//!
//! `throughline serve` stands on it. A program that embeds the library can use it, or decide by itself:
//!
//! ```no_run
//! use throughline::{Server, auth::{AuthConfig, AuthKey, Tokens}};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tokens = Tokens::new(&AuthConfig {
//!     keys: vec![AuthKey::secret(std::env::var("TOKEN_SECRET")?)],
//!     ..AuthConfig::default()
//! })?;
//! let server = Server::builder().tokens(tokens).start().await?;
//! # drop(server);
//! # Ok(())
//! # }
//! ```

mod jwks;
mod keys;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::Value;

pub use crate::config::{AuthConfig, AuthKey, ClaimNames, Secret, TokenAlgorithm};
use crate::hub::{Action, Denied};
use crate::session::Identity;
use crate::transport::open::{Open, Rejection};
use jwks::{Jwks, Pace};
pub use keys::AuthError;
use keys::Key;

/// How long a client waits that came while the keys could not be fetched.
const RETRY_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// Checks tokens. Clones check with the same keys; the last one that is dropped ends the task that fetches those of `jwks_url`.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    config: AuthConfig,
    keys: Vec<Key>,
    jwks: Option<Jwks>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// There is none.
    #[error("a token is needed")]
    Missing,
    /// It is none, or is signed in a way that is not accepted here.
    #[error("it is no token that is signed with HS256, ES256, RS256 or EdDSA")]
    Malformed,
    /// No key is known that could have signed it.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The key did not sign that.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// `aud` names somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// `iss` is somebody else.
    #[error("the token is of another issuer")]
    Issuer,
    /// A claim is missing, or is not what it should be.
    #[error("the token's claim `{claim}` {problem}")]
    Claim {
        /// Its name.
        claim: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The key may be one of `jwks_url`, which cannot be reached. Trying again later may help.
    #[error("the keys for tokens cannot be fetched at the moment")]
    KeysUnavailable,
}

impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::KeysUnavailable => Self::unavailable(error.to_string(), RETRY_WITHOUT_KEYS),
            error => Self::unauthorized(error.to_string()),
        }
    }
}

impl Tokens {
    /// Reads the files of keys, and begins to fetch those of `jwks_url`, if there is one: then it has to be called in a Tokio runtime.
    ///
    /// # Errors
    /// [`AuthError`], for the first key that cannot be used. That `jwks_url` cannot be reached is none: it is asked again.
    pub fn new(config: &AuthConfig) -> Result<Self, AuthError> {
        Self::with_pace(config, Pace::new(config.jwks_refresh))
    }

    fn with_pace(config: &AuthConfig, pace: Pace) -> Result<Self, AuthError> {
        let keys = open_keys(config)?;
        let jwks = config.jwks_url.as_deref().map(|url| Jwks::new(url, pace)).transpose()?;
        Ok(Self(Arc::new(Inner { config: config.clone(), keys, jwks })))
    }

    /// Reads the files of keys, and says what is wrong with them, without a network.
    ///
    /// # Errors
    /// [`AuthError`], for the first key that cannot be used.
    pub fn check(config: &AuthConfig) -> Result<(), AuthError> {
        open_keys(config).map(drop)
    }

    /// Whether there is any way in: keys, or a place to fetch them from, or nobody needs a token.
    pub fn let_anybody_in(config: &AuthConfig) -> bool {
        config.anonymous || !config.keys.is_empty() || config.jwks_url.is_some()
    }

    /// Who the holder of a token is. Waits only for `jwks_url`, when the token names a key that is not known.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        match (self.0.verify(token), &self.0.jwks) {
            (Err(TokenError::UnknownKey), Some(jwks)) => {
                jwks.look_again().await;
                match self.0.verify(token) {
                    Err(TokenError::UnknownKey) if jwks.state().is_stale => Err(TokenError::KeysUnavailable),
                    result => result,
                }
            }
            (result, _) => result,
        }
    }

    /// Decides about an opening, for [`Builder::authenticate`](crate::Builder::authenticate): by its token, or, if there is none, by the cookie that the
    /// configuration names, or as nobody in particular, if the configuration allows that.
    ///
    /// # Errors
    /// A [`Rejection`] with 401; with 503 while the key cannot be fetched.
    pub fn authenticate(&self, open: &Open) -> impl Future<Output = Result<Identity, Rejection>> + Send + use<> {
        let tokens = self.clone();
        let config = &self.0.config;
        let token = open.token.clone().or_else(|| cookie(&open.headers, config.cookie.as_deref()?));
        async move {
            match token {
                Some(token) => Ok(tokens.verify(&token).await?),
                None if tokens.0.config.anonymous => Ok(Identity::anonymous()),
                None => Err(TokenError::Missing.into()),
            }
        }
    }

    /// Whether the user's token allows that; for [`Builder::authorize`](crate::Builder::authorize). What namespaces allow everybody is not looked at.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn authorize(&self, who: &Identity, action: Action<'_>) -> Result<(), Denied> {
        let claim = who.claims.get(&self.0.config.claims.channels);
        if claim.is_some_and(|claim| rights::allows(claim, action)) {
            return Ok(());
        }
        Err(Denied::new("neither the channel's namespace nor the token allows that"))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("keys", &self.0.keys.len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        // What must be understood to check it (RFC 7515, section 4.1.11): nothing of that kind is.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let fetched = self.jwks.as_ref().map(|jwks| jwks.state().keys);
        let keys = || self.keys.iter().chain(fetched.iter().flat_map(|keys| keys.iter()));
        let is_named = |key: &&Key| header.kid.is_some() && key.kid == header.kid;
        // One that has that name is the one; without it, those without a name, and for a token that names none all of them.
        let by_name = keys().any(|key| is_named(&key));
        let candidates = keys().filter(|key| key.algorithm == header.alg).filter(|key| match by_name {
            true => is_named(key),
            false => header.kid.is_none() || key.kid.is_none(),
        });
        let mut refused = TokenError::UnknownKey;
        for key in candidates {
            match decode::<Value>(token, &key.key, &self.validation(key)) {
                Ok(data) => return self.identity(data.claims),
                Err(error) => refused = self.explain(error.kind()),
            }
            // What is wrong with the claims is wrong with every key.
            if refused != TokenError::Signature {
                return Err(refused);
            }
        }
        // One that nothing names may be of a key that is still to be fetched.
        let may_be_new = !by_name && (header.kid.is_some() || self.jwks.is_some());
        Err(if refused == TokenError::Signature && may_be_new { TokenError::UnknownKey } else { refused })
    }

    fn validation(&self, key: &Key) -> Validation {
        let config = &self.config;
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = config.leeway.as_secs();
        validation.validate_nbf = true;
        let some = |list: &[String]| (!list.is_empty()).then(|| list.iter().cloned().collect::<HashSet<_>>());
        (validation.aud, validation.iss) = (some(&config.audience), some(&config.issuer));
        let required =
            [("exp", config.require_expiry), ("aud", validation.aud.is_some()), ("iss", validation.iss.is_some())];
        validation.required_spec_claims =
            required.into_iter().filter(|(_, wanted)| *wanted).map(|(claim, _)| claim.to_owned()).collect();
        validation
    }

    fn explain(&self, error: &ErrorKind) -> TokenError {
        let claim = |claim: &str, problem: &str| TokenError::Claim { claim: claim.into(), problem: problem.into() };
        match error {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYet,
            ErrorKind::InvalidAudience => TokenError::Audience,
            ErrorKind::InvalidIssuer => TokenError::Issuer,
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::MissingRequiredClaim(name) => claim(name, "is missing"),
            ErrorKind::InvalidClaimFormat(name) => claim(name, "is no time"),
            _ => TokenError::Malformed,
        }
    }

    fn identity(&self, claims: Value) -> Result<Identity, TokenError> {
        let names = &self.config.claims;
        let wrong = |claim: &str, problem: &str| TokenError::Claim { claim: claim.into(), problem: problem.into() };
        let user = match &claims[&names.user] {
            Value::String(user) if !user.is_empty() => user.clone(),
            Value::Null => return Err(wrong(&names.user, "is missing: it names the user")),
            _ => return Err(wrong(&names.user, "names no user: a text is wanted")),
        };
        rights::check(&claims[&names.channels]).map_err(|problem| wrong(&names.channels, &problem))?;
        // Times have been checked; one that is further away than clocks go is never.
        let expires = claims["exp"].as_f64().and_then(|seconds| {
            let end = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
            end.checked_add(self.config.leeway)
        });
        let info = claims[&names.info].clone();
        Ok(Identity { user: Some(user), claims, expires, info })
    }
}

fn open_keys(config: &AuthConfig) -> Result<Vec<Key>, AuthError> {
    config.keys.iter().enumerate().map(|(index, key)| Key::open(index, key)).collect()
}

/// The value of a cookie of the request.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.trim_matches('"').to_owned())
}
