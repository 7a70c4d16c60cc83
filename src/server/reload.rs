//! Another configuration for a running server: whatever can be refused is refused before any shard hears of it.

use std::sync::Arc;

use super::{Server, launch, lock};
use crate::{
    config::{Config, Settings},
    error::{Error, ErrorKind, Result},
    memory::Level,
    service::{Handlers, Site},
    shard::Message,
};

impl Server {
    /// Serves from another configuration from now on; all or nothing. Returns when every shard does. What is in
    /// progress ends as it began. The log gets a line for each key that has changed, as [`Settings::changes`] tells.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the key when something differs that cannot change while running; whatever
    /// the configuration, its folders or its log files are refused for; [`ErrorKind::Timeout`] when a shard hangs;
    /// [`ErrorKind::State`] in a drain and after a stop. The server then serves on as before.
    pub fn reload(&self, config: &Config) -> Result<()> {
        let handlers = lock(&self.settings).handlers.clone();
        self.reload_with(config, handlers)
    }

    /// Like [`Server::reload`], with other handlers too: routes and handlers are replaced together.
    pub fn reload_with(&self, config: &Config, handlers: Handlers) -> Result<()> {
        self.usable()?;
        if self.health.is_draining() {
            // A shard that has answered what it had is gone and would not say that it took the configuration.
            return Err(Error::new(ErrorKind::State, "the server is draining"));
        }
        let mut settings = config.resolve(&Server::host(self.options.binary))?;
        settings.take_sockets();
        let mut current = lock(&self.settings);
        unchanged(&current.settings, &settings)?;
        let site = Arc::new(Site::open(settings, handlers)?);
        let mut changes = current.settings.changes(&site.settings);
        if changes.is_empty() {
            changes.push(String::from("nothing has changed"));
        }
        let mut writer = lock(&self.writer);
        let plan = launch::log_plan(&site.settings, &self.options, &self.registry);
        let logs = writer.as_mut().map(|writer| writer.prepare(&plan)).transpose()?;
        // The last thing that may fail. A shard that is there takes over what it is sent: it has room for it now.
        if self.ask(|_, sender| Message::Present(sender)).is_none() {
            return Err(Error::new(
                ErrorKind::Timeout,
                "a shard does not answer; every shard goes on with the old configuration",
            ));
        }
        if let (Some(writer), Some(logs)) = (writer.as_mut(), logs) {
            writer.commit(logs);
        }
        self.admission.reload(&site.settings);
        self.budget.resize(site.settings.memory.budget_bytes);
        if self.budget.level() < Level::High {
            self.overflow.resize(site.settings.memory.buffer_pools);
        }
        // One that begins to hang now does so before it serves anything else, and will serve from the new one.
        let taken_over = self.ask(|index, sender| {
            let log = if index == 0 { changes.clone() } else { Vec::new() };
            Message::Reload(Arc::clone(&site), log, sender)
        });
        if let (Some(writer), Some(_)) = (writer.as_mut(), taken_over) {
            writer.finish();
        }
        let old = std::mem::replace(&mut *current, site);
        // Handlers that go with it may do anything when they are dropped: not under a lock.
        drop((writer, current));
        drop(old);
        Ok(())
    }
}

/// What a reload may not change, by the key that says it.
fn unchanged(old: &Settings, new: &Settings) -> Result<()> {
    let names = |settings: &Settings| -> Vec<String> {
        settings.listeners.iter().map(|listener| listener.name.clone()).collect()
    };
    let admin = |settings: &Settings| settings.admin.as_ref().map(|listener| listener.name.clone());
    let changed = if old.shards != new.shards {
        Some("shards")
    } else if old.pin_shards != new.pin_shards {
        Some("pin_shards")
    } else if names(old) != names(new) {
        Some("listen")
    } else if admin(old) != admin(new) {
        Some("admin.address")
    } else if old.memory.raise_nofile != new.memory.raise_nofile {
        Some("memory.raise_nofile")
    } else {
        None
    };
    match changed {
        None => Ok(()),
        Some(key) => Err(Error::new(
            ErrorKind::Config,
            format!("{key} cannot change while the server runs: restart it, or put the old value back"),
        )),
    }
}
