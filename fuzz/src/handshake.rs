//! What a client sends before there are keys: `tls::Session`. The input is a number in its first line, how many bytes are
//! received at once, and then those bytes.
//!
//! However they are cut they come to the same, no plaintext comes of them, and what is asked of the session meanwhile does
//! no harm.

use std::{sync::Arc, thread_local};

use super::{first_line, number};
use webserver::{
    config::{Certificate, Pem, Tls, TlsSessionCache, TlsVersions},
    memory::Budget,
    metrics::{ServerMemory, ServerTls, ShardMetrics, TlsFailure},
    tls::{Acceptor, Material, Output, Resumption, Session, SharedSessions, TicketKeys, self_signed},
};

/// Bytes of a flight and an alert: there is one certificate.
const OUTPUT_BYTES_MAX: usize = 8 << 10;

/// What bytes of a client come to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    /// Why the session ended, if it did.
    failure: Option<TlsFailure>,
    /// Bytes that were used, if it goes on.
    used: Option<usize>,
    /// Whether there was something to send.
    answered: bool,
}

thread_local! {
    static ACCEPTOR: Arc<Acceptor> = acceptor();
}

/// Checks one input; whether a hello was answered with more than an alert.
pub fn check(input: &[u8]) -> bool {
    let (line, bytes) = first_line(input);
    let piece_bytes = usize::try_from(number(line)).unwrap_or(usize::MAX).clamp(1, 1 << 20);
    let whole = came(bytes, bytes.len().max(1));
    let cut = came(bytes, piece_bytes);
    assert_eq!(cut, whole, "in pieces of {piece_bytes}");
    whole.answered && whole.failure.is_none()
}

fn came(bytes: &[u8], piece_bytes: usize) -> Came {
    let mut session = ACCEPTOR.with(|acceptor| Session::new(acceptor.config()).unwrap());
    let (mut kept, mut output, mut used, mut answered) = (Vec::new(), Output::default(), 0, false);
    for piece in bytes.chunks(piece_bytes) {
        kept.extend_from_slice(piece);
        let nothing = |plain: &[u8]| panic!("{plain:?} before there are keys");
        let fed = session.feed(&mut kept, nothing, &mut output);
        assert!(output.filled().len() <= OUTPUT_BYTES_MAX);
        answered |= !output.is_empty();
        output.clear();
        if fed.failure.is_some() {
            return Came { failure: fed.failure, used: None, answered };
        }
        kept.drain(..fed.used);
        used += fed.used;
        assert!(!session.is_established());
        // It cannot send yet, and says so.
        assert!(session.seal(&mut kept, b"too early", &mut output).is_err());
        session.say_goodbye(&mut kept, &mut output);
        assert!(output.is_empty());
    }
    Came { failure: None, used: Some(used), answered }
}

/// With a certificate that was made for it.
fn acceptor() -> Arc<Acceptor> {
    let (chain, key) = self_signed(&["localhost".to_owned()]).unwrap();
    let tls = Tls {
        certificates: vec![Certificate {
            chain: Pem::Text(chain.into()),
            key: Pem::Text(key.into()),
            ocsp: None,
        }],
        versions: TlsVersions::default(),
        client_auth: None,
        ticket_key_file: None,
    };
    let metrics = Arc::new(ShardMetrics::new(0));
    let budget = Budget::new(64 << 20, Arc::new(ServerMemory::default()), vec![Arc::clone(&metrics)]);
    let settings = TlsSessionCache::default();
    let sessions = SharedSessions::new(1, &settings, &Arc::new(ServerTls::default()), Box::new(|_| ()));
    let keys = Arc::new(TicketKeys::generate().unwrap());
    let resumption = Resumption::new(0, &settings, keys, &sessions, &budget, &metrics);
    Material::load(&tls).unwrap().acceptor(&resumption).unwrap()
}
