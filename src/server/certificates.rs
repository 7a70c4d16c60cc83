//! What is told about certificates when a configuration begins to be used: their ends as a metric, their faults in the log.

use std::time::{Duration, UNIX_EPOCH};

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
    registry.set_certificates(
        ends.map(|Expiry { certificate, not_after, .. }| (certificate.clone(), *not_after)),
    );
}

/// A line for each certificate that has another content although it is configured as before.
pub(super) fn renewed(old: &Site, new: &Site) -> Vec<String> {
    let before: Vec<&Expiry> = materials(old).flat_map(Material::expiries).collect();
    let renewed = materials(new).flat_map(Material::expiries).filter(|now| {
        let of_name = || before.iter().filter(|before| before.certificate == now.certificate);
        of_name().next().is_some() && of_name().all(|before| before.fingerprint != now.fingerprint)
    });
    let mut lines: Vec<String> = renewed
        .map(|now| {
            let end = UNIX_EPOCH + Duration::from_secs(now.not_after);
            format!("{}: another certificate, valid until {}", now.certificate, httpdate::fmt_http_date(end))
        })
        .collect();
    lines.dedup();
    lines
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
