//! Sockets that listened before the server was started, and which listener of a configuration each is for.
//!
//! Pure: who hands them in has looked at them. Nothing is opened or asked here.

use std::{os::fd::OwnedFd, sync::Arc};

use super::settings::{Address, Listener, Tls};

/// Name of a socket that is for the admin listener.
pub const ADMIN: &str = "admin";

/// Who opened a socket: it decides which listener it is for, and what becomes of it when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program that the server lives in. A listener of its own, beside those that are configured.
    Host,
    /// A supervisor such as systemd. For the configured address that it is bound to, or an additional listener. It
    /// stays open when the server ends, and so does the file of a unix socket.
    Supervisor,
    /// The process that this one replaces. For the configured address that it was opened for, known by its name
    /// because port 0 is another each time, or that it is bound to. Without one it is closed.
    Predecessor,
}

/// A listening stream socket that was open before the server.
#[derive(Clone, Debug)]
pub struct OpenSocket {
    /// The address as the configuration of who opened it has it, or [`ADMIN`].
    pub name: String,
    /// What it is bound to; `None` for what no configuration can say, such as an abstract unix socket.
    pub address: Option<Address>,
    /// Who opened it.
    pub origin: Origin,
    /// The socket.
    pub socket: Arc<OwnedFd>,
    /// How a listener speaks TLS that is none of the configuration's own.
    pub tls: Option<Tls>,
}

impl OpenSocket {
    /// Several sockets of one address (`SO_REUSEPORT`) are for the same listener.
    fn goes_with(&self, other: &OpenSocket) -> bool {
        match (&self.address, &other.address) {
            (Some(mine), Some(theirs)) => self.origin == other.origin && mine.is_same_as(theirs),
            _ => self.name == other.name,
        }
    }

    fn is_for(&self, listener: &Listener, admin: bool) -> bool {
        let bound_there = self.address.as_ref().is_some_and(|address| address.is_same_as(&listener.address));
        match self.origin {
            Origin::Host => false,
            Origin::Supervisor | Origin::Predecessor if self.name == ADMIN => admin || bound_there,
            Origin::Supervisor => bound_there,
            Origin::Predecessor => bound_there || (!admin && self.name == listener.name),
        }
    }
}

