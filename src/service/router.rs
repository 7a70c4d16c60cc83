//! Which routes and handlers may answer a request, in order: of the first host that matches, the longest path first.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use super::{
    BodyWanted, Handler, Handlers, Response, RouteFields,
    cors::Cors,
    files::Files,
    hosts::Hosts,
    https::Https,
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
    tls::Material,
};

/// The configuration with what had to be opened for it: made once, shared by all shards.
#[derive(Debug)]
pub struct Site {
    /// What the server runs from.
    pub settings: Settings,
    /// What answers beside the routes.
    pub handlers: Handlers,
    /// What each listener speaks TLS with, in their order.
    pub tls: Vec<Option<Material>>,
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
        let tls =
            Material::load_all(settings.listeners.iter().map(|listener| listener.tls.clone()).collect())?;
        Ok(Site { settings, handlers, tls, roots })
    }
}

/// The routes and handlers as one shard uses them.
pub struct Router {
    hosts: Hosts,
    /// What each host has, in the order in which it is asked. Handlers stand among the routes of each host, and alone in
    /// a last one for every name.
    entries: Vec<Vec<Entry>>,
    has_handlers: bool,
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
    https: Option<Rc<Https>>,
}

impl Target {
    /// A handler that adds nothing to its responses.
    fn plain(handler: Rc<dyn Handler>) -> Self {
        Target { handler, headers: None, cors: None, https: None }
    }

    /// The fields that go into each response to `request`, which came over TLS or not.
    pub fn fields(&self, request: Request<'_>, is_secure: bool) -> RouteFields {
        let cors = self.cors.as_ref().map(|cors| cors.fields(request));
        self.fields_with(cors, is_secure)
    }

    /// The answer to a request that only asks what another origin may do, and its fields; `None` for others.
    pub fn preflight(&self, request: Request<'_>, is_secure: bool) -> Option<(Response, RouteFields)> {
        let (response, cors) = self.cors.as_ref()?.preflight(request)?;
        Some((response, self.fields_with(cors, is_secure)))
    }

    /// The answer to a request that has to come over TLS and did not; `None` for others. Nobody else is asked then.
    pub fn https_redirect(&self, request: Request<'_>, is_secure: bool) -> Option<Response> {
        self.https.as_ref()?.redirect(request, is_secure)
    }

    /// What is wanted of the body of `request`: of one that is redirected nothing.
    pub fn body_wanted(&self, request: Request<'_>, is_secure: bool) -> BodyWanted {
        if self.https.as_ref().is_some_and(|https| https.redirects(is_secure)) {
            return BodyWanted::Refused;
        }
        self.handler.body_wanted(request)
    }

    fn fields_with(&self, cors: Option<Rc<[u8]>>, is_secure: bool) -> RouteFields {
        let hsts = self.https.as_ref().and_then(|https| https.hsts(is_secure));
        RouteFields { headers: self.headers.clone(), cors, hsts }
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
        let (mut hosts, mut entries) = (Vec::new(), Vec::<Vec<Entry>>::new());
        let mut positions: HashMap<Option<&str>, usize> = HashMap::new();
        for (route, root) in site.settings.routes.iter().zip(&site.roots) {
            let entry = Entry {
                place: Place::Prefix(route.path.trim_matches('/').into()),
                method: None,
                target: Target {
                    handler: handler(route, root.as_ref()),
                    headers: render(&route.headers),
                    cors: route.cors.as_ref().map(|cors| Rc::new(Cors::new(cors))),
                    https: Https::new(route).map(Rc::new),
                },
            };
            for host in route.hosts() {
                let position = *positions.entry(host).or_insert_with(|| {
                    hosts.push(host.map(str::to_owned));
                    entries.push(Vec::new());
                    hosts.len() - 1
                });
                entries[position].push(entry.clone());
            }
        }
        for of_host in &mut entries {
            of_host.extend(mounted.iter().cloned());
        }
        if hosts.last().is_none_or(|last| last.is_some()) {
            hosts.push(None);
            entries.push(mounted);
        }
        for of_host in &mut entries {
            of_host.sort_by_key(|entry| (entry.place.precedence(), MethodName::precedence(&entry.method)));
        }
        Router { hosts: Hosts::new(hosts), entries, has_handlers: !site.handlers.is_empty() }
    }

    /// A router with one handler for everything.
    pub fn single(handler: Rc<dyn Handler>) -> Self {
        let entry = Entry { place: Place::Prefix(Vec::new()), method: None, target: Target::plain(handler) };
        Router { hosts: Hosts::new(vec![None]), entries: vec![vec![entry]], has_handlers: false }
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
        let Some((last, others)) = self.entries.split_last() else { return &[] };
        if others.is_empty() {
            return last;
        }
        let host = request.host().unwrap_or_default();
        let is_route =
            |entry: &Entry| matches!(entry.place, Place::Prefix(_)) && entry.place.matches(path).is_some();
        let mut from = 0;
        while let Some(position) = self.hosts.find(host, from) {
            match others.get(position) {
                Some(entries) if entries.iter().any(is_route) => return entries,
                _ => from = position + 1,
            }
        }
        last
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

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("hosts", &self.entries.len()).finish()
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}
