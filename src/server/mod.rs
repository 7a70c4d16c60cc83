//! A running server: started from a configuration, reloaded, drained, stopped.

/// A running server.
#[derive(Debug)]
pub struct Server;
