//! What TLS computes with. The host may have a process-wide provider of its own, which is not asked.

use std::sync::Arc;

use rustls::{SupportedProtocolVersion, crypto::CryptoProvider};

/// The primitives under the provider; both libraries have the same functions.
#[cfg(feature = "aws-lc-rs")]
pub(super) use aws_lc_rs as primitives;
#[cfg(not(feature = "aws-lc-rs"))]
pub(super) use ring as primitives;

/// The provider that this program was built with.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(new())
}

/// The same with the cipher suites of these versions alone. What a client's suites allow is then asked only of those that
/// can be agreed on.
pub(super) fn provider_for(versions: &[&'static SupportedProtocolVersion]) -> Arc<CryptoProvider> {
    let mut provider = new();
    provider.cipher_suites.retain(|suite| versions.contains(&suite.version()));
    Arc::new(provider)
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
    fn sums_are_those_of_the_standard() {
        let hex: String = sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
