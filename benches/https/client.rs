//! One connection over TLS that asks and waits.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};

use super::{File, answer::Answer, server_name};
use crate::common::Outcome;

/// A connection whose handshake is complete. Dropping it closes it without close_notify.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    answer: Answer,
}

impl Client {
    /// Connects to `port` on this machine and completes the handshake. An answer may take 30 seconds.
    ///
    /// # Errors
    /// The connection is refused, or the handshake fails.
    pub fn connect(port: u16, config: &Arc<ClientConfig>) -> Outcome<Client> {
        let connected = || -> std::io::Result<Client> {
            let socket = TcpStream::connect(("127.0.0.1", port))?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(Duration::from_secs(30)))?;
            let tls = ClientConnection::new(Arc::clone(config), server_name());
            let mut stream = StreamOwned::new(tls.map_err(std::io::Error::other)?, socket);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            Ok(Client { stream, answer: Answer::default() })
        };
        connected().map_err(|error| format!("no connection over TLS: {error}"))
    }

    /// Whether the session was resumed.
    pub fn resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Asks for `file` and receives it, and with it the session's ticket.
    ///
    /// # Errors
    /// It came otherwise, or not at all.
    pub fn expect(&mut self, file: File) -> Outcome<()> {
        let failed = |error: std::io::Error| format!("no answer: {error}");
        self.stream.write_all(&file.request(false)).map_err(failed)?;
        let mut piece = [0; 65536];
        loop {
            let count = self.stream.read(&mut piece).map_err(failed)?;
            if count == 0 {
                return Err("the server closed the connection".to_owned());
            }
            if self.answer.take(&piece[..count], file)? {
                return Ok(());
            }
        }
    }

    /// Whether the session can be resumed: in TLS 1.3 that takes a ticket, which comes with the first answer.
    pub fn may_resume(&self) -> bool {
        self.stream.conn.protocol_version() == Some(ProtocolVersion::TLSv1_2)
            || self.stream.conn.tls13_tickets_received() > 0
    }

    /// Closes in order.
    ///
    /// # Errors
    /// The server has closed before.
    pub fn close(mut self) -> Outcome<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush().map_err(|error| format!("closed before: {error}"))
    }
}
