//! Configurations: `config::Config`. The input is YAML, or several layers of it with a NUL between them; a layer with a
//! 0x01 in it is one dotted key, that byte, and the value to set it to.
//!
//! What fails changes nothing and says why in one line. What resolves is printed as a text that resolves to the same.

use super::HOST;
use webserver::{
    Error,
    config::{Address, Config, Pem, Settings, Tls},
};

/// Checks one input; whether all its layers are taken and resolve.
pub fn check(input: &[u8]) -> bool {
    let mut config = Config::new();
    let mut failed = false;
    for layer in input.split(|&byte| byte == 0) {
        let Ok(layer) = std::str::from_utf8(layer) else { return false };
        let before = format!("{config:?}");
        let laid = match layer.split_once('\u{1}') {
            Some((key, value)) => config.set(key, value),
            None => config.load_yaml(layer),
        };
        if let Err(error) = laid {
            check_error(&error);
            assert_eq!(format!("{config:?}"), before, "a layer that fails changes nothing");
            failed = true;
        }
    }
    match config.resolve(&HOST) {
        Err(error) => {
            check_error(&error);
            false
        }
        Ok(settings) => {
            check_printed(settings);
            !failed
        }
    }
}

/// One line for a log or a terminal, whatever was written in the configuration.
fn check_error(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

/// `webserver check` prints settings that load back, and printing those gives the same text.
/// What has keys in it is printed without them, and does not load.
fn check_printed(mut settings: Settings) {
    let printed = settings.to_yaml();
    if holds_text(&settings) {
        assert!(!printed.contains("-----END") && load(&printed).is_err(), "{printed}");
        return;
    }
    let again = load(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.to_yaml(), printed);
    // The name of a listener is what was written; a relative path of a socket is printed as an absolute one.
    for listener in settings.listeners.iter_mut().chain(&mut settings.admin) {
        if let Address::Unix(path) = &listener.address {
            listener.name = format!("unix:{}", path.display());
        }
    }
    assert_eq!(format!("{again:?}"), format!("{settings:?}"));
}

fn load(text: &str) -> Result<Settings, Error> {
    let mut config = Config::new();
    config.load_yaml(text)?;
    config.resolve(&HOST)
}

/// Whether PEM was given as text.
fn holds_text(settings: &Settings) -> bool {
    let is_text = |pem: &Pem| matches!(pem, Pem::Text(_));
    let has_text = |tls: &Tls| {
        tls.certificates.iter().any(|pair| is_text(&pair.chain) || is_text(&pair.key))
            || tls.client_auth.as_ref().is_some_and(|auth| is_text(&auth.ca))
    };
    settings.listeners.iter().filter_map(|listener| listener.tls.as_ref()).any(has_text)
}
