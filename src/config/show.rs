//! The effective configuration as YAML, as `webserver check` prints it.
//!
//! Loading what is printed gives the same settings again. Inherited sockets and the welcome page have no
//! written form; they appear as comments. PEM text is not repeated, for it may be a private key: what stands in its place
//! is refused where it is loaded.

mod tls;

use std::fmt::{Display, Write};

use super::{
    settings::{AccessFormat, Action, Address, Cors, Files, Level, Listener, LogPath, Route, Settings},
    sizes::TIER_BYTES,
    units::{show_size, show_time},
};

impl Settings {
    /// Everything, defaults included, as YAML that loads to the same settings. Paths are absolute.
    pub fn to_yaml(&self) -> String {
        let mut out = String::with_capacity(2048);
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "shards: {}", self.shards)?;
        writeln!(out, "pin_shards: {}", self.pin_shards)?;
        write_listeners(out, &self.listeners)?;
        match &self.admin {
            Some(admin) if matches!(admin.address, Address::Inherited) => {
                writeln!(out, "# admin: the inherited socket {}", quote(&admin.name))?;
            }
            Some(admin) => writeln!(out, "admin:\n  address: {}", quote(&written(admin)))?,
            None => {}
        }
        write_routes(out, &self.routes)?;
        self.write_memory(out)?;
        let times = &self.timeouts;
        writeln!(
            out,
            "timeouts:\n  handshake: {}\n  header: {}\n  body: {}\n  write: {}\n  idle: {}\n  drain: {}",
            show_time(times.handshake),
            show_time(times.header),
            show_time(times.body),
            show_time(times.write),
            show_time(times.idle),
            show_time(times.drain),
        )?;
        let limits = &self.limits;
        writeln!(
            out,
            "limits:\n  header_bytes: {}\n  headers: {}\n  target_bytes: {}\n  body_bytes: {}\n  \
             requests_per_connection: {}\n  connections_per_ip: {}\n  requests_per_ip: {}\n  \
             requests_per_ip_burst: {}\n  handshakes: {}",
            size(limits.header_bytes),
            limits.headers,
            size(limits.target_bytes),
            show_size(limits.body_bytes),
            limits.requests_per_connection,
            limits.connections_per_ip,
            limits.requests_per_ip,
            limits.requests_per_ip_burst,
            limits.handshakes,
        )?;
        let exempt: Vec<String> = limits.exempt.iter().map(|network| quote(&network.to_string())).collect();
        writeln!(out, "  exempt: [{}]", exempt.join(", "))?;
        if let Some(log) = &self.access_log {
            let format = match log.format {
                AccessFormat::Combined => "combined",
                AccessFormat::Json => "json",
            };
            let path = log_path(&log.path);
            writeln!(out, "access_log:\n  path: {path}\n  format: {format}\n  sample: {}", log.sample)?;
        }
        writeln!(out, "log:\n  level: {}\n  format: text", level(self.log.level))?;
        if let Some(path) = &self.log.path {
            writeln!(out, "  path: {}", log_path(path))?;
        }
        Ok(())
    }

    fn write_memory(&self, out: &mut String) -> std::fmt::Result {
        let memory = &self.memory;
        writeln!(
            out,
            "memory:\n  profile: {}\n  budget: {}\n  worker_connections: {}\n  buffer_pools:",
            memory.profile.name(),
            size(memory.budget_bytes),
            memory.worker_connections
        )?;
        let counts = memory.buffer_pools.counts().into_iter().zip(memory.buffer_pools.global_counts());
        for ((tier, bytes), (count, global)) in
            ["small", "medium", "large"].iter().zip(TIER_BYTES).zip(counts)
        {
            writeln!(out, "    {tier}: {{ count: {count}, size: {}, global: {global} }}", size(bytes))?;
        }
        let files = &memory.open_file_cache;
        writeln!(
            out,
            "  open_file_cache:\n    entries: {}\n    min_uses: {}\n    inactive: {}\n    valid: {}\n    errors: {}",
            files.entries,
            files.min_uses,
            show_time(files.inactive),
            show_time(files.valid),
            files.errors,
        )?;
        let cache = &memory.response_cache;
        writeln!(
            out,
            "  response_cache: {{ size: {}, static: {}, proxy: {}, max_object: {}, high: {}, low: {} }}",
            size(cache.size_bytes),
            size(cache.static_bytes),
            size(cache.proxy_bytes),
            size(cache.object_bytes_max),
            cache.high_percent,
            cache.low_percent,
        )?;
        let (file, total) = (show_size(memory.mmap.file_bytes_max), size(memory.mmap.total_bytes_max));
        writeln!(out, "  mmap: {{ max_file: {file}, max_total: {total} }}")?;
        let sessions = &memory.tls_session_cache;
        writeln!(
            out,
            "  tls_session_cache: {{ size: {}, lifetime: {}, tickets: {} }}",
            size(sessions.size_bytes),
            show_time(sessions.lifetime),
            sessions.tickets,
        )?;
        writeln!(out, "  raise_nofile: {}", memory.raise_nofile)
    }
}

