//! What is told about certificates when a configuration begins to be used: their ends as a metric, their faults in the log.

use tracing::Dispatch;

use crate::{
    metrics::Registry,
    service::Site,
    sys::thread,
    tls::{Expiry, Material},
};

/// Publishes when the site's certificates end.
pub(super) fn publish(site: &Site, registry: &Registry) {
    let ends = materials(site).flat_map(Material::expiries);
    registry
        .set_certificates(ends.map(|Expiry { certificate, not_after }| (certificate.clone(), *not_after)));
}

/// Logs what should be looked at. Logging leaves a thread-local with a destructor behind, so it is done on a thread of
/// ours; without one there is nothing to log to either.
pub(super) fn warn(site: &Site, dispatch: Dispatch) {
    let warnings: Vec<String> = materials(site).flat_map(Material::warnings).cloned().collect();
    if warnings.is_empty() {
        return;
    }
    let log = move || {
        tracing::dispatcher::with_default(&dispatch, || {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        });
    };
    if let Ok(thread) = thread::spawn("webserver/tls", log) {
        // A panic was reported by the thread itself.
        let _ = thread.join();
    }
}

fn materials(site: &Site) -> impl Iterator<Item = &Material> {
    site.tls.iter().flatten()
}