impl Address {
    fn is_same_as(&self, other: &Address) -> bool {
        match (self, other) {
            // Without the scope of a link-local address, which getsockname(2) need not tell as it was written.
            (Address::Tcp(mine), Address::Tcp(theirs)) => {
                mine.ip() == theirs.ip() && mine.port() == theirs.port()
            }
            (Address::Unix(mine), Address::Unix(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

/// Nobody has said with these where to listen: a predecessor's say nothing about it.
pub(super) fn are_none_but_predecessors(sockets: &[OpenSocket]) -> bool {
    sockets.iter().all(|socket| socket.origin == Origin::Predecessor)
}

/// Moves the sockets that are for `listener` out of `free` and into it.
pub(super) fn pair(listener: &mut Listener, admin: bool, free: &mut Vec<OpenSocket>) {
    let Some(first) = free.iter().find(|socket| socket.is_for(listener, admin)).cloned() else { return };
    let (mine, others) = std::mem::take(free).into_iter().partition(|socket| socket.goes_with(&first));
    listener.sockets = mine;
    *free = others;
}

/// What is left when every configured listener has its sockets: listeners that were not configured.
pub(super) fn remaining(mut free: Vec<OpenSocket>) -> (Vec<Listener>, Option<Listener>) {
    let (mut listeners, mut admin) = (Vec::new(), None);
    free.retain(|socket| socket.origin != Origin::Predecessor);
    while let Some(first) = free.first().cloned() {
        let (sockets, others) = free.into_iter().partition(|socket| socket.goes_with(&first));
        free = others;
        let listener = Listener {
            name: first.name.clone(),
            address: Address::Inherited,
            connections: 0,
            tls: first.tls.clone(),
            sockets,
        };
        if first.origin == Origin::Supervisor && first.name == ADMIN && admin.is_none() {
            admin = Some(listener);
        } else {
            listeners.push(listener);
        }
    }
    (listeners, admin)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Host, Settings};

    fn socket(name: &str, bound: &str, origin: Origin) -> OpenSocket {
        let address = Listener::parse(bound, Path::new("/")).ok().map(|listener| listener.address);
        let any: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        OpenSocket { name: name.to_owned(), address, origin, socket: Arc::new(any), tls: None }
    }

    fn resolve(text: &str, sockets: Vec<OpenSocket>, binary: bool) -> Settings {
        let mut config = Config::new();
        if !text.is_empty() {
            config.load_yaml(text).unwrap();
        }
        config.inherit(sockets);
        let host =
            Host { cores: 1, nofile_soft: 1 << 20, nofile_hard: 1 << 20, memory_bytes: 1 << 33, binary };
        config.resolve(&host).unwrap()
    }

    /// Names of listeners with how many sockets each was given, the admin listener last.
    fn given(settings: &Settings) -> Vec<(&str, usize)> {
        let all = settings.listeners.iter().chain(&settings.admin);
        all.map(|listener| (listener.name.as_str(), listener.sockets.len())).collect()
    }

    #[test]
    fn a_supervisor_s_socket_stands_in_for_its_address_or_listens_beside_the_others() {
        use Origin::Supervisor;
        let text = "listen: [\"127.0.0.1:80\", \"unix:/run/a\"]\nadmin: { address: \"[::1]:90\" }";
        let sockets = vec![
            socket("127.0.0.1:80", "127.0.0.1:80", Supervisor),
            socket("unix:/run/b", "unix:/run/b", Supervisor),
            socket("[::1]:90", "[::1]:90", Supervisor),
            socket("127.0.0.1:80", "127.0.0.1:80", Supervisor),
        ];
        assert_eq!(
            given(&resolve(text, sockets, true)),
            [("127.0.0.1:80", 2), ("unix:/run/a", 0), ("unix:/run/b", 1), ("[::1]:90", 1)]
        );
        // By its name it is the admin listener wherever it is bound, also where none is configured.
        let admin = || vec![socket("admin", "127.0.0.1:91", Supervisor)];
        assert_eq!(given(&resolve("listen: [\"[::1]:1\"]", admin(), true)), [("[::1]:1", 0), ("admin", 1)]);
        assert_eq!(given(&resolve(text, admin(), true))[2], ("[::1]:90", 1));
        // Alone they are all there is; one that is the admin listener alone leaves the default address.
        let one = vec![socket("unix:/run/b", "unix:/run/b", Supervisor)];
        assert_eq!(given(&resolve("", one, true)), [("unix:/run/b", 1)]);
        assert_eq!(given(&resolve("", admin(), true)), [("127.0.0.1:8080", 0), ("admin", 1)]);
    }

    #[test]
    fn a_predecessor_s_socket_goes_to_the_address_it_was_opened_for_or_nowhere() {
        use Origin::Predecessor;
        let text = "listen: [\"127.0.0.1:0\", \"127.0.0.1:0\", \"127.0.0.1:70\"]\nadmin: { address: \"127.0.0.1:0\" }";
        let sockets = || {
            vec![
                socket("127.0.0.1:0", "127.0.0.1:1001", Predecessor),
                socket("127.0.0.1:0", "127.0.0.1:1001", Predecessor),
                socket("127.0.0.1:0", "127.0.0.1:1002", Predecessor),
                socket("0.0.0.0:60", "0.0.0.0:60", Predecessor),
                socket("admin", "127.0.0.1:1003", Predecessor),
            ]
        };
        let settings = resolve(text, sockets(), true);
        assert_eq!(
            given(&settings),
            [("127.0.0.1:0", 2), ("127.0.0.1:0", 1), ("127.0.0.1:70", 0), ("127.0.0.1:0", 1)]
        );
        assert_eq!(settings.admin.unwrap().sockets[0].name, "admin");
        assert_eq!(given(&resolve("listen: [\"[::1]:1\"]", sockets(), true)), [("[::1]:1", 0)]);
        // They say nothing about what is configured: without a configuration the defaults stay.
        let defaults = [("127.0.0.1:8080", 0), ("127.0.0.1:9090", 1)];
        assert_eq!(given(&resolve("", sockets(), true)), defaults);
    }

    #[test]
    fn a_host_s_socket_stands_in_for_nothing() {
        let host = vec![socket("127.0.0.1:80", "127.0.0.1:80", Origin::Host)];
        let settings = resolve("listen: [\"127.0.0.1:80\"]", host, false);
        assert_eq!(given(&settings), [("127.0.0.1:80", 0), ("127.0.0.1:80", 1)]);
    }
}
