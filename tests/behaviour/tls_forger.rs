//! Records made by hand: a client that sends whatever it likes with keys from an ordinary handshake.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::aead;
#[cfg(not(feature = "aws-lc-rs"))]
use ring::aead;
use rustls::{CipherSuite, ConnectionTrafficSecrets, SupportedProtocolVersion, version::TLS13};

use crate::https::Https;

pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// One direction's keys.
struct Keys {
    key: aead::LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

/// A client after its handshake.
pub struct Forger {
    pub socket: TcpStream,
    write: Keys,
    read: Keys,
    is_tls13: bool,
}

/// A record as it is before there are keys.
pub fn plain_record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &length[..], payload].concat()
}

impl Forger {
    pub fn connect(server: &Https, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        // In both versions nonces of this cipher are made alike.
        let suites = [
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        let mut connector = server.dialer().versions(versions).suites(&suites).connector();
        Arc::get_mut(&mut connector.config).unwrap().enable_secret_extraction = true;
        let stream = connector.connect(server.address()).stream;
        let secrets = stream.tls.dangerous_extract_secrets().unwrap();
        let is_tls13 = versions == [&TLS13];
        Forger { socket: stream.socket, write: Keys::new(secrets.tx), read: Keys::new(secrets.rx), is_tls13 }
    }

    /// An encrypted record.
    pub fn record(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut sealed = payload.to_vec();
        if self.is_tls13 {
            sealed.push(kind);
        }
        let length = u16::try_from(sealed.len() + aead::CHACHA20_POLY1305.tag_len()).unwrap();
        let mut record = vec![if self.is_tls13 { DATA } else { kind }, 3, 3];
        record.extend(length.to_be_bytes());
        let aad = self.aad(&record, &self.write, sealed.len());
        let nonce = self.write.next_nonce();
        self.write.key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut sealed).unwrap();
        record.extend(sealed);
        record
    }

    pub fn send(&mut self, kind: u8, payload: &[u8]) {
        let record = self.record(kind, payload);
        self.socket.write_all(&record).unwrap();
    }

    /// Sends until the server takes no more, and at most so often.
    pub fn flood(&mut self, kind: u8, payload: &[u8], times: usize) {
        for _ in 0..times {
            let record = self.record(kind, payload);
            if self.socket.write_all(&record).is_err() {
                return;
            }
        }
    }

    /// The next record's type and content; `None` at the end of the stream.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head).ok()?;
        let mut sealed = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        self.socket.read_exact(&mut sealed).ok()?;
        let plain_bytes = sealed.len() - aead::CHACHA20_POLY1305.tag_len();
        let aad = self.aad(&head, &self.read, plain_bytes);
        let nonce = self.read.next_nonce();
        self.read.key.open_in_place(nonce, aead::Aad::from(aad), &mut sealed).unwrap();
        sealed.truncate(plain_bytes);
        let kind = if self.is_tls13 { sealed.pop().unwrap() } else { head[0] };
        Some((kind, sealed))
    }

    /// The next record that is not a ticket.
    pub fn receive_beyond_tickets(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.receive() {
                Some((HANDSHAKE, _)) => {}
                other => return other,
            }
        }
    }

    /// The alert with which the server ends the connection, if it sends one: its description.
    pub fn last_alert(&mut self) -> Option<u8> {
        let mut last = None;
        while let Some((kind, content)) = self.receive() {
            last = (kind == ALERT).then(|| content[1]);
        }
        last
    }

    /// What is authenticated beside the content: RFC 8446 5.2, RFC 5246 6.2.3.3.
    fn aad(&self, head: &[u8], keys: &Keys, plain_bytes: usize) -> Vec<u8> {
        if self.is_tls13 {
            return head.to_vec();
        }
        let length = u16::try_from(plain_bytes).unwrap().to_be_bytes();
        [&keys.sequence.to_be_bytes(), &head[..3], &length[..]].concat()
    }
}

impl Keys {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } = secrets else {
            panic!("another cipher")
        };
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key.as_ref()).unwrap();
        Keys { key: aead::LessSafeKey::new(key), iv: iv.as_ref().try_into().unwrap(), sequence }
    }

    fn next_nonce(&mut self) -> aead::Nonce {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        self.sequence += 1;
        aead::Nonce::assume_unique_for_key(nonce)
    }
}
