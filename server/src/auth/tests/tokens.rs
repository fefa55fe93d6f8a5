use std::fs;

use futures_util::FutureExt as _;
use http::HeaderValue;

use super::*;
use crate::Transport;

const ALGORITHMS: [TokenAlgorithm; 4] =
    [TokenAlgorithm::HS256, TokenAlgorithm::ES256, TokenAlgorithm::RS256, TokenAlgorithm::EdDSA];

fn tokens(config: &AuthConfig) -> Tokens {
    Tokens::new(config).unwrap()
}

fn verify(tokens: &Tokens, token: &str) -> Result<Identity, TokenError> {
    tokens.verify(token).now_or_never().expect("without a network it does not wait")
}

fn with_secret() -> Tokens {
    tokens(&config(vec![AuthKey::secret(SECRET)]))
}

#[test]
fn each_algorithm_says_who_it_is() {
    for algorithm in ALGORITHMS {
        let signer = Signer::new(algorithm);
        let tokens = tokens(&config(vec![signer.auth_key(algorithm)]));
        let claims = claims_with(&json!({ "info": { "name": "Ada" }, "channels": ["news"], "plan": "gold" }));
        let identity = verify(&tokens, &signer.token(None, &claims)).unwrap();
        assert_eq!(identity.user.as_deref(), Some("ada"));
        assert_eq!(identity.info, json!({ "name": "Ada" }));
        assert_eq!(identity.claims, claims);
        let end = UNIX_EPOCH + Duration::from_secs(claims["exp"].as_u64().unwrap()) + Duration::from_secs(30);
        assert_eq!(identity.expires, Some(end));
        assert!(tokens.authorize(&identity, Action::Subscribe { channel: "news" }).is_ok());
        let denied = tokens.authorize(&identity, Action::Publish { channel: "news" }).unwrap_err();
        assert_eq!(denied.to_string(), "neither the channel's namespace nor the token allows that");
    }
}

#[test]
fn claims_that_are_wrong_are_refused_with_their_names() {
    let tokens = with_secret();
    let signer = Signer::new(TokenAlgorithm::HS256);
    for (others, reason) in [
        (json!({ "exp": now() - 40 }), "the token has expired"),
        (json!({ "exp": null }), "claim `exp` is missing"),
        (json!({ "exp": "tomorrow" }), "claim `exp` is missing"),
        (json!({ "exp": -1 }), "claim `exp` is missing"),
        (json!({ "nbf": now() + 60 }), "not valid yet"),
        (json!({ "nbf": "now" }), "claim `nbf` is no time"),
        (json!({ "aud": "somebody" }), "another audience"),
        (json!({ "sub": null }), "claim `sub` is missing"),
        (json!({ "sub": 7 }), "claim `sub` names no user"),
        (json!({ "sub": "" }), "claim `sub` names no user"),
        (json!({ "channels": ["a*b"] }), "claim `channels` \"a*b\" has a *"),
    ] {
        let error = verify(&tokens, &signer.token(None, &claims_with(&others))).unwrap_err();
        assert!(error.to_string().contains(reason), "{others}: {error}");
        let rejection = Rejection::from(error);
        assert_eq!(rejection.status(), http::StatusCode::UNAUTHORIZED);
    }
    for others in [json!({ "exp": now() - 25 }), json!({ "nbf": now() + 25 }), json!({ "exp": now() as f64 + 9.5 })] {
        assert!(verify(&tokens, &signer.token(None, &claims_with(&others))).is_ok(), "{others}");
    }
}

#[test]
fn a_time_that_no_clock_reaches_is_never() {
    let signer = Signer::new(TokenAlgorithm::HS256);
    let token = signer.token(None, &claims_with(&json!({ "exp": u64::MAX })));
    assert_eq!(verify(&with_secret(), &token).unwrap().expires, None);
    let lax = tokens(&AuthConfig { require_expiry: false, ..config(vec![AuthKey::secret(SECRET)]) });
    let token = signer.token(None, &claims_with(&json!({ "exp": null })));
    assert_eq!(verify(&lax, &token).unwrap().expires, None);
    let token = signer.token(None, &claims_with(&json!({ "exp": now() - 40 })));
    assert_eq!(verify(&lax, &token), Err(TokenError::Expired));
}

