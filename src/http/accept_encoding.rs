//! The `Accept-Encoding` field (RFC 9110 12.5.3): which content codings a client takes, and in which order it likes them.
//!
//! Which of them there are is not known here. Nothing is allocated, whatever a client sends.

use super::{
    Known, Request,
    syntax::{elements, is_token, qvalue},
};
use crate::config::Coding;

/// The weight of what is named without one, and the largest.
const WEIGHT_MAX: u16 = 1000;

/// What a client says about content codings. Weights are in thousandths; 0 is "not acceptable".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptEncoding {
    /// The weight of each coding that is named.
    codings: [Option<u16>; Coding::COUNT],
    /// The weight of `identity`, if it is named.
    identity: Option<u16>,
    /// The weight of `*`: of all that is not named.
    others: Option<u16>,
}

impl AcceptEncoding {
    /// Reads all lines of the field as one list. Malformed members are ignored, as if they were not there; of two about
    /// one coding the first counts. Without the field, or with an empty one, a client gets no coding: RFC 9110 allows
    /// any where there is no field, but who takes one says so.
    pub fn read(request: Request<'_>) -> Self {
        let mut read = AcceptEncoding::default();
        for member in request.fields_named(Known::AcceptEncoding).flat_map(elements) {
            if let Some((name, weight)) = parse_member(member)
                && let Some(place) = read.weight_of_name(name)
            {
                place.get_or_insert(weight);
            }
        }
        read
    }

    /// What is acceptable, best first: codings of `offered` (each once), and `None` for the content as it is. Those of
    /// equal weight come in the order of `offered`, and before the content as it is.
    pub fn preferred(self, offered: &[Coding]) -> impl Iterator<Item = Option<Coding>> {
        let weight = |coding: Coding| self.codings[coding as usize].or(self.others).unwrap_or(0);
        let coded = offered.iter().take(Coding::COUNT).map(|&coding| (weight(coding), Some(coding)));
        // Acceptable unless it is excluded, by its name or by `*`; not named at all, it comes last.
        let identity = match self.identity.or(self.others) {
            Some(0) => None,
            weight => Some((weight.unwrap_or(0), None)),
        };
        let mut ranked = [(0, None); Coding::COUNT + 1];
        let mut count = 0;
        for candidate in coded.filter(|(weight, _)| *weight > 0).chain(identity) {
            let at = ranked[..count].iter().position(|(weight, _)| *weight < candidate.0).unwrap_or(count);
            ranked.copy_within(at..count, at + 1);
            ranked[at] = candidate;
            count += 1;
        }
        ranked.into_iter().take(count).map(|(_, coding)| coding)
    }

    fn weight_of_name(&mut self, name: &[u8]) -> Option<&mut Option<u16>> {
        if name == b"*" {
            return Some(&mut self.others);
        }
        if name.eq_ignore_ascii_case(b"identity") {
            return Some(&mut self.identity);
        }
        // RFC 9110 8.4.1.3: x-gzip is the same as gzip.
        let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
        let coding =
            Coding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()));
        coding.map(|coding| &mut self.codings[coding as usize])
    }
}

/// A coding's name and its weight; `None` when the member is malformed.
fn parse_member(member: &[u8]) -> Option<(&[u8], u16)> {
    let (name, weight) = match member.iter().position(|&byte| byte == b';') {
        None => (member, WEIGHT_MAX),
        Some(at) => (member[..at].trim_ascii_end(), parse_weight(member[at + 1..].trim_ascii_start())?),
    };
    is_token(name).then_some((name, weight))
}

