//! The status page in a browser: it draws the figures of the server that it came from, and says when that is gone.

use std::{fs, io::Read as _, process::Stdio, thread};

use crate::{
    admin::admin,
    browser::start_browser,
    certificates::Certificates,
    harness::{Client, TestServer},
    system::skip,
    tls_client::Dialer,
};

/// The page after so many seconds, and what the browser said about it. The browser's clock does not wait for the page, so
/// that this does not take as long. `meanwhile` is done while it runs.
fn page_after(
    server: &TestServer,
    seconds: u32,
    meanwhile: impl FnOnce() + Send,
) -> Option<(String, Vec<String>)> {
    let profile = server.folder.path().join("profile");
    let budget = format!("--virtual-time-budget={}", u64::from(seconds) * 1000);
    let arguments = [
        "--dump-dom",
        budget.as_str(),
        "--enable-logging=stderr",
        "--window-size=1920,1080",
        // Nothing but this machine can be asked.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ];
    let url = format!("http://{}/status", admin(server));
    let mut browser = start_browser(&profile, &url, &arguments, Stdio::piped)?;
    let (mut page, mut said) = (String::new(), String::new());
    let (mut output, mut errors) = (browser.0.stdout.take().unwrap(), browser.0.stderr.take().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| errors.read_to_string(&mut said));
        scope.spawn(meanwhile);
        output.read_to_string(&mut page).unwrap();
    });
    drop(browser);
    let _ = fs::remove_dir_all(&profile);
    let console = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    Some((page, console))
}

/// The text of the element with this id, up to the next tag.
fn text<'p>(page: &'p str, id: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {page}"));
    rest.split_once('>').unwrap().1.split('<').next().unwrap()
}

/// Everything inside the element with this id, which has none of its kind inside.
fn inside<'p>(page: &'p str, id: &str, name: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {page}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

fn server() -> TestServer {
    TestServer::start("shards: 2\nadmin: { address: \"127.0.0.1:0\" }", &[("a.txt", b"a")])
}

#[test]
fn a_browser_draws_the_figures_of_a_running_server() {
    let server = server();
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/a.txt", "").status, 200);
    }
    let mut partial = server.connect();
    partial.send("GET / HTTP/1.1\r\nX-A: ");
    let Some((page, console)) = page_after(&server, 12, || {}) else {
        skip("no status page is drawn: there is no chromium");
        return;
    };
    assert!(console.is_empty(), "{console:?}");
    assert_eq!(text(&page, "version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&page, "state"), "accepting");
    assert_eq!(text(&page, "shard-count"), "2 shards");
    assert_eq!((text(&page, "badge-name"), text(&page, "badge-text")), ("Normal pressure", "level 0 of 3"));
    assert_eq!(text(&page, "connections-open"), "4");
    assert_eq!(text(&page, "connections-of"), "1 active, 3 idle");
    assert!(text(&page, "request-of").ends_with("since start, 0 failed"), "{}", text(&page, "request-of"));
    for figure in ["memory-share", "request-rate", "latency-p50", "sent-rate", "shed-rate"] {
        assert!(
            text(&page, figure).contains(|c: char| c.is_ascii_digit()),
            "{figure}: {}",
            text(&page, figure)
        );
    }
    for chart in ["memory", "connections", "requests", "latency"] {
        let drawn = inside(&page, &format!("chart-{chart}"), "svg");
        let paths = drawn.split(" d=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let points = paths.map(|path| path.matches(['M', 'L']).count()).max().unwrap_or(0);
        assert!(points >= 6, "{chart} has {points} points: {drawn}");
        assert!(!drawn.contains("NaN"), "{chart}: {drawn}");
    }
    let memory = inside(&page, "chart-memory", "svg");
    assert!(memory.contains("data-holder=\"substrate\""), "what always stands is drawn: {memory}");
    for mark in ["70 % elevated", "85 % high", "95 % critical", "100 % budget"] {
        assert!(memory.contains(mark), "{mark}: {memory}");
    }
    assert_eq!(inside(&page, "shards", "section").matches("<tr").count(), 1 + 2);
    let largest = inside(&page, "largest", "section");
    assert!(largest.contains(&partial.stream.local_addr().unwrap().to_string()), "{largest}");
    assert!(page.contains("id=\"alarm\" role=\"alert\" hidden"), "the server answers");
    assert!(inside(&page, "tls", "h2").starts_with(" hidden"), "nobody has spoken TLS");
}

#[test]
fn the_page_tells_of_tls_once_it_is_spoken() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let text = format!(
        "shards: 1\nadmin: {{ address: \"127.0.0.1:0\" }}\nlisten: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: \
         [{}] }} }}]",
        pair.yaml()
    );
    let server = TestServer::from_yaml(&text, tempfile::tempdir().unwrap());
    let connector = Dialer::trusting(&certificates).connector();
    for _ in 0..2 {
        let mut client = connector.connect(server.address);
        assert_eq!(client.request("GET", "/", "Host: localhost\r\n").status, 200);
        client.close();
    }
    Client::connect(server.address).ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let Some((page, console)) = page_after(&server, 4, || {}) else {
        skip("no status page is drawn: there is no chromium");
        return;
    };
    assert!(console.is_empty(), "{console:?}");
    let tls = inside(&page, "tls", "section");
    assert!(!tls.starts_with(" hidden"), "{tls}");
    let tls = tls.replace(" class=\"\"", "");
    for row in ["2 since start<", ">resumed</td><td>50", ">failed</td><td>1<", ">– plain http</td><td>1<"] {
        assert!(tls.contains(row), "{row}: {tls}");
    }
}

#[test]
fn the_page_says_that_the_server_is_gone() {
    let server = server();
    let gone = || {
        server.await_metric("webserver_requests_total{status=\"200\"}", 4);
        server.server.stop(std::time::Duration::ZERO).unwrap();
    };
    let Some((page, _)) = page_after(&server, 120, gone) else {
        skip("no status page is drawn: there is no chromium");
        return;
    };
    assert_eq!((text(&page, "badge-name"), text(&page, "state")), ("no answer", "unknown"));
    assert!(text(&page, "alarm").contains("The server cannot be reached. Its last answer is "), "{page}");
    assert!(page.contains("id=\"alarm\" role=\"alert\">"), "the alarm is shown");
    assert_eq!(text(&page, "shard-count"), "2 shards", "the last figures stay");
}

#[test]
fn the_page_comes_with_a_policy_and_asks_nobody_else() {
    let server = server();
    let response = Client::connect(admin(&server)).request("GET", "/status", "");
    assert_eq!((response.status, response.field("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = response.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && policy.contains("connect-src 'self';"), "{policy}");
    let page = String::from_utf8(response.body).unwrap();
    let others = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link rel=\"stylesheet"] {
        assert!(!others.contains(outside), "{outside}");
    }
}