#[test]
fn audience_and_issuer_must_be_among_those_that_are_wanted() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let tokens = tokens(&AuthConfig {
        audience: texts(&["chat", "game"]),
        issuer: texts(&["https://a.test"]),
        ..config(vec![AuthKey::secret(SECRET)])
    });
    let signer = Signer::new(TokenAlgorithm::HS256);
    for (aud, iss, wanted) in [
        (json!("chat"), json!("https://a.test"), Ok(())),
        (json!(["other", "game"]), json!("https://a.test"), Ok(())),
        (json!("other"), json!("https://a.test"), Err("another audience")),
        (json!([]), json!("https://a.test"), Err("another audience")),
        (Value::Null, json!("https://a.test"), Err("claim `aud` is missing")),
        (json!("chat"), json!("https://b.test"), Err("another issuer")),
        (json!("chat"), json!(1), Err("claim `iss` is missing")),
        (json!("chat"), Value::Null, Err("claim `iss` is missing")),
    ] {
        let token = signer.token(None, &claims_with(&json!({ "aud": aud, "iss": iss })));
        match (verify(&tokens, &token).map_err(|error| error.to_string()), wanted) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(reason)) => assert!(error.contains(reason), "{aud} {iss}: {error}"),
            (result, _) => panic!("{aud} {iss}: {result:?}"),
        }
    }
}

#[test]
fn a_token_that_somebody_else_made_is_refused() {
    let rsa = Signer::new(TokenAlgorithm::RS256);
    let tokens =
        tokens(&config(vec![rsa.auth_key(TokenAlgorithm::RS256), rsa_named("r", &rsa), AuthKey::secret(SECRET)]));
    let claims = claims();
    let hs =
        |algorithm, secret: &[u8]| encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).unwrap();
    let good = Signer::new(TokenAlgorithm::HS256).token(None, &claims);
    let (body, signature) = good.rsplit_once('.').unwrap();
    let other_claims = BASE64_URL_SAFE_NO_PAD.encode(claims_with(&json!({ "sub": "eve" })).to_string());
    let header = good.split('.').next().unwrap();
    let crit = json!({ "alg": "HS256", "crit": ["exp"] });
    let stranger = Signer::new(TokenAlgorithm::RS256);
    for (token, wanted) in [
        // `none`, in several spellings, with and without a signature.
        (forged(&json!({ "alg": "none" }), &claims, b""), TokenError::Malformed),
        (forged(&json!({ "alg": "None" }), &claims, b"x"), TokenError::Malformed),
        (forged(&json!({ "alg": "" }), &claims, b""), TokenError::Malformed),
        (forged(&json!({}), &claims, b""), TokenError::Malformed),
        // The public key as a secret: in PEM, as it stands in the configuration, and as it is inside.
        (hs(Algorithm::HS256, rsa.public.as_bytes()), TokenError::Signature),
        (hs(Algorithm::HS256, rsa.public.trim().as_bytes()), TokenError::Signature),
        // The right secret in another way than is configured.
        (hs(Algorithm::HS384, SECRET.as_bytes()), TokenError::UnknownKey),
        (hs(Algorithm::HS512, SECRET.as_bytes()), TokenError::UnknownKey),
        (hs(Algorithm::HS256, b"another secret of thirty-two bytes and more"), TokenError::Signature),
        (stranger.token(None, &claims), TokenError::Signature),
        (stranger.token(Some("r"), &claims), TokenError::Signature),
        (stranger.token(Some("other"), &claims), TokenError::UnknownKey),
        // A key's name does not make another algorithm of it.
        (Signer::new(TokenAlgorithm::HS256).token(Some("r"), &claims), TokenError::UnknownKey),
        (Signer::new(TokenAlgorithm::ES256).token(None, &claims), TokenError::UnknownKey),
        (format!("{header}.{other_claims}.{signature}"), TokenError::Signature),
        (format!("{body}."), TokenError::Signature),
        (format!("{body}.AAAA"), TokenError::Signature),
        (forged(&crit, &claims, b""), TokenError::Malformed),
        (body.to_owned(), TokenError::Malformed),
        (format!("{good}.x"), TokenError::Malformed),
        (format!(" {good}"), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("..".to_owned(), TokenError::Malformed),
        ("ü.ü.ü".to_owned(), TokenError::Malformed),
        ("x".repeat(4_096), TokenError::Malformed),
    ] {
        assert_eq!(verify(&tokens, &token), Err(wanted), "{token}");
    }
    assert!(verify(&tokens, &good).is_ok() && verify(&tokens, &rsa.token(None, &claims)).is_ok());
    assert_eq!(verify(&self::tokens(&AuthConfig::default()), &good), Err(TokenError::UnknownKey));
}

