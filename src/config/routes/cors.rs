//! `cors`: which pages of other origins may read a route's responses.

use std::{ops::RangeInclusive, time::Duration};

use super::{ITEMS_MAX, is_host_name, is_token};
use crate::{
    config::{field::Field, settings::Cors},
    error::Result,
};

/// No browser keeps the answer to a preflight for longer.
const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

pub(super) fn read_cors(field: &Field<'_>) -> Result<Cors> {
    const KEYS: [&str; 6] = ["origins", "methods", "headers", "expose", "credentials", "max_age"];
    let mut cors = Cors::default();
    let mut stars: Vec<Field<'_>> = Vec::new();
    for entry in field.section()? {
        match entry.key {
            "origins" => cors.origins = read_list(&entry, read_origin)?,
            "methods" => cors.methods = read_list(&entry, |item| read_name(item, "a method"))?,
            "headers" => {
                cors.headers = read_list(&entry, |item| read_name(item, "the name of a header field"))?
            }
            "expose" => {
                cors.expose = read_list(&entry, |item| read_name(item, "the name of a header field"))?
            }
            "credentials" => cors.credentials = entry.bool()?,
            "max_age" => cors.max_age = Some(entry.seconds(MAX_AGE)?),
            _ => return Err(entry.unknown(&KEYS, &[])),
        }
        let list = [&cors.origins, &cors.methods, &cors.headers, &cors.expose];
        if list.iter().filter(|list| has_star(list)).count() > stars.len() {
            stars.push(entry);
        }
    }
    if cors.origins.is_empty() {
        return Err(field.at_key(format!("{} needs origins: \"*\" or a list of them", field.path)));
    }
    if has_star(&cors.origins) && cors.origins.len() > 1 {
        return Err(field.at_key(format!("{}.origins has \"*\" and others; \"*\" stands alone", field.path)));
    }
    // Browsers take the star literally where there are credentials (Fetch, 3.2.5).
    match stars.first() {
        Some(star) if cors.credentials => {
            Err(star.error(format!("{} must not be \"*\" with credentials; name them", star.path)))
        }
        _ => Ok(cors),
    }
}

fn has_star(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

fn read_list(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Result<String>) -> Result<Vec<String>> {
    field.items(ITEMS_MAX)?.iter().map(read).collect()
}

/// A token, or the star, which is one too.
fn read_name(field: &Field<'_>, what: &str) -> Result<String> {
    let name = field.text()?;
    if is_token(name) { Ok(name.to_owned()) } else { Err(field.wrong(what)) }
}

/// An origin as browsers send it (RFC 6454, 6.2): scheme, host and a port that is not the scheme's own, in lower case.
fn read_origin(field: &Field<'_>) -> Result<String> {
    let origin = field.text()?.to_ascii_lowercase();
    if origin == "*" || is_origin(&origin) {
        Ok(origin)
    } else {
        Err(field.wrong("\"*\" or an origin such as https://example.com or http://localhost:3000"))
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let port_start = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match port_start {
        Some(at) => (&authority[..at], Some(&authority[at + 1..])),
        None => (authority, None),
    };
    let is_port = port.is_none_or(|port| {
        !port.starts_with(['0', '+'])
            && port.parse::<u16>().is_ok()
            && !matches!((scheme, port), ("http", "80") | ("https", "443"))
    });
    is_scheme && is_port && is_host_name(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::routes::tests::one;

    fn cors(text: &str) -> Result<Cors, String> {
        one(&format!("{{ root: a, cors: {{ {text} }} }}")).map(|route| route.cors.unwrap())
    }

    #[test]
    fn methods_are_the_simple_ones_unless_told() {
        let read = cors("origins: \"*\"").unwrap();
        assert_eq!(read, Cors { origins: vec!["*".into()], ..Cors::default() });
        assert_eq!(read.methods, ["GET", "HEAD", "POST"]);
        assert_eq!((read.credentials, read.max_age), (false, None));
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        let origin = |text: &str| cors(&format!("origins: [\"{text}\"]")).map(|cors| cors.origins[0].clone());
        for good in [
            "https://example.com",
            "http://localhost:3000",
            "http://[::1]:8080",
            "http://[::1]",
            "app+x.y-1://h",
        ] {
            assert_eq!(origin(good), Ok(good.to_owned()));
        }
        assert_eq!(origin("HTTPS://Example.COM:8443"), Ok("https://example.com:8443".to_owned()));
        for bad in [
            "null",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com:443",
            "http://a:80",
            "http://a:",
            "http://a:+1",
            "http://a:65536",
            "http://u@a",
            "https://*.example.com",
            "1a://b",
            "://b",
            "http://ü",
        ] {
            let message = origin(bad).unwrap_err();
            assert!(
                message.starts_with("f:2:32: routes[0].cors.origins[0] must be \"*\" or an origin"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_star_is_not_for_credentials_and_stands_alone() {
        assert!(cors("origins: [\"*\", \"http://a\"]").unwrap_err().contains("\"*\" stands alone"));
        for text in [
            "origins: \"*\", credentials: true",
            "credentials: true, origins: [\"http://a\"], headers: [\"*\"]",
            "origins: [\"http://a\"], methods: \"*\", credentials: true",
            "origins: [\"http://a\"], expose: \"*\", credentials: true",
        ] {
            let message = cors(text).unwrap_err();
            assert!(message.contains("must not be \"*\" with credentials"), "{message}");
        }
        assert!(cors("origins: \"*\", headers: \"*\", methods: [\"*\"], expose: \"*\"").is_ok());
        assert!(cors("origins: [\"http://a\"], credentials: true, headers: [X-A]").is_ok());
    }

    #[test]
    fn lists_and_times_are_bounded() {
        assert!(
            cors("methods: [GET]")
                .unwrap_err()
                .ends_with("routes[0].cors needs origins: \"*\" or a list of them")
        );
        assert!(cors("origins: []").unwrap_err().contains("needs origins"));
        assert!(
            cors("origins: \"*\", headers: [\"a b\"]").unwrap_err().contains("the name of a header field")
        );
        let max_age =
            |time: &str| cors(&format!("origins: \"*\", max_age: {time}")).map(|cors| cors.max_age.unwrap());
        assert_eq!(max_age("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(max_age("0"), Ok(Duration::ZERO));
        assert!(max_age("86401s").is_err());
        assert!(max_age("1500ms").is_err());
        let many = |count: usize| cors(&format!("origins: [{}]", vec!["\"http://a\""; count].join(", ")));
        assert!(many(ITEMS_MAX).is_ok());
        assert!(many(ITEMS_MAX + 1).is_err());
    }

    #[test]
    fn its_fields_are_not_given_twice() {
        let told = one("{ root: a, cors: { origins: \"*\" }, headers: { access-control-max-age: \"1\" } }")
            .unwrap_err();
        assert_eq!(told, "f:2:3: routes[0] has cors and the header field access-control-max-age; give one");
    }
}
