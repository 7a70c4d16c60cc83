//! Handlers that the host adds beside the configured routes: which paths and which method each of them answers.

use std::{rc::Rc, sync::Arc};

use super::Handler;
use crate::{
    error::{Error, ErrorKind, Result},
    files::{self, Dotfiles, PathBuffer},
    http::{Method, Request, syntax},
};

/// Most handlers of one server.
const HANDLERS_MAX: usize = 1024;
/// Longest method: that of a request that is accepted.
const METHOD_BYTES_MAX: usize = 64;

/// Makes a handler for one shard, on that shard's thread: at start and after each reload. It must not panic.
type Make = Arc<dyn Fn() -> Rc<dyn Handler> + Send + Sync>;

/// Handlers to start a server with, see [`crate::server::Options`]. A clone shares them.
///
/// They answer on every host, and stand among the configured routes: the longest path wins, an exact path before a
/// prefix of the same length, a handler before a route. On the same path a handler for one method comes before the
/// one for all.
///
/// ```no_run
/// use std::rc::Rc;
/// use webserver::{
///     Server,
///     config::Config,
///     http::Status,
///     server::Options,
///     service::{Call, Context, Handler, Handlers, Outcome, Response},
/// };
///
/// struct Greeting;
///
/// impl Handler for Greeting {
///     fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
///         match call.rest() {
///             b"/nobody" => Outcome::Next,
///             _ => Outcome::Ready(Response::fixed(Status::OK, "text/plain", b"Hello\n")),
///         }
///     }
/// }
///
/// let mut handlers = Handlers::new();
/// handlers.add(Some("GET"), "/hello/*", || Rc::new(Greeting))?;
/// let server = Server::start_with(&Config::new(), Options { handlers, ..Options::default() })?;
/// # Ok::<(), webserver::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Handlers {
    mounts: Vec<Mount>,
}

/// One handler and what it answers.
#[derive(Clone)]
pub(super) struct Mount {
    pub(super) method: Option<MethodName>,
    pub(super) place: Place,
    pub(super) make: Make,
}

/// Which paths an entry of the router answers. Paths are compared as `Call::path` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A configured prefix, without slashes at its ends: what equals it or lies below it, in whole segments.
    Prefix(Vec<u8>),
    /// `/a/*`: what begins with `a/`. Kept with that slash, empty for `/*`.
    Below(Vec<u8>),
    /// This path alone.
    Exact(Vec<u8>),
}

/// A method as a handler was added for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MethodName {
    method: Method,
    text: Arc<str>,
}

impl Handlers {
    /// None.
    pub fn new() -> Self {
        Handlers::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Adds a handler for a method, or for every method, at a path as it is after decoding. The path matches exactly, or
    /// as a prefix when it ends in `/*`: `/a/*` is everything below `/a/`, `/a/` itself included, `/a` not. A handler for
    /// `GET` answers `HEAD` too unless there is one for that.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a path that no request can have, a method that is not one, and when this path
    /// and method have a handler; [`ErrorKind::Limit`] past 1024 handlers. `make` is dropped then.
    pub fn add<H: Handler + 'static>(
        &mut self,
        method: Option<&str>,
        path: &str,
        make: impl Fn() -> Rc<H> + Send + Sync + 'static,
    ) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        let method = match method.map(MethodName::parse) {
            None => None,
            Some(Some(name)) => Some(name),
            Some(None) => {
                return invalid(format!("{:?} is not a method: GET, in capitals", method.unwrap_or("")));
            }
        };
        let Some(place) = Place::parse(path) else {
            return invalid(format!(
                "{path:?} is not a path for a handler: it begins with /, is written as it is after decoding, without \
                 empty, . or .. segments, and may end in /*"
            ));
        };
        if self.mounts.iter().any(|other| other.method == method && other.place == place) {
            return invalid(format!("{path} has a handler for that method already"));
        }
        if self.mounts.len() >= HANDLERS_MAX {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("at most {HANDLERS_MAX} handlers can be added"),
            ));
        }
        self.mounts.push(Mount { method, place, make: Arc::new(move || -> Rc<dyn Handler> { make() }) });
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter()
    }
}

impl Place {
    /// A handler's path; `None` when no request can have it.
    fn parse(path: &str) -> Option<Place> {
        let (fixed, below) = match path.strip_suffix('*') {
            Some(fixed) => (fixed, true),
            None => (path, false),
        };
        let odd = fixed.contains(['?', '#', '%', '*']) || fixed.contains(char::is_control);
        if odd || (below && !fixed.ends_with('/')) {
            return None;
        }
        let mut buffer = PathBuffer::new();
        let decoded = files::decode(fixed.as_bytes(), Dotfiles::Served, &mut buffer).ok()?;
        let same = fixed.as_bytes().get(1..) == Some(decoded);
        same.then(|| if below { Place::Below(decoded.to_vec()) } else { Place::Exact(decoded.to_vec()) })
    }

    /// How much of `path` is this place's own, if the path lies in it: what follows is the handler's part.
    pub(super) fn matches(&self, path: &[u8]) -> Option<usize> {
        match self {
            Place::Prefix(prefix) => {
                let rest = path.strip_prefix(prefix.as_slice())?;
                (prefix.is_empty() || rest.is_empty() || rest[0] == b'/').then_some(prefix.len())
            }
            Place::Below(prefix) => path.starts_with(prefix).then_some(prefix.len().saturating_sub(1)),
            Place::Exact(exact) => (path == exact.as_slice()).then_some(exact.len()),
        }
    }

