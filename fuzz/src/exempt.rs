//! Lists of addresses and networks: `limits.exempt`, and who is in it: `admission::Exempt`. The first line of the input
//! is an address, each other one an address or a network.
//!
//! An entry is taken if a plain reading takes it, and an address is exempt if it shares an entry's first bits.

use std::net::IpAddr;

use super::HOST;
use webserver::{
    admission::Exempt,
    config::{Config, Network},
};

/// More lines than these are left out: each is a configuration of its own.
const LINES_MAX: usize = 24;

/// Checks one input; whether every line that names a network is taken.
pub fn check(input: &[u8]) -> bool {
    let Ok(input) = std::str::from_utf8(input) else { return false };
    let mut lines = input.lines();
    let address = lines.next().and_then(|line| line.parse::<IpAddr>().ok());
    // What is written between quotes in YAML as it stands.
    let plain =
        |line: &&str| line.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte));
    let lines: Vec<&str> = lines.filter(plain).take(LINES_MAX).collect();

    let mut taken = Vec::new();
    for line in &lines {
        let read = read(&[line]);
        assert_eq!(read.is_some(), parse(line).is_some(), "{line:?}");
        if let (Some(network), Some(bits)) = (read, parse(line)) {
            check_network(network[0], &bits);
            taken.push((*line, bits));
        }
    }

    let texts: Vec<&str> = taken.iter().map(|(text, _)| *text).collect();
    let networks = read(&texts).expect("what is taken one by one is taken together");
    let exempt = Exempt::new(&networks);
    let bounds = networks.iter().flat_map(|network| [network.first(), network.last()]);
    for near in address.into_iter().chain(bounds) {
        for asked in [Some(near), step(near, 1), step(near, -1)].into_iter().flatten() {
            let expected = taken.iter().any(|(_, bits)| bits_of(asked).starts_with(bits));
            assert_eq!(exempt.contains(asked), expected, "{asked} in {texts:?}");
        }
    }
    !lines.is_empty() && taken.len() == lines.len()
}

/// The list as a configuration has it.
fn read(texts: &[&str]) -> Option<Vec<Network>> {
    let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    let mut config = Config::new();
    config.set("limits.exempt", &format!("[{}]", quoted.join(","))).ok()?;
    config.resolve(&HOST).ok().map(|settings| settings.limits.exempt)
}

fn check_network(network: Network, bits: &str) {
    assert!(network.first() <= network.last());
    for bound in [network.first(), network.last()] {
        assert!(bits_of(bound).starts_with(bits));
    }
    assert_eq!(read(&[&network.to_string()]), Some(vec![network]), "what is shown reads back");
}

/// The bits that the addresses of an entry have in common; `None` for what is no entry: no address, a prefix that is
/// not written as a number is, an address within a network, IPv4 in the form of IPv6.
fn parse(text: &str) -> Option<String> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    if let IpAddr::V6(address) = address
        && address.to_ipv4_mapped().is_some()
    {
        return None;
    }
    let mut bits = bits_of(address);
    if let Some(text) = prefix {
        let width = bits.len() - 1;
        let prefix = (0..=width).find(|prefix| prefix.to_string() == text)?;
        if bits[1 + prefix..].contains('1') {
            return None;
        }
        bits.truncate(1 + prefix);
    }
    Some(bits)
}

/// The version's digit and then each bit of an address, as text.
fn bits_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("4{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("6{:0128b}", address.to_bits()),
    }
}

/// The address after or before this one.
fn step(address: IpAddr, by: i8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            address.to_bits().checked_add_signed(by.into()).map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(address) => {
            address.to_bits().checked_add_signed(by.into()).map(|bits| IpAddr::V6(bits.into()))
        }
    }
}
