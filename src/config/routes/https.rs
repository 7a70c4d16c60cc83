//! `https_redirect` and `hsts`: what a route does about requests that came without TLS, and about those that will.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    config::{
        document::Value,
        field::Field,
        settings::{Hsts, HttpsRedirect},
    },
    error::Result,
};

const PORT: RangeInclusive<u64> = 1..=65_535;

/// Ten years. 0 takes back what was said before (RFC 6797 6.1.1).
const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(87_600 * 3600);

/// A year: the browsers' lists take no less.
const PRELOAD_MAX_AGE: Duration = Duration::from_secs(365 * 24 * 3600);

/// `true`, `false`, or a mapping.
pub(super) fn read_https_redirect(field: &Field<'_>) -> Result<Option<HttpsRedirect>> {
    let mut redirect = HttpsRedirect { status: 308, port: 443 };
    match field.node.value {
        Value::Bool(wanted) => return Ok(wanted.then_some(redirect)),
        Value::Map(_) => {}
        _ => return Err(field.wrong("true, false or a mapping such as { status: 308, port: 443 }")),
    }
    for entry in field.section()? {
        match entry.key {
            "status" => redirect.status = read_status(&entry)?,
            "port" => redirect.port = entry.count(PORT)?,
            _ => return Err(entry.unknown(&["status", "port"], &[])),
        }
    }
    Ok(Some(redirect))
}

/// 303 would make another method of the request's.
fn read_status(field: &Field<'_>) -> Result<u16> {
    match field.count::<u16>(301..=308) {
        Ok(status) if !matches!(status, 303..=306) => Ok(status),
        _ => Err(field.wrong("one of 301, 302, 307, 308")),
    }
}

/// A time, or a mapping with `max_age`.
pub(super) fn read_hsts(field: &Field<'_>) -> Result<Hsts> {
    const KEYS: [&str; 3] = ["max_age", "include_subdomains", "preload"];
    if !matches!(field.node.value, Value::Map(_)) {
        return Ok(Hsts { max_age: field.seconds(MAX_AGE)?, include_subdomains: false, preload: false });
    }
    let (mut max_age, mut include_subdomains, mut preload) = (None, false, None);
    for entry in field.section()? {
        match entry.key {
            "max_age" => max_age = Some(entry.seconds(MAX_AGE)?),
            "include_subdomains" => include_subdomains = entry.bool()?,
            "preload" => preload = Some((entry.bool()?, entry)),
            _ => return Err(entry.unknown(&KEYS, &[])),
        }
    }
    let Some(max_age) = max_age else {
        return Err(field.at_key(format!("{} needs max_age: how long browsers remember it", field.path)));
    };
    let (preload, place) = preload.map_or((false, None), |(preload, entry)| (preload, Some(entry)));
    if let Some(entry) = place.filter(|_| preload && !(include_subdomains && max_age >= PRELOAD_MAX_AGE)) {
        let what = "needs include_subdomains: true and a max_age of 8760h or more, as the browsers' lists do";
        return Err(entry.at_key(format!("{} {what}", entry.path)));
    }
    Ok(Hsts { max_age, include_subdomains, preload })
}

#[cfg(test)]
mod tests {
    use crate::config::routes::tests::one;

    #[test]
    fn https_redirect_is_permanent_and_leads_to_the_usual_port() {
        let redirect = |text: &str| {
            one(&format!("{{ root: a, https_redirect: {text} }}"))
                .map(|route| route.https_redirect.map(|redirect| (redirect.status, redirect.port)))
        };
        assert_eq!(redirect("true"), Ok(Some((308, 443))));
        assert_eq!(redirect("{}"), Ok(Some((308, 443))));
        assert_eq!(redirect("false"), Ok(None));
        for status in [301, 302, 307, 308] {
            assert_eq!(redirect(&format!("{{ status: {status}, port: 1 }}")), Ok(Some((status, 1))));
        }
        assert_eq!(redirect("{ port: 65535 }"), Ok(Some((308, 65_535))));
        for (text, told) in [
            (
                "{ status: 300 }",
                "f:2:40: routes[0].https_redirect.status must be one of 301, 302, 307, 308, not 300",
            ),
            (
                "{ status: 303 }",
                "f:2:40: routes[0].https_redirect.status must be one of 301, 302, 307, 308, not 303",
            ),
            (
                "{ status: 309 }",
                "f:2:40: routes[0].https_redirect.status must be one of 301, 302, 307, 308, not 309",
            ),
            (
                "{ port: 0 }",
                "f:2:38: routes[0].https_redirect.port must be a whole number from 1 to 65535, not 0",
            ),
            (
                "{ port: 65536 }",
                "f:2:38: routes[0].https_redirect.port must be a whole number from 1 to 65535, not 65536",
            ),
            ("{ to: x }", "f:2:32: unknown key \"to\" in routes[0].https_redirect; allowed: status, port"),
            (
                "443",
                "f:2:30: routes[0].https_redirect must be true, false or a mapping such as { status: 308, port: 443 }, \
                 not 443",
            ),
        ] {
            assert_eq!(redirect(text).unwrap_err(), told);
        }
        assert!(redirect("~").is_err());
    }

    #[test]
    fn hsts_is_a_time_with_what_it_is_for() {
        let hsts = |text: &str| {
            one(&format!("{{ root: a, hsts: {text} }}")).map(|route| {
                route.hsts.map(|hsts| (hsts.max_age.as_secs(), hsts.include_subdomains, hsts.preload))
            })
        };
        assert_eq!(hsts("4320h"), Ok(Some((15_552_000, false, false))));
        assert_eq!(hsts("180d"), Ok(Some((15_552_000, false, false))));
        assert_eq!(hsts("0s"), Ok(Some((0, false, false))));
        assert_eq!(hsts("87600h"), Ok(Some((315_360_000, false, false))));
        assert_eq!(hsts("{ max_age: 1h, include_subdomains: true }"), Ok(Some((3600, true, false))));
        let listed = "{ preload: true, max_age: 365d, include_subdomains: true }";
        assert_eq!(hsts(listed), Ok(Some((31_536_000, true, true))));
        assert!(
            hsts(&listed.replace("365d", "8759h"))
                .unwrap_err()
                .starts_with("f:2:22: routes[0].hsts.preload needs")
        );
        assert!(hsts("{ max_age: 365d, preload: true }").unwrap_err().contains("needs include_subdomains"));
        assert!(hsts("{ max_age: 1h, preload: false }").is_ok());
        for (text, told) in [
            ("{ preload: false }", "f:2:14: routes[0].hsts needs max_age: how long browsers remember it"),
            ("1500ms", "f:2:20: routes[0].hsts must be a time in whole seconds, not the text \"1500ms\""),
            (
                "{ age: 1h }",
                "f:2:22: unknown key \"age\" in routes[0].hsts; allowed: max_age, include_subdomains, preload",
            ),
        ] {
            assert_eq!(hsts(text).unwrap_err(), told);
        }
        for bad in ["true", "3600", "87601h", "-1s", "~"] {
            assert!(hsts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hsts_is_told_once() {
        let told =
            one("{ root: a, hsts: 1h, headers: { strict-transport-security: max-age=1 } }").unwrap_err();
        assert_eq!(
            told,
            "f:2:3: routes[0] has hsts and the header field strict-transport-security; give one"
        );
    }
}
