//! Kernels that refuse what the server needs: an error that says what to change, and nothing else.
//!
//! Each refusal is made in a process of its own, because it is for good.

use std::{fs, os::unix::process::CommandExt, process::Command};

use webserver::{Error, ErrorKind};

use crate::{
    harness::{PATIENCE, TestServer, try_start},
    system::{
        assert_left_nothing, assert_same, become_nobody, census, in_child, pattern, refuse_call, set_limit,
    },
};

const CONFIGURATION: &str = "shards: 2\nlisten: [\"127.0.0.1:0\"]\n";

/// Runs a child in which a start is refused; it must not print anything.
fn refused_in_silence(test: &str) {
    let errors = in_child(test);
    assert_eq!(errors, "", "something was printed");
}

/// Starts a server and expects a refusal that names these words and leaves nothing behind.
fn assert_refused(words: &[&str]) -> Error {
    let before = census();
    let error = try_start(CONFIGURATION).unwrap_err();
    assert_left_nothing(before, error.message());
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{word}: {error}");
    }
    error
}

#[test]
fn io_uring_that_is_forbidden_is_an_error() {
    refused_in_silence("kernel::io_uring_setup_eperm");
}

#[test]
#[ignore = "run in a process of its own, which may not call io_uring_setup"]
fn io_uring_setup_eperm() {
    refuse_call(libc::SYS_io_uring_setup, libc::EPERM);
    for _ in 0..3 {
        let error = assert_refused(&["io_uring", "kernel.io_uring_disabled", "seccomp", "io_uring_setup"]);
        assert_eq!(error.sys_errno(), libc::EPERM);
    }
}

#[test]
fn io_uring_that_is_hidden_is_an_error() {
    refused_in_silence("kernel::io_uring_setup_enosys");
}

#[test]
#[ignore = "run in a process of its own, which may not call io_uring_setup"]
fn io_uring_setup_enosys() {
    refuse_call(libc::SYS_io_uring_setup, libc::ENOSYS);
    let error = assert_refused(&["io_uring", "seccomp", "Linux 5.8"]);
    assert_eq!(error.sys_errno(), libc::ENOSYS);
}

#[test]
fn io_uring_that_may_be_made_and_not_used_is_an_error() {
    refused_in_silence("kernel::io_uring_enter_eperm");
    refused_in_silence("kernel::io_uring_register_eperm");
}

#[test]
#[ignore = "run in a process of its own, which may not call io_uring_enter"]
fn io_uring_enter_eperm() {
    refuse_call(libc::SYS_io_uring_enter, libc::EPERM);
    assert_refused(&["io_uring_enter", "seccomp"]);
}

#[test]
#[ignore = "run in a process of its own, which may not call io_uring_register"]
fn io_uring_register_eperm() {
    refuse_call(libc::SYS_io_uring_register, libc::EPERM);
    assert_refused(&["io_uring"]);
}

#[test]
fn openat2_that_is_refused_is_an_error() {
    refused_in_silence("kernel::openat2_eperm");
    refused_in_silence("kernel::openat2_enosys");
}

#[test]
#[ignore = "run in a process of its own, which may not call openat2"]
fn openat2_eperm() {
    refuse_call(libc::SYS_openat2, libc::EPERM);
    assert_refused(&["openat2", "seccomp"]);
}

#[test]
#[ignore = "run in a process of its own, which may not call openat2"]
fn openat2_enosys() {
    refuse_call(libc::SYS_openat2, libc::ENOSYS);
    assert_refused(&["openat2", "Linux 5.6"]);
}

#[test]
fn too_little_lockable_memory_is_an_error() {
    refused_in_silence("kernel::memlock");
}

#[test]
#[ignore = "run in a process of its own, whose lockable memory is limited"]
fn memlock() {
    set_limit(libc::RLIMIT_MEMLOCK, (512 << 10) - 1, 1 << 20);
    assert_refused(&["RLIMIT_MEMLOCK", "524287", "524288", "ulimit -l"]);
    set_limit(libc::RLIMIT_MEMLOCK, 0, 1 << 20);
    assert_refused(&["RLIMIT_MEMLOCK"]);
    // Just enough, and root has more by right.
    set_limit(libc::RLIMIT_MEMLOCK, 512 << 10, 1 << 20);
    try_start(CONFIGURATION).unwrap().stop(PATIENCE).unwrap();
}

#[test]
fn with_just_enough_lockable_memory_anybody_is_served() {
    refused_in_silence("kernel::memlock_of_nobody");
}

#[test]
#[ignore = "run in a process of its own, which gives up being root"]
fn memlock_of_nobody() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), &pattern()[..3 << 20]).unwrap();
    become_nobody(&[folder.path()]);
    set_limit(libc::RLIMIT_MEMLOCK, 512 << 10, 512 << 10);
    let root = folder.path().display();
    let text = format!("{CONFIGURATION}routes: [{{ root: {root} }}]\n");
    let server = TestServer::from_yaml(&text, folder);
    for _ in 0..8 {
        assert_same("a", &server.get("/a").body, &pattern()[..3 << 20]);
    }
    server.server.stop(PATIENCE).unwrap();
}

#[test]
fn the_program_says_in_one_line_why_it_cannot_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_webserver"));
    command.args(["--listen", "127.0.0.1:0"]).arg(folder.path());
    // SAFETY: between fork and exec only prctl(2) is called, on memory of this frame; it is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            refuse_call(libc::SYS_io_uring_setup, libc::EPERM);
            Ok(())
        })
    };
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("io_uring") && errors.contains("kernel.io_uring_disabled"), "{errors}");
    assert!(!errors.contains("panicked") && errors.lines().count() == 1, "{errors}");
    assert_eq!(output.stdout.len(), 0);
}
