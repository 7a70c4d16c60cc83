//! The binary as a process of its own, what it says, and the simplest client.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than anything a test waits for unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running binary, ended when the test ends, and so are the processes that have replaced it.
pub struct Binary {
    pub child: Child,
    pub stderr: BufReader<ChildStderr>,
    /// Processes that replaced the first one, by number.
    pub successors: Vec<u32>,
}

impl Binary {
    pub fn start(arguments: &[&str]) -> Self {
        Binary::spawn(&mut command(arguments))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Binary { child, stderr, successors: Vec::new() }
    }

    /// The next line of standard error that begins with `start`; what follows it.
    pub fn line(&mut self, start: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "ended before {start:?}:\n{seen}");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim_end().to_owned();
            }
            seen.push_str(&line);
        }
    }

    pub fn port(&mut self) -> u16 {
        self.line("listening on http://127.0.0.1:").parse().unwrap()
    }

    /// The process that serves: the last one.
    pub fn pid(&self) -> u32 {
        self.successors.last().copied().unwrap_or_else(|| self.child.id())
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Has the process that serves replaced by another, and waits until it is.
    pub fn replace(&mut self) {
        self.signal("USR2");
        let told = self.line("webserver: process ");
        let pid = told.split(' ').next().unwrap().parse().unwrap();
        assert!(told.ends_with("is to take over"), "{told}");
        self.successors.push(pid);
        self.line(&format!("webserver: process {pid} has taken over"));
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a process that is no child of this one has ended.
    pub fn await_end(&self, pid: u32) {
        let deadline = Instant::now() + PATIENCE;
        // A process that nobody has waited for is still listed.
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(Instant::now() < deadline, "process {pid} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        for pid in &self.successors {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if exe.to_string_lossy().contains("webserver") {
                let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webserver"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn get(port: u16, path: &str) -> String {
    get_over(connect(port), path)
}

/// Asks over a connection of any kind.
pub fn get_over(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

pub fn configure(folder: &Path, yaml: &str) -> String {
    let file = folder.join("webserver.yaml");
    fs::write(&file, yaml).unwrap();
    file.display().to_string()
}
