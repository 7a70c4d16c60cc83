//! Handlers that a host adds beside its routes: which one is asked, how it passes a request on, and what a bug in it
//! costs.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use webserver::{
    config::Config,
    http::Status,
    runtime,
    server::Options,
    service::{Body, Call, Context, Handler, Handlers, Outcome, Response},
};

use crate::harness::{TestServer, wait_until, write};

/// A handler that is a function.
pub struct Told<F>(pub F);

impl<F: Fn(&Call<'_>) -> Outcome + 'static> Handler for Told<F> {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        (self.0)(call)
    }
}

/// Adds a handler that says `name` and what of the path it was left.
fn add(handlers: &mut Handlers, method: Option<&str>, path: &str, name: &'static str) {
    let tell = move |call: &Call<'_>| {
        let rest = String::from_utf8_lossy(call.rest()).into_owned();
        says(&format!("{name} {rest}"))
    };
    handlers.add(method, path, move || Rc::new(Told(tell))).unwrap();
}

fn add_told(
    handlers: &mut Handlers,
    path: &str,
    tell: impl Fn(&Call<'_>) -> Outcome + Copy + Send + Sync + 'static,
) {
    handlers.add(None, path, move || Rc::new(Told(tell))).unwrap();
}

pub fn says(text: &str) -> Outcome {
    let mut response = Response::new(Status::OK);
    response.body = Body::Shared(text.to_owned().into());
    Outcome::Ready(response)
}

/// A server of one shard with the files `index.html`, `a` and `users/7`, each saying its name, and handlers.
fn beside_files(handlers: Handlers) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    for name in ["index.html", "a", "users/7"] {
        write(folder.path(), name, name.as_bytes());
    }
    let routes = format!("routes: [{{ root: {} }}]", folder.path().display());
    with_routes(&routes, folder, handlers)
}

fn with_routes(routes: &str, folder: tempfile::TempDir, handlers: Handlers) -> TestServer {
    let text = format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\n{routes}");
    TestServer::with_options(&text, folder, Options { handlers, ..Options::default() })
}

fn text(server: &TestServer, method: &str, target: &str) -> String {
    let response = server.request(method, target, "");
    format!("{} {}", response.status, String::from_utf8_lossy(&response.body))
}

#[test]
fn the_longest_path_answers_and_exactly_before_by_prefix() {
    let mut handlers = Handlers::new();
    add(&mut handlers, None, "/hello", "hello");
    add(&mut handlers, None, "/users/*", "users");
    add(&mut handlers, None, "/users/me", "me");
    add(&mut handlers, None, "/users/", "list");
    add(&mut handlers, None, "/users/x/*", "x");
    let server = beside_files(handlers);
    for (target, expected) in [
        ("/hello", "200 hello "),
        ("/%68ello?a=b", "200 hello "),
        ("/x/../hello", "200 hello "),
        ("/users/", "200 list "),
        ("/users/me", "200 me "),
        ("/users/7", "200 users /7"),
        ("/users/me/", "200 users /me/"),
        ("/users/x/", "200 x /"),
        ("/users/x/y", "200 x /y"),
        ("/a", "200 a"),
        ("/", "200 index.html"),
    ] {
        assert_eq!(text(&server, "GET", target), expected, "{target}");
    }
    // Not below the prefix: the file system answers.
    assert_eq!(server.get("/users").status, 301);
    assert_eq!(server.get("/hello/").status, 404);
}

#[test]
fn a_route_with_a_longer_path_comes_before_a_handler() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "who", b"files");
    let routes = format!("routes: [{{ path: /static/, root: {} }}]", folder.path().display());
    let mut handlers = Handlers::new();
    add(&mut handlers, None, "/*", "all");
    add(&mut handlers, None, "/static/*", "static");
    let server = with_routes(&routes, folder, handlers);
    // Of one length the handler is first.
    assert_eq!(text(&server, "GET", "/static/who"), "200 static /who");
    assert_eq!(text(&server, "GET", "/other"), "200 all other");

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "who", b"files");
    let routes = format!("routes: [{{ path: /static/, root: {} }}]", folder.path().display());
    let mut handlers = Handlers::new();
    add(&mut handlers, None, "/*", "all");
    let server = with_routes(&routes, folder, handlers);
    assert_eq!(text(&server, "GET", "/static/who"), "200 files");
}

