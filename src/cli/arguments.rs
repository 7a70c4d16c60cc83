//! What the arguments say, and the configuration that comes of it.
//!
//! Knows nothing of a server that runs.

use std::{fmt, path::PathBuf, str::FromStr};

use lexopt::{Arg, Parser, ValueExt};
use webserver::{
    Error, Server,
    config::{Config, OpenSocket, Settings},
    server::plan,
};

use super::{
    Failure,
    tls::{self, Tls},
};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Serve(Overlay),
    Check(PathBuf),
    Plan(PlanOptions),
    Help,
    Version,
}

/// What the arguments say, kept so that a reload can say it again over the file read anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) config: Option<PathBuf>,
    pub(super) root: Option<PathBuf>,
    pub(super) listen: Vec<String>,
    pub(super) admin: Option<String>,
    pub(super) shards: Option<String>,
    pub(super) tls: Option<Tls>,
}

/// What a plan is made of and for, and how it is printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PlanOptions {
    pub(super) config: PathBuf,
    pub(super) connections: Option<usize>,
    /// Absent: as the listeners do.
    pub(super) tls_percent: Option<u8>,
    pub(super) h2_percent: u8,
    pub(super) json: bool,
}

/// Options of plan, and the one that was given last.
#[derive(Default)]
struct PlanGiven {
    connections: Option<usize>,
    tls_percent: Option<u8>,
    h2_percent: Option<u8>,
    json: Option<()>,
    option: Option<&'static str>,
}

/// The word that stands first, if it is a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Serve,
    Check,
    Plan,
}

/// Reads the arguments.
pub(super) fn parse(mut arguments: Parser) -> Result<Command, Failure> {
    let mut overlay = Overlay::default();
    let mut plan = PlanGiven::default();
    let mut tls = tls::Given::default();
    let mut word = Word::Serve;
    let mut first = true;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Short('c') | Arg::Long("config") => {
                once(&mut overlay.config, PathBuf::from(arguments.value()?), "--config")?;
            }
            Arg::Short('l') | Arg::Long("listen") => overlay.listen.push(arguments.value()?.string()?),
            Arg::Long("admin") => once(&mut overlay.admin, arguments.value()?.string()?, "--admin")?,
            Arg::Long("shards") => once(&mut overlay.shards, arguments.value()?.string()?, "--shards")?,
            Arg::Long("connections") => {
                let most = plan::CONNECTIONS_MAX;
                once(&mut plan.connections, number(&mut arguments, "--connections", most)?, "--connections")?;
                plan.option = Some("--connections");
            }
            Arg::Long("tls") => {
                once(&mut plan.tls_percent, number(&mut arguments, "--tls", 100)?, "--tls")?;
                plan.option = Some("--tls");
            }
            Arg::Long("h2") => {
                once(&mut plan.h2_percent, number(&mut arguments, "--h2", 100)?, "--h2")?;
                plan.option = Some("--h2");
            }
            Arg::Long("json") => {
                once(&mut plan.json, (), "--json")?;
                plan.option = Some("--json");
            }
            Arg::Long("tls-cert") => {
                once(&mut tls.certificate, PathBuf::from(arguments.value()?), "--tls-cert")?;
            }
            Arg::Long("tls-key") => once(&mut tls.key, PathBuf::from(arguments.value()?), "--tls-key")?,
            Arg::Long("tls-self-signed") => once(&mut tls.self_signed, (), "--tls-self-signed")?,
            Arg::Value(value) if first && value == "check" => word = Word::Check,
            Arg::Value(value) if first && value == "plan" => word = Word::Plan,
            Arg::Value(root) => once(&mut overlay.root, PathBuf::from(root), "ROOT")?,
            Arg::Short(_) | Arg::Long(_) => return Err(argument.unexpected().into()),
        }
        first = false;
    }
    if let Some(option) = plan.option.filter(|_| word != Word::Plan) {
        return Err(Failure::usage(format_args!("{option} is an option of plan (see webserver --help)")));
    }
    overlay.tls = tls.resolve()?;
    if word == Word::Serve {
        return Ok(Command::Serve(overlay));
    }
    let file = match overlay {
        Overlay { config: Some(file), root: None, listen, admin: None, shards: None, tls: None }
            if listen.is_empty() =>
        {
            file
        }
        _ if word == Word::Check => return Err(Failure::usage("check takes -c FILE and nothing else")),
        _ => return Err(Failure::usage("plan takes -c FILE, --connections, --tls, --h2 and --json")),
    };
    if word == Word::Check {
        return Ok(Command::Check(file));
    }
    Ok(Command::Plan(PlanOptions {
        config: file,
        connections: plan.connections,
        tls_percent: plan.tls_percent,
        h2_percent: plan.h2_percent.unwrap_or(0),
        json: plan.json.is_some(),
    }))
}

