//! The stand-alone binary.
#![allow(clippy::unwrap_used)]
#[global_allocator]
static ALLOCATOR: webserver::memory::heap::CountingAllocator = webserver::memory::heap::CountingAllocator;
fn main() {
    let mut config = webserver::config::Config::new();
    for pair in std::env::args().skip(1) {
        let (k, v) = pair.split_once('=').unwrap();
        if k == "file" { config.load_file(std::path::Path::new(v)).unwrap(); } else { config.set(k, v).unwrap(); }
    }
    let server = match webserver::Server::start_with(&config, webserver::server::Options { binary: true, ..Default::default() }) { Ok(s) => s, Err(e) => { eprintln!("webserver: {e}"); return; } };
    for a in server.addresses() { eprintln!("listening on {}", a.url); }
    std::io::stdin().lines().next();
    println!("{:?}", server.stop(std::time::Duration::from_secs(2)));
}
