//! What TLS computes with. The host may have a process-wide provider of its own, which is not asked.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider that this program was built with.
pub(super) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "aws-lc-rs"))]
    return Arc::new(rustls::crypto::ring::default_provider());
}
