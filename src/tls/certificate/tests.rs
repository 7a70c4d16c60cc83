use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, SanType, date_time_ymd};

use super::*;
use crate::tls::testing::{Made, made};

fn facts(made: &Made) -> Facts {
    Facts::read(&made.der()).unwrap()
}

fn names(made: &Made) -> Vec<String> {
    facts(made).names.iter().map(|name| name.to_string()).collect()
}

fn subject(change: impl FnOnce(&mut DistinguishedName)) -> Option<Box<str>> {
    let made = made(&[], |params: &mut CertificateParams| {
        params.distinguished_name = DistinguishedName::new();
        change(&mut params.distinguished_name);
    });
    client_subject(&made.der())
}

#[test]
fn names_are_the_alternatives_that_are_dns_names_in_lower_case() {
    let made = made(&["Example.COM", "*.Example.com", "192.0.2.1", "f*.example.com"], |params| {
        params.subject_alt_names.push(SanType::URI("https://other.example/".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "common.example");
    });
    assert_eq!(names(&made), ["example.com", "*.example.com"]);
}

#[test]
fn the_common_name_counts_when_there_are_no_alternatives_of_any_kind() {
    let common = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "Common.Example");
    };
    assert_eq!(names(&made(&[], common)), ["common.example"]);
    assert!(names(&made(&["192.0.2.1"], common)).is_empty());
    let sentence = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "not a host");
    };
    assert!(names(&made(&[], sentence)).is_empty());
}

#[test]
fn validity_is_read_in_unix_time_and_as_text() {
    let made = made(&["a.example"], |params| {
        params.not_before = date_time_ymd(2001, 9, 9);
        params.not_after = date_time_ymd(2051, 1, 2);
    });
    let facts = facts(&made);
    assert_eq!(facts.not_before.unix_seconds(), 999_993_600);
    assert_eq!(facts.not_after.unix_seconds(), 2_556_230_400);
    assert_eq!(facts.not_after.to_string(), "2051-01-02T00:00:00Z");
}

#[test]
fn a_subject_is_text_as_the_standard_has_it() {
    let plain = subject(|name| {
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Smith, Jones + Co");
        name.push(DnType::CommonName, "client 7");
    });
    assert_eq!(plain.as_deref(), Some("CN=client 7,O=Smith\\, Jones \\+ Co,C=DE"));
}

#[test]
fn a_subject_holds_nothing_but_printable_ascii() {
    let hostile = subject(|name| name.push(DnType::CommonName, "a\r\nX: b\0\u{7f}\u{85}ü"));
    let hostile = hostile.unwrap();
    assert!(hostile.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{hostile:?}");
    assert!(hostile.to_ascii_uppercase().ends_with("\\0D\\0AX: B\\00\\7F\\C2\\85\\C3\\BC"), "{hostile}");
}

#[test]
fn a_subject_in_another_character_set_is_shown_as_bytes() {
    let value = DnValue::BmpString("ab".try_into().unwrap());
    assert_eq!(
        subject(|name| name.push(DnType::CommonName, value)).as_deref(),
        Some("2.5.4.3=#1e0400610062")
    );
}

#[test]
fn a_subject_is_never_cut() {
    let long = |bytes: usize| subject(|name| name.push(DnType::CommonName, "x".repeat(bytes)));
    let most = SUBJECT_BYTES_MAX - "CN=".len();
    assert_eq!(long(most).map(|text| text.len()), Some(SUBJECT_BYTES_MAX));
    assert_eq!(long(most + 1), None);
    assert_eq!(subject(|_| ()), None);
    assert_eq!(client_subject(b"no certificate"), None);
}

#[test]
fn a_certificate_has_expired_after_its_last_second() {
    let made = made(&["a.example"], |params| params.not_after = date_time_ymd(2030, 1, 2));
    let last = facts(&made).not_after.unix_seconds();
    assert!(!has_expired(&made.der(), last));
    assert!(has_expired(&made.der(), last + 1));
    assert!(!has_expired(b"no certificate", u64::MAX), "what cannot be read was never accepted");
}
