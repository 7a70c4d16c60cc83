//! Reading and checking of `routes`: hosts, prefixes, redirects and header fields; `files` reads what is about files.
//!
//! Whether a folder exists is not asked here; the server asks when it opens it.

mod cache_control;
mod cors;
mod files;
mod https;

use std::{collections::HashMap, net::Ipv6Addr};

use super::{
    document::{Mark, Value},
    field::Field,
    settings::{Action, Redirect, Route},
};
use crate::error::Result;
use files::FilesKeys;

/// Most routes.
pub(super) const ROUTES_MAX: usize = 1024;

/// Most header fields, index names or media types of one route.
const ITEMS_MAX: usize = 64;

/// Names and values of one route's header fields together, in bytes.
const HEADER_BYTES_MAX: usize = 8192;

/// Longest name of a host, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Header fields that the server computes itself; a second one would contradict it.
const OWN_HEADERS: [&str; 15] = [
    "accept-ranges",
    "allow",
    "connection",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-connection",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// All routes, in the order written.
pub(super) fn read_routes(routes: &Field<'_>) -> Result<Vec<Route>> {
    let mut read: Vec<Route> = Vec::new();
    let mut seen: HashMap<(Option<String>, String), &Mark> = HashMap::new();
    for item in routes.items(ROUTES_MAX)? {
        let route = read_route(&item)?;
        for host in route.hosts() {
            let place = (host.map(str::to_owned), route.path.clone());
            if let Some(mark) = seen.insert(place, item.key_mark) {
                return Err(item.error(format!(
                    "{} has the same host and path as the route at line {}",
                    item.path,
                    mark.line()
                )));
            }
        }
        read.push(route);
    }
    Ok(read)
}

fn read_route(item: &Field<'_>) -> Result<Route> {
    const KEYS: [&str; 18] = [
        "host",
        "path",
        "root",
        "index",
        "dotfiles",
        "types",
        "precompressed",
        "listing",
        "canonical",
        "fallback",
        "error_pages",
        "cache_control",
        "headers",
        "methods",
        "cors",
        "https_redirect",
        "hsts",
        "redirect",
    ];
    const LATER: [&str; 1] = ["proxy"];
    let (mut hosts, mut path, mut headers) = (Vec::new(), String::from("/"), Vec::new());
    let mut methods: Option<(Vec<String>, Field<'_>)> = None;
    let (mut cors, mut https_redirect, mut hsts) = (None, None, None);
    let (mut files, mut redirect) = (FilesKeys::default(), None);
    for field in item.section()? {
        match field.key {
            "host" => hosts = read_hosts(&field)?,
            "path" => path = read_path(&field)?,
            "headers" => headers = read_headers(&field)?,
            "methods" => methods = Some((read_methods(&field)?, field)),
            "cors" => cors = Some(cors::read_cors(&field)?),
            "https_redirect" => https_redirect = https::read_https_redirect(&field)?,
            "hsts" => hsts = Some(https::read_hsts(&field)?),
            "redirect" => redirect = Some(read_redirect(&field)?),
            _ if files.read(&field)? => {}
            _ => return Err(field.unknown(&KEYS, &LATER)),
        }
    }
    let action = match (files.finish(), redirect) {
        ((Some(files), _), None) => Action::Files(files),
        ((None, None), Some(redirect)) => Action::Redirect(redirect),
        ((_, Some(field)), Some(_)) => {
            return Err(field
                .at_key(format!("{} has a redirect and {}; a route does one thing", item.path, field.key)));
        }
        _ => return Err(item.error(format!("{} needs a root or a redirect", item.path))),
    };
    let (methods, methods_field) = methods.unzip();
    let methods = methods.unwrap_or_default();
    if let Action::Files(files) = &action {
        let other = methods.iter().find(|name| !matches!(name.as_str(), "GET" | "HEAD" | "OPTIONS"));
        if let (Some(name), Some(field)) = (other, methods_field) {
            return Err(field.error(format!("{}: files know GET, HEAD and OPTIONS, not {name}", field.path)));
        }
        if !files.cache_control.is_empty() {
            refuse_header(item, "cache_control", &headers, |name| {
                matches!(name, "cache-control" | "expires")
            })?;
        }
    }
    if cors.is_some() {
        refuse_header(item, "cors", &headers, |name| name.starts_with("access-control-"))?;
    }
    if hsts.is_some() {
        refuse_header(item, "hsts", &headers, |name| name == "strict-transport-security")?;
    }
    Ok(Route { hosts, path, action, headers, methods, cors, https_redirect, hsts })
}

/// A field that a key of the route renders must not be among its `headers` too. Names are given in lower case.
fn refuse_header(
    item: &Field<'_>,
    key: &str,
    headers: &[(String, String)],
    is_own: impl Fn(&str) -> bool,
) -> Result<()> {
    match headers.iter().find(|(name, _)| is_own(&name.to_ascii_lowercase())) {
        Some((name, _)) => {
            Err(item.error(format!("{} has {key} and the header field {name}; give one", item.path)))
        }
        None => Ok(()),
    }
}

/// Those that a route can be asked for: `CONNECT` and `TRACE` are never answered.
fn read_methods(field: &Field<'_>) -> Result<Vec<String>> {
    const METHODS: [(&str, &str); 7] = [
        ("GET", "GET"),
        ("HEAD", "HEAD"),
        ("POST", "POST"),
        ("PUT", "PUT"),
        ("DELETE", "DELETE"),
        ("PATCH", "PATCH"),
        ("OPTIONS", "OPTIONS"),
    ];
    let mut methods: Vec<String> = Vec::new();
    for item in field.items(METHODS.len())? {
        let name = item.word(&METHODS)?;
        if methods.iter().any(|old| old == name) {
            return Err(item.error(format!("{name} is given twice in {}", field.path)));
        }
        methods.push(name.to_owned());
    }
    if methods.is_empty() {
        return Err(field.wrong("at least one method"));
    }
    Ok(methods)
}

/// One host, or a list of them.
fn read_hosts(field: &Field<'_>) -> Result<Vec<String>> {
    let mut hosts: Vec<String> = Vec::new();
    if let Value::Text(_) = field.node.value {
        return Ok(vec![read_host(field)?]);
    }
    for item in field.items(ITEMS_MAX)? {
        let host = read_host(&item)?;
        if hosts.contains(&host) {
            return Err(item.error(format!("{host} is given twice in {}", field.path)));
        }
        hosts.push(host);
    }
    if hosts.is_empty() {
        return Err(field.wrong("at least one host (absent: any host)"));
    }
    Ok(hosts)
}

/// A host name (RFC 1123, 2.1, underscores allowed), perhaps behind one leading `*.`, or a bracketed IPv6
/// address; without port, in lower case.
fn read_host(field: &Field<'_>) -> Result<String> {
    let host = field.text()?.to_ascii_lowercase();
    if host.len() <= HOST_BYTES_MAX && is_host_name(host.strip_prefix("*.").unwrap_or(&host)) {
        Ok(host)
    } else {
        Err(field.wrong("a host name such as example.com or *.example.com, without port (absent: any host)"))
    }
}

/// A name without wildcard, or a bracketed IPv6 address.
fn is_host_name(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.len() <= HOST_BYTES_MAX && host.split('.').all(is_label),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A prefix as the router compares it: with decoded paths, so without query and without segments that a
/// request's path cannot have once its dots are resolved.
fn read_path(field: &Field<'_>) -> Result<String> {
    let path = field.text()?;
    let Some(rest) = path.strip_prefix('/') else {
        return Err(field.wrong("a path that begins with /"));
    };
    if path.contains(['?', '#']) {
        return Err(field.error(format!("{} must be a path without ? and #", field.path)));
    }
    let segments = rest.strip_suffix('/').unwrap_or(rest);
    if !segments.is_empty() && segments.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(field.error(format!("{} must not have empty, . or .. segments", field.path)));
    }
    if path == "//" {
        return Err(field.error(format!("{} must not have empty, . or .. segments", field.path)));
    }
    Ok(path.to_owned())
}

fn read_headers(field: &Field<'_>) -> Result<Vec<(String, String)>> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut bytes = 0;
    for entry in bounded(field)? {
        let name = entry.key;
        if !is_token(name) {
            return Err(entry.at_key(format!("{name:?} in {} is not a header field's name", field.path)));
        }
        if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(entry.at_key(format!("the header field {name} is the server's own; remove it")));
        }
        if headers.iter().any(|(old, _)| old.eq_ignore_ascii_case(name)) {
            return Err(entry.at_key(format!("the header field {name} is given twice in {}", field.path)));
        }
        let value = entry.text()?;
        if !is_field_value(value) {
            return Err(entry.wrong("printable ASCII without space at its ends"));
        }
        bytes += name.len() + value.len();
        if bytes > HEADER_BYTES_MAX {
            return Err(entry.error(format!("{} has more than {HEADER_BYTES_MAX} bytes in all", field.path)));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(headers)
}

/// `token` of RFC 9110, 5.6.2, which a field name must be (5.1).
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// `field-value` of RFC 9110, 5.5, in the US-ASCII that new fields should keep to.
fn is_field_value(text: &str) -> bool {
    let inner = |byte| matches!(byte, b' ' | b'\t' | b'!'..=b'~');
    text.bytes().all(inner) && text.trim_matches([' ', '\t']).len() == text.len()
}

fn read_redirect(field: &Field<'_>) -> Result<Redirect> {
    const KEYS: [&str; 2] = ["to", "status"];
    let (mut to, mut status) = (None, 301);
    for entry in field.section()? {
        match entry.key {
            "to" => to = Some(read_target(&entry)?),
            "status" => status = read_status(&entry)?,
            _ => return Err(entry.unknown(&KEYS, &[])),
        }
    }
    match to {
        Some(to) => Ok(Redirect { to, status }),
        None => Err(field.at_key(format!("{} needs to: where it leads", field.path))),
    }
}

/// Where a redirect leads. It goes into `Location` as it stands, so it must be a URI reference already
/// (RFC 9110, 10.2.2): printable ASCII without spaces, and what RFC 3986 leaves out stays out.
fn read_target(field: &Field<'_>) -> Result<String> {
    let to = field.text()?;
    let path = to.starts_with('/') && !to.starts_with("//");
    let host = to.strip_prefix("http://").or_else(|| to.strip_prefix("https://"));
    let url = host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    let plain = to.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    if plain && (path || url) {
        Ok(to.to_owned())
    } else {
        Err(field.wrong(
            "a path that begins with one /, or a URL that begins with http:// or https://, percent-encoded",
        ))
    }
}

fn read_status(field: &Field<'_>) -> Result<u16> {
    match field.count::<u16>(301..=308) {
        Ok(status) if !matches!(status, 304..=306) => Ok(status),
        _ => Err(field.wrong("one of 301, 302, 303, 307, 308")),
    }
}

/// The keys of a mapping of at most [`ITEMS_MAX`].
fn bounded<'a>(field: &Field<'a>) -> Result<Vec<Field<'a>>> {
    let entries = field.section()?;
    if entries.len() > ITEMS_MAX {
        return Err(field.error(format!("{} has more than {ITEMS_MAX} entries", field.path)));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::document::{Source, parse};

    fn read(text: &str) -> Result<Vec<Route>, String> {
        let source = Arc::new(Source { file: Some("f".into()), base: "/base".into() });
        let node = parse(&format!("routes:\n{text}"), &source).unwrap();
        read_routes(&Field::root(&node).section().unwrap()[0]).map_err(|error| error.to_string())
    }

    pub(super) fn one(text: &str) -> Result<Route, String> {
        read(&format!("- {text}\n")).map(|mut routes| routes.remove(0))
    }

    #[test]
    fn a_folder_has_defaults() {
        let route = one("{ root: ./public }").unwrap();
        assert_eq!((route.hosts.len(), route.path.as_str()), (0, "/"));
        let Action::Files(files) = route.action else { panic!("files") };
        assert_eq!(files.root, std::path::PathBuf::from("/base/public"));
        assert_eq!((files.index, files.dotfiles), (vec!["index.html".to_owned()], false));
    }

    #[test]
    fn a_route_does_exactly_one_thing() {
        assert_eq!(one("{ path: /a }").unwrap_err(), "f:2:3: routes[0] needs a root or a redirect");
        assert_eq!(
            one("{ root: a, redirect: { to: /b } }").unwrap_err(),
            "f:2:5: routes[0] has a redirect and root; a route does one thing"
        );
        assert_eq!(
            one("{ redirect: { to: /b }, index: [x] }").unwrap_err(),
            "f:2:27: routes[0] has a redirect and index; a route does one thing"
        );
    }

    #[test]
    fn hosts_are_names_in_lower_case() {
        let host =
            |text: &str| one(&format!("{{ host: \"{text}\", root: a }}")).map(|route| route.hosts.concat());
        assert_eq!(host("Example.COM"), Ok("example.com".to_owned()));
        assert_eq!(host("*.example.com"), Ok("*.example.com".to_owned()));
        assert_eq!(host("[::1]"), Ok("[::1]".to_owned()));
        let label = "a".repeat(63);
        assert!(host(&label).is_ok());
        for bad in ["*", "*.", "a.*.b", "*a.b", "a:80", "a..b", "a.", "a b", "[x]", "", &format!("{label}a")]
        {
            let message = host(bad).unwrap_err();
            assert!(message.starts_with("f:2:11: routes[0].host must"), "{message}");
        }
    }

    #[test]
    fn a_route_may_have_several_hosts() {
        let hosts = |text: &str| one(&format!("{{ host: {text}, root: a }}")).map(|route| route.hosts);
        assert_eq!(hosts("[A.b, \"*.a.b\"]"), Ok(vec!["a.b".to_owned(), "*.a.b".to_owned()]));
        assert_eq!(hosts("[a, b, A]").unwrap_err(), "f:2:18: a is given twice in routes[0].host");
        assert!(hosts("[]").unwrap_err().contains("must be at least one host"));
        assert!(hosts("[a, \"a:1\"]").unwrap_err().starts_with("f:2:15: routes[0].host[1] must be"));
        assert!(hosts("3").is_err());
        let many = |count: usize| {
            hosts(&format!("[{}]", (0..count).map(|n| format!("h{n}")).collect::<Vec<_>>().join(", ")))
        };
        assert!(many(ITEMS_MAX).is_ok());
        assert!(many(ITEMS_MAX + 1).unwrap_err().contains("has 65 items, at most 64"));
        let two = "- { host: [a, b], root: x }\n- { host: [c, B], root: y }\n";
        assert_eq!(
            read(two).unwrap_err(),
            "f:3:3: routes[1] has the same host and path as the route at line 2"
        );
    }

    #[test]
    fn prefixes_are_paths_that_a_request_can_have() {
        let path = |text: &str| one(&format!("{{ path: \"{text}\", root: a }}")).map(|route| route.path);
        for good in ["/", "/a", "/a/", "/a/b.c/", "/ü"] {
            assert_eq!(path(good), Ok(good.to_owned()));
        }
        for bad in ["a", "//", "/a//b", "/./a", "/a/..", "/a?b", "/a#b", "/a//", ""] {
            assert!(path(bad).unwrap_err().starts_with("f:2:11: routes[0].path must"), "{bad}");
        }
    }

    #[test]
    fn header_fields_are_valid_and_not_our_own() {
        let header =
            |text: &str| one(&format!("{{ root: a, headers: {{ {text} }} }}")).map(|route| route.headers);
        assert_eq!(header("X-A: \"b c\""), Ok(vec![("X-A".to_owned(), "b c".to_owned())]));
        for (text, told) in [
            ("\"a b\": c", "f:2:25: \"a b\" in routes[0].headers is not a header field's name"),
            (
                "content-LENGTH: \"1\"",
                "f:2:25: the header field content-LENGTH is the server's own; remove it",
            ),
            ("a: b, A: c", "f:2:31: the header field A is given twice in routes[0].headers"),
            ("a: \"b\\nc\"", "f:2:28: routes[0].headers.a must not contain control characters"),
            (
                "a: \" b\"",
                "f:2:28: routes[0].headers.a must be printable ASCII without space at its ends, not the text \" b\"",
            ),
            (
                "a: ü",
                "f:2:28: routes[0].headers.a must be printable ASCII without space at its ends, not the text \"ü\"",
            ),
            ("a: 1", "f:2:28: routes[0].headers.a must be text (put it in quotes), not 1"),
        ] {
            assert_eq!(header(text).unwrap_err(), told);
        }
    }

    #[test]
    fn header_fields_of_a_route_are_bounded() {
        let value = |bytes: usize| {
            format!("{{ root: a, headers: {{ ab: {}, cd: {} }} }}", "x".repeat(4096), "y".repeat(bytes))
        };
        assert!(one(&value(HEADER_BYTES_MAX - 4096 - 4)).is_ok());
        assert!(one(&value(HEADER_BYTES_MAX - 4096 - 3)).unwrap_err().contains("more than 8192 bytes"));
        let many = |count: usize| {
            let list: Vec<String> = (0..count).map(|n| format!("x{n}: v")).collect();
            one(&format!("{{ root: a, headers: {{ {} }} }}", list.join(", ")))
        };
        assert!(many(ITEMS_MAX).is_ok());
        assert!(many(ITEMS_MAX + 1).unwrap_err().contains("more than 64 entries"));
    }

    #[test]
    fn redirects_lead_somewhere_with_a_redirect_status() {
        let to = |text: &str| {
            one(&format!("{{ redirect: {{ {text} }} }}")).map(|route| match route.action {
                Action::Redirect(redirect) => (redirect.to, redirect.status),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(to("to: /new/"), Ok(("/new/".to_owned(), 301)));
        assert_eq!(to("to: \"https://a.b/c\", status: 308"), Ok(("https://a.b/c".to_owned(), 308)));
        for status in [300, 304, 305, 306, 309] {
            let message = to(&format!("to: /, status: {status}")).unwrap_err();
            assert!(message.starts_with("f:2:32: routes[0].redirect.status must be one of 301"), "{message}");
        }
        for bad in
            ["new", "//evil", "\"http://\"", "\"ftp://a\"", "\"/a b\"", "/ü", "\"/a\\\"b\"", "\"http:///a\""]
        {
            assert!(
                to(&format!("to: {bad}")).unwrap_err().starts_with("f:2:21: routes[0].redirect.to must"),
                "{bad}"
            );
        }
        assert_eq!(to("status: 301").unwrap_err(), "f:2:5: routes[0].redirect needs to: where it leads");
    }

    #[test]
    fn methods_are_those_that_the_action_knows() {
        let methods = |text: &str| one(&format!("{{ {text} }}")).map(|route| route.methods.join(" "));
        assert_eq!(methods("root: a"), Ok(String::new()));
        assert_eq!(methods("root: a, methods: [HEAD, GET, OPTIONS]"), Ok("HEAD GET OPTIONS".to_owned()));
        assert_eq!(methods("redirect: { to: /b }, methods: POST"), Ok("POST".to_owned()));
        assert_eq!(
            methods("root: a, methods: [GET, PUT]").unwrap_err(),
            "f:2:23: routes[0].methods: files know GET, HEAD and OPTIONS, not PUT"
        );
        for bad in ["get", "[GET, GET]", "[]", "[TRACE]", "[PROPFIND]", "~"] {
            assert!(methods(&format!("redirect: {{ to: /b }}, methods: {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn caching_is_told_once() {
        let told = one("{ root: a, cache_control: no-cache, headers: { EXPIRES: \"0\" } }").unwrap_err();
        assert_eq!(told, "f:2:3: routes[0] has cache_control and the header field EXPIRES; give one");
        assert!(one("{ root: a, headers: { Expires: \"0\", Cache-Control: no-store } }").is_ok());
    }

    #[test]
    fn two_routes_for_one_place_are_an_error() {
        let text = "- { host: A, path: /x, root: a }\n- { host: a, path: /x, root: b }\n";
        assert_eq!(
            read(text).unwrap_err(),
            "f:3:3: routes[1] has the same host and path as the route at line 2"
        );
    }

    #[test]
    fn there_are_at_most_1024_routes() {
        let text =
            |count: usize| (0..count).map(|n| format!("- {{ path: /{n}, root: a }}\n")).collect::<String>();
        assert_eq!(read(&text(ROUTES_MAX)).unwrap().len(), ROUTES_MAX);
        assert!(read(&text(ROUTES_MAX + 1)).unwrap_err().contains("has 1025 items, at most 1024"));
    }
}
