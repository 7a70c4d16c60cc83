//! Handlers of `tests/c/handlers.c` and `c-examples/handler.c`, seen from outside: what they are told of a request, and what
//! becomes of their replies.

use std::{fs, path::Path};

use super::harness::{Answer, Linkage, Running, ask, compile, get};

/// The program that serves, and its port.
struct Served {
    program: Running,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        fs::write(folder.path().join("files/a"), "file").unwrap();
        let program = compile("tests/c/handlers.c", Linkage::Shared);
        let mut program = Running::of(program, &[path(folder.path())]);
        let port = program.line().parse().unwrap();
        Served { program, port, _folder: folder }
    }

    fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Answer {
        ask(self.port, method, target, fields, body)
    }

    /// Status and body of a GET.
    fn get(&self, target: &str) -> (u16, String) {
        let answer = get(self.port, target);
        (answer.status, answer.body)
    }
}

impl Drop for Served {
    /// Everything that the handlers checked was right, and so is the end.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let output = self.program.finish();
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            assert!(output.status.success(), "{}", output.status);
        }
    }
}

#[test]
fn wrong_arguments_are_refused_and_drop_is_called_once() {
    compile("tests/c/handlers.c", Linkage::Shared).run(&[]).succeeds_silently();
}

#[test]
fn wrong_arguments_are_refused_and_drop_is_called_once_when_linked_statically() {
    compile("tests/c/handlers.c", Linkage::Static).run(&[]).succeeds_silently();
}

#[test]
fn a_handler_reads_everything_of_a_request() {
    let served = Served::new();
    let answer =
        served.ask("PATCH", "/facts/a%20b/../%c3%a4?x=%20&y", "x-some:  one \r\nX-Some: two\r\n", "the body");
    assert_eq!(
        answer.body,
        "method=PATCH\npath=/facts/ä\ntarget=/facts/a%20b/../%c3%a4?x=%20&y\nquery=x=%20&y\npeer=127.0.0.1\n\
         version=HTTP/1.1\nbody=the body\nx-some=one\nx-other=NULL\n"
    );
    let answer = served.ask("GET", "/facts/?", "", "");
    assert!(answer.body.contains("path=/facts/\n") && answer.body.contains("query=\n"), "{}", answer.body);
    let answer = served.ask("GET", "/facts/x", "", "");
    assert!(answer.body.contains("query=NULL\n") && answer.body.contains("body=\n"), "{}", answer.body);
}

#[test]
fn a_reply_is_what_the_handler_says() {
    let served = Served::new();
    let answer = served.ask("POST", "/echo", "", "the body");
    assert_eq!((answer.status, answer.body.as_str()), (200, "the body"));
    let body = "0123456789".repeat(300_000);
    assert!(served.ask("POST", "/echo", "", &body).body == body);
    assert!(served.get("/large").1 == "x".repeat(1 << 20));
    assert_eq!(served.get("/null"), (200, String::new()));
    assert_eq!(served.get("/user"), (200, "first".to_owned()));
}

#[test]
fn header_fields_of_a_reply_are_checked_and_bounded() {
    let served = Served::new();
    let answer = served.ask("GET", "/fields", "", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "fields"));
    assert_eq!(answer.field("content-type"), Some("text/x-test"));
    assert_eq!(answer.field("x-empty"), Some(""));
    assert_eq!(answer.head.matches("Set-Cookie: ").count(), 2);
    assert!(answer.head.contains("\r\nSet-Cookie: c=ä\t!\r\n"));
    assert!(answer.head.len() > 16_384);
}

#[test]
fn a_second_reply_changes_nothing() {
    let answer = Served::new().ask("GET", "/twice", "", "");
    assert_eq!((answer.status, answer.body.as_str()), (201, "first"));
    assert_eq!(answer.field("x-late"), None);
}

#[test]
fn every_final_status_can_be_replied_and_no_other() {
    let served = Served::new();
    for status in [200, 206, 299, 404, 418, 500, 599] {
        assert_eq!(served.get(&format!("/status/{status}")), (status, "body".to_owned()));
    }
    for status in ["0", "-1", "100", "101", "199", "600", "65736"] {
        assert_eq!(served.get(&format!("/status/{status}")), (200, "refused -1".to_owned()));
    }
}

#[test]
fn statuses_without_content_leave_the_body_out() {
    let served = Served::new();
    for (status, length) in [(204, None), (205, Some("0")), (304, None)] {
        let answer = served.ask("GET", &format!("/status/{status}"), "", "");
        assert_eq!((answer.status, answer.body.as_str()), (status, ""));
        assert_eq!((answer.field("content-length"), answer.field("x-kept")), (length, Some("yes")));
    }
    let answer = served.ask("HEAD", "/status/200", "", "");
    assert_eq!((answer.body.as_str(), answer.field("content-length")), ("", Some("4")));
}

#[test]
fn what_a_handler_returns_wrongly_is_a_500() {
    let served = Served::new();
    for target in ["/return/0", "/return/1?", "/return/2", "/return/2?", "/return/3", "/return/-1?"] {
        assert_eq!(served.get(target).0, 500, "{target}");
    }
    assert_eq!(served.get("/return/0?"), (200, "reply".to_owned()));
    assert_eq!(served.get("/return/1").0, 404);
}

#[test]
fn next_is_the_folder_and_keeps_nothing_of_the_handler() {
    let served = Served::new();
    let answer = served.ask("GET", "/files/a", "", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "file"));
    assert_eq!(answer.field("x-dropped"), None);
    assert_eq!(served.get("/files/b").0, 404);
}

#[test]
fn a_handler_cannot_run_the_library() {
    assert_eq!(Served::new().get("/calls"), (200, "done".to_owned()));
}

#[test]
fn a_reload_brings_other_handlers() {
    let mut served = Served::new();
    for _ in 0..3 {
        served.program.say("reload");
        assert_eq!(served.program.line(), "reloaded");
        assert_eq!(served.get("/user"), (200, "second".to_owned()));
    }
}

#[test]
fn the_example_answers_beside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "home").unwrap();
    fs::create_dir(folder.path().join("users")).unwrap();
    fs::write(folder.path().join("users/notes.txt"), "notes").unwrap();
    let program = compile("c-examples/handler.c", Linkage::Shared);
    assert_eq!(program.run(&[]).code(), 2);
    let mut example = Running::of(program, &[path(folder.path()), "127.0.0.1:0"]);
    let port = example.line().rsplit(' ').next().unwrap().parse().unwrap();

    assert_eq!(get(port, "/").body, "home");
    let hello = ask(port, "GET", "/hello?name=Ada", "", "");
    assert_eq!((hello.status, hello.body.as_str()), (200, "Hello, Ada!\n"));
    assert_eq!(hello.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(hello.field("cache-control"), Some("no-store"));
    assert_eq!(ask(port, "HEAD", "/hello", "", "").field("content-length"), Some("14"));
    assert!(get(port, "/api/time").body.ends_with("\"asked\":1}\n"));
    assert!(get(port, "/api/time").body.ends_with("\"asked\":2}\n"));
    let echo = ask(port, "POST", "/echo", "Content-Type: text/x-some\r\n", "some text");
    assert_eq!((echo.field("content-type"), echo.body.as_str()), (Some("text/x-some"), "some text"));
    assert_eq!(get(port, "/users/grace").body, "{\"id\":2,\"name\":\"grace\"}\n");
    assert_eq!(get(port, "/users/notes.txt").body, "notes");
    assert_eq!(get(port, "/users/nobody").status, 404);
    assert_eq!(example.finish().status.code(), Some(0));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
