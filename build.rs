//! Build script of the package `ffi`: writes the C header into `OUT_DIR` and names the shared library.
//!
//! It must not write into the source tree. `include/webserver.h` is a committed copy of this output, and
//! `tests/c_abi.rs` compares the two.
// A build script talks to cargo through standard output.
#![allow(clippy::print_stdout)]

use std::{env, path::PathBuf};

/// What the header is made of, in the header's order.
const SOURCES: [&str; 10] = [
    "version.rs",
    "error.rs",
    "log.rs",
    "memory.rs",
    "config.rs",
    "request.rs",
    "tls.rs",
    "handler.rs",
    "server.rs",
    "stats.rs",
];

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let settings = package.join("../cbindgen.toml");

    println!("cargo:rerun-if-changed=../build.rs");
    println!("cargo:rerun-if-changed=../cbindgen.toml");
    let config = cbindgen::Config::from_file(settings).expect("cbindgen.toml is in the repository");
    let mut header = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        println!("cargo:rerun-if-changed=src/{source}");
        header = header.with_src(package.join("src").join(source));
    }
    header.generate().expect("the sources of ffi parse").write_to_file(out.join("webserver.h"));

    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libwebserver.so");
    // A Rust shared library whose thread-locals may be alive must stay mapped after dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
