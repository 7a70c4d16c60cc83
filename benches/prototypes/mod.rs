//! Servers that answer 13 bytes to anything, each made of one way to wait for sockets, to be compared with
//! each other and with `floor.c`. They parse heads (httparse) and do nothing else that a server must do.
//!
//! Not shared with the server: a prototype shows what a way of waiting costs before anything is built on it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    os::fd::{AsRawFd, FromRawFd, RawFd},
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};

use crate::common::quantile;

mod nested;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nHello, World!";

/// How a prototype waits for its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One glommio task and `TcpStream` a connection.
    Streams,
    /// An edge-triggered epoll set; the driver parks on its descriptor in glommio's reactor.
    Nested,
    /// The same set; while glommio has nothing outstanding the driver blocks in `epoll_wait` itself.
    Blocking,
}

/// What runs beside the sockets, and what glommio still has to finish.
#[derive(Default)]
struct Probes {
    /// Timers and reads that only glommio's reactor can finish.
    outstanding: Cell<usize>,
    read_us: RefCell<Vec<f64>>,
    timer_us: RefCell<Vec<f64>>,
}

/// Serves on a port of the kernel's choice, which it prints, until the process is ended. With `probe`, a file
/// of 1 MB or more, 4 KB direct reads of it and 1 ms timers run beside the sockets; `GET /probe` answers
/// `P50 P99 MAX` of the reads and of the timers since it was last asked, in microseconds.
///
/// # Errors
/// io_uring, the listener or the probe's file is refused.
pub fn serve(way: Way, probe: Option<PathBuf>) -> io::Result<()> {
    let executor = glommio::LocalExecutorBuilder::default().io_memory(1 << 20).make()?;
    executor.run(async move {
        let probes = Rc::new(Probes::default());
        if let Some(path) = probe {
            let file = glommio::io::DmaFile::open(path).await?;
            glommio::spawn_local(probe_reads(file, Rc::clone(&probes))).detach();
            glommio::spawn_local(probe_timers(Rc::clone(&probes))).detach();
        }
        match way {
            Way::Streams => serve_streams(probes).await,
            Way::Nested => nested::drive(probes, false).await,
            Way::Blocking => nested::drive(probes, true).await,
        }
    })
}

impl Probes {
    async fn outstanding<T>(&self, wait: impl Future<Output = T>) -> (T, f64) {
        self.outstanding.set(self.outstanding.get() + 1);
        let start = Instant::now();
        let output = wait.await;
        self.outstanding.set(self.outstanding.get() - 1);
        (output, start.elapsed().as_secs_f64() * 1e6)
    }

    fn report(&self) -> String {
        let mut text = String::new();
        for probe in [&self.read_us, &self.timer_us] {
            let mut figures = probe.take();
            figures.sort_by(f64::total_cmp);
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&figures, share));
            text.push_str(&format!("{p50:.0} {p99:.0} {max:.0} "));
        }
        text
    }
}

/// Reads 4 KB somewhere in `file`, waits 2 ms, and so on.
async fn probe_reads(file: glommio::io::DmaFile, probes: Rc<Probes>) {
    let pages = file.file_size().await.unwrap_or(0) / 4096;
    let mut page = 0_u64;
    loop {
        // Steps of a prime number of pages: no read-ahead of a disk helps.
        page = (page + 7919) % pages.max(1);
        let (read, us) = probes.outstanding(file.read_at_aligned(page * 4096, 4096)).await;
        if read.is_err() {
            return;
        }
        probes.read_us.borrow_mut().push(us);
        probes.outstanding(glommio::timer::sleep(Duration::from_millis(2))).await;
    }
}

async fn probe_timers(probes: Rc<Probes>) {
    loop {
        let ((), us) = probes.outstanding(glommio::timer::sleep(Duration::from_millis(1))).await;
        probes.timer_us.borrow_mut().push(us);
    }
}

/// Appends an answer to `output` for each head in `input`; false when `input` is not whole heads, which ends
/// the connection: wrk sends a request in one segment.
fn answer(mut input: &[u8], output: &mut Vec<u8>, probes: &Probes) -> bool {
    while !input.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = request.parse(input) else { return false };
        if request.path == Some("/probe") {
            let report = probes.report();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", report.len());
            output.extend_from_slice(head.as_bytes());
            output.extend_from_slice(report.as_bytes());
        } else {
            output.extend_from_slice(ANSWER);
        }
        input = &input[length..];
    }
    true
}

#[allow(clippy::print_stdout, reason = "the bench reads the port from here")]
fn announce(port: u16) {
    println!("{port}");
}

async fn serve_streams(probes: Rc<Probes>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(listener.local_addr()?.port());
    let scratch = Rc::new(RefCell::new(vec![0; 16384]));
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        glommio::spawn_local(converse(stream, Rc::clone(&scratch), Rc::clone(&probes))).detach();
    }
}

/// One connection: reads into the shared scratch and writes at once. Ends when the client does.
async fn converse(mut stream: TcpStream, scratch: Rc<RefCell<Vec<u8>>>, probes: Rc<Probes>) {
    let mut output = Vec::new();
    loop {
        output.clear();
        let open = poll_fn(|cx| {
            let mut input = scratch.borrow_mut();
            match Pin::new(&mut stream).poll_read(cx, &mut input) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    Poll::Ready(answer(&input[..count], &mut output, &probes))
                }
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        if !open.await {
            return;
        }
        let sent = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &output)).await;
        if !sent.is_ok_and(|count| count == output.len()) {
            return;
        }
    }
}

/// Waits in glommio's reactor until `descriptor` is readable. glommio has no such call, but a stream polls its
/// descriptor as soon as it is made, and its first `poll_read` waits for that poll and reads nothing.
async fn park(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: dup takes any number and touches no memory.
    let copy = unsafe { libc::dup(descriptor) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` is open and owned by nothing else; the stream closes it.
    let mut stream = unsafe { TcpStream::from_raw_fd(copy) };
    debug_assert_eq!(stream.as_raw_fd(), copy);
    let mut armed = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut armed, true) {
            return Poll::Ready(());
        }
        Pin::new(&mut stream).poll_read(cx, &mut [0]).map(|_| ())
    })
    .await;
    Ok(())
}
