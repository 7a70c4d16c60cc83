//! What TLS computes with. The host may have a process-wide provider of its own, which is not asked.

use std::sync::Arc;

use rustls::{CipherSuite, SupportedProtocolVersion, crypto::CryptoProvider};

/// The primitives under the provider; both libraries have the same functions.
#[cfg(feature = "aws-lc-rs")]
pub(super) use aws_lc_rs as primitives;
#[cfg(not(feature = "aws-lc-rs"))]
pub(super) use ring as primitives;

/// The provider that this program was built with.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(new())
}

/// The same with the cipher suites of these versions alone, in the order of our preference: AES with 128 bits, which costs
/// least where there are instructions for it, before 256 bits and ChaCha20. What a client's suites allow is then asked only
/// of those that can be agreed on.
pub(super) fn provider_for(versions: &[&'static SupportedProtocolVersion]) -> Arc<CryptoProvider> {
    let mut provider = new();
    provider.cipher_suites.retain(|suite| versions.contains(&suite.version()));
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
    Arc::new(provider)
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

fn new() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}

/// SHA-256 (FIPS 180-4).
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    #[cfg(feature = "aws-lc-rs")]
    use aws_lc_rs::digest;
    #[cfg(not(feature = "aws-lc-rs"))]
    use ring::digest;

    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

#[cfg(test)]
mod tests {
    use rustls::{SupportedCipherSuite, crypto::KeyExchangeAlgorithm};

    use super::*;

    #[test]
    fn no_cipher_suite_is_weak() {
        for suite in &provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(["_GCM_", "_POLY1305_"].iter().any(|aead| name.contains(aead)), "{name}");
            if let SupportedCipherSuite::Tls12(suite) = suite {
                assert_eq!(suite.kx, KeyExchangeAlgorithm::ECDHE, "{name}");
            }
        }
    }

    #[test]
    fn aes_with_128_bits_is_preferred_in_each_version() {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let suites = provider_for(&[version]).cipher_suites.clone();
            let preferred = suites.iter().take_while(|suite| is_aes_128(suite.suite())).count();
            assert!(preferred > 0);
            assert!(suites[preferred..].iter().all(|suite| !is_aes_128(suite.suite())));
            assert!(suites.len() > preferred);
        }
    }

    #[test]
    fn sums_are_those_of_the_standard() {
        let hex: String = sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