impl Overlay {
    /// The configuration file, if any, the arguments over it, and the sockets that the process was started with.
    fn config(&self, inherited: &[OpenSocket]) -> Result<Config, Failure> {
        let mut config = Config::new();
        if let Some(file) = &self.config {
            config.load_file(file).map_err(|error| Failure::usage(&error))?;
        }
        let given =
            |option: &'static str| move |error: Error| Failure::usage(format_args!("{option}: {error}"));
        if let Some(root) = &self.root {
            config.set_root(root).map_err(given("ROOT"))?;
        }
        match &self.tls {
            Some(tls) if self.config.is_some() && self.listen.is_empty() => {
                let option = tls.option();
                return Err(Failure::usage(format_args!(
                    "{option} is for the addresses of --listen, and there is none; those of the configuration have \
                     listen[].tls"
                )));
            }
            Some(tls) => tls.listen(&mut config, &self.listen).map_err(given("--listen"))?,
            None if self.listen.is_empty() => {}
            None => config.set_listeners(&self.listen).map_err(given("--listen"))?,
        }
        if let Some(address) = &self.admin {
            config.set("admin.address", address).map_err(given("--admin"))?;
        }
        if let Some(shards) = &self.shards {
            config.set("shards", shards).map_err(given("--shards"))?;
        }
        config.inherit(inherited.iter().cloned());
        Ok(config)
    }

    /// The same, and what it resolves to: whatever is wrong with a configuration shows here, before start.
    pub(super) fn settings(&self, inherited: &[OpenSocket]) -> Result<(Config, Settings), Failure> {
        let config = self.config(inherited)?;
        let settings = config.resolve(&Server::host(true)).map_err(|error| Failure::usage(&error))?;
        Ok((config, settings))
    }
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), Failure> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format_args!("{name} is given twice (see webserver --help)"))),
    }
}