fn rsa_named(kid: &str, signer: &Signer) -> AuthKey {
    AuthKey { kid: Some(kid.to_owned()), ..signer.auth_key(TokenAlgorithm::RS256) }
}

#[test]
fn the_key_with_the_tokens_name_is_taken_and_nameless_ones_for_the_rest() {
    let [a, b] = [(); 2].map(|()| Signer::new(TokenAlgorithm::ES256));
    let named = |kid: Option<&str>, signer: &Signer| AuthKey {
        kid: kid.map(str::to_owned),
        ..signer.auth_key(TokenAlgorithm::ES256)
    };
    let both_named = tokens(&config(vec![named(Some("a"), &a), named(Some("b"), &b)]));
    assert!(verify(&both_named, &b.token(Some("b"), &claims())).is_ok());
    assert!(verify(&both_named, &b.token(None, &claims())).is_ok());
    assert_eq!(verify(&both_named, &b.token(Some("a"), &claims())), Err(TokenError::Signature));
    assert_eq!(verify(&both_named, &b.token(Some("c"), &claims())), Err(TokenError::UnknownKey));
    let one_named = tokens(&config(vec![named(Some("a"), &a), named(None, &b)]));
    assert!(verify(&one_named, &b.token(Some("c"), &claims())).is_ok());
    assert_eq!(verify(&one_named, &a.token(Some("c"), &claims())), Err(TokenError::UnknownKey));
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let pem = Signer::new(TokenAlgorithm::ES256).public;
    let private = KeyPair::generate().unwrap().serialize_pem();
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().public_key_pem();
    let secret_file = |path| AuthKey { secret: None, secret_file: Some(path), ..AuthKey::secret("") };
    for (key, reason) in [
        (AuthKey::secret("x".repeat(31)), "key 1 cannot be used: a secret has at least 32 bytes"),
        (AuthKey::secret(&pem), "a key in PEM"),
        (secret_file(file("short", &[b"x".repeat(31), b"\r\n".to_vec()].concat())), "short cannot be used: a secret"),
        (secret_file("/nowhere/secret".into()), "/nowhere/secret cannot be read"),
        (AuthKey::public(TokenAlgorithm::ES256, "rubbish"), "not a public key in PEM"),
        (AuthKey::public(TokenAlgorithm::ES256, &private), "it is a private key"),
        (AuthKey::public(TokenAlgorithm::ES256, &p384), "no key on P-256"),
        (AuthKey::public(TokenAlgorithm::RS256, &pem), "no RSA key"),
        (AuthKey::public(TokenAlgorithm::EdDSA, &pem), "no Ed25519 key"),
        (AuthKey::public(TokenAlgorithm::RS256, WEAK_RSA), "at least 2048 bits"),
    ] {
        let error = Tokens::check(&config(vec![key])).unwrap_err().to_string();
        assert!(error.starts_with("auth.keys: ") && error.contains(reason), "{error}");
    }
    let key = secret_file(file("secret", format!("{SECRET}\n").as_bytes()));
    let token = Signer::new(TokenAlgorithm::HS256).token(None, &claims());
    assert!(verify(&tokens(&config(vec![key])), &token).is_ok());
    assert!(Tokens::check(&config(vec![AuthKey::secret("x".repeat(32))])).is_ok());
}

