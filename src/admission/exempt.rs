//! Clients that no limit of a client is for: a list of networks, made ready to be asked for each request.

use std::net::IpAddr;

use crate::config::Network;

/// A set of addresses: ranges that neither touch nor overlap, in ascending order, IPv4 before IPv6 (as [`IpAddr`] is
/// ordered). Asking is a binary search over at most 256.
#[derive(Debug, Default)]
pub struct Exempt {
    ranges: Box<[(IpAddr, IpAddr)]>,
}

impl Exempt {
    /// The addresses of all `networks`.
    pub fn new(networks: &[Network]) -> Self {
        let mut all: Vec<_> = networks.iter().map(|network| (network.first(), network.last())).collect();
        all.sort_unstable();
        let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Exempt { ranges: ranges.into() }
    }

    /// Whether `address` is one of them. IPv4 in IPv6 must be given as IPv4.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.ranges[after - 1].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn exempt(text: &str) -> Exempt {
        let mut config = Config::new();
        config.set("limits.exempt", text).unwrap();
        let host = crate::config::Host {
            cores: 1,
            nofile_soft: 4096,
            nofile_hard: 4096,
            memory_bytes: 1 << 32,
            binary: false,
        };
        Exempt::new(&config.resolve(&host).unwrap().limits.exempt)
    }

    fn check(exempt: &Exempt, inside: &[&str], outside: &[&str]) {
        let contains = |text: &&str| exempt.contains(text.parse().unwrap());
        assert!(inside.iter().all(contains), "{exempt:?}");
        assert!(!outside.iter().any(contains), "{exempt:?}");
    }

    #[test]
    fn nobody_is_exempt_unless_told() {
        check(&exempt("[]"), &[], &["0.0.0.0", "127.0.0.1", "::", "::1"]);
        check(&Exempt::default(), &[], &["127.0.0.1"]);
    }

    #[test]
    fn finds_the_first_and_last_address_of_each_network_and_none_beside_them() {
        check(
            &exempt("[\"2001:db8::/32\", 127.0.0.1, 10.0.0.0/8, \"::1\", 192.0.2.128/25]"),
            &[
                "127.0.0.1",
                "10.0.0.0",
                "10.1.2.3",
                "10.255.255.255",
                "192.0.2.128",
                "192.0.2.255",
                "::1",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            &[
                "127.0.0.0",
                "127.0.0.2",
                "9.255.255.255",
                "11.0.0.0",
                "192.0.2.127",
                "192.0.3.0",
                "::",
                "::2",
                "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
                "0.0.0.0",
                "255.255.255.255",
            ],
        );
    }

    #[test]
    fn networks_may_repeat_and_contain_each_other() {
        let exempt = exempt("[10.0.0.0/8, 10.1.0.0/16, 10.0.0.0/8, 10.255.255.255, 11.0.0.0/8]");
        check(&exempt, &["10.0.0.0", "10.2.0.0", "10.255.255.255", "11.255.255.255"], &["12.0.0.0"]);
    }

    #[test]
    fn a_family_as_a_whole_is_that_family_alone() {
        check(&exempt("0.0.0.0/0"), &["0.0.0.0", "255.255.255.255"], &["::", "::1"]);
        check(&exempt("[\"::/0\"]"), &["::", "ffff::"], &["0.0.0.0", "255.255.255.255"]);
    }
}
