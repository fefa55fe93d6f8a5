use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The names that every development certificate carries. Browsers ask for `localhost`, people type
/// `127.0.0.1`, and either may resolve to `::1`.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// `notBefore` lies this far back, so that a browser on another machine, whose clock is a little
/// behind, does not see a certificate from the future.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// What browsers allow at most for a certificate that is accepted by its hash
/// (W3C WebTransport, "custom certificate requirements").
const BROWSER_MAX_VALIDITY: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// One certificate with its private key, and what one wants to know about it.
#[derive(Clone)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    /// Certificate and key, as they are kept on disk. A secret.
    pem: Arc<str>,
    hash: [u8; 32],
    not_before: SystemTime,
    not_after: SystemTime,
    names: Arc<[String]>,
}

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot be a name in a certificate: use an ASCII host name or an IP address")]
    Name {
        /// The name as it was given.
        name: String,
    },
    /// The crypto library refused.
    #[error("the certificate could not be made: {0}")]
    Crypto(String),
}

impl Certificate {
    /// Makes a self-signed P-256 certificate for `localhost`, `127.0.0.1`, `::1` and `names`, valid for
    /// `validity` from an hour before `now`.
    pub(crate) fn mint(names: &[String], now: SystemTime, validity: Duration) -> Result<Self, MintError> {
        let crypto = |error: rcgen::Error| MintError::Crypto(error.to_string());
        let mut params = CertificateParams::default();
        for name in all_names(names) {
            let one = CertificateParams::new([name.clone()]).map_err(|_| MintError::Name { name })?;
            params.subject_alt_names.extend(one.subject_alt_names);
        }
        params.distinguished_name.push(DnType::CommonName, "Throughline development");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // rcgen's own dates run from 1975 to 4096, which no browser takes.
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now - BACKDATED + validity).into();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
        let certificate = params.self_signed(&key).map_err(crypto)?;
        let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        Self::from_pem(&pem).map_err(MintError::Crypto)
    }

    /// Reads what [`Certificate::pem`] wrote. The error says, in words, why the text is of no use to a
    /// browser that accepts certificates by hash.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "it holds no certificate in PEM form".to_owned())?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "it holds no private key in PEM form".to_owned())?;
        let facts = Facts::read(&certificate)?;
        if !facts.on_p256 {
            return Err("its key is not ECDSA on P-256".to_owned());
        }
        if facts.validity() > BROWSER_MAX_VALIDITY {
            return Err("it is valid for longer than the 14 days that browsers allow".to_owned());
        }
        let hash = Sha256::digest(&certificate).into();
        let certified = CertifiedKey::from_der(vec![certificate], key, &aws_lc_rs::default_provider())
            .map_err(|error| format!("its key does not fit its certificate ({error})"))?;
        Ok(Self {
            certified: Arc::new(certified),
            pem: pem.into(),
            hash,
            not_before: facts.not_before,
            not_after: facts.not_after,
            names: facts.names.into(),
        })
    }

    /// SHA-256 of the certificate's DER form: what `serverCertificateHashes` takes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The first moment of validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last moment of validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The host names and IP addresses it is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The chain and key as rustls wants them.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// Certificate and private key in PEM form.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Whether it carries the usual names and all of `names`.
    pub(crate) fn covers(&self, names: &[String]) -> bool {
        all_names(names).iter().all(|name| self.names.contains(name))
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Certificate {}

/// Leaves the key out, so that it cannot end up in a log.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("hash", &crate::hex(&self.hash))
            .field("not_after", &crate::rfc3339(self.not_after))
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What stands in a certificate.
pub(crate) struct Facts {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    on_p256: bool,
    names: Vec<String>,
}

impl Facts {
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| format!("it cannot be parsed ({error})"))?;
        let curve = parsed.public_key().algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let names = match parsed.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name_text).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            not_before: at(parsed.validity().not_before.timestamp()),
            not_after: at(parsed.validity().not_after.timestamp()),
            on_p256: curve == Some(x509_parser::oid_registry::OID_EC_P256),
            names,
        })
    }

    fn validity(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

/// The usual names and `names`, each once, IP addresses in their canonical form.
fn all_names(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in OWN_NAMES.into_iter().chain(names.iter().map(String::as_str)) {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => name.to_ascii_lowercase(),
        };
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A Unix time in seconds, which may lie before 1970.
fn at(unix_seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(unix_seconds.unsigned_abs());
    if unix_seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    #[test]
    fn what_is_made_meets_the_browsers_conditions() {
        let made = Certificate::mint(&["Demo.Test".into(), "192.0.2.7".into()], now(), 13 * DAY).unwrap();
        assert_eq!(made.not_before(), now() - BACKDATED);
        assert_eq!(made.not_after(), now() - BACKDATED + 13 * DAY);
        assert_eq!(made.names(), ["localhost", "127.0.0.1", "::1", "demo.test", "192.0.2.7"]);
        assert!(made.covers(&["demo.test".into(), "0:0:0:0:0:0:0:1".into()]));
        assert!(!made.covers(&["other.test".into()]));
        let again = Certificate::from_pem(made.pem()).unwrap();
        assert_eq!(again.hash(), made.hash());
        let by_hand: [u8; 32] = Sha256::digest(&made.certified_key().cert[0]).into();
        assert_eq!(made.hash(), by_hand);
    }

    #[test]
    fn fourteen_days_pass_and_a_second_more_does_not() {
        assert!(Certificate::mint(&[], now(), 14 * DAY).is_ok());
        let error = Certificate::mint(&[], now(), 14 * DAY + Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("14 days"), "{error}");
    }

    #[test]
    fn foreign_text_is_refused_in_words() {
        let one = Certificate::mint(&[], now(), 13 * DAY).unwrap();
        let two = Certificate::mint(&[], now(), 13 * DAY).unwrap();
        // The length of a certificate varies with its signature.
        let key_at = |certificate: &Certificate| certificate.pem().find("-----BEGIN PRIVATE KEY").unwrap();
        let certificate_only = &one.pem()[..key_at(&one)];
        let mixed = format!("{certificate_only}{}", &two.pem()[key_at(&two)..]);
        for (text, wanted) in [
            ("", "no certificate"),
            ("rubbish", "no certificate"),
            (certificate_only, "no private key"),
            (&mixed, "does not fit"),
        ] {
            let error = Certificate::from_pem(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_in_a_certificate_is_named() {
        let error = Certificate::mint(&["bücher.test".into()], now(), 13 * DAY).unwrap_err();
        assert!(error.to_string().contains("bücher.test"), "{error}");
    }

    #[test]
    fn the_key_does_not_show_in_debug_output() {
        let made = Certificate::mint(&[], now(), 13 * DAY).unwrap();
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
