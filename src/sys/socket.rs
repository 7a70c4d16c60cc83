//! Sockets: listening, accepting, receiving, sending. All non-blocking and close-on-exec.

use std::{
    fs::File,
    io,
    marker::PhantomData,
    mem::{MaybeUninit, offset_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use super::{check, check_size, mapped::FileMapping};

/// The address of a connected socket's peer, which need not be said.
const NO_ADDRESS: *const libc::sockaddr = std::ptr::null();

/// Who is at the other end. 20 bytes, so that it fits a connection slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// IPv4 address and port.
    V4([u8; 4], u16),
    /// IPv6 address and port.
    V6([u8; 16], u16),
    /// A process of this machine, over a unix socket.
    Unix,
}

impl Peer {
    /// The address without port; `None` for a unix socket. IPv4 in IPv6 is shown as IPv4.
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Peer::V4(octets, _) => Some(IpAddr::V4(Ipv4Addr::from(octets))),
            Peer::V6(octets, _) => Some(Ipv6Addr::from(octets).to_canonical()),
            Peer::Unix => None,
        }
    }

    /// The port; `None` for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match *self {
            Peer::V4(_, port) | Peer::V6(_, port) => Some(port),
            Peer::Unix => None,
        }
    }
}

/// Whether a listener shares its port with the other shards' listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Fails with `EADDRINUSE` when anybody has the address.
    Exclusive,
    /// `SO_REUSEPORT`: the kernel spreads connections over all sockets with it.
    Shared,
}

/// Binds a TCP socket. It does not accept before [`listen`].
///
/// IPv6 sockets take IPv6 alone. `TCP_NODELAY` is set here because accepted sockets inherit it.
pub fn bind_tcp(address: SocketAddr, port: Port) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = stream_socket(family)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if port == Port::Shared {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    match address {
        SocketAddr::V4(address) => {
            let raw = libc::sockaddr_in {
                sin_family: family_number(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            bind(&socket, &raw)?;
        }
        SocketAddr::V6(address) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: family_number(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            bind(&socket, &raw)?;
        }
    }
    Ok(socket)
}

/// Binds a unix stream socket to `path`, which must not exist and must be shorter than 108 bytes.
pub fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let socket = stream_socket(libc::AF_UNIX)?;
    let (raw, length) = unix_address(path)?;
    // SAFETY: the address lives for the call and `length` covers its used part only.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), length) })?;
    Ok(socket)
}

/// Whether somebody accepts connections at a unix socket: `ECONNREFUSED` says that the file is stale.
pub fn unix_is_served(path: &Path) -> io::Result<bool> {
    let socket = stream_socket(libc::AF_UNIX)?;
    let (raw, length) = unix_address(path)?;
    // SAFETY: the address lives for the call and `length` covers its used part only.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), length) }) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(false),
            Some(libc::EAGAIN) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Begins to accept; `backlog` is capped by the kernel (`net.core.somaxconn`).
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointer is passed.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(())
}

/// Whether the descriptor is a stream socket that listens, as one handed over by the host must be.
pub fn is_listening(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0
        && option(socket, libc::SOL_SOCKET, libc::SO_TYPE)? == libc::SOCK_STREAM)
}

/// Makes a socket that somebody else opened non-blocking, close-on-exec and, for TCP, without Nagle's delay.
pub fn adopt(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointer is passed.
    let flags = check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: no pointer is passed.
    check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: no pointer is passed.
    check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    if !matches!(local_address(socket)?, Local::Unix) {
        set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    Ok(())
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// TCP; the port is the real one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix,
}

/// The address a socket is bound to (getsockname(2)).
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<Local> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = storage_length();
    // SAFETY: the storage is large enough for every address family and `length` says so.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), storage.as_mut_ptr().cast(), &raw mut length) })?;
    // SAFETY: zeroed, then filled by the kernel: any bytes are valid integers.
    let storage = unsafe { storage.assume_init() };
    Ok(match peer(&storage) {
        Peer::V4(octets, port) => Local::Tcp(SocketAddrV4::new(octets.into(), port).into()),
        Peer::V6(octets, port) => Local::Tcp(SocketAddrV6::new(octets.into(), port, 0, 0).into()),
        Peer::Unix => Local::Unix,
    })
}

/// The path a unix socket is bound to; `None` where it has none, as an abstract one.
pub fn unix_path(socket: BorrowedFd<'_>) -> io::Result<Option<PathBuf>> {
    let address = UnixListener::from(duplicate(socket)?).local_addr()?;
    Ok(address.as_pathname().map(Path::to_path_buf))
}

