//! `Accept-Encoding`: `http::accept_encoding`. The first line of the input names the codings that are offered by their
//! first letters, each other line is one of the field.
//!
//! What is preferred is what sorting all that is acceptable by its weight gives.

use std::cmp::Reverse;

use webserver::{
    config::Coding,
    http::{Method, accept_encoding::AcceptEncoding},
};

/// Checks one input; whether a coding is acceptable.
pub fn check(input: &[u8]) -> bool {
    let (letters, rest) = super::first_line(input);
    let mut offered = Vec::new();
    for letter in letters {
        let coding = Coding::ALL.into_iter().find(|coding| coding.name().as_bytes()[0] == *letter);
        offered.extend(coding.filter(|coding| !offered.contains(coding)));
    }
    let lines: Vec<&[u8]> = rest
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| super::is_value(line))
        .collect();
    let fields: Vec<(&[u8], &[u8])> = lines.iter().map(|line| (&b"Accept-Encoding"[..], *line)).collect();
    let request = super::request(Method::Get, &fields);
    let preferred: Vec<_> = AcceptEncoding::read(request.as_request()).preferred(&offered).collect();
    assert_eq!(preferred, plain(&offered, &lines), "{}", rest.escape_ascii());
    preferred.iter().any(Option::is_some)
}

fn plain(offered: &[Coding], lines: &[&[u8]]) -> Vec<Option<Coding>> {
    let text = lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join(",");
    let members: Vec<(String, u16)> = text.split(',').filter_map(member).collect();
    let named = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, weight)| *weight);
    let star = named("*");
    let mut all: Vec<(u16, Option<Coding>)> = Vec::new();
    for coding in offered {
        all.push((named(coding.name()).or(star).unwrap_or(0), Some(*coding)));
    }
    all.retain(|(weight, _)| *weight > 0);
    match named("identity").or(star) {
        Some(0) => {}
        weight => all.push((weight.unwrap_or(0), None)),
    }
    all.sort_by_key(|(weight, _)| Reverse(*weight));
    all.into_iter().map(|(_, coding)| coding).collect()
}

/// A member's name in lower case and its weight, if it is well formed.
fn member(text: &str) -> Option<(String, u16)> {
    let text = text.trim_matches([' ', '\t']);
    let (name, weight) = match text.split_once(';') {
        None => (text, 1000),
        Some((name, parameter)) => {
            let parameter = parameter.trim_start_matches([' ', '\t']).to_lowercase();
            (name.trim_end_matches([' ', '\t']), weight(parameter.strip_prefix("q=")?)?)
        }
    };
    let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
    super::is_token(name.as_bytes()).then(|| (name.to_lowercase(), weight))
}

/// Thousandths of a number from 0 to 1 that has one digit, and at most three behind its point.
fn weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 1 || decimals.len() > 3 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let thousandths = format!("{whole}{decimals:0<3}").parse().ok()?;
    (thousandths <= 1000).then_some(thousandths)
}
