//! What the tests of the C interface stand on: the built library, compiled C programs, and an HTTP client.
//! It asserts only that its own steps work; what the library must do is for the tests to say.

// In a test a broken step is a failed test.
#![allow(clippy::unwrap_used)]

use std::{
    env, fmt, fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long anything here may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// sizeof(webserver_stats).
pub const STATS_SIZE: usize = 192;

/// What `cargo build -p webserver-ffi` left.
pub struct Library {
    pub header: PathBuf,
    pub shared: PathBuf,
    pub archive: PathBuf,
}

/// Builds the library once, in the profile and the target directory of this test and with what its TLS computes with.
pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let test = env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/c_abi");
        let target = profile.parent().expect("target/PROFILE");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "-p", "webserver-ffi", "--message-format=json"]).current_dir(ROOT);
        cargo.arg("--target-dir").arg(target).stderr(Stdio::inherit());
        if cfg!(not(feature = "aws-lc-rs")) {
            cargo.args(["--no-default-features", "--features", "ring"]);
        }
        match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") => {}
            Some(name) => {
                cargo.args(["--profile", name]);
            }
            None => panic!("no profile in {}", test.display()),
        }
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "cargo build -p webserver-ffi failed");
        let messages = String::from_utf8(output.stdout).unwrap();
        let script = messages
            .lines()
            .filter(|line| line.contains(r#""reason":"build-script-executed""#))
            .find(|line| line.contains("webserver-ffi"))
            .expect("cargo reports the build script of webserver-ffi");
        let out_dir =
            script.split_once(r#""out_dir":""#).and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
        Library {
            header: Path::new(out_dir).join("webserver.h"),
            shared: profile.join("libwebserver.so"),
            archive: profile.join("libwebserver.a"),
        }
    })
}

#[derive(Clone, Copy)]
pub enum Linkage {
    Shared,
    Static,
    /// Not at all: the program opens the library with dlopen, which finds the program's own functions before the C library's.
    Loaded,
}

/// A compiled C program in a folder of its own.
pub struct Program {
    folder: TempDir,
}

/// Compiles one C file as C99, warnings being errors.
pub fn compile(source: &str, linkage: Linkage) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"])
        .arg("-I")
        .arg(Path::new(ROOT).join("include"))
        .arg(Path::new(ROOT).join(source))
        .arg("-o")
        .arg(folder.path().join("program"));
    match linkage {
        Linkage::Shared => cc.arg(&library().shared).arg("-lpthread"),
        Linkage::Loaded => cc.args(["-rdynamic", "-ldl", "-lpthread"]),
        Linkage::Static => cc.arg(&library().archive).args(["-lgcc_s", "-lpthread", "-ldl", "-lm", "-lrt"]),
    };
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    Program { folder }
}

impl Program {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.path().join("program"));
        let libraries = library().shared.parent().expect("the library is in a folder");
        command.args(arguments).env("LD_LIBRARY_PATH", libraries).current_dir(self.folder.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished(Running::new(self.command(arguments)).finish())
    }
}

/// A program that has ended.
pub struct Finished(Output);

impl Finished {
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap_or_else(|| panic!("{}: {}", self.0.status, self.stderr()))
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn succeeds_silently(&self) {
        assert_eq!((self.code(), self.stderr().as_str()), (0, ""));
        assert_eq!(String::from_utf8_lossy(&self.0.stdout), "");
    }
}

/// A program that runs; killed when dropped.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    errors: Option<thread::JoinHandle<Vec<u8>>>,
    /// Keeps the executable's folder.
    _program: Option<Program>,
}

