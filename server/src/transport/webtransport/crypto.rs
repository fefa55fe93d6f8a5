//! The cryptography of QUIC, without what only TLS over TCP needs.

use std::sync::LazyLock;

use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, Error, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CryptoProvider, aws_lc_rs,
        cipher::{
            AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
            OutboundOpaqueMessage, OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
        },
    },
};

/// The cipher suites of TLS 1.3. AES-128 comes first: its keys take half the memory of AES-256's, six of them per connection, and it is the fastest where AES
/// instructions exist, as they do in nearly everything that runs a browser.
static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    let stock = aws_lc_rs::default_provider().cipher_suites;
    let mut suites: Vec<_> = stock.iter().filter_map(SupportedCipherSuite::tls13).map(without_records).collect();
    suites.sort_by_key(|suite| suite.common.suite != CipherSuite::TLS13_AES_128_GCM_SHA256);
    suites
});

/// What a server of QUIC needs of a provider.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: SUITES.iter().map(SupportedCipherSuite::Tls13).collect(),
        ..aws_lc_rs::default_provider()
    }
}

fn without_records(suite: &Tls13CipherSuite) -> Tls13CipherSuite {
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: &NoRecords,
        quic: suite.quic,
    }
}

/// In place of the keys for TLS's own records. QUIC has none: its packets carry the handshake, and protect it by keys of their own (RFC 9001, section 4). rustls
/// makes these all the same, four for each handshake, and keeps the last two with the connection: more than a kilobyte that nobody ever reads.
struct NoRecords;

impl Tls13AeadAlgorithm for NoRecords {
    fn encrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Self)
    }

    fn decrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Self)
    }

    /// Of a key that is thrown away.
    fn key_len(&self) -> usize {
        16
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl MessageEncrypter for NoRecords {
    fn encrypt(&mut self, _: OutboundPlainMessage<'_>, _: u64) -> Result<OutboundOpaqueMessage, Error> {
        Err(Error::EncryptError)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len
    }
}

impl MessageDecrypter for NoRecords {
    fn decrypt<'a>(&mut self, _: InboundOpaqueMessage<'a>, _: u64) -> Result<InboundPlainMessage<'a>, Error> {
        Err(Error::DecryptError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_of_tls_1_3_is_there_for_quic_and_none_has_keys_for_records() {
        let suites = provider().cipher_suites;
        let stock = aws_lc_rs::default_provider().cipher_suites;
        assert_eq!(suites.len(), stock.iter().filter(|suite| suite.tls13().is_some()).count());
        assert_eq!(suites.first().map(SupportedCipherSuite::suite), Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
        for suite in suites {
            let suite = suite.tls13().expect("no other");
            assert!(suite.quic.is_some());
            assert_eq!(size_of_val(&*suite.aead_alg.encrypter([0; 32].into(), [0; 12].into())), 0);
            assert_eq!(size_of_val(&*suite.aead_alg.decrypter([0; 32].into(), [0; 12].into())), 0);
        }
    }
}
