//! Another configuration for a running server: whatever can be refused is refused before any shard hears of it.

use std::{sync::Arc, time::Instant};

use super::{Server, certificates, launch, lock};
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
        changes.extend(certificates::renewed(&current, &site));
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
        // Before the budget, which wakes the thread that rotates them.
        self.ticket_keys.reload(&site.settings, Instant::now());
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
        certificates::publish(&site, &self.registry);
        if let Some(writer) = writer.as_ref() {
            certificates::warn(&site, writer.dispatch());
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
    let mut listeners = old.listeners.iter().zip(&new.listeners);
    let changed = if old.shards != new.shards {
        Some(String::from("shards"))
    } else if old.pin_shards != new.pin_shards {
        Some(String::from("pin_shards"))
    } else if names(old) != names(new) {
        Some(String::from("listen"))
    } else if let Some(index) = listeners.position(|(old, new)| old.tls.is_some() != new.tls.is_some()) {
        // What is inside may change; whether there is any is known to the connections.
        Some(format!("listen[{index}].tls"))
    } else if admin(old) != admin(new) {
        Some(String::from("admin.address"))
    } else if old.memory.raise_nofile != new.memory.raise_nofile {
        Some(String::from("memory.raise_nofile"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str) -> Settings {
        let mut config = Config::new();
        config.load_yaml(&format!("shards: 1\nlisten: [{listen}]")).unwrap();
        config.resolve(&Server::host(false)).unwrap()
    }

    #[test]
    fn a_listener_keeps_its_tls_or_stays_without() {
        let plain = "{ address: 127.0.0.1:1 }, { address: 127.0.0.1:2 }";
        let tls = "{ address: 127.0.0.1:1 }, { address: 127.0.0.1:2, tls: { certificates: { certificate: a, key: b } } }";
        let told = |old: &str, new: &str| {
            unchanged(&settings(old), &settings(new)).map_err(|error| (error.kind(), error.to_string()))
        };
        let refused =
            "listen[1].tls cannot change while the server runs: restart it, or put the old value back";
        let refused = Err((ErrorKind::Config, refused.to_owned()));
        assert_eq!(told(plain, tls), refused);
        assert_eq!(told(tls, plain), refused);
        assert_eq!(told(tls, tls), Ok(()));
        assert_eq!(told(tls, &tls.replace("key: b", "key: c")), Ok(()));
        assert_eq!(told(tls, &tls.replace("} }", "}, versions: tls1.3 }")), Ok(()));
    }
}
