//! Which route answers: the first host that matches, then the longest path prefix.

use std::{rc::Rc, sync::Arc};

use super::{Handler, files::Files, redirect::Redirect, welcome::Welcome};
use crate::{
    config::{Action, Route, Settings},
    error::{Error, ErrorKind, Result},
    files::Root,
    http::Request,
};

/// The configuration with what had to be opened for it: made once, shared by all shards.
#[derive(Debug)]
pub struct Site {
    /// What the server runs from.
    pub settings: Settings,
    roots: Vec<Option<Arc<Root>>>,
}

impl Site {
    /// Opens the folders of all routes. Fails, naming the folder, when one is missing or is not a folder.
    pub fn open(settings: Settings) -> Result<Self> {
        let mut roots = Vec::with_capacity(settings.routes.len());
        for (index, route) in settings.routes.iter().enumerate() {
            roots.push(match &route.action {
                Action::Files(files) => {
                    let id = u16::try_from(index)
                        .map_err(|_| Error::new(ErrorKind::Limit, "more than 65536 routes"))?;
                    Some(Arc::new(Root::open(id, &files.root)?))
                }
                _ => None,
            });
        }
        Ok(Site { settings, roots })
    }
}

/// The routes as one shard uses them.
pub struct Router {
    hosts: Vec<Host>,
}

struct Host {
    pattern: Option<String>,
    /// Longest prefix first.
    routes: Vec<Entry>,
}

struct Entry {
    /// Without its leading and trailing slash: as paths are compared.
    prefix: Vec<u8>,
    target: Target,
}

/// A route that was chosen.
#[derive(Clone)]
pub struct Target {
    /// What answers.
    pub handler: Rc<dyn Handler>,
    /// The route's own header fields, rendered.
    pub fields: Option<Rc<[u8]>>,
}

impl Router {
    /// The routes of a site. Handlers are made anew for each shard.
    pub fn new(site: &Site) -> Self {
        let mut hosts: Vec<Host> = Vec::new();
        for (route, root) in site.settings.routes.iter().zip(&site.roots) {
            let entry = Entry {
                prefix: route.path.trim_matches('/').as_bytes().to_vec(),
                target: Target { handler: handler(route, root.as_ref()), fields: render(&route.headers) },
            };
            match hosts.iter_mut().find(|host| host.pattern == route.host) {
                Some(host) => host.routes.push(entry),
                None => hosts.push(Host { pattern: route.host.clone(), routes: vec![entry] }),
            }
        }
        for host in &mut hosts {
            host.routes.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
        }
        Router { hosts }
    }

    /// A router with one handler for everything.
    pub fn single(handler: Rc<dyn Handler>) -> Self {
        let entry = Entry { prefix: Vec::new(), target: Target { handler, fields: None } };
        Router { hosts: vec![Host { pattern: None, routes: vec![entry] }] }
    }

    /// The route for a path (as `Call::path`) and how many of its bytes the route's prefix took.
    pub fn find(&self, request: Request<'_>, path: &[u8]) -> Option<(&Target, usize)> {
        let name = request.host().map(host_name).unwrap_or_default();
        self.hosts
            .iter()
            .filter(|host| {
                host.pattern.as_deref().is_none_or(|pattern| host_matches(pattern.as_bytes(), name))
            })
            .find_map(|host| {
                let entry = host.routes.iter().find(|entry| prefix_matches(&entry.prefix, path))?;
                Some((&entry.target, entry.prefix.len()))
            })
    }
}

fn handler(route: &Route, root: Option<&Arc<Root>>) -> Rc<dyn Handler> {
    match (&route.action, root) {
        (Action::Files(files), Some(root)) => Rc::new(Files::new(Arc::clone(root), files)),
        (Action::Redirect(redirect), _) => Rc::new(Redirect::new(redirect)),
        _ => Rc::new(Welcome),
    }
}

fn render(headers: &[(String, String)]) -> Option<Rc<[u8]>> {
    if headers.is_empty() {
        return None;
    }
    let text: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Some(text.into_bytes().into())
}

/// Whether `path` is the prefix or lies below it: compared in whole segments.
fn prefix_matches(prefix: &[u8], path: &[u8]) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// A host without its port and its final dot. An IPv6 literal keeps its brackets.
fn host_name(host: &[u8]) -> &[u8] {
    let end = match host.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(position) if host[position] == b':' => position,
        _ => host.len(),
    };
    let name = &host[..end];
    name.strip_suffix(b".").unwrap_or(name)
}

/// Patterns are lower case already; `*.` stands for one or more labels.
fn host_matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.strip_prefix(b"*") {
        Some(suffix) => {
            name.len() > suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        None => pattern.eq_ignore_ascii_case(name),
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("hosts", &self.hosts.len()).finish()
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments() {
        assert!(prefix_matches(b"", b"anything/at/all"));
        assert!(prefix_matches(b"api", b"api"));
        assert!(prefix_matches(b"api", b"api/"));
        assert!(prefix_matches(b"api", b"api/v1"));
        assert!(!prefix_matches(b"api", b"apiary"));
        assert!(!prefix_matches(b"api", b"ap"));
    }

    #[test]
    fn a_host_is_compared_without_port_case_and_final_dot() {
        assert_eq!(host_name(b"example.com:8080"), b"example.com");
        assert_eq!(host_name(b"example.com."), b"example.com");
        assert_eq!(host_name(b"[::1]:80"), b"[::1]");
        assert_eq!(host_name(b"[::1]"), b"[::1]");
        assert!(host_matches(b"example.com", b"EXAMPLE.com"));
        assert!(host_matches(b"*.example.com", b"a.b.Example.com"));
        assert!(!host_matches(b"*.example.com", b"example.com"));
        assert!(!host_matches(b"*.example.com", b".example.com"));
        assert!(!host_matches(b"example.com", b"www.example.com"));
    }
}
