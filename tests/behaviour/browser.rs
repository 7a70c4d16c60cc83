//! A browser loads a page with 200 assets and finds nothing wrong.

use std::{
    fmt::Write as _,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    certificates::{Certificates, Pair},
    harness::{TestServer, write},
    system::skip,
};

/// A browser that starts on a busy machine takes its time.
const BROWSER_PATIENCE: Duration = Duration::from_secs(60);
/// Of each kind: style sheets, scripts, images, fetched documents.
const ASSETS: usize = 50;

/// Looks whether each asset is what it should be, and tells the server, whose access log the test reads.
const CHECK: &str = r#"
const errors = [];
addEventListener("error", event => errors.push("error " + (event.message || event.target.src || event.target.href)), true);
addEventListener("unhandledrejection", event => errors.push("rejected " + event.reason));
addEventListener("securitypolicyviolation", event => errors.push("policy " + event.blockedURI));
window.scripts = [];
addEventListener("load", async () => {
  let checked = 0;
  const check = (good, what) => { checked += 1; if (!good) errors.push(what); };
  const style = getComputedStyle(document.documentElement);
  const fetched = await Promise.all(Array.from({ length: ASSETS }, async (_, n) => {
    const response = await fetch(`data/${n}.json`);
    return response.ok && response.headers.get("Content-Type") === "application/json" && (await response.json()).n;
  }));
  for (let n = 0; n < ASSETS; n += 1) {
    check(style.getPropertyValue(`--style-${n}`).trim() === String(n), `style ${n}`);
    check(window.scripts[n] === n, `script ${n}`);
    check(document.getElementById(`image-${n}`).naturalWidth === n + 1, `image ${n}`);
    check(fetched[n] === n, `data ${n}`);
  }
  const told = errors.length === 0 ? "none" : encodeURIComponent(errors.slice(0, 10).join(", "));
  await fetch(`report.txt?checked=${checked}&errors=${told}`);
});
"#;

/// A browser that runs; killed when dropped.
pub struct Browser(pub Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a browser without a screen, which `arguments` tell what to do with the page; `None` where there is none.
pub fn start_browser(
    profile: &std::path::Path,
    url: &str,
    arguments: &[&str],
    output: fn() -> Stdio,
) -> Option<Browser> {
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        let child = Command::new(name)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--no-proxy-server"])
            .args(arguments)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdout(output())
            .stderr(output())
            .spawn();
        if let Ok(child) = child {
            return Some(Browser(child));
        }
    }
    None
}

fn write_page(site: &std::path::Path) {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>200 assets</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<script src=\"check.js\"></script>\n",
    );
    write(site, "check.js", CHECK.replace("ASSETS", &ASSETS.to_string()).as_bytes());
    write(site, "report.txt", b"thanks");
    let mut body = String::new();
    for n in 0..ASSETS {
        // Some are larger than what the server keeps in memory.
        let filler = "x".repeat(n * n * 40);
        write(
            site,
            &format!("style/{n}.css"),
            format!(":root {{ --style-{n}: {n}; }}\n/* {filler} */").as_bytes(),
        );
        write(site, &format!("script/{n}.js"), format!("window.scripts[{n}] = {n};\n// {filler}").as_bytes());
        write(
            site,
            &format!("data/{n}.json"),
            format!("{{ \"n\": {n}, \"filler\": \"{filler}\" }}").as_bytes(),
        );
        let image = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"9\"><desc>{filler}</desc></svg>",
            n + 1
        );
        write(site, &format!("image/{n}.svg"), image.as_bytes());
        let _ = writeln!(page, "<link rel=\"stylesheet\" href=\"style/{n}.css\">");
        let _ = writeln!(
            body,
            "<img id=\"image-{n}\" src=\"image/{n}.svg\" alt=\"\"><script src=\"script/{n}.js\"></script>"
        );
    }
    write(site, "index.html", format!("{page}</head>\n<body>\n{body}</body>\n</html>\n").as_bytes());
}

#[test]
fn a_browser_loads_a_page_with_200_assets() {
    load_page(None);
}

#[test]
fn a_browser_loads_a_page_with_200_assets_over_https() {
    let certificates = Certificates::new();
    load_page(Some(&certificates.server(&["localhost", "127.0.0.1"])));
}

/// Has a browser load the page, over TLS with this certificate, which it is told to take although nobody that it knows
/// has signed it.
fn load_page(pair: Option<&Pair>) {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    write_page(&site);
    let log = folder.path().join("access.log");
    let profile = folder.path().join("profile");
    let tls = pair.map_or(String::new(), |pair| format!(", tls: {{ certificates: [{}] }}", pair.yaml()));
    let text = format!(
        "shards: 2\nlisten: [{{ address: \"127.0.0.1:0\"{tls} }}]\naccess_log: {{ path: {} }}\nroutes:\n  - root: {}\n    \
         cache_control: [{{ pattern: \"*.html\", value: no-cache }}, {{ pattern: \"*\", expires: 1h }}]\n",
        log.display(),
        site.display()
    );
    let server = TestServer::from_yaml(&text, folder);
    let scheme = if pair.is_some() { "https" } else { "http" };
    let Some(_browser) = start_browser(
        &profile,
        &format!("{scheme}://{}/", server.address),
        &["--remote-debugging-port=0", "--ignore-certificate-errors"],
        Stdio::null,
    ) else {
        skip("no page is loaded by a browser: there is no chromium");
        return;
    };
    let mut asked: Vec<String> = Vec::new();
    for (kind, extension) in [("style", "css"), ("script", "js"), ("image", "svg"), ("data", "json")] {
        asked.extend((0..ASSETS).map(|n| format!("\"GET /{kind}/{n}.{extension} HTTP/1.1\" 200 ")));
    }
    // Each shard writes its own lines, so that the report's may come before those of earlier requests.
    let deadline = Instant::now() + BROWSER_PATIENCE;
    let lines = loop {
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let missing = asked.iter().filter(|asset| !lines.contains(*asset)).count();
        if missing == 0 && lines.contains("/report.txt?") {
            break lines;
        }
        assert!(Instant::now() < deadline, "no report, or {missing} assets missing:\n{lines}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let wanted = format!("/report.txt?checked={}&errors=none ", 4 * ASSETS);
    let reports: Vec<&str> = lines.lines().filter(|line| line.contains("/report.txt?")).collect();
    assert!(reports.iter().all(|line| line.contains(&wanted)), "{reports:?}");
    assert!(!lines.lines().any(|line| line.contains("\" 404 ") || line.contains("\" 5")), "{lines}");
    if pair.is_some() {
        // Browsers offer h2 first; several connections at a time resume the first one's session.
        assert!(server.metric("webserver_tls_handshakes_total{kind=\"1.3 full\"}") >= 1);
        assert_eq!(server.metric("webserver_tls_failures_total{reason=\"protocol\"}"), 0);
    }
}