/// 1,024 bits.
const WEAK_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCk7dtdyFFofQPCd59cvBbWZKxg
m1b1eWOKoJjO6UcaEqbQ2+/30K9dx9rPSC1rrUeXBEjSvfwWYcKqiriUWe71hBq4
Vhx+9eF5tSXlPYgP0Uv9NsQYbla6o/gfjkyUpS0eGGSP280Fji7WVel5Zu+u3pCw
Wi1ns09IAy8/ig1r2wIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn no_secret_is_printed() {
    let config = config(vec![AuthKey::secret(SECRET)]);
    let tokens = tokens(&config);
    let printed = format!("{config:?} {tokens:?} {:?}", Secret::new(SECRET));
    assert!(!printed.contains(SECRET), "{printed}");
    let wrong = "keys = [{ algorithm = \"HS256\", secret = 4711 }]";
    let error = toml::from_str::<AuthConfig>(wrong).unwrap_err();
    assert!(!error.message().contains("4711") && error.message().contains("a text is wanted"), "{error}");
}

fn open(token: Option<&str>, cookies: &[&'static str]) -> Open {
    let mut headers = HeaderMap::from_iter([("throughline-version".parse().unwrap(), HeaderValue::from_static("1"))]);
    for line in cookies {
        headers.append(header::COOKIE, HeaderValue::from_static(line));
    }
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    Open::parse(Transport::Poll, &"/rt/poll".parse().unwrap(), &headers, None).unwrap()
}

fn authenticate(config: &AuthConfig, open: &Open) -> Result<Option<String>, String> {
    let decision = tokens(config).authenticate(open).now_or_never().expect("it does not wait");
    decision.map(|identity| identity.user).map_err(|rejection| rejection.reason().to_owned())
}

#[test]
fn without_a_token_nobody_comes_in_unless_that_is_configured() {
    let closed = config(vec![AuthKey::secret(SECRET)]);
    let token = Signer::new(TokenAlgorithm::HS256).token(None, &claims());
    assert_eq!(authenticate(&closed, &open(None, &[])), Err("a token is needed".to_owned()));
    assert_eq!(authenticate(&closed, &open(Some(&token), &[])), Ok(Some("ada".to_owned())));
    let anonymous = AuthConfig { anonymous: true, ..closed };
    assert_eq!(authenticate(&anonymous, &open(None, &[])), Ok(None));
    assert_eq!(authenticate(&anonymous, &open(Some(&token), &[])), Ok(Some("ada".to_owned())));
    // Who shows one wants to be somebody.
    assert!(authenticate(&anonymous, &open(Some("x"), &[])).unwrap_err().starts_with("it is no token"));
    assert!(!Tokens::let_anybody_in(&AuthConfig::default()) && Tokens::let_anybody_in(&anonymous));
}

#[test]
fn a_cookie_has_the_token_when_the_opening_has_none() {
    let token = Signer::new(TokenAlgorithm::HS256).token(None, &claims());
    let line: &'static str = format!("theme=dark; session=\"{token}\"").leak();
    let without = config(vec![AuthKey::secret(SECRET)]);
    let config = AuthConfig { cookie: Some("session".to_owned()), ..without.clone() };
    assert_eq!(authenticate(&config, &open(None, &["a=b", line])), Ok(Some("ada".to_owned())));
    assert_eq!(authenticate(&config, &open(None, &["xsession=x"])), Err("a token is needed".to_owned()));
    assert!(authenticate(&config, &open(Some("x"), &[line])).is_err());
    assert_eq!(authenticate(&without, &open(None, &[line])), Err("a token is needed".to_owned()));
}
