//! Addresses and networks as lists of them are written: `127.0.0.1`, `10.0.0.0/8`, `::1`, `2001:db8::/32`.
//!
//! Numbers only: no name is resolved here.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What a network may look like, for errors.
pub(super) const ALLOWED: &str =
    "an address or a network such as 127.0.0.1, 10.0.0.0/8, \"::1\" or \"2001:db8::/32\"";

/// The addresses that begin with the same bits; a single address is the network of all of its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network written as `text`.
    ///
    /// # Errors
    /// What is wrong with it, to follow the name of the key: `must be an address or a network such as ...`.
    pub(super) fn parse(text: &str) -> Result<Network, String> {
        let wrong = || format!("must be {ALLOWED}, not the text {text:?}");
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, digits)) => (address, Some(parse_prefix(digits).ok_or_else(wrong)?)),
        };
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let network = Network { first, prefix: prefix.unwrap_or(bits) };
        if network.prefix > bits {
            return Err(format!("has a prefix of {} bits; {first} has {bits}", network.prefix));
        }
        if let IpAddr::V6(v6) = first
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(format!("names an IPv4 address inside IPv6; write it as {v4}"));
        }
        let masked = network.masked();
        if masked != first {
            return Err(format!(
                "names {first}, an address inside the network; the network is {masked}/{}",
                network.prefix
            ));
        }
        Ok(network)
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Its last address.
    pub fn last(&self) -> IpAddr {
        match self.first {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | self.host_bits_v4())),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | self.host_bits_v6())),
        }
    }

    fn masked(&self) -> IpAddr {
        match self.first {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !self.host_bits_v4())),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !self.host_bits_v6())),
        }
    }

    fn host_bits_v4(&self) -> u32 {
        u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }

    fn host_bits_v6(&self) -> u128 {
        u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.prefix) {
            (IpAddr::V4(address), 32) => write!(f, "{address}"),
            (IpAddr::V6(address), 128) => write!(f, "{address}"),
            (address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}

/// Digits without a sign and without a zero in front.
fn parse_prefix(digits: &str) -> Option<u8> {
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(text: &str) -> (String, String) {
        let network = Network::parse(text).unwrap();
        (network.first().to_string(), network.last().to_string())
    }

    #[test]
    fn a_network_is_the_addresses_that_share_its_prefix() {
        for (text, first, last) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("10.0.0.0/8", "10.0.0.0", "10.255.255.255"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.255"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("::1", "::1", "::1"),
            ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::/128", "2001:db8::", "2001:db8::"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(bounds(text), (first.to_owned(), last.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["127.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "::1", "2001:db8::/32", "::/0"] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Network::parse("192.0.2.7/32").unwrap().to_string(), "192.0.2.7");
        assert_eq!(Network::parse("2001:0DB8::0/64").unwrap().to_string(), "2001:db8::/64");
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "/",
            "/8",
            "10",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
            "010.0.0.0/8",
            "10.0.0.0 /8",
            "localhost",
            "[::1]",
            "::1%1",
            "fe80::%1/10",
            "10.0.0.0/255.0.0.0",
            "*",
        ] {
            assert!(
                Network::parse(text).unwrap_err().starts_with("must be an address or a network"),
                "{text}"
            );
        }
        for (text, told) in [
            ("10.0.0.0/33", "has a prefix of 33 bits; 10.0.0.0 has 32"),
            ("2001:db8::/129", "has a prefix of 129 bits; 2001:db8:: has 128"),
            ("10.0.0.1/8", "names 10.0.0.1, an address inside the network; the network is 10.0.0.0/8"),
            (
                "2001:db8::1/64",
                "names 2001:db8::1, an address inside the network; the network is 2001:db8::/64",
            ),
            ("::ffff:10.0.0.1", "names an IPv4 address inside IPv6; write it as 10.0.0.1"),
        ] {
            assert_eq!(Network::parse(text).unwrap_err(), told);
        }
    }
}