#[test]
fn what_a_handler_passes_on_is_answered_by_the_next_that_matches() {
    let mut handlers = Handlers::new();
    add_told(&mut handlers, "/users/7", |_| Outcome::Next);
    add_told(
        &mut handlers,
        "/users/*",
        |call| if call.rest() == b"/7" { Outcome::Next } else { says("users") },
    );
    add_told(&mut handlers, "/*", |_| Outcome::Next);
    let server = beside_files(handlers);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/users/7", "").body, b"users/7");
    assert_eq!(client.request("GET", "/users/8", "").body, b"users");
    assert_eq!(client.request("GET", "/a", "").body, b"a");
    assert_eq!(client.request("GET", "/missing", "").status, 404);
    assert_eq!(client.request("POST", "/a", "").status, 405);
}

#[test]
fn nobody_left_to_ask_is_not_found() {
    let mut handlers = Handlers::new();
    add_told(&mut handlers, "/*", |_| Outcome::Next);
    let server = with_routes("", tempfile::tempdir().unwrap(), handlers);
    let mut client = server.connect();
    for target in ["/", "/a"] {
        assert_eq!(client.request("GET", target, "").status, 404, "{target}");
    }
}

#[test]
fn without_routes_there_is_no_welcome_page_beside_handlers() {
    let mut handlers = Handlers::new();
    add(&mut handlers, None, "/hello", "hello");
    let server = with_routes("", tempfile::tempdir().unwrap(), handlers);
    assert_eq!(server.get("/hello").status, 200);
    assert_eq!(server.get("/").status, 404);
}

#[test]
fn the_method_chooses_among_handlers_of_one_path() {
    let mut handlers = Handlers::new();
    add(&mut handlers, Some("GET"), "/a", "get");
    add(&mut handlers, Some("POST"), "/a", "post");
    add(&mut handlers, None, "/b", "any");
    add(&mut handlers, Some("PURGE"), "/b", "purge");
    add(&mut handlers, Some("GET"), "/c", "get");
    add(&mut handlers, Some("HEAD"), "/c", "head method");
    let server = with_routes("", tempfile::tempdir().unwrap(), handlers);
    assert_eq!(text(&server, "GET", "/a"), "200 get ");
    assert_eq!(text(&server, "POST", "/a"), "200 post ");
    assert_eq!(text(&server, "PURGE", "/b"), "200 purge ");
    assert_eq!(text(&server, "PURGES", "/b"), "200 any ");
    assert_eq!(text(&server, "GET", "/b"), "200 any ");
    // GET stands for HEAD unless there is one for that.
    assert_eq!(server.request("HEAD", "/a", "").field("content-length"), Some("4"));
    assert_eq!(server.request("HEAD", "/c", "").field("content-length"), Some("12"));
}

#[test]
fn a_method_that_no_handler_of_the_path_has_is_told_which_there_are() {
    let mut handlers = Handlers::new();
    add(&mut handlers, Some("GET"), "/a", "get");
    add(&mut handlers, Some("HEAD"), "/a", "head");
    add(&mut handlers, Some("POST"), "/a", "post");
    add(&mut handlers, Some("PUT"), "/*", "put");
    add(&mut handlers, Some("DELETE"), "/files/a", "delete");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", b"file");
    let routes = format!("routes: [{{ path: /files/, root: {} }}]", folder.path().display());
    let server = with_routes(&routes, folder, handlers);
    let response = server.request("DELETE", "/a", "");
    assert_eq!((response.status, response.field("allow")), (405, Some("HEAD, GET, POST, PUT")));
    let response = server.request("GET", "/b", "");
    assert_eq!((response.status, response.field("allow")), (405, Some("PUT")));
    // A later route answers the method, as it would without the handler.
    assert_eq!(text(&server, "PUT", "/a"), "200 put a");
    assert_eq!(text(&server, "GET", "/files/a"), "200 file");
    assert_eq!(server.request("POST", "/files/a", "").field("allow"), Some("GET, HEAD, OPTIONS"));
}