    /// Sorts longer ones first, and among those of one length exact ones, then a handler's prefix.
    pub(super) fn precedence(&self) -> impl Ord + use<> {
        let (length, kind) = match self {
            Place::Exact(path) => (path.len(), 0),
            Place::Below(path) => (path.len(), 1),
            Place::Prefix(path) => (path.len(), 2),
        };
        (std::cmp::Reverse(length), kind)
    }
}

impl MethodName {
    /// A method that a request can have and a handler be asked for; `None` for another text. Methods are
    /// case-sensitive (RFC 9110 9.1), so `get` would never be asked for.
    fn parse(text: &str) -> Option<MethodName> {
        let method = Method::from_text(text.as_bytes());
        let mistaken = method == Method::Other
            && Method::from_text(text.to_ascii_uppercase().as_bytes()) != Method::Other;
        let valid = syntax::is_token(text.as_bytes()) && text.len() <= METHOD_BYTES_MAX;
        (valid && !mistaken && method != Method::Connect).then(|| MethodName { method, text: text.into() })
    }

    /// Whether a handler for this method answers the request. `GET` stands for `HEAD` too (RFC 9110 9.3.2).
    pub(super) fn accepts(&self, request: Request<'_>) -> bool {
        match (self.method, request.method()) {
            (Method::Other, Method::Other) => self.text.as_bytes() == request.method_text(),
            (Method::Get, Method::Head) => true,
            (own, asked) => own == asked,
        }
    }

    /// The name and what it stands for, as an `Allow` field lists them.
    pub(super) fn allowed(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.text).chain((self.method == Method::Get).then_some("HEAD"))
    }

    /// Sorts one method before every method, and `HEAD` before `GET`, which would take its requests.
    pub(super) fn precedence(name: &Option<MethodName>) -> impl Ord + use<> {
        match name {
            Some(name) if name.method == Method::Head => 0,
            Some(_) => 1,
            None => 2,
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.mounts).finish()
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount")
            .field("method", &self.method)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Admin;

    fn add(handlers: &mut Handlers, method: Option<&str>, path: &str) -> Result<()> {
        // Never made: any handler will do.
        handlers.add(method, path, || -> Rc<Admin> { unreachable!() })
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let prefix = |prefix: &str, path: &str| Place::Prefix(prefix.into()).matches(path.as_bytes());
        assert_eq!(prefix("", "anything/at/all"), Some(0));
        assert_eq!(prefix("api", "api"), Some(3));
        assert_eq!(prefix("api", "api/"), Some(3));
        assert_eq!(prefix("api", "api/v1"), Some(3));
        assert_eq!(prefix("api", "apiary"), None);
        assert_eq!(prefix("api", "ap"), None);
    }

    #[test]
    fn a_handlers_path_matches_exactly_or_below_a_slash() {
        let matches = |place: &str, path: &str| Place::parse(place).unwrap().matches(path.as_bytes());
        assert_eq!(matches("/", ""), Some(0));
        assert_eq!(matches("/", "a"), None);
        assert_eq!(matches("/*", ""), Some(0));
        assert_eq!(matches("/*", "a/b"), Some(0));
        assert_eq!(matches("/a", "a"), Some(1));
        assert_eq!(matches("/a", "a/"), None);
        assert_eq!(matches("/a/", "a/"), Some(2));
        assert_eq!(matches("/a/", "a"), None);
        assert_eq!(matches("/a/*", "a/"), Some(1));
        assert_eq!(matches("/a/*", "a/b/c"), Some(1));
        assert_eq!(matches("/a/*", "a"), None);
        assert_eq!(matches("/a/*", "ab/c"), None);
        assert_eq!(matches("/ä b/*", "ä b/"), Some(4));
    }

    #[test]
    fn paths_that_no_request_can_have_are_refused() {
        for path in [
            "", "a", "*", "/a*", "/*/a", "/**", "//", "//*", "/a//b", "/./a", "/a/..", "/a/../*", "/a?b",
            "/a#b", "/%61", "/a\n", "/a\0",
        ] {
            assert_eq!(Place::parse(path), None, "{path:?}");
        }
        assert!(Place::parse(&format!("/{}", "a".repeat(4095))).is_some());
        assert!(Place::parse(&format!("/{}", "a".repeat(4096))).is_none());
    }

    #[test]
    fn methods_are_tokens_in_their_own_case() {
        for method in ["GET", "HEAD", "PURGE", "X-y", &"M".repeat(METHOD_BYTES_MAX)] {
            assert!(MethodName::parse(method).is_some(), "{method}");
        }
        for method in ["", "get", "Post", "CONNECT", "A B", "A\r\n", &"M".repeat(METHOD_BYTES_MAX + 1)] {
            assert!(MethodName::parse(method).is_none(), "{method}");
        }
    }

    #[test]
    fn one_path_and_method_has_one_handler() {
        let mut handlers = Handlers::new();
        for (method, path) in
            [(None, "/a"), (Some("GET"), "/a"), (Some("POST"), "/a"), (None, "/a/"), (None, "/a/*")]
        {
            add(&mut handlers, method, path).unwrap();
            assert_eq!(add(&mut handlers, method, path).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(handlers.iter().count(), 5);
    }

    #[test]
    fn there_are_at_most_1024_handlers() {
        let mut handlers = Handlers::new();
        for number in 0..HANDLERS_MAX {
            add(&mut handlers, None, &format!("/{number}")).unwrap();
        }
        assert_eq!(add(&mut handlers, None, "/more").unwrap_err().kind(), ErrorKind::Limit);
    }
}