/// The whole number that an option is given, up to `most`.
fn number<T>(arguments: &mut Parser, option: &str, most: T) -> Result<T, Failure>
where
    T: Copy + FromStr + PartialOrd + fmt::Display,
{
    let text = arguments.value()?.string()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| digits && *value <= most).ok_or_else(|| {
        Failure::usage(format_args!("{option} must be a whole number from 0 to {most}, not {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn command(arguments: &[&str]) -> Result<Command, String> {
        parse(Parser::from_args(arguments.iter().map(OsString::from))).map_err(|failure| {
            assert_eq!(failure.status, super::super::USAGE);
            failure.message
        })
    }

    #[test]
    fn options_and_root_come_in_any_order() {
        let expected = Overlay {
            config: Some("a.yaml".into()),
            root: Some("site".into()),
            listen: vec!["127.0.0.1:1".to_owned(), "[::1]:2".to_owned()],
            admin: Some("127.0.0.1:3".to_owned()),
            shards: Some("auto".to_owned()),
            tls: None,
        };
        let first = ["-c", "a.yaml", "-l", "127.0.0.1:1", "--listen=[::1]:2", "--admin", "127.0.0.1:3"];
        let last = ["--shards", "auto", "site"];
        assert_eq!(command(&[&first[..], &last[..]].concat()), Ok(Command::Serve(expected)));
        assert_eq!(command(&[]), Ok(Command::Serve(Overlay::default())));
    }

    #[test]
    fn check_takes_a_file_alone() {
        assert_eq!(command(&["check", "-c", "a"]), Ok(Command::Check("a".into())));
        for wrong in [&["check"][..], &["check", "a"], &["check", "-c", "a", "-l", "127.0.0.1:1"]] {
            assert_eq!(command(wrong), Err("check takes -c FILE and nothing else".to_owned()));
        }
    }

    #[test]
    fn plan_takes_a_file_and_what_it_is_for() {
        let plain = PlanOptions { config: "a".into(), ..PlanOptions::default() };
        assert_eq!(command(&["plan", "-c", "a"]), Ok(Command::Plan(plain)));
        let whole = PlanOptions {
            config: "a".into(),
            connections: Some(plan::CONNECTIONS_MAX),
            tls_percent: Some(100),
            h2_percent: 0,
            json: true,
        };
        let given = ["plan", "--connections", "1000000000", "--tls=100", "--h2", "0", "--json", "-c", "a"];
        assert_eq!(command(&given), Ok(Command::Plan(whole)));
        for (wrong, told) in [
            (&["plan"][..], "plan takes -c FILE, --connections, --tls, --h2 and --json"),
            (&["plan", "a"], "plan takes -c FILE, --connections, --tls, --h2 and --json"),
            (&["plan", "--tls", "101"], "--tls must be a whole number from 0 to 100, not \"101\""),
            (&["plan", "--h2", "+5"], "--h2 must be a whole number from 0 to 100, not \"+5\""),
            (&["plan", "--h2", ""], "--h2 must be a whole number from 0 to 100, not \"\""),
            (
                &["plan", "--connections", "1000000001"],
                "--connections must be a whole number from 0 to 1000000000, not \"1000000001\"",
            ),
            (&["check", "-c", "a", "--json"], "--json is an option of plan (see webserver --help)"),
            (&["--tls", "5"], "--tls is an option of plan (see webserver --help)"),
            (&["plan", "--json", "--json"], "--json is given twice (see webserver --help)"),
        ] {
            assert_eq!(command(wrong), Err(told.to_owned()));
        }
    }

    #[test]
    fn a_folder_named_check_can_be_served() {
        for arguments in [&["./check"][..], &["--shards", "1", "check"]] {
            assert!(matches!(command(arguments), Ok(Command::Serve(Overlay { root: Some(_), .. }))));
        }
    }

    #[test]
    fn a_certificate_comes_with_its_key_or_is_made() {
        let tls = |arguments: &[&str]| match command(arguments)? {
            Command::Serve(overlay) => Ok(overlay.tls),
            other => panic!("{other:?}"),
        };
        let files = Tls::Files { certificate: "c.pem".into(), key: "k.pem".into() };
        assert_eq!(tls(&["--tls-key=k.pem", "--tls-cert", "c.pem"]), Ok(Some(files)));
        assert_eq!(tls(&["a"]), Ok(None));
        assert!(matches!(tls(&["--tls-self-signed"]), Ok(Some(Tls::Made { .. }))));
        for (wrong, told) in [
            (&["--tls-cert", "a"][..], "--tls-cert needs --tls-key, the certificate's private key"),
            (&["--tls-key", "a"], "--tls-key needs --tls-cert, the key's certificate"),
            (
                &["--tls-self-signed", "--tls-cert", "a", "--tls-key", "b"],
                "--tls-self-signed makes a certificate: leave --tls-cert and --tls-key out",
            ),
            (
                &["--tls-self-signed", "--tls-self-signed"],
                "--tls-self-signed is given twice (see webserver --help)",
            ),
            (&["check", "-c", "a", "--tls-self-signed"], "check takes -c FILE and nothing else"),
        ] {
            assert_eq!(tls(wrong), Err(told.to_owned()));
        }
    }

    #[test]
    fn tls_is_for_the_addresses_of_the_command_line() {
        let tls = || Some(Tls::Files { certificate: "c.pem".into(), key: "/k.pem".into() });
        let listen = vec!["127.0.0.1:1".to_owned(), "[::1]:2".to_owned()];
        let (_, settings) = Overlay { tls: tls(), listen, ..Overlay::default() }.settings(&[]).unwrap();
        assert_eq!(settings.listeners.len(), 2);
        for listener in &settings.listeners {
            let tls = listener.tls.as_ref().unwrap();
            let chain = std::env::current_dir().unwrap().join("c.pem");
            assert_eq!(tls.certificates[0].chain, webserver::config::Pem::File(chain));
        }
        let (_, settings) = Overlay { tls: tls(), ..Overlay::default() }.settings(&[]).unwrap();
        assert_eq!(settings.listeners[0].name, "127.0.0.1:8080");
        assert!(settings.speaks_tls());
        let file = tempfile::NamedTempFile::new().unwrap();
        let overlay = Overlay { tls: tls(), config: Some(file.path().into()), ..Overlay::default() };
        assert_eq!(
            overlay.settings(&[]).unwrap_err().message,
            "--tls-cert is for the addresses of --listen, and there is none; those of the configuration have listen[].tls"
        );
        let listen = vec!["127.0.0.1:1".to_owned()];
        assert!(Overlay { listen, ..overlay }.settings(&[]).unwrap().1.speaks_tls());
    }

    #[test]
    fn wrong_usage_names_the_argument() {
        assert!(command(&["--frobnicate"]).unwrap_err().contains("--frobnicate"));
        assert!(command(&["-c"]).unwrap_err().contains("-c"));
        assert!(command(&["a", "b"]).unwrap_err().contains("ROOT is given twice"));
        assert!(
            command(&["--shards", "1", "--shards", "2"]).unwrap_err().contains("--shards is given twice")
        );
    }

    #[test]
    fn arguments_lie_over_the_defaults() {
        let overlay = Overlay {
            root: Some("/srv".into()),
            listen: vec!["[::1]:0".to_owned()],
            admin: Some("[::1]:0".to_owned()),
            shards: Some("3".to_owned()),
            ..Overlay::default()
        };
        let (_, settings) = overlay.settings(&[]).unwrap();
        assert_eq!((settings.shards, settings.listeners[0].name.as_str()), (3, "[::1]:0"));
        assert_eq!(settings.admin.unwrap().name, "[::1]:0");
    }

    #[test]
    fn a_wrong_value_names_its_option() {
        let told = |overlay: Overlay| overlay.config(&[]).unwrap_err().message;
        let shards = told(Overlay { shards: Some("many".to_owned()), ..Overlay::default() });
        assert_eq!(
            shards,
            "--shards: shards must be auto or a whole number from 1 to 1024, not the text \"many\""
        );
        let listen = told(Overlay { listen: vec!["8080".to_owned()], ..Overlay::default() });
        assert!(listen.starts_with("--listen: listen[0] must be an address such as"), "{listen}");
    }
}