#[test]
fn handlers_answer_on_every_host() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["named", "any"] {
        write(folder.path(), &format!("{name}/who"), name.as_bytes());
    }
    let root = folder.path().display();
    let routes = format!(
        "routes:\n  - {{ host: a.test, path: /only/, root: {root}/named }}\n  - {{ root: {root}/any }}\n\
         \x20 - {{ host: b.test, path: /only/, root: {root}/named }}\n"
    );
    let mut handlers = Handlers::new();
    add(&mut handlers, None, "/api/*", "api");
    add_told(&mut handlers, "/*", |_| Outcome::Next);
    let server = with_routes(&routes, folder, handlers);
    let who = |host: &str, target: &str| {
        let response = server.request("GET", target, &format!("Host: {host}\r\n"));
        String::from_utf8(response.body).unwrap()
    };
    for host in ["a.test", "b.test", "c.test"] {
        assert_eq!(who(host, "/api/x"), "api /x");
        assert_eq!(who(host, "/who"), "any");
    }
    assert_eq!(who("a.test", "/only/who"), "named");
    // The route for any host is written first and matches.
    assert_eq!(who("b.test", "/only/who"), "404 Not Found\n");
}

#[test]
fn a_handler_that_panics_answers_500_and_its_connection_goes_on() {
    let mut handlers = Handlers::new();
    add(&mut handlers, None, "/", "fine");
    add_told(&mut handlers, "/bug", |_| std::panic::resume_unwind(Box::new("bug")));
    let server = with_routes("", tempfile::tempdir().unwrap(), handlers);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /bug HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().body, b"fine ");
    assert_eq!(client.response().status, 500);
    assert_eq!(client.response().body, b"fine ");
    assert_eq!(server.metric("webserver_panics_total"), 1);
}

#[test]
fn a_handler_that_panics_later_answers_500_and_its_shard_goes_on() {
    let mut handlers = Handlers::new();
    add_told(&mut handlers, "/later/*", |call| {
        let bug = call.rest() == b"/bug";
        Outcome::Pending(Box::pin(async move {
            runtime::yield_now().await;
            if bug {
                std::panic::resume_unwind(Box::new("bug"));
            }
            let Outcome::Ready(response) = says("later") else { unreachable!() };
            response
        }))
    });
    let server = with_routes("", tempfile::tempdir().unwrap(), handlers);
    let (mut client, mut other) = (server.connect(), server.connect());
    for number in 1..=3 {
        assert_eq!(client.request("GET", "/later/bug", "").status, 500);
        assert_eq!(server.metric("webserver_panics_total"), number);
        assert_eq!(client.request("GET", "/later/fine", "").body, b"later");
        assert_eq!(other.request("GET", "/later/fine", "").body, b"later");
    }
}

/// Counts how often it was made and dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Handlers that say `name` at /, and a count of how often what they share was dropped.
fn counted(name: &'static str) -> (Handlers, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    let shared = Arc::new(Counted(Arc::clone(&drops)));
    let mut handlers = Handlers::new();
    let make = move || {
        let shared = Arc::clone(&shared);
        Rc::new(Told(move |_: &Call<'_>| {
            let _ = &shared;
            says(name)
        }))
    };
    handlers.add(None, "/", make).unwrap();
    (handlers, drops)
}

#[test]
fn a_reload_replaces_handlers_and_lets_go_of_the_old_ones() {
    let text = "shards: 2\nlisten: [\"127.0.0.1:0\"]";
    let (handlers, first_drops) = counted("first");
    let options = Options { handlers, ..Options::default() };
    let server = TestServer::with_options(text, tempfile::tempdir().unwrap(), options);
    let mut config = Config::new();
    config.load_yaml(text).unwrap();
    assert_eq!(server.get("/").body, b"first");

    // Without a word about them, handlers stay.
    server.server.reload(&config).unwrap();
    assert_eq!(server.get("/").body, b"first");
    assert_eq!(first_drops.load(Ordering::SeqCst), 0);

    let (handlers, second_drops) = counted("second");
    server.server.reload_with(&config, handlers.clone()).unwrap();
    for _ in 0..8 {
        assert_eq!(server.get("/").body, b"second");
    }
    wait_until("the first handlers to be gone", || first_drops.load(Ordering::SeqCst) == 1);

    // A reload that is refused changes nothing.
    let mut refused = config.clone();
    refused.set("shards", "1").unwrap();
    assert!(server.server.reload_with(&refused, Handlers::new()).is_err());
    assert_eq!(server.get("/").body, b"second");
    drop(server);
    assert_eq!(second_drops.load(Ordering::SeqCst), 0);
    drop(handlers);
    assert_eq!(second_drops.load(Ordering::SeqCst), 1);
    assert_eq!(first_drops.load(Ordering::SeqCst), 1);
}