/// `q=` and the weight itself (RFC 9110 12.4.2).
fn parse_weight(text: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = text else { return None };
    qvalue(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Field, Parts, Span};

    const OFFERED: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    /// What is preferred after some lines of the field, as names with spaces between them.
    fn preferred_of(lines: &[&str], offered: &[Coding]) -> String {
        let (mut bytes, mut parts) = (Vec::new(), Parts::default());
        for line in lines {
            let mut add = |text: &str| {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(text.as_bytes());
                Span::new(start, bytes.len() as u32)
            };
            let field = Field { name: add("Accept-Encoding"), value: add(line) };
            parts.add_field(field, Some(Known::AcceptEncoding));
        }
        let preferred = AcceptEncoding::read(Request { bytes: &bytes, parts: &parts }).preferred(offered);
        let names: Vec<&str> = preferred.map(|coding| coding.map_or("identity", Coding::name)).collect();
        names.join(" ")
    }

    fn preferred(line: &str) -> String {
        preferred_of(&[line], &OFFERED)
    }

    #[test]
    fn without_the_field_or_with_an_empty_one_there_is_no_coding() {
        assert_eq!(preferred_of(&[], &OFFERED), "identity");
        for line in ["", " ", ",", " , ,"] {
            assert_eq!(preferred(line), "identity", "{line:?}");
        }
    }

    #[test]
    fn named_codings_are_in_the_order_offered() {
        assert_eq!(preferred("gzip, deflate, br, zstd"), "br zstd gzip identity");
        assert_eq!(preferred("gzip"), "gzip identity");
        assert_eq!(preferred("deflate, compress, foo"), "identity");
        let gzip_first = [Coding::Gzip, Coding::Br];
        assert_eq!(preferred_of(&["br, gzip, zstd"], &gzip_first), "gzip br identity");
        assert_eq!(preferred_of(&["br"], &[]), "identity");
    }

    #[test]
    fn the_greater_weight_comes_first() {
        assert_eq!(preferred("br;q=0.1, zstd;q=0.9, gzip;q=0.5"), "zstd gzip br identity");
        assert_eq!(preferred("br;q=0.999, gzip"), "gzip br identity");
        assert_eq!(preferred("br;q=0.001, gzip;q=0.002"), "gzip br identity");
        assert_eq!(preferred("gzip;q=0.5, br;q=0.5"), "br gzip identity");
    }

    #[test]
    fn weight_zero_is_not_acceptable() {
        assert_eq!(preferred("br;q=0, gzip"), "gzip identity");
        assert_eq!(preferred("br;q=0.000, zstd;q=0., gzip;q=0.0"), "identity");
        assert_eq!(preferred("gzip, identity;q=0"), "gzip");
        assert_eq!(preferred("identity;q=0"), "");
        assert_eq!(preferred("*;q=0"), "");
        assert_eq!(preferred("deflate, *;q=0"), "");
    }

    #[test]
    fn identity_has_a_weight_where_it_is_named() {
        assert_eq!(preferred("identity, gzip;q=0.5"), "identity gzip");
        assert_eq!(preferred("identity;q=0.5, gzip;q=0.5"), "gzip identity");
        assert_eq!(preferred("identity;q=0.1, gzip;q=0.001"), "identity gzip");
        assert_eq!(preferred("identity"), "identity");
        assert_eq!(preferred("*;q=0, identity"), "identity");
        assert_eq!(preferred("*;q=0, identity;q=0.001, gzip"), "gzip identity");
    }

    #[test]
    fn a_star_is_about_all_that_is_not_named() {
        assert_eq!(preferred("*"), "br zstd gzip identity");
        assert_eq!(preferred("br;q=0, *"), "zstd gzip identity");
        assert_eq!(preferred("gzip, *;q=0"), "gzip");
        assert_eq!(preferred("gzip;q=0.2, *;q=0.3"), "br zstd identity gzip");
        assert_eq!(preferred("*, identity;q=0"), "br zstd gzip");
    }

    #[test]
    fn names_have_no_case_and_gzip_an_alias() {
        assert_eq!(preferred("GZIP;Q=0.5, Br"), "br gzip identity");
        assert_eq!(preferred("X-GZip"), "gzip identity");
        assert_eq!(preferred("Identity;q=0, zStd"), "zstd");
        assert_eq!(preferred("gzip;q=0, x-gzip"), "identity");
    }

    #[test]
    fn several_lines_are_one_list_and_the_first_mention_counts() {
        assert_eq!(preferred_of(&["gzip", "br;q=0.5", "identity;q=0"], &OFFERED), "gzip br");
        assert_eq!(preferred("br;q=0.1, br, gzip;q=0.5"), "gzip br identity");
    }

    #[test]
    fn space_is_allowed_where_the_grammar_has_it() {
        assert_eq!(preferred("\tgzip ;\tq=0.5 ,, br ; q=0.6"), "br gzip identity");
    }

    #[test]
    fn malformed_members_are_ignored() {
        let malformed = [
            "br;q=1.1",
            "br;q=1.001",
            "br;q=2",
            "br;q=0.1234",
            "br;q=1.0000",
            "br;q=.5",
            "br;q=-1",
            "br;q=+1",
            "br;q=0,5",
            "br;q=0.5x",
            "br;q=0.x",
            "br;q=00.5",
            "br;q=01",
            "br;q=",
            "br;q",
            "br;",
            "br;;q=1",
            "br;q = 1",
            "br;q= 1",
            "br;q=\"1\"",
            "br;level=5",
            "br;level=5;q=1",
            "br;q=1;level=5",
            "b r",
            "br/1",
            "\"br\"",
            "\u{e4}br",
            ";q=1",
        ];
        for member in malformed {
            assert_eq!(preferred(&format!("{member}, gzip;q=0.1")), "gzip identity", "{member}");
        }
        assert_eq!(preferred("identity;q=2"), "identity");
        assert_eq!(preferred("*;q=0.0000"), "identity");
    }
}
