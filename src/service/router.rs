//! Which routes and handlers may answer a request, in order: of the first host that matches, the longest path first.

use std::{rc::Rc, sync::Arc};

use super::{
    Handler, Handlers, Response, RouteFields,
    cors::Cors,
    files::Files,
    methods::Methods,
    mount::{MethodName, Mount, Place},
    redirect::Redirect,
    welcome::Welcome,
};
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
    /// What answers beside the routes.
    pub handlers: Handlers,
    roots: Vec<Option<Arc<Root>>>,
}

impl Site {
    /// Opens the folders of all routes. Fails, naming the folder, when one is missing or is not a folder. Where there are
    /// handlers, the welcome page of a configuration without routes is left out.
    pub fn open(mut settings: Settings, handlers: Handlers) -> Result<Self> {
        if !handlers.is_empty() {
            settings.routes.retain(|route| !matches!(route.action, Action::Welcome));
        }
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
        Ok(Site { settings, handlers, roots })
    }
}

/// The routes and handlers as one shard uses them.
pub struct Router {
    /// In the order written. Handlers stand among the routes of each host, and alone in a last one for every name.
    hosts: Vec<Host>,
    has_handlers: bool,
}

struct Host {
    pattern: Option<String>,
    /// In the order in which they are asked.
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    place: Place,
    /// Absent: every method.
    method: Option<MethodName>,
    target: Target,
}

/// A route or a handler.
#[derive(Clone)]
pub struct Target {
    /// What answers.
    pub handler: Rc<dyn Handler>,
    /// The route's own header fields, rendered.
    headers: Option<Rc<[u8]>>,
    cors: Option<Rc<Cors>>,
}

impl Target {
    /// A handler that adds nothing to its responses.
    fn plain(handler: Rc<dyn Handler>) -> Self {
        Target { handler, headers: None, cors: None }
    }

    /// The fields that go into each response to `request`.
    pub fn fields(&self, request: Request<'_>) -> RouteFields {
        let cors = self.cors.as_ref().map(|cors| cors.fields(request));
        RouteFields { headers: self.headers.clone(), cors }
    }

    /// The answer to a request that only asks what another origin may do, and its fields; `None` for others.
    pub fn preflight(&self, request: Request<'_>) -> Option<(Response, RouteFields)> {
        let (response, cors) = self.cors.as_ref()?.preflight(request)?;
        Some((response, RouteFields { headers: self.headers.clone(), cors }))
    }
}

/// What may answer a request: a route or a handler whose path matches.
#[derive(Clone, Copy)]
pub struct Candidate<'r> {
    /// What answers.
    pub target: &'r Target,
    /// How many bytes of the path its own place took.
    pub matched: usize,
    method: Option<&'r MethodName>,
}

impl<'r> Candidate<'r> {
    /// Whether it answers this method.
    pub fn accepts(self, request: Request<'_>) -> bool {
        self.method.is_none_or(|method| method.accepts(request))
    }

    /// The methods that it answers, as an `Allow` field lists them; none when it answers every method.
    pub fn allowed(self) -> impl Iterator<Item = &'r str> {
        self.method.into_iter().flat_map(MethodName::allowed)
    }
}

impl Router {
    /// The routes and handlers of a site. What answers is made anew for each shard.
    pub fn new(site: &Site) -> Self {
        let mounted: Vec<Entry> = site.handlers.iter().map(Entry::from).collect();
        let mut hosts: Vec<Host> = Vec::new();
        for (route, root) in site.settings.routes.iter().zip(&site.roots) {
            let entry = Entry {
                place: Place::Prefix(route.path.trim_matches('/').into()),
                method: None,
                target: Target {
                    handler: handler(route, root.as_ref()),
                    headers: render(&route.headers),
                    cors: route.cors.as_ref().map(|cors| Rc::new(Cors::new(cors))),
                },
            };
            match hosts.iter_mut().find(|host| host.pattern == route.host) {
                Some(host) => host.entries.push(entry),
                None => hosts.push(Host { pattern: route.host.clone(), entries: vec![entry] }),
            }
        }
        for host in &mut hosts {
            host.entries.extend(mounted.iter().cloned());
        }
        if hosts.last().is_none_or(|last| last.pattern.is_some()) {
            hosts.push(Host { pattern: None, entries: mounted });
        }
        for host in &mut hosts {
            host.entries
                .sort_by_key(|entry| (entry.place.precedence(), MethodName::precedence(&entry.method)));
        }
        Router { hosts, has_handlers: !site.handlers.is_empty() }
    }

    /// A router with one handler for everything.
    pub fn single(handler: Rc<dyn Handler>) -> Self {
        let entry = Entry { place: Place::Prefix(Vec::new()), method: None, target: Target::plain(handler) };
        Router { hosts: vec![Host { pattern: None, entries: vec![entry] }], has_handlers: false }
    }

    /// Whether the host has added handlers.
    pub fn has_handlers(&self) -> bool {
        self.has_handlers
    }

    /// Everything whose path matches a path (as `Call::path`), in the order in which it is to be asked: that of the first
    /// host with a route that matches, or without such a host the handlers alone.
    pub fn candidates<'r>(
        &'r self,
        request: Request<'_>,
        path: &[u8],
    ) -> impl Iterator<Item = Candidate<'r>> {
        self.entries(request, path).iter().filter_map(move |entry| {
            let matched = entry.place.matches(path)?;
            Some(Candidate { target: &entry.target, matched, method: entry.method.as_ref() })
        })
    }

    fn entries(&self, request: Request<'_>, path: &[u8]) -> &[Entry] {
        let Some((last, others)) = self.hosts.split_last() else { return &[] };
        if others.is_empty() {
            return &last.entries;
        }
        let name = request.host().map(host_name).unwrap_or_default();
        let is_route =
            |entry: &Entry| matches!(entry.place, Place::Prefix(_)) && entry.place.matches(path).is_some();
        let host = others.iter().find(|host| {
            host.pattern.as_deref().is_none_or(|pattern| host_matches(pattern.as_bytes(), name))
                && host.entries.iter().any(is_route)
        });
        &host.unwrap_or(last).entries
    }
}

impl From<&Mount> for Entry {
    fn from(mount: &Mount) -> Self {
        Entry {
            place: mount.place.clone(),
            method: mount.method.clone(),
            target: Target::plain((mount.make)()),
        }
    }
}

fn handler(route: &Route, root: Option<&Arc<Root>>) -> Rc<dyn Handler> {
    let methods = Methods::configured(&route.methods);
    match (&route.action, root) {
        (Action::Files(files), Some(root)) => Rc::new(Files::new(Arc::clone(root), files, route)),
        (Action::Redirect(redirect), _) => Rc::new(Redirect::new(redirect, methods)),
        _ => Rc::new(Welcome::default()),
    }
}

fn render(headers: &[(String, String)]) -> Option<Rc<[u8]>> {
    if headers.is_empty() {
        return None;
    }
    let text: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Some(text.into_bytes().into())
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
