//! The connections that hold most bytes, for the host.

use std::{sync::mpsc, time::Instant};

use super::{Server, lock};
use crate::{
    error::{Error, ErrorKind, Result},
    service::CONNECTIONS_MAX,
    shard::{self, Answer},
};

impl Server {
    /// The `limit` connections that hold most bytes, from 1 to 1,000, as the same JSON that the admin listener serves.
    /// Blocks until every shard has answered, for a second at most; a shard that has not is left out and named.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for another limit; [`ErrorKind::State`] after a stop, and on one of the server's own
    /// threads: in a handler, for instance, whose shard could not answer.
    pub fn largest_connections(&self, limit: usize) -> Result<String> {
        self.usable()?;
        if !(1..=CONNECTIONS_MAX).contains(&limit) {
            return Err(Error::new(ErrorKind::Invalid, "the limit is from 1 to 1000"));
        }
        if self.is_own_thread() {
            return Err(Error::new(ErrorKind::State, "a thread of the server cannot wait for its shards"));
        }
        let (sender, given) = mpsc::channel();
        for (index, shard) in self.shards.iter().enumerate() {
            let sender = sender.clone();
            // Whoever asked may have given up waiting.
            Answer::new(move |found| drop(sender.send((index, found)))).ask(shard, limit);
        }
        drop(sender);
        let deadline = Instant::now() + shard::CENSUS_DEADLINE;
        let mut answers = vec![None; self.shards.len()];
        // Ends at the deadline, or when nobody is left who could answer.
        while let Ok((index, found)) = given.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            answers[index] = Some(found);
        }
        let listeners = shard::listener_names(&lock(&self.settings).settings);
        Ok(shard::render_holdings(&answers, limit, &listeners))
    }
}