/// Whether other sockets with `SO_REUSEPORT` can be bound to the same port.
pub fn shares_port(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT)? != 0)
}

/// Tells a socket from others, whatever number of descriptors there are for it.
pub fn inode(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(File::from(duplicate(socket)?).metadata()?.ino())
}

/// Takes one connection off the queue. `EAGAIN` when there is none; `ECONNABORTED` and the network errors of
/// accept(2) concern one connection only; `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM` the process.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = storage_length();
    // SAFETY: the storage is large enough for every address family and `length` says so.
    let fd = check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            storage.as_mut_ptr().cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zeroed, then filled by the kernel: any bytes are valid integers. An unnamed unix peer leaves zeros.
    let peer = peer(unsafe { storage.assume_init_ref() });
    Ok((socket, peer))
}

/// Receives what is there; 0 is the end of the stream. `EAGAIN` when there is nothing.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer is good for `buffer.len()` bytes.
    check_size(unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
            0,
            NO_ADDRESS,
            NO_ADDRESS,
        )
    })
}

/// Sends bytes without ever raising `SIGPIPE`. `more` says that others follow at once (`MSG_MORE`).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    // SAFETY: the pointer is good for `bytes.len()` bytes.
    check_size(unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
            send_flags(more),
            NO_ADDRESS,
            0,
        )
    })
}

/// Pieces sent by one call.
pub const PIECES_MAX: usize = 32;

/// Pieces of memory and of mapped files, borrowed until they are sent together.
#[derive(Debug)]
pub struct Pieces<'b> {
    pieces: [libc::iovec; PIECES_MAX],
    count: usize,
    borrowed: PhantomData<&'b [u8]>,
}

impl<'b> Pieces<'b> {
    /// No piece.
    pub fn empty() -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Pieces { pieces: [none; PIECES_MAX], count: 0, borrowed: PhantomData }
    }

    /// Adds bytes. One piece more than [`PIECES_MAX`] is left out: the next call sends it.
    pub fn push(&mut self, bytes: &'b [u8]) {
        self.add(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }

    /// Adds a part of a mapped file, which the kernel alone reads.
    pub fn push_mapped(&mut self, mapping: &'b FileMapping, range: Range<usize>) {
        self.add(mapping.piece(range));
    }

    fn add(&mut self, piece: libc::iovec) {
        if let Some(free) = self.pieces.get_mut(self.count) {
            *free = piece;
            self.count += 1;
        }
    }
}

/// Sends several pieces in one call: `writev` with the flags of [`send`] (sendmsg(2)).
///
/// Fails with `EFAULT` when the first byte to be sent lies in a page that a mapped file does not have any more.
pub fn send_pieces(socket: BorrowedFd<'_>, pieces: &Pieces<'_>, more: bool) -> io::Result<usize> {
    // SAFETY: a msghdr is plain integers and pointers, for which zeros mean "absent".
    let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    message.msg_iov = pieces.pieces.as_ptr().cast_mut();
    message.msg_iovlen = pieces.count;
    // SAFETY: the message lives for the call and so does what its pieces borrow; the call only reads through them, and
    // the kernel checks each address.
    check_size(unsafe {
        libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), &raw const message, send_flags(more))
    })
}

/// Says that no more will be sent (a TCP FIN); what the peer sends is still received.
pub fn finish_sending(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointer is passed.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) })?;
    Ok(())
}

/// Bytes sent that the peer has not acknowledged, or over a unix socket not read (`SIOCOUTQ`, tcp(7)).
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: this request writes one int, which lives for the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Bytes that the socket takes before it is full, headers and all (`SO_MEMINFO`, Linux 4.12); 0 when it cannot tell.
pub fn send_room(socket: BorrowedFd<'_>) -> usize {
    /// As `include/uapi/linux/sock_diag.h` numbers the figures.
    const SEND_BUFFER: usize = 3;
    const SEND_QUEUED: usize = 5;
    let mut figures = [0_u32; 9];
    let mut length = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the kernel writes up to `length` bytes to `figures`, which live for the call.
    let asked = check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut length,
        )
    });
    asked.map_or(0, |_| figures[SEND_BUFFER].saturating_sub(figures[SEND_QUEUED]) as usize)
}

