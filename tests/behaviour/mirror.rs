//! A real site, mirrored by programs that people use for that, byte for byte.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{
    harness::{TestServer, content},
    system::skip,
};

/// Names that a URL, a page or a shell could get wrong.
const NAMES: [&str; 16] = [
    "plain.txt",
    "with space.html",
    "per%cent.css",
    "%41.js",
    "question?mark.json",
    "hash#tag.png",
    "amp&ersand=1.svg",
    "ünïcödé.txt",
    "日本.bin",
    "quote'\".txt",
    "a:b;c,d.txt",
    "plus+tilde~.txt",
    "(brackets)[square]{curly}.txt",
    "back\\slash|pipe^.txt",
    "<b>&amp;.txt",
    "no-extension",
];
const FOLDERS: [&str; 6] = ["", "css/", "a b/", "a b/c#d/", "ü/100%/", "deep/er/and/deep/er/"];
const COPIES: usize = 31;
const LARGEST_BYTES: usize = 3 << 20;

/// The site: path and content of nearly 3,000 files of 0 bytes to 3 MB.
fn make_site() -> BTreeMap<String, Vec<u8>> {
    let bytes = content(LARGEST_BYTES + 4096);
    let mut site = BTreeMap::new();
    for folder in FOLDERS {
        for copy in 0..COPIES {
            for name in NAMES {
                let number = site.len();
                // Most are small, and each limit of the server's ways out is crossed by some.
                let length = match number % 97 {
                    0 => 0,
                    1 => 1,
                    2 => 16 << 10,
                    3 => (16 << 10) + 1,
                    4 => (64 << 10) + number,
                    5 => 300_000 + number,
                    _ => number * 37 % 9000,
                };
                let length = if number % 593 == 5 { LARGEST_BYTES - number } else { length };
                let start = number % 4096;
                site.insert(format!("{folder}{copy:02} {name}"), bytes[start..start + length].to_vec());
            }
        }
    }
    site
}

fn serve(site: &BTreeMap<String, Vec<u8>>) -> TestServer {
    let files: Vec<(&str, &[u8])> =
        site.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    TestServer::with_route("    listing: true", "shards: 2", &files)
}

/// Whether a program is there to be run.
fn has(tool: &str) -> bool {
    let found =
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skip(&format!("a site is not mirrored with {tool}: there is none"));
    }
    found
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
}

fn assert_file(path: &Path, wanted: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found == wanted, "{}: {} bytes, not {}, or others", path.display(), found.len(), wanted.len());
}

/// Files below a folder, and how many of them are called `index.html`.
fn count_files(folder: &Path) -> (usize, usize) {
    let (mut files, mut pages) = (0, 0);
    let mut folders: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files += 1;
                pages += usize::from(entry.file_name() == "index.html");
            }
        }
    }
    (files, pages)
}

#[test]
fn wget_mirrors_a_site_by_its_listings() {
    if !has("wget") {
        return;
    }
    let site = make_site();
    let server = serve(&site);
    let mirror = tempfile::tempdir().unwrap();
    run(Command::new("wget")
        .args([
            "--recursive",
            "--level=inf",
            "--no-parent",
            "--no-host-directories",
            "--no-iri",
            "--no-verbose",
        ])
        // Names stay as they are; orders of a listing are not other pages.
        .args(["--restrict-file-names=nocontrol", "--reject-regex=[?]sort=", "--tries=1", "--no-proxy"])
        .args(["--execute=robots=off", "--directory-prefix"])
        .arg(mirror.path())
        .arg(format!("http://{}/", server.address))
        .env("LC_ALL", "C.UTF-8"));
    for (path, content) in &site {
        // wget asks for the right URL, and then decodes it twice for the name of its file.
        let name: Vec<u8> = percent_decode_str(path).collect();
        assert_file(&mirror.path().join(OsStr::from_bytes(&name)), content);
    }
    // `a b`, `a b/c#d`, `css`, `ü`, `ü/100%`, five of `deep` and the root have a page each.
    assert_eq!(count_files(mirror.path()), (site.len() + 11, 11));
}

#[test]
fn curl_fetches_a_site_in_parallel() {
    if !has("curl") {
        return;
    }
    let site = make_site();
    let server = serve(&site);
    let mirror = tempfile::tempdir().unwrap();
    let mut config = String::new();
    for (number, path) in site.keys().enumerate() {
        let segments: Vec<String> =
            path.split('/').map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()).collect();
        let target = mirror.path().join(number.to_string());
        let url = format!("http://{}/{}", server.address, segments.join("/"));
        config.push_str(&format!("url = \"{url}\"\noutput = \"{}\"\n", target.display()));
    }
    let list = mirror.path().join("list");
    fs::write(&list, config).unwrap();
    run(Command::new("curl")
        .args(["--parallel", "--parallel-max", "64", "--fail", "--silent", "--show-error", "--noproxy", "*"])
        .arg("--config")
        .arg(&list));
    for (number, content) in site.values().enumerate() {
        let file = mirror.path().join(number.to_string());
        // curl makes no file for a body without bytes.
        if !content.is_empty() || file.exists() {
            assert_file(&file, content);
        }
    }
    server.await_metric("webserver_requests_total{status=\"200\"}", site.len() as u64);
}
