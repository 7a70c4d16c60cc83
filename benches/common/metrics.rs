//! What a server of this project says about itself at its admin listener.

use super::{
    Outcome,
    load::{self, Client},
};

/// One answer of `/metrics`.
pub struct Figures(String);

impl Figures {
    /// Asks over a connection of its own.
    ///
    /// # Errors
    /// The listener does not answer.
    pub fn read(admin_port: u16) -> Outcome<Figures> {
        load::fetch(admin_port, PATH).map(|text| Figures::new(&text))
    }

    /// Asks over a connection that is kept.
    ///
    /// # Errors
    /// The listener does not answer; the connection is of no use then.
    pub fn ask(client: &mut Client) -> Outcome<Figures> {
        client.ask(PATH)?;
        client.receive().map(|text| Figures::new(&text))
    }

    fn new(text: &[u8]) -> Figures {
        Figures(String::from_utf8_lossy(text).into_owned())
    }

    /// The sum of the samples of a family, whatever their labels; 0 without any.
    pub fn sum(&self, name: &str) -> u64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    /// The sample of a family whose one label has this value.
    pub fn labelled(&self, name: &str, label: &str) -> u64 {
        let label = format!("\"{label}\"}}");
        self.samples(name).filter(|(labels, _)| labels.ends_with(&label)).map(|(_, value)| value).sum()
    }

    /// Connections of clients, idle or not.
    pub fn connections(&self) -> u64 {
        self.sum("webserver_connections_active") + self.sum("webserver_connections_idle")
    }

    fn samples<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, u64)> {
        let samples = self.0.lines().filter_map(move |line| line.strip_prefix(name));
        samples
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter_map(|rest| rest.rsplit_once(' '))
            .filter_map(|(labels, value)| Some((labels, value.parse().ok()?)))
    }
}

const PATH: &str = "/metrics";