impl Running {
    pub fn new(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (output, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            text
        });
        Running { input: child.stdin.take(), child, lines, errors: Some(errors), _program: None }
    }

    /// Starts a program and keeps its folder.
    pub fn of(program: Program, arguments: &[&str]) -> Self {
        let mut running = Running::new(program.command(arguments));
        running._program = Some(program);
        running
    }

    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("input is open");
        writeln!(input, "{line}").unwrap();
    }

    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("no line: {}", self.last_words()),
        }
    }

    /// Closes standard input and waits for the end; the lines not yet read are its output.
    pub fn finish(&mut self) -> Output {
        self.input = None;
        let mut stdout = Vec::new();
        // The channel ends when the program closes its standard output.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => stdout.extend_from_slice(format!("{line}\n").as_bytes()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("hung: {}", self.last_words()),
            }
        }
        let status = self.child.wait().unwrap();
        let stderr = self.errors.take().map_or_else(Vec::new, |errors| errors.join().unwrap());
        Output { status, stdout, stderr }
    }

    pub fn last_words(&mut self) -> String {
        let _ = self.child.kill();
        let errors = self.errors.take().map_or_else(Vec::new, |errors| errors.join().unwrap());
        String::from_utf8_lossy(&errors).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `tests/c/host.c`, which obeys one command a line.
pub struct Host {
    program: Running,
}

/// Its answer: a status code and the rest of the line.
pub struct Reply {
    pub code: i32,
    pub rest: String,
}

impl Host {
    pub fn new() -> Self {
        Host::with(Linkage::Shared)
    }

    pub fn with(linkage: Linkage) -> Self {
        Host { program: Running::of(compile("tests/c/host.c", linkage), &[]) }
    }

    pub fn ask(&mut self, command: &str) -> Reply {
        self.program.say(command);
        let line = self.program.line();
        let (code, rest) = line.split_once(' ').unwrap_or((&line, ""));
        Reply { code: code.parse().unwrap(), rest: rest.to_owned() }
    }

    pub fn ok(&mut self, command: &str) -> Reply {
        let reply = self.ask(command);
        assert_eq!(reply.code, 0, "{command}: {}", reply.rest);
        reply
    }

    /// A new configuration in `slot`: one shard, a free port, the welcome page or `root`.
    pub fn configure(&mut self, slot: usize, root: Option<&Path>) {
        self.ok(&format!("new {slot}"));
        self.ok(&format!(
            r#"yaml {slot} {{ shards: 1, memory: {{ worker_connections: 64 }}, listen: [{{ address: "127.0.0.1:0" }}] }}"#
        ));
        if let Some(root) = root {
            self.ok(&format!("set {slot} root {}", root.display()));
        }
    }

    pub fn port(&mut self, server: usize, address: &str) -> u16 {
        u16::try_from(self.ok(&format!("port {server} {address}")).numbers()[0]).unwrap()
    }

    /// Until the figures of server 0 are as wanted.
    pub fn await_stats(&mut self, wanted: impl Fn(&[u64]) -> bool) {
        wait_until("the stats are as wanted", || {
            wanted(&self.ok(&format!("stats 0 {STATS_SIZE}")).numbers())
        });
    }
}

impl Reply {
    /// The leading numbers of the answer.
    pub fn numbers(&self) -> Vec<u64> {
        self.rest.split(' ').map_while(|word| word.parse().ok()).collect()
    }

    /// Checks the place of a configuration error in the fields and in the text, which names `what`.
    pub fn is_at(&self, line: u64, what: &str) {
        let place = self.numbers();
        assert_eq!(place[0], line, "{}", self.rest);
        assert!(place[1] > 0, "{}", self.rest);
        assert!(self.rest.contains(&format!(":{line}:{}: ", place[1])), "{}", self.rest);
        assert!(self.rest.contains(what), "{}", self.rest);
    }
}

/// Says that something was not tested, past the capture that hides what a passing test prints.
pub fn skipped(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "SKIPPED {what}");
}

/// A folder with an `index.html` of that content.
pub fn site(content: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), content).unwrap();
    folder
}

/// An HTTP response.
pub struct Answer {
    pub status: u16,
    /// Status line and fields, each ended, without the empty line.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of the first field with this name, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn get(port: u16, path: &str) -> Answer {
    ask(port, "GET", path, "", "")
}

/// One request on a connection of its own. `fields` are header fields, each ended.
pub fn ask(port: u16, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    ask_over(connect(port), method, target, fields, body)
}

/// The same over a connection that is there.
pub fn ask_over(
    mut stream: impl Read + Write,
    method: &str,
    target: &str,
    fields: &str,
    body: &str,
) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}{fields}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Answer { status, head: format!("{head}\r\n"), body: body.to_owned() }
}

/// Asks until it is so, where nothing tells when.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}