fn write_listeners(out: &mut String, listeners: &[Listener]) -> std::fmt::Result {
    let (inherited, written_ones): (Vec<_>, Vec<_>) =
        listeners.iter().partition(|listener| matches!(listener.address, Address::Inherited));
    if !written_ones.is_empty() {
        writeln!(out, "listen:")?;
    }
    for listener in written_ones {
        writeln!(out, "  - address: {}", quote(&written(listener)))?;
        writeln!(out, "    connections: {}", listener.connections)?;
        if let Some(tls) = &listener.tls {
            tls::write_tls(out, tls)?;
        }
    }
    for listener in inherited {
        writeln!(out, "# listening too: the inherited socket {}", quote(&listener.name))?;
    }
    Ok(())
}

/// As it was written, but a unix socket's path is absolute: the text may be loaded from elsewhere.
fn written(listener: &Listener) -> String {
    match &listener.address {
        Address::Unix(path) => format!("unix:{}", path.display()),
        _ => listener.name.clone(),
    }
}

fn write_routes(out: &mut String, routes: &[Route]) -> std::fmt::Result {
    let welcome = |route: &Route| matches!(route.action, Action::Welcome);
    if routes.iter().all(welcome) {
        return writeln!(out, "# routes: none, the built-in welcome page answers");
    }
    writeln!(out, "routes:")?;
    for route in routes.iter().filter(|route| !welcome(route)) {
        writeln!(out, "  - path: {}", quote(&route.path))?;
        match route.hosts.as_slice() {
            [] => {}
            [host] => writeln!(out, "    host: {}", quote(host))?,
            hosts => write_list(out, "    host", hosts)?,
        }
        match &route.action {
            Action::Files(files) => {
                writeln!(out, "    root: {}", quote(&files.root.display().to_string()))?;
                write_list(out, "    index", &files.index)?;
                writeln!(out, "    dotfiles: {}", files.dotfiles)?;
                let codings: Vec<&str> = files.precompressed.iter().map(|coding| coding.name()).collect();
                writeln!(out, "    precompressed: [{}]", codings.join(", "))?;
                write_map(out, "types", &mut files.types.iter())?;
                write_files(out, files)?;
            }
            Action::Redirect(redirect) => {
                writeln!(
                    out,
                    "    redirect: {{ to: {}, status: {} }}",
                    quote(&redirect.to),
                    redirect.status
                )?;
            }
            Action::Welcome => {}
        }
        write_map(out, "headers", &mut route.headers.iter().map(|(name, value)| (name, value)))?;
        if !route.methods.is_empty() {
            write_list(out, "    methods", &route.methods)?;
        }
        if let Some(cors) = &route.cors {
            write_cors(out, cors)?;
        }
        tls::write_route(out, route)?;
    }
    Ok(())
}

/// What a route that serves files does beside serving them.
fn write_files(out: &mut String, files: &Files) -> std::fmt::Result {
    writeln!(out, "    listing: {}\n    canonical: {}", files.listing, files.canonical)?;
    if let Some(fallback) = &files.fallback {
        writeln!(out, "    fallback: {}", quote(fallback))?;
    }
    write_map(out, "error_pages", &mut files.error_pages.iter())?;
    for (index, rule) in files.cache_control.iter().enumerate() {
        if index == 0 {
            writeln!(out, "    cache_control:")?;
        }
        writeln!(out, "      - pattern: {}", quote(&rule.pattern))?;
        if let Some(value) = &rule.value {
            writeln!(out, "        value: {}", quote(value))?;
        }
        if let Some(expires) = rule.expires {
            writeln!(out, "        expires: {}", show_time(expires))?;
        }
    }
    Ok(())
}

/// A list on one line, empty ones too.
fn write_list(out: &mut String, key: &str, items: &[String]) -> std::fmt::Result {
    let items: Vec<String> = items.iter().map(|item| quote(item)).collect();
    writeln!(out, "{key}: [{}]", items.join(", "))
}

fn write_cors(out: &mut String, cors: &Cors) -> std::fmt::Result {
    writeln!(out, "    cors:\n      credentials: {}", cors.credentials)?;
    write_list(out, "      origins", &cors.origins)?;
    write_list(out, "      methods", &cors.methods)?;
    write_list(out, "      headers", &cors.headers)?;
    write_list(out, "      expose", &cors.expose)?;
    match cors.max_age {
        Some(time) => writeln!(out, "      max_age: {}", show_time(time)),
        None => Ok(()),
    }
}

fn write_map<'a, K: Display + 'a>(
    out: &mut String,
    key: &str,
    entries: &mut dyn Iterator<Item = (&'a K, &'a String)>,
) -> std::fmt::Result {
    for (index, (name, value)) in entries.enumerate() {
        if index == 0 {
            writeln!(out, "    {key}:")?;
        }
        writeln!(out, "      {}: {}", quote(&name.to_string()), quote(value))?;
    }
    Ok(())
}

fn size(bytes: usize) -> String {
    show_size(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn log_path(path: &LogPath) -> String {
    match path {
        LogPath::Standard => String::from("\"-\""),
        LogPath::File(path) => quote(&path.display().to_string()),
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A double-quoted YAML scalar (YAML 1.2, 7.3.1). Quoted always: nobody has to know which words are booleans.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            // Line and paragraph separators, the byte order mark and two that are no characters at all are not
            // printable in YAML either.
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ if character.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_reads_back() {
        for text in [
            "",
            "a: b # c",
            "yes",
            "\"\\",
            "ü€𝄞",
            "a\u{2028}b\u{feff}c",
            "\u{fffe}\u{ffff}",
            "\t\u{85}\u{7f}",
        ] {
            let read: String = serde_saphyr::from_str(&quote(text)).unwrap();
            assert_eq!(read, text);
        }
    }
}