/// Another descriptor for the same open file (`F_DUPFD_CLOEXEC`).
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// A spare descriptor, to be given up when the process has none left for a connection.
pub fn spare_descriptor() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

fn send_flags(more: bool) -> libc::c_int {
    libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 }
}

fn stream_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointer is passed.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = length_of::<libc::c_int>();
    // SAFETY: the value lives for the call and has the size that is passed.
    check(unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length)
    })?;
    Ok(())
}

fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = length_of::<libc::c_int>();
    // SAFETY: the value lives for the call and has the size that is passed.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    })?;
    Ok(value)
}

fn bind<A>(socket: &OwnedFd, address: &A) -> io::Result<()> {
    // SAFETY: the address lives for the call and has the size that is passed.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), length_of::<A>()) })?;
    Ok(())
}

fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    let mut raw = libc::sockaddr_un { sun_family: family_number(libc::AF_UNIX), sun_path: [0; 108] };
    if bytes.is_empty() || bytes.len() >= raw.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (slot, &byte) in raw.sun_path.iter_mut().zip(bytes) {
        *slot = byte.cast_signed();
    }
    let length = offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
    Ok((raw, libc::socklen_t::try_from(length).unwrap_or(0)))
}

/// Reads the family, and then only the bytes that this family has.
fn peer(storage: &libc::sockaddr_storage) -> Peer {
    let start = std::ptr::from_ref(storage);
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in here; the storage is aligned for it.
            let address = unsafe { &*start.cast::<libc::sockaddr_in>() };
            Peer::V4(address.sin_addr.s_addr.to_ne_bytes(), u16::from_be(address.sin_port))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6 here; the storage is aligned for it.
            let address = unsafe { &*start.cast::<libc::sockaddr_in6>() };
            Peer::V6(address.sin6_addr.s6_addr, u16::from_be(address.sin6_port))
        }
        _ => Peer::Unix,
    }
}

fn family_number(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

fn storage_length() -> libc::socklen_t {
    length_of::<libc::sockaddr_storage>()
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_taken_address_is_refused_to_a_plain_bind() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap(), Port::Shared).unwrap();
        listen(first.as_fd(), 16).unwrap();
        let Local::Tcp(address) = local_address(first.as_fd()).unwrap() else { panic!("not TCP") };
        let error = bind_tcp(address, Port::Exclusive).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        bind_tcp(address, Port::Shared).unwrap();
    }

    #[test]
    fn accepts_over_v4_v6_and_unix() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = bind_tcp(address.parse().unwrap(), Port::Exclusive).unwrap();
            listen(listener.as_fd(), 16).unwrap();
            let Local::Tcp(address) = local_address(listener.as_fd()).unwrap() else { panic!("not TCP") };
            let client = std::net::TcpStream::connect(address).unwrap();
            let (_, peer) = accept(listener.as_fd()).unwrap();
            assert_eq!(peer.ip(), Some(client.local_addr().unwrap().ip()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = bind_unix(&path).unwrap();
        assert!(!unix_is_served(&path).unwrap());
        listen(listener.as_fd(), 16).unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let (socket, peer) = accept(listener.as_fd()).unwrap();
        assert_eq!(peer, Peer::Unix);
        let mut pieces = Pieces::empty();
        pieces.push(b"he");
        pieces.push(b"llo");
        assert_eq!(send_pieces(socket.as_fd(), &pieces, false).unwrap(), 5);
        let mut text = [0; 5];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        client.write_all(b"x").unwrap();
        assert_eq!(receive(socket.as_fd(), &mut text).unwrap(), 1);
        assert!(unix_is_served(&path).unwrap());
        drop(listener);
        assert!(!unix_is_served(&path).unwrap());
    }

    #[test]
    fn tells_what_the_peer_has_not_got() {
        let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(unacknowledged_bytes(one.as_fd()).unwrap(), 0);
        send(one.as_fd(), b"hello", false).unwrap();
        assert!(unacknowledged_bytes(one.as_fd()).unwrap() > 0);
        other.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unacknowledged_bytes(one.as_fd()).unwrap(), 0);
    }

    #[test]
    fn tells_how_much_a_socket_takes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        assert!(send_room(stream.as_fd()) > 0);
        while send(stream.as_fd(), &[0; 64 << 10], false).is_ok() {}
        assert_eq!(send_room(stream.as_fd()), 0);
    }

    #[test]
    fn a_peer_fits_a_slot() {
        assert!(size_of::<Peer>() <= 20);
    }
}
